"""``xpm-hpc jobs kill|retry|pull|clean``: what changes something."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import click

from ...agent.files import manifest
from ...agent.layout import Layout
from ...driver.refresh import Refresher, forget_ends, look
from ...errors import WorkspaceError
from ...workspace.index import Index
from ...workspace.jobs import FINAL, View, by_launcher
from ...workspace.words import count_of, short, size
from ..options import report, workdir_option
from ..select import Filters, agreed, chosen, filter_options, ids_argument, opened, yes_option

#: seconds that `kill` waits for the jobs to end
KILL_PATIENCE = 30.0
#: the states of jobs that need no more waiting
OVER = (*FINAL, "unscheduled")


@click.command(name="kill")
@ids_argument
@filter_options
@yes_option
@workdir_option
def kill(ids: Sequence[str], filters: Filters, yes: bool, workdir: str | None) -> int:
    """End jobs that wait or run, and those that need them. Asks, unless all of them are named.

    \b
    xpm-hpc jobs kill 3fa2 77b1
    xpm-hpc jobs kill --experiment sweep --state queued --yes
    """
    with opened(workdir, is_change=True) as index, Refresher(index.root) as refresher:
        views = chosen(index, ids, filters, refresher)
        if not ids:
            views = [one for one in views if one["state"] not in FINAL]
            if not views:
                print("no job that waits or runs fits")
                return 0
            if not agreed(f"end {count_of(views)}, and those that need them", yes, views):
                return 1
        kill_jobs(index, refresher, views)
    for one in views:
        words = f" ({one['reason']})" if one["reason"] else ""
        late = "" if one["state"] in OVER else f": it was asked to end, and has not after {KILL_PATIENCE:.0f} s"
        print(f"{short(one['id'])} is {one['state']}{words}{late}")
    return 0


def kill_jobs(index: Index, refresher: Refresher, views: list[View]) -> None:
    """End jobs and those that need them, which are added to ``views``; waits a while until they have ended."""
    for launcher, mine in by_launcher(views).items():
        session = refresher.session(launcher)
        wanted = [one["id"] for one in mine]
        children = session.client.call("dependents", jobs=wanted)["jobs"]
        known = {one["id"] for one in views}
        more = [one for one in index.views_of(children) if one["state"] not in FINAL and one["id"] not in known]
        views += more
        mine += more
        # children first: of a parent that is gone from its queue some schedulers say that it ended well
        session.client.call("cancel", jobs=[*children, *wanted])
        deadline = time.monotonic() + KILL_PATIENCE
        look(session, mine)
        while any(one["state"] not in OVER for one in mine) and time.monotonic() < deadline:
            time.sleep(0.3)
            look(session, mine)


@click.command(name="retry")
@ids_argument
@filter_options
@yes_option
@workdir_option
def retry(ids: Sequence[str], filters: Filters, yes: bool, workdir: str | None) -> int:
    """Submit failed jobs again as they were, with those that failed for them. Asks, unless all of them are named.

    \b
    xpm-hpc jobs retry 3fa2
    xpm-hpc jobs retry --state failed --task 'train*' --since 1d
    """
    with opened(workdir, is_change=True) as index, Refresher(index.root) as refresher:
        views = chosen(index, ids, filters, refresher)
        if ids:
            report(refresher.refresh(views))  # one that failed just now can be tried again
            for one in views:
                if one["state"] != "failed":
                    what = f"{short(one['id'])} is {one['state']}, and only failed jobs can be tried again"
                    raise WorkspaceError(what)
        else:
            views = [one for one in views if one["state"] == "failed" and one["reason"] != "dependency"]
            if not views:
                print("no failed job fits")
                return 0
            more = [] if yes else _failed_for(index, refresher, views)
            for_them = f", {len(more)} of them because one that they need failed" if more else ""
            if not agreed(f"submit {count_of([*views, *more])} again{for_them}", yes, [*views, *more]):
                return 1
        status = 0
        for launcher, mine in by_launcher(views).items():
            session = refresher.session(launcher)
            answer = session.client.call("retry", jobs=[one["id"] for one in mine])
            forget_ends(session, answer["jobs"])
            for job in answer["jobs"]:
                problem = answer["problems"].get(job)
                print(f"{short(job)} " + (f"was not submitted: {problem}" if problem else "is submitted again"))
                status = 1 if problem else status
    print("with the code that they had; to run what you have changed, run the script again", file=sys.stderr)
    return status


def _failed_for(index: Index, refresher: Refresher, views: Sequence[View]) -> list[View]:
    """The jobs that failed because one of ``views`` did: they are tried again with it."""
    children: list[str] = []
    for launcher, mine in by_launcher(views).items():
        children += refresher.session(launcher).client.call("dependents", jobs=[one["id"] for one in mine])["jobs"]
    known = {one["id"] for one in views}
    found = index.views_of([job for job in dict.fromkeys(children) if job not in known])
    report(refresher.refresh(found))
    return [one for one in found if one["reason"] == "dependency"]


@click.command(name="pull")
@ids_argument
@click.option("--pattern", "patterns", multiple=True, metavar="PATTERN", help="Only files that fit, such as 'ckpt/**'.")
@filter_options
@workdir_option
def pull_(ids: Sequence[str], patterns: Sequence[str], filters: Filters, workdir: str | None) -> int:
    """Bring back files of jobs: all of them, or those that fit a PATTERN, which may follow the IDs.

    \b
    xpm-hpc jobs pull 3fa2 77b1
    xpm-hpc jobs pull 3fa2 'checkpoints/**' '*.pt'
    xpm-hpc jobs pull --experiment sweep --pattern 'metrics/**'
    """
    from ...driver.mirror import pull  # for this command only

    with opened(workdir) as index, Refresher(index.root) as refresher:
        named, words = _ids_and_patterns(index, ids, bool(filters))
        wanted = [*words, *patterns]
        views = chosen(index, named, filters, refresher)
        came: list[str] = []
        for launcher, mine in by_launcher(views).items():
            jobs = [one["id"] for one in mine]
            pull(refresher.session(launcher), jobs, wanted or ["**"], label="fetching", names=came)
    count = f"{len(came)} {'file' if len(came) == 1 else 'files'}"
    amount = f", {size(_size(index.root, came))}," if came else ""
    where = f"to {views[0]['path']}" if len(views) == 1 else f"of {count_of(views)}"
    print(f"{count}{amount} came back {where}{'' if came else ': nothing is new'}")
    missing = _missing(wanted, views)
    for one in missing:
        print(f"no file there fits {one!r}", file=sys.stderr)
    return 1 if missing and len(missing) == len(wanted) else 0


def _size(root: Path, names: Sequence[str]) -> int:
    """Bytes in files; one that somebody has just removed counts for nothing."""
    total = 0
    for name in names:
        with suppress(OSError):
            total += os.lstat(f"{root}/{name}").st_size
    return total


def _missing(patterns: Sequence[str], views: Sequence[View]) -> list[str]:
    """The patterns that no file of the jobs fits; all that fits there is here by now."""
    names = [name for one in views for name in manifest(one["path"])] if patterns else []
    return [one for one in patterns if not any(fnmatchcase(name, one.replace("**", "*")) for name in names)]


def _ids_and_patterns(index: Index, words: Sequence[str], all_: bool) -> tuple[Sequence[str], Sequence[str]]:
    """Words that begin the id of a job, and after them patterns of files.

    :param all_: also the first word may be a pattern
    """
    first = 0 if all_ else 1
    while first < len(words) and _is_id(index, words[first]):
        first += 1
    return words[:first], words[first:]


def _is_id(index: Index, word: str) -> bool:
    return bool(word.strip()) and bool(index.beginnings(word.strip().lower(), 1))


@click.command(name="clean")
@ids_argument
@filter_options
@click.option(
    "--here",
    is_flag=True,
    help="Only on this machine; the cluster keeps them. Also jobs that have not ended there, by ID or --state.",
)
@yes_option
@workdir_option
def clean(ids: Sequence[str], filters: Filters, here: bool, yes: bool, workdir: str | None) -> int:
    """Remove jobs with all their files, here and on the cluster. Asks. Jobs that wait or run are left alone.

    \b
    xpm-hpc jobs clean 3fa2
    xpm-hpc jobs clean --state failed --experiment sweep --yes
    xpm-hpc jobs clean --here --launcher gone --state queued --state running
    """
    import shutil  # for this command only

    with opened(workdir, is_change=True) as index, Refresher(index.root) as refresher:
        views = chosen(index, ids, filters, refresher)
        is_meant = here and (ids or filters.state)
        left = [one for one in views if one["state"] not in FINAL and not (is_meant and _is_mirror(index.root, one))]
        for one in left if ids else ():
            print(f"{short(one['id'])} is {one['state']}, and left alone", file=sys.stderr)
        views = [one for one in views if one not in left]
        if not views:
            print("no job that has ended fits")
            return 1 if ids else 0
        place = "on this machine" if here else "here and on the cluster"
        if not agreed(f"remove {count_of(views)} with all their files, {place}", yes, views):
            return 1
        removed = 0
        for launcher, mine in by_launcher(views, "").items():
            gone = {one["id"] for one in mine}
            if not here and launcher:
                gone &= set(refresher.session(launcher).client.call("remove", jobs=sorted(gone))["removed"])
            for one in mine:
                if one["id"] in gone:
                    path = Path(one["path"])
                    path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
                    removed += not path.exists()
    print(f"removed {removed} of {count_of(views)}" if removed < len(views) else f"removed {count_of(views)}")
    return 0 if removed == len(views) and not (ids and left) else 1


def _is_mirror(root: Path, one: View) -> bool:
    """Whether a job is somewhere else, as its submission left no receipt on this machine."""
    layout = Layout(root)
    return not layout.batch(str(layout.record(one["id"]).get("batch"))).is_dir()
