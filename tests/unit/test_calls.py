"""Which jobs one call of the submission command can hold: nobody waits for the parents of others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experimaestro_hpc.agent.calls import Call, shortened, split

Told = list[tuple[str, str, str]]


def told(calls: list[Call]) -> Told:
    """``[("0 1", "5", "7")]``: indexes, what all wait for, the arrays of which each waits for its own element."""
    return [(" ".join(map(str, one.indexes)), " ".join(one.dependencies), " ".join(one.corresponding)) for one in calls]


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, []),
        ({0: ""}, [("0", "", "")]),
        ({0: "", 1: "", 7: ""}, [("0 1 7", "", "")]),
        # all wait for the same
        ({0: "5", 1: "5"}, [("0 1", "5", "")]),
        ({0: "6 5", 1: "5 6"}, [("0 1", "5 6", "")]),
        ({0: "7_0 7_1", 1: "7_1 7_0"}, [("0 1", "7_0 7_1", "")]),
        # each for its own
        ({0: "7_0", 1: "7_1", 4: "7_4"}, [("0 1 4", "", "7")]),
        ({0: "7_0 5", 1: "5 7_1"}, [("0 1", "5", "7")]),
        ({0: "7_0 8_0", 1: "7_1 8_1"}, [("0 1", "", "7 8")]),
        # one alone needs no such words
        ({3: "7_3"}, [("3", "7_3", "")]),
        # an index that is another's
        ({0: "7_1", 1: "7_0"}, [("0", "7_1", ""), ("1", "7_0", "")]),
        ({0: "7_0", 1: "7_10"}, [("0", "", "7"), ("1", "7_10", "")]),
        ({0: "7_0", 1: "8_1"}, [("0", "", "7"), ("1", "", "8")]),
        # some have parents that are done
        ({0: "7_0", 1: "", 2: "7_2"}, [("0 2", "", "7"), ("1", "", "")]),
        ({0: "7_0", 1: "7_1 7_0"}, [("0", "7_0", ""), ("1", "7_0", "7")]),
        ({0: "5", 1: "6", 2: "5"}, [("0 2", "5", ""), ("1", "6", "")]),
        # ids without an index, and strange ones
        ({0: "0f0f", 1: "0f0e"}, [("0", "0f0f", ""), ("1", "0f0e", "")]),
        ({0: "_0", 1: "_1"}, [("0", "_0", ""), ("1", "_1", "")]),
        ({0: "7_00", 1: "7_01"}, [("0", "7_00", ""), ("1", "7_01", "")]),
    ],
)
def test_split(elements, expected):
    assert told(split({index: natives.split() for index, natives in elements.items()}, corresponds=True)) == expected


def test_a_scheduler_that_cannot_say_it_gets_a_call_for_each():
    calls = split({0: ["7_0", "5"], 1: ["7_1", "5"], 2: ["7_0", "5"]}, corresponds=False)
    assert told(calls) == [("0 2", "5 7_0", ""), ("1", "5 7_1", "")]


@st.composite
def arrays(draw: Any) -> dict[int, list[str]]:
    native = st.one_of(
        st.integers(0, 3).map(str),
        st.builds("{}_{}".format, st.integers(4, 6), st.integers(0, 5)),
        st.sampled_from(["0f_1", "a_b_2", "_0", "x"]),
    )
    return draw(st.dictionaries(st.integers(0, 5), st.lists(native, max_size=4, unique=True)))


@given(arrays(), st.booleans())
def test_each_element_is_in_one_call_and_waits_for_its_own_parents_alone(elements, corresponds):
    calls = split(elements, corresponds)
    assert sorted(index for call in calls for index in call.indexes) == sorted(elements)
    for call in calls:
        for index in call.indexes:
            assert {*call.dependencies, *(f"{one}_{index}" for one in call.corresponding)} == {*elements[index]}
        assert corresponds or not call.corresponding
    waits = [(call.dependencies, call.corresponding) for call in calls]
    assert len(set(waits)) == len(waits), "those that wait for the same are one call"


@pytest.mark.parametrize(
    ("natives", "sizes", "expected"),
    [
        ("", {}, ""),
        ("9", {"7": 2}, "9"),
        ("7_0 7_1 9", {"7": 2}, "7 9"),
        ("9 7_1 7_0", {"7": 2}, "9 7"),
        ("7_0 9", {"7": 2}, "7_0 9"),
        ("7_0 7_1", {}, "7_0 7_1"),
        ("7_0 8_0 7_1 8_1", {"7": 2, "8": 3}, "7 8_0 8_1"),
        ("7_3", {"7": 1}, "7"),
        ("7 8", {"": 2}, "7 8"),
    ],
)
def test_shortened(natives, sizes, expected):
    assert shortened(natives.split(), sizes) == expected.split()


def test_five_thousand_elements_are_a_short_line():
    natives = [f"7_{index}" for index in range(5000)]
    assert shortened(natives, {"7": 5000}) == ["7"]
    assert len(split({index: [native] for index, native in enumerate(natives)}, corresponds=True)) == 1
