"""An experiment: the ``with`` block of a script. In: submitted tasks. Out: jobs that run, and their results here.

Tasks are collected while the block runs, and go to the cluster in one go at its end, or when somebody waits for one.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ..agent.layout import Layout
from ..config import context
from ..config.configure import were_read
from ..config.context import RunMode
from ..config.declare import State
from ..config.objects import ResumableTask, Task
from ..config.serialize import job_id
from ..errors import JobsFailed, WorkspaceError, XpmError
from ..workspace.experiments import check_name, note_jobs
from ..workspace.jobs import last_lines
from ..workspace.recent import remember
from ..workspace.words import count_of, short, tags_in_words
from . import hook
from .collect import make_job, outputs_of, seal, tags_of
from .dry_run import told
from .elsewhere import staying
from .jobs import Job, JobMaker
from .launcher import Launcher
from .launchers import launcher_named
from .monitor import Monitor, count, describe
from .notify import notify
from .options import run_options
from .plan import in_order
from .quiet import quiet_libraries
from .session import Session
from .submission import Submission, SubmissionErrorForAll
from .transfer import fetch_whole

#: seconds after a Ctrl-C in which another one cancels the jobs
SECOND_THOUGHT = 3.0


class experiment:
    """Run tasks in a workspace, each once.

    :param workdir: the workspace's folder on this machine
    :param name: the experiment's name, for people
    :param port: of the web page; ``None`` or 0: none
    :param launcher: name or file of the launcher; otherwise ``XPM_HPC_LAUNCHER``, otherwise ``local``
    :param run_mode: what to do with the tasks
    :param keep_going: end without an error even if jobs failed; they are told of all the same
    :raises JobsFailed: at the end of the block, when a job failed
    :raises XpmError: a file is wrong, or the cluster cannot be reached

    >>> with experiment("work", "mine") as xp:
    ...     Say(word="hello").submit()
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        name: str,
        port: int | None = None,
        launcher: str | Launcher | None = None,
        run_mode: RunMode = RunMode.NORMAL,
        keep_going: bool = False,
    ) -> None:
        hook.install()
        quiet_libraries()
        options = run_options.get()
        self.name = check_name(name)
        self.root = Path(options.workdir or workdir).expanduser().absolute()
        #: the workspace as a word for a shell, for people who copy it
        self.quoted = shlex.quote(str(self.root))
        self.layout = Layout(self.root)
        self.port = port
        self.keep_going = keep_going
        self.run_mode = RunMode.DRY_RUN if options.dry_run else run_mode
        self.detach = options.detach
        self.launcher = _launcher(options.launcher or launcher)
        self.jobs: dict[str, Job] = {}
        self.sent: set[str] = set()
        #: jobs that are not sent at all, as what they need failed elsewhere
        self.never: set[str] = set()
        self.sessions: dict[str, Session] = {}
        self.monitor = Monitor(self.sessions, {}, quiet=options.quiet)
        self.maker = JobMaker(self.root, _main_script())

    def __enter__(self) -> experiment:
        if self.port and self.run_mode is RunMode.NORMAL:
            self.monitor.say(f"no web page at port {self.port}: it is not part of this version; see `xpm-hpc jobs`")
        context.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        context.leave(self)
        try:
            if error is None:
                self.wait()
                self._notify("done")
                if run_options.get().dry_run:
                    raise SystemExit(0)  # what follows in the script wants results
            elif isinstance(error, Exception):
                open_ = [job for job in self.monitor.launchers if not self.monitor.is_over(job)]
                if open_:
                    end = f"xpm-hpc experiments cancel {shlex.quote(self.name)} --workdir {self.quoted}"
                    self.monitor.warn(f"the script has failed, and {count_of(open_)} may go on; to end them: {end}")
                self._notify("failed", str(error))
        except JobsFailed as failed:
            self._notify("failed", failed.what)
            raise
        finally:
            for session in self.sessions.values():
                session.close()

    def _notify(self, state: str, message: str = "") -> None:
        target = run_options.get().notify
        if not target or self.run_mode is not RunMode.NORMAL:
            return
        jobs = Counter(str(one.get("state")) for one in self.monitor.states.values())
        words = f"experiment {self.name}: {message or count(self.monitor.states)}"
        problem = notify(target, {"experiment": self.name, "state": state, "message": words, "jobs": jobs})
        if problem:
            self.monitor.warn(f"nobody was notified: {problem}")

    def submit(self, task: Task, *, launcher: Any = None, resources: Any = None, retry: Any = None) -> Any:
        """Take a task in; see :meth:`Task.submit`."""
        seal(task)
        id_ = job_id(task)
        if not self.jobs:
            self.maker.use_code_of(task)
        if id_ not in self.jobs:
            place = _launcher(launcher) if launcher else self.launcher
            self.jobs[id_] = make_job(task, place, resources, retry, self.jobs)
        else:
            self.jobs[id_].tags.update(tags_of(task, self.jobs))
        state: State = task.__dict__["__xpm__"]
        state.job = Handle(self, id_)
        state.directory = str(self.root / "jobs" / id_)
        return outputs_of(task)

    def wait(self) -> None:
        """Run all that was submitted so far and wait for its end.

        :raises JobsFailed: when a job failed
        """
        self._send_or_stop()
        if not self.jobs:
            self.monitor.say(f"experiment {self.name}: no task was submitted")
        if self.run_mode is not RunMode.NORMAL or not self.jobs:
            return
        self._follow(self.jobs)
        failed = {job: state for job, state in self.monitor.states.items() if state["state"] == "failed"}
        self.monitor.say(f"experiment {self.name}: {count(self.monitor.states)}")
        if failed and not self.keep_going:
            first = next((job for job, state in failed.items() if state.get("reason") != "dependency"), "")
            lines = last_lines(self.layout, first) if first else []
            raise JobsFailed(
                f"{len(failed)} of {len(self.jobs)} jobs failed",
                where=f"experiment {self.name}",
                hint="\n".join(
                    [
                        *_shown(describe(job, state) for job, state in failed.items()),
                        *([f"the end of the log of {short(first)}:"] if lines else []),
                        *(f"| {line}" for line in lines),
                        f"see: xpm-hpc jobs why ID --workdir {self.quoted}",
                    ]
                ),
            )

    def wait_for(self, job: str) -> None:
        """Wait for one job; see :meth:`Task.result`."""
        self._send_or_stop()
        if self.run_mode is not RunMode.NORMAL:
            raise XpmError("a result is wanted, and nothing is run", where=f"run mode {self.run_mode.value}")
        self._follow([job])
        state = self.monitor.states[job]
        if state["state"] == "failed":
            raise JobsFailed(
                f"{short(job)} failed ({state.get('reason')}): {state.get('message', '')}",
                where=f"experiment {self.name}",
                hint="\n".join(
                    [
                        *(f"| {line}" for line in last_lines(self.layout, job)),
                        f"see: xpm-hpc jobs why {short(job)} --workdir {self.quoted}",
                    ]
                ),
            )

    def _follow(self, jobs: Iterable[str]) -> None:
        jobs = list(jobs)
        if self.detach and not all(self.monitor.is_over(job) for job in jobs):
            self.monitor.say(
                f"detached: the jobs go on without this process. To see them: xpm-hpc jobs --workdir {self.quoted}\n"
                "To fetch the results: the same command, xpm-hpc experiments attach, or run the script again."
            )
            if any(job.retry and not isinstance(job.task, ResumableTask) for job in self.jobs.values()):
                self.monitor.say("Those that fail are tried again while somebody watches: xpm-hpc experiments attach")
            raise SystemExit(0)
        try:
            self.monitor.wait(jobs)
        except KeyboardInterrupt:
            self._interrupted()
            raise SystemExit(130) from None

    def _interrupted(self) -> None:
        """Ctrl-C: once detaches, twice cancels."""
        try:
            self.monitor.say(
                f"\ndetached: the jobs go on. To come back, run the script again; to look at them:"
                f" xpm-hpc jobs --workdir {self.quoted}; to end one: xpm-hpc jobs kill ID"
                f"\nCtrl-C again within {SECOND_THOUGHT:.0f} s cancels them"
            )
            time.sleep(SECOND_THOUGHT)
        except KeyboardInterrupt:
            cancelled = self.monitor.cancel()
            self.monitor.say(f"\ncancelled {count_of(range(cancelled))}")

    def _send_or_stop(self) -> None:
        try:
            self._send()
        except KeyboardInterrupt:
            self.monitor.say(
                "\ninterrupted while jobs were submitted: some may run already. Run the script again to go on: it"
                f" submits nothing twice. To see them: xpm-hpc jobs --workdir {self.quoted}"
            )
            raise SystemExit(130) from None
        except OSError as error:
            words = f"a file of the workspace cannot be written: {error.strerror or error}"
            where = str(error.filename or self.root)
            raise WorkspaceError(words, where=where, hint="another workspace: --workdir DIR") from error

    def _send(self) -> None:
        """Plan and submit what has not been sent yet."""
        fresh = {id_: job for id_, job in self.jobs.items() if id_ not in self.sent}
        if not fresh:
            return
        self._check(fresh)
        self._stay(fresh)
        self._add_builders(fresh)
        ordered = in_order([job.planned() for job in self.jobs.values()])  # a parent that was not submitted shows here
        if self.run_mode is RunMode.DRY_RUN:
            for line in told(self.name, self.layout, self.maker, fresh, run_options.get().scripts):
                self.monitor.say(line)
            self.sent |= fresh.keys()
            return
        remember(self.root)
        while fresh:
            ready, elsewhere = self._ready([fresh[job.id] for job in ordered if job.id in fresh], fresh)
            if ready:
                self._send_now({id_: fresh.pop(id_) for id_ in ready})
            open_ = [job for job in elsewhere if not self.monitor.is_over(job)]
            if open_:
                self.monitor.say(
                    f"  {len(fresh)} jobs wait for {len(open_)} on another launcher; they are sent when those are"
                    " done, so this process must go on until then"
                )
                self.monitor.wait(open_)

    def _check(self, fresh: dict[str, Job]) -> None:
        """Refuse what only shows when all is known."""
        if run_options.get().settings and not were_read.get():
            raise XpmError(
                f"nothing reads the setting {run_options.get().settings[0]}: the script does not call configure()",
                where=str(self.maker.script or ""),
                hint="for an option of the script's own: xpm-hpc run SCRIPT -- OPTIONS",
            )
        idle = {type(job.task).__qualname__ for job in fresh.values() if type(job.task).execute is Task.execute}
        if idle and self.run_mode is RunMode.NORMAL:
            raise XpmError(f"{min(idle)} has no execute method, so its tasks would do nothing")

    def _stay(self, fresh: dict[str, Job]) -> None:
        """Leave jobs with the launcher that has them already, if that is another one."""
        if self.run_mode is not RunMode.NORMAL:
            return
        found = staying(self.layout, fresh, self._session)
        for name, number in Counter(launcher.name for launcher in found.values()).items():
            self.monitor.say(f"  {number} of {len(fresh)} jobs stay with {name}, which got them earlier")
        for id_, launcher in found.items():
            self.jobs[id_] = fresh[id_] = replace(fresh[id_], launcher=launcher)

    def _ready(self, ordered: list[Job], fresh: dict[str, Job]) -> tuple[dict[str, None], list[str]]:
        """The jobs that can be sent, and the jobs on other launchers that the rest waits for.

        A job whose parent failed elsewhere fails here and now, and is fresh no more.

        :param ordered: the fresh jobs, parents before children
        """
        ready: dict[str, None] = {}
        elsewhere: dict[str, None] = {}
        for job in ordered:
            away = [one for one in job.parents if self.jobs[one].launcher.name != job.launcher.name]
            open_ = [one for one in away if self.run_mode is RunMode.NORMAL and not self.monitor.is_over(one)]
            failed = [one for one in job.parents if one in self.never or (one in away and self._has_failed(one))]
            if failed:
                words = f"its parent {short(failed[0])} failed"
                self.monitor.note({job.id: {"state": "failed", "reason": "dependency", "message": words}}, False)
                fresh.pop(job.id)
                self.never.add(job.id)
                self.sent.add(job.id)
            elif open_ or any(one in fresh and one not in ready for one in job.parents):
                elsewhere.update(dict.fromkeys(one for one in open_ if one not in fresh or one in ready))
            else:
                ready[job.id] = None
        return ready, list(elsewhere)

    def _has_failed(self, job: str) -> bool:
        return bool(self.monitor.states.get(job, {}).get("state") == "failed")

    def _send_now(self, fresh: dict[str, Job]) -> None:
        """Submit jobs of which no parent is still to be done elsewhere."""
        for launcher in {job.launcher.name: job.launcher for job in fresh.values()}.values():
            mine = {id_: job for id_, job in fresh.items() if job.launcher.name == launcher.name}
            self.monitor.launchers = {**self.monitor.launchers, **dict.fromkeys(mine, launcher.name)}
            self.monitor.labels.update({id_: tags_in_words(job.tags) for id_, job in mine.items()})
            session = self._session(launcher)
            submission = Submission(session, self.maker, self.name, mine, self._needed_by(mine), self._make_whole)
            if self.run_mode is RunMode.GENERATE_ONLY:
                submission.generate()
                continue
            try:
                submission.run(self.monitor)
            except SubmissionErrorForAll as error:
                if len({job.launcher.name for job in self.jobs.values()}) == 1:
                    raise
                self.monitor.say(f"  {error}")  # the jobs of the other launchers are not concerned
        self.sent |= fresh.keys()
        script = str(self.maker.script or "")
        note_jobs(self.root, self.name, script, {id_: job.summary() for id_, job in self.jobs.items()})

    def _add_builders(self, fresh: dict[str, Job]) -> None:
        """Let jobs need those that build their environments, where jobs do that."""
        for job in list(fresh.values()):
            builder = self.maker.builder(job.launcher)
            if builder is not None and builder.id not in job.parents:
                job.parents = (builder.id, *job.parents)
                if builder.id not in self.jobs:
                    self.jobs[builder.id] = fresh[builder.id] = builder

    def _session(self, launcher: Launcher) -> Session:
        if launcher.name not in self.sessions:
            self.sessions[launcher.name] = Session(launcher, self.root)
        return self.sessions[launcher.name]

    def _make_whole(self, jobs: list[str]) -> list[str]:
        """Bring all results of jobs that ran elsewhere to this machine; those for which that was possible."""
        found: list[str] = []
        by_place: dict[str, list[str]] = {}
        for job in jobs:
            by_place.setdefault(str(self.layout.record(job).get("launcher") or ""), []).append(job)
        for place, mine in by_place.items():
            try:
                session = self._session(_launcher(place))
                fetch_whole(session, mine)
            except XpmError as error:
                self.monitor.say(f"  the results of {len(mine)} jobs are not all here, so they run again: {error}")
                continue
            found += mine
        return found

    def _needed_by(self, jobs: dict[str, Job]) -> dict[str, Job]:
        """Jobs of earlier rounds that the new ones need, at any depth; none above those that ran elsewhere."""
        found: dict[str, Job] = {}
        todo = list(jobs.values())
        while todo:
            job = todo.pop()
            for parent in job.parents:
                if parent in jobs or parent in found:
                    continue
                found[parent] = self.jobs[parent]
                if self.jobs[parent].launcher.name == job.launcher.name:
                    todo.append(found[parent])
                else:
                    found[parent] = replace(self.jobs[parent], parents=())
        return found


class Handle:
    """A submitted task's way back to its experiment."""

    def __init__(self, owner: experiment, job: str) -> None:
        self.owner = owner
        self.job = job

    def result(self) -> None:
        """Wait for the job's end; see :meth:`Task.result`."""
        self.owner.wait_for(self.job)

    @property
    def state(self) -> str:
        """The job's last known state."""
        return str(self.owner.monitor.states.get(self.job, {}).get("state", "unscheduled"))


def _launcher(wanted: Any) -> Launcher:
    if isinstance(wanted, Launcher):
        return wanted
    return launcher_named(wanted or None)


def _main_script() -> Path | None:
    """The script that runs; for ``python -m package.script`` a name beside the package, where it is imported from."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if not file:
        return None
    path = Path(file).resolve()
    spec = getattr(main, "__spec__", None)
    return path.parents[spec.name.count(".")] / path.name if spec is not None else path


def _shown(lines: Iterable[str], most: int = 10) -> list[str]:
    listed = list(lines)
    return listed if len(listed) <= most else [*listed[:most], f"… and {len(listed) - most} more"]
