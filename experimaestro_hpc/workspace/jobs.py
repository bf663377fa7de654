"""Jobs in a workspace. In: job directories. Out: one flat description for each, and jobs by the prefix of their id."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..agent.layout import Layout
from ..errors import WorkspaceError
from .words import short

View = dict[str, Any]
FINAL = ("done", "failed")
#: lines of a log that are shown
LAST_LINES = 12


def view(
    layout: Layout,
    job: str,
    record: Mapping[str, Any],
    marker: Mapping[str, Any] | None,
    named: list[str],
    tags: dict[str, Any],
) -> View:
    """One job as ``jobs --json`` shows it; times in seconds since 1970, ``progress`` from 0 to 1 or null."""
    task, _, identifier = job.partition("/")
    known: dict[str, Any] = {**record, **(layout.progress(job) or {}), **(marker or {})}
    done = marker is not None and marker.get("state") == "done"
    return {
        "id": job,
        "task": task,
        "identifier": identifier,
        "state": marker["state"] if marker else _last_seen(known),
        "reason": (marker or {}).get("reason"),
        "message": (marker or {}).get("message"),
        "detail": None,
        "launcher": record.get("launcher"),
        "native_id": known.get("native_id"),
        "host": known.get("host"),
        "experiments": named,
        "tags": tags,
        "submitted": record.get("submitted") or record.get("created"),
        "started": known.get("started"),
        "ended": (marker or {}).get("ended"),
        "exit_code": (marker or {}).get("exit_code"),
        "progress": 1.0 if done else _progress(known),
        "path": str(layout.job(job)),
        "resources": record.get("resources") or {},
        "used": (marker or {}).get("used"),
        "parents": record.get("parents") or [],
        "attempt": known.get("attempt") or 1,
    }


def _last_seen(known: Mapping[str, Any]) -> str:
    """The state of a job without a marker, until its launcher is asked."""
    if not (known.get("native_id") or known.get("batch")):
        return "unscheduled"
    return "running" if known.get("started") else "waiting" if known.get("parents") else "queued"


def _progress(known: Mapping[str, Any]) -> float | None:
    levels = known.get("progress")
    return levels[0]["value"] if isinstance(levels, list) and levels else None


def update(one: View, state: Mapping[str, Any]) -> None:
    """Put what an agent says of a job into its view."""
    for name in (
        "state",
        "reason",
        "message",
        "detail",
        "native_id",
        "host",
        "started",
        "ended",
        "exit_code",
        "used",
    ):
        if name in state:
            one[name] = state[name]
    one["submitted"] = state.get("submitted") or one["submitted"]
    one["attempt"] = state.get("attempt") or one["attempt"]
    progress = _progress(state)
    if one["state"] == "done":
        one["progress"] = 1.0
    elif progress is not None:
        one["progress"] = progress


def by_launcher(views: Iterable[View], without: str | None = None) -> dict[str, list[View]]:
    """Jobs by the launcher that they were submitted to.

    :param without: the key for jobs that have none; None: they are left out
    """
    found: dict[str, list[View]] = {}
    for one in views:
        launcher = one["launcher"] or without
        if launcher is not None:
            found.setdefault(launcher, []).append(one)
    return found


def last_lines(layout: Layout, job: str, count: int = LAST_LINES) -> list[str]:
    """The end of a job's error log, or of its output if there is no error."""
    for ending in ("err", "out"):
        path = Path(f"{layout.stem(job)}.{ending}")
        try:
            with path.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - 16384))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            continue
        if lines:
            return lines[-count:]
    return []


def resolve(views: Iterable[View], wanted: Sequence[str], where: str = "") -> list[View]:
    """The jobs whose identifier, or ``task/identifier``, begins with one of ``wanted``.

    :param where: the workspace that they are of
    :raises WorkspaceError: a prefix fits no job, or several
    """
    views = list(views)
    named = sorted((one[key], number) for number, one in enumerate(views) for key in ("identifier", "id"))
    found: dict[str, View] = {}
    for prefix in wanted:
        text = prefix.strip().lower()
        between = named[bisect_left(named, (text,)) : bisect_left(named, (f"{text}\U0010ffff",))] if text else []
        fits = [views[number] for number in sorted({number for _, number in between})]
        if not fits:
            raise WorkspaceError(f"no job begins with {prefix!r}", where=where, hint="see: xpm-hpc jobs")
        if len(fits) > 1:
            are_short = len({short(one["id"]) for one in fits}) == len(fits)
            listed = "\n".join(short(one["id"]) if are_short else one["id"][:-32] for one in fits[:10])
            what, hint = f"{len(fits)} jobs begin with {prefix!r}", f"give more of one of:\n{listed}"
            raise WorkspaceError(what, where=where, hint=hint)
        found[fits[0]["id"]] = fits[0]
    return list(found.values())
