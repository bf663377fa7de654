"""What a launcher file says of a partition reaches the scheduler: GPU flag, constraint, account, property, template."""

from __future__ import annotations

import json

import pytest
from desk import Desk, wait_for
from sites import only

on_slurm = only("slurm", "OAR's words are in a test of their own")

LOOK = """
import os, sys
from experimaestro_hpc import Param, Task, experiment

class Look(Task):
    number: Param[int]

    def execute(self):
        print(os.uname().nodename, os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("GREETING"))

with experiment(sys.argv[1], "look"):
    for number, resources in enumerate(sys.argv[2:]):
        Look(number=number).submit(resources=resources)
"""


def look(desk: Desk, *resources: str, more: str = "", top: str = "", options: tuple[str, ...] = ()):
    desk.write("look.py", LOOK)
    name = desk.launcher(more=more, top=top)
    return desk.run("xpm-hpc", "run", "--launcher", name, *options, "look.py", "--", "work", *resources)


def accounted(desk: Desk, native: str, *fields: str) -> list[str]:
    """Of sacct, which is late, with some fields more than with others."""
    argv = ("sacct", "-nXP", "-j", native, "-o", ",".join(("State", *fields)))

    def told() -> list[str]:
        state, *values = desk.on_login(*argv).strip().split("|")
        return values if state == "COMPLETED" and all(one not in ("", "Unknown") for one in values) else []

    return wait_for(told, "sacct")


@on_slurm
@pytest.mark.parametrize(
    "flag",
    [
        "--gres=gpu:{type}:{count}",
        "--gres=gpu:{count}",
        "--gpus={total}",
        "--gpus={type}:{total}",
        "--gpus-per-node={count}",
        "--gpus-per-node={type}:{count}",
    ],
)
def test_each_form_of_the_gpu_flag_gives_the_gpus(desk, flag):
    more = f"""
[defaults]
gpu_flag = "{flag}"
[[partitions]]
name = "gpu"
gpus = {{ type = "h100", count = 4, memory = "80G" }}
"""
    look(desk, "gpu(model=H100) * 2", more=more).ok()
    (seen,) = desk.results("look.out")
    assert seen.split()[1] == "0,1"
    (native,) = desk.native_jobs()
    (allocated,) = accounted(desk, native, "AllocTRES")
    assert "gres/gpu=2" in allocated.split(",")


@on_slurm
def test_a_gpu_flag_that_says_no_number_is_an_error_before_anything_is_submitted(desk):
    message = look(desk, "gpu", more='[defaults]\ngpu_flag = "--gpus=all"\n').error(
        2, "gpu_flag cannot be '--gpus=all'"
    )
    assert "--gpus-per-node={count}" in message
    assert desk.native_jobs() == {}


SETS = """
[[partitions]]
name = "second node"
cores = 4
[partitions.options]
queue = "default"
property = "host = 'o2'"

[[partitions]]
name = "left over"
[partitions.options]
queue = false
property = "host = 'o1'"
type = ["besteffort"]
"""


@only("oar", "Slurm's words are in tests of their own")
def test_property_queue_and_type_are_those_of_the_partition(desk):
    look(desk, "cores=2", "cores=8", more=SETS).ok()
    assert sorted(one.split()[0] for one in desk.results("look.out")) == ["o1", "o2"]
    shown = [json.loads(desk.on_login("oarstat", "-J", "-f", "-j", one))[one] for one in desk.native_jobs()]
    found = sorted((one["queue"], "besteffort" in str(one["types"])) for one in shown)
    assert found == [("besteffort", True), ("default", False)]


PLACES = """
[defaults]
account = "nobody"
[[partitions]]
name = "first rack"
cores = 4
[partitions.options]
partition = "cpu"
account = "lab"
constraint = "rack1"

[[partitions]]
name = "second rack"
cores = 8
[partitions.options]
partition = "scav"
account = "lab"
qos = "tiny"
constraint = "rack2"

[[partitions]]
name = "default"
[partitions.options]
partition = false
mem = false
"""


@on_slurm
def test_constraint_account_and_qos_are_those_of_the_partition(desk):
    look(desk, "cores=2", "cores=8 & mem=1G", more=PLACES).ok()
    assert sorted(one.split()[0] for one in desk.results("look.out")) == ["c1", "c2"]
    found = [accounted(desk, native, "Partition", "Account", "QOS", "NodeList") for native in desk.native_jobs()]
    assert sorted(found) == [["cpu", "lab", "normal", "c1"], ["scav", "lab", "tiny", "c2"]]


@on_slurm
def test_what_nothing_can_give_is_told_for_each_partition(desk):
    more = PLACES.split('[[partitions]]\nname = "default"')[0]
    message = look(desk, "gpu | cores=16", more=more).error(2, "no partition of launcher")
    for rack, cores in (("first rack", 4), ("second rack", 8)):
        assert f"{rack}: has no GPUs, 1 asked" in message
        assert f"{rack}: has {cores} cores per node, 16 asked" in message
    assert desk.native_jobs() == {}


@on_slurm
def test_an_account_that_is_not_mine_is_told_in_slurms_words(desk):
    """The third partition leaves the account to the defaults, which have a wrong one."""
    message = look(desk, "cores=12", more=PLACES).error(2, "Invalid account")
    assert "nothing was submitted" in message


@on_slurm
def test_a_template_of_the_users_own(desk):
    """Named by the launcher, built on the shipped one; what it inserts stays one word."""
    folder = desk.rig.home("laptop", desk.user) / ".config/xpm-hpc/templates"
    name = f"{desk.folder.rpartition('/')[2]}.sh.j2"
    own = folder / name
    text = """{% extends "shipped/slurm.sh.j2" %}
{% block setup %}
export GREETING={{ greeting }}
{{ super() }}
{% endblock %}
"""
    try:
        desk._write(desk.rig.home("laptop", desk.user), own, text)
        message = look(desk, "any", top=f"template = {json.dumps(name)}").error(2, "'greeting' is undefined")
        assert f"{name}, line 3" in message
        assert desk.native_jobs() == {}

        desk._write(desk.rig.home("laptop", desk.user), own, text.replace("{{ greeting }}", "it-is-{{ name }}"))
        shown = look(desk, "any", top=f"template = {json.dumps(name)}", options=("--dry-run", "--scripts")).ok()
        assert "export GREETING=it-is-look\n" in shown.out
        assert desk.native_jobs() == {}
        look(desk, "any", top=f"template = {json.dumps(name)}").ok()
        (seen,) = desk.results("look.out")
        assert seen.split()[2] == "it-is-look"
    finally:
        own.unlink(missing_ok=True)
