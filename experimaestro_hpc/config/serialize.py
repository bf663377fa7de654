"""``params.json``: a task as text. In: a task. Out: JSON that a job can make the task from again.

Plain JSON values stand for themselves; what JSON lacks is an object with one key that starts with ``$``:
``$path``, ``$jobpath`` (below the job directory), ``$tuple``, ``$set``, ``$frozenset``, ``$dict``, ``$enum``, ``$int``
(over 64 bits), ``$float`` (nan and infinities), ``$str`` (code points of a text that is no Unicode), ``$config`` (a
number in the list ``configs``) and ``$task`` (``task/identifier`` of a parent, which has its own ``params.json``).
:mod:`.load` reads it.
"""

from __future__ import annotations

import enum
import json
import math
import os
import sys
from pathlib import Path, PurePath
from typing import Any

from ..errors import ParameterError
from .declare import JobPath
from .identifier import identifier, is_changed
from .objects import Config, Task, module_name, task_id
from .types import parts_of, values_of

SCHEMA = 1


def job_id(task: Task) -> str:
    """The id of a job: ``task/identifier``."""
    return f"{task_id(type(task))}/{identifier(task)}"


def params_text(task: Task, code_root: Path) -> str:
    """The text of ``params.json`` for ``task``; the same for the same parameters.

    :param code_root: folder that the code snapshot is taken from; scripts are named relative to it
    :raises ParameterError: the task's class cannot be found again by its name, or the task is no more what its
        identifier says
    """
    parts = own_parts(task)
    for part in parts:
        if is_changed(part):
            raise ParameterError(
                f"a list, set or dict in {type(part).__qualname__} was changed after it was submitted",
                hint="change it before, or make a new object",
            )
    numbers = {id(part): number for number, part in enumerate(parts)}
    sources = _sources(parts)
    document = {
        "schema": SCHEMA,
        "task": task_id(type(task)),
        "identifier": identifier(task),
        "configs": [_object(part, sources.get(id(part)), numbers, code_root) for part in parts],
    }
    init_tasks = task.__dict__["__xpm__"].init_tasks
    if init_tasks:
        document["init_tasks"] = [numbers[id(one)] for one in init_tasks]
    return json.dumps(document, indent=1) + "\n"


def parents_of(task: Task) -> list[Task]:
    """The tasks that ``task`` depends on directly, each once, by job id."""
    found: dict[str, Task] = {}
    for part in own_parts(task):
        for inner in parts_of(part):
            if isinstance(inner, Task):
                found[job_id(inner)] = inner
    return [found[key] for key in sorted(found)]


def own_parts(task: Task) -> list[Config]:
    """``task`` first, then the objects in it that are no tasks, wholes before parts, by parameters' names."""
    order: list[Config] = []
    seen: set[int] = set()
    todo: list[tuple[Config, bool]] = [(task, False)]
    while todo:
        part, left = todo.pop()
        if left:
            order.append(part)
        elif id(part) not in seen:
            seen.add(id(part))
            todo.append((part, True))
            todo.extend((one, False) for one in _inside(part) if not isinstance(one, Task))
    return order[::-1]


def _sources(parts: list[Config]) -> dict[int, Task]:
    """The task that makes each part; what an output is made of is made with it."""
    found: dict[int, Task] = {}
    for part in parts:
        source = part.__dict__["__xpm__"].source or found.get(id(part))
        if source is not None:
            found[id(part)] = source
            for inner in _inside(part):
                found.setdefault(id(inner), source)
    return found


def _inside(part: Config) -> list[Config]:
    """Objects directly inside, in an order that depends on nothing but the parameters."""
    found: list[Config] = []
    todo: list[Any] = [*part.__dict__["__xpm__"].init_tasks[::-1]]
    todo += [value for _, value in sorted(values_of(part).items(), key=_name, reverse=True)]
    while todo:
        value = todo.pop()
        if isinstance(value, Config):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            todo.extend(reversed(value))
        elif isinstance(value, (set, frozenset)):
            todo.extend(sorted((one for one in value if isinstance(one, Config)), key=identifier, reverse=True))
        elif isinstance(value, dict):
            for key in sorted(value, key=repr, reverse=True):
                todo.extend((value[key], key))
    return found


def _object(part: Config, source: Task | None, numbers: dict[int, int], code_root: Path) -> dict[str, Any]:
    values = sorted(values_of(part).items(), key=_name)
    params = {name: _value(value, numbers, code_root) for name, value in values}
    document: dict[str, Any] = {"class": class_reference(type(part), code_root), "params": params}
    if source is not None:
        document["source"] = job_id(source)
    return document


def class_reference(cls: type, code_root: Path) -> dict[str, str]:
    """How a job finds a class: module and qualified name, and the file when it was run as a script.

    :raises ParameterError: the class was made inside a function or typed at a prompt
    """
    if "<locals>" in cls.__qualname__:
        raise ParameterError(
            f"class {cls.__qualname__} was made inside a function, where a job cannot find it",
            hint="define it at the top of a module",
        )
    reference = {"module": module_name(cls.__module__), "name": cls.__qualname__}
    if cls.__module__ == "__main__":
        main = sys.modules["__main__"]
        file = getattr(main, "__file__", None)
        if file is None:
            raise ParameterError(
                f"class {cls.__qualname__} was typed at a prompt, where a job cannot find it",
                hint="write it into a file",
            )
        if getattr(main, cls.__qualname__.split(".")[0], None) is None:
            raise ParameterError(
                f"class {cls.__qualname__} belongs to a script that was started by another program",
                where=file,
                hint="run it with: python SCRIPT, or: xpm-hpc run SCRIPT",
            )
        reference["file"] = os.path.relpath(Path(file).resolve(), code_root)
        spec = getattr(main, "__spec__", None)
        if spec is not None:  # python -m package: the class is in package.__main__
            reference["module"] = spec.name
    return reference


def _name(pair: tuple[str, Any]) -> str:
    return pair[0]


def _value(value: Any, numbers: dict[int, int], code_root: Path) -> Any:
    if isinstance(value, Task):
        return {"$task": job_id(value)}
    if isinstance(value, Config):
        return {"$config": numbers[id(value)]}
    if isinstance(value, enum.Enum):
        return {"$enum": {**class_reference(type(value), code_root), "member": value.name}}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": float.__repr__(value)}
    if isinstance(value, int) and value.bit_length() > 64:
        return {"$int": hex(value)}  # Python reads and writes only so many decimal digits
    if isinstance(value, str) and not _is_unicode(value):
        return {"$str": [ord(character) for character in value]}  # JSON makes one character of two surrogates
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, JobPath):
        return {"$jobpath": value.name}
    if isinstance(value, PurePath):
        return {"$path": str(value)}
    if isinstance(value, list):
        return [_value(item, numbers, code_root) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [_value(item, numbers, code_root) for item in value]}
    if isinstance(value, (set, frozenset)):
        items = [_value(item, numbers, code_root) for item in value]
        kind = "$set" if isinstance(value, set) else "$frozenset"
        return {kind: sorted(items, key=lambda item: json.dumps(item, sort_keys=True))}
    if isinstance(value, dict):
        pairs = [[_value(key, numbers, code_root), _value(item, numbers, code_root)] for key, item in value.items()]
        pairs.sort(key=lambda pair: json.dumps(pair[0], sort_keys=True))
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {"$dict": pairs}
    raise AssertionError(f"unchecked value: {value!r}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
