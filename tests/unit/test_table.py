"""Tables as they fit a terminal."""

from __future__ import annotations

import pytest

from experimaestro_hpc.cli.table import cut, fitted, laid_out, places

ROWS = [["train/3fa2", "running", "a rather long note", "lr=0.1"], ["eval/77b1", "failed (exit)", "", "lr=0.01 seed=2"]]
NAMES = ["job", "state", "note", "tags"]


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("abc", 3), ("猫", 2), ("e\u0301", 1), ("é", 1), ("…", 1), ("\uff21", 2)]
)
def test_places(text, count):
    assert places(text) == count


@pytest.mark.parametrize(
    ("text", "most", "found"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("猫猫猫", 5, "猫猫…"),
        ("猫猫猫", 4, "猫…"),
        ("", 0, ""),
        ("abcdef", 1, "…"),
    ],
)
def test_cut(text, most, found):
    assert cut(text, most) == found
    assert places(found) <= most


@pytest.mark.parametrize("width", range(20, 70))
def test_no_line_is_wider_than_the_terminal_if_that_can_be(width):
    lines = laid_out(ROWS, NAMES, ("note", "tags"), width)
    least = len("train/3fa2  failed (exit)")
    assert max(map(places, lines)) <= max(width, least)
    assert all(row[0] in line and row[1] in line for row, line in zip(ROWS, lines[2:])), "ids and states are whole"


@pytest.mark.parametrize(
    ("width", "names", "cells"),
    [
        (80, NAMES, ["a rather long note", "lr=0.01 seed=2"]),
        (56, NAMES, ["a rather lon…", "lr=0.01 seed=2"]),
        (48, NAMES, ["a rathe…", "lr=0.01 se…"]),
        (40, ["job", "state", "tags"], ["lr=0.01…"]),
        (30, ["job", "state"], []),
        (5, ["job", "state"], []),
    ],
)
def test_what_goes_first(width, names, cells):
    rows, headers = fitted(ROWS, NAMES, ("note", "tags"), width)
    assert headers == names
    if cells:
        assert [max((row[number] for row in rows), key=len) for number in range(2, len(headers))] == cells


def test_colours_take_no_place():
    plain = laid_out(ROWS, NAMES)
    coloured = laid_out(ROWS, NAMES, styles=lambda name, cell: f"\x1b[31m{cell}\x1b[0m" if name == "state" else cell)
    assert [line.replace("\x1b[31m", "").replace("\x1b[0m", "") for line in coloured] == plain
    assert coloured[2] != plain[2]
    assert coloured[0] == plain[0]


def test_no_rows():
    assert laid_out([], ["a", "bcd"]) == ["a  bcd", "-  ---"]
