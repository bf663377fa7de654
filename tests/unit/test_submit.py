"""Submission: each job exactly once, whatever gets lost and whoever dies; what is refused says so and takes along only
what depends on it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from standin import TIMED_OUT, A, B, C, Crash, D, StandIn, Start, agents, group, send, times_submitted

from experimaestro_hpc.agent import send as send_module
from experimaestro_hpc.agent import service as service_module
from experimaestro_hpc.agent.check import check_python
from experimaestro_hpc.agent.pack import Packer
from experimaestro_hpc.agent.receipts import Receipt, read_receipt
from experimaestro_hpc.agent.service import Service
from experimaestro_hpc.driver.why import why
from experimaestro_hpc.errors import XpmError
from experimaestro_hpc.schedulers.base import NoInformation, Status, Submission
from experimaestro_hpc.workspace.words import short


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "scheduler_class", lambda _name: StandIn)
    monkeypatch.setattr(send_module, "PAUSES", (0.001, 0.001))


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A new agent on the same workspace, and its scheduler."""
    return agents(tmp_path)


def states(service: Service, *jobs: str) -> list[str]:
    found = service.watcher.states(jobs)
    return [found[job]["state"] + ":" + found[job].get("reason", "") for job in jobs]


# --- All is well


def test_everything_gets_to_its_place(start):
    service, scheduler = start()
    answer = send(service, group("t1", [A]), group("t2", [B, C], [A]), group("t3", [D], [A, B]))
    assert answer == {
        "natives": {A: "t1", B: "t2_0", C: "t2_1", D: "t3"},
        "refused": {},
        "held": {},
        "unknown": {},
        "attached": [],
        "calls": {},
    }
    layout = service.layout
    assert [(one.token, one.name, list(one.dependencies), list(one.indexes)) for one in scheduler.submissions] == [
        ("t1", "job-t1", [], []),
        ("t2", "job-t2", ["t1"], [0, 1]),
        ("t3", "job-t3", ["t1", "t2_0"], []),
    ]
    assert [(one.script, one.directory) for one in scheduler.submissions[:2]] == [
        (f"{layout.job(A)}/job.sh", str(layout.job(A))),
        (f"{layout.batch('t2')}/array.sh", str(layout.batch("t2"))),
    ]
    assert scheduler.submissions[1].directories == [str(layout.job(B)), str(layout.job(C))]
    assert (layout.batch("t2") / "array.sh").is_file()
    for job, token in ((A, "t1"), (B, "t2"), (C, "t2"), (D, "t3")):
        assert sorted(path.name for path in layout.job(job).iterdir()) == ["job.json", "job.sh", "params.json"]
        assert (layout.record(job)["batch"], layout.record(job)["attempt"]) == (token, 1)
        receipt = read_receipt(layout, token)
        assert receipt is not None
        assert (receipt.state, receipt.natives[job]) == ("submitted", answer["natives"][job])
    assert list((layout.internal / "incoming").iterdir()) == []
    assert states(service, A, B, C, D) == ["queued:", "waiting:", "waiting:", "waiting:"]


def test_the_receipt_survives_a_power_cut(start, monkeypatch):
    """It is on the disk, and not only in the machine's memory, before the scheduler is called and after."""
    service, _ = start()
    events = []
    fsync, submit = os.fsync, StandIn.submit
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle)))
    monkeypatch.setattr(StandIn, "submit", lambda self, what: (events.append("submit"), submit(self, what))[1])
    send(service, group("t1", [A]))
    assert events == ["fsync", "submit", "fsync"]


def test_code_is_taken_in_once(start):
    service, _ = start()
    folder = service.layout.code("0123")
    for text in ("first", "second"):
        packer = Packer()
        packer.add_bytes("code/main.py", text.encode())
        body, _size = packer.finish()
        arguments = {"token": text, "groups": [], "code": "0123"}
        assert "answer" in service.handle({"op": "submit", "arguments": arguments}, body)[0]
        assert (folder / "main.py").read_text() == "first"


def test_what_is_known_is_attached_to_and_not_submitted_again(start):
    service, scheduler = start()
    send(service, group("t1", [A]))
    other, scheduler = start()
    answer = send(other, group("t2", [A]), group("t3", [B], [A]), version="2", token="other")
    assert (answer["attached"], answer["natives"]) == ([A], {B: "t3"})
    assert [(one.token, list(one.dependencies)) for one in scheduler.submissions] == [("t3", ["t1"])]
    assert other.layout.record(A)["version"] == "1"
    assert "# 1" in (other.layout.job(A) / "job.sh").read_text()


def test_a_parent_that_is_done_is_no_dependency(start):
    service, scheduler = start()
    send(service, group("t1", [A]))
    Path(f"{service.layout.stem(A)}.done").write_text("{}")
    answer = send(service, group("t2", [A]), group("t3", [B], [A]), token="again")
    assert (answer["attached"], answer["natives"]) == ([A], {B: "t3"})
    assert list(scheduler.submissions[-1].dependencies) == []


def test_an_array_of_which_some_are_known_keeps_its_indexes(start):
    service, scheduler = start()
    send(service, group("t1", [B]))
    answer = send(service, group("t2", [A, B, C]), token="again")
    assert scheduler.submissions[-1].indexes == [0, 2]
    assert answer["natives"] == {A: "t2_0", C: "t2_2"}
    assert answer["attached"] == [B]


def test_a_single_one_left_of_an_array_is_still_an_element(start):
    service, scheduler = start()
    send(service, group("t1", [A, B]))
    answer = send(service, group("t2", [A, C]), token="again")
    assert (scheduler.submissions[-1].indexes, answer["natives"]) == ([1], {C: "t2_1"})


def test_a_former_result_that_was_removed_leaves_its_new_name_free(start):
    service, _ = start()
    done = service.layout.job(C)
    done.mkdir(parents=True)
    Path(f"{service.layout.stem(C)}.done").write_text("{}")
    assert service.adopt({A: C})["states"][A]["state"] == "done"
    service.remove([C])
    assert send(service, group("t1", [A]), group("t2", [B], [A]))["natives"] == {A: "t1", B: "t2"}
    assert not done.exists()
    assert (service.layout.job(A) / "job.sh").is_file()


def test_a_failed_job_is_submitted_again_without_what_it_left(start):
    service, _ = start()
    send(service, group("t1", [A]))
    folder = service.layout.job(A)
    stem = service.layout.stem(A)
    for left in (f"{stem}.failed", folder / "progress.json", folder / "output.bin", f"{stem}.out"):
        Path(left).write_text('{"reason": "exit"}')
    assert states(service, A) == ["failed:exit"]
    assert send(service, group("t2", [A]), version="2", token="again")["natives"] == {A: "t2"}
    assert states(service, A) == ["queued:"]
    record = {"id": A, "parents": [], "name": "a", "version": "2", "batch": "t2", "attempt": 2, "earlier": 1}
    assert service.layout.record(A) == {**record, "attempts": [{"attempt": 1}]}
    names = ["a.out", "job.json", "job.sh", "output.bin", "params.json"]
    assert sorted(path.name for path in folder.iterdir()) == names


# --- A reply is lost


def test_lost_reply_and_the_job_exists(start):
    service, scheduler = start()
    scheduler.script = ["accept, and lose the reply"]
    answer = send(service, group("t1", [A, B]), group("t2", [C], [A]))
    assert answer["natives"] == {A: "t1_0", B: "t1_1", C: "t2"}
    assert times_submitted(scheduler) == {"t1": 1, "t2": 1}
    assert scheduler.looked_for == ["t1"]
    assert scheduler.submissions[-1].dependencies == ["t1_0"]


def test_lost_request_is_sent_again_once(start):
    service, scheduler = start()
    scheduler.script = ["lose"]
    assert send(service, group("t1", [A]))["natives"] == {A: "t1"}
    assert [one.token for one in scheduler.submissions] == ["t1", "t1"]
    assert (times_submitted(scheduler), scheduler.looked_for) == ({"t1": 1}, ["t1"])


def test_never_again_while_the_scheduler_does_not_answer(start):
    service, scheduler = start()
    scheduler.script = ["accept, and lose the reply"]
    scheduler.is_deaf = True
    answer = send(service, group("t1", [A]))
    assert (answer["natives"], answer["refused"], list(answer["unknown"])) == ({}, {}, [A])
    assert TIMED_OUT in answer["unknown"][A]
    assert (len(scheduler.submissions), times_submitted(scheduler)) == (1, {"t1": 1})
    assert not Path(f"{service.layout.stem(A)}.failed").exists()
    assert states(service, A) == ["unscheduled:"]
    # the next run, which finds it
    service, scheduler = start()
    answer = send(service, group("t2", [A]), token="again")
    assert (answer["attached"], answer["natives"], answer["refused"]) == ([A], {}, {})
    assert (scheduler.submissions, times_submitted(scheduler)) == ([], {"t1": 1})
    assert service.watcher.states([A])[A]["native_id"] == "t1"


def test_a_scheduler_that_loses_everything_is_given_up(start):
    service, scheduler = start()
    scheduler.script = ["lose"] * 99
    answer = send(service, group("t1", [A]), group("t2", [B], [A]))
    assert (list(answer["unknown"]), answer["held"]) == ([A], {B: f"its parent {A} is not submitted yet"})
    assert [one.token for one in scheduler.submissions] == ["t1"] * 3
    # the next run; whoever watches submits the other one
    service, scheduler = start()
    answer = send(service, group("t3", [A]), group("t4", [B], [A]), token="again")
    assert (answer["natives"], answer["attached"]) == ({A: "t3"}, [B])
    service.watch([A, B], {}, 0.0)
    assert times_submitted(scheduler) == {"t3": 1, "t2": 1}


# --- Refused for good


def test_refused_for_good(start):
    service, scheduler = start()
    scheduler.script = ["accept", "refuse"]
    answer = send(
        service,
        group("t1", [A]),
        group("t2", [B], [A]),
        group("t3", [C], [B]),
        group("t4", [D], [A]),
    )
    assert answer["natives"] == {A: "t1", D: "t4"}
    assert answer["refused"] == {
        B: "sbatch: Invalid partition name specified",
        C: f"its parent {B} was refused: sbatch: Invalid partition name specified",
    }
    assert [one.token for one in scheduler.submissions] == ["t1", "t2", "t4"]
    assert states(service, A, B, C, D) == ["queued:", "failed:launch", "failed:dependency", "waiting:"]
    for job, reason in ((B, "launch"), (C, "dependency")):
        marker = service.layout.marker(job)
        assert marker is not None
        assert (marker["reason"], marker["message"], marker["by"]) == (reason, answer["refused"][job], "standin")
        assert service.layout.record(job)["state"] == "failed"
    assert scheduler.looked_for == []


def test_grandchildren_of_a_refused_job(start):
    service, scheduler = start()
    scheduler.script = ["refuse"]
    answer = send(service, group("t1", [A]), group("t2", [B], [A]), group("t3", [C], [B]), group("t4", [D]))
    assert states(service, A, B, C, D) == ["failed:launch", "failed:dependency", "failed:dependency", "queued:"]
    assert (list(answer["refused"]), list(answer["natives"])) == ([A, B, C], [D])


def test_what_was_refused_can_be_submitted_again(start):
    service, scheduler = start()
    scheduler.script = ["refuse"]
    send(service, group("t1", [A]), group("t2", [B], [A]))
    answer = send(service, group("t3", [A]), group("t4", [B], [A]), token="again")
    assert answer["natives"] == {A: "t3", B: "t4"}
    assert states(service, A, B) == ["queued:", "waiting:"]


@pytest.mark.parametrize("left", ["nothing", "a failed parent"])
def test_a_parent_that_is_neither_done_nor_submitted(start, left):
    service, scheduler = start()
    if left == "a failed parent":
        scheduler.script = ["refuse"]
        send(service, group("t1", [A]))
        scheduler.submissions.clear()
    answer = send(service, group("t2", [B], [A]), token="again")
    why = "is neither done nor submitted" if left == "nothing" else "failed"
    assert answer["refused"] == {B: f"its parent {A} {why}"}
    assert (scheduler.submissions, states(service, B)) == ([], ["failed:dependency"])


# --- The process dies


@pytest.mark.parametrize(
    ("when", "taken"), [("die before", {"t3": 1, "t4": 1}), ("die after", {"t2": 1, "t4": 1})], ids=["before", "after"]
)
def test_died_while_it_submitted(start, when, taken):
    """``t1`` was submitted; ``t2`` was cut off, before the scheduler took it or after."""
    service, scheduler = start()
    scheduler.script = ["accept", when]
    with pytest.raises(Crash):
        send(service, group("t1", [A]), group("t2", [B], [A]))
    receipt = read_receipt(service.layout, "t2")
    assert receipt is not None and receipt.state == "submitting"
    assert states(start()[0], A, B) == ["queued:", "unscheduled:"]
    service, scheduler = start()
    answer = send(service, group("t3", [B], [A]), group("t4", [C], [B]), token="again")
    assert answer["refused"] == {}
    assert times_submitted(scheduler) == {"t1": 1, **taken}
    left = read_receipt(service.layout, "t2")
    assert (left is not None) == ("t2" in taken), "what was never made leaves no receipt"
    assert scheduler.looked_for == ["t2"]
    assert scheduler.submissions[-1].dependencies == [next(iter(taken))]
    assert states(service, A, B, C) == ["queued:", "waiting:", "waiting:"]
    assert answer["attached"] == ([B] if when == "die after" else [])


def test_died_while_it_submitted_an_array(start):
    service, scheduler = start()
    scheduler.script = ["die after"]
    with pytest.raises(Crash):
        send(service, group("t1", [A, B, C]))
    service, scheduler = start()
    answer = send(service, group("t2", [B]), group("t3", [D], [A]), token="again")
    assert (answer["attached"], answer["natives"]) == ([B], {D: "t3"})
    assert {job: service.watcher.states([job])[job]["native_id"] for job in (A, B, C)} == {
        A: "t1_0",
        B: "t1_1",
        C: "t1_2",
    }


def test_nothing_is_submitted_while_a_cut_off_submission_cannot_be_looked_up(start):
    service, scheduler = start()
    scheduler.script = ["die after"]
    with pytest.raises(Crash):
        send(service, group("t1", [A]))
    service, scheduler = start()
    scheduler.is_deaf = True
    for token, job in (("t2", A), ("t3", B)):
        error = send(service, group("t9", [C]), group(token, [job], [A] if job == B else []), token=token)
        assert (error["kind"], "Unable to contact slurm controller" in error["what"]) == ("ConnectionFailed", True)
        assert "nothing was done" in error["hint"]
    assert (scheduler.submissions, times_submitted(scheduler)) == ([], {"t1": 1})
    assert not service.layout.job(C).exists()
    assert list((service.layout.internal / "incoming").iterdir()) == []
    receipt = read_receipt(service.layout, "t1")
    assert receipt is not None and receipt.state == "submitting"
    # it answers again
    scheduler.is_deaf = False
    assert send(service, group("t4", [A]), token="again")["attached"] == [A]


def test_died_before_the_receipt_was_written(start, monkeypatch):
    service, scheduler = start()
    monkeypatch.setattr(Receipt, "write", lambda *_: (_ for _ in ()).throw(Crash))
    with pytest.raises(Crash):
        send(service, group("t1", [A]))
    monkeypatch.undo()
    monkeypatch.setattr(service_module, "scheduler_class", lambda _name: StandIn)
    service, scheduler = start()
    assert states(service, A) == ["unscheduled:"]
    assert send(service, group("t2", [A]), token="again")["natives"] == {A: "t2"}
    assert times_submitted(scheduler) == {"t2": 1}
    assert service.layout.record(A)["batch"] == "t2"


def test_died_before_the_native_ids_were_noted(start, monkeypatch):
    service, _ = start()
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Receipt, "settle", lambda *_: (_ for _ in ()).throw(Crash))
        send(service, group("t1", [A]))
    service, scheduler = start()
    assert send(service, group("t2", [A]), token="again")["attached"] == [A]
    assert times_submitted(scheduler) == {"t1": 1}


def test_a_receipt_of_another_scheduler_is_left_alone(start):
    service, scheduler = start()
    scheduler.script = ["die after"]
    with pytest.raises(Crash):
        send(service, group("t1", [A]))
    receipt = read_receipt(service.layout, "t1")
    assert receipt is not None
    receipt.scheduler = "another"
    receipt.write(service.layout)
    service, scheduler = start()
    send(service, group("t2", [A]), token="again")
    assert scheduler.looked_for == []


# --- Two at once


def test_two_at_once_submit_each_job_once(start, monkeypatch):
    """Two processes, the same forty jobs in groups cut differently; each must end up with all of them."""
    jobs = [f"test.many/{number:08x}" for number in range(40)]
    context = multiprocessing.get_context("fork")
    ready, met, answers = context.Barrier(2), context.Barrier(2), context.SimpleQueue()
    submit = StandIn.submit

    def submit_together(self: StandIn, submission: Submission) -> list[str]:
        with contextlib.suppress(threading.BrokenBarrierError):
            met.wait(0.3)  # both are here only if nothing keeps them apart
        return submit(self, submission)

    monkeypatch.setattr(StandIn, "submit", submit_together)

    def submit_all(name: str, size: int) -> None:
        service, _ = start()
        groups = [group(f"{name}{at}", jobs[at : at + size]) for at in range(0, len(jobs), size)]
        ready.wait(30)
        answers.put(send(service, *groups, token=name))

    children = [context.Process(target=submit_all, args=one) for one in (("x", 3), ("y", 4))]
    for child in children:
        child.start()
    got = [answers.get() for _ in children]
    for child in children:
        child.join(30)
    assert all({*one["natives"], *one["attached"]} == set(jobs) for one in got)
    assert got[0]["natives"].keys().isdisjoint(got[1]["natives"])
    assert sum(len(one["natives"]) for one in got) == len(jobs)
    service, scheduler = start()
    assert set(times_submitted(scheduler).values()) == {1}
    natives = {job: state["native_id"] for job, state in service.watcher.states(jobs).items()}
    assert natives == {**got[0]["natives"], **got[1]["natives"]}


# --- What goes wrong before the scheduler is called


def test_nothing_is_submitted_when_the_receipt_cannot_be_written(start, monkeypatch):
    service, scheduler = start()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/there")

    monkeypatch.setattr(Receipt, "write", full)
    error = send(service, group("t1", [A]))
    assert (error["kind"], error["what"]) == ("WorkspaceError", "No space left on device: /there")
    assert scheduler.submissions == []


def test_nothing_is_submitted_when_the_files_do_not_arrive(start):
    service, scheduler = start()
    packer = Packer()
    packer.add_bytes(f"jobs/{A}/job.sh", b"")
    packer.add_bytes("../../evil", b"")
    with packer.finish()[0] as body:
        arguments = {"token": "request", "groups": [group("t1", [A])], "code": ""}
        document, _ = service.handle({"op": "submit", "arguments": arguments}, body)
    assert document["error"]["kind"] == "WorkspaceError"
    assert (scheduler.submissions, (service.layout.root / "jobs").exists()) == ([], False)
    assert list((service.layout.internal / "incoming").iterdir()) == []


@pytest.mark.parametrize("job", ["../../etc/passwd", "test.a", "test.a/", "/abc", "test.a/../b", "a\nb/12", "../12"])
def test_a_job_id_that_is_none(start, job):
    service, scheduler = start()
    assert send(service, group("t1", [job]))["kind"] == "WorkspaceError"
    assert scheduler.submissions == []
    document, _ = service.handle({"op": "survey", "arguments": {"jobs": [job]}}, None)
    assert (document["error"]["kind"], "no job id" in document["error"]["what"]) == ("WorkspaceError", True)


@pytest.mark.parametrize("operation", ["handle", "__init__", "_take_code", "nonsense", None, "layout"])
def test_only_operations_can_be_asked_for(start, operation):
    document, _ = start()[0].handle({"op": operation, "arguments": {}}, None)
    assert f"no operation {operation!r}" in document["error"]["what"]


# --- What is known before


def test_survey(start):
    service, scheduler = start()
    send(service, group("t1", [A]))
    answer = service.handle({"op": "survey", "arguments": {"jobs": [A, B], "code": "0123"}}, None)[0]["answer"]
    assert {job: state["state"] for job, state in answer["states"].items()} == {A: "queued", B: "unscheduled"}
    assert (answer["has_code"], answer["trouble"]) == (False, "")
    service.layout.code("0123").mkdir(parents=True)
    scheduler.is_deaf = True
    answer = service.handle({"op": "survey", "arguments": {"jobs": [A], "code": "0123"}}, None)[0]["answer"]
    assert answer["has_code"]
    assert (answer["states"][A]["state"], "Unable to contact" in answer["trouble"]) == ("queued", True)


def test_a_host_without_the_scheduler_is_told_at_once(start, monkeypatch):
    monkeypatch.setattr(StandIn, "command", "sbatch-of-nowhere")
    document, _ = start()[0].handle({"op": "survey", "arguments": {"jobs": [A]}}, None)
    assert "there is no sbatch-of-nowhere on" in document["error"]["what"]
    assert "login node" in document["error"]["hint"]


@pytest.mark.parametrize(
    ("prints", "refused"),
    [
        ("3.6", "is 3.6"),
        ("2.7", "is 2.7"),
        ("3.8", "is 3.8"),
        ("module loaded\n3.8", "is 3.8"),
        ("3.9", ""),
        ("3.13", ""),
        ("4.0", ""),
        ("", ""),
        ("what?", ""),
    ],
)
def test_a_python_that_is_too_old_is_refused(tmp_path, monkeypatch, prints, refused):
    fake = tmp_path / "oldpython"
    fake.write_text(f"#!/bin/sh\necho '{prints}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if refused:
        with pytest.raises(XpmError, match=refused) as caught:
            check_python("oldpython", "gate")
        assert "gate" in caught.value.where
    else:
        check_python("oldpython", "gate")


def test_a_python_that_only_the_nodes_have_is_not_judged():
    check_python("python-of-the-nodes", "gate")


# --- Explaining


def test_the_first_that_failed_is_named_to_all_that_failed_for_it(start):
    service, _ = start()
    send(service, group("t1", [A]), group("t2", [B], [A]), group("t3", [C], [B]), group("t4", [D], [C]))
    for job, reason in ((A, "exit"), (B, "dependency"), (C, "dependency")):
        service.layout.fail(job, {"state": "failed", "reason": reason, "message": "its words"})
    found = service.explain([A, B, C, D])
    assert {job: of["cause"] for job, of in found.items()} == {A: "", B: A, C: A, D: ""}
    assert f"jobs why {short(A)}" in why(C, found[C]).advice
    assert "the first to fail was another" in why(C, found[C]).advice
    assert "another" not in why(B, found[B]).advice


def test_a_scheduler_that_knows_nothing_of_a_job_does_not_hide_the_others(start, monkeypatch):
    service, scheduler = start()
    send(service, group("t1", [A]), group("t2", [B]))

    def explain(native):
        if native == "t1":
            raise NoInformation("scontrol: Job t1 not found")
        return {"Reason": "Priority"}

    monkeypatch.setattr(scheduler, "explain", explain)
    assert {job: of["words"] for job, of in service.explain([A, B]).items()} == {A: {}, B: {"Reason": "Priority"}}


# --- Cancelling


def test_the_children_of_what_is_cancelled_end_for_its_sake(start):
    """Whatever is told first: the scheduler may know of a child's end before it knows of its parent's."""
    service, scheduler = start()
    send(service, group("t1", [A]), group("t2", [B], [A]))
    scheduler.may_cancel = True
    service.cancel([B, A])
    scheduler.says["t2"] = Status("ended", "cancelled", "CANCELLED by 1001")
    service.watcher.asked_at = None
    assert states(service, B) == ["failed:dependency"]
    assert A in service.layout.marker(B)["message"]
    scheduler.says["t1"] = Status("ended", "cancelled", "CANCELLED by 1001")
    service.watcher.asked_at = None
    assert states(service, A) == ["failed:cancelled"]
