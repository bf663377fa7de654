"""What OAR is asked. In: requests, submissions. Out: ``#OAR`` lines, oarsub's arguments. Pure.

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

import os
import re
import shlex
import signal
import time
from collections.abc import Mapping
from typing import Any

from ..errors import LauncherError, SubmissionError
from ..resources import Resources, parse_memory
from .base import Request, Submission
from .slurm_request import ranges

#: what OAR takes for the path of a log, without the % of its patterns
_LOG = re.compile(r"[A-Za-z0-9_./-]+")
#: paths that survive the Perl, the shells and the database that OAR takes them through
_PLAIN = re.compile(r"/[A-Za-z0-9_./ @%+=:,~-]*")
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


def directives(request: Request) -> list[str]:
    """The lines at the head of a job script that ask for ``request``.

    :raises SubmissionError: OAR has no way to ask for it
    """
    options = options_of(request)
    where, remarks = properties(request, options)
    options.update(resource=alternatives(request, options), property=where or False, **warned(request, options))
    lines = [directive("name", re.sub(r"[^A-Za-z0-9._-]", "-", request.name)[:60] or "job")]
    for name in _OPTIONS:
        values = [value for value in _listed(options.get(name)) if value is not False]
        if len(values) > 1 and name not in ("resource", "type"):
            raise LauncherError(f"option {name!r} can have only one value", where="oar")
        lines += [directive(name, value) for value in values]
    log = request.log if _LOG.fullmatch(request.log) and not request.array else "oar.%jobid%.log"
    return [*lines, directive("stdout", log), directive("stderr", log), *remarks]


def default_amounts(options: Mapping[str, Any]) -> Resources:
    """The duration that the launcher's ``[defaults]`` ask for, as far as it is understood."""
    known = {_ALIASES.get(name, name): value for name, value in options.items()}
    walltimes = [split_walltime(str(one))[1] for one in _listed(known.get("resource"))] or [""]
    found = [seconds_of(one or str(known.get("walltime") or "")) for one in walltimes]
    # of alternatives any may be taken
    return Resources(duration=min(filter(None, found))) if all(found) else Resources()


def directive(option: str, value: object) -> str:
    """One ``#OAR`` line; ``True`` gives a flag. OAR takes the rest of the line as it is, and knows no quotes.

    :raises LauncherError: OAR would not take this value, or not as it is
    """
    text = str(value)
    if value is True and option == "hold":
        return "#OAR --hold"
    bad = isinstance(value, bool) or option == "hold" or text != text.strip() or not text.isprintable()
    if option in ("checkpoint", "signal"):
        bad = bad or not re.fullmatch("[0-9]+", text)
    # OAR puts some into its SQL unquoted
    if bad or not text or (option in ("queue", "type", "project") and re.search(r"['\\]", text)):
        raise LauncherError(f"{text!r} cannot be the value of option {option!r}", where="oar")
    return f"#OAR --{option} {text}"


def options_of(request: Request) -> dict[str, Any]:
    """The launcher's options by their long names, ours with their defaults.

    :raises LauncherError: one is not known, or not for a launcher to set
    """
    given = request.merged("queue", _ALIASES)
    for name in given:
        if name not in (*_OPTIONS, *_OURS):
            hint = f"there are: {', '.join((*_OPTIONS, *_OURS))}"
            raise LauncherError(f"option {name!r} cannot be set for OAR", where="oar", hint=hint)
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


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
