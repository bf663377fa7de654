"""Which jobs can be submitted in one call. In: an array's elements and the native ids that each waits for. Out: calls.
Pure.

An array never delays an element beyond its own parents: elements that wait for the same are one call; and where the
scheduler can say it, elements that wait for the element of the same index in other arrays are one call too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Call(NamedTuple):
    """One call of the submission command.

    :param indexes: the elements
    :param dependencies: native ids that all of them wait for
    :param corresponding: arrays of which each waits for the element with its own index
    """

    indexes: tuple[int, ...]
    dependencies: tuple[str, ...]
    corresponding: tuple[str, ...]


def split(elements: Mapping[int, Sequence[str]], corresponds: bool) -> list[Call]:
    """The calls for an array.

    :param elements: by index, the native ids that an element waits for
    :param corresponds: whether the scheduler knows dependencies between elements of the same index

    >>> split({0: ["7_0", "5"], 1: ["7_1", "5"]}, corresponds=True)
    [Call(indexes=(0, 1), dependencies=('5',), corresponding=('7',))]
    """
    shared = set.intersection(*(set(natives) for natives in elements.values())) if elements else set()
    calls: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for index, natives in elements.items():
        # of those that not all wait for, the ones with the same index
        twins = [native for native in natives if corresponds and native not in shared and _index(native) == str(index)]
        others = tuple(sorted(set(natives) - set(twins)))
        calls.setdefault((others, tuple(sorted(_array(native) for native in twins))), []).append(index)
    return [Call(tuple(indexes), *waits) for waits, indexes in calls.items()]


def _array(native: str) -> str:
    return native.rpartition("_")[0]


def _index(native: str) -> str:
    array, _, index = native.rpartition("_")
    return index if array else ""


def shortened(natives: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    """``natives`` with all elements of an array written as the array: thousands of them do not fit on a line.

    :param sizes: the number of elements of each array

    >>> shortened(["7_0", "7_1", "9"], {"7": 2})
    ['7', '9']
    """
    counts: dict[str, int] = {}
    for native in natives:
        array = _array(native)
        counts[array] = counts.get(array, 0) + 1
    whole = {array for array, count in counts.items() if array and sizes.get(array) == count}
    return list(dict.fromkeys(_array(native) if _array(native) in whole else native for native in natives))
