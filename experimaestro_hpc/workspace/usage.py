"""Asked against used. In: views of jobs. Out: for each task what its jobs asked for, used, and should ask for. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from ..resources import Resources, format_duration, format_memory
from .jobs import View

#: what is asked for next time, in terms of the most that was used
MARGIN = 1.3
#: seconds; of a shorter job the start-up is most of its CPU time, and says nothing
LEAST = 1.0

HEADERS = (
    *("task", "jobs", "time asked", "longest", "memory asked", "largest", "cores asked", "busy"),
    *("GPUs asked", "GPU memory", "GPU busy", "ask for"),
)


class Usage(NamedTuple):
    """One task's jobs; None for what was not asked for, or not measured.

    :ivar task: its id
    :ivar jobs: how many that have ended say what they used
    :ivar duration: seconds asked for, the most of all
    :ivar longest: seconds that the longest took
    :ivar memory: bytes asked for
    :ivar largest: bytes that the largest used
    :ivar cores: cores asked for
    :ivar busy: cores that the busiest kept busy, on average over its time
    :ivar gpus: GPUs asked for
    :ivar gpu_memory: bytes, the most that a single GPU held
    :ivar gpu_busy: how busy the busiest job's GPUs were, from 0 to 1
    :ivar advice: what to ask for next time
    """

    task: str
    jobs: int
    duration: int | None
    longest: float
    memory: int | None
    largest: float
    cores: int | None
    busy: float
    gpus: int | None
    gpu_memory: int | None
    gpu_busy: float | None
    advice: str

    def row(self) -> list[str]:
        """For people."""
        return [
            self.task,
            str(self.jobs),
            format_duration(self.duration) if self.duration else "",
            format_duration(math.ceil(self.longest)),
            format_memory(self.memory) if self.memory else "",
            format_memory(_rounded(self.largest, 1024**2)),
            str(self.cores or ""),
            f"{self.busy:.1f}",
            str(self.gpus or ""),
            format_memory(self.gpu_memory) if self.gpu_memory else "",
            "" if self.gpu_busy is None else f"{self.gpu_busy:.0%}",
            self.advice,
        ]


def usage_by_task(views: Iterable[View]) -> list[Usage]:
    """The tasks of these jobs, by name."""
    by_task: dict[str, list[View]] = {}
    for one in views:
        if (one.get("used") or {}).get("wall"):
            by_task.setdefault(one["task"], []).append(one)
    return [_of(task, by_task[task]) for task in sorted(by_task)]


def _of(task: str, views: list[View]) -> Usage:
    def asked(name: str) -> int | None:
        return max((one["resources"].get(name) or 0 for one in views), default=0) or None

    longest = max(one["used"]["wall"] for one in views)
    largest = max(one["used"].get("max_rss") or 0 for one in views)
    held = max(one["used"].get("gpu_memory") or 0 for one in views)
    busy = max((one["used"].get("cpu") or 0) / max(one["used"]["wall"], LEAST) for one in views)
    advice = Resources(
        cores=max(1, math.ceil(busy - 0.1)),
        memory=_rounded(largest * MARGIN, 64 * 1024**2) if largest else None,
        duration=_rounded(longest * MARGIN, 60),
        gpus=asked("gpus"),
        # as it is: GPUs come in sizes, and a margin would ask for the next one
        gpu_memory=_rounded(held, 1024**3) if held and asked("gpus") else None,
    )
    return Usage(
        task=task,
        jobs=len(views),
        duration=asked("duration"),
        longest=longest,
        memory=asked("memory"),
        largest=largest,
        cores=asked("cores"),
        busy=busy,
        gpus=asked("gpus"),
        gpu_memory=held or None,
        gpu_busy=max((one["used"]["gpu_busy"] for one in views if "gpu_busy" in one["used"]), default=None),
        advice=str(advice),
    )


def _rounded(amount: float, step: int) -> int:
    """``amount`` rounded up to whole steps, at least one."""
    return max(1, math.ceil(amount / step)) * step
