"""What Slurm's commands print. In: texts of sbatch, squeue, sacct and scontrol. Out: native ids, statuses. Pure.

A native id is a job id, ``17``, or an array element, ``17_3``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from .base import Status
from .pyslurm_query import Row

#: what is asked of sacct; the name last, since it is the only one that could hold a |
ACCOUNTING = "JobID,State,ExitCode,NodeList,Reason,MaxRSS,TotalCPU,AllocTRES,JobName"
#: what `jobs why` is told of a job that waits
EXPLAINED = (
    "JobState",
    "Reason",
    "Partition",
    "QOS",
    "Account",
    "Priority",
    "TimeLimit",
    "SubmitTime",
    "EligibleTime",
    "StartTime",
    "NumNodes",
    "NumCPUs",
    "ReqTRES",
    "MinMemoryNode",
    "TresPerNode",
    "Dependency",
    "Restarts",
)
#: what Slurm calls the ends of jobs, and what we call them
_ENDS = {
    "COMPLETED": "",
    "FAILED": "exit",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node_fail",
    "BOOT_FAIL": "node_fail",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
}
_LIVE = {
    "PENDING": "queued",
    "REQUEUED": "queued",
    "REQUEUE_FED": "queued",
    "CONFIGURING": "queued",
    "REQUEUE_HOLD": "held",
    "SPECIAL_EXIT": "held",
    "RESV_DEL_HOLD": "held",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SUSPENDED": "running",
    "STOPPED": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "RESIZING": "running",
}
_HELD = ("JobHeldUser", "JobHeldAdmin", "launch failed requeued held", "job requeued in held state")


def parse_submitted(out: str) -> str | None:
    """The job id in what ``sbatch --parsable`` printed, past any noise: ``17`` or ``17;cluster``."""
    for line in reversed(out.splitlines()):
        found = re.fullmatch(r"\s*(\d+)(;\S+)?\s*", line)
        if found:
            return found.group(1)
    return None


def complaint(err: str) -> str:
    """What a command of Slurm's complains of, on one line without its own name."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line.strip()) for line in err.splitlines()]
    return "; ".join(line for line in lines if line)[:500]


def expand(native: str, wanted: Iterable[str]) -> list[str]:
    """The elements among ``wanted`` that squeue's ``17_[0-3,7%2]`` stands for; others stand for themselves."""
    found = re.fullmatch(r"(\d+)_\[(.*?)(?:%\d+)?\]", native)
    if not found:
        return [native]
    base, text = found.groups()
    if text.endswith("..."):  # squeue cut the list: the others are asked for again later
        text = text[: text.rfind(",")] if "," in text else ""
    ranges = []
    for part in filter(None, text.split(",")):
        numbers = re.fullmatch(r"(\d+)(?:-(\d+))?(?::(\d+))?", part)
        if numbers:
            first = int(numbers.group(1))
            last = int(numbers.group(2) or first)
            ranges.append(range(first, last + 1, int(numbers.group(3) or 1)))
    chosen = []
    for one in wanted:
        id_, _, index = one.partition("_")
        if id_ == base and index.isdigit() and any(int(index) in span for span in ranges):
            chosen.append(one)
    return chosen


def parse_queue(out: str, wanted: Sequence[str]) -> dict[str, Status]:
    """The jobs in what squeue printed with ``-o '%i|%T|%r|%N|%j'``, of those in ``wanted``."""
    found: dict[str, Status] = {}
    names = set(wanted)
    for line in out.splitlines():
        fields = line.strip().split("|", 4)
        if len(fields) != 5:
            continue
        native, state, reason, host, name = fields
        status = replace(queue_status(state, reason, host), name=name)
        for one in expand(native, wanted):
            if one in names:
                found[one] = status
    return found


def queue_status(state: str, reason: str, host: str) -> Status:
    """What a state of squeue's means; a job that has just ended is still listed, without its exit code."""
    word = state.split()[0].rstrip("+") if state.strip() else ""
    host = "" if host == "n/a" else host
    if word in _ENDS:
        # "Dependency" alone is why it waited when somebody cancelled it
        ours = "dependency" if word == "CANCELLED" and reason == "DependencyNeverSatisfied" else _ENDS[word]
        return Status("ended", ours, detail=word, host=host)
    ours = _LIVE.get(word, "running")
    if ours == "queued" and any(reason.startswith(held) for held in _HELD):
        ours = "held"
    return Status(ours, detail="" if reason in ("None", "(null)") else reason, host=host)


def parse_accounting(out: str, wanted: Sequence[str]) -> dict[str, Status]:
    """The jobs in what sacct printed with ``-o ACCOUNTING --parsable2``, of those in ``wanted``."""
    return read_accounting((line.strip().split("|", 8) for line in out.splitlines()), wanted)


def read_accounting(rows: Iterable[Row], wanted: Sequence[str]) -> dict[str, Status]:
    """The jobs in rows of what :data:`ACCOUNTING` names, of those in ``wanted``; memory is that of steps.

    Elements of an array that were cancelled before they started are one row: ``17_[2-4]``, or for the whole ``17``.
    A job that fails since a step that its script started was killed for its memory is FAILED for Slurm.
    """
    found: dict[str, Status] = {}
    largest: dict[str, int] = {}
    too_large = set()
    names = set(wanted)
    for fields in rows:
        native = fields[0].partition(".")[0]
        if len(fields) != 9:
            continue
        _, state, exit_code, host, reason, memory, cpu, tres, name = fields
        if host == "None assigned" and native not in names:  # elements that never started
            status = ended_status(state, exit_code, host, reason)
            known = expand(f"{native}_[0-{sys.maxsize}]" if native.isdigit() else native, wanted)
            found.update({one: replace(status, name=name) for one in known if one not in found} if status else {})
        if native not in names:
            continue
        largest[native] = max(largest.get(native, 0), parse_size(memory))
        if state == "OUT_OF_MEMORY":
            too_large.add(native)
        status = ended_status(state, exit_code, host, reason) if native == fields[0] else None
        if status is not None:
            found[native] = replace(status, name=name, used=used_of(cpu, tres))
    for native, status in found.items():
        used = {**status.used, "max_rss": largest[native]} if largest.get(native) else status.used
        reason = "out_of_memory" if status.reason == "exit" and native in too_large else status.reason
        found[native] = replace(status, used=used, reason=reason)
    return found


def used_of(cpu: str, tres: str) -> dict[str, float | str]:
    """What sacct says that a job used: ``TotalCPU`` (``1-02:03:04``, ``03:04.567``) and the GPUs in ``AllocTRES``."""
    used: dict[str, float | str] = {}
    clock = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", cpu)
    if clock:
        days, hours, minutes, seconds = clock.groups()
        used["cpu"] = int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
    gpus = re.search(r"(?:^|,)gres/gpu=(\d+)", tres)
    if gpus:
        used["gpus"] = gpus.group(1)
    return used


def parse_size(text: str) -> int:
    """The bytes in a size of sacct's: ``123K``, ``1.5M``, ``77``; 0 for none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    return int(float(found.group(1)) * 1024 ** " KMGT".index(found.group(2) or " ")) if found else 0


def fields_of(line: str) -> dict[str, str]:
    """What a line of ``scontrol show … -o`` says, by name."""
    return dict(re.findall(r"(?:^| )(\w+)=(\S*)", line))


def parse_shown(out: str) -> dict[str, str]:
    """The first job in what ``scontrol show job -o`` printed: the fields that say why it waits."""
    line = next(iter(out.splitlines()), "")
    found = fields_of(line)
    return {name: found[name] for name in EXPLAINED if found.get(name) not in (None, "", "(null)", "Unknown", "N/A")}


#: the signal that Slurm's accounts have of a job that was not started, as its log could not be opened
_NO_LOG = 53
_NO_LOG_WORDS = (
    "its node could not open its log: it may not see the workdir (then: nodes = 'staged' in [mirror] of the launcher"
    " file), or the disk is full"
)


def ended_status(state: str, exit_code: str, host: str, reason: str) -> Status | None:
    """What a state of sacct's means; None for one that lags behind or is not known: no information."""
    word = state.split()[0].rstrip("+") if state.strip() else ""
    if word not in _ENDS:
        return None
    code, _, signal = exit_code.partition(":")
    number = int(code) if code.isdigit() else None
    if signal.isdigit() and int(signal):
        number = 128 + int(signal)
    ours = _ENDS[word]
    if word == "CANCELLED" and " by " not in state and (reason.startswith("Dependency") or host == "None assigned"):
        ours = "dependency"  # "CANCELLED by 1001" was somebody; the later series give no reason
    if word == "FAILED" and number in (126, 127):
        ours = "launch"
    detail = state if reason in ("None", "") else f"{state} ({reason})"
    if word == "FAILED" and number is not None and 128 < number <= 128 + 64:
        detail = f"killed by signal {number - 128}"
        if number - 128 == _NO_LOG:
            ours, detail = "launch", _NO_LOG_WORDS
    return Status(
        "ended",
        reason=ours,
        detail=detail,
        exit_code=number,
        host="" if host == "None assigned" else host,
    )


def is_known(state: str) -> bool:
    """Whether squeue's word for a state is one that has a meaning here."""
    return state in _LIVE or state in _ENDS
