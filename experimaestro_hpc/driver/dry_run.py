"""What a dry run tells. In: an experiment's jobs, and the results on this machine. Out: lines for people.

Nothing is touched and nobody is asked: what the cluster knows and this machine does not is not taken into account.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..agent.layout import Layout
from ..resources import Resources
from ..workspace.words import short, tags_in_words
from .building import is_known
from .former import find_former
from .jobs import Job, JobMaker
from .plan import make_plan


def told(name: str, layout: Layout, maker: JobMaker, jobs: Mapping[str, Job], scripts: bool = False) -> Iterator[str]:
    """What is done already, what would be submitted in which order, and where to.

    :param name: the experiment's
    :param jobs: by id
    :param scripts: whether to show the job scripts as well
    """
    states = {id_: {"state": (layout.marker(id_) or {}).get("state")} for id_ in jobs}
    former = find_former(layout, {id_: job.task for id_, job in jobs.items() if states[id_]["state"] != "done"})
    states.update({id_: {"state": (layout.marker(old) or {}).get("state")} for id_, old in former.items()})
    plan = make_plan([job.planned() for job in jobs.values()], states)
    yield f"experiment {name}: dry run, nothing is touched"
    yield from _environments(layout, maker, [jobs[id_] for id_ in plan.submitted])
    for id_ in plan.reuse:
        yield f"  {short(id_)}: done{f' as {short(former[id_])}' if id_ in former else ''}, is reused"
    for group in plan.submit:
        for id_ in group.jobs:
            yield _submission(jobs[id_])
            if scripts:
                yield maker.files(jobs[id_], ".xpm/lib/HASH")[f"jobs/{id_}/job.sh"]


def _submission(job: Job) -> str:
    request = job.request
    needs = ", ".join(short(parent) for parent in job.parents)
    tags = f" {tags_in_words(job.tags)}" if job.tags else ""
    return (
        f"  {short(job.id)}{tags}: would be submitted to {job.launcher.name}"
        + (f", partition {request.partition}" if request.partition else "")
        + (f" asking {request.resources}" if job.resources != Resources() else "")
        + (f", after {needs}" if needs else "")
    )


def _environments(layout: Layout, maker: JobMaker, jobs: Iterable[Job]) -> Iterator[str]:
    for launcher in {job.launcher.name: job.launcher for job in jobs}.values():
        recipe = maker.recipe(launcher)
        if recipe is not None and recipe.environment.build == "login":
            there = is_known(layout.root, recipe, launcher.name)
            what = "is there, is reused" if there else "would be built on the login node, unless it is there"
            yield f"  environment {recipe.title}: {what}"
