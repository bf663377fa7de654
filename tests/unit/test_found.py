"""From facts to a launcher file: its text, and that the product reads it as it was meant.

Golden files are made anew with ``XPM_HPC_GOLDEN=new pytest tests/unit/test_found.py``: look at the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experimaestro_hpc.driver.fit import choose_partition, request_for
from experimaestro_hpc.driver.found import (
    Found,
    best_folder,
    best_python,
    guessed_memory,
    guesses,
    is_shared_for_certain,
    launcher_text,
    workdir_of,
)
from experimaestro_hpc.driver.launcher import Connector, Launcher, parse_launcher
from experimaestro_hpc.resources import ResourceError, Resources
from experimaestro_hpc.schedulers import scheduler_class
from experimaestro_hpc.schedulers.site import Folder, FoundPartition, SchedulerFacts, Software, no_scheduler

GOLDEN = Path(__file__).parent / "golden"
GB = 1 << 30
SSH = Connector("ssh", "me@login.cluster.org")


def folder(spelling: str, kind: str = "nfs4", left: int | None = 100 * GB, **more) -> Folder:
    is_network = kind in ("nfs4", "lustre")
    usual = {"spelling": spelling, "path": "/x", "kind": kind, "is_network": is_network, "can_write": True}
    return {**usual, "left": left, "quota": None, **more}  # type: ignore[typeddict-item]


def kind(nodes: int, cores: int, memory: int, *gpus: tuple) -> dict:
    listed = [{"type": one[0], "count": one[1], "memory": one[2] if len(one) > 2 else 0} for one in gpus]
    return {"nodes": nodes, "cores": cores, "memory": memory * GB, "gpus": listed}


def partition(name: str, *kinds: dict, **more) -> FoundPartition:
    usual = {
        "name": name,
        "is_default": False,
        "is_preemptible": False,
        "refusal": "",
        "max_time": 86400,
        "default_time": None,
        "max_nodes": None,
        "limits": {},
        "options": {},
        "kinds": list(kinds),
    }
    return {**usual, **more}  # type: ignore[typeddict-item]


def slurm(*partitions: FoundPartition, **more) -> SchedulerFacts:
    return {**no_scheduler(), "name": "slurm", "version": "slurm 23.11.4", "partitions": list(partitions), **more}  # type: ignore[typeddict-item]


def software(*pythons: tuple[str, str], **more) -> Software:
    listed = [{"command": command, "version": version} for command, version in pythons or [("python3", "3.11.2")]]
    return {"pythons": listed, "tools": [], "has_modules": False, "modules": [], **more}  # type: ignore[typeddict-item]


LARGE = slurm(
    partition("gpu", kind(8, 32, 256, ("v100", 4)), kind(2, 64, 512, ("a100", 8)), default_time=3600),
    partition("scavenge", kind(10, 32, 128), is_preemptible=True),
    partition("cpu", kind(90, 32, 128), kind(10, 32, 512), is_default=True, default_time=1800, max_nodes=16),
    partition(
        "long", kind(4, 32, 128), max_time=None, limits={"cores": 16, "memory": 64 * GB}, options={"qos": "long"}
    ),
    partition("vip", kind(4, 32, 128), refusal="it is for the accounts king, queen"),
    hosts=["c1", "c2"],
    accounts=["lab", "dept"],
    account="lab",
    qos=["normal", "long"],
    default_qos="normal",
    needs_account=True,
    notes=["sacctmgr -nP show: nobody home"],
)
OAR: SchedulerFacts = {
    **no_scheduler(),
    "name": "oar",
    "version": "OAR 2.5.9",
    "partitions": [
        partition("default", kind(3, 8, 64, ("A100-SXM4-40GB", 2, 40 * GB)), is_default=True, max_time=None)
    ],
    "options": {"memory_property": ["memnode", "why"], "memory_unit": ["M", "GUESSED: why"]},
}
ODD = 'a "b"\n\x07$(touch x)\u2028[t]'
FOUND = {
    "large": Found(
        "login1.cluster.org",
        LARGE,
        [folder("~", left=5 * GB, quota=20 * GB), folder("$SCRATCH", "lustre", 900 << 40)],
        software(
            ("python3", "3.6.8"), ("python3.11", "3.11.4"), has_modules=True, modules=["cuda/12.2", "python/3.11"]
        ),
    ),
    "oar": Found("front", OAR, [folder("~")], software(tools=["uv", "conda"])),
    "single": Found(
        "box",
        slurm(partition("all", kind(1, 8, 32), is_default=True), hosts=["box"], accounts=["only"], account="only"),
        [folder("~", "ext4")],
        software(("python", "2.7.1")),
    ),
    "hostile": Found(
        ODD,
        slurm(partition(ODD, kind(1, 8, 32, (ODD, 2))), accounts=[ODD, "x"], account=ODD, qos=[ODD, "y"], notes=[ODD]),
        [folder(f"/scratch/{ODD}", ODD)],
        software(tools=[ODD], has_modules=True, modules=[ODD]),
    ),
}


def made(name: str, connector: Connector = SSH) -> tuple[str, Launcher]:
    content = launcher_text("mine", connector, FOUND[name], "2026-11-23")
    return content, parse_launcher(content, name="mine", path=Path("mine.toml"))


@pytest.mark.parametrize("name", FOUND)
def test_golden(name):
    content, _ = made(name)
    path = GOLDEN / f"launcher-{name}.toml"
    if os.environ.get("XPM_HPC_GOLDEN") == "new":
        path.write_text(content, encoding="utf-8")
    assert content == path.read_text(encoding="utf-8")
    assert content.endswith("\n")
    assert not [line for line in content.split("\n") if len(line) > 120]


@pytest.mark.parametrize("name", FOUND)
def test_every_setting_that_is_off_is_one_that_can_be_switched_on(name):
    content, _ = made(name)
    for number, line in enumerate(lines := content.splitlines()):
        if line[:1] == "#" and line[1:2].isalpha():
            on = "\n".join([*lines[:number], line[1:], *lines[number + 1 :]])
            if "modules = " not in line:  # goes with a manager
                parse_launcher(on, name="mine", path=Path("mine.toml"))


def test_what_the_product_reads():
    content, launcher = made("large")
    assert launcher.connector == SSH
    assert launcher.workdir == "$SCRATCH/xpm"
    assert launcher.python == "python3.11"
    assert launcher.defaults == {"account": "lab"}
    assert [one.name for one in launcher.partitions] == ["cpu", "long", "gpu-a100", "gpu-v100", "scavenge"]
    cpu, long, a100, v100, _ = launcher.partitions
    assert (cpu.cores, cpu.memory, cpu.nodes, cpu.max_time, cpu.gpus) == (32, 512 * GB, 16, 86400, None)
    assert (long.cores, long.memory, long.max_time, long.options) == (16, 64 * GB, None, {"qos": "long"})
    assert a100.gpus is not None
    assert (a100.gpus.type, a100.gpus.count, a100.gpus.memory, a100.cores) == ("a100", 8, 40 * GB, 64)
    assert v100.options == {"partition": "gpu"}
    assert "Not for you: vip, since it is for the accounts king, queen." in content
    assert "Not seen: sacctmgr" in content
    assert guesses(content) == content.count("GUESSED") - 1  # the head tells of the word


@pytest.mark.parametrize(
    ("asked", "directives"),
    [
        ("gpu(mem=40G) * 2", ["--partition=gpu", "--gres=gpu:a100:2", "--account=lab"]),
        ("gpu(model=v100) * 4", ["--partition=gpu", "--gres=gpu:v100:4"]),
        ("cpu(cores=32)", ["--partition=cpu"]),
        ("duration=2d", ["--partition=long", "--qos=long"]),
    ],
)
def test_where_tasks_go_and_what_they_say(asked, directives):
    _, launcher = made("large")
    choice, chosen = choose_partition(launcher, Resources.parse(asked))
    lines = scheduler_class("slurm").directives(request_for(launcher, "task", choice, chosen))
    assert {f"#SBATCH {one}" for one in directives} <= set(lines)


def test_what_does_not_fit_says_why():
    _, launcher = made("large")
    with pytest.raises(ResourceError) as caught:
        choose_partition(launcher, Resources.parse("gpu(mem=80G)"))
    assert "gpu-a100: has GPUs of 40G, 80G asked" in str(caught.value)


def test_a_name_that_is_taken():
    both = slurm(
        partition("gpu", kind(1, 8, 32, ("a", 1)), kind(1, 8, 32, ("b", 1)), kind(1, 8, 32)),
        partition("gpu-a", kind(1, 8, 32, ("a", 1))),
    )
    found = Found("login", both, [folder("~")], software())
    launcher = parse_launcher(launcher_text("x", SSH, found, "today"), name="x", path=Path("x.toml"))
    assert sorted(one.name for one in launcher.partitions) == ["gpu", "gpu-a", "gpu-a-nodes", "gpu-b"]
    assert [one.options for one in launcher.partitions if one.name in ("gpu", "gpu-a")] == [{}, {}]


@pytest.mark.parametrize("connector", [Connector(), Connector("ssh", "c", "openssh")])
def test_connectors(connector):
    assert made("single", connector)[1].connector == connector


def test_a_host_of_its_own():
    facts: SchedulerFacts = {**no_scheduler(), "name": "local"}
    content = launcher_text("x", SSH, Found("box", facts, [folder("~", "ext4")], software()), "today")
    launcher = parse_launcher(content, name="x", path=Path("x.toml"))
    assert (launcher.scheduler, launcher.partitions, guesses(content)) == ("local", (), 0)


@pytest.mark.parametrize(
    ("folders", "best"),
    [
        ([folder("~")], "~"),
        ([folder("~"), folder("$WORK")], "~"),
        ([folder("~", left=5 * GB), folder("$WORK")], "$WORK"),  # home is small
        ([folder("~", left=5 * GB), folder("$WORK", left=GB)], "~"),  # everything is
        ([folder("~", "ext4"), folder("$WORK")], "$WORK"),  # home is this host's own
        ([folder("~", "ext4"), folder("/scratch/me", "xfs")], "~"),  # nothing tells
        ([folder("~", left=None)], "~"),
    ],
)
def test_where_to_work(folders, best):
    assert best_folder(folders)["spelling"] == best
    found = Found("h", slurm(), folders, software())
    assert workdir_of(found)[0] == f"{best}/xpm"


def test_a_workdir_that_was_asked_for():
    found = Found("h", slurm(), [folder("$WORK/own place")], software(), "$WORK/own place")
    content = launcher_text("x", SSH, found, "today")
    assert parse_launcher(content, name="x", path=Path("x.toml")).workdir == "$WORK/own place"


@pytest.mark.parametrize(
    ("pythons", "best"),
    [
        ([("python3", "3.11.2"), ("python3.13", "3.13.0")], ("python3", "3.11.2")),
        ([("python3", "3.6.8"), ("python3.9", "3.9.1")], ("python3.9", "3.9.1")),
        ([("python", "2.7.18")], ("", "")),
        ([("python3", "3.10.0")], ("python3", "3.10.0")),  # 10 is more than 9
    ],
)
def test_which_python(pythons, best):
    assert best_python(software(*pythons)) == best


@pytest.mark.parametrize(
    ("model", "gigabytes"),
    [
        ("h100", 80),
        ("a100", 40),
        ("a100_80gb", 80),
        ("NVIDIA-A100-SXM4-80GB", 80),
        ("a100_3g.20gb", 20),
        ("gh200", 96),
        ("Tesla V100-PCIE-32GB", 32),
        ("a40", 48),
        ("rtx_2080_ti", 11),
        ("rtx2080", 8),
        ("FakeGPU", 0),
        ("", 0),
    ],
)
def test_the_memory_of_a_gpu_by_its_name(model, gigabytes):
    assert guessed_memory(model) == gigabytes * GB


def test_shared_for_certain():
    assert is_shared_for_certain(FOUND["single"])
    assert not is_shared_for_certain(FOUND["large"])
    assert not is_shared_for_certain(Found("h", slurm(), [folder("~")], software()))
