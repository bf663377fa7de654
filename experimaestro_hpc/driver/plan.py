"""What is to be done. In: the tasks of an experiment and what the cluster knows of them. Out: a plan. Pure.

Jobs that have ended well are reused, those that wait or run are attached to, all others are submitted: in groups of
equal jobs with the same parents, so that one group can be one array, parents before children.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..agent.submit import SETTLED
from ..errors import XpmError

#: elements of one array; Slurm's own default allows 1001
MAX_ARRAY = 1000


@dataclass(frozen=True)
class PlannedJob:
    """A job as the plan sees it.

    :ivar id: ``task/identifier``
    :ivar parents: ids of the jobs that it needs
    :ivar likeness: jobs of equal likeness ask for the same and may share an array
    """

    id: str
    parents: tuple[str, ...]
    likeness: Hashable


@dataclass(frozen=True)
class Group:
    """Jobs that are submitted in one call.

    :ivar jobs: ids
    :ivar parents: ids of the jobs that all of them need
    """

    jobs: tuple[str, ...]
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What becomes of each job."""

    reuse: tuple[str, ...]
    attach: tuple[str, ...]
    submit: tuple[Group, ...]

    @property
    def submitted(self) -> list[str]:
        """The ids of the jobs to submit, parents first."""
        return [job for group in self.submit for job in group.jobs]


def in_order(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """``jobs`` with parents before children, otherwise as given.

    :raises XpmError: a parent is not among them
    """
    by_id = {job.id: job for job in jobs}
    placed: dict[str, PlannedJob] = {}
    for first in jobs:
        stack = [first]
        while stack:
            job = stack[-1]
            missing = [parent for parent in job.parents if parent not in placed]
            if job.id in placed or not missing:
                placed.setdefault(job.id, stack.pop())
                continue
            if missing[0] not in by_id:
                raise XpmError(
                    f"{job.id} needs {missing[0]}, which was not submitted",
                    hint="call submit() on each task, and give its result to those that need it",
                )
            stack.append(by_id[missing[0]])
    return list(placed.values())


def with_done_here(
    jobs: Sequence[PlannedJob], states: Mapping[str, dict[str, Any]], here: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """``states``, and in them the jobs that were done elsewhere, whose results are on this machine.

    One that a job still to be submitted needs does not count: its results are not where that job will run.

    :param here: the markers of jobs that are done, as this machine has them
    """
    usable = {job: marker for job, marker in here.items() if states.get(job, {}).get("state") not in SETTLED}
    while True:
        known = {**states, **usable}
        plan = make_plan(jobs, known)
        needed = {parent for group in plan.submit for parent in group.parents if parent in usable}
        if not needed:
            return known
        usable = {job: marker for job, marker in usable.items() if job not in needed}


def make_plan(
    jobs: Sequence[PlannedJob], states: Mapping[str, Mapping[str, object]], max_array: int = MAX_ARRAY
) -> Plan:
    """Decide for each job.

    :param states: by job id, what the agent says is known; a job that is missing is new
    :param max_array: how many jobs a group may have
    """
    known = {job.id: states.get(job.id, {}).get("state", "unscheduled") for job in jobs}
    ordered = in_order(jobs)
    groups: dict[Hashable, list[PlannedJob]] = {}
    for job in ordered:
        if known[job.id] in SETTLED:
            continue
        needed = tuple(parent for parent in job.parents if known[parent] != "done")
        groups.setdefault((job.likeness, needed), []).append(job)
    submit = [
        Group(
            tuple(job.id for job in group[start : start + max_array]),
            _union(group[start : start + max_array]),
        )
        for group in groups.values()
        for start in range(0, len(group), max_array)
    ]
    return Plan(
        reuse=tuple(job.id for job in ordered if known[job.id] == "done"),
        attach=tuple(job.id for job in ordered if known[job.id] in SETTLED and known[job.id] != "done"),
        submit=tuple(submit),  # in order: a group's jobs share their unfinished parents, and those came before
    )


def _union(jobs: Sequence[PlannedJob]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parent for job in jobs for parent in job.parents))
