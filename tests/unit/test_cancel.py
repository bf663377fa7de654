"""Jobs that are ended, removed, or started again while their submissions are in whatever state they may be."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from standin import A, B, C, D, StandIn, Start, agents, group, send

from experimaestro_hpc.agent import cancel as cancel_module
from experimaestro_hpc.agent import send as send_module
from experimaestro_hpc.agent import service as service_module
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.lock import submission_lock
from experimaestro_hpc.agent.receipts import read_receipt
from experimaestro_hpc.agent.service import Service
from experimaestro_hpc.schedulers.base import Status


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A new agent on the same workspace, and its scheduler."""
    monkeypatch.setattr(service_module, "scheduler_class", lambda _name: StandIn)
    monkeypatch.setattr(send_module, "PAUSES", (0.001, 0.001))
    return agents(tmp_path)


def held(service: Service, scheduler: StandIn, *jobs: str) -> None:
    """Submit jobs for which there is no room."""
    scheduler.room = 0
    assert set(send(service, group("t1", jobs))["held"]) == set(jobs)


def unconfirmed(service: Service, scheduler: StandIn, job: str, what: str) -> None:
    """Submit a job, and hear nothing of it."""
    scheduler.script, scheduler.is_deaf = [what] * 3, True
    assert list(send(service, group("t1", [job]))["unknown"]) == [job]


def test_a_job_that_is_submitted_while_it_is_killed_is_killed(start, monkeypatch):
    service, scheduler = start()
    held(service, scheduler, A)
    lock = cancel_module.submission_lock

    @contextlib.contextmanager
    def lock_that_another_has(layout):
        receipt = read_receipt(layout, "t1")
        receipt.settle(layout, ["t1"])
        with lock(layout):
            yield

    monkeypatch.setattr(cancel_module, "submission_lock", lock_that_another_has)
    scheduler.may_cancel = True
    assert service.cancel([A]) == {"cancelled": [A]}
    assert scheduler.cancelled == ["t1"]
    assert service.layout.marker(A) is None, "its end is the scheduler's to tell"


def test_what_was_never_submitted_leaves_nothing(start):
    service, scheduler = start()
    held(service, scheduler, A, B)
    notes = service.layout.internal / "held"
    assert service.cancel([A]) == {"cancelled": [A]}
    (token,) = [path.name for path in notes.iterdir()]  # the other one still waits
    assert service.cancel([A, B]) == {"cancelled": [B]}
    assert list(notes.iterdir()) == []
    assert [service.layout.marker(job)["reason"] for job in (A, B)] == ["cancelled", "cancelled"]
    assert read_receipt(service.layout, token).state == "refused"


@pytest.mark.parametrize("what", ["accept, time out", "time out"])
def test_a_job_that_may_have_been_submitted_is_looked_for(start, monkeypatch, what):
    service, scheduler = start()
    unconfirmed(service, scheduler, A, what)
    monkeypatch.setattr("experimaestro_hpc.agent.receipts.LATE", 0.0)
    scheduler.is_deaf, scheduler.may_cancel = False, True
    assert service.cancel([A]) == {"cancelled": [A] if "accept" in what else []}
    assert scheduler.cancelled == (["t1"] if "accept" in what else [])


@pytest.mark.parametrize("what", ["accept, time out", "time out"])
def test_a_job_that_may_have_been_submitted_is_not_removed(start, monkeypatch, what):
    service, scheduler = start()
    unconfirmed(service, scheduler, A, what)
    monkeypatch.setattr("experimaestro_hpc.agent.receipts.LATE", 0.0)
    request = {"op": "remove", "arguments": {"jobs": [A]}}
    assert "Unable to contact" in service.handle(request, None)[0]["error"]["what"]
    assert service.layout.job(A).is_dir()
    scheduler.is_deaf = False
    assert service.remove([A]) == {"removed": [] if "accept" in what else [A]}
    assert service.layout.job(A).is_dir() == ("accept" in what)


def test_an_end_is_not_written_while_somebody_may_submit_the_job_anew(start):
    service, scheduler = start()
    send(service, group("t1", [A]))
    scheduler.says["t1"] = Status("ended", "cancelled", "CANCELLED by 1001")
    with submission_lock(Layout(service.layout.root)):  # somebody else's
        state = service.watcher.states([A])[A]
        assert (state["state"], service.layout.marker(A)) == ("queued", None)
    with submission_lock(service.layout):
        assert service.watcher.states([A])[A]["state"] == "failed"
    assert service.layout.marker(A)["reason"] == "cancelled"


def test_what_is_started_again_has_its_parents_first(start):
    """B needs A, C needs A and B; whatever order the ids are given in, and are found in."""
    service, scheduler = start()
    send(service, group("t1", [D]), group("t2", [C], [D]), group("t3", [A], [C, D]), group("t4", [B], [A]))
    for job, reason in {D: "exit", C: "exit", A: "dependency", B: "dependency"}.items():
        service.layout.fail(job, {"state": "failed", "reason": reason})
    assert service.dependents([D]) == {"jobs": [B, A, C]}
    assert service.retry([C, D]) == {"jobs": [D, C, A, B], "problems": {}}
    assert [of for of, _, _ in scheduler.calls_made[4:]] == ["d", "c", "a", "b"]
