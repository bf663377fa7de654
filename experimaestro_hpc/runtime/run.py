"""One task from its start to its marker. In: a job directory with ``params.json`` and ``job.json``. Out: what the task
writes, and ``<name>.done`` or ``<name>.failed``, written last and by rename.

The steps: take the job's lock, check the parents' markers, load the task, execute it, record, write the marker.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

from ..config.objects import GracefulTimeout, job_name
from . import progress
from .files import read_json, write_json
from .task import Failure, Unexplained, check_parents, execute, flush, load, packages, say, show, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: exit status when another run of the same job holds its lock: that run writes the marker, not this one
BUSY = 75
#: exit status after which OAR submits a job again that is ``idempotent`` and ran for more than a minute
AGAIN = 99


def main(argv: list[str]) -> int:
    """Run the job in the directory ``argv[1]``; returns the process's exit status."""
    if len(argv) > 2 and argv[2] == "--process":
        from .worker import work  # one of several processes of a task

        return work(argv)
    if len(argv) != 2:
        print("usage: python -m experimaestro_hpc.runtime JOBDIR", file=sys.stderr)
        return 2
    directory = os.path.abspath(argv[1])
    workspace, job = split(directory)
    stem = os.path.join(directory, job_name(job.split("/")[0]))
    lock = os.open(os.path.join(directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"xpm-hpc: {job} is being run by another process; this one ends", file=sys.stderr)
        return BUSY
    except OSError:
        pass  # a file system without locks: exactly one submission still holds
    try:
        return 0 if os.path.exists(stem + ".done") else _run(workspace, job, directory, stem)
    finally:
        os.close(lock)  # this process may go on for others


def _run(workspace: str, job: str, directory: str, stem: str) -> int:
    record = read_json(os.path.join(directory, "job.json")) or {}
    restarts = _restarts(record, directory)
    start = {
        "started": time.time(),
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "native_id": _native_id() or record.get("native_id"),
        "attempt": int(record.get("attempt") or 1) + restarts,
    }
    gpus = None
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        from .gpus import GpuWatch  # for tasks that have some

        start["gpus"] = os.environ["CUDA_VISIBLE_DEVICES"]
        gpus = GpuWatch(os.environ["CUDA_VISIBLE_DEVICES"])
    if restarts:
        _note_restart(record, directory)
    began = time.monotonic()
    os.environ["XPM_HPC_JOB"] = job
    _remove(stem + ".failed")
    reporter = progress.Reporter(os.path.join(directory, "progress.json"), start)
    progress.use(reporter)
    code = 0
    end: dict[str, Any] = {"state": "done"}
    more: dict[str, Any] = {}
    try:
        if not record:
            raise Failure("launch", "its job.json is missing or cannot be read, so its parents are not known")
        check_parents(workspace, record.get("parents") or [])
        code = _execute(workspace, job, directory, record, more)
    except GracefulTimeout as stop:
        code, end = _stopped(stop, record, restarts)
        if not end:
            return code  # no marker: the scheduler says what becomes of it
    except Failure as failure:
        say(f"xpm-hpc: {failure}\n")
        code, end = failure.code, {"state": "failed", "reason": failure.reason, "message": str(failure)[-2000:]}
    except Unexplained as killed:
        say(f"xpm-hpc: {killed}\n")
        return killed.code
    except BaseException as error:
        code, end = 1, {"state": "failed", "reason": "exit", "message": show(error)}
    if os.getpid() != start["pid"]:
        return code  # a child that the task forked and that came out here; the marker is its parent's to write
    if code and end["state"] == "done":
        end = {"state": "failed", "reason": "exit", "message": f"the task ended with exit status {code}"}
    lost = flush()
    if lost and not code:
        code, end = 1, {"state": "failed", "reason": "exit", "message": lost}
    try:
        reporter.finish()
    except OSError:
        pass  # the disk is full; the marker will say so if it cannot be written either
    end.update(start, ended=time.time(), exit_code=code, used=_used(time.monotonic() - began))
    end.update(python=sys.version.split()[0], packages=packages())
    end.update(more)
    if gpus is not None:
        end["used"].update(gpus.finish())
    for name in ("reason", "message"):  # of an earlier attempt
        record.pop(name, None)
    try:
        write_json(os.path.join(directory, "job.json"), {**record, **end})
        # not forced to the disk: after a crash of the machine it must not be there when the task's own files are not
        write_json(stem + (".failed" if code else ".done"), end)
    except OSError as error:
        say(f"xpm-hpc: {job}: the end of the task cannot be recorded: {error}\n")
        return code or 74
    # the marker says how it ended; OAR must not take the task's own exit status for a wish
    return 1 if code == AGAIN and "OAR_JOB_ID" in os.environ else code


def _restarts(record: dict[str, Any], directory: str) -> int:
    """How often the scheduler has started this attempt again by itself."""
    if "OAR_JOB_ID" not in os.environ:
        return int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    # OAR does it under a new id, and keeps no count; before an attempt of ours there is no progress
    before = read_json(os.path.join(directory, "progress.json")) or {}
    if before.get("native_id") in (None, _native_id()):
        return 0
    return int(before.get("attempt") or 1) + 1 - int(record.get("attempt") or 1)


def _note_restart(record: dict[str, Any], directory: str) -> None:
    """The scheduler has started the same job again: what is known of the start before is kept."""
    before = read_json(os.path.join(directory, "progress.json"))
    if before is None or not record:
        return
    known = {key: before[key] for key in ("attempt", "started", "host", "native_id", "gpus") if key in before}
    record["attempts"] = [*(record.get("attempts") or ()), {**known, "ended": before.get("updated"), "requeued": True}]
    try:
        write_json(os.path.join(directory, "job.json"), record)
    except OSError:
        pass  # the disk is full: it is written again at the end


def _stopped(stop: GracefulTimeout, record: dict[str, Any], restarts: int) -> tuple[int, dict[str, Any]]:
    """Exit status and end of a task that stopped before its time limit; no end when the job goes on in a new start."""
    from .resume import Ended, start_again  # for resumable tasks only

    say(f"xpm-hpc: the task stopped: {stop}\n")
    sys.stdout.flush()
    if isinstance(stop, Ended):
        return 128 + 15, {}
    if start_again(os.environ, record, restarts):
        return AGAIN if "OAR_JOB_ID" in os.environ else 128 + 15, {}
    return 1, {"state": "failed", "reason": "timeout", "message": str(stop) or "stopped before the time limit"}


def _execute(workspace: str, job: str, directory: str, record: dict[str, Any], more: dict[str, Any]) -> int:
    """Load and execute, here or in several processes; returns the exit status that the task asks for.

    :param more: gets what several processes tell beside that, for the record
    """
    task = None if record.get("processes") else load(workspace, job, record)
    os.chdir(directory)
    if record.get("tokens"):
        from .tokens import hold  # for the few tasks that hold any

        hold(
            os.path.join(workspace, ".xpm", "tokens"), record["tokens"], lambda text: progress.progress(0.0, desc=text)
        )
    if task is None:
        from .lead import lead  # for the few tasks of several processes

        return lead(directory, job_name(job.split("/")[0]), record, more)
    return execute(task)


def _native_id() -> str | None:
    """The scheduler's own id of this job, from the environment."""
    environ = os.environ
    array = environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{environ.get('SLURM_ARRAY_TASK_ID', '')}"
    return environ.get("SLURM_JOB_ID") or environ.get("OAR_JOB_ID") or environ.get("XPM_HPC_NATIVE_ID")


def _used(wall: float) -> dict[str, float]:
    """What the task used: wall and CPU time in seconds, the largest resident size in bytes."""
    import resource  # after the task: a small module, but none of its business

    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall": round(wall, 3),
        "cpu": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
        "max_rss": max(own.ru_maxrss, children.ru_maxrss) * 1024,
    }


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
