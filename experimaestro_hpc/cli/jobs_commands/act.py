"""``xpm-hpc jobs kill|retry|pull|clean``: what changes something."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from ...driver.monitor import short
from ...driver.refresh import by_launcher, forget_ends, look, session_of
from ...errors import WorkspaceError
from ...workspace.jobs import FINAL, View
from ..options import workdir_option
from ..select import Filters, agreed, chosen, filter_options, ids_argument, opened, yes_option

#: seconds that `kill` waits for the jobs to end
KILL_PATIENCE = 30.0


@click.command(name="kill")
@ids_argument
@filter_options
@yes_option
@workdir_option
def kill(ids: Sequence[str], filters: Filters, yes: bool, workdir: str | None) -> int:
    """End jobs that wait or run, and those that need them.

    Asks when the jobs are chosen by filters.
    """
    with opened(workdir) as index:
        root = index.root
        views = chosen(index, ids, filters)
        every = {one["id"]: one for one in index.views()}
    if not ids:
        views = [one for one in views if one["state"] not in FINAL]
        if not views:
            print("no job that waits or runs fits")
            return 0
        if not agreed(f"end {len(views)} jobs", yes):
            return 1
    kill_jobs(root, views, every)
    for one in views:
        print(f"{short(one['id'])} is {one['state']}" + (f" ({one['reason']})" if one["reason"] else ""))
    return 0


def kill_jobs(root: Path, views: list[View], every: dict[str, View]) -> None:
    """End jobs and those that need them, which are added to ``views``; waits a while until they have ended.

    :param every: all jobs of the workspace by id
    """
    for launcher, mine in by_launcher(views).items():
        with session_of(root, launcher) as session:
            wanted = [one["id"] for one in mine]
            children = session.client.call("dependents", jobs=wanted)["jobs"]
            mine = [*mine, *(every[job] for job in children if job in every and every[job]["state"] not in FINAL)]
            known = {one["id"] for one in views}
            views += [one for one in mine if one["id"] not in known]
            # children first: of a parent that is gone from its queue some schedulers say that it ended well
            session.client.call("cancel", jobs=[*children, *wanted])
            deadline = time.monotonic() + KILL_PATIENCE
            look(session, mine)
            while any(one["state"] not in (*FINAL, "unscheduled") for one in mine) and time.monotonic() < deadline:
                time.sleep(0.3)
                look(session, mine)


@click.command(name="retry")
@ids_argument
@filter_options
@yes_option
@workdir_option
def retry(ids: Sequence[str], filters: Filters, yes: bool, workdir: str | None) -> int:
    """Submit failed jobs again as they were, with those that failed for them."""
    with opened(workdir) as index:
        root = index.root
        views = chosen(index, ids, filters)
    if ids:
        for one in views:
            if one["state"] != "failed":
                raise WorkspaceError(f"{short(one['id'])} is {one['state']}, and only failed jobs can be tried again")
    else:
        views = [one for one in views if one["state"] == "failed" and one["reason"] != "dependency"]
        if not views:
            print("no failed job fits")
            return 0
        if not agreed(f"submit {len(views)} jobs again", yes):
            return 1
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


@click.command(name="pull")
@ids_argument
@click.option("--pattern", "patterns", multiple=True, metavar="PATTERN", help="Only files that fit, such as 'ckpt/**'.")
@filter_options
@workdir_option
def pull_(ids: Sequence[str], patterns: Sequence[str], filters: Filters, workdir: str | None) -> int:
    """Bring back files of jobs: all of them, or those that fit a PATTERN.

    \b
    xpm-hpc jobs pull 3fa2
    xpm-hpc jobs pull 3fa2 'checkpoints/**' '*.pt'
    xpm-hpc jobs pull --experiment sweep --pattern 'metrics/**'
    """
    from ...driver.mirror import pull  # for this command only

    with opened(workdir) as index:
        root = index.root
        if filters:
            views, wanted = chosen(index, (), filters), [*ids, *patterns]
        else:  # what follows the first ID and is none is a pattern
            views, wanted = chosen(index, ids[:1], filters), [*ids[1:], *patterns]
    count = 0
    for launcher, mine in by_launcher(views).items():
        with session_of(root, launcher) as session:
            count += pull(session, [one["id"] for one in mine], wanted or ["**"], label="fetching")
    print(f"{count} files came back" + (f" to {views[0]['path']}" if len(views) == 1 else f" of {len(views)} jobs"))
    return 0


@click.command(name="clean")
@ids_argument
@filter_options
@click.option("--here", is_flag=True, help="Only on this machine; the cluster keeps them.")
@yes_option
@workdir_option
def clean(ids: Sequence[str], filters: Filters, here: bool, yes: bool, workdir: str | None) -> int:
    """Remove jobs with all their files, here and on the cluster. Jobs that wait or run are left alone."""
    import shutil  # for this command only

    with opened(workdir) as index:
        root = index.root
        views = [one for one in chosen(index, ids, filters) if one["state"] in FINAL]
    if not views:
        print("no job that has ended fits")
        return 0
    place = "on this machine" if here else "here and on the cluster"
    if not agreed(f"remove {len(views)} jobs with all their files, {place}", yes):
        return 1
    removed = 0
    for launcher, mine in by_launcher(views).items():
        gone = [one["id"] for one in mine]
        if not here:
            with session_of(root, launcher) as session:
                gone = session.client.call("remove", jobs=gone)["removed"]
        for one in mine:
            if one["id"] in gone:
                path = Path(one["path"])
                path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
                removed += 1
    print(f"removed {removed} jobs")
    return 0 if removed == len(views) else 1
