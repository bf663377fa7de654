"""What OAR says of its resources. In: what oarnodes printed. Out: facts. Pure.

OAR has no command by which a user could list the queues, or their limits: what is found is the default queue.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .site import FoundGpus, FoundPartition, Kind

OARNODES = ["oarnodes", "-J"]
#: the names that sites give to properties, the likeliest first
_GPU = ("gpu", "gpudevice")
_MODEL = ("gpu_model", "gpumodel", "gpu_type")
_GPU_MEMORY = ("gpu_mem", "gpumem", "gpu_memory")
_MEMORY = ("memnode", "mem", "memory", "ram")
_CORE = ("core", "core_id", "cpucore")
_HOST = ("network_address", "host")
_NONE = (None, "", "NO", "no", "none", "None", "N/A", "-1")


def parse_version(out: str) -> str:
    """OAR's version, from what ``oarstat --version`` printed.

    >>> parse_version("OAR version : 2.5.9 (Canicule)")
    'OAR 2.5.9'
    """
    found = re.search(r"OAR version\s*:\s*(\S+)", out)
    return f"OAR {found.group(1)}" if found else ""


def resources(shown: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The resources that jobs run on: neither dead ones nor other things that OAR shares out, such as disks.

    :param shown: what oarnodes printed, read as JSON
    """
    return [one for one in shown.values() if one.get("type", "default") == "default" and one.get("state") != "Dead"]


def property_names(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What this site calls the properties that matter, by our names; "" for what there is not."""
    names = {name for one in found for name, value in one.items() if value not in _NONE}
    kinds = {
        "gpu_property": _GPU,
        "gpu_model_property": _MODEL,
        "gpu_memory_property": _GPU_MEMORY,
        "memory_property": _MEMORY,
        "core_property": _CORE,
        "host_property": _HOST,
    }
    return {ours: next((name for name in theirs if name in names), "") for ours, theirs in kinds.items()}


def memory_unit(found: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """What the properties count memory in, by how large their numbers are: ``M``, ``G`` or ``K``. A guess."""
    name = names["memory_property"]
    largest = max((_number(one.get(name)) for one in found), default=0) if name else 0
    if not largest:
        return "M"
    return "K" if largest >= 1 << 23 else "M" if largest >= 1 << 11 else "G"


def defaults(names: Mapping[str, str], unit: str) -> dict[str, list[str]]:
    """The launcher's options that make these names known, each with why it is there; those that OAR's usual names
    stand for are not needed."""
    options: dict[str, list[str]] = {}
    usual = {"gpu_property": "gpu", "gpu_model_property": "gpu_model", "core_property": "core"}
    for ours, theirs in names.items():
        if ours == "host_property":
            continue
        if theirs and theirs != usual.get(ours):
            options[ours] = [theirs, "a property that oarnodes shows"]
    if names["memory_property"] or names["gpu_memory_property"]:
        options["memory_unit"] = [unit, "GUESSED: what these properties count in"]
    if not names["core_property"]:
        options["core_property"] = ["resource_id", "GUESSED: oarnodes shows no cores"]
    return options


def default_queue(found: Sequence[Mapping[str, Any]], names: Mapping[str, str], unit: str) -> FoundPartition:
    """The default queue, with every node there is."""
    size = 1 << {"K": 10, "M": 20, "G": 30}[unit]
    nodes: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        nodes.setdefault(str(one.get(names["host_property"]) or one.get("network_address")), []).append(one)
    kinds: Counter[tuple[int, int, tuple[tuple[str, int, int], ...]]] = Counter()
    for rows in nodes.values():
        cores = len({row.get(names["core_property"]) for row in rows}) if names["core_property"] else len(rows)
        memory = max(_number(row.get(names["memory_property"])) for row in rows) * size
        kinds[cores, memory, _gpus(rows, names, size)] += 1
    return {
        "name": "default",
        "is_default": True,
        "is_preemptible": False,
        "refusal": "",
        "max_time": None,
        "default_time": None,
        "max_nodes": None,
        "limits": {},
        "options": {},
        "kinds": [_kind(count, *one) for one, count in sorted(kinds.items())],
    }


def _kind(nodes: int, cores: int, memory: int, gpus: tuple[tuple[str, int, int], ...]) -> Kind:
    listed: list[FoundGpus] = [{"type": one, "count": count, "memory": size} for one, count, size in gpus]
    return {"nodes": nodes, "cores": cores, "memory": memory, "gpus": listed}


def _gpus(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], size: int) -> tuple[tuple[str, int, int], ...]:
    """The GPUs of a node, of which each of its resources names one: model, count and memory."""
    found: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        gpu, model = row.get(names["gpu_property"]), row.get(names["gpu_model_property"])
        has_model = model not in _NONE and str(model) != "0"
        # 0 is the first device, or none
        if gpu in _NONE or (names["gpu_model_property"] and not has_model) or (str(gpu) == "0" and not has_model):
            continue
        memory = _number(row.get(names["gpu_memory_property"])) * size
        found.setdefault((str(model) if has_model else "", memory), set()).add(str(gpu))
    return tuple(sorted((model, len(devices), memory) for (model, memory), devices in found.items()))


def _number(value: Any) -> int:
    text = str(value)
    return int(text) if text.isdecimal() else 0
