"""Tables for people. In: cells. Out: lines that fit a terminal. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

#: a text is not cut to fewer places than this while another column can be left out in its place
LEAST = 16
#: and one that tells rows apart to no fewer than these
DEAR = 32


class Fit(NamedTuple):
    """How a table becomes narrower. What is named nowhere stays whole while that can be.

    :ivar texts: columns that are cut, group by group; in a group the widest first
    :ivar dear: those of them that tell rows apart
    :ivar ends: columns whose end says most, so that their beginning is cut
    :ivar spare: columns that are left out, in this order
    """

    texts: Sequence[Sequence[str]] = ()
    dear: Collection[str] = ()
    ends: Collection[str] = ()
    spare: Sequence[str] = ()


#: nothing is, but where there is no room for all
WHOLE = Fit()


def laid_out(
    rows: Sequence[Sequence[str]],
    headers: Sequence[str],
    fit: Fit = WHOLE,
    width: int | None = None,
    styles: Callable[[str, str], str] | None = None,
) -> list[str]:
    """The lines of a table.

    :param fit: how it is made to have at most ``width`` places
    :param styles: makes a cell of a column coloured

    >>> laid_out([["a", "1"], ["猫", "2"]], ["name", "n"])
    ['name  n', '----  -', 'a     1', '猫    2']
    """
    if width is not None:
        rows, headers = fitted(rows, headers, fit, width)
    widths = _widths(rows, headers)
    lines = [_line(headers, headers, widths), "  ".join("-" * one for one in widths)]
    for row in rows:
        shown = row if styles is None else [styles(name, cell) for name, cell in zip(headers, row)]
        lines.append(_line(row, shown, widths))
    return lines


def _line(row: Sequence[str], shown: Sequence[str], widths: Sequence[int]) -> str:
    padded = (text + " " * (width - places(cell)) for cell, text, width in zip(row, shown, widths))
    return "  ".join(padded).rstrip()


def fitted(
    rows: Sequence[Sequence[str]], headers: Sequence[str], fit: Fit, width: int
) -> tuple[list[list[str]], list[str]]:
    """Rows and headers that need at most ``width`` places.

    Columns that may be left out stay if they have room beside those that matter more, texts being cut for them.
    Where not even the others have room, these are cut, the widest first.
    """
    widths = [min(one, width) for one in _widths(rows, headers)]
    texts = [[number for number, name in enumerate(headers) if name in group] for group in fit.texts]
    least = list(widths)
    for number in (one for group in texts for one in group):
        least[number] = min(widths[number], DEAR if headers[number] in fit.dear else LEAST)
    rank = {name: number for number, name in enumerate(fit.spare)}
    kept: list[int] = []
    for number in sorted(range(len(headers)), key=lambda one: -rank.get(headers[one], len(rank))):
        is_spare = headers[number] in rank
        if not (is_spare and kept) or _total([least[one] for one in [*kept, number]]) <= width:
            kept.append(number)
    kept.sort()
    for group in texts:
        _shrink(widths, kept, [one for one in group if one in kept], least, width)
    _shrink(widths, kept, kept, [1] * len(widths), width)
    table = [[cut(row[one], widths[one], headers[one] in fit.ends) for one in kept] for row in rows]
    return table, [cut(headers[one], widths[one], at_start=True) for one in kept]


def _shrink(widths: list[int], kept: Sequence[int], some: Sequence[int], least: Sequence[int], width: int) -> None:
    """Take places from the widest of some columns until all that are kept have room."""
    over = _total([widths[one] for one in kept]) - width
    for _place in range(over):
        widest = max((one for one in some if widths[one] > least[one]), key=lambda one: widths[one], default=None)
        if widest is None:
            return
        widths[widest] -= 1


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _widths(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> list[int]:
    return [max(map(places, column)) for column in zip(headers, *rows)]


def cut(text: str, most: int, at_start: bool = False) -> str:
    """``text``, in at most ``most`` places.

    :param at_start: its end says more than its beginning

    >>> cut("a long note", 7), cut("study.train/3fa2", 11, at_start=True)
    ('a long…', '…train/3fa2')
    """
    if places(text) <= most:
        return text
    while places(text) > most - 1:
        over = max(1, len(text) - most + 1)
        text = text[over:] if at_start else text[:-over]
    return f"…{text}" if at_start else f"{text}…"


def places(text: str) -> int:
    """How many places of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )
