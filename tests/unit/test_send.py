"""Calls of the scheduler: parents first, as few as may be, and what has no room or no answer is kept for later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from standin import (
    A,
    B,
    C,
    Crash,
    D,
    Deaths,
    StandIn,
    Start,
    agents,
    group,
    numbered_workspaces,
    restart,
    send,
    submitted_jobs,
    times_submitted,
)

from experimaestro_hpc.agent import send as send_module
from experimaestro_hpc.agent import service as service_module
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.receipts import Receipt, read_receipt
from experimaestro_hpc.agent.service import Service

MANY = [f"test.m{number}/{number:08x}" for number in range(8)]
SONS = [f"test.s{number}/{number:08x}" for number in range(8)]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A new agent on the same workspace, and its scheduler."""
    monkeypatch.setattr(service_module, "scheduler_class", lambda _name: StandIn)
    monkeypatch.setattr(send_module, "PAUSES", (0.001, 0.001))

    return agents(tmp_path)


def whole(layout: Layout, jobs: list[str]) -> dict[str, Receipt]:
    """The receipts that these jobs refer to: each is there, and knows the job at its index."""
    found = {}
    for job in jobs:
        receipt = read_receipt(layout, layout.record(job)["batch"])
        assert receipt is not None
        assert job in receipt.jobs.values()
        found[receipt.token] = receipt
    named = [job for receipt in found.values() for job in receipt.jobs.values()]
    assert len(set(named)) == len(named), "no job is in two of them"
    return found


def on_disk(layout: Layout) -> set[str]:
    """The receipts that there are."""
    return {path.parent.name for path in (layout.internal / "batches").glob("*/receipt.json")}


def states(service: Service, *jobs: str) -> list[str]:
    found = service.watcher.states(jobs)
    return [found[job]["state"] for job in jobs]


# --- Which calls are made


def test_pairs_are_two_calls(start):
    service, scheduler = start()
    pairs = dict(zip(SONS, ([one] for one in MANY), strict=True))
    answer = send(service, group("t1", MANY), group("t2", SONS, pairs))
    assert scheduler.calls_made == [
        ("m0 m1 m2 m3 m4 m5 m6 m7", "", ""),
        ("s0 s1 s2 s3 s4 s5 s6 s7", "", "t1"),
    ]
    assert answer["natives"][SONS[3]] == "t2_3"
    assert [one.name for one in scheduler.submissions] == ["job-t1", "job-t2"]


def test_pairs_with_a_parent_for_all(start):
    service, scheduler = start()
    pairs = {son: [A, father] for son, father in zip(SONS, MANY, strict=True)}
    send(service, group("t0", [A]), group("t1", MANY), group("t2", SONS, pairs))
    assert scheduler.calls_made[2][1:] == ("t0", "t1")


def test_a_child_of_a_whole_array_waits_for_the_array(start, monkeypatch):
    service, scheduler = start()
    assert len(MANY) <= send_module.FEW, "so few are named one by one"
    monkeypatch.setattr(send_module, "FEW", 2)
    send(service, group("t1", MANY), group("t2", [A], MANY), group("t3", [B], MANY[1:]))
    assert scheduler.calls_made[1][1:] == ("t1", "")
    assert scheduler.calls_made[2][1] == " ".join(f"t1_{index}" for index in range(1, 8))


def test_a_scheduler_without_such_words_is_told_each(start, monkeypatch):
    monkeypatch.setattr(StandIn, "corresponds", False)
    service, scheduler = start()
    send(service, group("t1", MANY[:2]), group("t2", SONS[:2], {SONS[0]: [MANY[0]], SONS[1]: [MANY[1]]}))
    send(service, group("t3", [A], MANY[:2]), token="again")
    assert scheduler.calls_made == [
        ("m0 m1", "", ""),
        ("s0", "t1_0", ""),
        ("s1", "t1_1", ""),
        ("a", "t1_0 t1_1", ""),
    ]


def test_parts_of_a_group_have_receipts_of_their_own(start):
    """One call for each kind of parents; the jobs know their receipts, and all run the one script."""
    service, scheduler = start()
    needs = {SONS[0]: [A], SONS[1]: [B], SONS[2]: [A], SONS[3]: []}
    answer = send(service, group("t1", [A]), group("t2", [B]), group("t3", SONS[:4], needs))
    assert scheduler.calls_made[2:] == [("s0 s2", "t1", ""), ("s1", "t2", ""), ("s3", "", "")]
    receipts = whole(service.layout, SONS[:4])
    assert len(receipts) == 3
    assert "t3" in receipts, "the last ones keep the token"
    for one in scheduler.submissions[2:]:
        assert one.script == str(service.layout.batch("t3") / "array.sh")
        assert (one.token in one.name, one.name.startswith("job-")) == (True, True)
        assert receipts[one.token].natives.items() <= answer["natives"].items()
    assert [list(one.indexes) for one in scheduler.submissions[2:]] == [[0, 2], [1], [3]]
    assert set(times_submitted(scheduler).values()) == {1}
    assert set(states(service, *SONS[:3])) == {"waiting"}


# --- Words of a site's own


def test_what_fails_again_and_again_in_words_of_its_own_is_refused(start, monkeypatch):
    monkeypatch.setattr("experimaestro_hpc.agent.receipts.LATE", 0.0)
    service, scheduler = start()
    scheduler.script = ["unclear"] * 3
    answer = send(service, group("t1", [A]), group("t2", [B]))
    assert answer["refused"] == {A: "FAILED: Invalid project"}
    assert (answer["natives"], answer["unknown"]) == ({B: "t2"}, {})
    assert [one.token for one in scheduler.submissions] == ["t1", "t1", "t1", "t2"]


@pytest.mark.parametrize(
    "script", [["accept, unclear"], ["unclear", "accept"], ["unclear", "unclear", "accept, unclear"]]
)
def test_what_is_there_is_not_refused_whatever_was_said(start, monkeypatch, script):
    monkeypatch.setattr("experimaestro_hpc.agent.receipts.LATE", 0.0)
    service, scheduler = start()
    scheduler.script = list(script)
    assert send(service, group("t1", [A]))["natives"] == {A: "t1"}
    assert times_submitted(scheduler) == {"t1": 1}


def test_words_of_its_own_are_no_refusal_while_nobody_says_whether_the_job_is_there(start):
    service, scheduler = start()
    scheduler.script, scheduler.is_deaf = ["unclear"] * 3, True
    answer = send(service, group("t1", [A]))
    assert (answer["unknown"], answer["refused"]) == ({A: "FAILED: Invalid project"}, {})


# --- No room


@pytest.mark.parametrize("room", [0, 1, 3, 5, 7, 8])
def test_as_many_as_there_is_room_for(start, room):
    service, scheduler = start()
    scheduler.room = room
    answer = send(service, group("t1", MANY))
    assert len(answer["natives"]) == room
    assert sorted([*answer["natives"], *answer["held"]]) == MANY
    assert set(answer["held"].values()) <= {"waiting for a slot: QOSMaxSubmitJobPerUserLimit"}
    assert len(scheduler.submissions) <= 8
    receipts = whole(service.layout, MANY)
    for token, receipt in receipts.items():
        assert receipt.state == ("submitted" if token in times_submitted(scheduler) else "held")
    assert set(times_submitted(scheduler).values()) <= {1}
    assert on_disk(service.layout) == receipts.keys(), "those that had no room for all are gone"
    assert (service.layout.batch("t1") / "array.sh").exists(), "all run the one script"
    assert states(service, *MANY).count("waiting") == 8 - room
    seen = service.watcher.states(MANY)
    held = [state["detail"] for state in seen.values() if state["state"] == "waiting"]
    assert set(held) <= {"waiting for a slot: QOSMaxSubmitJobPerUserLimit"}


def test_what_was_held_leaves_no_receipts_that_no_job_refers_to(start):
    """Whatever becomes of it: parts find room, and none do."""
    service, scheduler = start()
    scheduler.room = 2
    send(service, group("t1", MANY))
    for room in (0, 3, 0, 5):
        service, scheduler = restart(service)
        scheduler.room = room
        service.tender.run(MANY, service.watcher.states(MANY))
        assert on_disk(service.layout) == whole(service.layout, MANY).keys()
    assert submitted_jobs(service, scheduler) == MANY
    assert not list((service.layout.internal / "held").iterdir())


def test_nobody_knocks_again_when_there_is_no_room(start):
    service, scheduler = start()
    scheduler.room = 0
    answer = send(service, group("t1", [A]), group("t2", [B]), group("t3", MANY), group("t4", [C], [A]))
    assert len(scheduler.submissions) == 1
    assert answer["held"].keys() == {A, B, C, *MANY}
    assert (answer["natives"], answer["refused"]) == ({}, {})


def test_children_of_held_parents_are_held(start):
    service, scheduler = start()
    scheduler.room = 1
    answer = send(service, group("t1", [A]), group("t2", [B]), group("t3", [C], [B]), group("t4", [D], [A]))
    assert (answer["natives"], answer["held"].keys()) == ({A: "t1"}, {B, C, D})
    assert states(service, A, B, C, D) == ["queued", "waiting", "waiting", "waiting"]
    assert len(scheduler.submissions) == 2


def test_children_of_held_elements_wait_alone(start):
    """Of an array whose half found room, the other half's children are held."""
    service, scheduler = start()
    scheduler.script = ["full", "accept", "full", "full"]
    pairs = dict(zip(SONS[:4], ([one] for one in MANY[:4]), strict=True))
    answer = send(service, group("t1", MANY[:4]), group("t2", SONS[:4], pairs))
    assert answer["natives"].keys() == {*MANY[:2]}
    assert answer["held"].keys() == {*MANY[2:4], *SONS[:4]}
    whole(service.layout, [*MANY[:4], *SONS[:4]])


def test_the_next_run_leaves_what_is_held_to_those_who_watch(start):
    service, scheduler = start()
    scheduler.room = 0
    send(service, group("t1", [A]))
    service, scheduler = start()
    answer = send(service, group("t2", [A]), group("t3", [B], [A]), token="again")
    assert (answer["attached"], answer["natives"]) == ([A], {})
    assert answer["held"] == {B: f"its parent {A} is not submitted yet"}
    assert scheduler.submissions == []


# --- No answer


def test_children_of_parents_that_nobody_knows_of_are_held(start):
    service, scheduler = start()
    scheduler.script = ["lose"] * 3
    answer = send(service, group("t1", [A]), group("t2", [B], [A]), group("t3", [C], [B]), group("t4", [D]))
    assert list(answer["unknown"]) == [A]
    assert answer["held"].keys() == {B, C}
    assert answer["natives"] == {D: "t4"}
    assert "its parent" in answer["held"][B]


def test_an_array_without_an_answer_is_kept_whole(start):
    service, scheduler = start()
    scheduler.script = ["accept, and lose the reply"]
    scheduler.is_deaf = True
    answer = send(service, group("t1", MANY))
    assert answer["unknown"].keys() == {*MANY}
    (receipt,) = whole(service.layout, MANY).values()
    assert (receipt.token, receipt.state) == ("t1", "submitting")


AWAY = ["not reached"] * 3


@pytest.mark.parametrize("how", ["deaf", "not reached"])
def test_nobody_knocks_again_at_a_scheduler_that_is_away(start, how):
    """One finds out, and may have been taken; the others were never sent, and go later, each array whole."""
    service, scheduler = start()
    scheduler.script = AWAY if how == "not reached" else ["accept, and lose the reply"]
    scheduler.is_deaf = how == "deaf"
    pairs = dict(zip(SONS, ([one] for one in MANY), strict=True))
    singles = [group(f"u{number}", [job]) for number, job in enumerate([A, B, C, D])]
    answer = send(service, *singles, group("t1", MANY), group("t2", SONS, pairs))
    assert (len(scheduler.submissions), scheduler.looked_for) == ((1, ["u0"]) if how == "deaf" else (3, ["u0"] * 2))
    assert (answer["unknown"].keys(), answer["natives"]) == ({A}, {})
    assert answer["held"].keys() == {B, C, D, *MANY, *SONS}
    (words,) = set(answer["held"].values())
    assert words.startswith("standin does not answer: sbatch: ")
    assert [read_receipt(service.layout, f"u{number}").state for number in range(4)] == ["submitting", *["held"] * 3]
    service, scheduler = start()
    service.watch([A, B, C, D, *MANY, *SONS], {}, 0.0)
    assert submitted_jobs(service, scheduler) == sorted([A, B, C, D, *MANY, *SONS])
    assert [one.token for one in scheduler.submissions if one.indexes] == ["t1", "t2"]


def test_the_next_group_is_tried_where_the_scheduler_answers_that_it_has_no_such_job(start):
    """What is wrong may be wrong with that one alone."""
    service, scheduler = start()
    scheduler.script = ["lose"] * 3
    answer = send(service, group("t1", [A]), group("t2", [B]))
    assert (answer["unknown"].keys(), answer["natives"]) == ({A}, {B: "t2"})


# --- Refused


def test_a_refused_part_takes_along_its_own_children_alone(start):
    service, scheduler = start()
    scheduler.script = ["accept", "accept", "refuse"]
    needs = {MANY[0]: [A], MANY[1]: [B]}
    pairs = {SONS[0]: [MANY[0]], SONS[1]: [MANY[1]]}
    answer = send(
        service, group("t1", [A]), group("t2", [B]), group("t3", MANY[:2], needs), group("t4", SONS[:2], pairs)
    )
    assert answer["refused"].keys() == {MANY[0], SONS[0]}
    assert answer["natives"].keys() == {A, B, MANY[1], SONS[1]}
    assert states(service, MANY[0], SONS[0]) == ["failed", "failed"]
    assert [service.layout.marker(one)["reason"] for one in (MANY[0], SONS[0])] == ["launch", "dependency"]
    assert list(scheduler.submissions[-1].indexes) == [1]


# --- The process dies between any two writes


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Deaths:
    return Deaths(monkeypatch)


NEEDS = {SONS[0]: [MANY[0]], SONS[1]: [MANY[1]], SONS[2]: [A]}
JOBS = [A, *MANY[:4], *SONS[:3]]


def of_run(name: str) -> list[dict[str, Any]]:
    return [group(f"{name}1", [A]), group(f"{name}2", MANY[:4]), group(f"{name}3", SONS[:3], NEEDS)]


def test_died_anywhere_while_the_scheduler_is_away(start, tmp_path, deaths):
    """The first may have been taken; none of the others was sent."""
    for number, service in enumerate(numbered_workspaces(tmp_path)):
        scheduler = service.scheduler
        scheduler.script, scheduler.is_deaf = ["accept, and lose the reply"], True  # type: ignore[attr-defined]
        through = deaths.at(number, lambda service=service: send(service, *of_run("x")))
        service, scheduler = restart(service)
        assert send(service, *of_run("y"), token="again")["refused"] == {}
        service.watch(JOBS, {}, 0.0)
        assert submitted_jobs(service, scheduler) == sorted(JOBS), f"died at step {number}"
        if through:
            break
    assert number > 10


@pytest.mark.parametrize("room", [None, 3], ids=["room", "little room"])
def test_died_anywhere_and_run_again(start, tmp_path, deaths, room):
    """Whatever step was the last one: the next run and those who watch end with each job submitted once."""
    for number, service in enumerate(numbered_workspaces(tmp_path)):
        service.scheduler.room = room  # type: ignore[attr-defined]
        through = deaths.at(number, lambda service=service: send(service, *of_run("x")))
        service, scheduler = restart(service)
        answer = send(service, *of_run("y"), token="again")
        assert answer["refused"] == {}
        service.watch(JOBS, {}, 0.0)
        assert submitted_jobs(service, scheduler) == sorted(JOBS), f"died at step {number}"
        natives = {job: state.get("native_id") for job, state in service.watcher.states(JOBS).items()}
        assert len(set(natives.values())) == len(JOBS)
        assert None not in natives.values()
        if through:
            break
    assert number > 20, "there are many places to die at"


def test_died_anywhere_while_what_was_held_is_submitted(start, tmp_path, deaths):
    """No new run is needed for these: whoever watches goes on."""
    for number, service in enumerate(numbered_workspaces(tmp_path)):
        service.scheduler.room = 0  # type: ignore[attr-defined]
        assert send(service, *of_run("x"))["held"].keys() == {*JOBS}
        service, scheduler = restart(service)
        scheduler.room = 5
        through = deaths.at(number, lambda service=service: service.watch(JOBS, {}, 0.0))
        for _ in range(2):
            service, scheduler = restart(service)
            service.watch(JOBS, {}, 0.0)
        assert submitted_jobs(service, scheduler) == sorted(JOBS), f"died at step {number}"
        assert "unscheduled" not in states(service, *JOBS)
        if through:
            break
    assert number > 20


# --- A submission of which the scheduler has only a part


def the_rest_is_submitted(service: Service, scheduler: Any) -> None:
    """The elements that it has keep their ids; the others are one more call, with a token of its own."""
    receipts = whole(service.layout, MANY)
    assert all(one.state == "submitted" and len(one.natives) == len(one.jobs) for one in receipts.values())
    assert sorted(receipts["t1"].jobs.values()) == MANY[1::2]
    assert receipts["t1"].natives[MANY[3]] == "t1_3"
    (other,) = receipts.keys() - {"t1"}
    assert sorted(receipts[other].jobs.values()) == MANY[0::2]
    assert scheduler.calls_made[-1][0] == "m0 m2 m4 m6"
    assert states(service, *MANY) == ["queued"] * 8


def test_the_missing_elements_are_submitted(start):
    service, scheduler = start()
    scheduler.script = ["accept a part"]
    answer = send(service, group("t1", MANY))
    assert sorted(answer["natives"]) == MANY
    the_rest_is_submitted(service, scheduler)
    assert [one.split("_")[0] for one in answer["natives"].values()].count("t1") == 4


def test_the_missing_elements_are_submitted_by_the_next_run(start):
    service, scheduler = start()
    scheduler.script = ["accept a part, die"]
    with pytest.raises(Crash):
        send(service, group("t1", MANY))
    service, scheduler = restart(service)
    answer = send(service, group("t2", MANY), token="again")
    assert sorted(answer["attached"]) == MANY[1::2]
    the_rest_is_submitted(service, scheduler)


def test_the_missing_elements_are_submitted_by_whoever_watches(start):
    service, scheduler = start()
    scheduler.script = ["accept a part, die"]
    with pytest.raises(Crash):
        send(service, group("t1", MANY))
    service, scheduler = restart(service)
    service.tender.run(MANY, service.watcher.states(MANY))
    the_rest_is_submitted(service, scheduler)
