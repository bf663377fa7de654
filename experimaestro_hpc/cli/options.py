"""Options that several commands have, and how they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from ..errors import XpmError

workdir_option = click.option(
    "--workdir",
    metavar="DIR",
    help="The workspace; otherwise $XPM_HPC_WORKDIR, or the one used last.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(document: Any) -> None:
    """Print a document for programs."""
    print(json.dumps(document, indent=1))


def print_table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
    """Print a table for people."""
    from tabulate import tabulate  # only where there is a table

    print(tabulate([[printable(cell) for cell in row] for row in rows], headers=headers, disable_numparse=True))


def printable(cell: object) -> str:
    """A cell without what would move the cursor."""
    return "".join(one if one.isprintable() else "?" for one in str("" if cell is None else cell))


def report(problems: Sequence[XpmError]) -> int:
    """Print what went wrong with some launchers; the exit status that it means."""
    for problem in problems:
        print(f"warning: {problem}\n  shown as it was last seen", file=sys.stderr)
    return max((problem.exit_status for problem in problems), default=0)
