"""Every way a job can end, and what goes on after it, on a real Slurm.

What takes minutes, time limits above all, begins with the first test and is looked at in the last one.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, wait_for
from faults import COUNTED, finish, kill, on_slurm, processes, runs, slurm_is_well
from rig import Rig
from sites import SITES

RUN = ("xpm-hpc", "run", "--launcher", "mycluster")
TIMED = (
    COUNTED
    + """
from experimaestro_hpc import GracefulTimeout, ResumableTask

def starts():
    note_here = open("starts", "a")
    print("start", file=note_here, flush=True)
    return len(open("starts").readlines())

def sleep_until(name):
    while not os.path.exists(name):
        time.sleep(0.1)

class Sleeper(Task):
    word: Param[str]
    times: Param[int] = 1000

    def execute(self):
        count = starts()
        print("this is start", count, flush=True)
        if count <= self.times:
            time.sleep(600)

class Resumer(ResumableTask):
    word: Param[str]
    times: Param[int] = 1

    def execute(self):
        count = starts()
        print("this is start", count, flush=True)
        try:
            if count <= self.times:
                time.sleep(600)
        except GracefulTimeout:
            print("saved", flush=True)
            raise

class Child(Task):
    word: Param[str]
    parent: Param[Task]

    def execute(self):
        note(self.word)

if __name__ == "__main__":
    with experiment(sys.argv[1], "timed"):
        minute = {"resources": "duration=1m"}
        Child(word="child", parent=Sleeper(word="timeout").submit(**minute)).submit()
        Sleeper(word="longer", times=1).submit(retry={"timeout": {"duration": "x2"}}, **minute)
        Child(word="after resumed", parent=Resumer(word="resumed").submit(**minute)).submit()
        Resumer(word="gives up", times=9).submit(retry={"timeout": 0}, **minute)
        Sleeper(word="requeued", times=1).submit()
        Sleeper(word="preempted", times=1).submit(launcher="scav")
        Resumer(word="preempted resumed", times=1).submit(launcher="scav")
"""
)


@pytest.fixture(scope="module")
def timed(rig: Rig) -> Iterator[tuple[Desk, subprocess.Popen[str]]]:
    """An experiment on node c1 that takes two minutes, well under way; what it says."""
    slurm_is_well(rig)
    desk = Desk(rig, "timed", SITES["slurm"])
    desk.write("timed.py", TIMED)
    desk.launcher(more='[defaults]\nnodelist = "c1"\n')
    desk.launcher("scav", host="mycluster", more='[defaults]\nnodelist = "c1"\npartition = "scav"\n')
    with desk.start(*RUN, "timed.py", "--", "work") as driver:
        try:
            wait_for(lambda: len(list(desk.there.glob("jobs/*/*/starts"))) == 7, "all to run")
            for path in ("mycluster", "scav"):
                desk.launcher(path, host="mycluster")  # for the other tests
            native = {word: job["native_id"] for word, job in desk.jobs("--offline").items()}
            on_slurm(rig, "scontrol", "requeue", native["requeued"])
            # twenty processors of each node are taken: whoever is in scav must go
            desk.on_login("sbatch", "-w", "c1", "-c", "12", "-t", "1", "--wrap", "sleep 5")
            yield desk, driver
        finally:
            driver.kill()
            desk.clear()


FATES = (
    COUNTED
    + """
import shutil, signal, subprocess

class Fate(Task):
    word: Param[str]

    def execute(self):
        print("this is", self.word, flush=True)
        getattr(self, self.word)()

    def good(self):
        pass

    def error(self):
        raise ValueError("no good")

    def status(self):
        sys.exit(3)

    def kill9(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def children(self):
        child = subprocess.Popen(["sleep", "1234"])
        other = subprocess.Popen(["sleep", "1235"], start_new_session=True)

    def removed(self):
        shutil.rmtree(os.getcwd())

    def wait(self):
        note("waits")
        time.sleep(600)

    cancelled = killed = wait

class Child(Task):
    word: Param[str]
    parent: Param[Fate]

    def execute(self):
        note(self.word)

if __name__ == "__main__":
    with experiment(sys.argv[1], "fates"):
        fates = [Fate(word=word).submit() for word in sys.argv[2:]]
        for fate in fates:
            if fate.word != "removed":
                Child(word=f"child of {fate.word}", parent=fate).submit()
"""
)
ENDS = {
    "good": ("done", None),
    "error": ("failed", "exit"),
    "status": ("failed", "exit"),
    "kill9": ("failed", "exit"),
    "children": ("done", None),
    "cancelled": ("failed", "cancelled"),
    "killed": ("failed", "cancelled"),
}


def test_each_task_ends_as_it_should_and_so_do_the_children(desk, timed):
    """An array and the array that follows it: an element's fate is its own child's alone."""
    desk.write("fates.py", FATES)
    desk.launcher(more='[defaults]\nnodelist = "c2"\n')
    with desk.start(*RUN, "fates.py", "--", "work", *ENDS, "removed") as driver:
        try:
            wait_for(lambda: runs(desk.there).count("waits") == 2, "two to run")
            jobs = desk.jobs()
            desk.on_login("scancel", jobs["cancelled"]["native_id"])
            ended = desk.run("xpm-hpc", "jobs", "kill", "--workdir", "work", jobs["killed"]["id"]).ok()
            assert ended.out.count(" is failed (") == 2, ended  # and its child
            text = finish(driver)
        finally:
            driver.kill()
    assert driver.returncode == 1, text
    jobs = desk.jobs()
    found = {word: (job["state"], job["reason"]) for word, job in jobs.items() if word in ENDS}
    assert found == ENDS, text
    assert jobs["removed"]["state"] == "failed"
    assert jobs["removed"]["reason"] in ("lost", "exit"), text  # what it wrote is lost, and so it cannot end well
    children = {word: (job["state"], job["reason"]) for word, job in jobs.items() if word[9:] in ENDS}
    assert children.pop("child of killed") in (("failed", "cancelled"), ("failed", "dependency"))  # both are true
    failed = ("failed", "dependency")
    assert children == {
        f"child of {word}": end if end == ("done", None) else failed for word, end in ENDS.items() if word != "killed"
    }, text
    for word in ("error", "kill9", "cancelled"):
        assert jobs[word]["id"] in jobs[f"child of {word}"]["message"]
    assert jobs["status"]["exit_code"] == 3
    assert jobs["kill9"]["exit_code"] == 128 + 9
    assert "no good" in jobs["error"]["message"]
    for left in ("sleep 1234", "sleep 1235"):  # without control groups Slurm does not see them; nobody waits for them
        kill(processes(desk.rig, "c2", left))


def test_a_whole_job_cancelled_from_outside_and_tried_again(desk, timed):
    """Elements that wait are forgotten by Slurm: they must not stay queued for ever."""
    desk.write("fates.py", FATES)
    desk.launcher(more="[defaults]\nhold = true\n")
    desk.run(*RUN, "--detach", "fates.py", "--", "work", "good").ok()
    jobs = desk.jobs()
    desk.on_login("scancel", jobs["good"]["native_id"])
    wait_for(lambda: desk.jobs()["child of good"]["reason"] == "dependency", "the child to be given up")
    wait_for(lambda: desk.jobs()["good"]["reason"] == "cancelled", "the reason")
    ended = desk.run("xpm-hpc", "jobs", "retry", "--workdir", "work", jobs["good"]["id"]).ok()
    assert ended.out.count("is submitted again") == 2, ended
    again = desk.jobs()
    assert {again[word]["state"] for word in ("good", "child of good")} <= {"held", "waiting", "queued"}
    for job in again.values():
        on_slurm(desk.rig, "scontrol", "release", job["native_id"])
    wait_for(lambda: {job["state"] for job in desk.jobs().values()} == {"done"}, "both to be done")


NODE = (
    COUNTED
    + """
class Where(Task):
    word: Param[str]

    def execute(self):
        note(self.word)
        print("on", os.uname().nodename, flush=True)
        if not os.path.exists("../../../open"):
            time.sleep(600)

if __name__ == "__main__":
    with experiment(sys.argv[1], "node"):
        Where(word="fails").submit(launcher="once")
        Where(word="again").submit(launcher="once", retry={"node_fail": 2})
        Where(word="requeued").submit()
"""
)


def test_a_node_that_dies(desk, timed):
    """Its slurmd is killed with all that runs there. Slurm starts again what it may; the others we do, elsewhere."""
    desk.write("node.py", NODE)
    desk.launcher(more='[defaults]\nexclude = "c1"\n')
    desk.launcher("once", host="mycluster", more="[defaults]\nno-requeue = true\n")
    rig = desk.rig
    on_slurm(rig, "scontrol", "update", "nodename=c1", "state=drain", "reason=test")
    with desk.start(*RUN, "node.py", "--", "work") as driver:
        try:
            wait_for(lambda: len(runs(desk.there)) == 3, "all to run")
            on_slurm(rig, "scontrol", "update", "nodename=c1", "state=resume")
            rig.stop("slurmd-c2", signal.SIGKILL)
            kill(processes(rig, "c2", "slurmstepd"))
            kill(processes(rig, "c2", "run_task.py"))
            (desk.there / "open").touch()
            on_slurm(rig, "scontrol", "update", "nodename=c2", "state=down", "reason=test")
            wait_for(lambda: len(runs(desk.there)) == 4, "the new attempt")
            rig.start("slurmd-c2")
            text = finish(driver)
        finally:
            driver.kill()
    jobs = desk.jobs()
    found = {word: (job["state"], job["reason"]) for word, job in jobs.items()}
    assert found == {"fails": ("failed", "node_fail"), "again": ("done", None), "requeued": ("done", None)}, text
    assert jobs["again"]["host"] == "c1"
    assert [one["reason"] for one in record(desk, jobs["again"])["attempts"]] == ["node_fail"]
    assert sorted(runs(desk.there)) == ["again", "again", "fails", "requeued", "requeued"]


def test_time_limits_requeues_and_preemption(timed):
    desk, driver = timed
    text = finish(driver, 240)
    assert driver.returncode == 1, text
    jobs = desk.jobs()
    found = {word: (job["state"], job["reason"]) for word, job in jobs.items()}
    assert found == {
        "timeout": ("failed", "timeout"),
        "child": ("failed", "dependency"),
        "longer": ("done", None),
        "resumed": ("done", None),
        "after resumed": ("done", None),
        "gives up": ("failed", "timeout"),
        "requeued": ("done", None),
        "preempted": ("done", None),
        "preempted resumed": ("done", None),
    }, text
    for word in ("longer", "resumed", "requeued", "preempted", "preempted resumed"):
        folder = there(desk, jobs[word])
        assert (folder / "starts").read_text() == "start\nstart\n", word
        logs = sorted(path.read_text().splitlines()[0] for path in folder.glob("*.out"))
        assert logs == ["this is start 1", "this is start 2"], word
        assert [one["attempt"] for one in record(desk, jobs[word])["attempts"]] == [1], word


def record(desk: Desk, job: dict[str, Any]) -> dict[str, Any]:
    """A job's `job.json` on the laptop."""
    found: dict[str, Any] = json.loads((desk.outside(job["path"]) / "job.json").read_text())
    return found


def there(desk: Desk, job: dict[str, Any]) -> Path:
    """A job's directory on the cluster."""
    return desk.there / "jobs" / job["id"]
