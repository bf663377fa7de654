"""Which parameters make two jobs differ. In: two ``params.json``. Out: the values that differ, by their place. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

#: stands for a value that one of the two does not have
ABSENT = "(not there)"


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
    here, there = dict(_places(left)), dict(_places(right))
    return [
        Difference(place, here.get(place, ABSENT), there.get(place, ABSENT))
        for place in sorted(here.keys() | there.keys())
        if here.get(place) != there.get(place)
    ]


def _places(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    configs = document["configs"]
    todo: list[tuple[str, Any]] = [("", {"$config": 0})]
    seen: set[int] = set()
    while todo:
        place, value = todo.pop()
        if isinstance(value, dict) and "$config" in value:
            number = value["$config"]
            config = configs[number]
            yield f"{place} (class)".strip(), f"{config['class']['module']}.{config['class']['name']}"
            if "source" in config:
                yield f"{place} (made by)".strip(), config["source"]
            if number not in seen:  # a shared object is looked at once
                seen.add(number)
                dot = f"{place}." if place else ""
                todo.extend((f"{dot}{name}", inner) for name, inner in config["params"].items())
        elif isinstance(value, list):
            todo.extend((f"{place}[{index}]", inner) for index, inner in enumerate(value))
        elif isinstance(value, dict) and not any(name.startswith("$") for name in value):
            todo.extend((f"{place}[{json.dumps(name)}]", inner) for name, inner in value.items())
        else:
            yield place, json.dumps(value, sort_keys=True)
