"""The states of jobs: the marker decides, the scheduler explains, and silence or absence say nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from experimaestro_hpc.agent import layout as layout_module
from experimaestro_hpc.agent import watch as watch_module
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.receipts import Receipt
from experimaestro_hpc.agent.watch import FASTEST, LOST_AFTER, MARKER_PATIENCE, SLOWEST, Watcher
from experimaestro_hpc.schedulers.base import NoInformation, Request, Scheduler, Status, Submission

#: when jobs that run have started, by a clock that is ahead: what began long ago was running before anybody looked
STARTED = 4e9
JOB, PARENT, OTHER = (f"test.{name}/{digit * 8}" for name, digit in (("say", "a"), ("father", "b"), ("other", "c")))
QUEUED, RUNNING = Status("queued", detail="Priority"), Status("running", host="node1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


class StandIn(Scheduler):
    """Says what it is told to say."""

    name = "standin"
    command = "squeue"

    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.answer: dict[str, Status] | None = {}
        self.asked: list[list[str]] = []
        self.ages: list[float] = []

    @classmethod
    def directives(cls, request: Request) -> list[str]:
        return []

    def query(self, native_ids: Sequence[str], max_age: float = 0.0) -> dict[str, Status]:
        self.ages.append(max_age)
        self.asked.append(sorted(native_ids))
        if self.answer is None:
            raise NoInformation("squeue: Unable to contact slurm controller")
        return {native: status for native, status in self.answer.items() if native in native_ids}

    def submit(self, submission: Submission) -> list[str]:
        raise AssertionError("watching does not submit")

    def cancel(self, native_ids: Sequence[str]) -> None:
        raise AssertionError("watching does not cancel")

    def find(self, submission: Submission) -> list[str] | None:
        raise AssertionError("watching does not look for submissions")


class Place:
    """A workspace, a scheduler, a clock and a watcher."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.scheduler = StandIn()
        self.clock = Clock()
        self.watcher = self.another_watcher()

    def another_watcher(self) -> Watcher:
        return Watcher(self.layout, self.scheduler, self.clock)

    def submitted(self, job: str, native: str, parents: Sequence[str] = (), attempt: int = 1) -> None:
        token = f"token-of-{native}"
        self.layout.job(job).mkdir(parents=True, exist_ok=True)
        record = {"id": job, "batch": token, "parents": list(parents), "attempt": attempt, "tags": {"kept": 1}}
        self.write(job, "job.json", record)
        receipt = Receipt(
            token, "standin", f"say-{token}", {"0": job}, state="submitted", natives={job: native}, time=5.0
        )
        receipt.write(self.layout)

    def write(self, job: str, name: str, document: Any) -> Path:
        path = self.layout.job(job) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def state(self, job: str = JOB, max_age: float = 0.0) -> dict[str, Any]:
        return self.watcher.states([job], max_age)[job]

    def marker(self, ending: str, job: str = JOB, **content: Any) -> Path:
        name = job.split("/")[0].split(".")[-1]
        return self.write(job, f"{name}.{ending}", {"state": ending, **content})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- Jobs that the scheduler need not be asked about


def test_never_submitted(place):
    assert place.state() == {"state": "unscheduled"}
    place.write(JOB, "job.json", {"id": JOB})
    assert place.state() == {"state": "unscheduled"}
    place.write(JOB, "job.json", {"id": JOB, "batch": "no-such-receipt"})
    assert place.state() == {"state": "unscheduled"}
    assert place.scheduler.asked == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("submitting", {"state": "unscheduled", "detail": "its submission was not confirmed"}),
        ("refused", {"state": "failed", "reason": "launch", "message": "its words"}),
        ("held", {"state": "waiting", "detail": "its words"}),
    ],
)
def test_receipts_without_a_native_id(place, state, expected):
    place.write(JOB, "job.json", {"batch": "t", "attempt": 3})
    Receipt("t", "standin", "name", {"0": JOB}, state=state, words="its words", time=7.0).write(place.layout)
    assert place.state() == {**expected, "submitted": 7.0, "attempt": 3}
    assert place.scheduler.asked == []


@pytest.mark.parametrize(("before", "expected"), [("submitting", "unscheduled"), ("held", "waiting")])
def test_a_receipt_that_is_completed_meanwhile_is_read_again(place, before, expected):
    place.write(JOB, "job.json", {"batch": "t"})
    receipt = Receipt("t", "standin", "name", {"0": JOB}, state=before)
    receipt.write(place.layout)
    assert place.state()["state"] == expected
    receipt.settle(place.layout, ["17"])
    place.scheduler.answer = {"17": QUEUED}
    assert (place.state()["state"], place.state()["native_id"]) == ("queued", "17")


def test_a_receipt_of_another_version_is_read(place):
    """With fields that have gone, and without those that have come."""
    place.write(JOB, "job.json", {"batch": "t"})
    old = {"token": "t", "scheduler": "standin", "name": "say-t", "is_array": False, "jobs": {"0": JOB}}
    path = place.layout.batch("t") / "receipt.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**old, "state": "submitted", "natives": {JOB: "17"}, "words": "", "time": 5.0}))
    place.scheduler.answer = {"17": RUNNING}
    assert place.state()["state"] == "running"


# --- The marker wins


@pytest.mark.parametrize("ending", ["done", "failed"])
@pytest.mark.parametrize(
    "says",
    [
        {"17": QUEUED},
        {"17": RUNNING},
        {"17": Status("held")},
        {"17": Status("ended", "", "COMPLETED", 0)},
        {"17": Status("ended", "timeout", "TIMEOUT", 15)},
        {"17": Status("ended", "cancelled", "CANCELLED by 1001")},
        {},
        None,
    ],
)
def test_the_marker_wins_over_the_scheduler(place, says, ending):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": QUEUED}
    place.state()
    place.scheduler.answer = says
    place.marker(ending, exit_code=0, reason="exit", host="node2")
    state = place.state()
    assert (state["state"], state["reason"], state["host"], state["submitted"]) == (ending, "exit", "node2", 5.0)
    place.clock.pass_(2 * LOST_AFTER)
    assert place.state() == state
    assert len(place.scheduler.asked) == 1
    assert place.another_watcher().states([JOB])[JOB] == state


@pytest.mark.parametrize("half", ["", "{", '{"state": "do', "[]", "null", "\0" * 40])
def test_a_marker_that_is_not_whole_is_none_yet(place, half):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": RUNNING}
    place.write(JOB, "say.done", half)
    assert place.state()["state"] == "running"


def test_done_wins_over_failed(place):
    """The runtime's own marker came after all."""
    place.marker("failed", reason="lost")
    place.marker("done")
    assert place.state()["state"] == "done"


# --- The scheduler explains


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status("queued", detail="Resources"), {"state": "queued", "detail": "Resources", "host": ""}),
        (Status("held", detail="JobHeldUser"), {"state": "held", "detail": "JobHeldUser", "host": ""}),
        (Status("running", host="node1"), {"state": "running", "detail": "", "host": "node1"}),
    ],
)
def test_what_the_scheduler_says_of_live_jobs(place, status, expected):
    place.submitted(JOB, "17", attempt=2)
    place.scheduler.answer = {"17": status}
    assert place.state() == {**expected, "native_id": "17", "submitted": 5.0, "attempt": 2}


@pytest.mark.parametrize(("father", "expected"), [("", "waiting"), ("failed", "waiting"), ("done", "queued")])
def test_queued_behind_a_parent_is_waiting(place, father, expected):
    place.submitted(PARENT, "16")
    place.submitted(JOB, "17", [PARENT])
    place.scheduler.answer = {"16": RUNNING, "17": Status("queued", detail="Dependency")}
    if father:
        place.marker(father, PARENT)
    assert place.state()["state"] == expected


def test_one_question_for_all(place):
    for number, job in enumerate((JOB, PARENT, OTHER)):
        place.submitted(job, str(number))
    place.scheduler.answer = {"0": QUEUED, "1": RUNNING, "2": RUNNING}
    found = place.watcher.states([JOB, PARENT, OTHER])
    assert [found[job]["state"] for job in (JOB, PARENT, OTHER)] == ["queued", "running", "running"]
    assert place.scheduler.asked == [["0", "1", "2"]]


# --- Progress


def test_progress_says_more_than_the_scheduler(place):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": QUEUED}
    place.write(
        JOB, "progress.json", {"native_id": "17", "host": "node9", "started": STARTED, "progress": [{"value": 0.5}]}
    )
    state = place.state()
    assert (state["state"], state["host"], state["started"]) == ("running", "node9", STARTED)
    assert state["progress"] == [{"value": 0.5}]


@pytest.mark.parametrize(
    ("native", "expected"), [("17", "running"), (None, "running"), ("16", "queued"), ("17_0", "queued"), (17, "queued")]
)
def test_progress_of_an_earlier_attempt_is_ignored(place, native, expected):
    place.submitted(JOB, "17", attempt=2)
    place.scheduler.answer = {"17": QUEUED}
    place.write(JOB, "progress.json", {"native_id": native, "host": "node9"})
    assert place.state()["state"] == expected


def test_progress_of_an_earlier_attempt_is_not_in_the_marker(place):
    place.submitted(JOB, "17", attempt=2)
    place.scheduler.answer = {"17": Status("ended", "timeout", "TIMEOUT", host="node1")}
    place.write(JOB, "progress.json", {"native_id": "16", "host": "node9", "started": STARTED})
    state = place.state()
    assert (state["reason"], state["host"], state.get("started")) == ("timeout", "node1", None)


@pytest.mark.parametrize("status", [QUEUED, Status("held", detail="launch failed requeued held")])
def test_a_requeue_is_seen(place, status):
    """Asked after the job was seen to run, the scheduler says that it waits: the start is of the past."""
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": QUEUED}
    place.state()
    place.clock.pass_(5)
    place.write(JOB, "progress.json", {"native_id": "17", "host": "node9", "started": STARTED})
    assert place.state(max_age=60.0)["state"] == "running", "the answer is older than the start"
    place.clock.pass_(5)
    place.scheduler.answer = {"17": status}
    state = place.state()
    assert (state["state"], state["detail"], state.get("started")) == (status.state, status.detail, None)
    # and it starts again
    place.clock.pass_(5)
    place.scheduler.answer = {"17": RUNNING}
    place.write(JOB, "progress.json", {"native_id": "17", "host": "node8", "started": STARTED + 3})
    state = place.state()
    assert (state["state"], state["host"], state["started"]) == ("running", "node8", STARTED + 3)


def test_a_job_that_the_scheduler_has_under_a_new_id(place):
    """OAR submits some again by itself: it is shown by that id, and what the old start said is of the past."""
    place.submitted(JOB, "17")
    place.write(JOB, "progress.json", {"native_id": "17", "host": "node9", "started": STARTED})
    place.scheduler.answer = {"17": Status("queued", native="23")}
    state = place.state()
    assert (state["state"], state["native_id"], state.get("started")) == ("queued", "23", None)
    place.clock.pass_(5)
    place.write(JOB, "progress.json", {"native_id": "23", "host": "node8", "started": STARTED + 3, "attempt": 2})
    place.scheduler.answer = {"17": Status("running", native="23", host="node8")}
    state = place.state()
    assert (state["state"], state["native_id"], state["host"], state["attempt"]) == ("running", "23", "node8", 2)
    assert place.scheduler.asked == [["17"]] * 2


def test_an_answer_that_another_process_got_before_the_start_is_no_requeue(place):
    """An answer may be as old as was asked for: not older than the start is what counts."""
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": QUEUED}
    assert place.state(max_age=10.0)["state"] == "queued"
    place.clock.pass_(5)
    place.write(JOB, "progress.json", {"native_id": "17", "host": "node9", "started": STARTED})
    assert place.state(max_age=10.0)["state"] == "running"
    place.clock.pass_(6)
    assert place.state(max_age=10.0)["state"] == "running", "asked later, but the answer may be older"
    place.clock.pass_(11)
    assert place.state(max_age=10.0)["state"] == "queued"
    assert place.scheduler.ages == [10.0] * 3


def test_an_old_answer_is_no_requeue_when_the_job_is_missing_from_the_new_one(place):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": QUEUED}
    place.state()
    place.write(JOB, "progress.json", {"native_id": "17", "host": "node9", "started": STARTED})
    place.scheduler.answer = {}
    for _ in range(3):
        place.clock.pass_(5)
        assert place.state()["state"] == "running"


@pytest.mark.parametrize(
    "status",
    [
        Status("ended", "timeout", "TIMEOUT", name="another-0f0f"),
        Status("running", host="node1", name="another-0f0f"),
        Status("held", detail="JobHeldUser", name="say-token-of-171"),
    ],
)
def test_another_job_with_the_same_id_is_ignored(place, status):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": status}
    assert place.state()["state"] == "queued"
    place.write(JOB, "progress.json", {"native_id": "17", "started": STARTED})
    assert place.state()["state"] == "running"
    assert place.layout.marker(JOB) is None
    place.scheduler.answer = {"17": Status("ended", "timeout", "TIMEOUT", name="say-token-of-17")}
    assert place.state()["reason"] == "timeout"


def test_why_there_is_another_attempt_is_told(place):
    place.submitted(JOB, "17", attempt=2)
    record = {**place.layout.record(JOB), "again": "attempt 2, after timeout, with duration=2h"}
    place.write(JOB, "job.json", record)
    place.scheduler.answer = {"17": QUEUED}
    state = place.state()
    assert (state["attempt"], state["again"]) == (2, "attempt 2, after timeout, with duration=2h")


# --- Absence and silence


@pytest.mark.parametrize("before", [QUEUED, RUNNING, Status("held", detail="JobHeldUser")])
def test_absence_says_nothing(place, before):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": before}
    assert place.state()["state"] == before.state
    place.scheduler.answer = {}
    for _ in range(3):
        place.clock.pass_(LOST_AFTER / 4)
        assert place.state()["state"] == before.state
    assert place.layout.marker(JOB) is None
    place.scheduler.answer = {"17": RUNNING}
    assert place.state()["state"] == "running"


def test_a_job_that_was_never_in_an_answer_is_queued(place):
    place.submitted(JOB, "17")
    state = place.state()
    assert (state["state"], state["detail"]) == ("queued", "standin is being asked")


def test_a_job_that_starts_while_it_is_absent_is_running(place):
    place.submitted(JOB, "17")
    place.state()
    place.write(JOB, "progress.json", {"native_id": "17", "host": "node9"})
    assert place.state()["state"] == "running"


def test_long_absence_from_a_scheduler_that_answers_is_lost(place):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": RUNNING}
    place.state()
    place.scheduler.answer = {}
    place.state()
    place.clock.pass_(LOST_AFTER - 1)
    assert place.state()["state"] == "running"
    place.clock.pass_(2)
    state = place.state()
    assert (state["state"], state["reason"], state["native_id"]) == ("failed", "lost", "17")
    assert "has not known job 17 for 300 s" in state["message"]


def test_the_count_of_absence_begins_anew_when_it_is_seen_again(place):
    place.submitted(JOB, "17")
    for answer in ({}, {"17": RUNNING}, {}):
        place.scheduler.answer = answer
        place.clock.pass_(LOST_AFTER - 1)
        place.state()
    assert place.state()["state"] == "running"


@pytest.mark.parametrize("before", [QUEUED, RUNNING])
def test_silence_keeps_the_last_state_and_is_told(place, before):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": before}
    place.state()
    place.scheduler.answer = None
    for _ in range(5):
        place.clock.pass_(LOST_AFTER)
        assert place.state()["state"] == before.state
        assert place.watcher.trouble == "squeue: Unable to contact slurm controller"
    assert place.layout.marker(JOB) is None
    place.scheduler.answer = {"17": RUNNING}
    assert (place.state()["state"], place.watcher.trouble) == ("running", "")


def test_silence_from_the_beginning(place):
    place.submitted(JOB, "17")
    place.scheduler.answer = None
    place.clock.pass_(2 * LOST_AFTER)
    state = place.state()
    assert (state["state"], state["detail"]) == ("queued", "squeue: Unable to contact slurm controller")


def test_silence_after_an_absence_is_no_absence(place):
    """Once unknown, and then nobody to ask for a long time: the job has been unknown once, not all the time."""
    place.submitted(JOB, "17")
    place.scheduler.answer = {}
    place.state()
    place.scheduler.answer = None
    place.clock.pass_(LOST_AFTER + 1)
    assert place.state()["state"] == "queued"
    place.scheduler.answer = {}
    place.clock.pass_(1)
    assert place.state()["state"] == "queued"
    place.clock.pass_(LOST_AFTER + 1)
    assert place.state()["reason"] == "lost"


# --- Ended, and no marker


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (Status("ended", "", "COMPLETED", 0), "lost"),
        (Status("ended", "exit", "FAILED", 3), "exit"),
    ],
)
def test_ended_without_a_marker_waits_for_it_a_while(place, status, reason):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": status}
    for _ in range(2):
        state = place.state()
        assert (state["state"], state["detail"]) == ("running", "ended; its marker is awaited")
        place.clock.pass_(MARKER_PATIENCE / 2 - 1)
    place.clock.pass_(3)
    state = place.state()
    assert (state["state"], state["reason"], state["exit_code"]) == ("failed", reason, status.exit_code)
    if reason == "lost":
        assert state["message"] == "it ended (COMPLETED) and left no marker"


def test_the_marker_comes_late(place):
    """Network file systems lag."""
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": Status("ended", "", "COMPLETED", 0)}
    place.state()
    place.clock.pass_(MARKER_PATIENCE - 1)
    place.marker("done", exit_code=0)
    assert place.state()["state"] == "done"


@pytest.mark.parametrize(
    "reason", ["timeout", "out_of_memory", "preempted", "node_fail", "cancelled", "dependency", "launch"]
)
def test_what_only_the_scheduler_knows_is_concluded_at_once(place, reason):
    place.submitted(JOB, "17")
    place.write(JOB, "progress.json", {"native_id": "17", "host": "node9", "started": STARTED})
    place.scheduler.answer = {"17": Status("ended", reason, "ITS WORDS", 137, "node1")}
    state = place.state()
    expected = {
        "state": "failed",
        "reason": reason,
        "message": "ITS WORDS",
        "exit_code": 137,
        "native_id": "17",
        "by": "standin",
        "host": "node9",
        "started": STARTED,
    }
    assert expected.items() <= state.items()
    assert expected.items() <= place.another_watcher().states([JOB])[JOB].items()
    record = place.layout.record(JOB)
    assert expected.items() <= record.items()
    assert (record["tags"], record["batch"]) == ({"kept": 1}, "token-of-17")


@pytest.mark.parametrize(("code", "expected"), [(137, 9), (143, 15), (128, None), (3, None), (0, None), (None, None)])
def test_what_killed_it_and_what_it_used_are_recorded(place, code, expected):
    place.submitted(JOB, "17")
    used = {"max_rss": 4096, "cpu": 1.5, "gpus": "1"}
    place.scheduler.answer = {"17": Status("ended", "node_fail", "NODE_FAIL", code, used=used)}
    state = place.state()
    assert (state.get("signal"), state["used"]) == (expected, used)
    assert used.items() <= place.layout.record(JOB)["used"].items()


def test_a_failed_parent_is_the_reason(place):
    place.submitted(PARENT, "16")
    place.marker("failed", PARENT)
    place.submitted(JOB, "17", [OTHER, PARENT])
    place.marker("done", OTHER)
    place.scheduler.answer = {"17": Status("ended", "cancelled", "CANCELLED")}
    state = place.state()
    assert (state["reason"], state["message"]) == ("dependency", f"its parent {PARENT} failed")


def test_a_job_that_ran_has_its_own_reason_whatever_became_of_its_parents(place):
    place.submitted(JOB, "17", [PARENT])
    place.marker("failed", PARENT)
    place.write(JOB, "progress.json", {"native_id": "17"})
    place.scheduler.answer = {"17": Status("ended", "timeout", "TIMEOUT")}
    assert place.state()["reason"] == "timeout"


def test_an_end_that_cannot_be_recorded_is_told(place, monkeypatch):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": Status("ended", "timeout", "TIMEOUT")}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout_module, "write_json", full)
    state = place.state()
    assert (state["state"], state["reason"]) == ("failed", "timeout")
    assert "TIMEOUT (and it cannot be recorded: [Errno 28] No space left on device)" in state["message"]


# --- Submitted again


def test_forget(place):
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": Status("ended", "", "COMPLETED", 0), "18": QUEUED}
    place.state()
    place.clock.pass_(MARKER_PATIENCE + 1)
    assert place.state()["reason"] == "lost"
    Path(f"{place.layout.stem(JOB)}.failed").unlink()
    place.submitted(JOB, "18", attempt=2)
    place.watcher.forget([JOB])
    state = place.state()
    assert (state["state"], state["native_id"], state["attempt"]) == ("queued", "18", 2)
    # and its marker is waited for as long as the first time
    place.scheduler.answer = {"18": Status("ended", "", "COMPLETED", 0)}
    assert place.state()["state"] == "running"
    place.marker("done")
    assert place.state()["state"] == "done"


@pytest.mark.parametrize("reason", ["timeout", "cancelled", ""])
def test_an_attempt_that_somebody_else_has_begun_is_not_ended_with_the_one_before(place, reason):
    """This watcher knows the first attempt alone; its end must not become the marker of the second."""
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": RUNNING}
    assert place.state()["native_id"] == "17"
    place.submitted(JOB, "18", attempt=2)
    place.scheduler.answer = {"17": Status("ended", reason, "ITS WORDS"), "18": QUEUED}
    place.state()
    place.clock.pass_(MARKER_PATIENCE + 1)
    state = place.state()
    assert (state["state"], state["native_id"], state["attempt"]) == ("queued", "18", 2)
    assert place.layout.marker(JOB) is None
    assert "reason" not in place.layout.record(JOB)


def test_a_part_of_an_array_that_somebody_else_has_submitted_is_found(place):
    """Held together, and submitted in parts: a job's receipt is another one then."""
    for job in (JOB, OTHER):
        place.write(job, "job.json", {"batch": "t"})
    held = Receipt("t", "standin", "say-t", {"0": JOB, "1": OTHER}, state="held", words="waiting for a slot")
    held.write(place.layout)
    assert [place.state(job)["state"] for job in (JOB, OTHER)] == ["waiting", "waiting"]
    place.submitted(JOB, "17")
    Receipt("t", "standin", "say-t", {"1": OTHER}, state="submitted", natives={OTHER: "18"}).write(place.layout)
    place.scheduler.answer = {"17": RUNNING, "18": QUEUED}
    assert [place.state(job)["state"] for job in (OTHER, JOB)] == ["queued", "running"]


# --- How often the scheduler is asked


@pytest.mark.parametrize("answer", [{"17": RUNNING}, {}, None])
def test_an_answer_is_used_until_it_is_too_old(place, answer):
    """Also one that says nothing of a job, and no answer at all."""
    place.submitted(JOB, "17")
    place.scheduler.answer = answer
    for _ in range(10):
        place.state(max_age=10.0)
        place.clock.pass_(0.9)
    assert len(place.scheduler.asked) == 1
    place.clock.pass_(2)
    place.state(max_age=10.0)
    assert len(place.scheduler.asked) == 2


def test_a_job_that_was_not_in_the_question_is_asked_about(place):
    place.submitted(JOB, "17")
    place.submitted(OTHER, "18")
    place.state(max_age=10.0)
    place.scheduler.answer = {"18": RUNNING}
    assert place.state(OTHER, max_age=10.0)["state"] == "running"


@pytest.mark.parametrize("answer", [{"17": RUNNING}, None])
def test_a_quiet_hour_costs_few_questions(place, monkeypatch, answer):
    monkeypatch.setattr(watch_module.time, "sleep", lambda seconds: place.clock.pass_(max(seconds, 0.001)))
    place.submitted(JOB, "17")
    place.scheduler.answer = answer
    seen = {JOB: place.state()}
    place.clock.pass_(1)
    place.watcher.wait([JOB], seen, 0.0)
    seen = {JOB: place.state()}
    assert place.watcher.wait([JOB], seen, 3600.0) == {}
    assert 3600 / SLOWEST / 2 < len(place.scheduler.asked) < 3600 / SLOWEST + 60


def test_questions_that_cost_much_are_rare(place, monkeypatch):
    """A fifth of the time at most: OAR takes seconds for hundreds of jobs."""
    monkeypatch.setattr(watch_module.time, "sleep", lambda seconds: place.clock.pass_(max(seconds, 0.001)))
    query = place.scheduler.query
    monkeypatch.setattr(
        place.scheduler, "query", lambda natives, max_age: place.clock.pass_(4.0) or query(natives, max_age)
    )
    place.submitted(JOB, "17")
    place.scheduler.answer = {"17": RUNNING}
    place.watcher.wait([JOB], {JOB: place.state()}, 100.0)
    assert 3 <= len(place.scheduler.asked) <= 1 + 100 / 20


def test_wait_returns_what_changed_as_soon_as_it_did(place, monkeypatch):
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        place.clock.pass_(max(seconds, 0.001))
        if place.clock.now > 1010:
            place.scheduler.answer = {"17": RUNNING, "18": QUEUED}

    monkeypatch.setattr(watch_module.time, "sleep", sleep)
    place.submitted(JOB, "17")
    place.submitted(OTHER, "18")
    place.scheduler.answer = {"17": QUEUED, "18": QUEUED}
    seen = place.watcher.wait([JOB, OTHER], {}, 20.0)
    assert seen.keys() == {JOB, OTHER}
    changed = place.watcher.wait([JOB, OTHER], seen, 100.0)
    assert {job: state["state"] for job, state in changed.items()} == {JOB: "running"}
    assert place.clock.now < 1010 + 2 * FASTEST
    assert len(slept) < 300


def test_wait_does_not_wait_for_what_is_known_already(place, monkeypatch):
    monkeypatch.setattr(watch_module.time, "sleep", lambda seconds: seconds and pytest.fail("it slept"))
    place.marker("done")
    assert place.watcher.wait([JOB], {}, 100.0)[JOB]["state"] == "done"
    assert place.watcher.wait([JOB], {JOB: place.state()}, 0.0) == {}


# --- A scheduler that starts what waits for a failed job


class Unchained(StandIn):
    """Like OAR: its dependencies wait for an end, good or bad."""

    ends_orphans = False

    def __init__(self) -> None:
        super().__init__()
        self.cancelled: list[list[str]] = []
        self.deaf = False

    def cancel(self, native_ids: Sequence[str]) -> None:
        if self.deaf:
            raise NoInformation("oardel: no answer")
        self.cancelled.append(sorted(native_ids))


def family(place: Place) -> Unchained:
    """JOB waits for PARENT, and OTHER, named before it, for JOB."""
    scheduler = Unchained()
    place.scheduler, place.watcher = scheduler, Watcher(place.layout, scheduler, place.clock)
    place.submitted(OTHER, "9", parents=[JOB])
    place.submitted(JOB, "8", parents=[PARENT])
    place.submitted(PARENT, "7")
    scheduler.answer = {"7": RUNNING, "8": QUEUED, "9": QUEUED}
    return scheduler


def test_what_waits_for_a_failed_job_is_ended_in_one_call(place):
    scheduler = family(place)
    states = place.watcher.states([OTHER, JOB])
    assert {job: state["state"] for job, state in states.items()} == {OTHER: "waiting", JOB: "waiting"}
    assert scheduler.cancelled == []
    place.marker("failed", PARENT, reason="exit")
    states = place.watcher.states([OTHER, JOB])
    assert {(state["state"], state["reason"]) for state in states.values()} == {("failed", "dependency")}
    assert states[JOB]["message"] == f"its parent {PARENT} failed"
    assert scheduler.cancelled == [["8", "9"]]
    assert place.watcher.states([OTHER, JOB]) == states
    assert len(scheduler.cancelled) == 1


def test_what_waits_for_a_failed_job_waits_until_the_scheduler_answers(place):
    scheduler = family(place)
    place.marker("failed", PARENT, reason="exit")
    scheduler.deaf = True
    assert place.state()["state"] == "waiting"
    scheduler.answer = None
    assert place.state(max_age=FASTEST)["state"] == "waiting"
    assert scheduler.cancelled == []


def test_a_job_that_runs_is_not_ended_for_its_parents_sake(place):
    """It finds out by itself; or its parent was done when it began, and has been run again since."""
    scheduler = family(place)
    place.marker("failed", PARENT, reason="exit")
    scheduler.answer = {"8": RUNNING}
    assert place.state()["state"] == "running"
    assert scheduler.cancelled == []


# --- Nodes that do not see the workspace


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (117, "launch", "the login node refused the node's SSH (node1 to login)"),
        (118, "launch", "ssh -o BatchMode=yes login true"),
        (119, "exit", "they are kept for a week"),
    ],
)
def test_a_node_that_could_tell_nobody(place, status, reason, words):
    place.submitted(JOB, "7")
    place.write(JOB, "job.json", {**place.layout.record(JOB), "staged": "login"})
    place.scheduler.answer = {"7": Status("ended", "exit", "FAILED", status, "node1")}
    state = place.state()
    assert (state["state"], state["reason"]) == ("failed", reason)
    assert words in state["message"]
    assert place.layout.marker(JOB)["reason"] == reason


def test_the_same_exit_status_of_another_job_is_its_own(place):
    place.submitted(JOB, "7")
    place.scheduler.answer = {"7": Status("ended", "exit", "FAILED", 117, "node1")}
    assert place.state()["state"] == "running"  # its marker is awaited
