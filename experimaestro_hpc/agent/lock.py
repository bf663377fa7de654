"""One at a time. In: a workspace. Out: a block in which nobody else submits there, or writes that a job has ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from .layout import Layout


@contextlib.contextmanager
def submission_lock(layout: Layout, wait: bool = True) -> Iterator[bool]:
    """Nobody else submits in this workspace while the block runs; given up by itself when the process ends.

    The scheduler's commands inherit it: a process that is killed may leave behind one that is about to submit.
    A block inside of another one, with the same ``layout``, has it already.

    :param wait: for whoever has it; otherwise the block runs all the same, and is told that it is without
    :returns: whether the block has the lock
    """
    if layout.is_locked:
        yield True
        return
    folder = layout.internal / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "submit").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        os.set_inheritable(file.fileno(), True)
        layout.is_locked = True
        try:
            yield True
        finally:
            layout.is_locked = False
