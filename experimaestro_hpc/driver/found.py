"""A launcher file from what a look at a cluster has found. In: facts. Out: TOML that a person can read and edit. Pure.

Every value that the facts do not settle has a comment with the word GUESSED.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..resources import format_duration, format_memory
from ..schedulers.site import Folder, FoundGpus, FoundPartition, Kind, SchedulerFacts, Software
from .launcher import Connector

#: the word by which a guess can be found
GUESSED = "GUESSED"
#: columns of a line
_WIDTH = 110
#: where the comment after a setting begins
_COLUMN = 40
#: bytes under which a home directory is too small for results, if there is another place
_SMALL = 20 << 30
#: GB of memory by what is in the name of a GPU, where the name tells; the least, where it comes in several sizes
_GPU_MEMORY = (
    *(("gh200", 96), ("h200", 141), ("h100", 80), ("b200", 180), ("mi300", 192), ("mi250", 64), ("mi210", 64)),
    *(("a100", 40), ("a6000", 48), ("a5000", 24), ("a4000", 16), ("a40", 48), ("a30", 24), ("a10", 24), ("a2", 16)),
    *(("l40", 48), ("l4", 24), ("v100", 16), ("p100", 12), ("k80", 12), ("t4", 16), ("rtx8000", 48)),
    *(("rtx6000", 24), ("4090", 24), ("3090", 24), ("3080", 10), ("2080ti", 11), ("2080", 8), ("1080ti", 11)),
)


@dataclass(frozen=True)
class Found:
    """What a look has found.

    :ivar host: the name that the login node gives itself
    :ivar workdir: the one that was asked for; empty: the best of the folders
    """

    host: str
    scheduler: SchedulerFacts
    folders: Sequence[Folder]
    software: Software
    workdir: str = ""


def launcher_text(name: str, connector: Connector, found: Found, day: str) -> str:
    """The text of a launcher file.

    :param name: the launcher's, for its head
    :param day: of the look, for its head
    """
    scheduler = found.scheduler
    what = scheduler["version"] or scheduler["name"]
    head = [
        *_remark(f"{what} on {found.host}, as `xpm-hpc launchers add` found it on {day}. The file is yours to edit."),
        *_remark(f"What could not be seen says {GUESSED}. Afterwards: xpm-hpc launchers check {name} --job"),
        *(line for note in scheduler["notes"] for line in _remark(f"Not seen: {note}")),
    ]
    parts = [
        head,
        _top(found),
        _connector(connector),
        _environment(found),
        _defaults(scheduler),
        *_partitions(scheduler),
        _mirror(found),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


# --- Lines


def text(value: str) -> str:
    """A TOML string; what no setting may hold is left out of it.

    >>> print(text('a "quoted" name'))
    "a \\"quoted\\" name"
    """
    return json.dumps("".join(one for one in value if one.isprintable()), ensure_ascii=False)


def _remark(words: str) -> list[str]:
    """A comment, in as many lines as it needs."""
    plain = "".join(one if one.isprintable() else " " for one in words)
    return textwrap.wrap(
        plain, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _setting(key: str, value: str, remark: str = "", *, is_off: bool = False) -> list[str]:
    """A setting with a remark behind it, or before it where it is long."""
    line = f"{'#' if is_off else ''}{key} = {value}"
    if not remark:
        return [line]
    behind = f"{line:<{_COLUMN - 1}} {_remark(remark)[0]}"
    if len(_remark(remark)) > 1 or len(behind) > _WIDTH:
        return [*_remark(remark), line]
    return [behind]


# --- The parts


def best_folder(folders: Sequence[Folder]) -> Folder:
    """Where to work: what other hosts see and that has room, in the order of the folders; the home directory first,
    unless it is small."""
    seen = [one for one in folders if one["is_network"] and one["can_write"]]
    roomy = [one for one in seen if one["left"] is None or one["left"] >= _SMALL]
    return (roomy or seen or list(folders))[0]


def workdir_of(found: Found) -> tuple[str, Folder]:
    """The workdir, as the launcher file says it, and the folder that it is in."""
    folder = best_folder(found.folders)
    return (found.workdir or f"{folder['spelling']}/xpm"), folder


def _room(folder: Folder) -> str:
    words = [f"{folder['kind'] or 'a file system of unknown type'}"]
    if folder["left"] is not None:
        words.append(f"{_round(folder['left'])} left")
    if folder["quota"]:
        words.append(f"quota {_round(folder['quota'])}")
    return ", ".join(words)


def _round(size: int) -> str:
    """Bytes for people."""
    for unit, power in (("TB", 40), ("GB", 30), ("MB", 20)):
        if size >= 10 << power or (unit != "TB" and size >= 1 << power):
            return f"{size >> power} {unit}"
    return "less than 1 MB"


def _top(found: Found) -> list[str]:
    workdir, folder = workdir_of(found)
    lines = _setting("scheduler", text(found.scheduler["name"]))
    lines += _setting("workdir", text(workdir), f"{_room(folder)}; ~ and $VARIABLES are expanded there")
    if folder is not found.folders[0]:
        why = "has little room" if found.folders[0]["is_network"] else "may be this host's own disk"
        lines += _remark(f"{GUESSED}: here and not in ~, which {why}. Does the site delete old files here?")
    others = [f"{one['spelling']} ({_room(one)})" for one in found.folders if one is not folder]
    if others:
        lines += _remark(f"Other places: {'; '.join(others)}.")
    return lines


def _connector(connector: Connector) -> list[str]:
    lines = ["[connector]", *_setting("type", text(connector.type))]
    if connector.type == "ssh":
        lines += _setting("host", text(connector.host), "looked up in ~/.ssh/config: user, port, keys, ProxyJump")
        if connector.transport == "auto":
            lines += _setting("transport", '"auto"', "auto | paramiko | openssh", is_off=True)
        else:
            lines += _setting("transport", text(connector.transport))
    return lines


def _is_new_enough(version: str) -> bool:
    return [int(one) for one in version.split(".")[:2]] >= [3, 9]


def best_python(software: Software) -> tuple[str, str]:
    """The command of the Python for tasks, and its version; the usual one, if that is new enough. "" if none is."""
    fit = [one for one in software["pythons"] if _is_new_enough(one["version"])]
    return (fit[0]["command"], fit[0]["version"]) if fit else ("", "")


def _environment(found: Found) -> list[str]:
    software, lines = found.software, ["[environment]"]
    python, version = best_python(software)
    is_node = is_shared_for_certain(found) or found.scheduler["name"] == "local"
    if python:
        there = f"{version} on {found.host}"
        lines += _setting("python", text(python), there if is_node else f"{there}; {GUESSED}: the same on the nodes")
    else:
        seen = ", ".join(f"{one['command']} is {one['version']}" for one in software["pythons"]) or "none"
        lines += _setting(
            "python", '"/path/to/python3.11"', f"NEEDED: no Python 3.9 or newer on PATH ({seen})", is_off=True
        )
    lines += _setting("setup", '["source ~/venv/bin/activate"]', "lines of shell before every task", is_off=True)
    managers = "uv | venv | conda | module | apptainer; see docs/environments.md"
    if software["tools"]:
        managers += f"; there are {', '.join(software['tools'])}"
    lines += _setting("manager", '"uv"', managers, is_off=True)
    if software["has_modules"]:
        some = software["modules"] or ["python/3.11"]
        chosen = next((one for one in some if one.lower().startswith(("python", "ana", "mini"))), some[0])
        names = f"there are {', '.join(software['modules'])}" if software["modules"] else "see `module avail`"
        lines += _setting(
            "modules", f"[{text(chosen)}]", f"loaded before every task, with any manager; {names}", is_off=True
        )
    return lines


def _defaults(scheduler: SchedulerFacts) -> list[str]:
    if scheduler["name"] == "slurm":
        return ["# sbatch's own options, by their own names.", "[defaults]", *_slurm_defaults(scheduler)]
    if scheduler["name"] != "oar":
        return []
    lines = ["# oarsub's own options by their own names, and what this site calls things.", "[defaults]"]
    lines += _setting("project", '"myproject"', is_off=True)
    lines += _setting("walltime", '"1:00"', "hours:minutes, for tasks that do not say", is_off=True)
    for option, (value, why) in scheduler["options"].items():
        lines += _setting(option, text(value), why)
    return lines


def _slurm_defaults(scheduler: SchedulerFacts) -> list[str]:
    lines, accounts, qos = [], scheduler["accounts"], scheduler["qos"]
    account = scheduler["account"] if scheduler["account"] in accounts else (accounts or [""])[0]
    others = ", ".join(one for one in accounts if one != account)
    if others and scheduler["account"]:
        lines += _setting("account", text(account), f"your default; also yours: {others}")
    elif others:
        lines += _setting("account", text(account), f"{GUESSED}: the first of yours; the others: {others}")
    elif account:
        lines += _setting("account", text(account), "your only one, which Slurm takes by itself", is_off=True)
    elif scheduler["needs_account"]:
        why = "NEEDED: Slurm takes jobs with an account only, and none of yours was seen"
        lines += _setting("account", '"myproject"', why, is_off=True)
    else:
        lines += _setting("account", '"myproject"', is_off=True)
    if len(qos) > 1 or scheduler["default_qos"]:
        usual = scheduler["default_qos"] or qos[0]
        lines += _setting("qos", text(usual), f"yours: {', '.join(qos) or usual}", is_off=True)
    default = next((one for one in scheduler["partitions"] if one["is_default"]), None)
    otherwise = "what a task gets that does not say"
    if default is not None:
        limit = default["default_time"] or default["max_time"]
        otherwise += f"; without it {format_duration(limit) if limit else 'no limit'} in {default['name']}"
    return lines + _setting("time", '"1:00:00"', otherwise, is_off=True)


# --- Partitions


def _partitions(scheduler: SchedulerFacts) -> list[list[str]]:
    all_ = scheduler["partitions"]
    if not all_:
        if scheduler["name"] == "local":
            return []
        return [_remark("No partitions were seen: what a task asks for is passed on, and not checked before.")]
    usable = sorted(
        (one for one in all_ if not one["refusal"]),
        key=lambda one: (not one["is_default"], one["is_preemptible"], any(kind["gpus"] for kind in one["kinds"])),
    )
    intro = "The first of these that has what a task asks for is chosen, so their order matters. What is left out "
    intro += "is not checked, and no GPUs means none."
    entries = [entry for one in usable for entry in divided(one, {other["name"] for other in all_})]
    parts = [_remark(intro), *(_partition(one, scheduler["name"]) for one in entries)]
    refused = [f"Not for you: {one['name']}, since {one['refusal']}." for one in all_ if one["refusal"]]
    return [*parts, [line for words in refused for line in _remark(words)]]


def divided(partition: FoundPartition, names: Collection[str]) -> list[FoundPartition]:
    """A partition with nodes of several types of GPU as one for each, which name it in their options.

    :param names: of all partitions, which the new ones must differ from
    """
    types = sorted({tuple(sorted(one["type"] for one in kind["gpus"])) for kind in partition["kinds"]})
    if len([one for one in types if one]) < 2:
        return [partition]
    found: list[FoundPartition] = []
    for one in types:
        kinds = [kind for kind in partition["kinds"] if tuple(sorted(gpu["type"] for gpu in kind["gpus"])) == one]
        name = "-".join([partition["name"], *(word or "gpu" for word in dict.fromkeys(one))])
        while one and name in names:
            name += "-nodes"
        options = {"partition": partition["name"], **partition["options"]} if one else partition["options"]
        found.append({**partition, "name": name, "kinds": kinds, "options": options})
    return found


def _partition(partition: FoundPartition, scheduler: str) -> list[str]:
    kinds, limits = partition["kinds"], partition["limits"]
    count = sum(kind["nodes"] for kind in kinds)
    if scheduler == "oar":
        words = [f"{GUESSED}: OAR does not list its queues; this is the usual default"]
    else:
        words = ["Slurm's default"] if partition["is_default"] else []
    if partition["is_preemptible"]:
        words.append("jobs here may be preempted")
    lines = ["[[partitions]]", *_setting("name", text(partition["name"]), "; ".join(words))]
    if len(kinds) > 1:
        lines += _remark(f"Its nodes differ: {'; '.join(_kind_words(kind) for kind in kinds)}. Below: the largest.")
    if partition["max_time"]:
        lines += _setting("max_time", text(format_duration(partition["max_time"])))
    elif scheduler == "oar":
        lines += _setting("max_time", '"24:00:00"', "OAR does not tell its limit", is_off=True)
    cores = _least(max((kind["cores"] for kind in kinds), default=0), limits.get("cores"))
    if cores:
        lines += _setting("cores", str(cores))
    memory = _least(max((kind["memory"] for kind in kinds), default=0), limits.get("memory"))
    if memory:
        lines += _setting("memory", text(format_memory(memory)))
    lines += _gpus([gpus for kind in kinds for gpus in kind["gpus"]])
    nodes = _least(count, partition["max_nodes"])
    if nodes:
        lines += _setting("nodes", str(nodes))
    if partition["options"]:
        given = ", ".join(f"{name} = {text(value)}" for name, value in partition["options"].items())
        lines += _setting("options", f"{{ {given} }}", "what is said to the scheduler for it")
    return lines


def _least(found: int, limit: int | None) -> int:
    return min(found, limit) if found and limit else found or limit or 0


def _kind_words(kind: Kind) -> str:
    gpus = [f"{one['count']} GPUs{' ' + one['type'] if one['type'] else ''}" for one in kind["gpus"]]
    return ", ".join([f"{kind['nodes']} with {kind['cores']} cores", format_memory(kind["memory"]), *gpus])


def _gpus(found: Sequence[FoundGpus]) -> list[str]:
    if not found:
        return []
    types = sorted({one["type"] for one in found})
    values, remarks = [], []
    if len(types) == 1 and types[0]:
        values.append(f"type = {text(types[0])}")
    elif len(types) > 1:
        remarks.append(f"of several types: {', '.join(one or 'unnamed' for one in types)}; say gpu(model=…) for one")
    values.append(f"count = {max(one['count'] for one in found)}")
    sizes = {one["type"]: one["memory"] or guessed_memory(one["type"]) for one in found}
    if all(sizes.values()):
        values.append(f"memory = {text(format_memory(min(sizes.values())))}")
        if not all(one["memory"] for one in found):
            remarks.append(f"memory {GUESSED} from the name{'s' if len(types) > 1 else ''}")
    else:
        remarks.append('memory is not known: add memory = "80G" for tasks that say gpu(mem=…)')
    return _setting("gpus", f"{{ {', '.join(values)} }}", "; ".join(remarks))


def guessed_memory(model: str) -> int:
    """The memory of a GPU in bytes by its name, 0 if that tells nothing.

    >>> guessed_memory("NVIDIA A100-SXM4-80GB") >> 30, guessed_memory("A100-SXM4") >> 30, guessed_memory("FakeGPU")
    (80, 40, 0)
    """
    said = re.findall(r"(?<!\d)(\d{1,3}) ?gb", model.lower())
    if said:
        return int(said[-1]) << 30
    name = "".join(one for one in model.lower() if one.isalnum())
    return next((size << 30 for word, size in _GPU_MEMORY if word in name), 0)


def _mirror(found: Found) -> list[str]:
    _, folder = workdir_of(found)
    lines = ["[mirror]"]
    lines += _setting("pull", '["*.json", "metrics/**"]', "what comes back beside logs and records", is_off=True)
    lines += _setting("max_pull", '"50M"', "larger files stay on the cluster", is_off=True)
    if found.scheduler["name"] == "local":
        return lines
    return lines + _setting("nodes", '"shared"', _shared(found, folder))


def is_shared_for_certain(found: Found) -> bool:
    """Whether the nodes see the workdir, as far as this can be known: the login node is the only node."""
    hosts = found.scheduler["hosts"]
    return bool(hosts) and set(hosts) == {found.host.partition(".")[0]}


def _shared(found: Found, folder: Folder) -> str:
    if is_shared_for_certain(found):
        return "the only node is this host"
    if folder["is_network"]:
        return f"{GUESSED} from the type {folder['kind']}: the nodes see the workdir"
    kind = folder["kind"] or "its type"
    return f'{GUESSED}: the nodes see the workdir ({kind} does not tell; `check --job` does); if not: "staged"'


def guesses(content: str) -> int:
    """How many guesses a launcher file says it has."""
    return sum(GUESSED in line and f"says {GUESSED}" not in line for line in content.splitlines())
