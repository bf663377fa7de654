"""What a task's GPUs did. In: their numbers, and what nvidia-smi says. Out: the most memory that one held, how busy.

nvidia-smi is asked by a process beside the task: no thread of it, as tasks fork, and no child of it, as tasks may wait
for all of theirs. That process ends with the task, also with one that is killed. Without nvidia-smi nothing is known.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

#: seconds before the first look, doubled for each up to the second: short tasks are seen, and long ones not disturbed
FIRST, LONGEST = 1, 32

_LOOK = """
pause=$1
while sleep "$pause"; kill -0 "$3" 2>/dev/null; do
    nvidia-smi -i "$4" --query-gpu=memory.used,utilization.gpu --format=csv,noheader,nounits | sed "s/^/$pause, /"
    [ "$pause" -ge "$2" ] || pause=$((pause * 2))
done &
"""


class GpuWatch:
    """Looks at GPUs until :meth:`finish`.

    :param numbers: as in ``CUDA_VISIBLE_DEVICES``
    """

    def __init__(self, numbers: str) -> None:
        self.group = 0
        if shutil.which("nvidia-smi") is None:
            return
        try:
            self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - read at the end
            shell = subprocess.Popen(
                ["/bin/sh", "-c", _LOOK, "sh", str(FIRST), str(LONGEST), str(os.getpid()), numbers],
                stdin=subprocess.DEVNULL,
                stdout=self.said,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if shell.wait() == 0:
                self.group = shell.pid  # of what it leaves behind
        except OSError:
            pass  # the disk is full, or no more processes: the task matters more

    def finish(self) -> dict[str, float]:
        """Stop, and tell what was seen; see :func:`measured`."""
        if not self.group:
            return {}
        try:
            os.killpg(self.group, signal.SIGKILL)
        except OSError:
            pass  # somebody else has ended it
        self.said.seek(0)
        return measured(self.said.read().decode("utf-8", "replace"))


def measured(said: str) -> dict[str, float]:
    """``gpu_memory``, the most bytes that one GPU held, and ``gpu_busy``, the mean of all over time, from 0 to 1.

    :param said: lines of seconds, MiB and percent; what a GPU does not tell is text in brackets

    >>> measured("2, 1024, 50\\n4, 2048, [N/A]")
    {'gpu_memory': 2147483648, 'gpu_busy': 0.5}
    """
    memory: list[int] = []
    busy = seconds = 0.0
    for line in said.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) != 3 or not words[0].isdigit():
            continue
        if words[1].isdigit():
            memory.append(int(words[1]) * 1024**2)
        if words[2].isdigit():
            busy += int(words[0]) * int(words[2]) / 100
            seconds += int(words[0])
    found: dict[str, float] = {"gpu_memory": max(memory)} if memory else {}
    if seconds:
        found["gpu_busy"] = round(busy / seconds, 3)
    return found
