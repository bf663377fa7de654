"""Where a task is submitted to: the experiment whose ``with`` block is open. In: an experiment. Out: the same."""

from __future__ import annotations

import enum
from contextvars import ContextVar
from typing import Any, Protocol

from ..errors import XpmError


class RunMode(enum.Enum):
    """What an experiment does with the tasks submitted to it."""

    NORMAL = "normal"
    """Run what is not done yet."""
    DRY_RUN = "dry_run"
    """Print what would be done, touch nothing."""
    GENERATE_ONLY = "generate_only"
    """Write job directories and scripts, submit nothing."""


class Submitter(Protocol):
    """What :meth:`Task.submit` needs of an experiment."""

    def submit(self, task: Any, *, launcher: Any, resources: Any, retry: Any) -> Any: ...


_open: ContextVar[tuple[Submitter, ...]] = ContextVar("open_experiments", default=())


def enter(experiment: Submitter) -> None:
    """Make ``experiment`` the one that tasks are submitted to."""
    _open.set((*_open.get(), experiment))


def leave(experiment: Submitter) -> None:
    """Undo :func:`enter`."""
    _open.set(tuple(other for other in _open.get() if other is not experiment))


def current() -> Submitter:
    """The innermost open experiment.

    :raises XpmError: when no ``with experiment(...)`` block is open
    """
    experiments = _open.get()
    if not experiments:
        raise XpmError(
            "a task was submitted outside of an experiment",
            hint='submit tasks inside: with experiment(workdir, "name") as xp: ...',
        )
    return experiments[-1]
