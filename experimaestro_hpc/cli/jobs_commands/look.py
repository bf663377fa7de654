"""``xpm-hpc jobs show|logs|why|path|diff|usage``: looking at jobs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...agent.layout import Layout
from ...driver.refresh import Refresher, look, session_of
from ...errors import WorkspaceError
from ...resources import ResourceError, Resources
from ...runtime.files import read_json
from ...workspace.jobs import FINAL, View, by_launcher, last_lines
from ...workspace.params import parameters
from ...workspace.words import duration, short, size
from ..complete import complete_jobs
from ..options import json_option, print_json, print_table, printable, report, workdir_option
from ..select import Filters, chosen, filter_options, id_argument, ids_argument, none_fits, opened
from ..table import Fit

if TYPE_CHECKING:
    from ...driver.session import Session

#: seconds between two looks at a log that is followed
FOLLOW = 1.0
#: what of `usage` becomes narrower, or is left out, where a terminal is
USAGE_FIT = Fit(
    texts=(("task",),),
    dear=("task",),
    ends=("task",),
    spare=(
        *("jobs", "GPUs asked", "cores asked", "time asked", "memory asked", "GPU busy", "busy"),
        *("GPU memory", "largest", "longest", "ask for"),
    ),
)


@click.command(name="show")
@ids_argument
@filter_options
@workdir_option
@json_option
def show(ids: Sequence[str], filters: Filters, workdir: str | None, as_json: bool) -> int:
    """Show all that is known of jobs.

    \b
    xpm-hpc jobs show 3fa2
    xpm-hpc jobs show --task train --tag lr=0.1 --json
    """
    with opened(workdir) as index, Refresher(index.root) as refresher:
        views = chosen(index, ids, filters, refresher)
        problems = refresher.refresh(views)
        if not views:
            print(none_fits(index), file=sys.stderr)
        for one in views:
            one["parameters"] = parameters(read_json(f"{one['path']}/params.json") or {}, as_json)
        if as_json:
            print_json(views)
        for one in [] if as_json else views:
            _print_job(index.root, one)
    return report(problems)


#: what a job used, in words
_UNITS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("wall", "cpu"), duration),
    **dict.fromkeys(("max_rss", "gpu_memory"), size),
    "gpu_busy": "{:.0%}".format,
}


def _print_job(root: Path, one: View) -> None:
    rows = []
    for name, value in one.items():
        if name in ("submitted", "started", "ended") and value:
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        elif name == "resources" and value:
            value = _resources(value)
        elif name == "progress" and value is not None:
            value = f"{value:.0%}"
        elif name == "used" and value:
            value = ", ".join(f"{key}={_UNITS.get(key, str)(item)}" for key, item in value.items())
        elif name == "parameters":
            value = "\n".join(f"{place} = {text}" for place, text in value.items())
        elif isinstance(value, dict):
            value = ", ".join(f"{key}={item}" for key, item in value.items())
        elif isinstance(value, list):
            value = "\n".join(_item(item) for item in value)
        if value not in (None, ""):
            rows.append((name, [printable(line) for line in str(value).splitlines()] or [""]))
    width = max(len(name) for name, _ in rows)
    for name, lines in rows:
        print(f"{name:<{width}}  " + f"\n{'':<{width}}  ".join(lines))
    lines = last_lines(Layout(root), one["id"])
    if lines:
        print("the end of its log:")
        print("\n".join(f"| {printable(line)}" for line in lines))
    print()


def _resources(fields: Mapping[str, Any]) -> str:
    try:
        return str(Resources(**fields))
    except (TypeError, ResourceError):  # of another version
        return ", ".join(f"{key}={value}" for key, value in fields.items())


def _item(item: Any) -> str:
    """One of a list's items: an attempt, or a plain value."""
    return ", ".join(f"{key}={value}" for key, value in item.items()) if isinstance(item, dict) else str(item)


@click.command(name="logs")
@id_argument
@click.option("--err", is_flag=True, help="What it wrote to its standard error.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--attempt", type=click.IntRange(1), help="The log of an earlier attempt.")
@workdir_option
def logs(id: str, err: bool, follow: bool, attempt: int | None, workdir: str | None) -> int:
    """Print what a job has printed, live from the cluster.

    \b
    xpm-hpc jobs logs -f 3fa2
    xpm-hpc jobs logs --err --attempt 1 3fa2
    """
    with opened(workdir) as index:
        root = index.root
        (one,) = chosen(index, [id], Filters())
    if not one["launcher"]:
        raise WorkspaceError(f"{one['id']} has no record of where it runs", where=one["path"])
    with session_of(root, one["launcher"]) as session:
        offset = 0
        while True:
            look(session, [one])
            is_over = one["state"] in FINAL  # before the last read, so that nothing is missed
            offset = _print_log(session, one["id"], "err" if err else "out", offset, attempt)
            if not follow or is_over:
                break
            time.sleep(FOLLOW)
    if not offset:
        reason = f" ({one['reason']})" if one["reason"] else ""
        print(f"{short(one['id'])}, {one['state']}{reason}, has written nothing there", file=sys.stderr)
    if one["state"] == "failed" and one["started"] and not err:
        print(f"for its errors: xpm-hpc jobs logs --err {short(one['id'])}", file=sys.stderr)
    return 0


def _print_log(session: Session, job: str, stream: str, offset: int, attempt: int | None) -> int:
    """Print a log from ``offset`` to its end; the new offset."""
    while True:
        data, answer = _read_log(session, job, stream, offset, attempt)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        offset = answer["offset"] + len(data)
        if not data or offset >= answer["size"]:
            return offset


def _read_log(
    session: Session, job: str, stream: str, offset: int, attempt: int | None
) -> tuple[bytes, dict[str, Any]]:
    """A piece of a log, and what the agent says of it."""
    pieces: list[bytes] = []
    answer = session.client.receive(
        "read",
        lambda file: pieces.append(file.read()),
        job=job,
        stream=stream,
        offset=offset,
        attempt=attempt,
    )
    return b"".join(pieces), answer


@click.command(name="why")
@ids_argument
@filter_options
@workdir_option
@json_option
def why_(ids: Sequence[str], filters: Filters, workdir: str | None, as_json: bool) -> int:
    """Say why jobs wait, or failed, and what to do.

    \b
    xpm-hpc jobs why 3fa2
    xpm-hpc jobs why --state queued
    """
    from ...driver.why import why  # for this command only

    found = []
    with opened(workdir) as index, Refresher(index.root) as refresher:
        views = chosen(index, ids, filters, refresher)
        if not views:
            print(none_fits(index), file=sys.stderr)
        for launcher, mine in by_launcher(views).items():
            known = refresher.session(launcher).client.call("explain", jobs=[one["id"] for one in mine])
            for job, of in known.items():
                found.append({"id": job, **of["state"], **why(job, of)._asdict(), "scheduler_says": of["words"]})
    if as_json:
        print_json(found)
    for one in [] if as_json else found:
        print(f"{short(one['id'])} is {one['state']}: {printable(one['sentence'])}")
        if one["advice"]:
            print(f"  {printable(one['advice'])}")
    return 0


@click.command(name="path")
@ids_argument
@filter_options
@workdir_option
def path(ids: Sequence[str], filters: Filters, workdir: str | None) -> int:
    """Print the directories of jobs on this machine.

    \b
    cd $(xpm-hpc jobs path 3fa2)
    cat $(xpm-hpc jobs path --task evaluate)/metrics.json
    """
    with opened(workdir) as index:
        views = chosen(index, ids, filters)
        if not views:
            print(none_fits(index), file=sys.stderr)
        for one in views:
            print(one["path"])
    return 0


@click.command(name="diff")
@click.argument("left", metavar="A", shell_complete=complete_jobs)
@click.argument("right", metavar="B", shell_complete=complete_jobs)
@workdir_option
@json_option
def diff(left: str, right: str, workdir: str | None, as_json: bool) -> int:
    """Say which parameters make two jobs differ, their own and those of the tasks that they need.

    \b
    xpm-hpc jobs diff 3fa2 77b1
    """
    from ...workspace.diff import differences

    with opened(workdir) as index:
        one, other = (chosen(index, [prefix], Filters())[0] for prefix in (left, right))
        layout = Layout(index.root)
    documents = [read_json(f"{job['path']}/params.json") for job in (one, other)]
    if documents[0] is None or documents[1] is None:
        raise WorkspaceError(
            "the parameters of a job cannot be read", where=(one if documents[0] is None else other)["path"]
        )
    found = differences(documents[0], documents[1], lambda job: read_json(str(layout.job(job) / "params.json")))
    if as_json:
        print_json([entry.to_json() for entry in found])
    elif not found:
        print("no parameter differs")
    else:
        sides = (short(one["id"]), short(other["id"]))
        print_table([entry.words() for entry in found], ["parameter", *sides], Fit((sides, ("parameter",))))
    return 0


@click.command(name="usage")
@ids_argument
@filter_options
@workdir_option
@json_option
def usage(ids: Sequence[str], filters: Filters, workdir: str | None, as_json: bool) -> int:
    """Compare what jobs asked for with what they used, by task, and say what to ask for next time.

    \b
    xpm-hpc jobs usage
    xpm-hpc jobs usage --task train --since 7d
    """
    from ...workspace.usage import HEADERS, usage_by_task  # for this command only

    with opened(workdir) as index:
        views = chosen(index, ids, filters) if ids or filters else index.views()
    found = usage_by_task(views)
    if as_json:
        print_json([one._asdict() for one in found])
    elif not found:
        print("no job that has ended says what it used")
    else:
        rows = [one.row() for one in found]
        kept = [
            number
            for number, name in enumerate(HEADERS)
            if not name.startswith("GPU") or any(row[number] for row in rows)
        ]
        headers = [HEADERS[number] for number in kept]
        print_table([[row[number] for number in kept] for row in rows], headers, USAGE_FIT)
    return 0
