"""What goes on after a job's end on OAR: in a new job of OAR's own, with nobody watching, or in an attempt of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from desk import Desk, wait_for
from sites import only
from test_commands import states
from test_real_oar import take_all

pytestmark = [
    pytest.mark.slow,
    only("oar", "Slurm puts jobs back into its queue under their own id: faults/test_ends.py"),
]

TIMED = """
import os, sys, time
from experimaestro_hpc import GracefulTimeout, Param, ResumableTask, Task, experiment

def starts():
    with open("starts", "a") as file:
        print(os.environ["OAR_JOB_ID"], os.uname().nodename, file=file)
    with open("starts") as file:
        return len(file.readlines())

class Resumer(ResumableTask):
    word: Param[str]
    times: Param[int] = 1

    def execute(self):
        count = starts()
        print("start", count, "with", round(self.remaining_time()), flush=True)
        try:
            if count <= self.times:
                time.sleep(600)
        except GracefulTimeout:
            print("saved", flush=True)
            raise

class Child(Task):
    word: Param[str]
    parent: Param[Resumer]

    def execute(self):
        print("after", (self.parent.__xpm_stdout__).read_text())

class Sleeper(Task):
    word: Param[str]

    def execute(self):
        if starts() == 1:
            time.sleep(600)

class Fails(Task):
    word: Param[str]

    def execute(self):
        if starts() == 1:
            raise RuntimeError("no luck today")

class Asks(ResumableTask):
    word: Param[str]

    def execute(self):
        starts()
        time.sleep(64)
        sys.exit(99)

if __name__ == "__main__":
    with experiment(sys.argv[1], "timed"):
        if sys.argv[2] == "alone":
            one, two = (Resumer(word=word).submit(resources="duration=90s") for word in ("one", "two"))
            Child(word="child", parent=one).submit()
            Resumer(word="gives up", times=9).submit(resources="duration=84s", retry={"timeout": 0})
            Resumer(word="short").submit(resources="duration=40s")
            Asks(word="99").submit(resources="duration=5m")
        if sys.argv[2] == "besteffort":
            Child(word="child", parent=Resumer(word="one").submit(resources="duration=10m")).submit()
        if sys.argv[2] == "watched":
            Sleeper(word="longer").submit(resources="duration=20s", retry={"timeout": {"duration": "x6"}})
            memory = {"exit": {"mem": "x2", "duration": "5m"}}
            Fails(word="memory").submit(resources="mem=4G & cores=2", retry=memory)
"""


def oar_jobs(desk: Desk, label: str) -> list[dict[str, Any]]:
    """What OAR says of each job that a task has had, as far as it started."""
    job = desk.jobs()[label]
    starts = (desk.there / "jobs" / job["id"] / "starts").read_text().splitlines()
    ids = [line.split()[0] for line in starts]
    shown = json.loads(desk.on_login("oarstat", "-J", "-f", *(word for one in ids for word in ("-j", one))))
    return [shown[one] for one in ids]


def start(desk: Desk, what: str, defaults: str = "") -> None:
    desk.write("timed.py", TIMED)
    desk.launcher(more=f"[defaults]\n{defaults}\n")
    desk.run("xpm-hpc", "run", "--detach", "--launcher", desk.cluster, "timed.py", "--", "work", what).ok()


def test_a_resumable_task_goes_on_in_a_new_job_of_oars_own(desk):
    """Nobody watches until all is over; its child waits for the new job.

    One that ran for less than a minute OAR would not submit again: whoever looks makes a new attempt.
    """
    start(desk, "alone")
    wanted = ["asks.failed", "child.done", *["resumer.done"] * 2, *["resumer.failed"] * 2]
    wait_for(lambda: desk.markers() == wanted, "the ends", 240)
    wait_for(lambda: states(desk)["short"] == ("done", None), "the new attempt")
    # those that went on have two jobs each
    desk.await_native(*["COMPLETED"] * 4, *["FAILED"] * 5)
    jobs = desk.jobs()
    assert states(desk) == {
        "one": ("done", None),
        "two": ("done", None),
        "child": ("done", None),
        "gives up": ("failed", "timeout"),
        "short": ("done", None),
        "99": ("failed", "exit"),
    }
    for word in ("one", "two"):
        first, second = oar_jobs(desk, word)
        assert first["exit_code"] >> 8 == 99
        assert second["resubmit_job_id"] == first["Job_Id"]
        assert jobs[word]["native_id"] == str(second["Job_Id"])
        assert jobs[word]["attempt"] == 2
    logs = [(desk.there / "jobs" / jobs["one"]["id"] / name).read_text() for name in ("resumer.1.out", "resumer.out")]
    assert "saved" in logs[0]
    left = [int(log.split("with ")[1].split()[0]) for log in logs]
    assert all(70 < one <= 90 for one in left)
    assert [len(oar_jobs(desk, word)) for word in ("gives up", "short", "99")] == [1, 2, 1]
    assert jobs["99"]["exit_code"] == 99


def test_a_resumable_task_that_makes_room(desk):
    """It is warned, saves its state, and goes on when there is room again."""
    start(desk, "besteffort", 'type = "besteffort"')
    wait_for(lambda: states(desk)["one"] == ("running", None), "the task to run")
    take_all(desk)
    wait_for(lambda: desk.markers() == ["child.done", "resumer.done"], "the ends", 240)
    first, second = oar_jobs(desk, "one")
    assert second["resubmit_job_id"] == first["Job_Id"]
    assert second["types"] == first["types"]
    assert "saved" in (desk.there / "jobs" / desk.jobs()["one"]["id"] / "resumer.1.out").read_text()
    assert states(desk) == {"one": ("done", None), "child": ("done", None)}


def test_a_new_attempt_asks_for_more(desk):
    """By whoever watches: more time after a time limit, more memory by the property that the launcher names."""
    desk.write("timed.py", TIMED)
    desk.launcher(more='[defaults]\nmemory_property = "mem"\nproperty = "gpu_mem > 1"\n')
    desk.run("xpm-hpc", "run", "--launcher", desk.cluster, "timed.py", "--", "work", "watched", timeout=240).ok()
    assert states(desk) == {"longer": ("done", None), "memory": ("done", None)}
    first, second = oar_jobs(desk, "longer")
    assert (first["walltime"], second["walltime"]) == (20, 120)
    assert [event for event in first["events"] if event["type"] == "WALLTIME"]
    first, second = oar_jobs(desk, "memory")
    assert [("mem >= 4096" in one["properties"], "mem >= 8192" in one["properties"]) for one in (first, second)] == [
        (True, False),
        (False, True),
    ]
    assert "gpu_mem > 1" in second["properties"]
    assert second["walltime"] == 300
    assert len(first["assigned_resources"]) == len(second["assigned_resources"]) == 2


BREAKS = TIMED.replace(
    "class Resumer",
    'if "XPM_HPC_JOB" in os.environ and starts() == 1:\n    raise ImportError("not on this node")\n\nclass Resumer',
    1,
).replace('open("starts', 'open(os.environ["HOME"] + "/FOLDER/starts')
assert BREAKS.count("/FOLDER/") == 2


def test_a_new_attempt_leaves_a_bad_node_out_and_begins_later(desk):
    desk.write(
        "timed.py",
        BREAKS.replace("FOLDER", desk.folder).replace('sys.argv[2] == "watched"', "False")
        + ('        Sleeper(word="one").submit(retry={"launch": 2}, resources="duration=2m")\n'),
    )
    desk.launcher()
    desk.run("xpm-hpc", "run", "--launcher", desk.cluster, "timed.py", "--", "work", "other", timeout=240).ok()
    lines = [line.split() for line in (desk.there / "starts").read_text().splitlines()]
    native = list(dict.fromkeys(line[0] for line in lines))
    hosts = [next(host for id_, host in lines if id_ == one) for one in native]
    assert len(native) == 2
    assert hosts[0] != hosts[1]
    shown = json.loads(desk.on_login("oarstat", "-J", "-f", *(word for one in native for word in ("-j", one))))
    first, second = (shown[one] for one in native)
    assert first["assigned_network_address"] == hosts[:1]
    assert f"'{hosts[0]}'" in second["properties"]
    assert any(type_.startswith("postpone=") for type_ in second["types"])
    assert second["startTime"] >= second["submissionTime"] + 9
