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

workdir_option = click.option(
    "--workdir",
    metavar="DIR",
    help="The workspace; otherwise $XPM_HPC_WORKDIR, or the one used last.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(document: Any) -> None:
    """Print a document for programs."""
    print(json.dumps(document, indent=1))


def print_table(
    rows: Sequence[Sequence[object]],
    headers: Sequence[str],
    fit: Sequence[str] = (),
    styles: Callable[[str, str], str] | None = None,
) -> None:
    """Print a table for people.

    :param fit: columns that are cut, in this order, when the terminal is too narrow
    :param styles: makes a cell of a column coloured; not asked where there is no terminal, or with ``NO_COLOR``
    """
    from tabulate import tabulate  # only where there is a table

    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        cells = fitted(cells, headers, fit, shutil.get_terminal_size().columns)
        if styles is not None and not os.environ.get("NO_COLOR"):
            cells = [[styles(name, cell) for name, cell in zip(headers, row)] for row in cells]
    print(tabulate(cells, headers=headers, disable_numparse=True))


def fitted(rows: Sequence[Sequence[str]], headers: Sequence[str], fit: Sequence[str], width: int) -> list[list[str]]:
    """``rows`` with the columns ``fit`` cut, one after the other, until a line has at most ``width`` characters."""
    table = [list(row) for row in rows]
    widths = [max([len(name), *(len(row[number]) for row in table)]) for number, name in enumerate(headers)]
    for name in fit:
        over = sum(widths) + 2 * (len(widths) - 1) - width
        if over <= 0 or name not in headers:
            continue
        number = list(headers).index(name)
        most = max(len(name), 8, widths[number] - over)
        for row in table:
            row[number] = row[number] if len(row[number]) <= most else row[number][: most - 1] + "…"
        widths[number] = min(widths[number], most)
    return table


def state_styles(column: str, cell: str) -> str:
    """States in colours: what failed in red, what runs in green, what waits in yellow."""
    if column != "state":
        return cell
    colours = {"failed": "red", "running": "green", "done": "bright_black", "held": "magenta"}
    return click.style(cell, fg=colours.get(cell.partition(" ")[0], "yellow"))


def printable(cell: object) -> str:
    """A cell without what would move the cursor."""
    return "".join(one if one.isprintable() else "?" for one in str("" if cell is None else cell))


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
        print(f"warning: {problem}\n  shown as it was last seen", file=sys.stderr)
    return max((problem.exit_status for problem in problems), default=0)
