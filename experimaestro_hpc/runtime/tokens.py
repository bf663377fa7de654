"""Hold tokens while a task executes. In: what the task holds. Out: locks on files in ``.xpm/tokens``.

A token is a file, and holding it a lock that the kernel gives up when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: seconds between two tries
PAUSE = 0.5


def hold(folder: str, wanted: Mapping[str, Sequence[int]], tell: Callable[[str], None]) -> list[int]:
    """Wait until all tokens are there, and hold them until the process ends.

    :param folder: the tokens of the workspace
    :param wanted: by name, how many are needed and how many there are
    :param tell: called once with what is waited for
    :returns: the handles that hold the locks

    Names are taken in their order, and all tokens of a name at once or none, so that no two tasks wait for each other.
    """
    os.makedirs(folder, exist_ok=True)
    held: list[int] = []
    for name, (needed, total) in sorted(wanted.items()):
        told = False
        while True:
            taken = _take(folder, name, needed, total)
            if taken:
                held += taken
                break
            if not told:
                tell(f"waits for a token {name!r}")
                told = True
            time.sleep(PAUSE)
    return held


def _take(folder: str, name: str, needed: int, total: int) -> list[int]:
    """``needed`` of the tokens, or none."""
    taken: list[int] = []
    for number in range(total):
        handle = os.open(os.path.join(folder, f"{name}.{number}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        taken.append(handle)
        if len(taken) == needed:
            return taken
    for handle in taken:
        os.close(handle)
    return []
