"""GPUs: what is asked in the script is what the job gets, and what no partition has is refused on the laptop."""

from __future__ import annotations

import json

import pytest
from desk import Desk, wait_for
from sites import only

LOOK = """
import os, sys
from experimaestro_hpc import Param, Task, experiment

class Look(Task):
    number: Param[int]

    def execute(self):
        print(os.environ.get("CUDA_VISIBLE_DEVICES"))

with experiment(sys.argv[1], "look"):
    for number, resources in enumerate(sys.argv[2:]):
        Look(number=number).submit(resources=resources)
"""
PARTITIONS = {}
PARTITIONS["slurm"] = """
[[partitions]]
name = "cpu"
max_time = "1-00:00:00"

[[partitions]]
name = "gpu"
max_time = "2:00:00"
cores = 16
memory = "16000M"
gpus = { type = "h100", count = 4, memory = "80G" }
"""
#: OAR's queues
PARTITIONS["oar"] = """
[defaults]
gpu_memory_property = "gpu_mem"

[[partitions]]
name = "default"
max_time = "2:00:00"
cores = 8
memory = "16000M"
gpus = { type = "FakeGPU", count = 2, memory = "24G" }

[[partitions]]
name = "besteffort"
max_time = "1-00:00:00"
"""
DESCRIBED = pytest.mark.parametrize("is_described", [True, False], ids=["partitions", "none-described"])


def look(desk: Desk, *resources: str, is_described: bool = True):
    desk.write("look.py", LOOK)
    desk.launcher(more=PARTITIONS[desk.site.scheduler] if is_described else "")
    return desk.run("xpm-hpc", "run", "--launcher", desk.cluster, "look.py", "--", "work", *resources)


@only("oar", "Slurm's words are in a test of their own")
@DESCRIBED
def test_a_job_gets_the_gpus_of_oar_that_it_asks_for(desk, is_described):
    """Two on one node; then one on each node and another one, all at once: none is given twice."""
    model = "(model=FakeGPU, mem=20G)" if is_described else "(model=FakeGPU)"
    look(desk, f"gpu{model} * 2 & duration=10m", is_described=is_described).ok()
    assert desk.results("look.out") == ["0,1\n"]
    (native,) = desk.native_jobs()
    shown = json.loads(desk.on_login("oarstat", "-J", "-f", "-j", native))[native]
    assert (shown["walltime"], shown["queue"], len(shown["assigned_resources"])) == (600, "default", 8)
    assert "gpu_model = 'FakeGPU'" in shown["properties"]
    assert ("gpu_mem >= 20480" in shown["properties"]) == is_described

    (job,) = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    assert job["resources"]["gpus"] == 2
    assert job["resources"]["duration"] == 600


SHARED = """
import os, sys
from experimaestro_hpc import Param, Task, experiment
from pathlib import Path

class Share(Task):
    number: Param[int]

    def execute(self):
        with open(f"../../../shared-{self.number}", "w") as file:
            print(os.uname().nodename, os.environ["CUDA_VISIBLE_DEVICES"], file=file)
        while len(list(Path("../../..").glob("shared-*"))) < 4:
            time.sleep(0.1)

import time
with experiment(sys.argv[1], "share"):
    for number in range(4):
        Share(number=number).submit(resources="gpu & duration=1m")
"""


@only("oar", "Slurm sets the variable itself")
def test_no_gpu_is_given_twice(desk):
    """All four at once, and each waits until the others run."""
    desk.write("share.py", SHARED)
    desk.run("xpm-hpc", "run", "--launcher", desk.launcher(), "share.py", "--", "work").ok()
    given = sorted(path.read_text() for path in desk.there.glob("shared-*"))
    assert given == ["o1 0\n", "o1 1\n", "o2 0\n", "o2 1\n"]


@only("slurm", "OAR's words are in a test of their own")
@DESCRIBED
def test_a_job_gets_the_gpus_it_asks_for(desk, is_described):
    look(desk, "gpu * 2 & duration=10m", is_described=is_described).ok()
    assert desk.results("look.out") == ["0,1\n"]
    (native,) = desk.native_jobs()
    accounted = ("sacct", "-nXP", "-j", native, "-o", "Timelimit,State,Partition,AllocTRES")
    # sacct is late, with the time limit most of all
    line = wait_for(lambda: (text := desk.on_login(*accounted).strip()).startswith("00:") and text, "sacct")
    time_limit, state, partition, allocated = line.split("|")
    assert (time_limit, state) == ("00:10:00", "COMPLETED")
    assert partition == ("gpu" if is_described else "cpu")
    assert "gres/gpu=2" in allocated.split(",")

    (job,) = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    assert job["resources"]["gpus"] == 2
    assert job["resources"]["duration"] == 600


@pytest.mark.parametrize("model", ["", "(model=a100)", "(mem=96G)"])
def test_what_no_partition_has_is_refused_before_anything_is_submitted(desk, model):
    count = 5 if not model else 1
    asked = f"gpu{model} * {count}"
    message = look(desk, "duration=10m", asked).error(2, f"no partition of launcher '{desk.cluster}' can give")
    if desk.site.scheduler == "slurm":
        without, has, kind, memory = "cpu", 4, "h100", "80G"
    else:
        without, has, kind, memory = "besteffort", 2, "FakeGPU", "24G"
    assert f"{without}: has no GPUs, {count} asked" in message
    reason = {
        "": f"has {has} GPUs per node, 5 asked",
        "(model=a100)": f"type {kind}, a100 asked",
        "(mem=96G)": f"GPUs of {memory}",
    }
    assert reason[model] in message
    assert desk.native_jobs() == {}
    assert not desk.there.exists()


def test_what_the_scheduler_refuses_is_told_in_its_words(desk):
    ended = look(desk, "gpu * 5", is_described=False)
    words = {"slurm": "Requested node configuration is not available", "oar": "There are not enough resources"}
    message = ended.error(2, f"launcher {desk.cluster}", words[desk.site.scheduler])
    assert "nothing was submitted" in message
    assert set(desk.native_jobs().values()) <= {"FAILED"}  # Slurm keeps a record of some that it refuses
    (job,) = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    assert (job["state"], job["reason"]) == ("failed", "launch")
