"""From ``params.json`` to the task, inside a job. In: a job directory. Out: the task object, ready to execute.

Nothing runs but the import of the classes named there. A parent task's own parents are read when they are looked
at, so that the last task of a long chain does not read the whole chain.
"""

from __future__ import annotations

import os
import sys

from ..errors import WorkspaceError
from .declare import Deferred, Deprecated, Later
from .jsonlight import loads
from .script import run_script

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

SCHEMA = 1


class Loader:
    """Makes the objects of one job, each parent once.

    :param jobs: the ``jobs`` folder of the workspace
    :param code: the folder of the code snapshot; scripts are looked up below it
    """

    def __init__(self, jobs: str, code: str) -> None:
        self.jobs = jobs
        self.code = code
        self.tasks: dict[str, Any] = {}

    def task(self, job: str) -> Any:
        """The task of a job id (``task/identifier``).

        :raises WorkspaceError: its ``params.json`` is missing or not understood
        """
        if job not in self.tasks:
            self.tasks[job] = None
            try:
                self.tasks[job] = self._read(job, eager=len(self.tasks) == 1)
            except BaseException:
                del self.tasks[job]
                raise
        return self.tasks[job]

    def _read(self, job: str, eager: bool) -> Any:
        directory = os.path.join(self.jobs, job)
        path = os.path.join(directory, "params.json")
        try:
            with open(path, encoding="utf-8") as file:
                document = loads(file.read())
        except (OSError, ValueError) as error:
            raise WorkspaceError(f"the parameters of a task cannot be read: {error}", where=path) from error
        if document.get("schema") != SCHEMA:
            raise WorkspaceError(
                f"written by another version of xpm-hpc (schema {document.get('schema')}, known: {SCHEMA})",
                where=path,
                hint="use the version that wrote it, or a newer one",
            )
        entries = document["configs"]
        objects = [self._new(entry["class"]) for entry in entries]
        old: list[tuple[Any, Deprecated, Any]] = []  # parts before wholes
        for entry, made in zip(entries, objects):
            home = os.path.join(self.jobs, entry["source"]) if "source" in entry else directory
            made.__dict__["__xpm__"].directory = home
            mine = []
            for name, raw in entry["params"].items():
                replaced = getattr(type(made), name, None)
                if isinstance(replaced, Deprecated):  # a parameter of an earlier version of the class
                    mine.append((made, replaced, self._value(raw, objects, home)))
                elif eager or not _holds_task(raw):
                    made.__dict__[name] = self._value(raw, objects, home)
                else:
                    made.__dict__[name] = self._later(raw, objects, home)
                    _defer(type(made), name)
            old[:0] = mine
            if "source" in entry:
                made.__dict__["__xpm__"].source = self._later({"$task": entry["source"]}, objects, directory)
        objects[0].__dict__["__xpm__"].init_tasks = tuple(objects[number] for number in document.get("init_tasks", ()))
        self._made(objects, old)
        return objects[0]

    def _made(self, objects: list[Any], old: list[tuple[Any, Deprecated, Any]]) -> None:
        """All objects of a task have their values; ``old`` are those of deprecated parameters."""
        for made, replaced, value in old:
            replaced.replace(made, value)
        for made in reversed(objects):
            made.__post_init__()

    def _later(self, raw: Any, objects: list[Any], directory: str) -> Later:
        return Later(lambda: self._value(raw, objects, directory))

    def _new(self, reference: dict[str, str]) -> Any:
        cls = self.find(reference)
        made = cls.__new__(cls)
        made.__dict__["__xpm__"].loaded = True
        return made

    def find(self, reference: dict[str, str]) -> Any:
        """The class that ``reference`` names.

        :raises ImportError: its module cannot be imported here
        :raises AttributeError: its module has no such class
        """
        module = sys.modules.get(reference["module"])
        if module is None or _is_unfinished(module, reference):
            file = reference.get("file")
            if file is None:
                __import__(reference["module"])
                module = sys.modules[reference["module"]]
            else:
                path = os.path.normpath(os.path.join(self.code, file))
                module = run_script(reference["module"], path, reference["name"].split(".")[0])
        found: Any = module
        for part in reference["name"].split("."):
            found = getattr(found, part)
        return found

    def _value(self, raw: Any, objects: list[Any], directory: str) -> Any:
        if isinstance(raw, list):
            return [self._value(item, objects, directory) for item in raw]
        if not isinstance(raw, dict):
            return raw
        if len(raw) == 1:
            ((kind, inner),) = raw.items()
            if kind == "$task":
                return self.task(inner)
            if kind == "$config":
                return objects[inner]
            if kind == "$float":
                return float(inner)
            if kind == "$int":
                return int(inner, 16)
            if kind in ("$path", "$jobpath"):
                from pathlib import Path  # only for tasks that have paths

                return Path(inner) if kind == "$path" else Path(directory, inner)
            if kind == "$enum":
                return self.find(inner)[inner["member"]]
            if kind == "$tuple":
                return tuple(self._value(item, objects, directory) for item in inner)
            if kind in ("$set", "$frozenset"):
                found = {self._value(item, objects, directory) for item in inner}
                return found if kind == "$set" else frozenset(found)
            if kind == "$str":
                return "".join(map(chr, inner))
            if kind == "$dict":
                return {
                    self._value(key, objects, directory): self._value(item, objects, directory) for key, item in inner
                }
        return {key: self._value(item, objects, directory) for key, item in raw.items()}


def _defer(cls: type, name: str) -> None:
    if not isinstance(cls.__dict__.get(name), Deferred):
        setattr(cls, name, Deferred(cls, name))


def _holds_task(raw: Any) -> bool:
    if isinstance(raw, list):
        return any(_holds_task(item) for item in raw)
    if isinstance(raw, dict):
        return "$task" in raw or any(_holds_task(item) for item in raw.values())
    return False


def _is_unfinished(module: ModuleType, reference: dict[str, str]) -> bool:
    """Whether ``module`` is another one of the same name, e.g. a script called like a module of Python's."""
    return not hasattr(module, reference["name"].split(".")[0])
