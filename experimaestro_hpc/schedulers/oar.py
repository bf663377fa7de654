"""OAR. In: requests, submissions, native ids. Out: ``#OAR`` lines, native ids, statuses.

The upper half is pure: the reading of what oarsub and oarstat print; what they are asked is in :mod:`.oar_request`,
with the options of launchers. The class at the end runs them. A native id is a job id; each element of an array has its
own.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import SubmissionError
from ..resources import Resources
from .base import NoInformation, Request, Status, Submission
from .command import Answer, CommandScheduler
from .oar_request import arguments, default_amounts, directives, parse_directives

#: a job or an event, as oarstat shows it in JSON
Shown = Mapping[str, Any]

#: ids in one question; oarstat makes some ten queries for each
_CHUNK = 500
#: seconds after which what an oarsub has not finished is what it has left behind
_LATE = 20.0
#: what the states before a job runs mean
_BEFORE = {**dict.fromkeys(("Waiting", "toAckReservation", "toLaunch", "Launching"), "queued"), "Hold": "held"}
_FINAL = ("Terminated", "Error")
#: events that tell why a job is in state Error. The first that it has counts: a time limit has a request too
_ENDS = {
    "WALLTIME": "timeout",
    "BESTEFFORT_KILL": "preempted",
    "FRAG_JOB_REQUEST": "cancelled",
    "WORKING_DIRECTORY": "launch",
    "OUTPUT_FILES": "launch",
}
#: those of trouble with a node; after most, OAR submits the job again by itself, under a new id
_NODE_TROUBLE = re.compile(
    "PING_CHECKER_NODE_SUSPECTED|CPUSET_ERROR|PROLOGUE_ERROR|CANNOT_WRITE_(NODE|PID)_FILE|USER_SHELL|"
    "CANNOT_CREATE_TMP_DIRECTORY|LAUNCHING_OAREXEC_TIMEOUT|EXIT_VALUE_OAREXEC|SSH_TRANSFER_TIMEOUT|"
    "BAD_HASHTABLE_DUMP|EXTERMINATE_JOB|FORCE_TERMINATE_FINISHING_JOB|SERVER_(PRO|EPI)LOGUE_.*"
)


def parse_submitted(out: str) -> list[str]:
    """The job ids in what oarsub printed, past any noise, in order; not those of refused jobs: negative."""
    return re.findall(r"^OAR_JOB_ID=(\d+)\s*$", out, re.MULTILINE)


def is_refusal(answer: Answer) -> bool:
    """Whether an oarsub that gave no job id says that it does not take the job."""
    if answer.code in (1, 8):  # 8 without a negative id: it is the database that failed
        return "option" in answer.err if answer.code == 1 else "OAR_JOB_ID=-" in answer.out
    return answer.code in (5, 6, 7, 12, 16) or answer.code >= 240


def complaint(answer: Answer) -> str:
    """What a command complains of, without what oarsub always says."""
    noise = ("[ERROR] Oarsub failed", "Simple array job")
    lines = [line for line in answer.err.splitlines() if not line.startswith(noise)]
    return " ".join(" ".join(lines).split())[:500] or answer.words or f"exit status {answer.code}"


def parse_jobs(out: str) -> dict[str, Shown]:
    """The jobs in what ``oarstat -J`` printed, by id. It prints nothing at all when it finds none.

    :raises NoInformation: this is no answer
    """
    if out.strip() in ("", "null"):
        return {}
    try:
        jobs, _ = json.JSONDecoder(strict=False).raw_decode(out, out.index("{"))
    except ValueError as error:
        raise NoInformation(f"oarstat: its answer is not understood: {error}") from error
    return {str(native): job for native, job in jobs.items() if isinstance(job, dict)}


def events_of(job: Shown) -> dict[str, Shown]:
    """What happened to a job: the last event of each type, in order of time."""
    events = [event for event in job.get("events") or () if isinstance(event, dict)]
    events.sort(key=lambda event: int(event.get("event_id") or 0))
    return {str(event.get("type")): event for event in events}


def successor(job: Shown) -> str | None:
    """The id under which OAR itself submitted a job again, after trouble with a node or a preemption."""
    event = events_of(job).get("RESUBMIT_JOB_AUTOMATICALLY", {})
    found = re.search(r"(?:=>|new id =)\s*(\d+)", str(event.get("description")))
    return found.group(1) if found and int(found.group(1)) > int(job.get("Job_Id") or 0) else None


def is_unmade(job: Shown) -> bool:
    """Whether a job that was not to be held is on hold, and nobody has held it: its oarsub had not finished it."""
    held = [name for name in events_of(job) if name.startswith("HOLD_")]
    return job.get("state") == "Hold" and not held


def without_karma(message: str) -> str:
    """A message, but not the summary that OAR makes of each job that it could place: ``R=1,W=0:1:0,J=B (Karma=…)``."""
    return "" if "Karma=" in message or re.match(r"R=\d+,W=", message) else message


def job_status(job: Shown) -> Status | None:
    """What oarstat's full description of a job means, or None if nothing can be told from it."""
    state, host = str(job.get("state") or ""), ",".join(job.get("assigned_network_address") or ())
    events = events_of(job)
    if state in _BEFORE:
        return Status(_BEFORE[state], detail=without_karma(str(job.get("message") or "")), host=host)
    if state not in _FINAL:
        return Status("running", detail="" if state == "Running" else state, host=host) if state else None
    troubles = [name for name in events if _NODE_TROUBLE.fullmatch(name)]
    if any(events[trouble].get("to_check") == "YES" for trouble in troubles):
        return Status("running", detail="OAR has yet to decide whether to submit it again", host=host)
    if state == "Terminated":
        return terminated_status(job.get("exit_code"), events, host)
    if not events:  # each has some: one of oarstat's queries failed, of which it says nothing
        return None
    cause = next((name for name in _ENDS if name in events), [*events, *troubles][-1])
    reason = _ENDS.get(cause) or ("node_fail" if troubles else "lost")
    words = re.sub(r"^\[[^\]]*\]\s*", "", str(events[cause].get("description") or cause)).strip()
    return Status("ended", reason=reason, detail=words, host=host)


def terminated_status(raw: object, events: Mapping[str, Shown], host: str) -> Status:
    """How a job ended that came to its own end, well or not, from the wait status of its shell."""
    if not isinstance(raw, int):
        return Status("ended", "lost", "OAR does not know how it ended", host=host)
    code, number = raw >> 8, raw & 127
    asker = str(events.get("CHECKPOINT", {}).get("description"))  # who had a signal sent
    cause = "timeout" if "(sarko)" in asker else "preempted" if "(metasched)" in asker else "exit"
    if number:
        return Status("ended", cause, f"killed by signal {number}", 128 + number, host)
    reason = {0: "", 99: cause, 126: "launch", 127: "launch"}.get(code, "exit")  # 99: it wanted to go on, and did not
    return Status("ended", reason, f"exit status {code}", code, host)


def shown_words(job: Shown, states: Mapping[str, Shown]) -> dict[str, str]:
    """What `jobs why` is told of a job that waits: OAR's own words by its own names, times in local time.

    :param states: the jobs that it waits for, as far as OAR knows them
    """
    names = ("state", "message", "queue", "project", "wanted_resources", "properties", "reservation")
    found = {name: str(job[name]).strip() for name in names if job.get(name) not in (None, "", "None")}
    found["types"] = ", ".join(map(str, job.get("types") or ()))
    needed = [str(one) for one in job.get("dependencies") or ()]
    found["dependencies"] = ", ".join(f"{one} {states.get(one, {}).get('state', 'unknown')}" for one in needed)
    for name in ("submissionTime", "scheduledStart"):
        if job.get(name):
            found[name] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(job[name])))
    return {name: text for name, text in found.items() if text}


class Oar(CommandScheduler):
    """OAR's commands on this machine."""

    name = "oar"
    command = "oarsub"
    arrays = True
    starter = "oarsh"
    ends_orphans = False  # -a waits for an end, good or bad

    @classmethod
    def directives(cls, request: Request) -> list[str]:
        return directives(request)

    @classmethod
    def default_amounts(cls, options: Mapping[str, Any]) -> Resources:
        return default_amounts(options)

    def submit(self, submission: Submission) -> list[str]:
        script = Path(submission.script)
        try:
            text = script.read_text(encoding="utf-8", errors="surrogateescape")
            if not os.access(script, os.X_OK):
                script.chmod(script.stat().st_mode | 0o100)
        except OSError as error:
            raise SubmissionError(f"the script cannot be used: {error}", where=str(script)) from error
        answer = self.commands.run(arguments(submission, text))
        natives = parse_submitted(answer.out)
        # 9: OAR's server could not be told. "Job is killed", it says, but it is queued and will run
        if answer.code in (0, 9) and len(natives) == (len(submission.indexes) or 1):
            return natives
        if not natives and is_refusal(answer):
            if submission.delay and "postpone" in answer.out + answer.err:
                return self.submit(replace(submission, delay=0.0))  # an OAR that knows no such type: at once, then
            raise SubmissionError(complaint(answer), where="oarsub")
        raise NoInformation(f"oarsub: {complaint(answer)}")

    def query(self, native_ids: Sequence[str], max_age: float = 0.0) -> dict[str, Status]:
        found = {}
        for native, job in self._latest(native_ids).items():
            status, now = job_status(job), str(job["Job_Id"])
            if status is not None:
                found[native] = status if now == native else replace(status, native=now)
        return found

    def explain(self, native_id: str) -> dict[str, str]:
        job = self._latest([native_id]).get(native_id)
        if job is None:
            raise NoInformation(f"oarstat: it shows no job {native_id}")
        return shown_words(job, self._latest(str(one) for one in job.get("dependencies") or ()))

    def cancel(self, native_ids: Sequence[str]) -> None:
        latest = self._latest(native_ids)
        # what oarstat does not show is tried all the same: its silence may be a failure
        wanted = [native for native in native_ids if native not in latest]
        wanted += [str(job["Job_Id"]) for job in latest.values() if job.get("state") not in _FINAL]
        self._delete(wanted)

    def _delete(self, native_ids: Sequence[str]) -> None:
        for some in _chunks(native_ids):
            answer = self.commands.run(["oardel", *some])
            # of each it says that it noted the wish, or that it has ended, or is not ours: all are answers
            if any(f"Deleting the job = {native} ..." not in answer.out for native in some):
                raise NoInformation(f"oardel: {complaint(answer)}")

    def find(self, submission: Submission) -> list[str] | None:
        """By name, which holds the token, among all jobs that there ever were.

        An oarsub that is killed leaves some elements of an array, or jobs on hold that lack their resources and can
        never run: these are deleted.
        """
        wanted, until = range(1, 1 + (len(submission.indexes) or 1)), time.monotonic() + _LATE
        while True:
            jobs = self._named(submission.name)
            holds = "hold" in dict(parse_directives(_text(submission.script)))
            unmade = [] if holds else [native for _, native, job in jobs if is_unmade(job)]
            made: dict[int, str] = {}
            for index, native, _ in jobs:
                if native not in unmade:
                    made.setdefault(index, native)
            if not jobs or all(index in made for index in wanted) or time.monotonic() > until:
                break
            time.sleep(1)
        if unmade:
            self._delete(unmade)
        return [made.get(index, "") for index in wanted] if jobs else None

    def _named(self, job_name: str) -> list[tuple[int, str, Shown]]:
        """The jobs of this name by their index in an array, from 1, and their id.

        When oarstat's query fails, it does what it does when there is none: print nothing, and exit with 0. So
        the newest of all jobs is asked for too, and without it there is no answer.
        """
        name = job_name.replace("'", "''")
        jobs = self._oarstat("-f", "--sql", f"job_name = '{name}' OR job_id = (SELECT MAX(job_id) FROM jobs)")
        if not jobs:
            raise NoInformation("oarstat: it shows nothing, and should show at least the newest job")
        return [
            (int(job.get("array_index") or 1), native, job)
            for native, job in sorted(jobs.items(), key=lambda item: int(item[0]))
            # those that OAR submitted again by itself are found through the first, as in a query
            if job.get("name") == job_name and not int(job.get("resubmit_job_id") or 0)
        ]

    def _latest(self, native_ids: Iterable[str]) -> dict[str, Shown]:
        """What OAR says of these jobs, or of those that it runs in their place; without those it does not know."""
        found: dict[str, Shown] = {}
        ids = {native: native for native in native_ids}
        while ids:  # until no job has a successor; their ids rise
            jobs: dict[str, Shown] = {}
            for some in _chunks([id_ for id_ in ids.values() if id_.isdecimal()]):
                # half as costly as an option -j for each
                jobs.update(self._oarstat("-f", "--sql", f"job_id IN ({','.join(some)})"))
            known = {native: jobs[id_] for native, id_ in ids.items() if id_ in jobs}
            later = {native: successor(job) for native, job in known.items()}
            found.update({native: job for native, job in known.items() if not later[native]})
            ids = {native: id_ for native, id_ in later.items() if id_}
        return found

    def _oarstat(self, *argv: str) -> dict[str, Shown]:
        answer = self.commands.run(["oarstat", "-J", *argv])
        if answer.code:
            raise NoInformation(f"oarstat: {complaint(answer)}")
        return parse_jobs(answer.out)


def _chunks(native_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (native_ids[start : start + _CHUNK] for start in range(0, len(native_ids), _CHUNK))


def _text(script: str) -> str:
    """The text of a submission's script; "" if it is gone."""
    try:
        return Path(script).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
