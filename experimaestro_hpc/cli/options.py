"""Options that several commands have, and how they print."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..errors import XpmError
from .table import WHOLE, Fit, laid_out

workdir_option = click.option(
    "--workdir",
    metavar="DIR",
    help="The workspace; otherwise $XPM_HPC_WORKDIR, the one that you are in, or the one used last.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(document: Any) -> None:
    """Print a document for programs."""
    print(json_text(document))


def json_text(document: Any) -> str:
    """A document for programs: an array with a line for each element, so that `grep` is of use as well."""
    if isinstance(document, list) and document:
        return "[\n" + ",\n".join(map(json.dumps, document)) + "\n]"
    return json.dumps(document, indent=1)


def print_table(
    rows: Sequence[Sequence[object]],
    headers: Sequence[str],
    fit: Fit = WHOLE,
    styles: Callable[[str, str], str] | None = None,
) -> None:
    """Print a table for people; see :func:`table_lines`."""
    print("\n".join(table_lines(rows, headers, fit, styles)))


def table_lines(
    rows: Sequence[Sequence[object]],
    headers: Sequence[str],
    fit: Fit = WHOLE,
    styles: Callable[[str, str], str] | None = None,
) -> list[str]:
    """The lines of a table for people, as they fit the terminal, if there is one.

    :param fit: what becomes narrower, or is left out, when the terminal is too narrow
    :param styles: makes a cell of a column coloured; not asked where there is no terminal, or with ``NO_COLOR``
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    is_plain = width is None or os.environ.get("NO_COLOR")
    return laid_out(cells, headers, fit, width, None if is_plain else styles)


def state_styles(column: str, cell: str) -> str:
    """States in colours: what failed in red, what runs in green, what waits in yellow."""
    if column != "state":
        return cell
    colours = {"failed": "red", "running": "green", "done": "bright_black", "held": "magenta"}
    return click.style(cell, fg=colours.get(cell.partition(" ")[0], "yellow"))


def printable(cell: object) -> str:
    """A cell without what would move the cursor."""
    text = str("" if cell is None else cell)
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def print_look(ok: bool, what: str, words: str) -> None:
    """Print what a look at something found, at once."""
    text = "\n      ".join(printable(line) for line in words.splitlines())
    print(f"{'ok  ' if ok else 'FAIL'}  {what}: {text}", flush=True)


def date(seconds: float | None) -> str:
    """A time for people, to the minute; "" for none."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""


def report(problems: Sequence[XpmError]) -> int:
    """Print what went wrong with some launchers; the exit status that it means."""
    for problem in problems:
        print(as_warning(problem), file=sys.stderr)
    return status_of(problems)


def as_warning(problem: XpmError) -> str:
    """What went wrong with a launcher, for people."""
    return f"warning: {problem}\n  shown as it was last seen"


def status_of(problems: Sequence[XpmError]) -> int:
    """The exit status that problems with launchers mean."""
    return max((problem.exit_status for problem in problems), default=0)
