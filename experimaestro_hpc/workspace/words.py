"""Jobs in words, for people. In: ids, seconds, counts. Out: short texts. Pure, and quick to load."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sized

#: a job's id, but not the end of a path
_JOB_ID = re.compile(r"(?<![\w./-])([^\s/]+/[0-9a-f]{8})[0-9a-f]{56}\b(?!/)")
_IDENTIFIER = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")


def short(job: str) -> str:
    """A job id for people: ``task/`` and the first 8 digits of the identifier."""
    task, _, identifier = job.partition("/")
    return f"{task}/{identifier[:8]}"


def count_of(jobs: Sized) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{len(jobs)} {'job' if len(jobs) == 1 else 'jobs'}"


def with_short_ids(text: str) -> str:
    """``text`` with job ids as :func:`short` has them; paths stay whole.

    >>> with_short_ids(f"a.b/{'12' * 32} failed, see /w/jobs/a.b/{'12' * 32}/b.err") == (
    ...     f"a.b/12121212 failed, see /w/jobs/a.b/{'12' * 32}/b.err")
    True
    """
    return _JOB_ID.sub(r"\1", text)


def first_line(text: str) -> str:
    """The first line of a message, cut to what a terminal takes, with identifiers as :func:`short` has them."""
    line = _IDENTIFIER.sub(r"\1", next(iter(text.strip().splitlines()), ""))
    return line if len(line) <= 300 else line[:297] + "..."


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(count: float) -> str:
    """A number of bytes for people.

    >>> size(18993152), size(1536), size(3 << 40)
    ('18 MB', '1.5 kB', '3.0 TB')
    """
    unit = "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if count < 1000:
            break
        count, unit = count / 1024, larger
    return f"{count:.1f} {unit}" if count < 9.95 and unit != "bytes" else f"{count:.0f} {unit}"


def tags_in_words(tags: Mapping[str, object]) -> str:
    """``lr=0.1 seed=1``."""
    return " ".join(f"{key}={value}" for key, value in tags.items())


def in_words(numbers: Mapping[str, int]) -> str:
    """``3 done, 1 failed``, from how many jobs are in which state."""
    order = ("done", "failed", "running", "queued", "held", "waiting", "unscheduled")
    return ", ".join(f"{numbers[name]} {name}" for name in order if numbers.get(name)) or "no jobs"
