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
    """``"a=done b=running:17_3"``: names, states, native ids."""
    found = {}
    for word in text.split():
        name, _, rest = word.partition("=")
        state, _, native = rest.partition(":")
        found[name] = {"state": state, **({"native_id": native} if native else {})}
    return found


def groups(plan: Plan) -> list[str]:
    """``["a b", "c<a", "3=d 5=e<a,b"]``: the jobs of each group, by index if it is not their turn, what they need."""
    found = []
    for group in plan.submit:
        parents = dict.fromkeys(one for job in group.jobs for one in group.parents[job])
        usual = list(group.elements) == list(range(len(group.elements)))
        words = [job if usual else f"{index}={job}" for index, job in group.elements.items()]
        found.append(" ".join(words) + ("<" + ",".join(parents) if parents else ""))
    return found


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
        # pairs: each waits for its own parent, which has the same index
        ("a b c<a d<b", "", ["a b", "c d<a,b"]),
        ("a b c d<b e<c", "", ["a b c", "1=d 2=e<b,c"]),
        ("a b c<b d<a", "", ["a b", "1=c 0=d<b,a"]),
        ("a b:x c<a d<b", "", ["a", "b", "c<a", "d<b"]),
        ("a b c<a d:x<b", "", ["a b", "c<a", "d<b"]),
        ("a b c<a d<b e<c f<d", "", ["a b", "c d<a,b", "e f<c,d"]),
        # pairs with a parent that all of them have
        ("z:x a b c<a,z d<b,z", "", ["z", "a b", "c d<a,z,b"]),
        # a grid: each waits for an element of either array; only the same index fits
        ("a b x:2 y:2 c<a,x d<b,y", "", ["a b", "x y", "c d<a,x,b,y"]),
        ("a b x:2 y:2 c<a,y d<b,x", "", ["a b", "x y", "c<a,y", "d<b,x"]),
        # both wait for the same two, in an order of their own: together, with or without the same index
        ("a b c<a,b d<b,a", "", ["a b", "c<a,b", "d<b,a"]),
        # two children of one element: alike, so one array that waits for it
        ("a b c<a d<a e<b", "", ["a b", "c d<a", "e<b"]),
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
        # parents that were submitted earlier, by their native ids
        ("a b c<a d<b", "a=queued:17_3 b=running:17_5", ["3=c 5=d<a,b"]),
        ("a b c<a d<b", "a=queued:17_3 b=running:18_5", ["c<a", "d<b"]),
        ("a b c<a d<b", "a=queued:17_3 b=queued:17_3", ["3=c<a", "3=d<b"]),
        ("a b c<a d<b", "a=queued:17 b=queued:18", ["c<a", "d<b"]),
        ("a b c<a d<b", "a=queued b=held:17_x", ["c<a", "d<b"]),
        ("a b c<a d<b", "a=queued:17_1000 b=queued:17_999", ["999=d<b", "c<a"]),
        ("a b c<a d<b", "a=queued:0f0f_0 b=queued:0f0f_1", ["c d<a,b"]),
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
    assert groups(plan) == ["a", "c", "b<a", "d<b"]


@pytest.mark.parametrize("count", [2, 1000, 2500])
def test_many_pairs_are_as_few_groups_as_their_parents(count):
    fathers = [PlannedJob(f"a{number}", (), "a") for number in range(count)]
    sons = [PlannedJob(f"b{number}", (f"a{number}",), "b") for number in range(count)]
    plan = make_plan([one for pair in zip(fathers, sons, strict=True) for one in pair], {}, 1000)
    arrays = -(-count // 1000)
    assert len(plan.submit) == 2 * arrays
    for father, son in zip(plan.submit[:arrays], plan.submit[arrays:], strict=True):
        assert {index: job.replace("b", "a") for index, job in son.elements.items()} == father.elements


@st.composite
def graphs(draw: Any) -> tuple[list[PlannedJob], dict[str, dict[str, str]]]:
    """Any graph, its jobs in any order, in any state."""
    count = draw(st.integers(0, 12))
    found = []
    for number in range(count):
        parents = draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True)) if number else []
        found.append(PlannedJob(f"j{number}", tuple(f"j{one}" for one in parents), draw(st.sampled_from("xy"))))
    names = st.sampled_from(["done", "failed", "running", "queued", "unscheduled"])
    natives = st.sampled_from([None, "17", "17_0", "17_1", "17_2", "17_9", "18_1", "17_", "_3", "a_b_1"])
    known = {
        f"j{number}": {"state": draw(names), "native_id": draw(natives)}
        for number in range(count)
        if draw(st.booleans())
    }
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
        assert all(0 <= index < most for index in group.elements)
        assert len(set(group.jobs)) == len(group.jobs)
        assert len({by_id[job].likeness for job in group.jobs}) == 1
        assert group.parents == {job: by_id[job].parents for job in group.jobs}
        assert {parent for job in group.jobs for parent in by_id[job].parents} <= seen
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
    known, lacking = with_done_here(chain, states, dict.fromkeys(here, DONE))
    assert lacking == []
    assert [job for job in "abc" if known.get(job) == DONE] == list(done)
    assert make_plan(chain, known).submitted == list(submitted)


def test_results_that_can_be_sent_are_sent():
    """What is done here and needed there is sent, if all of it can be had; otherwise it runs there."""
    chain = [PlannedJob("a", (), None), PlannedJob("b", ("a",), None), PlannedJob("c", ("b",), None)]
    asked: list[str] = []

    def make_whole(jobs):
        asked.extend(jobs)
        return [job for job in jobs if job != "b"]

    known, lacking = with_done_here(chain, {}, {"a": DONE, "b": DONE}, make_whole)
    assert (asked, lacking) == (["b", "a"], ["a"])
    assert make_plan(chain, known).submitted == ["b", "c"]
    known, lacking = with_done_here(chain, {}, {"a": DONE, "b": DONE}, lambda jobs: jobs)
    assert lacking == ["b"]
    assert make_plan(chain, known).submitted == ["c"]
