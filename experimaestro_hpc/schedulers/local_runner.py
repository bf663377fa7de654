"""The background runner of the local scheduler. In: the queue in ``.xpm/local``. Out: processes, and the journal.

``python -m experimaestro_hpc.schedulers.local_runner WORKSPACE``. It runs as many jobs at once as there are cores (or
as the launcher says), holds those whose parents have not ended, and ends itself when nothing is left. Killed and
started again, it adopts the processes that live on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .local import Folder, gpus_here, local_folder, read_journal

#: seconds without work after which the runner ends
IDLE = 5.0
#: seconds between SIGTERM and SIGKILL
GRACE = 5.0
#: journal lines above which a new runner drops the oldest ends
_JOURNAL_LINES = 20000


@dataclass
class Job:
    """One job in the queue."""

    native: str
    directory: str
    token: str
    dependencies: list[str]
    cores: int
    gpus: int
    seconds: float | None
    environ: dict[str, str]
    slots: int | None
    gpu_slots: int | None
    begin: float = 0.0
    warning: float | None = None
    pid: int = 0
    process: subprocess.Popen[bytes] | None = None
    devices: list[int] = field(default_factory=list)
    kill_at: float | None = None
    reason: str = "-"
    started: float = 0.0


def is_alive(pid: int, native: str) -> bool:
    """Whether the process that was started for a job lives: its environment tells it from one with a reused pid."""
    try:
        environ = Path("/proc", str(pid), "environ").read_bytes()
    except OSError:
        return False
    return f"XPM_HPC_NATIVE_ID={native}".encode() in environ.split(b"\0")


class Runner:
    """Works through the queue of one workspace."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.waiting: dict[str, Job] = {}
        self.running: dict[str, Job] = {}
        #: exit codes of the jobs that have ended
        self.ended: dict[str, int] = {}
        self.tokens: dict[str, set[str]] = {}
        self.seen: set[str] = set()
        self.journal = folder.journal.open("a")
        self.machine_cores = len(os.sched_getaffinity(0))

    def recover(self) -> None:
        """Take up where a runner that was killed left off."""
        last = read_journal(self.folder)
        self.ended = {native: int(event[1]) for native, event in last.items() if event[0] == "ended"}
        self._compact(last)
        self.look()
        for native, job in list(self.waiting.items()):
            event = last.get(native)
            if event is not None and event[0] == "running":
                del self.waiting[native]
                job.pid = int(event[1])
                job.started = time.monotonic() - (time.time() - float(event[2]))
                self.running[native] = job

    def _compact(self, last: dict[str, tuple[str, ...]]) -> None:
        if len(last) > _JOURNAL_LINES:
            ended = [native for native, event in last.items() if event[0] == "ended"]
            drop = set(ended[: -_JOURNAL_LINES // 2])
            keep = [(native, event) for native, event in last.items() if native not in drop]
            temporary = self.folder.journal.with_suffix(".tmp")
            temporary.write_text("".join(f"{native} {' '.join(event)}\n" for native, event in keep))
            temporary.rename(self.folder.journal)
            self.journal = self.folder.journal.open("a")

    def look(self) -> None:
        """Read what is new in the queue."""
        for path in sorted(self.folder.queue.glob("*.json"), key=lambda one: one.stat().st_mtime_ns):
            if path.stem in self.seen:
                continue
            try:
                entry = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
            except ValueError:
                print(f"{path}: not understood, passed over", file=sys.stderr, flush=True)
                self.seen.add(path.stem)
                continue
            self.seen.add(path.stem)
            wishes = entry["wishes"]
            left = self.tokens.setdefault(path.stem, set())
            for native, directory in entry["jobs"].items():
                if native in self.ended:
                    continue
                left.add(native)
                self.waiting[native] = Job(
                    native,
                    directory,
                    path.stem,
                    entry["dependencies"],
                    cores=int(wishes.get("cores", 1)),
                    gpus=int(wishes.get("gpus", 0)),
                    seconds=float(wishes["seconds"]) if "seconds" in wishes else None,
                    environ=entry["environ"],
                    slots=int(wishes["slots"]) if "slots" in wishes else None,
                    gpu_slots=int(wishes["gpu_slots"]) if "gpu_slots" in wishes else None,
                    begin=float(entry.get("begin", 0.0)),
                    warning=float(wishes["warning"]) if "warning" in wishes else None,
                )
            if not left:
                path.unlink(missing_ok=True)

    def reap(self) -> None:
        """Record the ends of running jobs, and end those that must."""
        now = time.monotonic()
        for job in list(self.running.values()):
            code = job.process.poll() if job.process is not None else self._adopted(job)
            if code is not None:
                del self.running[job.native]
                self._end(job, code, job.reason)
                continue
            if job.warning is not None and job.seconds is not None and now - job.started > job.seconds - job.warning:
                job.warning = None
                self._warn(job)
            if job.seconds is not None and job.kill_at is None and now - job.started > job.seconds:
                self._kill(job, "timeout")
            elif job.kill_at is not None and now > job.kill_at:
                self._signal(job, signal.SIGKILL)

    @staticmethod
    def _adopted(job: Job) -> int | None:
        """An adopted process's exit code cannot be known: 0 stands for "see the marker"."""
        return None if is_alive(job.pid, job.native) else 0

    def cancel(self) -> None:
        """Do what the cancel files ask for."""
        for path in self.folder.cancel.iterdir():
            job = self.waiting.pop(path.name, None)
            if job is not None:
                self._end(job, -int(signal.SIGTERM), "cancelled")
            elif path.name in self.running:
                self._kill(self.running[path.name], "cancelled")
            path.unlink(missing_ok=True)

    def start(self) -> None:
        """Start what may start: parents ended well, enough cores and GPUs free."""
        for job in list(self.waiting.values()):
            pending = [parent for parent in job.dependencies if parent in self.waiting or parent in self.running]
            if any(self.ended.get(parent, 0) for parent in job.dependencies):
                del self.waiting[job.native]
                self._end(job, 1, "dependency")
            elif not pending and job.begin <= time.time() and self._fits(job):
                del self.waiting[job.native]
                self._launch(job)

    def _fits(self, job: Job) -> bool:
        slots = job.slots or self.machine_cores
        used = sum(other.cores for other in self.running.values())
        if self.running and used + min(job.cores, slots) > slots:
            return False
        return not job.gpus or len(self._free_gpus(job)) >= job.gpus

    def _free_gpus(self, job: Job) -> list[int]:
        taken = {device for other in self.running.values() for device in other.devices}
        there = gpus_here() if job.gpu_slots is None else job.gpu_slots
        return [device for device in range(there) if device not in taken]

    def _launch(self, job: Job) -> None:
        environ = {**job.environ, "XPM_HPC_NATIVE_ID": job.native}
        if job.seconds is not None:
            environ["XPM_HPC_END_TIME"] = str(time.time() + job.seconds)
        if job.gpus:
            job.devices = self._free_gpus(job)[: job.gpus]
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(device) for device in job.devices)
        try:
            job.process = subprocess.Popen(
                ["/bin/bash", "job.sh"],
                cwd=job.directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            print(f"{job.directory}: cannot start: {error}", file=sys.stderr, flush=True)
            self._end(job, 127, "launch")
            return
        job.pid, job.started = job.process.pid, time.monotonic()
        self.running[job.native] = job
        self._write(job.native, "running", str(job.pid), f"{time.time():.3f}")

    def _kill(self, job: Job, reason: str) -> None:
        job.reason = reason
        job.kill_at = time.monotonic() + GRACE
        self._signal(job, signal.SIGTERM)

    @staticmethod
    def _signal(job: Job, number: signal.Signals) -> None:
        if job.process is None and not is_alive(job.pid, job.native):
            return  # adopted, and gone: its pid may be somebody else's now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, number)  # its own process group: it was started as a session

    @staticmethod
    def _warn(job: Job) -> None:
        """Tell the task, and it alone, that its time limit is near."""
        if is_alive(job.pid, job.native):
            with contextlib.suppress(ProcessLookupError):
                os.kill(job.pid, signal.SIGUSR2)

    def _end(self, job: Job, code: int, reason: str) -> None:
        if job.process is not None:  # what the job left behind in its group
            self._signal(job, signal.SIGKILL)
        self.ended[job.native] = code
        self._write(job.native, "ended", str(code), reason)
        left = self.tokens.get(job.token, set())
        left.discard(job.native)
        if not left:
            (self.folder.queue / f"{job.token}.json").unlink(missing_ok=True)

    def _write(self, *words: str) -> None:
        self.journal.write(" ".join(words) + "\n")
        self.journal.flush()

    def step(self) -> None:
        """One round."""
        self.look()
        self.cancel()
        self.reap()
        self.start()

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running)


def _take(lock: IO[str]) -> bool:
    """Take the runner's lock; tried for a second, since those who only look hold it for a moment."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def run(folder: Folder) -> None:
    """Work until there has been nothing to do for a while."""
    with (folder.root / "runner.lock").open("a") as lock:
        if not _take(lock):
            folder.nudge()  # another runner lives
            return
        wake = os.open(folder.wake, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        runner = Runner(folder)
        runner.recover()
        idle_since = time.monotonic()
        while True:
            runner.step()
            if runner.busy:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > IDLE:
                with folder.locked("queue.lock"):
                    runner.look()
                    if not runner.busy and not any(folder.cancel.iterdir()):
                        fcntl.flock(lock, fcntl.LOCK_UN)
                        return
            ready, _, _ = select.select([wake, read_end], [], [], 0.5)
            for end in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(end, 65536)


if __name__ == "__main__":
    run(local_folder(sys.argv[1]))
