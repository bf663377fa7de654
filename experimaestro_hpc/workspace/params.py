"""The parameters of a job, for people. In: its ``params.json``. Out: texts by place. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .words import short


def is_config(value: Any) -> bool:
    """Whether a value stands for another object of its document."""
    return isinstance(value, dict) and "$config" in value


def is_task(value: Any) -> bool:
    """Whether a value stands for another job."""
    return isinstance(value, dict) and "$task" in value


def parameters(document: Mapping[str, Any]) -> dict[str, str]:
    """What a task was given, also inside of its configurations; of a task that it needs the short id.

    :param document: the content of ``params.json``, or nothing

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
            found[place] = json.dumps(value, ensure_ascii=False)
    return found
