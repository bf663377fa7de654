"""``xpm-hpc run``: run an experiment's script. In: a script, its arguments, options that win over what it says."""

from __future__ import annotations

import json
import os
import sys
import traceback
import types
from pathlib import Path

import click

from ..config.configure import VARIABLE
from ..driver.options import RunOptions, run_options
from ..errors import XpmError
from .complete import complete_launchers


@click.command(name="run")
@click.option(
    "--launcher", metavar="L", default="", shell_complete=complete_launchers, help="A launcher's name, or a .toml file."
)
@click.option("--workdir", metavar="DIR", default="", help="The workspace, in place of the script's own.")
@click.option("--detach", is_flag=True, help="Return when all is submitted; the jobs go on.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, touch nothing.")
@click.option("--scripts", is_flag=True, help="With --dry-run: also print each job script.")
@click.option("--notify", metavar="CMD|URL", default="", help="What to run, or where to POST, when it ends or fails.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what fails.")
@click.option("-c", "settings", multiple=True, metavar="NAME=VALUE", help="A setting for the script's configure().")
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    launcher: str,
    workdir: str,
    detach: bool,
    dry_run: bool,
    scripts: bool,
    notify: str,
    quiet: bool,
    settings: tuple[str, ...],
    script: str,
    arguments: tuple[str, ...],
) -> None:
    """Run the experiment in SCRIPT, with its own ARGUMENTS after `--`.

    \b
    xpm-hpc run --launcher mycluster --detach experiment.py -- DIR --seed 3
    xpm-hpc run -c lr=0.1 -c model.layers=2 experiment.py
    xpm-hpc run --dry-run --scripts experiment.py
    xpm-hpc run --notify 'notify-send "$XPM_HPC_MESSAGE"' experiment.py
    """
    if scripts and not dry_run:
        raise click.UsageError("--scripts shows what --dry-run would submit: give both")
    if settings:
        os.environ[VARIABLE] = json.dumps(settings)
    run_options.set(RunOptions(launcher, workdir, detach, dry_run, scripts, notify, quiet, settings))
    run_script(Path(script), [script, *arguments])


def run_script(path: Path, argv: list[str]) -> None:
    """Run a script as ``python SCRIPT`` would.

    :raises XpmError: it cannot be read, or is no Python
    """
    path = path.resolve()
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise XpmError(f"the script cannot be run: {error}", where=f"{path}{line}") from error
    main = types.ModuleType("__main__")
    main.__file__ = str(path)
    main.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = main
    sys.argv = argv
    sys.path.insert(0, str(path.parent))
    try:
        exec(code, main.__dict__)  # noqa: S102 - the user's script is what this command is for
    except XpmError:
        raise
    except Exception as error:
        if os.environ.get("XPM_HPC_DEBUG"):
            raise
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != str(path):
            trace = trace.tb_next  # what is ours is not what went wrong
        sys.stdout.flush()
        traceback.print_exception(type(error), error, trace or error.__traceback__)
        raise SystemExit(1) from None
