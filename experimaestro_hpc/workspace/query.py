"""Which jobs are wanted of an index. In: a query. Out: conditions of SQL, and their values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .jobs import FINAL

#: beginnings of ids in one statement; with more of them all jobs are among the answer
_LIKES = 100
#: the states of jobs that have not ended
_LIVE = ("unscheduled", "waiting", "queued", "held", "running")


@dataclass(frozen=True)
class Query:
    """Which jobs. What is empty or None asks for nothing.

    :ivar states: their states as last seen; jobs that had not ended then are always among the answer
    :ivar launcher: by its name
    :ivar since: submitted after this time, in seconds since 1970
    :ivar ids: beginnings of identifiers or of ``task/identifier``; others may be among the answer
    :ivar fits_task: says whether a task's name fits
    :ivar most: of those that had ended only so many, the latest submitted
    :ivar is_current: of ``experiment`` only the jobs of its latest run, and earlier ones that have not ended
    """

    states: Sequence[str] = ()
    experiment: str | None = None
    launcher: str | None = None
    since: float | None = None
    ids: Sequence[str] = ()
    fits_task: Callable[[str], bool] | None = None
    most: int | None = None
    is_current: bool = False


#: the query that asks for nothing in particular
ALL = Query()


def conditions_of(query: Query) -> tuple[list[str], list[Any]]:
    """What follows ``WHERE …`` for each wish, and the values for its question marks."""
    conditions: list[str] = []
    values: list[Any] = []
    if query.states:
        states = sorted({*query.states, *_LIVE})
        conditions.append(f" AND state IN ({marks(states)})")
        values += states
    if query.launcher is not None:
        conditions.append(" AND (launcher = ? OR launcher LIKE ? ESCAPE '\\')")
        values += [query.launcher, f"%/{literal(query.launcher)}.toml"]
    if query.since is not None:
        conditions.append(" AND submitted >= ?")
        values.append(query.since)
    if query.experiment is not None:
        members = "id IN (SELECT job FROM members WHERE experiment = ?)"
        latest = "id IN (SELECT job FROM members WHERE experiment = ? AND is_latest)"
        conditions.append(
            f" AND ({members} AND (state NOT IN {FINAL} OR {latest}))" if query.is_current else f" AND {members}"
        )
        values += [query.experiment] * (2 if query.is_current else 1)
    if query.fits_task is not None:
        conditions.append(" AND fits_task(task)")
    if 0 < len(query.ids) <= _LIKES:
        likes = []
        for one in query.ids:
            likes += ["id LIKE ? ESCAPE '\\'"] * 2
            values += [f"{literal(one)}%", f"%/{literal(one)}%"]
        conditions.append(f" AND ({' OR '.join(likes)})")
    return conditions, values


def literal(text: str) -> str:
    """``text`` as a pattern of LIKE's that means itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def marks(values: Sequence[Any]) -> str:
    """A question mark for each value."""
    return ", ".join("?" * len(values))
