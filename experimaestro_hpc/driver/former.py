"""Results made under deprecated classes and parameters. In: tasks, a workspace. Out: which old job each of them is.

An old job is found by what it says of itself: its ``params.json``, read with today's classes, gives a task, and the
identifier of that task says which of today's it is. Read only when a class in the experiment has deprecated anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ..agent.layout import Layout, is_job_id
from ..config.declare import MISSING, Deprecated, JobPath
from ..config.load import Loader
from ..config.objects import Task, current_class, module_name, own_name, task_id
from ..config.serialize import job_id
from ..config.types import fields_of, walk


def find_former(layout: Layout, tasks: Mapping[str, Task]) -> dict[str, str]:
    """Old jobs whose results, if they are done, are those of ``tasks``: the old job's id by the new one's.

    :param layout: the workspace where their ``params.json`` are
    :param tasks: by job id
    """
    classes: set[type] = set()
    seen: set[int] = set()
    for task in tasks.values():
        for part in walk(task, leave_out=lambda one: id(one) in seen):  # parents, too: a child's identifier has theirs
            seen.add(id(part))
            classes.add(type(part))
    if not any(_has_deprecated(cls) for cls in classes):
        return {}
    folders = {task_id(type(task)) for task in tasks.values()}
    folders |= {own_name(old).lower() for task in tasks.values() for old in _former(current_class(type(task)))}
    loader = _Reader(str(layout.root / "jobs"), "")
    found: dict[str, str] = {}
    for old in _candidates(layout, folders):
        if old in tasks:
            continue
        task_then = loader.read(old)
        new = job_id(task_then) if task_then is not None else ""
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
    """The jobs of which it is not known here that they failed; first those that are known to be done."""
    unknown = []
    for folder in sorted(folders):
        for directory in sorted((layout.root / "jobs" / folder).glob("*/params.json")):
            job = f"{folder}/{directory.parent.name}"
            if not is_job_id(job):  # somebody may have copied a job's folder
                continue
            state = (layout.marker(job) or {}).get("state")
            if state == "done":
                yield job
            elif state is None:
                unknown.append(job)
    yield from unknown


class _Reader(Loader):
    """Makes tasks from ``params.json`` on the laptop: all of each at once, and none of their code is imported."""

    def __init__(self, jobs: str, code: str) -> None:
        super().__init__(jobs, code)
        self.unreadable: set[str] = set()

    def read(self, job: str) -> Task | None:
        """The task of a job, or None when today's classes cannot make it. Parents first: chains may be long."""
        seen: set[str] = set()
        stack = [job]
        while stack:
            one = stack[-1]
            if one not in seen:
                seen.add(one)
                stack += [parent for parent in self._parents(one) if parent not in seen and parent not in self.tasks]
                continue
            stack.pop()
            try:
                self.task(one)
            except Exception:  # of another version of the script, and not ours to judge
                self.unreadable.add(one)
        task: Task | None = self.tasks.get(job)
        return task

    def task(self, job: str) -> Any:
        if job in self.unreadable:
            raise LookupError(job)
        return super().task(job)

    def _parents(self, job: str) -> list[str]:
        found: list[str] = []

        def note(document: dict[str, Any]) -> None:
            parent = document.get("$task") or document.get("source")
            if isinstance(parent, str):  # a value of the user's may look like one: then nothing is found there
                found.append(parent)

        try:
            json.loads(Path(self.jobs, job, "params.json").read_bytes(), object_hook=note)
        except (OSError, ValueError, RecursionError):
            return []
        return found

    def _read(self, job: str, eager: bool) -> Any:
        return super()._read(job, eager=True)

    def _new(self, reference: dict[str, str]) -> Any:
        made = super()._new(reference)
        made.__dict__["__xpm__"].loaded = False  # what replaces an old parameter is checked as on the laptop
        return made

    def _later(self, raw: Any, objects: list[Any], directory: str) -> Any:
        return self._value(raw, objects, directory)

    def _value(self, raw: Any, objects: list[Any], directory: str) -> Any:
        if isinstance(raw, dict) and raw.keys() == {"$jobpath"}:
            return JobPath(raw["$jobpath"])
        return super()._value(raw, objects, directory)

    def _made(self, objects: list[Any], old: list[tuple[Any, Deprecated, Any]]) -> None:
        for made in objects:
            parameters = fields_of(type(made))
            if made.__dict__.keys() - parameters.keys() - {"__xpm__"}:
                raise LookupError("it has a parameter that is no more, and nobody said what replaces it")
            for name, parameter in parameters.items():
                default = parameter.make_default()
                if name not in made.__dict__ and default is not MISSING:
                    made.__dict__[name] = parameter.check(default)
        for made, replaced, value in old:
            replaced.replace(made, value)
        for made in objects:
            if fields_of(type(made)).keys() - made.__dict__.keys():
                raise LookupError("a parameter has no value")
            made.__dict__["__xpm__"].sealed = True

    def find(self, reference: dict[str, str]) -> Any:
        """The class, if it is there: whatever an experiment's tasks are made of has been imported for them."""
        main = sys.modules["__main__"]
        names = (module_name("__main__"), getattr(getattr(main, "__spec__", None), "name", None))
        module: ModuleType | None = main if reference["module"] in names else sys.modules.get(reference["module"])
        if module is None:
            raise LookupError(reference["module"])
        found: Any = module
        for part in reference["name"].split("."):
            found = getattr(found, part)
        return found
