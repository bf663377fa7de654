"""What people see while jobs run, and how a connection that is lost is found again."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.driver import monitor as monitor_module
from experimaestro_hpc.driver.monitor import Monitor, count, describe
from experimaestro_hpc.errors import ConnectionFailed
from experimaestro_hpc.workspace.jobs import last_lines
from experimaestro_hpc.workspace.words import duration, first_line, short

JOB = "test.say/0123456789abcdef"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.99, "1 min 00 s"),
        (60, "1 min 00 s"),
        (61.4, "1 min 01 s"),
        (3599, "59 min 59 s"),
        (3599.7, "1 h 00 min"),
        (3660, "1 h 01 min"),
        (90061, "25 h 01 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"state": "queued", "native_id": "17", "detail": "Priority"}, "queued as 17"),
        ({"state": "queued", "native_id": "17", "detail": "PartitionTimeLimit"}, "queued as 17 - PartitionTimeLimit"),
        ({"state": "held", "native_id": "17", "detail": "JobHeldUser"}, "held as 17 - JobHeldUser"),
        ({"state": "waiting", "native_id": "17", "detail": "Dependency"}, "waiting as 17"),
        ({"state": "running", "native_id": "17", "host": "node1", "detail": ""}, "running on node1"),
        ({"state": "done", "host": "node1", "started": 10.0, "ended": 15.5}, "done on node1 in 5.5 s"),
        ({"state": "failed", "reason": "timeout", "message": "TIMEOUT"}, "failed (timeout) - TIMEOUT"),
        ({"state": "failed", "reason": "exit", "message": "\n KeyError: 3\nmore"}, "failed (exit) - KeyError: 3"),
        ({"state": "failed", "detail": "not this"}, "failed (exit)"),
        ({"state": "failed", "message": "x" * 500}, "failed (exit) - " + "x" * 297 + "..."),
        ({"state": "unscheduled"}, "unscheduled"),
        ({"state": "waiting", "detail": "waiting for a slot: QOSMax"}, "waiting - waiting for a slot: QOSMax"),
        (
            {"state": "queued", "native_id": "18", "again": "attempt 2, after timeout", "detail": "BeginTime"},
            "queued as 18 - attempt 2, after timeout - BeginTime",
        ),
        ({"state": "done", "host": "n1", "again": "attempt 2, after timeout"}, "done on n1"),
        ({}, ""),
    ],
)
def test_describe(state, text):
    assert describe(JOB, state) == f"{short(JOB):<36} {text}"
    assert "\n" not in describe(JOB, state)


@pytest.mark.parametrize(
    ("text", "line"), [("", ""), ("\n\n", ""), ("a\nb", "a"), ("  \n a", "a"), ("x" * 301, "x" * 297 + "...")]
)
def test_first_line(text, line):
    assert first_line(text) == line


@pytest.mark.parametrize(
    ("states", "text"),
    [
        ([], "no jobs"),
        (["done"], "1 done"),
        (["waiting", "running", "done", "failed", "done"], "2 done, 1 failed, 1 running, 1 waiting"),
        (["held", "queued", "unscheduled"], "1 queued, 1 held, 1 unscheduled"),
    ],
)
def test_count(states, text):
    assert count({str(number): {"state": state} for number, state in enumerate(states)}) == text


@pytest.mark.parametrize(
    ("err", "out", "lines"),
    [
        (None, None, []),
        (b"", b"", []),
        (b"a\nb\n", b"out", ["a", "b"]),
        (b"", b"out\n", ["out"]),
        (None, b"out\n", ["out"]),
        (b"1\n2\n3\n4", None, ["2", "3", "4"]),
        (b"x" * 20000 + b"\nend\n", None, ["x" * 16379, "end"]),
        (b"\xff\xfe\n", None, ["\ufffd\ufffd"]),
    ],
)
def test_last_lines(tmp_path, err, out, lines):
    layout = Layout(tmp_path)
    layout.job(JOB).mkdir(parents=True)
    for ending, content in (("err", err), ("out", out)):
        if content is not None:
            Path(f"{layout.stem(JOB)}.{ending}").write_bytes(content)
    assert last_lines(layout, JOB, 3) == lines


# --- What is told


class Client:
    """Gives one answer after the other; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.notes: list[str] = []
        self.seen: list[Any] = []

    def call(self, operation: str, *, jobs: Any, seen: Any, seconds: float) -> Any:
        assert operation == "watch"
        self.seen.append(dict(seen))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        states, trouble = answer if isinstance(answer, tuple) else (answer, "")
        notes, self.notes = self.notes, []
        return {"states": {job: dict(state) for job, state in states.items()}, "trouble": trouble, "notes": notes}


def watched(tmp_path: Path, *answers: Any) -> tuple[Monitor, Client]:
    client = Client(*answers)
    session: Any = SimpleNamespace(client=client, is_here=True, layout=Layout(tmp_path), place="gate")
    monitor = Monitor({"gate": session}, {}, io.StringIO())
    monitor.launchers = {f"test.say/{number:08}": "gate" for number in range(100)}
    return monitor, client


def said(monitor: Monitor) -> list[str]:
    assert isinstance(monitor.out, io.StringIO)
    return [" ".join(line.split()) for line in monitor.out.getvalue().splitlines()]


RUNNING, DONE = {"state": "running", "host": "n1"}, {"state": "done"}
ONE, TWO = "test.say/00000001", "test.say/00000002"


def test_a_job_from_beginning_to_end(tmp_path):
    queued = {"state": "queued", "native_id": "17"}
    monitor, client = watched(tmp_path, {ONE: queued, TWO: queued}, {ONE: RUNNING}, {ONE: DONE}, {TWO: DONE})
    assert monitor.wait([ONE, TWO]) == {ONE: DONE, TWO: DONE}
    assert said(monitor) == [
        f"{ONE} queued as 17",
        f"{TWO} queued as 17",
        f"{ONE} running on n1",
        f"{ONE} done",
        f"{TWO} done",
    ]
    assert client.seen == [{}, {ONE: queued, TWO: queued}, {ONE: RUNNING, TWO: queued}, {TWO: queued}]


def test_nothing_is_asked_about_what_has_ended(tmp_path):
    monitor, _ = watched(tmp_path)
    monitor.states[ONE] = DONE
    assert monitor.wait([ONE]) == {ONE: DONE}
    assert monitor.wait([]) == {}


def test_the_same_is_not_told_twice(tmp_path):
    progressing = [{**RUNNING, "progress": [{"value": value}]} for value in (0.1, 0.5, 0.9)]
    monitor, _ = watched(tmp_path, *({ONE: state} for state in progressing), {ONE: DONE})
    monitor.wait([ONE])
    assert said(monitor) == [f"{ONE} running on n1", f"{ONE} done"]


def test_a_failure_is_told_with_the_end_of_its_log(tmp_path):
    layout = Layout(tmp_path)
    layout.job(ONE).mkdir(parents=True)
    Path(f"{layout.stem(ONE)}.err").write_text("first\nKeyError: 3\n")
    failed = {"state": "failed", "reason": "exit", "message": "KeyError: 3"}
    other = {"state": "failed", "reason": "dependency", "message": "its parent failed"}
    monitor, _ = watched(tmp_path, {ONE: failed, TWO: other})
    assert monitor.wait([ONE, TWO]) == {ONE: failed, TWO: other}
    assert said(monitor) == [
        f"{ONE} failed (exit) - KeyError: 3",
        f"the end of {layout.job(ONE)}/say.err:",
        "| first",
        "| KeyError: 3",
        f"{TWO} failed (dependency) - its parent failed",
    ]


def test_many_jobs_are_summed_up(tmp_path):
    jobs = [f"test.say/{number:08}" for number in range(30)]
    monitor, _ = watched(tmp_path, dict.fromkeys(jobs, RUNNING), dict.fromkeys(jobs, DONE))
    monitor.wait(jobs)
    assert said(monitor)[-1] == "30 done"
    assert len(said(monitor)) <= 2


def test_many_failures_are_named_and_then_counted(tmp_path):
    layout = Layout(tmp_path)
    jobs = [f"test.say/{number:08}" for number in range(40)]
    for job in jobs:
        layout.job(job).mkdir(parents=True)
        Path(f"{layout.stem(job)}.err").write_text("KeyError\n")
    monitor, _ = watched(tmp_path, {job: {"state": "failed", "reason": "exit"} for job in jobs})
    monitor.wait(jobs)
    lines = said(monitor)
    assert lines.count("| KeyError") == 3
    assert sum("failed (exit)" in line for line in lines) == 20
    assert lines[-2:] == ["more jobs failed; they are counted from here on", "40 failed"]


def test_trouble_with_the_scheduler_is_told_when_it_begins_and_when_it_ends(tmp_path):
    words = "squeue: Unable to contact slurm controller"
    monitor, _ = watched(tmp_path, ({ONE: RUNNING}, ""), ({}, words), ({}, words), ({}, ""), {ONE: DONE})
    monitor.wait([ONE])
    assert said(monitor) == [f"{ONE} running on n1", f"gate: {words}", "gate: answers again", f"{ONE} done"]


def test_what_people_should_know_of_the_cluster_is_told(tmp_path):
    monitor, client = watched(tmp_path, {ONE: RUNNING}, {ONE: DONE})
    client.notes = ["no accounting here (sacct)"]
    monitor.wait([ONE])
    assert said(monitor) == [f"{ONE} running on n1", "gate: no accounting here (sacct)", f"{ONE} done"]


# --- The connection is lost


def test_a_lost_connection_is_found_again(tmp_path, monkeypatch):
    rests = []
    monkeypatch.setattr(monitor_module.time, "sleep", rests.append)
    lost = ConnectionFailed("the connection was lost", where="host gate")
    monitor, client = watched(tmp_path, {ONE: RUNNING}, *[lost] * 9, {}, lost, {ONE: DONE})
    assert monitor.wait([ONE]) == {ONE: DONE}
    assert said(monitor) == [
        f"{ONE} running on n1",
        "host gate: the connection was lost; the jobs go on, and so do the tries to connect",
        "connected to gate again",
        "host gate: the connection was lost; the jobs go on, and so do the tries to connect",
        "connected to gate again",
        f"{ONE} done",
    ]
    assert all(state == {ONE: RUNNING} for state in client.seen[1:])
    expected = [1, 2, 4, 8, 16, 32, 60, 60, 60, 1]
    assert all(0.8 * seconds <= rest <= 1.2 * seconds for rest, seconds in zip(rests, expected, strict=True))


def test_what_ended_while_its_files_could_not_be_fetched_is_fetched_later(tmp_path, monkeypatch):
    """The answer came, then the connection went: the job must not look done before its files are here."""
    monkeypatch.setattr(monitor_module.time, "sleep", lambda _: None)
    pulls: list[Any] = [ConnectionFailed("lost"), 3]
    asked = []

    def pull(_session: Any, jobs: Any) -> int:
        asked.append(list(jobs))
        result = pulls.pop(0)
        if isinstance(result, Exception):
            assert monitor.states.get(ONE) != DONE
            raise result
        return int(result)

    monkeypatch.setattr(monitor_module, "pull", pull)
    monitor, _ = watched(tmp_path, {ONE: DONE}, {ONE: DONE})
    assert monitor.wait([ONE]) == {ONE: DONE}
    assert asked == [[ONE], [ONE]]
