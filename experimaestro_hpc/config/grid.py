"""Cross products of values. In: lists of values by name. Out: one point for each combination, with its tags."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from ..errors import ParameterError

C = TypeVar("C")


class Point(dict[str, Any]):
    """One combination: a dict to make a task from, and the tags that tell it from the others."""

    def tag(self, config: C) -> C:
        """Tag ``config`` with all values of the point; returns ``config``.

        An object among the values is named by its class and its own tags.
        """
        for name, value in self.items():
            config.tag(name, _label(value))  # type: ignore[attr-defined]
        return config


def _label(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    state = getattr(value, "__dict__", {}).get("__xpm__")
    if state is None:
        return str(value)
    own = ",".join(f"{key}={one}" for key, one in state.tags.items())
    return f"{type(value).__name__}({own})"


def grid(**values: Iterable[Any]) -> Iterator[Point]:
    """All combinations of the given values, the last name changing fastest.

    :param values: the values to try, by the parameter's name
    :raises ParameterError: no list of values, or an empty one

    >>> for point in grid(lr=[0.1, 0.01], layers=[2, 4]):
    ...     point.tag(Train(**point, epochs=3)).submit()
    """
    lists = {}
    for name, choices in values.items():
        if isinstance(choices, (str, bytes, dict)) or not isinstance(choices, Iterable):
            raise ParameterError(f"grid wants a list of values for {name!r}, not {choices!r}")
        lists[name] = list(choices)
        if not lists[name]:
            raise ParameterError(f"grid has no value for {name!r}", hint="an empty list makes an empty grid")
    return (Point(zip(lists, combination)) for combination in itertools.product(*lists.values()))
