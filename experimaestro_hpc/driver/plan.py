"""What is to be done. In: the tasks of an experiment and what the cluster knows of them. Out: a plan. Pure.

Jobs that have ended well are reused, those that wait or run are attached to, all others are submitted: in groups of
equal jobs that can be one array, parents before children. Those are jobs that wait for the same, and jobs that each
wait for their own elements of the same arrays: they get their parents' indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..agent.submit import SETTLED
from ..errors import XpmError

#: elements of one array, where the scheduler does not say
MAX_ARRAY = 1000

#: the group that a job is in, and its index there
Place = tuple[str, int | None]


@dataclass(frozen=True)
class PlannedJob:
    """A job as the plan sees it.

    :ivar id: ``task/identifier``
    :ivar parents: ids of the jobs that it needs
    :ivar likeness: jobs of equal likeness ask for the same and may share an array
    :ivar on_demand: submitted only for jobs that need it; counts as done if there are none
    """

    id: str
    parents: tuple[str, ...]
    likeness: Hashable
    on_demand: bool = False


@dataclass(frozen=True)
class Group:
    """Jobs that are alike, and are submitted in one call where their parents allow it.

    :ivar elements: ids by index; an element has the index of its parent in another array where it can
    :ivar parents: by id, the jobs that each needs
    """

    elements: Mapping[int, str]
    parents: Mapping[str, tuple[str, ...]]

    @property
    def jobs(self) -> list[str]:
        """The ids."""
        return list(self.elements.values())


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
    jobs: Sequence[PlannedJob],
    states: Mapping[str, dict[str, Any]],
    here: Mapping[str, dict[str, Any]],
    make_whole: Callable[[list[str]], list[str]] = lambda _jobs: [],
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """``states``, and in them the jobs that were done elsewhere; and those of them whose results must be sent there.

    One that a job still to be submitted needs counts only if all its results can be had.

    :param here: the markers of jobs that are done, as this machine has them
    :param make_whole: brings all results of jobs to this machine; returns those that it could
    """
    whole: list[str] = []
    usable = {job: marker for job, marker in here.items() if states.get(job, {}).get("state") not in SETTLED}
    while True:
        known = {**states, **usable}
        plan = make_plan(jobs, known)
        needed = {
            one for group in plan.submit for parents in group.parents.values() for one in parents if one in usable
        }
        if needed <= set(whole):
            return known, sorted(needed)
        got = make_whole(sorted(needed - set(whole)))
        whole += got
        lacking = needed - set(whole)
        usable = {job: marker for job, marker in usable.items() if job not in lacking}


def make_plan(
    jobs: Sequence[PlannedJob], states: Mapping[str, Mapping[str, object]], max_array: int = MAX_ARRAY
) -> Plan:
    """Decide for each job.

    :param states: by job id, what the agent says is known; a job that is missing is new
    :param max_array: how many elements an array may have
    """
    known = {job.id: states.get(job.id, {}).get("state", "unscheduled") for job in jobs}
    ordered = in_order(jobs)
    wanted = {parent for job in jobs if known[job.id] not in SETTLED for parent in job.parents}
    known.update({job.id: "done" for job in jobs if job.on_demand and job.id not in wanted})
    fresh = [job for job in ordered if known[job.id] not in SETTLED]
    needed = {job.id: tuple(one for one in job.parents if known[one] != "done") for job in fresh}
    places: dict[str, Place] = {job: _place(job, states.get(job, {}).get("native_id")) for job in known}
    groups: list[Group] = []
    for level in _levels(fresh, needed):
        parents = {job.id: job.parents for job in level}
        for elements in _arrays(level, needed, places, max_array):
            for index, job in elements.items():
                places[job] = (f"group {len(groups)}", index if len(elements) > 1 else None)
            groups.append(Group(elements, {job: parents[job] for job in elements.values()}))
    return Plan(
        reuse=tuple(job.id for job in ordered if known[job.id] == "done"),
        attach=tuple(job.id for job in ordered if known[job.id] in SETTLED and known[job.id] != "done"),
        submit=tuple(groups),
    )


def _levels(jobs: Sequence[PlannedJob], needed: Mapping[str, tuple[str, ...]]) -> list[list[PlannedJob]]:
    """Jobs by the length of the longest chain of parents above them; ``jobs`` have parents before children."""
    level: dict[str, int] = {}
    found: list[list[PlannedJob]] = []
    for job in jobs:
        level[job.id] = 1 + max((level.get(parent, -1) for parent in needed[job.id]), default=-1)
        if level[job.id] == len(found):
            found.append([])
        found[level[job.id]].append(job)
    return found


def _place(job: str, native: object) -> Place:
    """Where a job that was submitted earlier stands: its array, and its index there."""
    array, _, index = str(native or "").rpartition("_")
    return (f"array {array}", int(index)) if array and index.isdigit() else (job, None)


def _arrays(
    jobs: Sequence[PlannedJob], needed: Mapping[str, tuple[str, ...]], places: Mapping[str, Place], max_array: int
) -> list[dict[int, str]]:
    """The arrays of one level: jobs that are alike and wait for the same, or each for its twins in the same arrays."""
    alike: dict[tuple[Hashable, tuple[str, ...]], list[str]] = {}
    for job in jobs:
        alike.setdefault((job.likeness, needed[job.id]), []).append(job.id)
    found: list[dict[int, str]] = []
    singles: dict[Hashable, list[str]] = {}
    for (likeness, waits), ids in alike.items():
        if len(ids) == 1 and waits:
            singles.setdefault((likeness, tuple(sorted(places[one][0] for one in waits))), []).append(ids[0])
            continue
        for start in range(0, len(ids), max_array):
            found.append(dict(enumerate(ids[start : start + max_array])))
    for ids in singles.values():
        found += _twins(ids, needed, places, max_array) if max_array > 1 else [{0: job} for job in ids]
    return found


def _twins(
    ids: Sequence[str], needed: Mapping[str, tuple[str, ...]], places: Mapping[str, Place], max_array: int
) -> list[dict[int, str]]:
    """Arrays of jobs that each wait for elements of the same arrays, by the index of those; others stand alone."""
    shared = set.intersection(*(set(needed[job]) for job in ids))
    arrays: list[dict[int, str]] = []
    alone: list[dict[int, str]] = []
    for job in ids:
        indexes = {places[parent][1] for parent in needed[job] if parent not in shared}
        index = indexes.pop() if len(indexes) == 1 else None
        if index is None or index >= max_array:  # the limit may have been lowered since the parent was submitted
            alone.append({0: job})
            continue
        free = next((array for array in arrays if index not in array), None)
        if free is None:
            arrays.append(free := {})
        free[index] = job
    return [*arrays, *alone]
