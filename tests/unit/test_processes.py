"""Tasks of several processes on this machine: real processes, started as the job script does."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from job_directory import LONG, Job, Workspace
from test_shipped import each_python

TASKS = """
import os, signal, socket, sys, time
from experimaestro_hpc import GracefulTimeout, Param, ResumableTask, Task, progress

RANK = os.environ.get("RANK")
NAMES = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")

def act(self):
    exec(self.what, {"self": self, **globals()})

class Act(Task):
    what: Param[str]
    execute = act

class Resume(ResumableTask):
    what: Param[str]
    execute = act
"""


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path)
    made.script(TASKS)
    return made


def act(workspace: Workspace, what: str, count: int = 3, name: str = "Act", **record: object) -> Job:
    """A job that does ``what`` in several processes."""
    processes = {"start": "local", "nodes": 1, "per_node": count, "resumes": name == "Resume"}
    return workspace.job(name, {"what": what}, processes=processes, **record)


def test_each_knows_its_rank(workspace):
    job = act(workspace, "print(*(os.environ[name] for name in NAMES), os.environ['MASTER_ADDR'])")
    ended = job.run()
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "0 0 0 3 3 127.0.0.1\n")
    assert job.text("act.rank2.out") == "2 2 0 3 3 127.0.0.1\n"
    assert job.markers == [".done"]


@each_python
def test_every_python(workspace, python):
    job = act(
        workspace, "progress(0.5)\nif RANK == '1': raise ValueError('odd')\ntime.sleep(60)", count=2, name="Resume"
    )
    assert job.run(python=python).returncode == 1
    assert job.marker["message"] == f"rank 1 on {os.uname().nodename}: ValueError: odd"


def test_logs_of_the_others_are_files_of_their_own_and_none_is_empty(workspace):
    job = act(workspace, "print('out', RANK) if RANK != '1' else print('err', file=sys.stderr)")
    for _ in range(2):
        assert job.run().stdout == "out 0\n"
        (job.directory / "act.done").unlink()
    assert sorted(path.name for path in job.directory.glob("*.rank*")) == [
        *("act.rank1.1.err", "act.rank1.err"),
        *("act.rank2.1.out", "act.rank2.out"),
    ]


def test_the_record_is_of_all(workspace):
    job = act(workspace, "import json; import json as __own; sys.modules['mine'] = type('M', (), {'__version__': '3'})")
    assert job.run().returncode == 0
    record = job.record
    assert record["hosts"] == [os.uname().nodename]
    assert record["packages"].get("mine") == "3"
    assert record["used"]["max_rss"] > 1e6
    assert record["used"]["cpu"] > 0


def test_progress_is_that_of_rank_0(workspace):
    job = act(workspace, "progress((1 + int(RANK)) / 10, desc='of ' + RANK)")
    assert job.run().returncode == 0
    shown = job.read("progress.json")
    assert shown["progress"] == [{"value": 0.1, "desc": "of 0"}]
    assert shown["host"] == os.uname().nodename


def test_nothing_is_left_of_how_they_were_started(workspace):
    job = act(workspace, "pass")
    (job.directory / ".processes-00aa.tmp").touch()  # of a start that was killed
    assert job.run().returncode == 0
    assert not list(job.directory.glob("*.tmp")) + list(job.directory.glob(".*.tmp"))


def test_they_reach_each_other(workspace):
    """At MASTER_ADDR and MASTER_PORT, as env:// of PyTorch does."""
    meet = """
place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if RANK == "0":
    server = socket.create_server(place)
    print(sum(server.accept()[0].recv(1)[0] for _ in range(2)))
else:
    while True:
        try:
            socket.create_connection(place).sendall(bytes([int(RANK)]))
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
"""
    ended = act(workspace, meet).run()
    assert (ended.returncode, ended.stdout) == (0, "3\n")


# --- Ends

WAIT = "while True: time.sleep(0.05)"


@pytest.mark.parametrize("rank", [0, 2])
def test_one_that_fails_ends_the_others(workspace, rank):
    job = act(workspace, f"if RANK == '{rank}': raise ValueError('odd')\n{WAIT}")
    ended = job.run()
    assert ended.returncode == 1
    marker = job.marker
    assert (marker["reason"], marker["exit_code"]) == ("exit", 1)
    assert marker["message"] == f"rank {rank} on {os.uname().nodename}: ValueError: odd"
    assert ended.stderr.count("Traceback") == 1  # wherever it comes from
    assert ended.stderr.rstrip().endswith(f"rank {rank} on {os.uname().nodename}: ValueError: odd")


@pytest.mark.parametrize(("what", "code", "words"), [("sys.exit(3)", 3, "status 3"), ("os._exit(5)", 5, "status 5")])
def test_an_exit_status_is_the_jobs(workspace, what, code, words):
    job = act(workspace, f"if RANK == '1': {what}\n{WAIT}")
    assert job.run().returncode == code
    assert words in job.marker["message"]
    assert job.marker["message"].startswith("rank 1 on ")


def test_one_that_is_killed_leaves_no_marker(workspace):
    """As with one process: the scheduler knows why."""
    job = act(workspace, f"if RANK == '1': os.kill(os.getpid(), 9)\n{WAIT}")
    ended = job.run()
    assert (ended.returncode, job.markers) == (137, [])
    assert f"rank 1 on {os.uname().nodename} was killed by signal 9" in ended.stderr


def test_what_cannot_be_loaded(workspace):
    workspace.script(TASKS + "\nif RANK == '1': import nowhere\n")
    job = act(workspace, WAIT)
    ended = job.run()
    assert (ended.returncode, job.marker["reason"]) == (1, "launch")
    assert "No module named 'nowhere'; install it in the environment" in job.marker["message"]
    assert "import nowhere" in ended.stderr


def test_a_stuck_one_is_killed(workspace):
    stuck = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    job = act(workspace, f"if RANK == '1': raise ValueError('odd')\n{stuck}\n{WAIT}")
    assert job.run(XPM_HPC_GRACE="1").returncode == 1
    assert "ValueError: odd" in job.marker["message"]


def test_a_forked_child_reports_nothing(workspace):
    job = act(workspace, "if os.fork() == 0: sys.exit(0)\nos.wait()\nsys.exit(4 if RANK == '1' else 0)")
    assert job.run().returncode == 4


def alive(job: Job) -> list[int]:
    """The pids that the processes of a job have written."""
    found = []
    for path in job.directory.glob("pid-*"):
        with contextlib.suppress(ValueError, ProcessLookupError):
            os.kill(int(path.read_text()), 0)
            found.append(int(path.read_text()))
    return found


HERE = "open('pid-' + RANK, 'w').write(str(os.getpid()))\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_none_outlives_the_jobs_first_process(workspace, wait_until, number):
    job = act(workspace, HERE + WAIT)
    process = job.start()
    wait_until(lambda: len(alive(job)) == 3, LONG)
    process.send_signal(number)
    assert process.wait(LONG) == -number
    wait_until(lambda: not alive(job), LONG)
    assert job.markers == []


# --- Resumable tasks

SAVES = f"""
try:
    {HERE}    {WAIT}
except GracefulTimeout as stop:
    open("saved-" + RANK, "w").write(str(stop))
    raise
"""


def saved(job: Job) -> list[str]:
    return [path.read_text() for path in sorted(job.directory.glob("saved-*"))]


def test_a_warning_reaches_all(workspace, wait_until):
    job = act(workspace, SAVES, name="Resume")
    process = job.start()
    wait_until(lambda: len(alive(job)) == 3, LONG)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(LONG) == 1
    assert saved(job) == ["its time limit is near"] * 3
    assert (job.marker["reason"], job.marker["message"]) == ("timeout", "its time limit is near")


def test_an_end_reaches_all_and_leaves_no_marker(workspace, wait_until):
    job = act(workspace, SAVES, name="Resume")
    process = job.start()
    wait_until(lambda: len(alive(job)) == 3, LONG)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG) == 143
    assert saved(job) == ["the scheduler ends it"] * 3
    assert job.markers == []


def test_those_that_fail_since_another_has_stopped_are_no_failure(workspace):
    """A collective operation breaks where one of its members has left."""
    what = "if RANK == '0': raise GracefulTimeout('enough')\ntime.sleep(0.5)\nraise ConnectionResetError('gone')"
    job = act(workspace, what, name="Resume")
    ended = job.run()
    assert (job.marker["reason"], job.marker["message"]) == ("timeout", "enough")
    assert "rank 2" in ended.stderr and "ConnectionResetError: gone" in ended.stderr


# --- Starting


def test_what_starts_them_is_not_there(workspace):
    job = workspace.job("Act", {"what": "pass"}, processes={"start": "srun", "nodes": 1, "per_node": 2})
    assert job.run(PATH="/nowhere").returncode == 1
    assert (job.marker["reason"], job.marker["message"]) == (
        "launch",
        "srun cannot be started: No such file or directory",
    )


def test_what_starts_them_fails(workspace, tmp_path):
    (tmp_path / "srun").write_text("#!/bin/sh\necho srun: error: no such thing >&2\nexit 3\n")
    (tmp_path / "srun").chmod(0o755)
    job = workspace.job("Act", {"what": "pass"}, processes={"start": "srun", "nodes": 1, "per_node": 2})
    ended = job.run(PATH=f"{tmp_path}:/usr/bin:/bin")
    assert ended.returncode == 1
    assert "srun: error: no such thing" in ended.stderr
    assert job.marker["message"] == "2 of 2 processes did not start: rank 0, 1 (srun ended with 3)"


def test_fewer_nodes_than_asked_for(workspace, tmp_path):
    (tmp_path / "nodes").write_text("o1\no1\n")
    job = workspace.job("Act", {"what": "pass"}, processes={"start": "oarsh", "nodes": 2, "per_node": 1})
    job.run(OAR_NODEFILE=str(tmp_path / "nodes"))
    assert job.marker["message"] == "2 nodes were asked for; the scheduler names o1"
