"""``xpm-hpc experiments``: the experiments of a workspace."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

import click

from ..errors import JobsFailed, WorkspaceError
from ..workspace.index import Index
from ..workspace.jobs import FINAL, View
from ..workspace.query import Query
from ..workspace.words import count_of, in_words
from .complete import complete_experiments
from .lazy import DefaultGroup
from .options import date, json_option, print_json, print_table, report, workdir_option
from .select import agreed, opened, yes_option
from .table import Fit

#: what becomes narrower, or is left out, where a terminal is
FIT = Fit(
    texts=(("script",), ("experiment", "task")),
    dear=("experiment", "task"),
    ends=("script", "task"),
    spare=("script", "last run"),
)

name_argument = click.argument("name", required=False, shell_complete=complete_experiments)


@click.group(name="experiments", cls=DefaultGroup, shown=".+")
def command() -> None:
    """Experiments of a workspace. Without a NAME the latest one is meant."""


@command.command(name="list")
@workdir_option
@json_option
def list_(workdir: str | None, as_json: bool) -> int:
    """List experiments, the latest first.

    \b
    xpm-hpc experiments
    xpm-hpc experiments list --json
    """
    with opened(workdir) as index:
        found = [_summary(index, one) for one in index.experiments()]
        root = index.root
    if as_json:
        print_json(found)
    elif not found:
        print(f"no experiments in {root}")
    else:
        rows = [(one["name"], one["states"], date(one["updated"]), one["script"]) for one in found]
        print_table(rows, ["experiment", "jobs as last seen", "last run", "script"], FIT)
    return 0


def _summary(index: Index, one: dict[str, Any]) -> dict[str, Any]:
    states = index.states_of(one["name"])
    return {
        "name": one["name"],
        "script": one["script"],
        "updated": one["updated"],
        "jobs": sum(states.values()),
        "states": in_words(states),
        "by_state": states,
    }


def _named(index: Index, name: str | None) -> dict[str, Any]:
    """The experiment that is meant.

    :raises WorkspaceError: there is none
    """
    known = index.experiments()
    for one in known:
        if name is None or one["name"] == name:
            return one
    listed = ", ".join(one["name"] for one in known[:10])
    what = f"no experiment {name!r}" if name else "no experiments"
    raise WorkspaceError(what, where=str(index.root), hint=f"there are: {listed}" if listed else "")


def _jobs(index: Index, name: str) -> list[View]:
    return index.views(Query(experiment=name, is_current=True))


@command.command(name="show")
@name_argument
@workdir_option
@json_option
def show(name: str | None, workdir: str | None, as_json: bool) -> int:
    """Show an experiment's tasks, and how their jobs are.

    \b
    xpm-hpc experiments show sweep
    """
    from ..driver.refresh import refresh  # for this command only

    with opened(workdir) as index:
        one = _named(index, name)
        views = _jobs(index, one["name"])
        problems = refresh(index.root, views)
    by_task: dict[str, Counter[str]] = {}
    for job in views:
        by_task.setdefault(job["task"], Counter())[job["state"]] += 1
    if as_json:
        print_json({**one, "tasks": by_task, "jobs": [job["id"] for job in views]})
        return report(problems)
    print(f"experiment {one['name']}, last run {date(one['updated'])} by {one['script'] or 'no script'}")
    print_table([(task, in_words(states)) for task, states in sorted(by_task.items())], ["task", "jobs"], FIT)
    tags: dict[str, set[str]] = {}
    for job in views:
        for key, value in job["tags"].items():
            tags.setdefault(key, set()).add(str(value))
    for key, values in sorted(tags.items()):
        listed = sorted(values)
        more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
        print(f"tag {key}: {', '.join(listed[:8])}{more}")
    return report(problems)


@command.command(name="graph")
@name_argument
@click.option("--dot", is_flag=True, help="For Graphviz: xpm-hpc experiments graph --dot | dot -Tsvg > graph.svg")
@workdir_option
def graph(name: str | None, dot: bool, workdir: str | None) -> int:
    """Draw which job needs which, as last seen.

    \b
    xpm-hpc experiments graph
    xpm-hpc experiments graph sweep --dot | dot -Tsvg > sweep.svg
    """
    from ..workspace.graph import as_dot, as_text  # for this command only

    with opened(workdir) as index:
        views = _jobs(index, _named(index, name)["name"])
    print((as_dot if dot else as_text)(views), end="")
    return 0


@command.command(name="attach")
@name_argument
@workdir_option
def attach(name: str | None, workdir: str | None) -> int:
    """Watch an experiment to its end, as its script did.

    Results come back, and failed jobs are tried again.

    \b
    xpm-hpc experiments attach sweep
    """
    from ..driver.monitor import Monitor, describe  # for this command only
    from ..driver.refresh import Refresher

    with opened(workdir, is_change=True) as index, Refresher(index.root) as refresher:
        one = _named(index, name)
        views = [job for job in _jobs(index, one["name"]) if job["state"] not in FINAL and job["launcher"]]
        counts = index.states_of(one["name"])
        print(f"experiment {one['name']}: {in_words(counts)}")
        if not views:
            return 1 if counts.get("failed") else 0
        sessions = {launcher: refresher.session(launcher) for launcher in {job["launcher"] for job in views}}
        monitor = Monitor(sessions, {job["id"]: job["launcher"] for job in views})
        states = monitor.wait([job["id"] for job in views])
        index.update()
        counts = index.states_of(one["name"])
        print(f"experiment {one['name']}: {in_words(counts)}")
    if counts.get("failed"):
        now = [describe(job, state) for job, state in states.items() if state["state"] == "failed"]
        raise JobsFailed(
            f"{counts['failed']} of {sum(counts.values())} jobs failed",
            where=f"experiment {one['name']}",
            hint="\n".join(
                [*now[:10], f"see: xpm-hpc jobs why --state failed --experiment {shlex.quote(one['name'])}"]
            ),
        )
    return 0


@command.command(name="cancel")
@name_argument
@yes_option
@workdir_option
def cancel(name: str | None, yes: bool, workdir: str | None) -> int:
    """End all jobs of an experiment that wait or run.

    \b
    xpm-hpc experiments cancel sweep
    """
    from ..driver.refresh import Refresher  # for this command only
    from .jobs_commands.act import kill_jobs

    with opened(workdir, is_change=True) as index, Refresher(index.root) as refresher:
        one = _named(index, name)
        views = [job for job in _jobs(index, one["name"]) if job["state"] not in FINAL]
        report(refresher.refresh(views))
        views = [job for job in views if job["state"] not in FINAL]
        if not views:
            print(f"no job of experiment {one['name']} waits or runs")
            return 0
        if not agreed(f"end {count_of(views)} of experiment {one['name']}", yes):
            return 1
        kill_jobs(index, refresher, views)
    print(f"experiment {one['name']}: {in_words(Counter(job['state'] for job in views))}")
    return 0


@command.command(name="rm")
@click.argument("name", shell_complete=complete_experiments)
@yes_option
@workdir_option
def rm(name: str, yes: bool, workdir: str | None) -> int:
    """Forget an experiment: its name and tags. Its jobs and their results stay; see: xpm-hpc jobs clean.

    \b
    xpm-hpc experiments rm sweep
    """
    import shutil  # for this command only

    with opened(workdir, is_change=True) as index:
        one = _named(index, name)
        if not agreed(f"forget experiment {name}", yes):
            return 1
        shutil.rmtree(index.root / "experiments" / one["name"])
    print(f"experiment {name} is forgotten; its jobs are still there")
    return 0
