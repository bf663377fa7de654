"""What ``xpm-hpc run`` wants of a script's experiments. In: command line options. Out: the same, in the experiment."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """Options that win over what the script says.

    :ivar launcher: a launcher's name or file; "" leaves the script's
    :ivar workdir: a folder; "" leaves the script's
    :ivar detach: end the process when all is submitted
    :ivar dry_run: print the plan and touch nothing
    :ivar scripts: with ``dry_run``, print the job scripts too
    :ivar notify: what to run, or where to POST, when an experiment ends; see :mod:`.notify`
    :ivar quiet: print only what fails
    :ivar settings: ``name=value`` each, which the script is to read
    """

    launcher: str = ""
    workdir: str = ""
    detach: bool = False
    dry_run: bool = False
    scripts: bool = False
    notify: str = ""
    quiet: bool = False
    settings: tuple[str, ...] = ()


run_options: ContextVar[RunOptions] = ContextVar("run_options", default=RunOptions())  # noqa: B039 - it is frozen
