"""Plans: what is reused, attached to and submitted; in which groups, and parents before children."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experimaestro_hpc.driver.plan import Plan, PlannedJob, in_order, make_plan, with_done_here
from experimaestro_hpc.errors import XpmError


def jobs(text: str) -> list[PlannedJob]:
    """``"a b<a c:gpu<a,b"``: names, their likeness, their parents."""
    found = []
    for word in text.split():
        head, _, parents = word.partition("<")
        name, _, likeness = head.partition(":")
        found.append(PlannedJob(name, tuple(filter(None, parents.split(","))), likeness))
    return found


def states(text: str) -> dict[str, dict[str, str]]:
    return {name: {"state": state} for name, _, state in (word.partition("=") for word in text.split())}


def groups(plan: Plan) -> list[str]:
    """``["a b", "c<a"]``: the jobs of each group, and what they need."""
    return [" ".join(group.jobs) + ("<" + ",".join(group.parents) if group.parents else "") for group in plan.submit]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("a b c", "a b c"),
        ("b<a a", "a b"),
        ("d<b,c b<a c<a a", "a b c d"),
        ("c<b b<a a d", "a b c d"),
        ("a b<a,a", "a b"),
        ("x c<a a y", "x a c y"),
    ],
)
def test_parents_come_first_and_the_rest_stays_in_order(text, expected):
    assert " ".join(job.id for job in in_order(jobs(text))) == expected


def test_a_parent_that_was_not_submitted():
    with pytest.raises(XpmError, match="b needs a, which was not submitted") as caught:
        in_order(jobs("c<b b<a"))
    assert "call submit() on each task" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "known", "expected"),
    [
        ("", "", []),
        ("a", "", ["a"]),
        ("a b c", "", ["a b c"]),
        ("a b:gpu c", "", ["a c", "b"]),
        ("a b<a", "", ["a", "b<a"]),
        ("b<a c<a a", "", ["a", "b c<a"]),
        # a diamond, and one whose sides differ
        ("a b<a c<a d<b,c", "", ["a", "b c<a", "d<b,c"]),
        ("a b:gpu<a c<a d<b,c", "", ["a", "b<a", "c<a", "d<b,c"]),
        # the same likeness and other parents: not together, or one would wait for the other's
        ("a b c<a d<b", "", ["a b", "c<a", "d<b"]),
        ("a b c<a,b d<b,a", "", ["a b", "c<a,b", "d<b,a"]),
        # the states
        ("a b c", "a=done b=running", ["c"]),
        ("a b", "a=queued b=waiting", []),
        ("a b", "a=held b=done", []),
        ("a b", "a=failed b=unscheduled", ["a b"]),
        ("a b<a", "a=done", ["b<a"]),
        ("a b<a", "a=running", ["b<a"]),
        ("a b<a", "a=failed", ["a", "b<a"]),
        # parents that are done keep nobody apart
        ("a b c<a d<b", "a=done b=done", ["c d<a,b"]),
        ("a b c<a d<b", "a=done b=running", ["c<a", "d<b"]),
        ("a b c<a,b d<b", "a=done", ["b", "c d<a,b"]),
        # a child that is done before its parent, whose result was deleted
        ("a b<a", "b=done", ["a"]),
    ],
)
def test_groups(text, known, expected):
    assert groups(make_plan(jobs(text), states(known))) == expected


def test_what_becomes_of_each():
    plan = make_plan(jobs("a b c d e f"), states("a=done b=running c=queued d=failed e=done f=waiting"))
    assert (plan.reuse, plan.attach, plan.submitted) == (("a", "e"), ("b", "c", "f"), ["d"])


@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (2, 2, [2]), (3, 1, [1, 1, 1]), (2500, 1000, [1000, 1000, 500])],
)
def test_large_groups_are_cut(count, most, sizes):
    many = [PlannedJob(f"j{number}", (), "") for number in range(count)]
    plan = make_plan(many, {}, most)
    assert [len(group.jobs) for group in plan.submit] == sizes
    assert plan.submitted == [job.id for job in many]


def test_a_cut_group_needs_only_what_its_own_jobs_need():
    plan = make_plan(jobs("p q a<p b<q"), states("p=done q=done"), 1)
    assert groups(plan) == ["a<p", "b<q"]


def test_groups_come_after_the_groups_of_their_parents_whatever_the_order():
    """The second group was begun by a job whose parents came late."""
    plan = make_plan(jobs("a:x b:y c:x<b d:y<a"), {})
    assert groups(plan) == ["a", "b", "c<b", "d<a"]
    plan = make_plan(jobs("a b<a c:gpu d:gpu<b"), {})
    assert groups(plan) == ["a", "b<a", "c", "d<b"]


@st.composite
def graphs(draw: Any) -> tuple[list[PlannedJob], dict[str, dict[str, str]]]:
    """Any graph, its jobs in any order, in any state."""
    count = draw(st.integers(0, 12))
    found = []
    for number in range(count):
        parents = draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True)) if number else []
        found.append(PlannedJob(f"j{number}", tuple(f"j{one}" for one in parents), draw(st.sampled_from("xy"))))
    names = st.sampled_from(["done", "failed", "running", "queued", "unscheduled"])
    known = {f"j{number}": {"state": draw(names)} for number in range(count) if draw(st.booleans())}
    return draw(st.permutations(found)), known


@given(graphs(), st.integers(1, 4))
def test_any_plan(graph, most):
    planned, known = graph
    plan = make_plan(planned, known, most)
    assert sorted([*plan.reuse, *plan.attach, *plan.submitted]) == sorted(job.id for job in planned)
    by_id = {job.id: job for job in planned}
    seen: set[str] = {*plan.reuse, *plan.attach}
    for group in plan.submit:
        assert 1 <= len(group.jobs) <= most
        assert len({by_id[job].likeness for job in group.jobs}) == 1
        waits = [{one for one in by_id[job].parents if one not in plan.reuse} for job in group.jobs]
        assert all(one == waits[0] for one in waits), "nobody waits for the parents of others"
        assert set(group.parents) == {parent for job in group.jobs for parent in by_id[job].parents}
        assert set(group.parents) <= seen
        seen |= set(group.jobs)
    assert make_plan(planned, known, most) == plan


@pytest.mark.parametrize("shape", ["wide", "chain", "layers", "reverse chain"])
def test_five_thousand_tasks_are_planned_quickly(shape):
    count = 5000
    if shape == "wide":
        planned = [PlannedJob(f"j{n}", (), "") for n in range(count - 1)]
        planned.append(PlannedJob("join", tuple(job.id for job in planned), ""))
    elif shape == "layers":
        planned = [
            PlannedJob(f"j{n}", tuple(f"j{p}" for p in range(n // 100 * 100 - 100, n // 100 * 100) if p >= 0), "")
            for n in range(count)
        ]
    else:
        planned = [PlannedJob(f"j{n}", (f"j{n - 1}",) if n else (), "") for n in range(count)]
    if shape == "reverse chain":
        planned.reverse()
    began = time.process_time()
    plan = make_plan(planned, {})
    assert time.process_time() - began < 2.0
    assert len(plan.submitted) == count
    assert len(plan.submit) == {"wide": 6, "layers": 50}.get(shape, count)
    turn = {job: number for number, group in enumerate(plan.submit) for job in group.jobs}
    assert all(turn[parent] < turn[job.id] for job in planned for parent in job.parents)


DONE = {"state": "done"}


@pytest.mark.parametrize(
    ("states", "here", "done", "submitted"),
    [
        # all was done elsewhere: nothing runs again
        ({}, "abc", "abc", ""),
        # c is new: its parent b must run where c does, and a, which b needs, as well
        ({}, "ab", "", "abc"),
        # c is new, and b is done there: only c runs
        ({"b": DONE}, "ab", "ab", "c"),
        # what is under way there is not taken for done
        ({"c": {"state": "running"}}, "abc", "ab", ""),
        # failed there, done here
        ({"c": {"state": "failed"}}, "abc", "abc", ""),
        ({}, "", "", "abc"),
    ],
)
def test_what_was_done_elsewhere(states, here, done, submitted):
    """A chain a, b, c; what is done here counts, unless a job that is to run there needs its files."""
    chain = [PlannedJob("a", (), None), PlannedJob("b", ("a",), None), PlannedJob("c", ("b",), None)]
    known = with_done_here(chain, states, dict.fromkeys(here, DONE))
    assert [job for job in "abc" if known.get(job) == DONE] == list(done)
    assert make_plan(chain, known).submitted == list(submitted)
