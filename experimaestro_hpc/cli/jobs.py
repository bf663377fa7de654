"""``xpm-hpc jobs``: what became of the jobs of a workspace."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from ..driver.monitor import LAST_LINES, duration, first_line, last_lines, short
from ..driver.refresh import by_launcher, forget_ends, look, refresh, session_of
from ..driver.session import Session
from ..errors import WorkspaceError, XpmError
from ..schedulers.base import STATES
from ..workspace.jobs import FINAL, View, load_jobs, resolve
from ..workspace.recent import find_workspace
from .lazy import DefaultGroup
from .options import json_option, print_json, print_table, printable, report, workdir_option

#: seconds between two looks at a log that is followed
FOLLOW = 1.0
#: seconds that `kill` waits for the jobs to end
KILL_PATIENCE = 30.0

ids_argument = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.group(name="jobs", cls=DefaultGroup)
def command() -> None:
    """Jobs of a workspace. An ID is the beginning of an identifier, or task/identifier.

    `jobs` alone means `jobs list`, whose --help tells of filters; options come after the command's name.
    """


@command.command(name="list")
@click.option("--state", type=click.Choice(STATES), multiple=True, help="Only jobs in this state.")
@click.option("--task", help="Only tasks whose name, or its end, fits this pattern, such as 'train*'.")
@click.option("--tag", multiple=True, metavar="K=V", help="Only jobs with this tag.")
@click.option("--experiment", help="Only jobs of this experiment.")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option("--offline", is_flag=True, help="Ask no cluster: show what was last seen.")
@workdir_option
@json_option
def list_(
    state: Sequence[str],
    task: str | None,
    tag: Sequence[str],
    experiment: str | None,
    watch: bool,
    offline: bool,
    workdir: str | None,
    as_json: bool,
) -> int:
    """List jobs, and fetch the results of those that have ended."""
    root = find_workspace(workdir)
    pairs = [_pair(one) for one in tag]
    while True:
        every = load_jobs(root)
        views = [one for one in every if _fits(one, task, pairs, experiment)]
        problems = [] if offline else refresh(root, views)
        views = [one for one in views if not state or one["state"] in state]
        if watch and sys.stdout.isatty():
            click.clear()
        if as_json:
            print_json(views)
        else:
            _print_jobs(root, views, len(every))
        status = report(problems)
        if not watch or all(one["state"] in FINAL for one in views):
            return status
        time.sleep(2.0)


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--tag")
    return key, value


def _fits(one: View, task: str | None, tags: Sequence[tuple[str, str]], experiment: str | None) -> bool:
    return (
        (task is None or any(fnmatchcase(one["task"], pattern) for pattern in (task.lower(), f"*.{task.lower()}")))
        and all(key in one["tags"] and str(one["tags"][key]) == value for key, value in tags)
        and (experiment is None or experiment in one["experiments"])
    )


def _print_jobs(root: Path, views: Sequence[View], all_: int) -> None:
    if not views:
        print(f"none of the {all_} jobs in {root} fits" if all_ else f"no jobs in {root}")
        return
    rows = [
        (
            short(one["id"]),
            one["state"] + (f" ({one['reason']})" if one["reason"] else ""),
            "" if one["progress"] is None else f"{one['progress']:.0%}",
            _place(one),
            _when(one),
            " ".join(f"{key}={value}" for key, value in one["tags"].items()),
            _note(one),
        )
        for one in views
    ]
    headers = ["job", "state", "progress", "where", "time", "tags", "note"]
    shown = [index for index in range(len(headers)) if index < 2 or any(row[index] for row in rows)]
    print_table([[row[index] for index in shown] for row in rows], [headers[index] for index in shown])


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
    return first_line(str((one["message"] if one["state"] == "failed" else one["detail"]) or ""))[:60]


def _chosen(root: Path, ids: Sequence[str]) -> tuple[list[View], list[XpmError]]:
    """The jobs that the prefixes mean, as they are now."""
    views = resolve(load_jobs(root), ids)
    return views, refresh(root, views)


@command.command(name="show")
@ids_argument
@workdir_option
@json_option
def show(ids: Sequence[str], workdir: str | None, as_json: bool) -> int:
    """Show all that is known of jobs."""
    root = find_workspace(workdir)
    views, problems = _chosen(root, ids)
    if as_json:
        print_json(views)
    for one in [] if as_json else views:
        _print_job(root, one)
    return report(problems)


def _print_job(root: Path, one: View) -> None:
    from ..agent.layout import Layout  # for this command only

    rows = []
    for name, value in one.items():
        if name in ("submitted", "started", "ended") and value:
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        elif isinstance(value, dict):
            value = ", ".join(f"{key}={item}" for key, item in value.items())
        elif isinstance(value, list):
            value = ", ".join(str(item) for item in value)
        if value not in (None, ""):
            rows.append((name, "\n".join(printable(line) for line in str(value).splitlines())))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    lines = last_lines(Layout(root), one["id"], LAST_LINES)
    if lines:
        print("the end of its log:")
        print("\n".join(f"| {line}" for line in lines))
    print()


@command.command(name="logs")
@click.argument("id", metavar="ID")
@click.option("--err", is_flag=True, help="What it wrote to its standard error.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@workdir_option
def logs(id: str, err: bool, follow: bool, workdir: str | None) -> int:
    """Print what a job has printed, live from the cluster."""
    root = find_workspace(workdir)
    (one,) = resolve(load_jobs(root), [id])
    if not one["launcher"]:
        raise WorkspaceError(f"{one['id']} has no record of where it runs", where=one["path"])
    with session_of(root, one["launcher"]) as session:
        offset = 0
        while True:
            look(session, [one])
            is_over = one["state"] in FINAL  # before the last read, so that nothing is missed
            offset = _print_log(session, one["id"], "err" if err else "out", offset)
            if not follow or is_over:
                return 0
            time.sleep(FOLLOW)


def _print_log(session: Session, job: str, stream: str, offset: int) -> int:
    """Print a log from ``offset`` to its end; the new offset."""
    while True:
        data, answer = _read_log(session, job, stream, offset)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        offset = answer["offset"] + len(data)
        if not data or offset >= answer["size"]:
            return offset


def _read_log(session: Session, job: str, stream: str, offset: int) -> tuple[bytes, dict[str, Any]]:
    """A piece of a log, and what the agent says of it."""
    pieces: list[bytes] = []
    answer = session.client.receive(
        "read", lambda file: pieces.append(file.read()), job=job, stream=stream, offset=offset
    )
    return b"".join(pieces), answer


@command.command(name="why")
@ids_argument
@workdir_option
@json_option
def why_(ids: Sequence[str], workdir: str | None, as_json: bool) -> int:
    """Say why jobs wait, or failed, and what to do."""
    from ..driver.why import why  # for this command only

    root = find_workspace(workdir)
    views = resolve(load_jobs(root), ids)
    found = []
    for launcher, mine in by_launcher(views).items():
        with session_of(root, launcher) as session:
            known = session.client.call("explain", jobs=[one["id"] for one in mine])
        for job, of in known.items():
            found.append({"id": job, **of["state"], **why(job, of)._asdict(), "scheduler_says": of["words"]})
    if as_json:
        print_json(found)
    for one in [] if as_json else found:
        print(f"{short(one['id'])} is {one['state']}: {one['sentence']}")
        if one["advice"]:
            print(f"  {one['advice']}")
    return 0


@command.command(name="retry")
@ids_argument
@workdir_option
def retry(ids: Sequence[str], workdir: str | None) -> int:
    """Submit failed jobs again as they were, with those that failed for them."""
    root = find_workspace(workdir)
    every = load_jobs(root)
    views = resolve(every, ids)
    for one in views:
        if one["state"] != "failed":
            raise WorkspaceError(f"{short(one['id'])} is {one['state']}, and only failed jobs can be tried again")
    status = 0
    for launcher, mine in by_launcher(views).items():
        with session_of(root, launcher) as session:
            answer = session.client.call("retry", jobs=[one["id"] for one in mine])
            forget_ends(session, answer["jobs"])
        for job in answer["jobs"]:
            problem = answer["problems"].get(job)
            print(f"{short(job)} " + (f"was not submitted: {problem}" if problem else "is submitted again"))
            status = 1 if problem else status
    return status


@command.command(name="kill")
@ids_argument
@workdir_option
def kill(ids: Sequence[str], workdir: str | None) -> int:
    """End jobs that wait or run, and those that need them."""
    root = find_workspace(workdir)
    every = load_jobs(root)
    views = resolve(every, ids)
    for launcher, mine in by_launcher(views).items():
        with session_of(root, launcher) as session:
            wanted = [one["id"] for one in mine]
            children = session.client.call("dependents", jobs=wanted)["jobs"]
            mine = [*mine, *(one for one in every if one["id"] in children and one["state"] not in FINAL)]
            views += [one for one in mine if one not in views]
            # children first: of a parent that is gone from its queue some schedulers say that it ended well
            session.client.call("cancel", jobs=[*children, *wanted])
            deadline = time.monotonic() + KILL_PATIENCE
            look(session, mine)
            while any(one["state"] not in (*FINAL, "unscheduled") for one in mine) and time.monotonic() < deadline:
                time.sleep(0.3)
                look(session, mine)
    for one in views:
        print(f"{short(one['id'])} is {one['state']}" + (f" ({one['reason']})" if one["reason"] else ""))
    return 0


@command.command(name="diff")
@click.argument("left", metavar="A")
@click.argument("right", metavar="B")
@workdir_option
@json_option
def diff(left: str, right: str, workdir: str | None, as_json: bool) -> int:
    """Say which parameters make two jobs differ."""
    from ..runtime.files import read_json  # for this command only
    from ..workspace.diff import differences

    views = load_jobs(find_workspace(workdir))
    one, other = (resolve(views, [prefix])[0] for prefix in (left, right))
    documents = [read_json(f"{job['path']}/params.json") for job in (one, other)]
    if documents[0] is None or documents[1] is None:
        raise WorkspaceError(
            "the parameters of a job cannot be read", where=(one if documents[0] is None else other)["path"]
        )
    found = differences(documents[0], documents[1])
    if as_json:
        print_json([entry._asdict() for entry in found])
    elif not found:
        print("no parameter differs")
    else:
        print_table(found, ["parameter", short(one["id"]), short(other["id"])])
    return 0


@command.command(name="path")
@ids_argument
@workdir_option
def path(ids: Sequence[str], workdir: str | None) -> int:
    """Print the directories of jobs on this machine."""
    for one in resolve(load_jobs(find_workspace(workdir)), ids):
        print(one["path"])
    return 0


@command.command(name="pull")
@click.argument("id", metavar="ID")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@workdir_option
def pull_(id: str, patterns: Sequence[str], workdir: str | None) -> int:
    """Bring back a job's files that fit the PATTERNs; all of them without one."""
    from ..driver.mirror import pull  # for this command only

    root = find_workspace(workdir)
    (one,) = resolve(load_jobs(root), [id])
    with session_of(root, one["launcher"]) as session:
        count = pull(session, [one["id"]], list(patterns) or ["**"], label="fetching")
    print(f"{count} files came back to {one['path']}")
    return 0
