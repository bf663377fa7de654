"""What schedulers say of a cluster: from the output of sinfo, scontrol, sacctmgr and oarnodes to facts."""

from __future__ import annotations

import json

import pytest

from experimaestro_hpc.schedulers import oar_site, slurm_site
from experimaestro_hpc.schedulers.slurm_site import Rights

GB = 1 << 30
ANYBODY = Rights([], [], [], "")

# --- Slurm


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("(null)", []),
        ("", []),
        ("gpu:h100:4", [("h100", 4)]),
        ("gpu:4", [("", 4)]),
        ("gpu", [("", 1)]),
        ("gpu:tesla", [("tesla", 1)]),
        ("gpu:3090:8", [("3090", 8)]),  # a type of digits alone
        ("gpu:a100:4(S:0-1)", [("a100", 4)]),
        ("gpu:a100:2(S:0,1),gpu:v100:1(S:1)", [("a100", 2), ("v100", 1)]),
        ("gpu:a100_3g.20gb:7,mps:100,shard:12,nvme:1", [("a100_3g.20gb", 7)]),
        ("craynetwork:4,gpu:mi250:8", [("mi250", 8)]),
        ("gpu:h100:0", []),
    ],
)
def test_gpus(gres, expected):
    assert [(one["type"], one["count"]) for one in slurm_site.parse_gpus(gres)] == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-00:00:00", 86400),
        ("02:00:00", 7200),
        ("30:00", 1800),
        ("30", 1800),
        ("infinite", None),
        ("UNLIMITED", None),
        ("NONE", None),
        ("n/a", None),
        ("", None),
    ],
)
def test_times(text, seconds):
    assert slurm_site.parse_time(text) == seconds


SINFO = """\
cpu*|up|1-00:00:00|10|32|128000|(null)
cpu*|up|1-00:00:00|2|64+|256000|(null)
gpu|up|infinite|4|16|64000|gpu:v100:2
gpu|up|infinite|2|64|512000|gpu:a100:4(S:0-1)
old|down|infinite|2|64|512000|(null)
empty|up|infinite|0|0|0|(null)
nonsense
"""


def test_what_sinfo_alone_tells():
    found = slurm_site.partitions(SINFO, "", ANYBODY)
    assert [one["name"] for one in found] == ["cpu", "gpu", "old", "empty"]
    assert [one["is_default"] for one in found] == [True, False, False, False]
    assert [one["refusal"] for one in found] == ["", "", "it is down", "it has no nodes"]
    assert [one["max_time"] for one in found] == [86400, None, None, None]
    assert [(kind["nodes"], kind["cores"]) for kind in found[0]["kinds"]] == [(10, 32), (2, 64)]
    assert found[0]["kinds"][0]["memory"] == 128000 << 20
    assert [gpu["type"] for kind in found[1]["kinds"] for gpu in kind["gpus"]] == ["v100", "a100"]
    assert slurm_site.partitions("", "", ANYBODY) == []


def shown(**settings: str) -> str:
    usual = {"AllowAccounts": "ALL", "AllowQos": "ALL", "MaxTime": "UNLIMITED", "PriorityTier": "1", **settings}
    return "PartitionName=cpu " + " ".join(f"{name}={value}" for name, value in usual.items())


def one(rights: Rights = ANYBODY, **settings: str):
    return slurm_site.partitions("cpu|up|infinite|4|16|64000|(null)", shown(**settings), rights)[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"MaxTime": "02:00:00"}, {"max_time": 7200}),
        ({"DefaultTime": "00:30:00"}, {"default_time": 1800}),
        ({"MaxNodes": "2"}, {"max_nodes": 2}),
        ({"MaxNodes": "UNLIMITED"}, {"max_nodes": None}),
        ({"MaxCPUsPerNode": "8", "MaxMemPerNode": "1024"}, {"limits": {"cores": 8, "memory": GB}}),
        ({"MaxMemPerNode": "UNLIMITED"}, {"limits": {}}),
        ({"PreemptMode": "REQUEUE"}, {"is_preemptible": False}),  # of the same tier as all the others
    ],
)
def test_settings_of_a_partition(settings, expected):
    found = one(**settings)
    assert {name: found[name] for name in expected} == expected


def test_a_partition_of_a_lower_tier_may_be_preempted():
    sinfo = "low|up|1:00|1|1|1|\nhigh|up|1:00|1|1|1|\n"
    settings = "PartitionName=low PriorityTier=1 PreemptMode=REQUEUE\nPartitionName=high PriorityTier=9 PreemptMode=OFF"
    assert [part["is_preemptible"] for part in slurm_site.partitions(sinfo, settings, ANYBODY)] == [True, False]


LAB = Rights(["lab", "dept"], [], ["normal", "gpu"], "normal", "lab")


@pytest.mark.parametrize(
    ("settings", "refusal", "options"),
    [
        ({}, "", {}),
        ({"AllowAccounts": "lab,other"}, "", {}),
        ({"AllowAccounts": "dept,other"}, "", {"account": "dept"}),
        ({"AllowAccounts": "other"}, "it is for the accounts other", {}),
        ({"AllowAccounts": "a,b,c,d,e,f"}, "it is for the accounts a, b, c, d, e, …", {}),
        ({"AllowAccounts": "ALL", "DenyAccounts": "lab"}, "", {}),
        ({"DenyAccounts": "lab,dept"}, "it is not for your accounts", {}),
        ({"AllowQos": "gpu,long"}, "", {"qos": "gpu"}),
        ({"AllowQos": "long"}, "it is for the QOS long", {}),
        ({"AllowQos": "(null)"}, "", {}),
    ],
)
def test_who_may_use_a_partition(settings, refusal, options):
    found = one(LAB, **settings)
    assert (found["refusal"], found["options"]) == (refusal, options)
    assert one(ANYBODY, **settings)["refusal"] == ""  # nothing is known of the user: nothing is refused


def test_rights():
    rights = slurm_site.parse_rights("lab||normal,tiny|normal\ndept||normal|\n\nslurm noise\n")
    assert rights == Rights(["lab", "dept"], [], ["normal", "tiny"], "normal")
    assert slurm_site.parse_rights("") == ANYBODY
    # an association with a partition is for that one only, but another may be for all
    assert slurm_site.parse_rights("lab|gpu|normal|\nlab|cpu|normal|").partitions == ["gpu", "cpu"]
    assert slurm_site.parse_rights("lab|gpu|normal|\nlab||normal|").partitions == []
    only_gpu = Rights(["lab"], ["gpu"], [], "")
    assert one(only_gpu)["refusal"] == "none of your accounts is for it"


def test_config_and_hosts():
    config = slurm_site.parse_config("Configuration data as of 2026\nClusterName             = rig\nEmpty      = \n")
    assert config["ClusterName"] == "rig"
    assert slurm_site.hosts("c2.cluster\nc1\nc1\n\n") == ["c1", "c2"]


# --- OAR


def node(host: str, cores: int, **more: object) -> list[dict]:
    usual = {"type": "default", "state": "Alive", "network_address": host, "host": host}
    return [{**usual, "core": f"{host}-{core}", **more} for core in range(cores)]


def read(*resources: dict):
    found = oar_site.resources({str(number): one for number, one in enumerate(resources)})
    names = oar_site.property_names(found)
    unit = oar_site.memory_unit(found, names)
    return oar_site.default_queue(found, names, unit)["kinds"], oar_site.defaults(names, unit)


def test_nodes_without_gpus():
    kinds, options = read(*node("n1", 4, memnode=65536), *node("n2", 4, memnode=65536))
    assert kinds == [{"nodes": 2, "cores": 4, "memory": 64 * GB, "gpus": []}]
    assert {name: value for name, (value, _) in options.items()} == {"memory_property": "memnode", "memory_unit": "M"}


def test_gpus_are_counted_once_though_many_cores_name_them():
    rows = node("n1", 8, gpu=1, gpu_model="A100", gpu_mem=40960)
    for core, row in enumerate(rows):
        row["gpu"] = 1 + core // 4
    kinds, options = read(*rows)
    assert kinds[0]["gpus"] == [{"type": "A100", "count": 2, "memory": 40 * GB}]
    assert options["gpu_memory_property"][0] == "gpu_mem"
    assert "gpu_property" not in options  # it is called what OAR usually calls it


@pytest.mark.parametrize("none", [None, "", "0", 0, "NO", "N/A"])
def test_a_node_without_gpus_beside_one_with(none):
    rows = [*node("cpu1", 2, gpu=none, gpu_model=None), *node("gpu1", 2, gpu=7, gpu_model="T4")]
    kinds, _ = read(*rows)
    assert sorted(len(kind["gpus"]) for kind in kinds) == [0, 1]


def test_other_names_and_units():
    rows = node("n1", 2, gpudevice=0, gpumodel="V100", mem=192)
    kinds, options = read(*rows)
    assert kinds[0]["memory"] == 192 * GB
    assert kinds[0]["gpus"] == [{"type": "V100", "count": 1, "memory": 0}]
    assert {name: value for name, (value, _) in options.items()} == {
        "gpu_property": "gpudevice",
        "gpu_model_property": "gpumodel",
        "memory_property": "mem",
        "memory_unit": "G",
    }


def test_what_is_no_resource_for_jobs():
    rows = [*node("n1", 2), *node("dead", 2, state="Dead"), *node("disk", 2, type="disk")]
    kinds, _ = read(*rows)
    assert kinds == [{"nodes": 1, "cores": 2, "memory": 0, "gpus": []}]


def test_resources_without_cores_count_themselves():
    rows = [{key: value for key, value in row.items() if key != "core"} for row in node("n1", 3)]
    kinds, options = read(*rows)
    assert kinds[0]["cores"] == 3
    assert options["core_property"][0] == "resource_id"


def test_the_facts_are_plain_json():
    kinds, options = read(*node("n1", 2, gpu=1, gpu_model='it\'s "odd"\n$(x)', mem=4000))
    assert json.loads(json.dumps([kinds, options])) == [kinds, options]
