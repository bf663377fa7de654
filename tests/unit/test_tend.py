"""What is due for jobs that are watched: later submissions, and new attempts; each once, whoever watches."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from standin import (
    A,
    B,
    C,
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
)

from experimaestro_hpc.agent import send as send_module
from experimaestro_hpc.agent import service as service_module
from experimaestro_hpc.agent import tend as tend_module
from experimaestro_hpc.agent.receipts import read_receipt
from experimaestro_hpc.agent.retry import parse_retry
from experimaestro_hpc.agent.service import Service
from experimaestro_hpc.agent.tend import FIRST_PAUSE, LONGEST_PAUSE
from experimaestro_hpc.resources import Resources
from experimaestro_hpc.schedulers.base import Status

MANY = [f"test.m{number}/{number:08x}" for number in range(8)]
FULL = "waiting for a slot: QOSMaxSubmitJobPerUserLimit"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time between two tries passes when a test says so."""
    made = Clock()
    monkeypatch.setattr(tend_module, "time", SimpleNamespace(monotonic=made, time=time.time))
    monkeypatch.setattr(service_module, "scheduler_class", lambda _name: StandIn)
    monkeypatch.setattr(send_module, "PAUSES", (0.001, 0.001))
    return made


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A new agent on the same workspace, and its scheduler."""
    return agents(tmp_path)


def watch(service: Service, *jobs: str) -> dict[str, Any]:
    """The states, after the scheduler was asked anew and what is due has been done."""
    service.watcher.asked_at = None
    states = service.watch(list(jobs), {}, 0.0)["states"]
    return {job: states[job] for job in jobs}


def told(states: dict[str, Any]) -> list[str]:
    return [state["state"] for state in states.values()]


def ends(service: Service, job: str, state: str = "failed", reason: str = "exit", host: str = "node7") -> None:
    """The job ends, as its runtime writes it."""
    end = {"state": state, "started": 1.0, "ended": 2.0, "exit_code": int(state != "done"), "host": host}
    if state == "failed":
        end["reason"] = reason
    record = {**service.layout.record(job), **end}
    (service.layout.job(job) / "job.json").write_text(json.dumps(record))
    (service.layout.job(job) / "progress.json").write_text(json.dumps({"host": host, "started": 1.0}))
    Path(f"{service.layout.stem(job)}.{state}").write_text(json.dumps(end))


def policy(wanted: Any, asked: str = "mem=4G & duration=1h") -> dict[str, Any]:
    return {"retry": parse_retry(wanted), "asked": Resources.parse(asked).to_json()}


# --- What is held


def test_what_is_held_is_submitted_when_there_is_room(start):
    service, scheduler = start()
    scheduler.room = 0
    send(service, group("t1", [A]), group("t2", [B], [A]), group("t3", [C], [B]))
    assert told(watch(service, A, B, C)) == ["waiting"] * 3
    scheduler.room = None
    service, scheduler = start()
    assert told(watch(service, A, B, C)) == ["queued", "waiting", "waiting"]
    assert scheduler.calls_made == [("a", "", ""), ("b", "t1", ""), ("c", "t2", "")]
    assert submitted_jobs(service, scheduler) == [A, B, C]


def test_after_a_refusal_there_may_be_room_for_few(start):
    """One, two, four at a time: not all at once, to be refused again."""
    service, scheduler = start()
    scheduler.room = 0
    send(service, group("t1", MANY))
    service, scheduler = start()
    assert told(watch(service, *MANY)) == ["queued"] * 8
    assert [len(one.indexes) for one in scheduler.submissions] == [1, 2, 4, 1]
    assert submitted_jobs(service, scheduler) == MANY
    for job in MANY:
        receipt = read_receipt(service.layout, service.layout.record(job)["batch"])
        assert receipt is not None
        assert (job in receipt.jobs.values(), receipt.state) == (True, "submitted")


def test_the_window_refills(start, clock):
    service, scheduler = start()
    scheduler.room = 3
    send(service, group("t1", MANY))
    for room in (0, 1, 0, 2, 2):
        clock.now += 2 * LONGEST_PAUSE
        scheduler.room = room
        states = watch(service, *MANY)
        assert len(states) == 8
    assert told(states) == ["queued"] * 8
    assert submitted_jobs(service, scheduler) == MANY


def test_the_longer_there_is_no_room_the_rarer_the_tries(start, clock):
    service, scheduler = start()
    scheduler.room = 0
    send(service, group("t1", [A]))
    tried = []
    for _ in range(600):
        before = len(scheduler.submissions)
        watch(service, A)
        if len(scheduler.submissions) > before:
            tried.append(clock.now)
        clock.now += 1.0
    pauses = [later - earlier for earlier, later in zip(tried, tried[1:])]
    assert pauses[0] <= 2 * FIRST_PAUSE * 1.2 + 1
    assert 0.8 * LONGEST_PAUSE <= pauses[-1] <= 1.2 * LONGEST_PAUSE + 1
    assert all(later > earlier * 0.6 for earlier, later in zip(pauses, pauses[1:]))
    assert service.tender.patience([A]) <= 1.2 * LONGEST_PAUSE
    # progress makes it quick again
    scheduler.room = 1
    clock.now += 2 * LONGEST_PAUSE
    watch(service, A)
    assert service.tender.pause == FIRST_PAUSE
    assert service.tender.patience([A]) == float("inf"), "nothing more is due"


def test_what_was_cancelled_while_it_was_held_is_never_submitted(start, clock):
    service, scheduler = start()
    scheduler.room = 0
    send(service, group("t1", MANY[:2]), group("t2", [B], MANY[:1]))
    watch(service, *MANY[:2], B)
    assert service.cancel([MANY[0]])["cancelled"] == [MANY[0]]
    scheduler.room = None
    clock.now += 2 * LONGEST_PAUSE
    for _ in range(2):
        states = watch(service, *MANY[:2], B)
        clock.now += 2 * LONGEST_PAUSE
    assert [(one["state"], one.get("reason")) for one in states.values()] == [
        ("failed", "cancelled"),
        ("queued", None),
        ("failed", "dependency"),
    ]
    assert submitted_jobs(service, scheduler) == [MANY[1]]
    assert service.tender.patience([*MANY[:2], B]) == float("inf")


def test_a_refusal_later_is_a_refusal(start):
    service, scheduler = start()
    scheduler.room = 0
    send(service, group("t1", [A]), group("t2", [B], [A]))
    service, scheduler = start()
    scheduler.script = ["refuse"]
    assert [one["reason"] for one in watch(service, A, B).values()] == ["launch", "dependency"]


# --- What had no answer


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "lost"])
def test_what_had_no_answer_is_looked_for_and_then_submitted(start, taken):
    service, scheduler = start()
    scheduler.script = ["accept, and lose the reply"] if taken else ["lose"]
    scheduler.is_deaf = True
    assert send(service, group("t1", MANY), group("t2", [B], [MANY[3]]))["unknown"].keys() == {*MANY}
    service, scheduler = start()
    assert told(watch(service, *MANY, B)) == ["queued"] * 8 + ["waiting"]
    assert scheduler.looked_for == ["t1"]
    assert submitted_jobs(service, scheduler) == sorted([*MANY, B])
    assert [one.token for one in scheduler.submissions] == (["t2"] if taken else ["t1", "t2"])
    assert list(scheduler.submissions[-1].dependencies) == ["t1_3"]


def test_nothing_is_submitted_while_nobody_answers(start, clock):
    service, scheduler = start()
    scheduler.script = ["accept, and lose the reply"]
    scheduler.is_deaf = True
    send(service, group("t1", [A]))
    for _ in range(5):
        clock.now += 2 * LONGEST_PAUSE
        answer = service.watch([A], {}, 0.0)
        assert told(answer["states"]) == ["unscheduled"]
    assert "Unable to contact" in answer["trouble"]
    assert len(scheduler.submissions) == 1
    scheduler.is_deaf = False
    clock.now += 2 * LONGEST_PAUSE
    assert told(watch(service, A)) == ["queued"]
    assert submitted_jobs(service, scheduler) == [A]


def test_who_watches_stops_after_the_first_that_is_not_reached(start, clock):
    service, scheduler = start()
    scheduler.room = 0
    send(service, *(group(f"t{number}", [job]) for number, job in enumerate(MANY)))
    service, scheduler = start()
    scheduler.script = ["not reached"] * 3
    answer = service.watch(MANY, {}, 0.0)
    assert {one.token for one in scheduler.submissions} == {"t0"}
    assert answer["trouble"].startswith("standin does not answer: ")
    states = {job: answer["states"][job] for job in MANY}
    assert told(states) == ["unscheduled", *["waiting"] * 7]
    clock.now += 2 * LONGEST_PAUSE
    assert told(watch(service, *MANY)) == ["queued"] * 8
    assert submitted_jobs(service, scheduler) == MANY


def test_new_attempts_of_many_knock_once_at_a_scheduler_that_is_away(start, clock):
    service, scheduler = start()
    send(service, group("t1", MANY), **policy(1))
    for job in MANY:
        ends(service, job)
    scheduler.script, scheduler.is_deaf = ["accept, and lose the reply"], True
    watch(service, *MANY)
    assert len(scheduler.submissions) == 2
    scheduler.is_deaf = False
    clock.now += 2 * LONGEST_PAUSE
    assert told(watch(service, *MANY)) == ["queued"] * 8
    assert submitted_jobs(service, scheduler) == sorted(MANY * 2)


# --- New attempts


def test_a_new_attempt(start):
    service, scheduler = start()
    rules = {"out_of_memory": {"mem": "x2", "max_mem": "12G"}, "node_fail": 3}
    send(service, group("t1", MANY[:2]), **policy(rules))
    ends(service, MANY[1], reason="out_of_memory")
    state = watch(service, *MANY[:2])[MANY[1]]
    assert (state["state"], state["attempt"], state.get("reason")) == ("queued", 2, None)
    assert state["again"] == "attempt 2, after out_of_memory, with memory=8G"
    assert state["native_id"] != "t1_1"
    one = scheduler.submissions[-1]
    layout = service.layout
    assert (one.script, one.directory) == (f"{layout.job(MANY[1])}/job.sh", str(layout.job(MANY[1])))
    assert (one.indexes, one.dependencies, one.delay, one.avoid) == ((), [], 0.0, [])
    assert one.resources == Resources.parse("mem=8G")
    assert one.name.startswith("m1-")
    record = layout.record(MANY[1])
    assert (record["attempt"], record["batch"], record["version"]) == (2, one.token, "1")
    assert not {"state", "reason", "ended", "host"} & record.keys()
    (first,) = record["attempts"]
    assert first == {
        "attempt": 1,
        "state": "failed",
        "reason": "out_of_memory",
        "started": 1.0,
        "ended": 2.0,
        "exit_code": 1,
        "host": "node7",
    }
    assert sorted(path.name for path in layout.job(MANY[1]).iterdir()) == ["job.json", "job.sh", "params.json"]
    assert layout.record(MANY[0])["attempt"] == 1
    # the next one keeps what was asked for and leaves out the node; the one after that asks for the most
    ends(service, MANY[1], reason="node_fail")
    watch(service, *MANY[:2])
    one = scheduler.submissions[-1]
    assert (one.resources, one.delay, one.avoid) == (Resources.parse("mem=8G"), 10.0, ["node7"])
    ends(service, MANY[1], reason="out_of_memory", host="node8")
    assert watch(service, *MANY[:2])[MANY[1]]["attempt"] == 4
    one = scheduler.submissions[-1]
    assert (one.resources, one.delay, one.avoid) == (Resources.parse("mem=12G"), 0.0, ["node7"])
    assert [one["reason"] for one in layout.record(MANY[1])["attempts"]] == [
        "out_of_memory",
        "node_fail",
        "out_of_memory",
    ]
    # and that was not enough
    ends(service, MANY[1], reason="out_of_memory")
    state = watch(service, *MANY[:2])[MANY[1]]
    assert (state["state"], state["reason"]) == ("failed", "out_of_memory")
    assert len(scheduler.submissions) == 4


def test_what_the_scheduler_ends_is_tried_again(start):
    service, scheduler = start()
    send(service, group("t1", [A]), **policy({"timeout": {"duration": "x2"}}))
    scheduler.says["t1"] = Status("ended", "timeout", "TIMEOUT", host="node7", used={"cpu": 3.0})
    state = watch(service, A)[A]
    assert (state["state"], state["attempt"]) == ("queued", 2)
    assert scheduler.submissions[-1].resources == Resources.parse("duration=2h")
    (first,) = service.layout.record(A)["attempts"]
    assert (first["reason"], first["used"], first["native_id"]) == ("timeout", {"cpu": 3.0}, "t1")


@pytest.mark.parametrize(
    ("rules", "reasons", "attempts"),
    [
        (0, ["exit"], 1),
        (1, ["exit"] * 3, 2),
        (3, ["exit"] * 9, 4),
        ({"exit": 1, "timeout": 1}, ["exit", "timeout", "exit", "exit"], 3),
        ({"timeout": 5}, ["exit"] * 3, 1),
        ("inf", ["preempted"] * 9, 10),
        ("inf", ["cancelled"] * 3, 1),
        ({}, ["exit"], 1),
    ],
)
def test_no_more_attempts_than_the_policy_says(start, rules, reasons, attempts):
    service, scheduler = start()
    send(service, group("t1", [A]), **policy(rules))
    for reason in reasons:
        if service.layout.marker(A) is None:
            ends(service, A, reason=reason)
        watch(service, A)
    for _ in range(3):
        watch(start()[0], A)
    assert len(scheduler.submissions) == attempts
    assert service.layout.record(A)["attempt"] == attempts


def test_a_run_of_the_script_counts_its_own_attempts(start):
    service, scheduler = start()
    for run in (1, 2):
        send(service, group(f"t{run}", [A]), token=f"run{run}", **policy({"exit": 1}))
        for _ in range(2):
            assert service.layout.marker(A) is None
            ends(service, A)
            watch(service, A)
        assert service.layout.marker(A) is not None
        assert len(scheduler.submissions) == service.layout.record(A)["attempt"] == 2 * run
    service.retry([A])  # by hand: the policy's are used up
    ends(service, A)
    watch(service, A)
    assert [one["attempt"] for one in service.layout.record(A)["attempts"]] == [1, 2, 3, 4]


def test_another_attempt_that_has_no_room_is_made_later(start, clock):
    service, scheduler = start()
    send(service, group("t1", [A]), **policy(1))
    ends(service, A)
    scheduler.room = 0
    state = watch(service, A)[A]
    assert (state["state"], state["detail"], state["attempt"]) == ("waiting", FULL, 2)
    scheduler.room = None
    clock.now += 2 * LONGEST_PAUSE
    assert told(watch(service, A)) == ["queued"]
    assert scheduler.submissions[-1].delay == 10.0
    assert len(service.layout.record(A)["attempts"]) == 1


def test_another_attempt_that_is_refused(start):
    service, scheduler = start()
    send(service, group("t1", [A]), **policy({"exit": 5}))
    ends(service, A)
    scheduler.script = ["refuse"]
    state = watch(service, A)[A]
    assert (state["state"], state["reason"], state["attempt"]) == ("failed", "launch", 2)
    watch(service, A)
    assert len(scheduler.submissions) == 2


# --- The children


def test_children_of_a_job_that_is_tried_again(start):
    """The scheduler has ended them, or has not yet; grandchildren too, and nobody else's."""
    service, scheduler = start()
    send(service, group("t1", [A]), group("t2", [B], [A]), group("t3", [C], [B]), group("t4", [D]), **policy(1))
    ends(service, A)
    ends(service, B, reason="dependency")
    ends(service, C, reason="dependency")
    ends(service, D, reason="cancelled")
    assert told(watch(service, C, B, A, D)) == ["waiting", "waiting", "queued", "failed"]
    tokens = [one.token for one in scheduler.submissions[4:]]
    assert scheduler.calls_made[4:] == [("a", "", ""), ("b", tokens[0], ""), ("c", tokens[1], "")]
    assert service.layout.record(C)["attempts"][0]["reason"] == "dependency"
    assert told(watch(start()[0], C, B, A, D)) == ["waiting", "waiting", "queued", "failed"]
    assert len(scheduler.submissions) == 7


@pytest.mark.parametrize("parent", ["queued", "done"])
def test_a_child_that_the_scheduler_ends_late_is_tried_again(start, parent):
    """Its parent has a new attempt by then, which may even be done."""
    service, scheduler = start()
    send(service, group("t1", [A]), group("t2", [B], [A]), **policy({"exit": 1}))
    ends(service, A)
    watch(service, A, B)
    if parent == "done":
        ends(service, A, "done")
    scheduler.says["t2"] = Status("ended", "dependency", "CANCELLED (Dependency)")
    assert told(watch(service, A, B)) == [parent, "waiting" if parent == "queued" else "queued"]
    assert scheduler.calls_made[-1] == ("b", scheduler.submissions[2].token if parent == "queued" else "", "")
    # and only once, when it ends like that again: its parent has no newer attempt
    ends(service, B, reason="dependency")
    for _ in range(3):
        assert watch(service, A, B)[B]["state"] == "failed"
    assert len(scheduler.submissions) == 4


@pytest.mark.parametrize("reason", ["exit", "cancelled"])
def test_children_of_a_job_that_is_not_tried_again_stay_failed(start, reason):
    service, scheduler = start()
    send(service, group("t1", [A]), group("t2", [B], [A]), group("t3", [C], [A, B]), **policy({"timeout": 3}))
    ends(service, A, reason=reason)
    for one in (B, C):
        ends(service, one, reason="dependency")
    for _ in range(3):
        assert told(watch(service, A, B, C)) == ["failed"] * 3
    assert len(scheduler.submissions) == 3


def test_a_child_whose_parent_was_always_done_is_not_tried_again(start):
    """Its runtime did not see the parent's marker: another attempt would end like this one, without an end."""
    service, scheduler = start()
    send(service, group("t1", [A]))
    ends(service, A, "done")
    send(service, group("t2", [B], [A]), token="again", **policy(3))
    ends(service, B, reason="dependency")
    for _ in range(3):
        assert watch(service, A, B)[B]["state"] == "failed"
    assert len(scheduler.submissions) == 2


# --- Two who watch, and death


def test_who_comes_second_sees_the_new_attempt_and_no_failure(start):
    service, scheduler = start()
    send(service, group("t1", [A]), **policy(1))
    other, _ = start()
    for one in (service, other):
        watch(one, A)
    ends(service, A)
    changed = other.watcher.states([A])
    assert changed[A]["state"] == "failed"
    watch(service, A)
    state = other.tender.run([A], changed)[A]
    assert (state["state"], state["attempt"]) == ("queued", 2)
    assert len(scheduler.submissions) == 2


@pytest.mark.parametrize("what", ["held", "unconfirmed", "failed"])
def test_two_who_watch_do_it_once(start, what):
    service, scheduler = start()
    scheduler.room = 0 if what == "held" else None
    if what == "unconfirmed":
        scheduler.script, scheduler.is_deaf = ["lose"], True
    send(service, group("t1", MANY), **policy(1))
    if what == "failed":
        for job in MANY:
            ends(service, job)
    context = multiprocessing.get_context("fork")
    ready, answers = context.Barrier(2), context.SimpleQueue()

    def look() -> None:
        one, _ = start()
        ready.wait(30)
        watch(one, *MANY)
        answers.put(watch(one, *MANY))  # who came second may have seen what was before

    children = [context.Process(target=look) for _ in range(2)]
    for child in children:
        child.start()
    got = [answers.get() for _ in children]
    for child in children:
        child.join(30)
    assert [told(one) for one in got] == [["queued"] * 8] * 2
    service, scheduler = start()
    assert submitted_jobs(service, scheduler) == sorted(MANY * 2 if what == "failed" else MANY)
    natives = [{job: state["native_id"] for job, state in one.items()} for one in got]
    assert natives[0] == natives[1] == {job: state["native_id"] for job, state in watch(service, *MANY).items()}


def test_died_anywhere_while_a_new_attempt_is_made(tmp_path, monkeypatch):
    """Whoever watches next goes on: no job is forgotten, and none has two attempts."""
    deaths = Deaths(monkeypatch)
    for number, service in enumerate(numbered_workspaces(tmp_path)):
        send(service, group("t1", [A]), group("t2", [B], [A]), **policy(1))
        ends(service, A, reason="node_fail")
        ends(service, B, reason="dependency")
        through = deaths.at(number, lambda service=service: watch(service, A, B))
        for _ in range(2):
            service, scheduler = restart(service)
            for native, reason in (("t1", "node_fail"), ("t2", "dependency")):
                scheduler.says[native] = Status("ended", reason, "ITS WORDS")  # it remembers, if the marker is gone
            states = watch(service, A, B)
        assert told(states) == ["queued", "waiting"], f"died at step {number}"
        assert submitted_jobs(service, scheduler) == [A, A, B, B], f"died at step {number}"
        assert [service.layout.record(job)["attempt"] for job in (A, B)] == [2, 2]
        if through:
            break
    assert number > 8


# --- What is told


def test_what_people_should_know_is_told_once(start):
    service, scheduler = start()
    send(service, group("t1", [A]))
    scheduler.notes.append("no accounting here")
    assert service.watch([A], {}, 0.0)["notes"] == ["no accounting here"]
    assert service.watch([A], {}, 0.0)["notes"] == []
