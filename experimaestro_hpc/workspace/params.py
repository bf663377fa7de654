"""The parameters of a job. In: its ``params.json``. Out: texts by place, for people or as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .words import short


def is_config(value: Any) -> bool:
    """Whether a value stands for another object of its document."""
    return isinstance(value, dict) and "$config" in value


def is_task(value: Any) -> bool:
    """Whether a value stands for another job."""
    return isinstance(value, dict) and "$task" in value


def value_in_words(value: Any, configs: Sequence[Any] = ()) -> str:
    """A value of ``params.json`` as one would write it in Python, but for paths, which are plain.

    :param configs: the objects of its document

    >>> value_in_words({"$enum": {"module": "study", "name": "Kind", "member": "SMALL"}})
    'Kind.SMALL'
    """
    if isinstance(value, list):
        return f"[{_listed(value, configs)}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict):
        return str(value)
    kind, inner = next(iter(value.items())) if len(value) == 1 else ("", None)
    try:
        if kind.startswith("$"):
            return _WORDS[kind](inner, configs)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):  # of another version
        return json.dumps(value)
    return _pairs(value.items(), configs)


def _listed(values: Any, configs: Sequence[Any]) -> str:
    return ", ".join(value_in_words(one, configs) for one in values)


def _pairs(pairs: Any, configs: Sequence[Any]) -> str:
    words = (f"{value_in_words(key, configs)}: {value_in_words(one, configs)}" for key, one in pairs)
    return f"{{{', '.join(words)}}}"


#: what stands for a value that JSON lacks, see :mod:`..config.serialize`
_WORDS: dict[str, Callable[[Any, Sequence[Any]], str]] = {
    "$config": lambda number, configs: f"{configs[number]['class']['name']}(...)",
    "$task": lambda job, _: short(job),
    "$enum": lambda enum, _: f"{enum['name']}.{enum['member']}",
    "$path": lambda path, _: str(path),
    "$jobpath": lambda name, _: f"{name}, in its directory",
    "$tuple": lambda values, configs: f"({_listed(values, configs)}{',' if len(values) == 1 else ''})",
    "$set": lambda values, configs: f"{{{_listed(values, configs)}}}" if values else "set()",
    "$frozenset": lambda values, configs: f"frozenset({{{_listed(values, configs)}}})",
    "$dict": _pairs,
    "$int": lambda digits, _: str(digits),
    "$float": lambda name, _: str(name),
    "$str": lambda codes, _: ascii("".join(map(chr, codes))),
}


def parameters(document: Mapping[str, Any], as_json: bool = True) -> dict[str, str]:
    """What a task was given, also inside of its configurations; of a task that it needs the short id.

    :param document: the content of ``params.json``, or nothing
    :param as_json: values as they are there, and not in words

    >>> parameters({"configs": [{"params": {"lr": 0.1, "m": {"$config": 1}}}, {"params": {"size": 3}}]})
    {'lr': '0.1', 'm.size': '3'}
    """
    found: dict[str, str] = {}
    todo: list[tuple[str, Any]] = [("", {"$config": 0})] if document.get("configs") else []
    seen: set[int] = set()
    while todo:
        place, value = todo.pop()
        if is_config(value):
            number = value["$config"]
            if number in seen:  # objects may be shared
                found[place] = "(as above)"
                continue
            seen.add(number)
            dot = f"{place}." if place else ""
            inner = [(f"{dot}{name}", one) for name, one in document["configs"][number]["params"].items()]
            todo += reversed(inner)
            if place and not inner:
                found[place] = f"{document['configs'][number]['class']['name']}()"
        elif is_task(value):
            found[place] = short(value["$task"])
        elif isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
            todo += reversed([(f"{place}[{number}]", one) for number, one in enumerate(value)])
        else:
            found[place] = (
                json.dumps(value, ensure_ascii=False) if as_json else value_in_words(value, document["configs"])
            )
    return found
