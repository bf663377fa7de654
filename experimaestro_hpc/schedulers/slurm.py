"""Slurm's commands on this machine. In: submissions, native ids. Out: native ids, statuses.

What they are asked is made in :mod:`.slurm_request`, and what they print is read in :mod:`.slurm_answers`.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import SubmissionError
from ..resources import ResourceError, Resources, parse_duration, parse_memory
from .base import NoInformation, NoRoom, NotReached, Request, Status, Submission, Unclear
from .command import Answer, Commands, CommandScheduler, SharedText
from .pyslurm_query import Pyslurm
from .slurm_answers import (
    ACCOUNTING,
    complaint,
    is_known,
    parse_accounting,
    parse_queue,
    parse_shown,
    parse_submitted,
    read_accounting,
)
from .slurm_request import amounts, directive, exclude, options_of, ranges

#: ids on one command line; sites wrap sacct and limit its line
_CHUNK = 500

#: what ended a submission, in the words of the controller or of the way to it
_FAILED = re.compile(r"submission failed: (.*)")
#: sbatch has not asked: an option, the script or a site's filter is in the way; it then ends with one of these
_UNASKED = re.compile(r"(?m)^\S*sbatch\S*: (error: |fatal: |.*\boption\b)")
_UNASKED_CODES = (1, 255)
#: there are enough jobs: later there is room
_NO_ROOM = re.compile(
    "Submit(Job|Jobs)|MaxSubmit|MaxJobCount|temporarily unable to accept job|Resource temporarily unavailable|"
    "job queue full|Unable to create job record"
)
#: sbatch did not get as far as to ask
_NOT_REACHED = re.compile(r"submission failed: .*(connect failure|[Cc]onnection refused)|error: Munge encode failed")
#: no word about the job: the request or the reply may be lost, or the controller or its host is in trouble
_NO_ANSWER = re.compile(
    r"(?i)timed out|timeout|zero bytes|contact slurm|\bconnect(ion|ed)?\b|communication|\bmessage\b|\bsocket\b|protocol"
    r"|authenti|munge|credential|incompatible versions|version number|an address|file descriptor|header lengths"
    r"|would block|rate limit|shutting down|standby|no error|\bsuccess|nodes are busy|submissions disabled"
    r"|error writing|database|configuration (source|file)|slurm\.conf|fetch_config|\bDNS\b|shared librar"
)
#: the same in the words of the system under sbatch: all but those that come before anything is sent, and "no room"
_SYSTEM = {os.strerror(one) for one in errno.errorcode.keys() - {errno.EINVAL, errno.EPERM, errno.EACCES, errno.EAGAIN}}


def meaning(answer: Answer) -> Exception:
    """What an sbatch means that gave no job id: a refusal for good or for now, or nothing.

    A refusal is what says so: a job that is taken for refused, and runs, would run twice. But whatever the controller
    says of a job is one, since sites have words of their own.

    >>> meaning(Answer(1, "", "sbatch: error: Batch job submission failed: Invalid qos specification"))
    SubmissionError('Batch job submission failed: Invalid qos specification')
    """
    words = complaint(answer.err) or complaint(answer.out) or f"sbatch ended with exit status {answer.code}"
    failed = _FAILED.findall(answer.err)
    # libslurm's own lines tell of the connection
    told = [*failed[-1:], *re.findall(r"error: (slurm_.*)", answer.err)] if failed else answer.err.splitlines()
    if answer.code > 0 and parse_submitted(answer.out) is None:
        if any(_NO_ANSWER.search(line) for line in told) or (failed and failed[-1].strip() in _SYSTEM):
            kind = NotReached if _NOT_REACHED.search(answer.err) else NoInformation
            return kind(f"sbatch: {words}")
        if _NO_ROOM.search(words):
            return NoRoom(words.partition(";")[0])  # the limit's name; the rest is the same for all limits
        if failed or (answer.code in _UNASKED_CODES and _UNASKED.search(answer.err)):
            return SubmissionError(words, where="sbatch")
        if answer.code < 128:  # a wrapper of the site's
            return Unclear(f"sbatch: {words}")
    return NoInformation(f"sbatch: {words}")


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
        memory = options.get("mem")
        if isinstance(memory, int) or str(memory).isdigit():
            memory = f"{memory}M"  # Slurm's own unit
        return Resources(duration=_read(parse_duration, options.get("time")), memory=_read(parse_memory, memory))

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
        avoid = exclude(submission.avoid, _text(submission.script)) if submission.avoid else ""
        if avoid:
            argv.append(f"--exclude={avoid}")
        answer = self.commands.run([*argv, submission.script])
        self.cache.forget()
        native = parse_submitted(answer.out) if answer.code == 0 else None
        if native is not None:
            return self._elements(native, submission)
        error = meaning(answer)
        if avoid and isinstance(error, SubmissionError) and "Invalid node name" in error.what:
            return self.submit(replace(submission, avoid=()))  # a node whose own name is not Slurm's: anywhere, then
        raise error

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
        answer = self._sacct(rest) if rest else Answer(0, "", "")
        known.update(parse_accounting(answer.out, rest) if answer.code == 0 else {})
        # elements that never started are known by their array only
        arrays = sorted({one.partition("_")[0] for one in native_ids if "_" in one and one not in known})
        if arrays and answer.code == 0:
            answer = self._sacct(arrays)
            known.update(parse_accounting(answer.out, [one for one in native_ids if one not in known]))
        if answer.code == 0:
            return known
        if "disabled" in answer.err or not self._has_sacct():
            self.has_accounting = False
            self.notes.append("no accounting here (sacct): how killed jobs ended is known from squeue alone")
        return known  # no information of the others, and squeue and the markers have theirs

    def _sacct(self, native_ids: Sequence[str]) -> Answer:
        argv = ["sacct", "-n", "--parsable2", "-o", ACCOUNTING, "-j", ",".join(native_ids)]
        try:
            return self.commands.run(argv, extra={"SLURM_BITSTR_LEN": "0"})  # lists of elements are not cut short
        except NoInformation as error:
            return Answer(1, "", str(error))

    def _has_sacct(self) -> bool:
        return shutil.which("sacct", path=self.commands.environ.get("PATH")) is not None

    def _note_unknown(self, out: str) -> None:
        """Tell once of a state that this version does not know; jobs in it are watched on."""
        for line in out.splitlines():
            state = line.split("|")[1] if re.match(r"\s*\d\S*\|[^|]+\|.*\|.*\|", line) else "RUNNING"
            if not is_known(state) and state not in self.unknown_states:
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


def _read(parse: Callable[[str], int], value: object) -> int | None:
    """An amount; None for "UNLIMITED", for 0 (all memory), and for what sbatch will complain of."""
    try:
        return parse(str(value)) if value else None
    except ResourceError:
        return None


def _text(script: str) -> str:
    """The text of a script; "" if it cannot be read, as sbatch will say."""
    try:
        return Path(script).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
