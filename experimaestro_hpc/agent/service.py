"""What an agent can be asked. In: an operation's name, its arguments, bytes. Out: an answer, bytes.

Each public method of :class:`Service` is an operation; the driver names it in a request. All of them take and give
plain JSON values, so that they are the same in process and over SSH.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from ..errors import WorkspaceError, XpmError
from ..schedulers import scheduler_class
from ..schedulers.base import NoInformation, Scheduler
from . import files
from .adopt import adopt
from .cancel import cancel
from .check import CheckJob, check_python, steps
from .clean import clean, touch
from .environments import Environments
from .incoming import Incoming
from .kin import dependents, parents_first
from .layout import Layout
from .lock import submission_lock
from .logs import read_log
from .pack import Packer
from .place import place
from .submit import LIVE, WAITING, Submitter, reconcile
from .tar import Readable
from .tend import Tender
from .watch import State, Watcher

#: operations that a request may name
OPERATIONS = (
    "hello",
    "survey",
    "adopt",
    "prepare",
    "place",
    "build",
    "watch_build",
    "take_code",
    "submit",
    "watch",
    "explain",
    "dependents",
    "cancel",
    "retry",
    "fetch",
    "manifest",
    "read",
    "remove",
    "clock",
    "check",
    "check_job_start",
    "check_job_look",
    "check_job_end",
    "look",
    "clean",
)


class Service:
    """The operations on one workspace of this machine, with one scheduler.

    :param root: absolute path of the workspace
    :param scheduler: the scheduler's name
    """

    def __init__(self, root: str, scheduler: str) -> None:
        self.layout = Layout(root)
        self.incoming = Incoming(self.layout)
        #: where this code runs: in a workspace's ``.xpm/lib``, if it was shipped
        self.package = Path(__file__).resolve().parents[2]
        self.scheduler: Scheduler = scheduler_class(scheduler)(root)
        self.watcher = Watcher(self.layout, self.scheduler)
        self.check_job: CheckJob | None = None
        self.tender = Tender(self.layout, self.scheduler, self.watcher)
        self.environments = Environments(self.layout)

    def handle(self, request: Mapping[str, Any], body: Readable | None) -> tuple[dict[str, Any], Any]:
        """Answer a request; the answer's document, and a file with its size if bytes belong to it.

        Errors that people should see come back as ``{"error": …}`` and never as an exception.
        """
        name = request.get("op")
        if name not in OPERATIONS:
            return {"error": {"what": f"the agent knows no operation {name!r}", "kind": "XpmError"}}, None
        operation: Callable[..., Any] = getattr(self, name)
        arguments = dict(request.get("arguments") or {})
        if body is not None:
            arguments["body"] = body
        try:
            answer = operation(**arguments)
        except XpmError as error:
            kind = type(error).__name__
            return {"error": {"what": error.what, "where": error.where, "hint": error.hint, "kind": kind}}, None
        except NoInformation as error:
            hint = "nothing was done; try again when the scheduler answers"
            return {"error": {"what": str(error), "hint": hint, "kind": "ConnectionFailed"}}, None
        except OSError as error:
            what = f"{error.strerror or error}: {error.filename or self.layout.root}"
            return {"error": {"what": what, "where": os.uname().nodename, "kind": "WorkspaceError"}}, None
        if isinstance(answer, tuple):
            document, attached = answer
            return {"answer": document}, attached
        return {"answer": answer}, None

    def hello(self) -> dict[str, Any]:
        """Who and where the agent is."""
        command = self.scheduler.command
        return {
            "host": os.uname().nodename,
            "python": sys.version.split()[0],
            "executable": sys.executable,
            "root": str(self.layout.root),
            "time": time.time(),
            "scheduler": self.scheduler.name,
            "scheduler_found": not command or shutil.which(command) is not None,
        }

    def remove(self, jobs: Sequence[str]) -> dict[str, Any]:
        """Remove the directories of jobs that have ended; returns those that are gone."""
        trash = self.layout.internal / "incoming" / secrets.token_hex(6)
        trash.mkdir(parents=True)
        removed = []
        with submission_lock(self.layout):
            reconcile(self.layout, self.scheduler, self.watcher, set(jobs))  # one may have been submitted all the same
            self.watcher.forget(jobs)
            states = self.watcher.states(jobs)
            for number, job in enumerate(jobs):
                if states[job]["state"] in LIVE:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    self.layout.job(job).rename(trash / str(number))
                removed.append(job)
            self.watcher.forget(jobs)
        shutil.rmtree(trash, ignore_errors=True)
        return {"removed": removed}

    def clock(self) -> float:
        """The time here, in seconds since 1970."""
        return time.time()

    def check(self, python: str = "") -> list[dict[str, Any]]:
        """Whether this host can be used; see :func:`.check.steps`."""
        return steps(self.layout, self.scheduler, python)

    def check_job_start(self, script: str, report: str) -> dict[str, Any]:
        """Submit a tiny job; see :class:`.check.CheckJob`."""
        self.check_job = CheckJob(self.layout, self.scheduler, script, report)
        return {"native_id": self.check_job.native}

    def check_job_look(self, seconds: float) -> dict[str, Any]:
        """What is known of the tiny job after at most ``seconds``."""
        if self.check_job is None:
            raise WorkspaceError("there is no such job")
        return self.check_job.look(seconds)

    def check_job_end(self) -> dict[str, Any]:
        """End the tiny job, and leave nothing of it behind."""
        if self.check_job is not None:
            self.check_job.end()
            self.check_job = None
        return {}

    def look(self, part: str, **arguments: Any) -> Any:
        """What a launcher file could say of this cluster; see :mod:`.look`."""
        from .look import look  # only for this: every agent would load it

        return look(part, **arguments)

    def survey(self, jobs: Sequence[str], code: str = "", python: str = "", environment: str = "") -> dict[str, Any]:
        """What is known before a submission: states of the jobs, what is asked; whether code and environment are there.

        :param python: the command that is to run the tasks; asked for its version, as far as this host can tell
        :raises XpmError: the scheduler is not here, or that Python is too old
        """
        command = self.scheduler.command
        host = os.uname().nodename
        if command and shutil.which(command) is None:
            raise XpmError(
                f"there is no {command} on {host}, so {self.scheduler.name} cannot be used there",
                where=f"host {host}",
                hint="is this a login node of the cluster? check host and scheduler in the launcher file",
            )
        with submission_lock(self.layout):
            self.watcher.forget(self.environments.forget_removed(jobs))
            states = self.watcher.states(jobs)
            is_all_done = bool(states) and all(state["state"] == "done" for state in states.values())
            if python and not is_all_done:
                check_python(python, host)
            if code:
                touch(self.layout.code(code))  # so that it is there when the submission comes
            if environment:
                touch(self.environments.folder(environment))
            if self.package.parent == self.layout.internal / "lib":
                touch(self.package)
            return {
                "states": states,
                "has_environment": bool(environment) and self.environments.is_complete(environment),
                "has_code": bool(code) and self.layout.code(code).is_dir(),
                "trouble": self.watcher.trouble,
                "largest_array": 1 if is_all_done else self.scheduler.largest_array(),  # a question to the scheduler
                "queries": "" if is_all_done else self.scheduler.queries(),
            }

    def adopt(self, former: dict[str, str]) -> dict[str, Any]:
        """Let results of old jobs count as those of new ones; see :func:`.adopt.adopt`."""
        with submission_lock(self.layout):
            done = adopt(self.layout, former)
            self.watcher.forget(done)
            return {"states": self.watcher.states(done)}

    def prepare(self, token: str) -> dict[str, Any]:
        """What there is of an upload that was cut; the next request may go on with it.

        :param token: the same for the same files from the same place
        :returns: the token to use, which is another one if somebody else sends the same, and what is there of files
            and of parts of large ones
        """
        return self.incoming.prepare(token)

    def place(self, token: str, jobs: list[str], body: Readable) -> dict[str, Any]:
        """Take in the directories of jobs that were done elsewhere; see :func:`.place.place`.

        :param token: unique for the request, or from :meth:`prepare`
        :param body: a tar stream with ``jobs/…``
        """
        with self.incoming.unpacked(token, body) as incoming, submission_lock(self.layout):
            done = place(self.layout, incoming, jobs)
        self.watcher.forget(jobs)
        return {"done": done}

    def build(self, digest: str, body: Readable) -> dict[str, Any]:
        """Start to build an environment in the background; see :mod:`.environments`.

        :param body: a tar stream with ``env/…``
        """
        with self.incoming.unpacked(secrets.token_hex(6), body) as incoming:
            self.environments.take(incoming)
        self.environments.start(digest)
        return {}

    def watch_build(self, digest: str, seen: int, seconds: float) -> dict[str, Any]:
        """How the build of an environment goes; see :meth:`.Environments.watch`."""
        return self.environments.watch(digest, seen, seconds)

    def take_code(self, token: str, code: str, body: Readable) -> dict[str, Any]:
        """Take in a code snapshot that is too large to travel with a submission.

        :param token: from :meth:`prepare`
        :param code: its hash
        :param body: a tar stream with ``code/…``
        """
        with self.incoming.unpacked(token, body) as incoming:
            self._take_code(incoming, code)
        return {}

    def submit(self, token: str, groups: list[dict[str, Any]], code: str, body: Readable) -> dict[str, Any]:
        """Take in files and submit: see :class:`.submit.Submitter`.

        :param token: unique for the request
        :param code: the code snapshot that the jobs run
        :param body: a tar stream with ``jobs/…``, ``batches/…`` and, if it was missing here, ``code/…``
        """
        with self.incoming.unpacked(token, body) as incoming:
            self._take_code(incoming, code)
            self.environments.take(incoming)
            with submission_lock(self.layout):
                answer = Submitter(self.layout, self.scheduler, self.watcher, incoming).run(groups)
        return {**answer, "calls": self.scheduler.calls()}

    def _take_code(self, incoming: Path, code: str) -> None:
        source, target = incoming / "code", self.layout.code(code)
        if not source.is_dir() or target.is_dir():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(target)
        except OSError:
            if not target.is_dir():  # else another driver was faster with the same content
                raise

    def watch(self, jobs: list[str], seen: dict[str, State], seconds: float) -> dict[str, Any]:
        """The states that differ from ``seen``, as soon as one does, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            changed = self.watcher.wait(jobs, seen, min(left, self.tender.patience(jobs)))
            changed = self.tender.run(jobs, changed)
            if changed or time.monotonic() >= deadline:
                break
        notes, self.scheduler.notes = self.scheduler.notes, []
        return {"states": changed, "trouble": self.watcher.trouble, "notes": notes}

    def fetch(
        self,
        jobs: dict[str, dict[str, Sequence[int]]],
        patterns: Sequence[str] = (),
        max_size: int = 0,
        parts: Mapping[str, Sequence[Any]] | None = None,
    ) -> tuple[dict[str, Any], Any]:
        """The files of job directories that the other side lacks, as a tar stream.

        :param jobs: by job id, what the other side has: size and modification time (nanoseconds) by name
        :param parts: what it has of large files; see :class:`.pack.Packer`
        """
        packer = Packer(parts)
        count = sum(files.add_changed(packer, self.layout, job, patterns, max_size, have) for job, have in jobs.items())
        return {"files": count}, packer.finish() if packer.entries else None

    def manifest(self, job: str) -> dict[str, Any]:
        """Sizes (bytes) and times (nanoseconds) of the files in a job directory, by name."""
        directory = self.layout.job(job)
        if not directory.is_dir():
            raise WorkspaceError(f"no job {job}", where=str(self.layout.root))
        return {"files": files.manifest(directory)}

    def read(
        self, job: str, stream: str = "out", offset: int = 0, limit: int = 1 << 20, attempt: int | None = None
    ) -> tuple[dict[str, Any], Any]:
        """A piece of a job's log; see :func:`.logs.read_log`."""
        return read_log(self.layout, job, stream, offset, limit, attempt)

    def cancel(self, jobs: Sequence[str]) -> dict[str, Any]:
        """End jobs that wait or run; returns those that did."""
        return {"cancelled": cancel(self.layout, self.scheduler, self.watcher, jobs)}

    def clean(self, dry_run: bool = False) -> dict[str, Any]:
        """Remove what no live job needs; see :func:`.clean.clean`."""
        with submission_lock(self.layout):
            return {"found": clean(self.layout, dry_run)}

    def retry(self, jobs: Sequence[str]) -> dict[str, Any]:
        """Submit jobs that failed again, with the jobs that failed for them."""
        failed_for_it = [
            job
            for job in dependents(self.layout, jobs)
            if (self.layout.marker(job) or {}).get("reason") == "dependency"
        ]
        wanted = parents_first(self.layout, [*jobs, *failed_for_it])
        for job in wanted:
            code = self.layout.record(job).get("code")
            if code and not (self.layout.root / code).is_dir():
                hint = "run its script again, which sends it anew"
                raise WorkspaceError("the code of this job has been removed by `xpm-hpc clean`", where=job, hint=hint)
        return {"jobs": wanted, "problems": self.tender.start_again(wanted)}

    def dependents(self, jobs: Sequence[str]) -> dict[str, Any]:
        """The jobs of this workspace that need any of ``jobs``, directly or not, those farthest down first."""
        return {"jobs": dependents(self.layout, jobs)[::-1]}

    def explain(self, jobs: Sequence[str]) -> dict[str, Any]:
        """More of why jobs wait: for each, the scheduler's words, and the parents that have not ended well."""
        states = self.watcher.states(jobs)
        found = {}
        for job in jobs:
            native = states[job].get("native_id") if states[job]["state"] in WAITING else None
            words: dict[str, str] = {}
            with contextlib.suppress(NoInformation):  # the states say more than nothing
                words = self.scheduler.explain(native) if native else {}
            parents = self.layout.record(job).get("parents", ())
            of_parents = self.watcher.states(parents, max_age=60.0)
            found[job] = {
                "state": states[job],
                "scheduler": self.scheduler.name,
                "words": words,
                "parents": {one: state for one, state in of_parents.items() if state["state"] != "done"},
                "cause": self._cause(job) if states[job].get("reason") == "dependency" else "",
            }
        return found

    def _cause(self, job: str) -> str:
        """The job, at any depth above, that failed by itself; "" if none is known."""
        seen: set[str] = set()
        while job not in seen:
            seen.add(job)
            parents = self.layout.record(job).get("parents", ())
            failed = {one: of for one in parents if (of := self.layout.marker(one)) and of["state"] == "failed"}
            own = [one for one, of in failed.items() if of.get("reason") != "dependency"]
            if own or not failed:
                return own[0] if own else ""
            job = next(iter(failed))
        return ""
