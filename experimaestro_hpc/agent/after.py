"""What is held goes on when a job ends, with nobody watching. In: a workspace, on the job's node. Out: submissions.

``run_task.py`` calls :func:`go_on` where a note says that something is held (:mod:`.held`). It is done in a process of
its own, in the environment of whoever held it, and only on nodes that see the workspace and have the scheduler's
commands. The job has ended by then, but not for the scheduler, which counts it until this is over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from typing import IO

from ..runtime.deadline import remaining_time
from ..schedulers import scheduler_class
from .held import environment, forget, noted
from .layout import Layout
from .receipts import read_receipt
from .tend import Tender
from .watch import State, Watcher

#: seconds for which a job tries, and between two tries: jobs that have just ended are counted for a while
PATIENCE, PAUSE = 30.0, 3.0
#: seconds that the job must have left: one that is ended meanwhile has not ended well, for what depends on it
LEAST = 180.0


def go_on(root: str) -> None:
    """Submit what is held in this workspace, as far as there is room now; return in two minutes at most."""
    variables = environment(Layout(root))
    left = remaining_time()
    if variables is None or (left is not None and left < LEAST):
        return
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [sys.executable, "-E", "-S", "-m", __name__, root],
            cwd=package,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=4 * PATIENCE,
            check=False,
        )


def main(root: str) -> None:
    """What :func:`go_on` starts: one at a time, and one who waits; more need not, since that one comes after them."""
    layout = Layout(root)
    locks = layout.internal / "locks"
    locks.mkdir(exist_ok=True)
    with (locks / "held-next").open("a") as queue, (locks / "held-now").open("a") as turn:
        if not _take(queue):
            return
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(queue, fcntl.LOCK_UN)
        end = time.monotonic() + PATIENCE
        while not submit_held(layout) and time.monotonic() < end and _take(queue):
            fcntl.flock(queue, fcntl.LOCK_UN)
            time.sleep(PAUSE)


def _take(lock: IO[str]) -> bool:
    """Take a lock if nobody has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def submit_held(layout: Layout) -> bool:
    """Submit what there is room for; whether something was submitted, or nothing need be."""
    by_scheduler: dict[str, list[str]] = {}
    for token in noted(layout):
        receipt = read_receipt(layout, token)
        listed = receipt.jobs.values() if receipt is not None and receipt.state == "held" else ()
        # jobs may have gone to another submission, and may have been cancelled
        mine = [job for job in listed if layout.record(job).get("batch") == token and layout.marker(job) is None]
        if receipt is None or not mine:
            forget(layout, token)
        else:
            by_scheduler.setdefault(receipt.scheduler, []).extend(mine)
    states: list[State] = []
    for name, jobs in by_scheduler.items():
        scheduler = scheduler_class(name)(str(layout.root))
        if scheduler.command and shutil.which(scheduler.command):
            watcher = Watcher(layout, scheduler)
            states += Tender(layout, scheduler, watcher).run(jobs, watcher.states(jobs)).values()
    return not states or any(state.get("native_id") or state["state"] == "failed" for state in states)


if __name__ == "__main__":
    main(sys.argv[1])
