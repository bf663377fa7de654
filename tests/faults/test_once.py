"""Each task is submitted once and runs once, wherever a process ends and whatever sbatch answers."""

from __future__ import annotations

import fcntl
from collections import Counter
from pathlib import Path

import pytest
from desk import Desk, Ended, wait_for
from faults import TWENTY, WORDS, agents, connections, finish, kill, runs, submitted

RUN = ("xpm-hpc", "run", "--launcher", "mycluster", "twenty.py", "--", "work")


@pytest.fixture
def twenty(desk: Desk) -> Desk:
    desk.write("twenty.py", TWENTY)
    return desk


def assert_once(desk: Desk, ended: Ended):
    """The run ended well, and Slurm has had no more jobs than there are tasks."""
    assert "experiment twenty: 20 done\n" in ended.ok().out
    assert runs(desk.there) == WORDS
    wait_for(lambda: sum(submitted(desk).values()) >= 20, "sacct to know all jobs")
    assert sum(submitted(desk).values()) == 20


def somebody_waits(desk: Desk) -> bool:
    """Whether a process waits for the submission lock."""
    inode = (desk.there / ".xpm/locks/submit").stat().st_ino
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(row[1] == "->" and row[-3].endswith(f":{inode}") for row in rows)


def test_a_driver_killed_before_the_lock(twenty):
    twenty.write_there(".xpm/locks/submit", "", 0o666)
    with (twenty.there / ".xpm/locks/submit").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with twenty.start(*RUN) as driver:
            try:
                wait_for(lambda: agents(twenty.rig), "the agent")
            finally:
                driver.kill()
        assert not submitted(twenty)
    assert_once(twenty, twenty.run(*RUN))


@pytest.mark.parametrize("victim", ["driver", "connection", "agent"])
def test_killed_after_the_receipt(twenty, standins, victim):
    """While sbatch is still under way another run begins: it waits for what the first has left behind."""
    standins.set("sbatch", "if once; then until [ -e $here/go ]; do sleep 0.1; done; fi")
    with twenty.start(*RUN) as first:
        try:
            wait_for(standins.fired, "sbatch")
            standins.calls()
            {
                "driver": lambda: first.kill(),
                "connection": lambda: kill(connections(twenty.rig)),
                "agent": lambda: kill(agents(twenty.rig)),
            }[victim]()
            with twenty.start(*RUN) as second:
                try:
                    wait_for(lambda: somebody_waits(twenty) or standins.calls()["sbatch"], "the second run")
                    (twenty.there / "go").touch()
                    text = finish(second)
                finally:
                    second.kill()
            assert second.returncode == 0, text
        finally:
            first.kill()
    assert_once(twenty, twenty.run(*RUN))


REPLIES = {
    "accepted": '$real "$@" >/dev/null',
    "accepted late": '(sleep 4; $real "$@"; touch $here/late) >/dev/null 2>&1 &',
    "not accepted": "",
}


@pytest.mark.parametrize("truth", REPLIES)
def test_socket_timed_out(twenty, standins, truth):
    """sbatch says the same, whatever has become of the job."""
    words = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    standins.set("sbatch", f'if once; then\n{REPLIES[truth]}\necho "{words}" >&2\nexit 1\nfi')
    ended = twenty.run(*RUN)
    if truth == "accepted late":
        wait_for((twenty.there / "late").exists, "the late acceptance")
    assert_once(twenty, ended)


def test_two_runs_of_a_task_in_one_directory(twenty):
    """Somebody submits a job's script by hand, while the task runs and after it: the task is not touched."""
    twenty.write("twenty.py", TWENTY.replace("        note(self.word)", "        note(self.word); time.sleep(3)", 1))
    with twenty.start(*RUN) as driver:
        try:
            wait_for(lambda: len(runs(twenty.there)) == 10, "the roots to run")
            folder = next(twenty.there.glob("jobs/twenty.root/*"))
            inside = f"/home/alice/{folder.relative_to(twenty.rig.home('login'))}"
            for _ in range(2):
                ended = twenty.rig.exec("login", ["sbatch", "-W", "--chdir", inside, f"{inside}/job.sh"])
                assert runs(twenty.there).count(runs(twenty.there)[0]) == 1, ended
            assert driver.wait(timeout=120) == 0, driver.communicate()
        finally:
            driver.kill()
    assert Counter(runs(twenty.there)) == Counter(WORDS)
