"""How far a task is. In: numbers from the task. Out: ``progress.json`` in its job directory, a few times a second."""

from __future__ import annotations

import os
import time

from .files import write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

#: seconds between two writes, so that a tight loop does not wear out a network file system
INTERVAL = 0.5


class Reporter:
    """Writes ``progress.json``: when and where the task started, and how far it is.

    :param path: the file
    :param start: what is known of the start (host, native id, …); written at once
    """

    def __init__(self, path: str, start: dict[str, Any]) -> None:
        self.path = path
        self.start = start
        self.levels: list[dict[str, Any]] = []
        self.write()
        self.written = 0.0  # so that the first report is written at once

    def report(self, value: float, level: int, desc: str | None) -> None:
        level = max(0, level)
        del self.levels[level + 1 :]
        while len(self.levels) <= level:
            self.levels.append({"value": 0.0, "desc": ""})
        self.levels[level]["value"] = min(max(0.0, float(value)), 1.0)  # nan counts as 0
        if desc is not None:
            self.levels[level]["desc"] = str(desc)
        is_end = value >= 1.0 and level == 0
        self.is_pending = True
        if is_end or time.monotonic() - self.written >= INTERVAL:
            self.write()

    def finish(self) -> None:
        """Write what was reported last, if it has not been."""
        if self.is_pending:
            self.write()

    def write(self) -> None:
        self.written = time.monotonic()
        self.is_pending = False
        write_json(self.path, {**self.start, "progress": self.levels, "updated": time.time()})


class _Process:
    """The job that this process runs, if it runs one; ``progress()`` has no other way to find it."""

    reporter: Reporter | None = None
    pid = 0


def use(reporter: Reporter) -> None:
    """Make ``progress()`` of this process report there."""
    _Process.reporter = reporter
    _Process.pid = os.getpid()


def progress(value: float, level: int = 0, desc: str | None = None) -> None:
    """Report how far the task is.

    :param value: from 0 to 1
    :param level: 0 for the whole, 1 for a part of it (an epoch, say), and so on
    :param desc: what the number is about

    Outside of a job it does nothing; a report that cannot be written never stops a task.
    """
    reporter = _Process.reporter
    if reporter is None or _Process.pid != os.getpid():
        return
    try:
        reporter.report(value, level, desc)
    except OSError:
        pass  # the disk is full or gone: the task itself will say so where it matters


class tqdm:
    """A loop that reports its progress: ``for batch in tqdm(batches, desc="epoch")``.

    :param iterable: what to go through
    :param total: how many there are, when ``len(iterable)`` does not say
    :param desc: what is counted
    :param level: as in :func:`progress`
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: float | None = None,
        level: int = 0,
        **_display: Any,
    ) -> None:
        self.iterable = iterable
        self.desc = desc
        self.level = level
        self.n: float = 0
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        self.total = total

    def __iter__(self) -> Iterator[Any]:
        for item in () if self.iterable is None else self.iterable:
            yield item
            self.update()

    def __enter__(self) -> tqdm:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def update(self, n: float = 1) -> None:
        """Count ``n`` more."""
        self.n += n
        if self.total:
            progress(self.n / self.total, self.level, self.desc)

    def set_description(self, desc: str | None = None, refresh: bool = True) -> None:
        """Change what is counted."""
        self.desc = desc

    def set_postfix(self, *_args: object, **_values: object) -> None:
        """Accepted for compatibility."""

    def close(self) -> None:
        """Nothing to close."""
