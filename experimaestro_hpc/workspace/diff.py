"""Which parameters make two jobs differ. In: two ``params.json``. Out: the values that differ, by their place. Pure."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .params import is_config, is_task, value_in_words
from .words import short

#: stands for a value that one of the two does not have
ABSENT = "(not there)"
_ABSENT = object()
_MANY = {"$tuple", "$set", "$frozenset", "$dict"}


class Difference(NamedTuple):
    """One place where two jobs differ.

    :ivar place: such as ``model.layers[2]``
    :ivar left: the value as JSON text, or :data:`ABSENT`
    """

    place: str
    left: str
    right: str

    def to_json(self) -> dict[str, Any]:
        """The same for programs: values as they are in ``params.json``; what is not there is left out.

        >>> Difference("rate", "0.5", ABSENT).to_json()
        {'place': 'rate', 'left': 0.5}
        """
        sides = {"left": self.left, "right": self.right}
        return {"place": self.place} | {side: _value(text) for side, text in sides.items() if text != ABSENT}

    def words(self) -> tuple[str, str, str]:
        """The same for people.

        >>> Difference("path", '{"$path": "/tmp"}', ABSENT).words()
        ('path', '/tmp', '(not there)')
        """
        return self.place, _words(self.left), _words(self.right)


Document = Mapping[str, Any]


def differences(
    left: Document, right: Document, read: Callable[[str], Document | None] = lambda _job: None
) -> list[Difference]:
    """The places where two documents differ, in the order of names; where they need other tasks, inside of those.

    :param left: the content of ``params.json``
    :param read: that of another job, by its id, or None where it cannot be read: then the ids are told

    >>> a = {"configs": [{"class": {"module": "m", "name": "Say"}, "params": {"word": "x"}}]}
    >>> b = {"configs": [{"class": {"module": "m", "name": "Say"}, "params": {"word": "y"}}]}
    >>> differences(a, b)
    [Difference(place='word', left='"x"', right='"y"')]
    """
    found: list[Difference] = []
    todo: list[tuple[str, Any, Any, Document, Document]] = [("", {"$config": 0}, {"$config": 0}, left, right)]
    seen: set[tuple[int, int, int, int]] = set()
    document = functools.cache(read)
    while todo:
        place, here, there, mine, its = todo.pop()
        if is_config(here) and is_config(there):
            key = (id(mine), here["$config"], id(its), there["$config"])
            if key in seen:  # objects may be shared: each pair is compared once
                continue
            seen.add(key)
            one, other = mine["configs"][here["$config"]], its["configs"][there["$config"]]
            names = [f"{config['class']['module']}.{config['class']['name']}" for config in (one, other)]
            if names[0] != names[1]:
                found.append(Difference(f"{place} (class)".strip(), names[0], names[1]))
            if one.get("source") != other.get("source"):
                todo.append((f"{place} (made by)".strip(), _maker(one), _maker(other), mine, its))
            dot = f"{place}." if place else ""
            pairs = _pairs(one["params"], other["params"], f"{dot}{{}}")
        elif isinstance(here, list) and isinstance(there, list):
            pairs = _pairs(dict(enumerate(here)), dict(enumerate(there)), f"{place}[{{}}]")
        elif _many(here) and _many(here) == _many(there):
            (kind,) = _many(here)
            todo.append((place, here[kind], there[kind], mine, its))
            continue
        elif _is_plain(here) and _is_plain(there):
            pairs = _pairs(here, there, f"{place}[{{!r}}]")
        elif here == there and type(here) is type(there):
            continue
        else:
            needed = [document(one["$task"]) if is_task(one) else None for one in (here, there)]
            if needed[0] is not None and needed[1] is not None:
                todo.append((place, {"$config": 0}, {"$config": 0}, needed[0], needed[1]))
            else:
                found.append(Difference(place, _text(here, mine), _text(there, its)))
            continue
        todo += [(where, one, other, mine, its) for where, one, other in pairs]
    return sorted(found)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # an object or a task, which has no value of its own
        return text


def _words(text: str) -> str:
    try:
        return value_in_words(json.loads(text))
    except ValueError:
        return text


def _many(value: Any) -> set[str]:
    """The word for what a value is, if it is several that JSON has no form for."""
    return value.keys() & _MANY if isinstance(value, dict) else set()


def _is_plain(value: Any) -> bool:
    return isinstance(value, dict) and not any(name.startswith("$") for name in value)


def _pairs(here: Mapping[Any, Any], there: Mapping[Any, Any], place: str) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted(here.keys() | there.keys(), reverse=True):  # taken from the end
        yield place.format(name), here.get(name, _ABSENT), there.get(name, _ABSENT)


def _maker(config: Mapping[str, Any]) -> Any:
    return {"$task": config["source"]} if config.get("source") else _ABSENT


def _text(value: Any, document: Document) -> str:
    if value is _ABSENT:
        return ABSENT
    if is_config(value):
        return f"{document['configs'][value['$config']]['class']['name']}(...)"
    if is_task(value):
        return short(value["$task"])
    return json.dumps(value, sort_keys=True)
