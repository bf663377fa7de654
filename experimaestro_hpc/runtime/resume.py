"""A resumable task that is told to stop, or stops itself, and goes on later. In: signals. Out: a new start of the job.

Loaded only for resumable tasks. A warning before the time limit (SIGUSR2) and an end (SIGTERM) become a
:class:`GracefulTimeout` in the task, which may save its state then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from ..config.objects import GracefulTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType
    from typing import Any

#: seconds to wait for the end that a requeued job is given
END_PATIENCE = 120.0
#: seconds to wait until what the task has saved is where its next start finds it, if that may be on another node
FLUSH_PATIENCE = 600.0
#: seconds that a job must have run for OAR to submit it again, and a little more as clocks differ
OAR_LEAST = 63.0


class Ended(GracefulTimeout):
    """The scheduler ends the job: it is preempted, or cancelled. It knows which, and what becomes of it."""


def listen() -> None:
    """From now on signals reach the task as exceptions."""
    signal.signal(signal.SIGUSR2, _warned)
    signal.signal(signal.SIGTERM, _ended)


def stop_listening() -> None:
    """From now on they are ignored: the task has ended, and its marker is to be written."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _warned(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # once is enough
    raise GracefulTimeout("its time limit is near")


def _ended(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Ended("the scheduler ends it")


def start_again(environ: Mapping[str, str], record: Mapping[str, Any], restarts: int) -> bool:
    """Have the scheduler start this job again; False when it cannot be, or need not be.

    Other jobs that wait for this one go on waiting, without anybody's help.

    :param restarts: how often it has been started again already
    """
    times = (record.get("retry") or {}).get("timeout", {"times": 0})["times"]
    counted = (record.get("attempts") or ())[record.get("earlier", 0) :]
    if times is not None and sum(one.get("reason") == "timeout" for one in counted) + restarts >= times:
        return False
    if environ.get("SLURM_JOB_ID"):
        return _requeue(environ["SLURM_JOB_ID"], environ.get("XPM_HPC_FLUSH", ""))
    return bool(environ.get("XPM_HPC_IDEMPOTENT")) and _has_run_enough(environ)


def _has_run_enough(environ: Mapping[str, str]) -> bool:
    """Wait until OAR submits the job again if it ends as it asks for; False when its time limit comes before that."""
    try:
        end = float(environ["XPM_HPC_END_TIME"])
        enough = end - float(environ["OAR_JOB_WALLTIME_SECONDS"]) + OAR_LEAST
    except (KeyError, ValueError):
        return False  # not a script of ours
    if enough > end - 2:
        print("xpm-hpc: OAR starts no job again that ran for less than a minute", file=sys.stderr)
        return False
    time.sleep(max(0.0, enough - time.time()))
    return True


def _requeue(native: str, flush: str) -> bool:
    """Have Slurm start this job again under its own id; it ends this process then."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if not _flush(flush):
        return False
    try:
        asked = subprocess.run(["scontrol", "requeue", native], stdin=subprocess.DEVNULL, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"xpm-hpc: the job cannot be started again: {error}", file=sys.stderr)
        return False
    if asked.returncode:
        return False
    time.sleep(END_PATIENCE)
    return True


def _flush(path: str) -> bool:
    """On a node that does not see the workspace: have the job's files copied there; False when they are not.

    :param path: of a file that asks for it, and that is removed when it is done
    """
    if not path:
        return True
    try:
        with open(path, "w"):
            pass
    except OSError as error:
        print(f"xpm-hpc: the job cannot be started again: {error}", file=sys.stderr)
        return False
    deadline = time.monotonic() + FLUSH_PATIENCE
    while os.path.exists(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
