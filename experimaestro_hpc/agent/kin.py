"""Which jobs need which. In: the records of a workspace. Out: jobs in order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter

from .layout import Layout


def parents_first(layout: Layout, jobs: Collection[str]) -> list[str]:
    """``jobs``, each after those of them that it needs."""
    return _in_order(jobs, {job: _parents(layout, job) for job in jobs})


def dependents(layout: Layout, jobs: Iterable[str]) -> list[str]:
    """The other jobs of the workspace that need any of ``jobs``, directly or not, each after those that it needs."""
    jobs = list(jobs)
    given = set(jobs)
    needs = {job: _parents(layout, job) for job in layout.jobs()}
    children: dict[str, list[str]] = {}
    for job, parents in needs.items():
        for parent in parents:
            children.setdefault(parent, []).append(job)
    found: dict[str, None] = {}
    todo = list(jobs)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found and child not in given:
                found[child] = None
                todo.append(child)
    return _in_order(found, needs)


def _parents(layout: Layout, job: str) -> list[str]:
    return list(layout.record(job).get("parents", ()))


def _in_order(jobs: Collection[str], needs: Mapping[str, Sequence[str]]) -> list[str]:
    wanted = dict.fromkeys(jobs)
    inner = {job: [one for one in needs[job] if one in wanted] for job in wanted}
    return list(TopologicalSorter(inner).static_order())
