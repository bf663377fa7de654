"""Slurm. In: requests, submissions, native ids. Out: ``#SBATCH`` lines, native ids, statuses.

The upper half is pure: directives and the reading of what sbatch, squeue and sacct print. The class at the end runs
them. A native id is a job id, ``17``, or an array element, ``17_3``.

Options in a launcher's ``[defaults]``, and in the ``options`` of a partition, are sbatch's, by their long names. What a
task asks for takes their place; ``false`` leaves an option out, whoever asks for it. One more is ours:

* ``gpu_flag`` (default ``--gres=gpu:{type}:{count}``): how GPUs are asked for here. ``{count}`` stands for their number
  on each node, ``{total}`` for that on all, ``{type}`` for the partition's name for them or, if it says none, for the
  model that the task names; without either, ``{type}:`` is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import LauncherError, SubmissionError
from ..resources import ResourceError, Resources, format_duration
from .base import NoInformation, NoRoom, NotReached, Request, Status, Submission
from .command import Answer, Commands, CommandScheduler, SharedText
from .pyslurm_query import Pyslurm, Row

#: how GPUs are asked for, where the launcher does not say
GPU_FLAG = "--gres=gpu:{type}:{count}"
#: ids on one command line; sites wrap sacct and limit its line
_CHUNK = 500
#: `-` for characters that Slurm's listings or file patterns would stumble over
_UNSAFE = re.compile(r"[^A-Za-z0-9._\[\]-]")
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]-]+")

#: sbatch said no, and would say no again
_FOR_GOOD = (
    "invalid",
    "not available",
    "can not be satisfied",
    "cannot be satisfied",
    "unrecognized",
    "not permitted",
    "unknown",
    "unable to open",
    "does not exist",
    "access denied",
    "not supported",
    "unsupported",
    "must be",
    "too long",
    "dependency problem",
    "violates accounting/qos policy",
)
#: sbatch said that there are enough jobs: later there is room
_NO_ROOM = r"Submit(Job|Jobs)|MaxSubmit|MaxJobCount|temporarily unable to accept job"
#: sbatch did not get as far as to ask
_NOT_REACHED = re.compile(r"Unable to contact slurm controller|[Cc]onnection refused|Munge encode failed")
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


def job_name(name: str, token: str) -> str:
    """A job name for Slurm: for people, and with the token for us."""
    return f"{_UNSAFE.sub('-', name)[:40]}-{token}"


def directive(option: str, value: object) -> str:
    """One ``#SBATCH`` line; ``True`` gives a flag.

    :raises LauncherError: a value that does not fit on one line
    """
    if value is True:
        return f"#SBATCH --{option}"
    text = ",".join(str(one) for one in value) if isinstance(value, (list, tuple)) else str(value)
    if any(ord(character) < 32 for character in text):
        raise LauncherError(f"option {option!r} has a control character in its value: {text!r}")
    if not _PLAIN.fullmatch(text):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"#SBATCH --{option}={text}"


def gpu_request(request: Request, flag: object = GPU_FLAG) -> tuple[str, str] | None:
    """sbatch's option for the GPUs asked for, and its value.

    :param flag: how GPUs are asked for here
    :raises LauncherError: that is no option with a value that says how many

    >>> gpu_request(Request("job", Resources(gpus=2, nodes=3), gpu_type="a100"), "--gpus={type}:{total}")
    ('gpus', 'a100:6')
    """
    count = request.resources.gpus
    if not count:
        return None
    found = re.fullmatch(r"--(gres|gpus|gpus-per-node)=([^{}]*(?:\{(?:type|count|total)\}[^{}]*)*)", str(flag))
    if not found or ("{count}" not in found[2] and "{total}" not in found[2]):
        hint = f"write it as one of these: {GPU_FLAG}, --gpus-per-node={{count}}, --gpus={{total}}"
        raise LauncherError(f"gpu_flag cannot be {flag!r:.80}", hint=hint)
    model = request.gpu_type or request.resources.gpu_model or ""
    text = found[2] if model else found[2].replace("{type}:", "").replace("{type}", "")
    return found[1], text.format(type=model, count=count, total=count * request.resources.node_count)


def options_of(request: Request) -> dict[str, object]:
    """All of sbatch's options for a request, the launcher's defaults first and the task's own wishes over them.

    :raises LauncherError: the ``gpu_flag`` is not understood
    """
    resources, given = request.resources, request.merged()
    flag = given.pop("gpu_flag", GPU_FLAG)
    options: dict[str, object] = {"job-name": _UNSAFE.sub("-", request.name)[:60], **given}
    if resources.cores:
        options["cpus-per-task"] = resources.cores
    if resources.memory:
        for other in ("mem-per-cpu", "mem-per-gpu"):  # sbatch refuses them together
            options.pop(other, None)
    options.update(amounts(resources))
    if resources.nodes and resources.nodes > 1:
        options["nodes"] = resources.nodes
    if resources.tasks_per_node:
        options.setdefault("nodes", 1)  # or they might be spread over several
        options["ntasks-per-node"] = resources.tasks_per_node
    gpus = gpu_request(request, flag)
    if gpus:
        for other in ("gpus", "gpus-per-node", "gpus-per-task", "gres"):
            options.pop(other, None)
        options[gpus[0]] = gpus[1]
    if request.warning and "signal" not in options:
        options["signal"] = f"B:USR2@{request.warning}"
    log = request.log.replace("%", "%%")
    if request.array and not log.startswith("/"):
        log = "%a.log"
    options.update(output=log, error=log, **{"open-mode": "append"})
    return {name: value for name, value in options.items() if given.get(name) is not False and value is not False}


def amounts(resources: Resources) -> dict[str, str]:
    """sbatch's options for the amounts that a later attempt may ask for anew."""
    options = {}
    if resources.duration:
        options["time"] = format_duration(resources.duration)
    if resources.memory:
        options["mem"] = f"{-(-resources.memory // 1024**2)}M"
    return options


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

    A job that fails since a step that its script started was killed for its memory is FAILED for Slurm.
    """
    found: dict[str, Status] = {}
    largest: dict[str, int] = {}
    too_large = set()
    names = set(wanted)
    for fields in rows:
        native = fields[0].partition(".")[0]
        if len(fields) != 9 or native not in names:
            continue
        _, state, exit_code, host, reason, memory, cpu, tres, name = fields
        largest[native] = max(largest.get(native, 0), parse_size(memory))
        if state == "OUT_OF_MEMORY":
            too_large.add(native)
        status = ended_status(state, exit_code, host, reason) if native == fields[0] else None
        if status is not None:
            found[native] = replace(status, name=name, used=used_of(cpu, tres))
    for native, status in found.items():
        used = {**status.used, "max_rss": largest[native]} if largest[native] else status.used
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


def parse_shown(out: str) -> dict[str, str]:
    """The first job in what ``scontrol show job -o`` printed: the fields that say why it waits."""
    line = next(iter(out.splitlines()), "")
    found = dict(re.findall(r"(?:^| )(\w+)=(\S*)", line))
    return {name: found[name] for name in EXPLAINED if found.get(name) not in (None, "", "(null)", "Unknown", "N/A")}


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
    return Status(
        "ended",
        reason=ours,
        detail=state if reason in ("None", "") else f"{state} ({reason})",
        exit_code=number,
        host="" if host == "None assigned" else host,
    )


class Slurm(CommandScheduler):
    """Slurm's commands on this machine, and pyslurm for queries where it can be used."""

    name = "slurm"
    command = "sbatch"
    arrays = True
    copies_script = True
    corresponds = True
    starter = "srun"

    def __init__(self, workspace: str, commands: Commands | None = None, pyslurm: Pyslurm | None = None) -> None:
        super().__init__(workspace, commands)
        self.pyslurm = pyslurm or Pyslurm.here(self.commands)
        # by user: squeue is asked for one's own jobs
        self.cache = SharedText(Path(workspace, ".xpm", "slurm", f"queue-{os.getuid()}.json"))
        self.has_accounting = True
        self.unknown_states: set[str] = set()

    @classmethod
    def default_amounts(cls, options: Mapping[str, Any]) -> Resources:
        duration, memory = options.get("time") or None, options.get("mem") or None
        if isinstance(memory, int) or str(memory).isdigit():
            memory = f"{memory}M"  # Slurm's own unit
        try:
            return Resources(duration=duration and str(duration), memory=memory and str(memory))
        except ResourceError:
            return Resources()  # sbatch will say what is wrong

    def largest_array(self) -> int:
        try:
            answer = self.commands.run(["scontrol", "show", "config"])
        except NoInformation:
            return super().largest_array()
        found = re.search(r"(?m)^MaxArraySize\s*=\s*(\d+)", answer.out)
        return max(1, int(found.group(1))) if answer.code == 0 and found else super().largest_array()

    def queries(self) -> str:
        return self.pyslurm.queries()

    @classmethod
    def directives(cls, request: Request) -> list[str]:
        return [directive(option, value) for option, value in options_of(request).items()]

    def submit(self, submission: Submission) -> list[str]:
        argv = [
            "sbatch",
            "--parsable",
            f"--job-name={submission.name}",
            f"--comment=xpm-hpc:{submission.token}",
            f"--chdir={submission.directory}",
        ]
        if submission.indexes:
            argv.append(f"--array={ranges(submission.indexes)}")
        if "%" in submission.directory:  # Slurm looks for its patterns in the folder as well
            log = f"{submission.directory.replace('%', '%%')}/{'%a.log' if submission.indexes else 'slurm.log'}"
            argv += [f"--output={log}", f"--error={log}"]
        waits = [
            f"{kind}:{':'.join(natives)}"
            for kind, natives in (("afterok", submission.dependencies), ("aftercorr", submission.corresponding))
            if natives
        ]
        if waits:
            argv += [f"--dependency={','.join(waits)}", "--kill-on-invalid-dep=yes"]
        if submission.resources is not None:
            argv += [f"--{name}={value}" for name, value in amounts(submission.resources).items()]
        if submission.delay:
            argv.append(f"--begin=now+{round(submission.delay)}")
        if submission.avoid:
            argv.append(f"--exclude={','.join(submission.avoid)}")
        answer = self.commands.run([*argv, submission.script])
        self.cache.forget()
        native = parse_submitted(answer.out) if answer.code == 0 else None
        if native is not None:
            return self._elements(native, submission)
        words = complaint(answer.err) or f"sbatch ended with exit status {answer.code}"
        if answer.code and re.search(_NO_ROOM, words):
            raise NoRoom(words.partition(";")[0])  # the limit's name; the rest is the same for all limits
        if answer.code and any(word in words.lower() for word in _FOR_GOOD):
            raise SubmissionError(words, where="sbatch")
        kind = NotReached if answer.code and _NOT_REACHED.search(words) else NoInformation
        raise kind(f"sbatch: {words}")

    def query(self, native_ids: Sequence[str], max_age: float = 0.0) -> dict[str, Status]:
        if not native_ids:
            return {}
        out = self.cache.read(max_age)
        if out is None:
            rows = self.pyslurm.queue()
            out = self._queue() if rows is None else "\n".join("|".join(row) for row in rows)
            self.cache.write(out)
        found = parse_queue(out, native_ids)
        self._note_unknown(out)
        vanished = [one for one in native_ids if one not in found or found[one].state == "ended"]
        for start in range(0, len(vanished), _CHUNK):
            for native, status in self._accounting(vanished[start : start + _CHUNK]).items():
                # sacct learns late why a job was cancelled; squeue has said it already
                if status.reason != "cancelled" or native not in found or found[native].reason != "dependency":
                    found[native] = status
        return found

    def _queue(self) -> str:
        argv = ["squeue", "--me", "-h", "-a", "-t", "all", "-o", "%i|%T|%r|%N|%j"]
        answer = self.commands.run(argv, extra={"SLURM_BITSTR_LEN": "0"})  # lists of elements are not cut short
        if answer.code:
            raise NoInformation(f"squeue: {answer.words}")
        return answer.out

    def _accounting(self, native_ids: Sequence[str]) -> dict[str, Status]:
        if not self.has_accounting:
            return {}
        rows, rest = self.pyslurm.accounting(native_ids)
        known = read_accounting(rows, native_ids)
        if not rest:
            return known
        argv = ["sacct", "-n", "--parsable2", "-o", ACCOUNTING, "-j", ",".join(rest)]
        try:
            answer = self.commands.run(argv)
        except NoInformation as error:
            answer = Answer(1, "", str(error))
        if answer.code == 0:
            return {**known, **parse_accounting(answer.out, rest)}
        if "disabled" in answer.err or not self._has_sacct():
            self.has_accounting = False
            self.notes.append("no accounting here (sacct): how killed jobs ended is known from squeue alone")
        return known  # no information of the others, and squeue and the markers have theirs

    def _has_sacct(self) -> bool:
        return shutil.which("sacct", path=self.commands.environ.get("PATH")) is not None

    def _note_unknown(self, out: str) -> None:
        """Tell once of a state that this version does not know; jobs in it are watched on."""
        for line in out.splitlines():
            state = line.split("|")[1] if re.match(r"\s*\d\S*\|[^|]+\|.*\|.*\|", line) else "RUNNING"
            if state not in _LIVE and state not in _ENDS and state not in self.unknown_states:
                self.unknown_states.add(state)
                self.notes.append(f"squeue reports {state!r}, which is not known here: such jobs count as running")

    def explain(self, native_id: str) -> dict[str, str]:
        answer = self.commands.run(["scontrol", "show", "job", "-o", native_id])
        if answer.code:
            raise NoInformation(f"scontrol: {answer.words}")
        return parse_shown(answer.out)

    def cancel(self, native_ids: Sequence[str]) -> None:
        for start in range(0, len(native_ids), _CHUNK):
            answer = self.commands.run(["scancel", "--quiet", *native_ids[start : start + _CHUNK]])
            if answer.code and "Invalid job id" not in answer.err:
                raise NoInformation(f"scancel: {answer.words}")
        self.cache.forget()

    def find(self, submission: Submission) -> list[str] | None:
        """By comment in squeue, then by name in sacct, which may lag: a job just accepted is in squeue."""
        answer = self.commands.run(["squeue", "--me", "-h", "-a", "-t", "all", "-o", "%F|%k|%j"])
        if answer.code:
            raise NoInformation(f"squeue: {answer.words}")
        for line in answer.out.splitlines():
            native, comment, name = ([*line.strip().split("|"), "", ""])[:3]
            if comment == f"xpm-hpc:{submission.token}" or name == submission.name:
                return self._elements(native, submission)
        day = time.strftime("%Y-%m-%d", time.localtime(time.time() - 86400 * 30))
        argv = ["sacct", "-n", "-X", "--parsable2", "-S", day, f"--name={submission.name}", "-o", "JobID"]
        if not self._has_sacct():
            return None  # a site without accounting: squeue is all there is to ask
        answer = self.commands.run(argv)
        if answer.code and "disabled" not in answer.err:
            raise NoInformation(f"sacct: {answer.words}")
        for line in answer.out.splitlines():
            native = line.strip().partition("_")[0]
            if native.isdigit():
                return self._elements(native, submission)
        return None

    @staticmethod
    def _elements(native: str, submission: Submission) -> list[str]:
        return [f"{native}_{index}" for index in submission.indexes] if submission.indexes else [native]


def ranges(indexes: Sequence[int]) -> str:
    """``[0, 1, 2, 5]`` as Slurm writes it: ``0-2,5``."""
    spans: list[list[int]] = []
    for index in sorted(indexes):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
