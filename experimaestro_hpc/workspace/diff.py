"""Which parameters make two jobs differ. In: two ``params.json``. Out: the values that differ, by their place. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

#: stands for a value that one of the two does not have
ABSENT = "(not there)"
_ABSENT = object()


class Difference(NamedTuple):
    """One place where two jobs differ.

    :ivar place: such as ``model.layers[2]``
    :ivar left: the value as JSON text, or :data:`ABSENT`
    """

    place: str
    left: str
    right: str


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Difference]:
    """The places where two documents differ, in the order of names.

    :param left: the content of ``params.json``

    >>> a = {"configs": [{"class": {"module": "m", "name": "Say"}, "params": {"word": "x"}}]}
    >>> b = {"configs": [{"class": {"module": "m", "name": "Say"}, "params": {"word": "y"}}]}
    >>> differences(a, b)
    [Difference(place='word', left='"x"', right='"y"')]
    """
    found: list[Difference] = []
    todo: list[tuple[str, Any, Any]] = [("", {"$config": 0}, {"$config": 0})]
    seen: set[tuple[int, int]] = set()
    while todo:
        place, here, there = todo.pop()
        if _is_config(here) and _is_config(there):
            pair = (here["$config"], there["$config"])
            one, other = left["configs"][pair[0]], right["configs"][pair[1]]
            found += _of_objects(place, one, other)
            if pair not in seen:  # objects may be shared: each pair is compared once
                seen.add(pair)
                dot = f"{place}." if place else ""
                todo += _pairs(one["params"], other["params"], f"{dot}{{}}")
        elif isinstance(here, list) and isinstance(there, list):
            todo += _pairs(dict(enumerate(here)), dict(enumerate(there)), f"{place}[{{}}]")
        elif _is_plain(here) and _is_plain(there):
            todo += _pairs(here, there, f"{place}[{{!r}}]")
        elif here != there or type(here) is not type(there):
            found.append(Difference(place, _text(here, left), _text(there, right)))
    return sorted(found)


def _is_config(value: Any) -> bool:
    return isinstance(value, dict) and "$config" in value


def _is_plain(value: Any) -> bool:
    return isinstance(value, dict) and not any(name.startswith("$") for name in value)


def _pairs(here: Mapping[Any, Any], there: Mapping[Any, Any], place: str) -> Iterator[tuple[str, Any, Any]]:
    for name in here.keys() | there.keys():
        yield place.format(name), here.get(name, _ABSENT), there.get(name, _ABSENT)


def _of_objects(place: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Difference]:
    """Where the classes of two objects differ, or the tasks that make them."""
    names = [f"{config['class']['module']}.{config['class']['name']}" for config in (one, other)]
    if names[0] != names[1]:
        yield Difference(f"{place} (class)".strip(), names[0], names[1])
    if one.get("source") != other.get("source"):
        yield Difference(f"{place} (made by)".strip(), one.get("source", ABSENT), other.get("source", ABSENT))


def _text(value: Any, document: Mapping[str, Any]) -> str:
    if value is _ABSENT:
        return ABSENT
    if _is_config(value):
        return f"{document['configs'][value['$config']]['class']['name']}(...)"
    return json.dumps(value, sort_keys=True)
