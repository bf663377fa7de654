"""Tables for people. In: cells. Out: lines that fit a terminal. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

#: a column is not cut to fewer places than this; it goes as a whole instead
LEAST = 8


def laid_out(
    rows: Sequence[Sequence[str]],
    headers: Sequence[str],
    fit: Sequence[str] = (),
    width: int | None = None,
    styles: Callable[[str, str], str] | None = None,
) -> list[str]:
    """The lines of a table.

    :param fit: columns that are cut, and then left out, in this order, until a line has at most ``width`` places
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
    rows: Sequence[Sequence[str]], headers: Sequence[str], fit: Sequence[str], width: int
) -> tuple[list[list[str]], list[str]]:
    """Rows and headers that need at most ``width`` places, if that can be had by cutting the columns ``fit``."""
    table, names = [list(row) for row in rows], list(headers)
    widths = _widths(table, names)

    def over() -> int:
        return sum(widths) + 2 * (len(widths) - 1) - width

    for name in fit:
        if name in names and over() > 0:
            number = names.index(name)
            widths[number] = min(widths[number], max(len(name), LEAST, widths[number] - over()))
            for row in table:
                row[number] = cut(row[number], widths[number])
    for name in fit:
        if name in names and over() > 0:
            number = names.index(name)
            del names[number], widths[number]
            for row in table:
                del row[number]
    return table, names


def _widths(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> list[int]:
    return [max(map(places, column)) for column in zip(headers, *rows)]


def cut(text: str, most: int) -> str:
    """``text``, in at most ``most`` places.

    >>> cut("a long note", 7)
    'a long…'
    """
    if places(text) <= most:
        return text
    while places(text) > most - 1:
        text = text[: most - 1] if len(text) >= most else text[:-1]
    return f"{text}…"


def places(text: str) -> int:
    """How many places of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )
