"""The launcher files for public clusters: each names its sources, and what people ask goes to its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experimaestro_hpc.driver.fit import choose_partition, request_for
from experimaestro_hpc.driver.launcher import Launcher
from experimaestro_hpc.driver.launchers import find_launcher, shipped_dir
from experimaestro_hpc.resources import ResourceError, Resources
from experimaestro_hpc.schedulers import scheduler_class

PUBLIC = sorted(path.stem for path in shipped_dir().glob("*.toml") if path.stem not in ("local", "slurm", "oar"))


def shipped(name: str) -> Launcher:
    return find_launcher(name, environ={}, shipped=shipped_dir(), user_dir=Path("/nonexistent"))


@pytest.mark.parametrize("name", PUBLIC)
def test_files_for_public_clusters_say_where_their_facts_are_from(name: str) -> None:
    text = (shipped_dir() / f"{name}.toml").read_text(encoding="utf-8")
    head, settings = text.split("\n\n", 1)
    labels = re.findall(r"(?m)^# \[(\w+)\] ", head)
    assert "https://" in head or "http://" in head
    assert "# Source" in head and labels
    cited = {label for group in re.findall(r"# \[([\w, ]+)\]", settings) for label in group.split(", ")}
    cited |= {label for group in re.findall(r"(?m)^#.*\[(\w+)\]$", settings) for label in group.split(", ")}
    assert cited <= set(labels), "a fact cites a source that the file does not name"
    launcher = shipped(name)
    assert launcher.connector.type == "ssh"
    assert launcher.workdir
    for partition in launcher.partitions:
        said = text.split(f'name = "{partition.name}"')[1].split("[[partitions]]")[0]
        assert re.search(r"# \[\w", said), f"partition {partition.name} cites nothing"


#: what is asked, where it goes, and what the scheduler is asked for because of it
FITS = [
    (
        "jean-zay",
        "cores=10 & duration=50h",
        "cpu_p1",
        ["--partition=cpu_p1", "--time=2-02:00:00", "--hint=nomultithread"],
    ),
    ("jean-zay", "gpu * 4 & duration=20h", "v100", ["--partition=gpu_p13", "--gres=gpu:4"]),
    (
        "jean-zay",
        "gpu(model=v100, mem=32G)",
        "v100-32g",
        ["--partition=gpu_p13", "--constraint=v100-32g", "--gres=gpu:1"],
    ),
    ("jean-zay", "gpu(mem=32G) * 8", "gpu_p2", ["--partition=gpu_p2", "--gres=gpu:8"]),
    ("jean-zay", "gpu(mem=40G) * 2", "a100", ["--constraint=a100", "--gres=gpu:2", "!--partition"]),
    ("jean-zay", "gpu(model=h100)", None, ["a100: has GPUs of type a100, h100 asked"]),
    ("lumi", "gpu(mem=64G) * 2 & duration=3 days", "small-g", ["--partition=small-g", "--gpus-per-node=2"]),
    ("lumi", "gpu * 8 & nodes=16 & duration=1 day", "standard-g", ["--partition=standard-g", "--gpus-per-node=8"]),
    ("lumi", "gpu * 8 & cores=64", None, ["small-g: has 56 cores per node, 64 asked"]),
    ("lumi", "cores=16", "small", ["--partition=small"]),
    ("daint", "gpu * 4 & nodes=4 & duration=12h", "normal", ["--partition=normal", "--nodes=4", "--gpus-per-node=4"]),
    ("daint", "gpu & duration=2 days", None, ["normal: allows 1-00:00:00 for a job, 2-00:00:00 asked"]),
    ("snellius", "cores=150 & mem=300G", "genoa", ["--partition=genoa"]),
    ("snellius", "gpu(model=h100) * 4", "gpu_h100", ["--partition=gpu_h100", "--gpus-per-node=4"]),
    ("perlmutter", "gpu", "gpu", ["--constraint=gpu", "--qos=regular", "--gpus-per-node=1", "!--partition"]),
    ("perlmutter", "gpu(mem=80G) * 4", "gpu-80g", ['--constraint="gpu&hbm80g"', "!--partition"]),
    ("perlmutter", "cores=64", "cpu", ["--constraint=cpu", "!--gpus"]),
    ("narval", "gpu(model=A100) * 2", "gpu", ["--gres=gpu:a100:2", "!--partition"]),
    ("narval", "cores=64", "cpu", ["!--partition"]),
    ("leonardo", "gpu(mem=64G) * 4 & cores=32", "boost_usr_prod", ["--partition=boost_usr_prod", "--gres=gpu:4"]),
    (
        "g5k-lille",
        "gpu(mem=16G) * 2",
        "chifflot-p100",
        ["--queue default", "cluster='chifflot'", "Tesla P100-PCIE-16GB"],
    ),
    ("g5k-lille", "gpu(model=v100)", "chifflot-v100", ["gpu_model = 'Tesla V100-PCIE-32GB'", "/host=1/gpu=1"]),
    ("g5k-lille", "gpu(model=a100, mem=40G) * 4", "chuc", ["cluster='chuc'", "/host=1/gpu=4,walltime=1:00"]),
    ("g5k-nancy", "gpu(mem=40G) & duration=5 days", "gruss", ["--queue production", "walltime=120:0:0"]),
    ("g5k-lyon", "cores=16 & mem=64G", "nova", ["memnode >= 65536", "/host=1/core=16", "!exotic"]),
    ("g5k-lyon", "gpu(model=a100)", "sirius", ["--type exotic"]),
    ("g5k-luxembourg", "gpu(model=mi210) * 4", "larochette", ["cluster='larochette'"]),
    ("g5k-grenoble", "cores=32 & mem=192G", "dahu", ["cluster='dahu'", "memnode >= 196608", "!--queue"]),
    ("g5k-grenoble", "gpu(model=l40s) * 2", "kinovis", ["gpu_model = 'L40S'", "/host=1/gpu=2"]),
    ("g5k-nantes", "cores=20", "ecotype", ["--queue default", "cluster='ecotype'"]),
    ("g5k-rennes", "cores=52", "paradoxe", ["cluster='paradoxe'"]),
    ("g5k-rennes", "gpu", None, ["paradoxe: has no GPUs, 1 asked"]),
    ("g5k-toulouse", "nodes=2 & cores=32", "montcalm", ["/host=2/core=32"]),
    ("g5k-sophia", "gpu(model=h100) & duration=3 days", None, ["musa: allows 2-00:00:00 for a job, 3-00:00:00 asked"]),
]


def test_each_file_for_a_public_cluster_is_tried() -> None:
    assert {name for name, *_ in FITS} == set(PUBLIC)


@pytest.mark.parametrize(("name", "asked", "partition", "words"), FITS)
def test_what_people_ask_of_public_clusters(name: str, asked: str, partition: str | None, words: list[str]) -> None:
    launcher = shipped(name)
    if partition is None:
        with pytest.raises(ResourceError) as caught:
            choose_partition(launcher, Resources.parse(asked))
        shown = caught.value.hint
    else:
        choice, found = choose_partition(launcher, Resources.parse(asked))
        assert found is not None and found.name == partition
        shown = "\n".join(scheduler_class(launcher.scheduler).directives(request_for(launcher, "x", choice, found)))
    for word in words:
        assert (word[1:] not in shown) if word.startswith("!") else (word in shown), shown
