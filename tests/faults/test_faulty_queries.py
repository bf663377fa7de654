"""What is asked of Slurm while jobs are watched: how often, and what its silence, its noise and its absence mean."""

from __future__ import annotations

import subprocess
import time

import pytest
from desk import wait_for
from faults import COUNTED, WORDS, finish, runs, stopped
from test_refusals import ROOTS, WAITING

RUN = ("xpm-hpc", "run", "--launcher", "mycluster")
KILLED = (
    COUNTED
    + """
import signal

class Killed(Task):
    word: Param[str]

    def execute(self):
        note(self.word)
        while not os.path.exists("../../../open"):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    with experiment(sys.argv[1], "killed"):
        Killed(word="killed").submit()
        Root(word="root").submit()
"""
)


def test_squeue_fails_for_a_while(desk, standins):
    """As with munge down. It is told once, and says nothing about the jobs."""
    desk.write("twenty.py", WAITING)
    with desk.start(*RUN, "twenty.py", "--", "work") as driver:
        try:
            wait_for(lambda: len(runs(desk.there)) == 10, "the roots to run")
            standins.calls()
            standins.set("squeue", "echo 'squeue: error: Munge encode failed: Failed to connect' >&2; exit 1")
            wait_for(lambda: standins.calls()["squeue"], "squeue to fail")
            (desk.there / "open").touch()
            wait_for(lambda: runs(desk.there) == WORDS, "all to run")  # markers suffice
            standins.clear("squeue")
            text = finish(driver)
        finally:
            driver.kill()
    assert driver.returncode == 0, text
    assert text.count("Munge encode failed") <= 1, text


@pytest.mark.parametrize("words", ["Slurm accounting storage is disabled", ""], ids=["disabled", "slurmdbd away"])
def test_no_accounting(desk, standins, words):
    """Never there: that is said once. Away for a while: the job that was killed is known from squeue."""
    desk.write("killed.py", KILLED)
    if words:
        standins.set("sacct", f"echo '{words}' >&2; exit 1")
    with desk.start(*RUN, "killed.py", "--", "work") as driver:
        try:
            wait_for(lambda: len(runs(desk.there)) == 2, "both to run")
            if words:
                (desk.there / "open").touch()
                text = finish(driver)
            else:
                with stopped(desk.rig, "slurmdbd"):
                    (desk.there / "open").touch()
                    text = finish(driver)
        finally:
            driver.kill()
    jobs = desk.jobs()
    assert {word: (job["state"], job["reason"]) for word, job in jobs.items()} == {
        "killed": ("failed", "exit"),
        "root": ("done", None),
    }, text
    assert text.count("no accounting here") == (1 if words else 0), text


def test_an_unknown_state_is_told_once_and_watched_on(desk, standins):
    desk.write("twenty.py", WAITING)
    standins.set("squeue", '$real "$@" | sed "s/|RUNNING|/|LEVITATING|/"; exit 0')
    with desk.start(*RUN, "twenty.py", "--", "work") as driver:
        try:
            wait_for(lambda: len(runs(desk.there)) == 10, "the roots to run")
            standins.calls()
            wait_for(lambda: standins.calls()["squeue"], "another look")
            (desk.there / "open").touch()
            text = finish(driver)
        finally:
            driver.kill()
    assert driver.returncode == 0, text
    assert text.count("LEVITATING") == 1, text


def test_a_used_job_id_is_not_taken_for_ours(desk, standins):
    """After Slurm has lost its state it gives ids again: what it says of another's job of the same id is not ours."""
    desk.write("twenty.py", WAITING)
    foreign = "s/^\\([0-9_]*\\)|[A-Z]*|[^|]*|[^|]*|root-[0-9a-f]*$/\\1|FAILED|NonZeroExitCode|c1|foreign/"
    with desk.start(*RUN, "twenty.py", "--", "work") as driver:
        try:
            wait_for(lambda: len(runs(desk.there)) == 10, "the roots to run")
            standins.set("squeue", f"$real \"$@\" | sed '{foreign}'; exit 0")
            standins.set("sacct", "exit 0")
            standins.calls()
            for _ in range(2):
                wait_for(lambda: standins.calls()["squeue"], "another look")
            (desk.there / "open").touch()
            text = finish(driver)
        finally:
            driver.kill()
    assert driver.returncode == 0, text
    assert runs(desk.there) == WORDS


def test_two_drivers_share_what_squeue_says(desk, standins):
    """In the same folder and in another: one workdir, one question every two seconds at most."""
    desk.write("twenty.py", WAITING)
    drivers: list[subprocess.Popen[str]] = []
    try:
        drivers += [desk.start(*RUN, "twenty.py", "--", f"work-{n}") for n in range(3)]
        wait_for(lambda: len(runs(desk.there)) == 10, "the roots to run")
        standins.calls()
        began = time.monotonic()
        wait_for(lambda: time.monotonic() - began > 8, "some time")
        asked, seconds = standins.calls()["squeue"], time.monotonic() - began
        (desk.there / "open").touch()
        texts = [finish(driver) for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
    assert [driver.returncode for driver in drivers] == [0, 0, 0], texts
    assert asked <= 2 + seconds / 2


def test_calls_for_a_thousand_tasks(desk, standins, capsys):
    """One submission for all; the questions go by time, not by tasks."""
    desk.write("roots.py", ROOTS)
    began = time.monotonic()
    ended = desk.run(*RUN, "roots.py", "--", "work", "1000", timeout=400).ok()
    seconds = time.monotonic() - began
    assert "experiment roots: 1000 done\n" in ended.out
    assert len(set(runs(desk.there))) == len(runs(desk.there)) == 1000
    calls = standins.calls()
    with capsys.disabled():
        print(f"\n1000 tasks in {seconds:.0f} s: calls of Slurm's commands: {dict(calls)}")
    assert calls["sbatch"] == 1
    assert calls["squeue"] <= 2 + seconds / 2
    assert calls["sacct"] <= (2 + seconds / 2) * 2  # lists of up to 500 ids
