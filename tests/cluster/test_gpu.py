"""GPUs: what is asked in the script is what the job gets, and what no partition has is refused on the laptop."""

from __future__ import annotations

import pytest
from desk import Desk, wait_for

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
PARTITIONS = """
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


def look(desk: Desk, *resources: str, partitions: str = PARTITIONS):
    desk.write("look.py", LOOK)
    desk.launcher(more=partitions)
    return desk.run("xpm-hpc", "run", "--launcher", "mycluster", "look.py", "--", "work", *resources)


@pytest.mark.parametrize("partitions", [PARTITIONS, ""], ids=["partitions", "none-described"])
def test_a_job_gets_the_gpus_it_asks_for(desk, partitions):
    look(desk, "gpu * 2 & duration=10m", partitions=partitions).ok()
    assert desk.results("look.out") == ["0,1\n"]
    (native,) = desk.slurm_jobs()
    accounted = ("sacct", "-nXP", "-j", native, "-o", "Timelimit,State,Partition,AllocTRES")
    # sacct is late, with the time limit most of all
    line = wait_for(lambda: (text := desk.on_login(*accounted).strip()).startswith("00:") and text, "sacct")
    time_limit, state, partition, allocated = line.split("|")
    assert (time_limit, state) == ("00:10:00", "COMPLETED")
    assert partition == ("gpu" if partitions else "cpu")
    assert "gres/gpu=2" in allocated.split(",")

    (job,) = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    assert job["resources"]["gpus"] == 2
    assert job["resources"]["duration"] == 600


@pytest.mark.parametrize("model", ["", "(model=a100)", "(mem=96G)"])
def test_what_no_partition_has_is_refused_before_anything_is_submitted(desk, model):
    count = 5 if not model else 1
    asked = f"gpu{model} * {count}"
    message = look(desk, "duration=10m", asked).error(2, "no partition of launcher 'mycluster' can give")
    assert f"cpu: has no GPUs, {count} asked" in message
    reason = {"": "has 4 GPUs per node, 5 asked", "(model=a100)": "type h100, a100 asked", "(mem=96G)": "GPUs of 80G"}
    assert reason[model] in message
    assert desk.slurm_jobs() == {}
    assert not desk.there.exists()


def test_what_slurm_refuses_is_told_in_its_words(desk):
    ended = look(desk, "gpu * 5", partitions="")
    message = ended.error(2, "launcher mycluster", "Requested node configuration is not available")
    assert "nothing was submitted" in message
    assert set(desk.slurm_jobs().values()) <= {"FAILED"}  # Slurm keeps a record of some that it refuses
    (job,) = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    assert (job["state"], job["reason"]) == ("failed", "launch")
