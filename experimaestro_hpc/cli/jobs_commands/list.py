"""``xpm-hpc jobs list``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ...driver.monitor import duration, first_line, in_words, short
from ...driver.refresh import Refresher
from ...workspace.index import Index, Query
from ...workspace.jobs import FINAL, View
from ..options import date, json_option, print_json, print_table, report, state_styles, workdir_option
from ..select import Filters, filter_options, opened

#: seconds between two looks of --watch
INTERVAL = 2.0
#: what a table can show of a job, in the order in which it does
COLUMNS: dict[str, Callable[[View], str]] = {
    "job": lambda one: short(one["id"]),
    "state": lambda one: one["state"] + (f" ({one['reason']})" if one["reason"] else ""),
    "progress": lambda one: "" if one["progress"] is None else f"{one['progress']:.0%}",
    "where": lambda one: _place(one),
    "time": lambda one: _when(one),
    "tags": lambda one: " ".join(f"{key}={value}" for key, value in one["tags"].items()),
    "note": lambda one: _note(one),
    "submitted": lambda one: date(one["submitted"]),
    "ended": lambda one: date(one["ended"]),
    "experiments": lambda one: " ".join(one["experiments"]),
    "attempt": lambda one: str(one["attempt"]),
    "path": lambda one: one["path"],
}
USUAL = ("job", "state", "progress", "where", "time", "tags", "note")


@click.command(name="list")
@filter_options
@click.option("--all", "everything", is_flag=True, help="All jobs of all experiments, also those that are done.")
@click.option("--columns", metavar="A,B", help=f"What to show, of: {', '.join(COLUMNS)}.")
@click.option("--sort", metavar="COLUMN", help="Sort by a column; -COLUMN the other way round.")
@click.option("-n", "most", type=click.IntRange(1), help="Only the last so many.")
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
    watch: bool,
    offline: bool,
    workdir: str | None,
    as_json: bool,
) -> int:
    """List jobs, and fetch the results of those that have ended.

    Without filters: what matters now, that is the jobs of the latest experiment that are not done. With --json: all.

    \b
    xpm-hpc jobs --state failed --since 2d
    xpm-hpc jobs --all --columns job,state,tags --sort -submitted -n 20
    """
    shown = _columns(columns)
    order = _order(sort)
    with opened(workdir) as index, Refresher(index.root) as refresher:
        while True:
            brief = not (filters or everything or as_json)
            views, latest = _selected(index, filters, brief)
            before = Counter(one["state"] for one in views)
            problems = [] if offline else refresher.refresh(views)
            counts = Counter(index.states_of(latest)) - before + Counter(one["state"] for one in views)
            is_over = all(one["state"] in FINAL for one in views)
            views = [one for one in views if not filters.state or one["state"] in filters.state]
            if brief:
                views = [one for one in views if one["state"] != "done"]
            views = sorted(views, key=order[0], reverse=order[1]) if order else views
            views = views[-most:] if most else views
            text = _redraw(watch)
            if as_json:
                print_json(views)
            else:
                _print_jobs(index, views, counts, latest, shown)
            print(end=text, flush=True)
            status = report(problems)
            if not watch or is_over:
                return status
            time.sleep(INTERVAL)
            index.update()


def _redraw(watch: bool) -> str:
    """On a terminal that is watched: back to the top; what is left of the last time is cleared by the returned text."""
    if not watch or not sys.stdout.isatty():
        return ""
    print(end="\x1b[H", flush=True)
    return "\x1b[J"


def _selected(index: Index, filters: Filters, brief: bool) -> tuple[list[View], str]:
    """The jobs to look at, and the experiment that they are of when that was not said."""
    if not brief:
        return [one for one in index.views(filters.query()) if filters.fits(one)], ""
    latest = index.latest_experiment()
    return index.views(Query(states=("failed",), experiment=latest or None)), latest


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
    }
    return keys.get(name, COLUMNS[name]), text.startswith("-")


def _print_jobs(
    index: Index, views: Sequence[View], counts: Mapping[str, int], latest: str, columns: Sequence[str]
) -> None:
    if not index.count():
        print(f"no jobs in {index.root}")
        return
    if views:
        names = list(columns) or list(USUAL)
        rows = [[COLUMNS[name](one) for name in names] for one in views]
        kept = [
            number
            for number, name in enumerate(names)
            if columns or name in ("job", "state") or any(row[number] for row in rows)
        ]
        print_table(
            [[row[number] for number in kept] for row in rows],
            [names[number] for number in kept],
            fit=("note", "tags", "where"),
            styles=state_styles,
        )
    if latest:
        rest = " (all of them: --all)" if len(views) < sum(counts.values()) else ""
        print(f"experiment {latest}: {in_words(counts)}{rest}")
    elif not views:
        print(f"none of the {index.count()} jobs in {index.root} fits")


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
    return first_line(str((one["message"] if one["state"] == "failed" else one["detail"]) or ""))
