"""OAR. In: requests, submissions, native ids. Out: ``#OAR`` lines, native ids, statuses.

The upper half is pure: directives, oarsub's arguments, and the reading of what oarsub and oarstat print. The class at
the end runs them. A native id is a job id; each element of an array has its own.

Options in a launcher's ``[defaults]`` are oarsub's, by their long names or letters: ``resource``, ``queue``,
``property``, ``type``, ``project``, ``notify``, ``checkpoint`` (seconds), ``signal`` (a number), ``hold``. The first,
third and fourth may be lists. What a task asks for takes the place of the same part of ``resource``. Others are ours:

* ``walltime``: for tasks that say none, as OAR reads it: hours, ``h:m`` or ``h:m:s``;
* ``host_property`` (default ``nodes``), ``core_property`` (``core``), ``gpu_property`` (``gpu``): what this site calls
  the levels of ``/nodes=1/gpu=2``;
* ``gpu_model_property`` (``gpu_model``), ``gpu_memory_property`` and ``memory_property`` (none): what to compare with
  the task's wishes. One that has none is not passed on, and the script says so: OAR gives memory away with the cores;
* ``memory_unit`` (``M``): what these properties count memory in.

The ``options`` of a partition take the place of those of the same name; ``false`` leaves an option out. A partition is
a queue or, with ``queue`` and ``property`` in its options, any set of resources.

A task that can go on later is signalled ``checkpoint`` seconds before the end, and its job is ``idempotent``: OAR
submits it again, under a new id, when it ends with exit status 99 after a minute at least, or when it was besteffort
and had to make room. Jobs that wait for it wait for the new one then.

GPUs are asked for whole, with all the cores that go with them, whatever number the task asks: with fewer, OAR would
give the rest, and the same GPU, to others.

An array is ``oarsub --array N``. Its script is called with the indexes of its elements, as in ``array.sh 0-2,5``, and
finds its own with $OAR_ARRAY_INDEX. ``--array-param-file`` would have them read by root, who may not enter a user's
directory on NFS.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import SubmissionError
from ..resources import Resources, parse_memory
from .base import NoInformation, Request, Status, Submission
from .command import Answer, CommandScheduler
from .slurm import ranges

#: a job or an event, as oarstat shows it in JSON
Shown = Mapping[str, Any]

#: ids in one question; oarstat makes some ten queries for each
_CHUNK = 500
#: what OAR takes for the path of a log, without the % of its patterns
_LOG = re.compile(r"[A-Za-z0-9_./-]+")
#: paths that survive the Perl, the shells and the database that OAR takes them through
_PLAIN = re.compile(r"/[A-Za-z0-9_./ @%+=:,~-]*")
#: seconds after which what an oarsub has not finished is what it has left behind
_LATE = 20.0
#: what a job gets that asks for nothing; OAR's own default, unless the site has another
_LEAST = "/resource_id=1"

#: a value of --resource, and the walltime in it
_WALLTIME = re.compile(r"(.*?)[\s,]*(?:walltime\s*=\s*([\d:]+)\s*)?", re.DOTALL)

#: oarsub's options that a launcher may set
_OPTIONS = ("resource", "queue", "property", "type", "project", "notify", "checkpoint", "signal", "hold")
_ALIASES = {"l": "resource", "q": "queue", "p": "property", "t": "type", "partition": "queue"}
#: our own, and their defaults
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


def directive(option: str, value: object) -> str:
    """One ``#OAR`` line; ``True`` gives a flag. OAR takes the rest of the line as it is, and knows no quotes.

    :raises SubmissionError: OAR would not take this value, or not as it is
    """
    text = str(value)
    if value is True and option == "hold":
        return "#OAR --hold"
    bad = isinstance(value, bool) or option == "hold" or text != text.strip() or not text.isprintable()
    if option in ("checkpoint", "signal"):
        bad = bad or not re.fullmatch("[0-9]+", text)
    # OAR puts some into its SQL unquoted
    if bad or not text or (option in ("queue", "type", "project") and re.search(r"['\\]", text)):
        raise SubmissionError(f"{text!r} cannot be the value of option {option!r}", where="oar")
    return f"#OAR --{option} {text}"


def options_of(request: Request) -> dict[str, Any]:
    """The launcher's options by their long names, ours with their defaults.

    :raises SubmissionError: one is not known, or not for a launcher to set
    """
    given = request.merged("queue", _ALIASES)
    for name in given:
        if name not in (*_OPTIONS, *_OURS):
            hint = f"there are: {', '.join((*_OPTIONS, *_OURS))}"
            raise SubmissionError(f"option {name!r} cannot be set for OAR", where="oar", hint=hint)
    return {**_OURS, **{name: value for name, value in given.items() if value is not False}}


def hierarchy(request: Request, options: Mapping[str, Any]) -> str:
    """The tree of resources that the task asks for, as ``/nodes=1/core=4``; empty if it asks for none."""
    asked, below = request.resources, ""
    if asked.gpus:
        below = f"/{options['gpu_property']}={asked.gpus}"
    elif asked.cores or asked.tasks_per_node:
        below = f"/{options['core_property']}={(asked.cores or 1) * (asked.tasks_per_node or 1)}"
    return f"/{options['host_property']}={asked.nodes or 1}{below}" if below or asked.nodes else ""


def warned(request: Request, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with which a task that can go on later is told of its end, and goes on."""
    if not request.warning:
        return {}
    types = _listed(options.get("type"))
    again = [] if "idempotent" in types else ["idempotent"]
    told = {} if "checkpoint" in options else {"checkpoint": request.warning}
    signalled = {} if "signal" in options else {"signal": int(signal.SIGUSR2)}
    return {"type": [*types, *again], **told, **signalled}


def alternatives(request: Request, options: Mapping[str, Any]) -> list[str]:
    """The values of ``--resource``: what the task asks, or the launcher's, of which OAR takes any. Never none."""
    tree, seconds = hierarchy(request, options), request.resources.duration
    given = [str(one) for one in _listed(options.get("resource"))] or [""]
    texts = []
    for one in given[:1] if tree else given:
        rest, walltime = split_walltime(one)
        walltime = clock(seconds) if seconds else walltime or options["walltime"]
        texts.append(timed(tree or rest or _LEAST, walltime))
    return texts


def clock(seconds: int) -> str:
    """A walltime for OAR, which would take a lone number for hours.

    >>> clock(5400)
    '1:30:0'
    """
    return f"{seconds // 3600}:{seconds // 60 % 60}:{seconds % 60}"


def timed(resource: str, walltime: str) -> str:
    """A value of ``--resource`` with this walltime in place of its own.

    >>> timed("/nodes=1/core=2,walltime=3", "1:30:0")
    '/nodes=1/core=2,walltime=1:30:0'
    """
    rest = split_walltime(resource)[0]
    return f"{rest},walltime={walltime}" if walltime else rest


def split_walltime(resource: str) -> tuple[str, str]:
    """A value of ``--resource`` without its walltime, and that; "" for none.

    >>> split_walltime("/nodes=1/core=2,walltime=3")
    ('/nodes=1/core=2', '3')
    """
    found = _WALLTIME.fullmatch(resource)
    return (found.group(1), found.group(2) or "") if found else (resource, "")


def seconds_of(walltime: str) -> int | None:
    """The seconds in ``h``, ``h:m`` or ``h:m:s``; None if it is none of these."""
    if not re.fullmatch(r"\d+(:\d+){0,2}", walltime):
        return None
    return sum(int(part) * unit for part, unit in zip(walltime.split(":"), (3600, 60, 1))) or None


def narrowed(where: str, submission: Submission, script: str) -> str:
    """A value of ``--property`` with what a later attempt asks for anew.

    :param script: its head says which property is for memory
    :raises SubmissionError: more memory is wanted, and there is no such property
    """
    memory = submission.resources.memory if submission.resources else None
    if memory:
        said = re.search(r"(?m)^# memory is asked for as (\S+), counted in (\S+)$", script)
        if not said:
            raise SubmissionError(
                "a new attempt was to ask for other memory, and OAR cannot be asked for memory here",
                where="retry",
                hint="set memory_property in [defaults] of the launcher file",
            )
        term = f"{said.group(1)} >= {-(-memory // parse_memory('1' + said.group(2)))}"
        where, count = re.subn(rf"(?<!\w){re.escape(said.group(1))} >= \d+", term, where)
        where = where if count else _both(where, term)
    for host in submission.avoid:
        short = host.partition(".")[0]
        if re.fullmatch("[A-Za-z0-9_-]+", short):  # OAR knows it by its full name, or not
            where = _both(where, f"NOT (network_address = '{short}' OR network_address LIKE '{short}.%')")
    return where


def _both(where: str, term: str) -> str:
    return f"({where}) AND ({term})" if where else term


def properties(request: Request, options: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The value of ``--property``, empty for none, and remarks on wishes that are not passed on."""
    asked, unit = request.resources, parse_memory(f"1{options['memory_unit']}")
    model = (request.gpu_type or asked.gpu_model or "") if asked.gpus else ""
    wishes = (
        ("gpu_model", "=", model and "'" + model.replace("'", "''") + "'"),
        ("gpu_memory", ">=", asked.gpu_memory and -(-asked.gpu_memory // unit)),
        ("memory", ">=", asked.memory and -(-asked.memory // unit)),
    )
    terms, remarks = [str(one) for one in _listed(options.get("property"))], []
    for name, sign, value in wishes:
        column = options[f"{name}_property"]
        if value and column:
            terms.append(f"{column} {sign} {value}")
        elif value:
            remarks.append(f"# {name} is not asked for, as the launcher's [defaults] have no {name}_property")
    if options["memory_property"]:
        remarks.append(f"# memory is asked for as {options['memory_property']}, counted in {options['memory_unit']}")
    if asked.gpus and asked.cores:
        remarks.append("# the number of cores is not asked for: they go with the GPUs")
    return (terms[0] if len(terms) == 1 else " AND ".join(f"({term})" for term in terms)), remarks


def parse_directives(script: str) -> list[tuple[str, str]]:
    """The options in the ``#OAR`` lines at the head of a script, and their values; "" for a flag."""
    found = []
    for line in script.split("\n")[1:]:
        if not line.startswith("#"):
            break
        if line.startswith("#OAR --"):
            option, _, value = line[7:].strip().partition(" ")
            found.append((option, value.strip()))
    return found


def coded(path: str) -> str:
    """A word of shell that stands for ``path`` and is itself of plain ASCII characters."""
    text = "".join(chr(byte) if _LOG.fullmatch(chr(byte)) else f"\\0{byte:03o}" for byte in os.fsencode(path))
    return f"\"$(printf %b '{text}')\""


def arguments(submission: Submission, script: str) -> list[str]:
    """The argument vector for oarsub.

    Its ``-S`` is not used: it hands the command's first word to a shell, unquoted, and takes ``exec`` for the
    script. Without ``exec``, the login shell between OAR and the script would get the signals and die. The directory
    is always said: otherwise OAR takes $PWD for it, which is not where oarsub runs, or fails if there is none.

    :param script: the text of the submission's script
    """
    folder, command = submission.directory, f"exec {shlex.quote(submission.script)}"
    is_plain = bool(_PLAIN.fullmatch(folder) and _PLAIN.fullmatch(submission.script))
    if not is_plain:  # OAR would stumble over such a directory, or run what is in its name
        folder, command = "/", f"cd {coded(submission.directory + '/.')} && exec {coded(submission.script)}"
    argv, given = ["oarsub", f"--name={submission.name}", f"--directory={folder}"], parse_directives(script)
    for option, value in given:
        if option in ("stdout", "stderr") and not is_plain:
            argv.append(f"--{option}=/dev/null")  # there is no place for it in /; the script has its own logs
        elif option not in ("name", "resource", "property"):
            argv.append(f"--{option}={value}" if value else f"--{option}")
    resources = [value for option, value in given if option == "resource"] or [_LEAST]
    if submission.resources and submission.resources.duration:
        resources = [timed(value, clock(submission.resources.duration)) for value in resources]
    if submission.delay:
        start = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + submission.delay))
        argv.append(f"--type=postpone={start}")
    where = narrowed(dict(given).get("property", ""), submission, script)
    if where:
        argv.append(f"--property={where}")
    if submission.indexes:
        command += f" {ranges(submission.indexes)}"
    if len(submission.indexes) > 1:
        argv.append(f"--array={len(submission.indexes)}")
        if len(submission.dependencies) == 1 and len(resources) == 1:
            # OAR forgets an array's only dependency where it makes all elements at once; with alternatives it makes
            # them one by one, which takes 2 s for 200. The same dependency twice would break a key of its database
            resources *= 2
    argv += [f"--resource={value}" for value in resources]
    return [*argv, *(f"--anterior={native}" for native in submission.dependencies), command]


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


def job_status(job: Shown) -> Status | None:
    """What oarstat's full description of a job means, or None if nothing can be told from it."""
    state, host = str(job.get("state") or ""), ",".join(job.get("assigned_network_address") or ())
    events = events_of(job)
    if state in _BEFORE:
        return Status(_BEFORE[state], detail=str(job.get("message") or ""), host=host)
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
        options = options_of(request)
        where, remarks = properties(request, options)
        options.update(resource=alternatives(request, options), property=where or False, **warned(request, options))
        lines = [directive("name", re.sub(r"[^A-Za-z0-9._-]", "-", request.name)[:60] or "job")]
        for name in _OPTIONS:
            values = [value for value in _listed(options.get(name)) if value is not False]
            if len(values) > 1 and name not in ("resource", "type"):
                raise SubmissionError(f"option {name!r} can have only one value", where="oar")
            lines += [directive(name, value) for value in values]
        log = request.log if _LOG.fullmatch(request.log) and not request.array else "oar.%jobid%.log"
        return [*lines, directive("stdout", log), directive("stderr", log), *remarks]

    @classmethod
    def default_amounts(cls, options: Mapping[str, Any]) -> Resources:
        known = {_ALIASES.get(name, name): value for name, value in options.items()}
        walltimes = [split_walltime(str(one))[1] for one in _listed(known.get("resource"))] or [""]
        found = [seconds_of(one or str(known.get("walltime") or "")) for one in walltimes]
        # of alternatives any may be taken
        return Resources(duration=min(filter(None, found))) if all(found) else Resources()

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


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
