"""Resumable tasks that are told to stop, and go on in a new start: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from job_directory import LONG, Job, Workspace

TASKS = """
import os, sys, time
from experimaestro_hpc import Param, ResumableTask, Task
from experimaestro_hpc.config.objects import GracefulTimeout

def act(self):
    exec(self.what, {"self": self, **globals()})

class Resume(ResumableTask):
    what: Param[str]
    execute = act

class Plain(Task):
    what: Param[str]
    execute = act

def wait():
    open("ready", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
"""
SAVES = """
try:
    wait()
except GracefulTimeout as stop:
    open("saved", "w").write(str(stop))
    raise
"""
#: notes how it was called, and ends the job as Slurm does
SCONTROL = """#!/bin/sh
echo "$@" >>'{folder}/asked'
[ {code} = 0 ] && kill -TERM "$PPID"
exit {code}
"""
WaitUntil = Callable[..., None]


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path / "work space")
    made.script(TASKS)
    return made


def started(job: Job, wait_until: WaitUntil, **env: str) -> subprocess.Popen[bytes]:
    """The job's process, when its task runs."""
    process = job.start(**env)
    wait_until(lambda: (job.directory / "ready").exists() or process.poll() is not None, LONG)
    assert process.poll() is None, "it ended before its task ran"
    return process


def scontrol(tmp_path: Path, code: int = 0) -> dict[str, str]:
    """An environment with a stand-in for scontrol, of a job that Slurm runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(SCONTROL.format(folder=folder, code=code))
    (folder / "scontrol").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}


def asked(tmp_path: Path) -> list[str]:
    path = tmp_path / "bin" / "asked"
    return path.read_text().splitlines() if path.exists() else []


RETRY = {"timeout": {"times": 3}}


# --- Told that the time limit is near


def test_a_warning_reaches_the_task_which_saves_its_state(workspace, wait_until):
    """Nobody can start it again here: it has failed, for its time limit, and whoever watches tries it again."""
    job = workspace.job("Resume", {"what": SAVES}, retry=RETRY)
    process = started(job, wait_until, PATH="/nowhere")
    process.send_signal(signal.SIGUSR2)
    assert process.wait(LONG) == 1
    assert job.text("saved") == "its time limit is near"
    marker = job.marker
    assert (marker["state"], marker["reason"], marker["exit_code"]) == ("failed", "timeout", 1)
    assert marker["message"] == "its time limit is near"
    assert job.record["reason"] == "timeout"


def test_a_task_that_stops_by_itself_has_no_traceback(workspace):
    job = workspace.job("Resume", {"what": "raise GracefulTimeout('enough for today')"})
    ended = job.run()
    assert (ended.returncode, job.marker["reason"]) == (1, "timeout")
    assert "enough for today" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_one_warning_is_enough(workspace, wait_until):
    """A second one does not interrupt the task while it saves its state."""
    slow = SAVES.replace("    raise", "    open('saving', 'w').close()\n    wait()\n    raise")
    job = workspace.job("Resume", {"what": slow})
    process = started(job, wait_until)
    process.send_signal(signal.SIGUSR2)
    wait_until(lambda: (job.directory / "saving").exists())
    process.send_signal(signal.SIGUSR2)
    (job.directory / "go").touch()
    assert process.wait(LONG) == 1
    assert job.marker["message"] == "its time limit is near"


def test_a_task_that_ends_well_after_all(workspace, wait_until):
    job = workspace.job("Resume", {"what": SAVES.replace("    raise", "    pass")})
    process = started(job, wait_until)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(LONG) == 0
    assert job.markers == [".done"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_after_the_end_of_the_task_does_not_cost_its_marker(workspace, number):
    """It comes while the last of its output is written."""
    what = (
        "class Out:\n"
        "    def write(self, text): pass\n"
        f"    def flush(self): os.kill(os.getpid(), {int(number)})\n"
        "sys.stdout = Out()\n"
    )
    job = workspace.job("Resume", {"what": what})
    ended = job.run()
    assert (ended.returncode, job.markers) == (0, [".done"])


# --- The scheduler starts it again


def test_slurm_is_asked_to_start_the_job_again(workspace, tmp_path, wait_until):
    job = workspace.job("Resume", {"what": SAVES}, retry=RETRY)
    process = started(job, wait_until, **scontrol(tmp_path))
    process.send_signal(signal.SIGUSR2)
    assert process.wait(LONG) == -signal.SIGTERM, "ended by the scheduler, while it waited for that"
    assert asked(tmp_path) == ["requeue 17"]
    assert (job.text("saved"), job.markers) == ("its time limit is near", [])


@pytest.mark.parametrize(
    ("retry", "restarts", "attempts", "again"),
    [
        ({"timeout": {"times": 3}}, 0, [], True),
        ({"timeout": {"times": 3}}, 2, [], True),
        ({"timeout": {"times": 3}}, 3, [], False),
        ({"timeout": {"times": None}}, 999, [], True),
        ({"timeout": {"times": 0}}, 0, [], False),
        ({"exit": {"times": 3}}, 0, [], False),
        ({}, 0, [], False),
        ({"timeout": {"times": 3}}, 1, ["timeout", "exit", "timeout"], False),
        ({"timeout": {"times": 3}}, 0, ["timeout", "exit", "timeout"], True),
    ],
)
def test_only_as_often_as_the_policy_says(workspace, tmp_path, retry, restarts, attempts, again):
    job = workspace.job(
        "Resume", {"what": "raise GracefulTimeout('x')"}, retry=retry, attempts=[{"reason": one} for one in attempts]
    )
    ended = job.run(**scontrol(tmp_path), SLURM_RESTART_COUNT=str(restarts))
    assert asked(tmp_path) == (["requeue 17"] if again else [])
    assert job.markers == ([] if again else [".failed"])
    assert ended.returncode == (-signal.SIGTERM if again else 1)


@pytest.mark.parametrize(("earlier", "again"), [(4, True), (3, False)])
def test_what_failed_before_the_script_was_run_again_does_not_count(workspace, tmp_path, earlier, again):
    attempts = [{"reason": "timeout"}] * 4
    what = {"what": "raise GracefulTimeout('x')"}
    job = workspace.job("Resume", what, retry={"timeout": {"times": 1}}, attempts=attempts, earlier=earlier)
    job.run(**scontrol(tmp_path))
    assert job.markers == ([] if again else [".failed"])


def test_when_slurm_does_not_want_to(workspace, tmp_path):
    job = workspace.job("Resume", {"what": "raise GracefulTimeout('x')"}, retry=RETRY)
    ended = job.run(**scontrol(tmp_path, code=1))
    assert (ended.returncode, asked(tmp_path)) == (1, ["requeue 17"])
    assert job.marker["reason"] == "timeout"


def test_without_the_command(workspace):
    job = workspace.job("Resume", {"what": "raise GracefulTimeout('x')"}, retry=RETRY)
    ended = job.run(PATH="/nowhere", SLURM_JOB_ID="17")
    assert (ended.returncode, job.marker["reason"]) == (1, "timeout")
    assert "cannot be started again" in ended.stderr


# --- OAR starts it again under a new id, if it ends with 99


def on_oar(*, run_for: float = 100.0, walltime: float = 1000.0, native: str = "17") -> dict[str, str]:
    """The environment of a job that OAR has run for some seconds."""
    return {
        "OAR_JOB_ID": native,
        "XPM_HPC_IDEMPOTENT": "1",
        "OAR_JOB_WALLTIME_SECONDS": str(walltime),
        "XPM_HPC_END_TIME": str(time.time() + walltime - run_for),
    }


STOPS = {"what": "raise GracefulTimeout('x')"}


def test_oar_is_asked_to_start_the_job_again(workspace, wait_until):
    job = workspace.job("Resume", {"what": SAVES}, retry=RETRY)
    process = started(job, wait_until, **on_oar())
    process.send_signal(signal.SIGUSR2)
    assert process.wait(LONG) == 99
    assert (job.text("saved"), job.markers) == ("its time limit is near", [])


def test_oar_starts_no_job_again_before_a_minute_has_passed(workspace):
    job = workspace.job("Resume", STOPS, retry=RETRY)
    before = time.monotonic()
    assert job.run(**on_oar(run_for=61.5)).returncode == 99
    assert time.monotonic() - before > 1.0


@pytest.mark.parametrize(
    ("environ", "policy"),
    [
        (on_oar(run_for=30, walltime=62), RETRY),  # its time ends before the minute does
        ({**on_oar(), "XPM_HPC_IDEMPOTENT": ""}, RETRY),
        ({"OAR_JOB_ID": "17", "XPM_HPC_IDEMPOTENT": "1"}, RETRY),
        (on_oar(), {"timeout": {"times": 0}}),
    ],
)
def test_when_oar_would_not(workspace, environ, policy):
    job = workspace.job("Resume", STOPS, retry=policy)
    assert job.run(**environ).returncode == 1
    assert job.marker["reason"] == "timeout"


def test_oars_new_jobs_are_counted(workspace):
    """OAR keeps no count; each start knows the one before."""
    job = workspace.job("Resume", STOPS, retry={"timeout": {"times": 2}}, attempt=4)
    assert [job.run(**on_oar(native=native)).returncode for native in ("17", "23", "31")] == [99, 99, 1]
    assert job.marker["attempt"] == 6
    assert [(one["attempt"], one["native_id"]) for one in job.record["attempts"]] == [(4, "17"), (5, "23")]


def test_the_same_job_of_oars_is_no_restart(workspace):
    job = workspace.job("Resume", {"what": "pass"})
    job.write("progress.json", {"attempt": 1, "native_id": "17"})
    assert job.run(**on_oar()).returncode == 0
    assert (job.marker["attempt"], "attempts" in job.record) == (1, False)


def test_a_task_that_ends_with_99_itself_is_not_started_again_by_oar(workspace):
    job = workspace.job("Plain", {"what": "sys.exit(99)"})
    assert job.run(**on_oar()).returncode == 1
    assert (job.marker["exit_code"], job.marker["reason"]) == (99, "exit")
    other = workspace.job("Plain", {"what": "sys.exit(99)"}, identifier="0" * 8)
    assert other.run().returncode == 99


# --- Ended by the scheduler: preempted, or cancelled


def test_who_is_ended_leaves_no_marker(workspace, tmp_path, wait_until):
    """The scheduler knows whether it is preempted, cancelled or moved, and what becomes of it."""
    job = workspace.job("Resume", {"what": SAVES}, retry=RETRY)
    process = started(job, wait_until, **scontrol(tmp_path))
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG) == 143
    assert (job.text("saved"), job.markers, asked(tmp_path)) == ("the scheduler ends it", [], [])
    assert "state" not in job.record


def test_ended_while_it_saves_its_state_after_a_warning(workspace, wait_until):
    what = "try:\n    wait()\nexcept GracefulTimeout:\n    os.rename('ready', 'saving')\n    wait()\n"
    job = workspace.job("Resume", {"what": what}, retry=RETRY)
    process = started(job, wait_until)
    process.send_signal(signal.SIGUSR2)
    wait_until(lambda: (job.directory / "saving").exists() and (job.directory / "ready").exists())
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG) == 143
    assert job.markers == []


# --- Other tasks


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("Plain", ["SIG_DFL", "SIG_DFL"]),
        ("Resume", ["_warned", "_ended"]),
    ],
)
def test_signals_of_other_tasks_are_their_own(workspace, task, expected):
    what = (
        "import signal\n"
        "for one in (signal.SIGUSR2, signal.SIGTERM):\n"
        "    handler = signal.getsignal(one)\n"
        "    print(getattr(handler, 'name', None) or handler.__name__)\n"
        "print('experimaestro_hpc.runtime.resume' in sys.modules)\n"
    )
    lines = workspace.job(task, {"what": what}).run().stdout.split()
    assert lines == [*expected, str(task == "Resume")]


def test_a_task_that_cannot_resume_is_ended_by_signals_as_ever(workspace, tmp_path, wait_until):
    for number in (signal.SIGTERM, signal.SIGUSR2):
        job = workspace.job("Plain", {"what": SAVES}, identifier=str(int(number)), retry=RETRY)
        process = started(job, wait_until)
        process.send_signal(number)
        assert process.wait(LONG) == -number
        assert (job.markers, (job.directory / "saved").exists()) == ([], False)


# --- Started again


def test_a_restart_is_noted_when_it_begins(workspace, wait_until):
    """What is known of the start before is kept, whatever becomes of this one."""
    job = workspace.job("Resume", {"what": SAVES}, attempt=2, attempts=[{"attempt": 1, "reason": "exit"}])
    before = {"attempt": 2, "started": 5.0, "updated": 9.0, "host": "node7", "native_id": "17", "progress": [1]}
    job.write("progress.json", before)
    process = started(job, wait_until, SLURM_JOB_ID="17", SLURM_RESTART_COUNT="1")
    record, progress = job.record, job.read("progress.json")
    process.kill()
    process.wait(LONG)
    first, second = record["attempts"]
    assert first == {"attempt": 1, "reason": "exit"}
    assert second == {
        "attempt": 2,
        "started": 5.0,
        "ended": 9.0,
        "host": "node7",
        "native_id": "17",
        "requeued": True,
    }
    assert (progress["attempt"], progress["started"] > 5.0) == (3, True)


def test_restarts_in_the_end(workspace):
    job = workspace.job("Resume", {"what": "pass"}, attempt=1)
    job.write("progress.json", {"attempt": 2, "started": 5.0, "host": "node7"})
    assert job.run(SLURM_JOB_ID="17", SLURM_RESTART_COUNT="2").returncode == 0
    assert (job.marker["attempt"], job.record["attempt"]) == (3, 3)
    assert [one["attempt"] for one in job.record["attempts"]] == [2]


@pytest.mark.parametrize("progress", [None, "", "{", "[]"])
def test_a_restart_without_a_trace_of_the_start_before(workspace, progress):
    job = workspace.job("Resume", {"what": "pass"})
    if progress is not None:
        (job.directory / "progress.json").write_text(progress)
    assert job.run(SLURM_JOB_ID="17", SLURM_RESTART_COUNT="1").returncode == 0
    assert "attempts" not in job.record


@pytest.mark.parametrize("count", ["0", ""])
def test_a_first_start_notes_no_restart(workspace, count):
    job = workspace.job("Resume", {"what": "pass"})
    job.write("progress.json", {"attempt": 1, "started": 5.0})
    assert job.run(SLURM_JOB_ID="17", SLURM_RESTART_COUNT=count).returncode == 0
    assert "attempts" not in job.record
