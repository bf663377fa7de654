"""Results made under deprecated classes and parameters. In: tasks, a workspace. Out: which old job each of them is.

An old job is found by what it says of itself: its ``params.json``, read with today's classes, gives a task, and the
identifier of that task says which of today's it is. Read only when a class in the experiment has deprecated anything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..agent.layout import Layout
from ..config.declare import Deprecated, JobPath
from ..config.load import Loader
from ..config.objects import Task, current_class, module_name, own_name, task_id
from ..config.serialize import job_id, own_parts
from ..config.types import fields_of


def find_former(layout: Layout, tasks: Mapping[str, Task]) -> dict[str, str]:
    """Old jobs whose results, if they are done, are those of ``tasks``: the old job's id by the new one's.

    :param layout: the workspace where their ``params.json`` are
    :param tasks: by job id
    """
    classes = {type(part) for task in tasks.values() for part in own_parts(task)}
    if not any(_has_deprecated(cls) for cls in classes):
        return {}
    folders = {task_id(type(task)) for task in tasks.values()}
    folders |= {own_name(old).lower() for task in tasks.values() for old in _former(current_class(type(task)))}
    loader = _Reader(str(layout.root / "jobs"), "")
    found: dict[str, str] = {}
    for old in _candidates(layout, folders):
        if old in tasks:
            continue
        try:
            new = job_id(loader.task(old))
        except Exception:  # of another version of the script, and not ours to judge
            continue
        if new in tasks:
            found.setdefault(new, old)
    return found


def _has_deprecated(cls: type) -> bool:
    own = "__xpm_former__" in cls.__dict__ or "__xpm_replacement__" in cls.__dict__
    return own or any(isinstance(value, Deprecated) for base in cls.__mro__ for value in vars(base).values())


def _former(cls: type) -> Iterator[type]:
    """The classes that ``cls`` replaces."""
    for old in cls.__dict__.get("__xpm_former__", ()):
        yield old
        yield from _former(old)


def _candidates(layout: Layout, folders: Iterable[str]) -> Iterator[str]:
    """The jobs of which it is not known here that they failed."""
    for folder in sorted(folders):
        for directory in sorted((layout.root / "jobs" / folder).glob("*/params.json")):
            job = f"{folder}/{directory.parent.name}"
            if (layout.marker(job) or {}).get("state") != "failed":
                yield job


class _Reader(Loader):
    """Makes tasks from ``params.json`` on the laptop: all of each at once, and no code of theirs runs."""

    def _read(self, job: str, eager: bool) -> Any:
        return super()._read(job, eager=True)

    def _later(self, raw: Any, objects: list[Any], directory: str) -> Any:
        return self._value(raw, objects, directory)

    def _value(self, raw: Any, objects: list[Any], directory: str) -> Any:
        if isinstance(raw, dict) and raw.keys() == {"$jobpath"}:
            return JobPath(raw["$jobpath"])
        return super()._value(raw, objects, directory)

    def _made(self, objects: list[Any]) -> None:
        for made in objects:
            for name, parameter in fields_of(type(made)).items():
                if name not in made.__dict__:
                    made.__dict__[name] = parameter.make_default()
            made.__dict__["__xpm__"].sealed = True

    def find(self, reference: dict[str, str]) -> Any:
        """The class, without running a script for it: the script's own classes are there already."""
        if reference["module"] == module_name("__main__"):
            found: Any = sys.modules["__main__"]
            for part in reference["name"].split("."):
                found = getattr(found, part)
            return found
        return super().find({name: value for name, value in reference.items() if name != "file"})
