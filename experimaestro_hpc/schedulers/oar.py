"""OAR. In: requests, submissions, native ids. Out: ``#OAR`` lines, native ids, statuses.

The upper half is pure: directives, oarsub's arguments, and the reading of what oarsub and oarstat print. The class at
the end runs them. A native id is a job id; each element of an array has its own.

Options in a launcher's ``[defaults]`` are oarsub's, by their long names or letters: ``resource``, ``queue``,
``property``, ``type``, ``project``, ``notify``, ``checkpoint`` (seconds), ``signal`` (a number), ``hold``; ``resource``
and ``type`` may be lists. What a task asks for takes the place of the same part of ``resource``. And these of ours:

* ``walltime``: for tasks that say none, as OAR reads it: hours, ``h:m`` or ``h:m:s``;
* ``host_property`` (default ``nodes``), ``core_property`` (``core``), ``gpu_property`` (``gpu``): the resources'
  properties, as this site calls them, that make up ``-l /nodes=1/gpu=2``;
* ``gpu_model_property`` (``gpu_model``), ``gpu_memory_property`` and ``memory_property`` (none): properties to compare
  in ``-p``; what has none is not asked for, and the script says so. OAR gives memory away with the cores;
* ``memory_unit`` (``M``): what these properties count memory in.

GPUs are asked for whole: with fewer than all its cores, a GPU would be shared. So their cores are those that go with
them, whatever number the task asks.

An array is ``oarsub --array N``, and its script is called with the indexes of its elements, as in ``array.sh 0-2,5``;
the template finds its own with $OAR_ARRAY_INDEX. ``--array-param-file`` would have them read by root, who may not
enter a user's directory on NFS.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from ..errors import SubmissionError
from ..resources import parse_memory
from .base import NoInformation, Request, Scheduler, Status, Submission
from .command import Answer, Commands
from .slurm import ranges

#: a job, as oarstat shows it in JSON
Job = Mapping[str, Any]

#: ids on one command line; oarstat makes some ten queries for each
_CHUNK = 500
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
#: what OAR takes for the path of a log, without the % of its patterns
_LOG = re.compile(r"[A-Za-z0-9_./-]+")
#: paths that survive the Perl, the shell and the database that OAR takes them through
_PLAIN = re.compile(r"/[A-Za-z0-9_./ @%+=:,~-]*")
_CODED = re.compile(rb"[^A-Za-z0-9_./-]")

#: oarsub's options that a launcher may set, as directives have them
_OPTIONS = {
    "resource": "-l",
    "queue": "-q",
    "property": "-p",
    "type": "-t",
    "project": "--project",
    "notify": "--notify",
    "checkpoint": "--checkpoint",
    "signal": "--signal",
    "hold": "--hold",
}
_ALIASES = {"l": "resource", "q": "queue", "p": "property", "t": "type", "partition": "queue"}
_OURS = {
    "walltime": "",
    "host_property": "nodes",
    "core_property": "core",
    "gpu_property": "gpu",
    "gpu_model_property": "gpu_model",
    "gpu_memory_property": "",
    "memory_property": "",
    "memory_unit": "M",
}

_LIVE = {
    "Waiting": "queued",
    "toLaunch": "queued",
    "toAckReservation": "queued",
    "Launching": "queued",
    "Hold": "held",
}
#: troubles with a node, after which OAR usually submits the job again by itself, under a new id
_NODE_TROUBLES = (
    "PING_CHECKER_NODE_SUSPECTED",
    "CPUSET_ERROR",
    "PROLOGUE_ERROR",
    "CANNOT_WRITE_NODE_FILE",
    "CANNOT_WRITE_PID_FILE",
    "CANNOT_CREATE_TMP_DIRECTORY",
    "USER_SHELL",
    "LAUNCHING_OAREXEC_TIMEOUT",
    "EXIT_VALUE_OAREXEC",
    "SSH_TRANSFER_TIMEOUT",
    "BAD_HASHTABLE_DUMP",
    "EXTERMINATE_JOB",
    "FORCE_TERMINATE_FINISHING_JOB",
)
#: events that tell why a job is in state Error; the first that it has counts, as a time limit is a request to kill too
_ENDS = {
    "WALLTIME": "timeout",
    "BESTEFFORT_KILL": "preempted",
    "FRAG_JOB_REQUEST": "cancelled",
    "WORKING_DIRECTORY": "launch",
    "OUTPUT_FILES": "launch",
    "SERVER_PROLOGUE_TIMEOUT": "launch",
    "SERVER_PROLOGUE_EXIT_CODE_ERROR": "launch",
    **dict.fromkeys(_NODE_TROUBLES, "node_fail"),
}


def directive(option: str, value: object = True) -> str:
    """One ``#OAR`` line; ``True`` gives a flag. OAR takes the rest of the line as it is: nothing can be quoted.

    :param option: with its dashes
    :raises SubmissionError: a value that does not fit on one line, or that OAR would not take as it is
    """
    if value is True:
        return f"#OAR {option}"
    text = str(value)
    if not text or text != text.strip() or any(ord(character) < 32 for character in text):
        raise SubmissionError(f"OAR cannot take {text!r} as the value of {option}", where="oar")
    if option in ("-q", "-t", "--project") and re.search(r"['\\]", text):  # OAR puts these into its SQL unquoted
        raise SubmissionError(f"OAR cannot take quotes in the value of {option}: {text!r}", where="oar")
    if option in ("--checkpoint", "--signal") and not text.isdigit():
        raise SubmissionError(f"OAR takes only numbers for {option}, not {text!r}", where="oar")
    return f"#OAR {option} {text}"


def options_of(request: Request) -> dict[str, Any]:
    """The launcher's options by their long names, ours with their defaults.

    :raises SubmissionError: one is not known, or is xpm-hpc's own business
    """
    options: dict[str, Any] = dict(_OURS)
    for name, value in request.options.items():
        long = _ALIASES.get(name, name)
        if long not in _OPTIONS and long not in _OURS:
            hint = f"there are: {', '.join([*_OPTIONS, *_OURS])}"
            raise SubmissionError(f"option {name!r} cannot be set for OAR", where="oar", hint=hint)
        options[long] = value
    if request.partition:
        options["queue"] = request.partition
    return options


def walltime(seconds: int) -> str:
    """A number of seconds as OAR writes it, hours:minutes:seconds; a lone number would be hours."""
    return f"{seconds // 3600}:{seconds // 60 % 60}:{seconds % 60}"


def hierarchy(request: Request, options: Mapping[str, Any]) -> str:
    """The tree of resources that the task asks for, such as ``/nodes=1/core=4``; empty if it asks for none."""
    asked = request.resources
    cores = (asked.cores or 1) * (asked.tasks_per_node or 1)
    if asked.gpus:
        below = f"/{options['gpu_property']}={asked.gpus}"
    elif asked.cores or asked.tasks_per_node:
        below = f"/{options['core_property']}={cores}"
    elif asked.nodes:
        below = ""
    else:
        return ""
    return f"/{options['host_property']}={asked.nodes or 1}{below}"


def alternatives(request: Request, options: Mapping[str, Any]) -> list[str]:
    """The values of ``-l``: the task's wishes, else the launcher's, of which OAR takes any; at least one."""
    tree = hierarchy(request, options)
    given = [str(one) for one in _listed(options.get("resource"))]
    texts = []
    for one in given if given and not tree else given[:1] or [""]:
        found = re.fullmatch(r"(.*?)[\s,]*(?:walltime\s*=\s*([\d:]+)\s*)?", one)
        rest, time = found.groups() if found else (one, None)
        time = walltime(request.resources.duration) if request.resources.duration else time or options["walltime"]
        texts.append((tree or rest or "/resource_id=1") + (f",walltime={time}" if time else ""))
    return texts


def properties(request: Request, options: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The value of ``-p``, empty for none, and what of the wishes could not be put into it."""
    asked = request.resources
    unit = parse_memory(f"1{options['memory_unit']}")
    model = (asked.gpu_model or request.gpu_type) if asked.gpus else None
    terms, left = [str(options["property"])] if options.get("property") else [], []
    for wish, key, sign, value in (
        ("GPU model", "gpu_model_property", "=", model and "'" + model.replace("'", "''") + "'"),
        ("GPU memory", "gpu_memory_property", ">=", asked.gpu_memory and -(-asked.gpu_memory // unit)),
        ("memory", "memory_property", ">=", asked.memory and -(-asked.memory // unit)),
    ):
        if value and options[key]:
            terms.append(f"{options[key]} {sign} {value}")
        elif value:
            left.append(f"# {wish} is not asked for: the launcher's [defaults] have no {key}")
    if asked.gpus and asked.cores:
        left.append("# the cores are those that go with the GPUs")
    return (terms[0] if len(terms) == 1 else " AND ".join(f"({term})" for term in terms)), left


def parse_directives(script: str) -> list[tuple[str, str]]:
    """The options in the ``#OAR`` lines at the head of a script, and their values; "" for a flag."""
    found = []
    for line in script.splitlines()[1:]:
        if not line.startswith("#"):
            break
        if line.startswith("#OAR "):
            option, _, value = line[5:].strip().partition(" ")
            found.append((option, value.strip()))
    return found


def coded(path: str) -> str:
    """A word of shell that stands for ``path`` and is itself of plain ASCII characters."""
    text = _CODED.sub(lambda found: b"\\0%03o" % found.group()[0], os.fsencode(path)).decode("ascii")
    return f"\"$(printf %b '{text}')\""


def arguments(submission: Submission, script: str) -> list[str]:
    """The argument vector for oarsub.

    ``-S`` is not used: it hands the command's first word to a shell, unquoted, and cannot read a script behind an
    ``exec``. Without ``exec`` a login shell between OAR and the script would get the signals, and die of them.

    :param script: the text of the submission's script
    """
    folder, command = submission.directory, f"exec {shlex.quote(submission.script)}"
    is_plain = bool(_PLAIN.fullmatch(folder) and _PLAIN.fullmatch(submission.script))
    if not is_plain:  # OAR would break on such a directory, or run what is in its name
        folder, command = "/", f"cd {coded(submission.directory + '/.')} && exec {coded(submission.script)}"
    given = parse_directives(script)
    resources = [value for option, value in given if option == "-l"]
    argv = ["oarsub", "-n", submission.name, "-d", folder]
    for option, value in given:
        if option in ("-O", "-E") and not is_plain:
            value = "/dev/null"  # in / there is no place for it; the script has its own logs
        if option != "-n":
            argv += [option, value] if value else [option]
    if submission.indexes:
        command += f" {ranges(submission.indexes)}"
    if len(submission.indexes) > 1:
        argv += ["--array", str(len(submission.indexes))]
        if len(submission.dependencies) == 1:
            # OAR loses the dependency of an array that has only one, unless the array has alternatives: the same again
            for value in resources:
                argv += ["-l", value]
    for native in submission.dependencies:
        argv += ["-a", native]
    return [*argv, command]


def parse_submitted(out: str) -> list[str]:
    """The job ids in what oarsub printed, past any noise, in order. A refused job's is negative, and not one of them."""
    return re.findall(r"^OAR_JOB_ID=(\d+)\s*$", out, re.MULTILINE)


def is_refusal(answer: Answer) -> bool:
    """Whether oarsub, which gave no job id, said that it would not take the job, and why."""
    if answer.code == 1:
        return "option" in answer.err
    if answer.code == 8:  # without a negative id it is the database that failed
        return re.search(r"^OAR_JOB_ID=-\d+\s*$", answer.out, re.MULTILINE) is not None
    return answer.code in (5, 6, 7, 12, 16) or answer.code >= 240


def complaint(answer: Answer) -> str:
    """Why oarsub refused, without what it always says."""
    noise = ("[ERROR] Oarsub failed", "Simple array job")
    lines = [line.strip() for line in answer.err.splitlines() if not line.startswith(noise)]
    return " ".join(" ".join(lines).split())[:500] or answer.words or f"exit status {answer.code}"


def parse_jobs(out: str) -> dict[str, Job]:
    """The jobs in what ``oarstat -J`` printed, by id. It prints nothing at all when it knows none.

    :raises NoInformation: this is no answer
    """
    start = out.find("{")
    if start < 0 and out.strip() in ("", "null"):
        return {}
    try:
        jobs, _ = json.JSONDecoder(strict=False).raw_decode(out, max(start, 0))
    except ValueError as error:
        raise NoInformation(f"oarstat: its answer is not understood: {error}") from error
    return {str(native): job for native, job in jobs.items() if isinstance(job, dict)}


def events_of(job: Job) -> dict[str, Job]:
    """What happened to a job, the last event of each type, in order of time."""
    events = [event for event in job.get("events") or () if isinstance(event, dict)]
    return {str(one.get("type")): one for one in sorted(events, key=lambda one: int(one.get("event_id") or 0))}


def successor(job: Job) -> str | None:
    """The id under which OAR itself submitted a job again, after trouble with a node or a preemption."""
    event = events_of(job).get("RESUBMIT_JOB_AUTOMATICALLY", {})
    found = re.search(r"(?:=>|new id =)\s*(\d+)", str(event.get("description")))
    return found.group(1) if found and int(found.group(1)) > int(job.get("Job_Id") or 0) else None


def has_ended(job: Job) -> bool:
    """Whether a job is in one of the two states that it never leaves."""
    return job.get("state") in ("Terminated", "Error")


def job_status(job: Job) -> Status | None:
    """What oarstat's full description of a job means, or None if it says nothing."""
    state = str(job.get("state") or "")
    host = ",".join(job.get("assigned_network_address") or ())
    events = events_of(job)
    if not has_ended(job):
        ours = _LIVE.get(state, "running")
        detail = str(job.get("message") or "") if ours != "running" else state if state != "Running" else ""
        return Status(ours, detail=detail, host=host) if state else None
    if any(events[trouble].get("to_check") == "YES" for trouble in _NODE_TROUBLES if trouble in events):
        return Status("running", detail="OAR has yet to decide whether it submits the job again", host=host)
    if state == "Terminated":
        return terminated_status(job.get("exit_code"), events, host)
    if not events:  # each has some: one of oarstat's queries failed, of which it says nothing
        return None
    cause = next((name for name in _ENDS if name in events), list(events)[-1])
    words = re.sub(r"^\[[^\]]*\]\s*", "", str(events[cause].get("description") or cause)).strip()
    return Status("ended", reason=_ENDS.get(cause, "lost"), detail=words, host=host)


def terminated_status(raw: object, events: Mapping[str, Job], host: str) -> Status:
    """How a job ended that came to its own end, well or not.

    :param raw: the wait status of its shell
    """
    if not isinstance(raw, int):
        return Status("ended", reason="lost", detail="OAR does not know how it ended", host=host)
    code, signal = raw >> 8, raw & 127
    if not signal:
        reason = "" if code == 0 else "launch" if code in (126, 127) else "exit"
        return Status("ended", reason=reason, detail=f"exit status {code}", exit_code=code, host=host)
    asker = str(events.get("CHECKPOINT", {}).get("description") or "")
    reason = "timeout" if "(sarko)" in asker else "preempted" if "(metasched)" in asker else "exit"
    return Status("ended", reason=reason, detail=f"killed by signal {signal}", exit_code=128 + signal, host=host)


class Oar(Scheduler):
    """OAR's commands on this machine."""

    name = "oar"
    command = "oarsub"
    arrays = True

    def __init__(self, workspace: str, commands: Commands | None = None) -> None:
        super().__init__(workspace)
        self.commands = commands or Commands()

    @classmethod
    def directives(cls, request: Request) -> list[str]:
        options = options_of(request)
        where, left = properties(request, options)
        lines = [directive("-n", _UNSAFE.sub("-", request.name)[:60] or "job")]
        options.update(resource=alternatives(request, options), property=where)
        for name, option in _OPTIONS.items():
            values = [one for one in _listed(options.get(name)) if one is not False and one != ""]
            if len(values) > 1 and name not in ("resource", "type"):
                raise SubmissionError(f"OAR takes only one value for {name!r}", where="oar")
            lines += [directive(option, value) for value in values]
        log = request.log if _LOG.fullmatch(request.log) and not request.array else "oar.%jobid%.log"
        return [*lines, directive("-O", log), directive("-E", log), *left]

    def submit(self, submission: Submission) -> list[str]:
        try:
            script = Path(submission.script)
            text = script.read_text(encoding="utf-8", errors="surrogateescape")
            if not os.access(script, os.X_OK):
                script.chmod(script.stat().st_mode | 0o100)
        except OSError as error:
            raise SubmissionError(f"the script cannot be read: {error}", where=submission.script) from error
        answer = self.commands.run(arguments(submission, text))
        natives = parse_submitted(answer.out)
        # 9: the server could not be told. It says that the job is killed, but the job is there and will run
        if answer.code in (0, 9) and len(natives) == (len(submission.indexes) or 1):
            return natives
        if not natives and is_refusal(answer):
            raise SubmissionError(complaint(answer), where="oarsub")
        raise NoInformation(f"oarsub: {complaint(answer)}")

    def query(self, native_ids: Sequence[str]) -> dict[str, Status]:
        statuses = {native: job_status(job) for native, job in self._latest(native_ids).items()}
        return {native: status for native, status in statuses.items() if status is not None}

    def cancel(self, native_ids: Sequence[str]) -> None:
        latest = self._latest(native_ids)
        # one that oarstat does not show is tried all the same: its silence may be a failure
        wanted = [one for one in native_ids if one not in latest]
        wanted += [str(job["Job_Id"]) for job in latest.values() if not has_ended(job)]
        for some in _chunks(wanted):
            answer = self.commands.run(["oardel", *some])
            # each line is a request noted in the database, or a job that has ended or is not ours
            if any(f"Deleting the job = {native} ..." not in answer.out for native in some):
                raise NoInformation(f"oardel: {answer.words or f'exit status {answer.code}'}")

    def find(self, submission: Submission) -> list[str] | None:
        """By name, which holds the token, among all jobs that there ever were.

        oarstat prints nothing, with exit status 0, when it finds nothing and when its query fails. So the newest job
        of all is asked for too: without it the answer is none.
        """
        name = submission.name.replace("'", "''")
        where = f"job_name = '{name}' OR job_id = (SELECT MAX(job_id) FROM jobs)"
        jobs = self._oarstat(["--sql", where])
        if not jobs:
            raise NoInformation("oarstat: an empty answer, where at least the newest job should be")
        wanted = len(submission.indexes) or 1
        elements: dict[int, str] = {}
        for native, job in sorted(jobs.items(), key=lambda item: int(item[0])):
            # one that OAR submitted again has its name from the first, which leads to it
            if job.get("name") == submission.name and not int(job.get("resubmit_job_id") or 0):
                elements.setdefault(int(job.get("array_index") or 1), native)
        if elements and sorted(elements) != list(range(1, wanted + 1)):
            raise NoInformation(f"oarstat: shows {len(elements)} of {wanted} jobs named {submission.name!r}")
        return [elements[index] for index in sorted(elements)] or None

    def _latest(self, native_ids: Iterable[str]) -> dict[str, Job]:
        """What OAR says of these jobs, or of those that it started in their place. Unknown ones are left out."""
        found: dict[str, Job] = {}
        ids = {native: native for native in native_ids}
        while ids:  # ends: a successor's id is higher
            jobs: dict[str, Job] = {}
            for some in _chunks(list(ids.values())):
                jobs.update(self._oarstat(["-f", *(word for native in some for word in ("-j", native))]))
            found.update({native: jobs[id_] for native, id_ in ids.items() if id_ in jobs})
            later = {native: successor(found[native]) for native, id_ in ids.items() if id_ in jobs}
            ids = {native: id_ for native, id_ in later.items() if id_}
        return found

    def _oarstat(self, argv: Sequence[str]) -> dict[str, Job]:
        answer = self.commands.run(["oarstat", "-J", *argv])
        if answer.code:
            raise NoInformation(f"oarstat: {answer.words or f'exit status {answer.code}'}")
        return parse_jobs(answer.out)


def _chunks(native_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (native_ids[start : start + _CHUNK] for start in range(0, len(native_ids), _CHUNK))


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
