"""This machine as a scheduler. In: submissions. Out: queue files that a background runner works through.

The folder ``.xpm/local`` of the workspace holds

* ``queue/<token>.json``: a submission: its scripts, what they wait for, and the environment to run them in (readable
  by the user alone); removed when all its jobs have ended;
* ``journal``: a line for each start and end of a job;
* ``cancel/<native id>``: a wish to end a job;
* ``wake``: a named pipe; a byte in it makes the runner look at once;
* ``runner.lock``, held by the runner while it lives, and ``queue.lock``, held by whoever changes the queue.

:mod:`.local_runner` is the runner; it goes on when the experiment's process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import SubmissionError
from .base import NoInformation, Request, Scheduler, Status, Submission
from .command import clean_environment

#: what the runner reads of a script's directives
_NUMBERS = ("cores", "gpus", "seconds", "slots", "gpu_slots", "warning")


class Folder(NamedTuple):
    """The places in ``.xpm/local``."""

    root: Path

    @property
    def queue(self) -> Path:
        return self.root / "queue"

    @property
    def cancel(self) -> Path:
        return self.root / "cancel"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def wake(self) -> Path:
        return self.root / "wake"

    def make(self) -> None:
        """Create what is missing."""
        for folder in (self.queue, self.cancel):
            folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.wake, 0o600)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock file while the block runs."""
        with (self.root / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def nudge(self) -> None:
        """Make a living runner look at once."""
        with contextlib.suppress(OSError):  # nobody listens: the next runner looks when it starts
            pipe = os.open(self.wake, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(pipe, b"x")
            finally:
                os.close(pipe)


def local_folder(workspace: str) -> Folder:
    """The local scheduler's folder of a workspace."""
    return Folder(Path(workspace, ".xpm", "local"))


def parse_directives(script: str) -> dict[str, str]:
    """The ``#XPM name=value`` lines at the head of a script."""
    found = {}
    for line in script.splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("#XPM "):
            name, _, value = line[5:].partition("=")
            found[name.strip()] = value.strip()
    return found


def parse_journal(text: str) -> dict[str, tuple[str, ...]]:
    """Each job's last event: ``("running", pid, start in seconds since 1970)`` or ``("ended", code, reason)``."""
    last: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        native, *event = line.split(" ")
        if len(event) == 3:
            last[native] = tuple(event)
    return last


def read_journal(folder: Folder) -> dict[str, tuple[str, ...]]:
    """:func:`parse_journal` of the journal, if there is one."""
    try:
        return parse_journal(folder.journal.read_text())
    except FileNotFoundError:
        return {}


def ended_status(code: int, reason: str) -> Status:
    """What an exit code means; negative for the signal that killed the process."""
    if reason == "-":
        reason = "" if code == 0 else "cancelled" if code in (-15, -2) else "exit"
    if reason == "exit" and code in (126, 127):
        reason = "launch"
    detail = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    return Status("ended", reason=reason, detail=detail, exit_code=128 - code if code < 0 else code)


def gpus_here() -> int:
    """How many GPUs this machine shows."""
    return sum(1 for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit())


class Local(Scheduler):
    """The background runner of this workspace, on this machine."""

    name = "local"
    arrays = True
    starter = "local"

    def __init__(self, workspace: str, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(workspace)
        self.folder = local_folder(workspace)
        self.environ = clean_environment(os.environ if environ is None else environ)
        if "LC_ALL" not in (os.environ if environ is None else environ):
            del self.environ["LC_ALL"]  # tasks keep the user's language

    @classmethod
    def directives(cls, request: Request) -> list[str]:
        resources = request.resources
        if resources.node_count > 1:
            hint = "ask for tasks_per_node on this machine, or choose the launcher of a cluster"
            raise SubmissionError(f"this machine is one node, {resources.nodes} asked", where="local", hint=hint)
        cores = (resources.cores or 1) * resources.tasks_per_node if resources.tasks_per_node else resources.cores
        wanted = {
            "cores": cores,
            "gpus": resources.gpus or None,
            "seconds": resources.duration,
            "warning": request.warning,
            **request.options,
            **request.partition_options,
        }
        return [f"#XPM {name}={value}" for name, value in wanted.items() if value is not None]

    def submit(self, submission: Submission) -> list[str]:
        self.folder.make()
        script = Path(submission.directories[0], "job.sh")
        try:
            wishes = parse_directives(script.read_text(errors="surrogateescape"))
        except OSError as error:
            raise SubmissionError(f"the script cannot be read: {error}", where=str(script)) from error
        for name in _NUMBERS:
            value = wishes.get(name, "1")
            if not value.replace(".", "", 1 if name == "seconds" else 0).isdecimal():
                hint = "check [defaults] in the launcher file"
                raise SubmissionError(f"{name} = {value!r} is no number", where="local", hint=hint)
        gpus = int(wishes.get("gpus", 0))
        there = int(wishes.get("gpu_slots", gpus_here()))
        if gpus > there:
            what = f"{gpus} GPU{'s' if gpus > 1 else ''} asked for, and this machine has {there}"
            raise SubmissionError(what, where="local", hint="an alternative without: 'gpu & … | …'")
        if submission.resources is not None and submission.resources.duration:
            wishes["seconds"] = str(submission.resources.duration)
        natives = self._natives(submission)
        entry = {
            "jobs": dict(zip(natives, submission.directories)),
            "dependencies": list(submission.dependencies),
            "wishes": wishes,
            "begin": time.time() + submission.delay,
            "environ": self.environ,
        }
        with self.folder.locked("queue.lock"):
            target = self.folder.queue / f"{submission.token}.json"
            temporary = target.with_suffix(".tmp")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
                json.dump(entry, file, ensure_ascii=False)
            temporary.rename(target)
        self._wake()
        return natives

    def query(self, native_ids: Sequence[str], max_age: float = 0.0) -> dict[str, Status]:
        if not native_ids:
            return {}
        # the journal after the queue: a job that ends in between is in both, never in neither
        queued = self._queued()
        journal = read_journal(self.folder)
        found = {}
        for native in native_ids:
            event = journal.get(native)
            if event is None:
                if native in queued:
                    found[native] = Status("queued", detail="waits for a free core or for its parents")
            elif event[0] == "running":
                found[native] = Status("running", host=os.uname().nodename)
            else:
                found[native] = ended_status(int(event[1]), event[2])
        if queued and not self._alive():
            self._wake()  # the runner was killed; a new one takes over
        return found

    def cancel(self, native_ids: Sequence[str]) -> None:
        self.folder.make()
        for native in native_ids:
            (self.folder.cancel / native).touch()
        self._wake()

    def find(self, submission: Submission) -> list[str] | None:
        natives = self._natives(submission)
        known = self._queued() | read_journal(self.folder).keys()
        return natives if natives[0] in known else None

    @staticmethod
    def _natives(submission: Submission) -> list[str]:
        if not submission.indexes:
            return [submission.token]
        return [f"{submission.token}_{index}" for index in submission.indexes]

    def _queued(self) -> set[str]:
        found: set[str] = set()
        if self.folder.queue.is_dir():
            for path in self.folder.queue.glob("*.json"):
                with contextlib.suppress(FileNotFoundError, ValueError):  # just ended
                    found |= json.loads(path.read_text(errors="surrogateescape"))["jobs"].keys()
        return found

    def _alive(self) -> bool:
        """Whether a runner holds its lock."""
        with (self.folder.root / "runner.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def _wake(self) -> None:
        """Nudge the runner, and start one if none lives.

        A runner that is about to end gives up ``runner.lock`` under ``queue.lock``, after a last look at the queue.
        """
        self.folder.make()
        with self.folder.locked("queue.lock"):
            alive = self._alive()
        if alive:
            self.folder.nudge()
            return
        package = Path(__file__).resolve().parent.parent
        try:
            with (self.folder.root / "runner.log").open("a") as log:
                subprocess.Popen(
                    [sys.executable, "-m", f"{package.name}.schedulers.local_runner", self.workspace],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # lives on when the terminal or the driver goes
                    cwd="/",
                    env={**self.environ, "PYTHONPATH": str(package.parent)},
                )
        except OSError as error:
            raise NoInformation(f"the local runner cannot be started: {error}") from error
