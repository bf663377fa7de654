"""Inside a job: init tasks, parameters of earlier versions, and the time that is left."""

from __future__ import annotations

import time

import pytest
from job_directory import Workspace

from experimaestro_hpc.runtime.deadline import find_end, parse_left, remaining_time

TASKS = """
import sys
from experimaestro_hpc import *

class Load(LightweightTask):
    what: Param[str]
    path: Meta[str] = field(default_factory=PathGenerator("loaded.bin"))
    def __post_init__(self):
        print("made", self.what)
    def execute(self):
        exec(self.what)

class Use(Task):
    n: Param[int] = 0
    def execute(self):
        print("used")

class Part(Config):
    size: Param[int]

class Train(Task):
    rates: Param[list]
    count: Param[int] = 2
    last: Param[int] = 0
    @deprecate
    def rate(self, value):
        self.rates = [value] * self.count
    @deprecate
    def part(self, value):
        self.last = value.size
    def execute(self):
        print(self.rates, self.last)

class Child(Task):
    parent: Param[Train]
    def execute(self):
        print(self.parent.rates, self.parent.last)

class Copy(Task):
    parent: Param[Train]
    def execute(self):
        other = copyconfig(self.parent, last=7)
        print(other.rates, other.count, other.last, copyconfig(Part(size=1), size=8).size)

class Resume(ResumableTask):
    what: Param[str] = "pass"
    def execute(self):
        exec(self.what)
"""


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path)
    made.script(TASKS)
    return made


def use(workspace, *what):
    job = workspace.job("Use", configs=[{"class": "Load", "params": {"what": one}} for one in what])
    job.write("params.json", {**job.read("params.json"), "init_tasks": list(range(1, len(what) + 1))})
    return job


def test_init_tasks_run_first_in_their_order_in_the_job_directory(workspace):
    job = use(workspace, "print('one', self.path)", "import os; print('two', os.getcwd())")
    ran = job.run()
    assert ran.returncode == 0, ran.stderr
    said = [line for line in ran.stdout.splitlines() if not line.startswith("made")]
    assert said == [f"one {job.directory / 'loaded.bin'}", f"two {job.directory}", "used"]
    assert job.markers == [".done"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("sys.exit(3)", "the task ended with exit status 3"),
        ("sys.exit()", "Load ended the process before the task was executed"),
        ("sys.exit(0)", "Load ended the process before the task was executed"),
        ("sys.exit('')", "Load ended the process before the task was executed"),
    ],
)
def test_an_init_task_that_ends_the_process_fails_the_job(workspace, what, message):
    job = use(workspace, "pass", what, "print('not this')")
    ran = job.run()
    assert ran.returncode and "used" not in ran.stdout and "not this\n" not in ran.stdout.replace("made", "")
    assert (job.marker["state"], job.marker["reason"], job.marker["message"]) == ("failed", "exit", message)


def test_an_init_task_without_execute(workspace):
    workspace.script(TASKS.replace("    def execute(self):\n        exec(self.what)\n\nclass Use", "\nclass Use"))
    job = use(workspace, "x")
    job.run()
    assert "Load has no execute method" in job.marker["message"]


def test_parameters_of_an_earlier_version(workspace):
    old = workspace.job(
        "Train", {"rate": 3, "part": {"$config": 1}}, configs=[{"class": "Part", "params": {"size": 5}}]
    )
    ran = old.run()
    assert (ran.stdout, ran.returncode) == ("[3, 3] 5\n", 0), ran.stderr
    child = workspace.job("Child", {"parent": {"$task": old.id}}, parents=[old.id])
    assert child.run().stdout == "[3, 3] 5\n"


def test_a_copy_inside_a_job(workspace):
    """Values that are read late, and parameters that are younger than the result."""
    old = workspace.job("Train", {"rates": [1]}).mark()
    ran = workspace.job("Copy", {"parent": {"$task": old.id}}, parents=[old.id]).run()
    assert ran.stdout == "[1] 2 7 8\n", ran.stderr


# --- time ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00", 0),
        ("59", 59),
        ("03:04", 184),
        ("3:04\n", 184),
        ("02:03:04", 7384),
        ("1-02:03:04", 93784),
        ("1-00:00", 86400),
        ("365-00:00:00", 31536000),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("NOT_SET", None),
        ("", None),
        ("\n", None),
        ("-1:30", None),
        ("1-2-3:04", None),
        ("1:2:3:4", None),
        ("1-", None),
        ("1.5", None),
        ("²:00", None),
        ("1 2", None),
        ("3:04\n3:05", None),
    ],
)
def test_parse_left(text, seconds):
    assert parse_left(text) == seconds


def unasked(argv):
    raise AssertionError(argv)


@pytest.mark.parametrize(
    ("environ", "end"),
    [
        ({}, None),
        ({"XPM_HPC_END_TIME": "100.5"}, 100.5),
        ({"SLURM_JOB_END_TIME": "200", "SLURM_JOB_ID": "7"}, 200.0),
        ({"XPM_HPC_END_TIME": "100", "SLURM_JOB_END_TIME": "200"}, 100.0),
        ({"XPM_HPC_END_TIME": "soon", "SLURM_JOB_END_TIME": "200"}, 200.0),
        *[({"SLURM_JOB_END_TIME": odd}, None) for odd in ("", "nan", "inf", "-1", "0", "Unknown")],
    ],
)
def test_find_end(environ, end):
    assert find_end(environ, unasked) == end


@pytest.mark.parametrize(("answer", "left"), [("1:00:00", 3600), ("UNLIMITED\n", None), ("", None)])
def test_squeue_is_asked_where_the_environment_says_nothing(answer, left):
    asked = []

    def ask(argv):
        asked.append(argv)
        return answer

    before = time.time()
    end = find_end({"SLURM_JOB_ID": "7"}, ask)
    assert asked == [["squeue", "-h", "-j", "7", "-o", "%L"]]
    if left is None:
        assert end is None
    else:
        assert end is not None and before + left <= end <= time.time() + left


def test_outside_of_a_job(monkeypatch):
    monkeypatch.delenv("XPM_HPC_JOB", raising=False)
    monkeypatch.setenv("XPM_HPC_END_TIME", "99999999999")
    assert remaining_time() is None


SAY = "left = self.remaining_time(); print(left if left is None else 0 <= left <= 1000, left)"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "None None"),
        ({"XPM_HPC_END_TIME": "1"}, "True 0.0"),
        ({"SLURM_JOB_ID": "7"}, "None None"),  # and no squeue
    ],
)
def test_in_a_job(workspace, tmp_path, environ, said):
    ran = workspace.job("Resume", {"what": SAY}).run(**{"PATH": str(tmp_path), **environ})
    assert ran.stdout.strip() == said, ran.stderr


def test_time_that_is_left_in_a_job(workspace):
    ran = workspace.job("Resume", {"what": SAY}).run(XPM_HPC_END_TIME=str(time.time() + 1000))
    assert ran.stdout.startswith("True "), ran.stderr


def test_squeue_is_asked_once(workspace, tmp_path):
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\necho 16:40\n')
    squeue.chmod(0o755)
    ran = workspace.job("Resume", {"what": f"{SAY}; {SAY}"}).run(
        PATH=f"{squeue.parent}:/usr/bin:/bin", SLURM_JOB_ID="7"
    )
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["True", "True"], ran.stderr
    assert (tmp_path / "asked").read_text() == "-h -j 7 -o %L\n"


@pytest.mark.parametrize(("words", "message"), [("'saved at 3'", "saved at 3"), ("", "stopped before the time limit")])
def test_a_graceful_timeout_is_a_timeout(workspace, words, message):
    job = workspace.job("Resume", {"what": f"raise GracefulTimeout({words})"})
    ran = job.run()
    assert ran.returncode == 1
    assert (job.marker["state"], job.marker["reason"], job.marker["message"]) == ("failed", "timeout", message)
    assert "xpm-hpc: the task stopped" in ran.stderr and "Traceback" not in ran.stderr
