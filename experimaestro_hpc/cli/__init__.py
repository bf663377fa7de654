"""The ``xpm-hpc`` command. In: the command line. Out: what a subcommand does, and an exit status.

0: all is well; 1: a job failed; 2: the call or a file is wrong; 3: the cluster could not be reached.
"""

from __future__ import annotations

import io
import os
import sys
import traceback

import click

from .. import __version__
from ..errors import XpmError
from ..workspace.words import with_short_ids
from .lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    commands_in={
        "run": ("run", "Run an experiment's script."),
        "jobs": ("jobs", "List jobs, look at them, end them."),
        "experiments": ("experiments", "List experiments, draw them, end them."),
        "launchers": ("launchers", "Launchers: where jobs can run."),
        "clean": ("clean", "Remove what no live job needs."),
        "doctor": ("doctor", "Look for what is wrong on this machine."),
        "completion": ("completion", "Make a shell complete commands and ids."),
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="xpm-hpc")
@click.option("--debug", is_flag=True, help="Show a traceback with each error.")
def cli(debug: bool) -> None:
    """Experiments as typed Python tasks, from a laptop to a cluster in one go.

    \b
    xpm-hpc run --launcher mycluster experiment.py
    xpm-hpc jobs
    """
    if debug:
        os.environ["XPM_HPC_DEBUG"] = "1"


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to fail
    try:
        status = cli.main(standalone_mode=False)
    except XpmError as error:
        sys.stdout.flush()
        words = f"error: {with_short_ids(str(error))}"
        print(traceback.format_exc() if os.environ.get("XPM_HPC_DEBUG") else words, file=sys.stderr)
        status = error.exit_status
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption) and error.ctx is not None and error.ctx.info_name == "run":
            print("The script's own arguments follow a --: xpm-hpc run SCRIPT -- ARGUMENTS", file=sys.stderr)
        status = 2
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status if isinstance(status, int) else 0)
