"""Tables as they fit a terminal."""

from __future__ import annotations

import pytest

from experimaestro_hpc.cli.table import LEAST, Fit, cut, fitted, laid_out, places

NOTE = "ValueError: lr must be below 1"
ROWS = [
    ["study.train/3fa2abcd", "running", "gate 17 on c1", "1 min 12 s", "lr=0.1 seed=1", ""],
    ["study.train/77b1abcd", "failed (exit)", "gate 18 on c1", "59.9 s", "lr=0.01 seed=12", NOTE],
]
NAMES = ["job", "state", "where", "time", "tags", "note"]
FIT = Fit(texts=(("note",), ("tags",)), dear=("tags",), ends=("job",), spare=("where", "time", "note"))


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
    assert cut(text[::-1], most, at_start=True) == found[::-1]


@pytest.mark.parametrize("width", range(20, 120))
def test_no_line_is_wider_than_the_terminal(width):
    lines = laid_out(ROWS, NAMES, FIT, width)
    assert max(map(places, lines)) <= width
    least = len("study.train/3fa2abcd  failed (exit)  lr=0.01 seed=12")
    for row, line in zip(ROWS, lines[2:]):
        assert row[0][-4:] in line, "of a job, its id"
        if width >= least:
            assert all(row[number] in line for number in (0, 1, 4)), "what tells jobs apart is whole"
            assert "time" not in lines[0] or row[3] in line, "times are whole"
    assert width < least + 2 + LEAST or "ValueError:" in lines[3]


@pytest.mark.parametrize(
    ("width", "names", "last"),
    [
        (120, NAMES, NOTE),
        (100, NAMES, "ValueError: lr mus…"),
        (97, NAMES, "ValueError: lr …"),
        (96, ["job", "state", "time", "tags", "note"], NOTE),
        (80, ["job", "state", "tags", "note"], "ValueError: lr must be be…"),
        (68, ["job", "state", "time", "tags"], "lr=0.01 seed=12"),
        (60, ["job", "state", "tags"], "lr=0.01 seed=12"),
        (40, ["job", "state", "tags"], "lr=0.01 see…"),
    ],
)
def test_what_goes_first(width, names, last):
    rows, headers = fitted(ROWS, NAMES, FIT, width)
    assert (headers, rows[1][-1]) == (names, last)


def test_what_tells_rows_apart_is_not_cut_for_what_can_be_left_out():
    rows = [["study.train/3fa2abcd", "kind=Kind.SMALL lr=0.1", "1 min 12 s"]]
    fit = Fit(texts=(("tags",),), spare=("time",))
    assert fitted(rows, ["job", "tags", "time"], fit, 50)[1] == ["job", "tags", "time"]
    fit = fit._replace(dear=("tags",))
    assert fitted(rows, ["job", "tags", "time"], fit, 50) == ([rows[0][:2]], ["job", "tags"])
    rows[0][1] += " seed=1" * 9
    assert fitted(rows, ["job", "tags", "time"], fit, 66)[0][0][1] == "kind=Kind.SMALL lr=0.1 seed=1 s…"


def test_of_alike_columns_the_widest_is_cut():
    rows = [["p", "x" * 200, "y" * 20], ["q", "1", "z" * 180]]
    table, _ = fitted(rows, ["parameter", "a", "b"], Fit((("a", "b"), ("parameter",))), 61)
    assert table == [["p", "x" * 23 + "…", "y" * 20], ["q", "1", "z" * 23 + "…"]]


def test_columns_of_one_name_and_none_but_spare_ones():
    assert fitted([["abc", "abc"]], ["a", "a"], Fit(spare=("a",)), 5) == ([["abc"]], ["a"])
    assert fitted([["abcdef", "x"]], ["a", "b"], Fit(ends="a", spare=("b", "a")), 5) == ([["…cdef"]], ["a"])


def test_colours_take_no_place():
    plain = laid_out(ROWS, NAMES)
    coloured = laid_out(ROWS, NAMES, styles=lambda name, cell: f"\x1b[31m{cell}\x1b[0m" if name == "state" else cell)
    assert [line.replace("\x1b[31m", "").replace("\x1b[0m", "") for line in coloured] == plain
    assert coloured[2] != plain[2]
    assert coloured[0] == plain[0]


def test_no_rows():
    assert laid_out([], ["a", "bcd"]) == ["a  bcd", "-  ---"]
