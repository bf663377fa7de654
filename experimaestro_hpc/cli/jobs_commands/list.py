"""``xpm-hpc jobs list``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from ...driver.refresh import Refresher
from ...errors import XpmError
from ...workspace.index import Index
from ...workspace.jobs import FINAL, View
from ...workspace.query import Query
from ...workspace.words import duration, first_line, in_words, short, tags_in_words
from ..options import (
    as_warning,
    date,
    json_option,
    json_text,
    report,
    state_styles,
    status_of,
    table_lines,
    workdir_option,
)
from ..screen import Screen
from ..select import Filters, filter_options, none_fits, opened
from ..table import Fit

#: seconds between two looks of --watch
INTERVAL = 2.0
#: what a table can show of a job, in the order in which it does
COLUMNS: dict[str, Callable[[View], str]] = {
    "job": lambda one: short(one["id"]),
    "state": lambda one: one["state"] + (f" ({one['reason']})" if one["reason"] else ""),
    "progress": lambda one: "" if one["progress"] is None else f"{one['progress']:.0%}",
    "where": lambda one: _place(one),
    "time": lambda one: _when(one),
    "tags": lambda one: tags_in_words(one["tags"]),
    "note": lambda one: _note(one),
    "submitted": lambda one: date(one["submitted"]),
    "ended": lambda one: date(one["ended"]),
    "experiments": lambda one: " ".join(one["experiments"]),
    "attempt": lambda one: str(one["attempt"]),
    "launcher": lambda one: Path(one["launcher"] or "").stem,
    "native_id": lambda one: str(one["native_id"] or ""),
    "id": lambda one: one["id"],
    "path": lambda one: one["path"],
}
USUAL = ("job", "state", "progress", "where", "time", "tags", "note")
#: what becomes narrower, or is left out, where a terminal is
FIT = Fit(
    texts=(("note",), ("where", "experiments", "path", "id"), ("tags",)),
    dear=("tags",),
    ends=("job", "path"),
    spare=(
        *("path", "id", "experiments", "launcher", "native_id", "attempt", "ended", "submitted"),
        *("where", "progress", "time", "note"),
    ),
)


@click.command(name="list")
@filter_options
@click.option("--all", "everything", is_flag=True, help="All jobs of all experiments, also those that are done.")
@click.option("--columns", metavar="A,B", help=f"What to show, of: {', '.join(COLUMNS)}.")
@click.option("--sort", metavar="COLUMN", help="Sort by a column; -COLUMN the other way round.")
@click.option("-n", "most", type=click.IntRange(1), help="Only so many: the latest, or the first of --sort.")
@click.option("-q", "--quiet", is_flag=True, help="Print only their ids.")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C or until all have ended.")
@click.option("--offline", is_flag=True, help="Ask no cluster: show what was last seen.")
@workdir_option
@json_option
def list_(
    filters: Filters,
    everything: bool,
    columns: str | None,
    sort: str | None,
    most: int | None,
    quiet: bool,
    watch: bool,
    offline: bool,
    workdir: str | None,
    as_json: bool,
) -> int:
    """List jobs, and fetch the results of those that have ended.

    Without filters: what matters now, that is the jobs of the latest experiment that are not done; of its earlier runs
    only those that have not ended. With --json: all.

    \b
    xpm-hpc jobs --state failed --since 2d
    xpm-hpc jobs --all --columns job,state,tags --sort -submitted -n 20
    xpm-hpc jobs --task 'train*' --tag lr=0.1 --watch
    xpm-hpc jobs --state done --quiet | xargs xpm-hpc jobs path
    """
    show = partial(_lines, names=_columns(columns), as_json=as_json, quiet=quiet)
    order = _order(sort)
    with opened(workdir) as index, Refresher(index.root) as refresher:

        def look() -> _Look:
            brief = not (filters or everything or as_json)
            latest = index.latest_experiment() if brief else ""
            # of what the index knows to have ended no more than can be shown
            limit = most if order is None and not filters.tag else None
            if brief:
                query = Query(states=("failed",), experiment=latest or None, is_current=True, most=limit)
            else:
                query = replace(filters.query(), most=limit)
            views = [one for one in index.views(query) if filters.fits(one)]
            before = Counter(one["state"] for one in views)
            problems = [] if offline else refresher.refresh(views)
            counts = Counter(index.states_of(latest)) - before + Counter(one["state"] for one in views)
            is_over = all(one["state"] in FINAL for one in views)
            views = [one for one in views if not filters.state or one["state"] in filters.state]
            if brief:
                views = [one for one in views if one["state"] != "done"]
            if order:
                views = sorted(views, key=order[0], reverse=order[1])[:most]
            elif most:
                views = views[-most:]
            return _Look(views, counts, latest, problems, is_over, brief)

        if watch:
            return _watch(index, look, show)
        found = look()
        print("".join(f"{line}\n" for line in show(index, found)), end="")
    return report(found.problems)


class _Look(NamedTuple):
    """What one look at the jobs gave.

    :ivar views: those to be shown
    :ivar counts: how many of the experiment ``latest`` are in which state, if nothing else was asked for
    :ivar is_over: all of them have ended
    :ivar is_brief: nothing was asked for: what matters now
    """

    views: Sequence[View]
    counts: Mapping[str, int]
    latest: str
    problems: Sequence[XpmError]
    is_over: bool
    is_brief: bool


def _watch(index: Index, look: Callable[[], _Look], show: Callable[[Index, _Look], list[str]]) -> int:
    """Show it again and again, until all have ended or somebody presses Ctrl-C; a pipe gets what has changed."""
    status, before = 0, None
    try:
        with Screen() as screen:
            while True:
                found = look()
                status = status_of(found.problems)
                news = [[one["id"], one["state"], one["progress"], one["attempt"]] for one in found.views]
                if screen.is_terminal or news != before:
                    warnings = [line for problem in found.problems for line in as_warning(problem).splitlines()]
                    screen.show([*show(index, found), *(warnings if screen.is_terminal else ())])
                    if not screen.is_terminal:
                        report(found.problems)
                before = news
                if found.is_over:
                    return status
                time.sleep(INTERVAL)
                index.update()
    except KeyboardInterrupt:  # how one leaves it
        return status


def _columns(text: str | None) -> Sequence[str]:
    if text is None:
        return ()
    names = [one.strip() for one in text.split(",") if one.strip()]
    for one in names:
        if one not in COLUMNS:
            raise click.BadParameter(f"no column {one!r}; there are: {', '.join(COLUMNS)}", param_hint="--columns")
    return names


def _order(text: str | None) -> Any:
    if text is None:
        return None
    name = text.removeprefix("-")
    if name not in COLUMNS:
        raise click.BadParameter(f"no column {name!r}; there are: {', '.join(COLUMNS)}", param_hint="--sort")
    keys: dict[str, Any] = {
        "submitted": lambda one: one["submitted"] or 0,
        "ended": lambda one: one["ended"] or 0,
        "time": lambda one: (one["ended"] or time.time()) - (one["started"] or time.time()),
        "progress": lambda one: one["progress"] or 0,
        "attempt": lambda one: one["attempt"],
        "tags": lambda one: [(key, *_rank(value)) for key, value in one["tags"].items()],
    }
    return keys.get(name, COLUMNS[name]), text.startswith("-")


def _rank(value: Any) -> tuple[bool, float, str]:
    """What a tag's value is sorted by: numbers as such, before texts."""
    is_number = isinstance(value, (int, float))
    return not is_number, value if is_number else 0.0, str(value)


def _lines(index: Index, found: _Look, names: Sequence[str], as_json: bool, quiet: bool) -> list[str]:
    """What is printed of a look."""
    views = found.views
    if quiet:
        return [one["id"] for one in views]
    if as_json:
        return [json_text(views)]
    if not index.count():
        return [f"no jobs in {index.root}"]
    lines = []
    if views:
        columns = names or USUAL
        rows = [[COLUMNS[name](one) for name in columns] for one in views]
        kept = [
            number
            for number, name in enumerate(columns)
            if names or name in ("job", "state") or any(row[number] for row in rows)
        ]
        cells = [[row[number] for number in kept] for row in rows]
        lines += table_lines(cells, [columns[number] for number in kept], FIT, state_styles)
    if found.latest:
        rest = " (all of them: --all)" if len(views) < sum(found.counts.values()) else ""
        lines.append(f"experiment {found.latest}: {in_words(found.counts)}{rest}")
    elif not views and found.is_brief:
        what = f"none of its {index.count()} jobs failed or is under way (all of them: --all)"
        lines.append(f"no experiment is known in {index.root}; {what}")
    elif not views:
        lines.append(none_fits(index))
    return lines


def _place(one: View) -> str:
    words = [Path(one["launcher"] or "").name.removesuffix(".toml")]
    if one["launcher"] != "local" and one["native_id"]:
        words.append(str(one["native_id"]))
    if one["host"]:
        words.append(f"on {one['host']}")
    return " ".join(words)


def _when(one: View) -> str:
    now = time.time()
    if one["started"]:
        return duration((one["ended"] or now) - one["started"])
    if one["submitted"] and one["state"] not in FINAL:
        return f"for {duration(now - one['submitted'])}"
    return ""


def _note(one: View) -> str:
    note = (one["message"] if one["state"] == "failed" else one["detail"]) or ""
    return "" if note in ("Dependency", "None") else first_line(str(note))  # the state says it
