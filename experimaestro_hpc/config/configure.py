"""Settings of an experiment from the command line. In: a dataclass, ``-c name=value``. Out: an object of it, checked.

``xpm-hpc run experiment.py -c lr=0.1 -c model.layers=2``, and in the script ``settings = configure(Settings)``. Inside
a job it gives the same object as on the laptop; but what a task depends on should be its parameters, since settings
do not count in identifiers.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import json
import os
import types
import typing
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, Union

from ..errors import XpmError

#: how the command line's settings get here, and from the laptop into the jobs: a JSON list of ``name=value``
VARIABLE = "XPM_HPC_SETTINGS"
#: whether the script has asked for them
were_read: ContextVar[bool] = ContextVar("settings_were_read", default=False)
_UNION_TYPES = (Union, getattr(types, "UnionType", Union))
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

D = TypeVar("D")


def configure(kind: type[D], settings: Sequence[str] | None = None) -> D:
    """An object of the dataclass ``kind``, with its defaults and what the command line says.

    :param settings: ``name=value`` each, names of inner dataclasses with dots; by default what ``-c`` gave
    :raises XpmError: an unknown name, a value of the wrong type, or one that is missing

    >>> @dataclasses.dataclass
    ... class Settings:
    ...     lr: float = 0.1
    >>> configure(Settings, ["lr=0.01"]).lr
    0.01
    """
    if settings is None:
        settings = json.loads(os.environ.get(VARIABLE, "[]"))
        were_read.set(True)
    tree: dict[str, Any] = {}
    for setting in settings:
        name, found, value = setting.partition("=")
        if not found or not name:
            raise XpmError(f"a setting is name=value, not {setting!r}", where="-c")
        _put(tree, name, value)
    return _build(kind, tree, "")


def _put(tree: dict[str, Any], name: str, value: str) -> None:
    *outer, last = name.split(".")
    branch = tree
    for part in outer:
        branch = branch.setdefault(part, {})
        if not isinstance(branch, dict):
            raise XpmError(f"{part!r} has a value and settings of its own", where=f"-c {name}")
    if isinstance(branch.get(last), dict):
        raise XpmError(f"{last!r} has a value and settings of its own", where=f"-c {name}")
    branch[last] = value


def _build(kind: type[D], tree: dict[str, Any], prefix: str) -> D:
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for name in tree:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {prefix + near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise XpmError(f"no setting {prefix + name!r}", where="-c", hint=hint)
    values = {}
    for name, field in known.items():
        wanted, given, where = hints[name], tree.get(name), f"{prefix}{name}"
        if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
            if isinstance(given, str):
                raise XpmError(f"{where!r} has settings of its own", hint=f"set one, such as {where}.NAME=…")
            if given is not None or _has_no_default(field):
                values[name] = _build(wanted, given or {}, f"{where}.")
        elif isinstance(given, dict):
            raise XpmError(f"{where!r} has no settings of its own", where="-c")
        elif given is not None:
            values[name] = _read(wanted, given, where)
        elif _has_no_default(field):
            raise XpmError(f"setting {where!r} has no value", hint=f"give it: -c {where}=…")
    return kind(**values)


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _read(wanted: Any, text: str, where: str) -> Any:
    """The value that ``text`` stands for.

    :raises XpmError: it is none of type ``wanted``
    """
    try:
        return _convert(wanted, text)
    except (ValueError, KeyError) as error:
        name = wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")
        raise XpmError(f"{where} must be {name}, not {text!r}", where="-c") from error


def _convert(wanted: Any, text: str) -> Any:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is str or wanted is Any:
        return text
    if wanted is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ValueError(text)
        return text.lower() in _TRUE
    if wanted in (int, float, Path):
        return wanted(text)
    if wanted is type(None):
        if text.lower() not in ("none", "null"):
            raise ValueError(text)
        return None
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return wanted[text]
    if origin is typing.Literal:
        return {str(one): one for one in arguments}[text]
    if origin in _UNION_TYPES:
        for one in sorted(arguments, key=lambda one: one is str):  # a text last: it takes anything
            try:
                return _convert(one, text)
            except (ValueError, KeyError):
                continue
        raise ValueError(text)
    if origin in (list, tuple, set) or wanted in (list, tuple, set):
        items = json.loads(text) if text.lstrip().startswith("[") else text.split(",") if text else []
        inner = arguments[0] if arguments else Any
        return (origin or wanted)(_convert(inner, one if isinstance(one, str) else json.dumps(one)) for one in items)
    raise ValueError(text)
