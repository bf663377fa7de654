"""Which jobs need which. In: the records of a workspace. Out: jobs in order."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from graphlib import TopologicalSorter

from .layout import Layout


def parents_first(layout: Layout, jobs: Collection[str]) -> list[str]:
    """``jobs``, each after those of them that it needs."""
    wanted = dict.fromkeys(jobs)
    needs = {job: [one for one in layout.record(job).get("parents", ()) if one in wanted] for job in wanted}
    return list(TopologicalSorter(needs).static_order())


def dependents(layout: Layout, jobs: Iterable[str]) -> list[str]:
    """The other jobs of the workspace that need any of ``jobs``, directly or not, each after those that it needs."""
    jobs = list(jobs)
    children: dict[str, list[str]] = {}
    for job in layout.jobs():
        for parent in layout.record(job).get("parents", ()):
            children.setdefault(parent, []).append(job)
    found: dict[str, None] = {}
    todo = list(jobs)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found and child not in jobs:
                found[child] = None
                todo.append(child)
    return parents_first(layout, found)
