"""What Slurm says of its partitions and of what a user may ask. In: what its commands printed. Out: facts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..resources import ResourceError, parse_duration
from .site import FoundGpus, FoundPartition, Kind
from .slurm_answers import fields_of

#: a line for each partition and each kind of node in it; partitions that are hidden from this user are not shown
SINFO = ["sinfo", "-h", "-e", "-o", "%P|%a|%l|%D|%c|%m|%G"]
SCONTROL_PARTITIONS = ["scontrol", "show", "partition", "-o"]
SCONTROL_CONFIG = ["scontrol", "show", "config"]
#: names of nodes; a login node among them is a node itself
SINFO_HOSTS = ["sinfo", "-h", "-N", "-o", "%N"]


def accounting(user: str, cluster: str) -> list[str]:
    """The command that shows a user's associations on a cluster."""
    where = [f"user={user}", *([f"cluster={cluster}"] if cluster else [])]
    return ["sacctmgr", "-nP", "show", "assoc", "where", *where, "format=Account,Partition,QOS,DefaultQOS"]


def default_account(user: str) -> list[str]:
    """The command that shows a user's default account."""
    return ["sacctmgr", "-nP", "show", "user", user, "format=DefaultAccount"]


class Rights(NamedTuple):
    """What a user may ask for.

    :param partitions: those that the accounts are for; empty: any
    :param account: the default one
    """

    accounts: list[str]
    partitions: list[str]
    qos: list[str]
    default_qos: str
    account: str = ""


def parse_gpus(gres: str) -> list[FoundGpus]:
    """The GPUs in sinfo's ``%G``.

    >>> [(one["type"], one["count"]) for one in parse_gpus("gpu:a100:4(S:0,1),gpu:2,mps:100")]
    [('a100', 4), ('', 2)]
    """
    found: list[FoundGpus] = []
    for one in re.sub(r"\([^)]*\)", "", gres).split(","):
        kind, *words = one.strip().split(":")
        if kind != "gpu":
            continue
        count = int(words.pop()) if words and words[-1].isdecimal() else 1
        if count:
            found.append({"type": words[0] if words else "", "count": count, "memory": 0})
    return found


def parse_time(text: str) -> int | None:
    """A time limit in seconds; ``None`` for none."""
    try:
        return parse_duration(text)
    except ResourceError:  # infinite, UNLIMITED, NONE, n/a
        return None


def parse_kinds(out: str) -> tuple[list[str], dict[str, list[Kind]], dict[str, str]]:
    """What sinfo printed: the partitions in its order, the default one marked by ``*``; the kinds of nodes of each;
    and its state and time limit."""
    names: list[str] = []
    kinds: dict[str, list[Kind]] = {}
    rest: dict[str, str] = {}
    for line in out.splitlines():
        fields = line.strip().split("|", 6)
        if len(fields) != 7:
            continue
        marked, state, limit, nodes, cores, memory, gres = fields
        name = marked.rstrip("*")
        if name not in kinds:
            names.append(marked)
            kinds[name], rest[name] = [], f"{state}|{limit}"
        kind: Kind = {
            "nodes": _number(nodes),
            "cores": _number(cores),
            "memory": _number(memory) << 20,
            "gpus": parse_gpus(gres),
        }
        if kind["nodes"]:
            kinds[name].append(kind)
    return names, kinds, rest


def _number(text: str) -> int:
    found = re.match(r"\d+", text)  # 16+ where it could not tell nodes apart
    return int(found.group()) if found else 0


def parse_shown_partitions(out: str) -> dict[str, dict[str, str]]:
    """What ``scontrol show partition -o`` printed: the settings of each partition by their names."""
    found = {}
    for line in out.splitlines():
        settings = fields_of(line)
        if "PartitionName" in settings:
            found[settings["PartitionName"]] = settings
    return found


def parse_config(out: str) -> dict[str, str]:
    """What ``scontrol show config`` printed, by name."""
    return dict(re.findall(r"(?m)^(\w+)\s*= (.*?)\s*$", out))


def parse_rights(out: str) -> Rights:
    """What sacctmgr printed of a user's associations, with ``Account|Partition|QOS|DefaultQOS``."""
    rows = [line.split("|") for line in out.splitlines() if line.count("|") == 3]
    partitions = [row[1] for row in rows]
    return Rights(
        accounts=list(dict.fromkeys(row[0] for row in rows if row[0])),
        partitions=list(dict.fromkeys(partitions)) if all(partitions) else [],
        qos=list(dict.fromkeys(one for row in rows for one in row[2].split(",") if one)),
        default_qos=next((row[3] for row in rows if row[3]), ""),
    )


def partitions(sinfo: str, scontrol: str, rights: Rights) -> list[FoundPartition]:
    """The partitions that this user sees, in Slurm's order.

    :param scontrol: what it printed of partitions; without it, sinfo's word is all there is
    """
    names, kinds, rest = parse_kinds(sinfo)
    shown = parse_shown_partitions(scontrol)
    tiers = [_number(one.get("PriorityTier", "1")) for one in shown.values()]
    found: list[FoundPartition] = []
    for marked in names:
        name = marked.rstrip("*")
        state, _, limit = rest[name].partition("|")
        settings = shown.get(name, {})
        can_preempt = settings.get("PreemptMode", "OFF") not in ("OFF", "SUSPEND", "GANG")
        found.append(
            {
                "name": name,
                "is_default": marked.endswith("*"),
                "is_preemptible": can_preempt and _number(settings.get("PriorityTier", "1")) < max(tiers),
                "refusal": refusal(state, settings, rights) if kinds[name] else "it has no nodes",
                "max_time": parse_time(settings.get("MaxTime", limit)),
                "default_time": parse_time(settings.get("DefaultTime", "NONE")),
                "max_nodes": _limit(settings, "MaxNodes"),
                "limits": _limits(settings),
                "options": options(settings, rights),
                "kinds": kinds[name],
            }
        )
    return found


def refusal(state: str, settings: Mapping[str, str], rights: Rights) -> str:
    """Why a partition takes no jobs of this user, in words; "" if it does, as far as can be told.

    :param state: sinfo's: up, down, drain, inact
    """
    if state != "up":
        return f"it is {state}"
    if rights.partitions and settings.get("PartitionName", "") not in ("", *rights.partitions):
        return "none of your accounts is for it"
    for what, mine in (("Accounts", rights.accounts), ("Qos", rights.qos)):
        allowed, denied = _listed(settings.get(f"Allow{what}")), _listed(settings.get(f"Deny{what}"))
        word = "accounts" if what == "Accounts" else "QOS"
        if mine and allowed is not None and not set(mine) & set(allowed):
            return f"it is for the {word} {', '.join(allowed[:5])}{', …' if len(allowed) > 5 else ''}"
        if mine and denied is not None and set(mine) <= set(denied):
            return f"it is not for your {word}"
    return ""


def options(settings: Mapping[str, str], rights: Rights) -> dict[str, str]:
    """What this user's jobs must say to run in a partition: another account or QOS than they get by themselves.

    >>> options({"AllowQos": "gpu,long"}, Rights(["lab"], [], ["normal", "gpu"], "normal"))
    {'qos': 'gpu'}
    """
    found = {}
    for option, what, mine, usual in (
        ("account", "Accounts", rights.accounts, rights.account),
        ("qos", "Qos", rights.qos, rights.default_qos),
    ):
        allowed = _listed(settings.get(f"Allow{what}"))
        fit = [one for one in mine if allowed is None or one in allowed]
        if fit and usual and usual not in fit:
            found[option] = fit[0]
    return found


def _listed(text: str | None) -> list[str] | None:
    return None if text in (None, "", "ALL", "(null)") else str(text).split(",")


def _limit(settings: Mapping[str, str], name: str) -> int | None:
    text = settings.get(name, "")
    return int(text) if text.isdecimal() and int(text) else None


def _limits(settings: Mapping[str, str]) -> dict[str, int]:
    cores, memory = _limit(settings, "MaxCPUsPerNode"), _limit(settings, "MaxMemPerNode")
    return {**({"cores": cores} if cores else {}), **({"memory": memory << 20} if memory else {})}


def hosts(out: str) -> Sequence[str]:
    """The names of nodes that sinfo printed, each once, short."""
    return sorted({line.strip().partition(".")[0] for line in out.splitlines() if line.strip()})
