"""Experiments in a workspace. In: an experiment's jobs. Out: ``experiments/<name>/experiment.json``, and back."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import WorkspaceError
from ..runtime.files import read_json, write_json


@dataclass
class ExperimentRecord:
    """One experiment.

    :ivar name: its folder below ``experiments``
    :ivar jobs: launcher and tags by job id; all that were ever submitted under this name
    :ivar latest: ids of the jobs of the latest run
    :ivar updated: seconds since 1970
    """

    name: str
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    latest: list[str] = field(default_factory=list)
    script: str = ""
    updated: float = 0.0


def check_name(name: str) -> str:
    """``name`` if it can be a folder's name.

    :raises WorkspaceError: it cannot
    """
    if not name or name in (".", "..") or "/" in name or any(ord(one) < 32 for one in name) or len(name) > 200:
        raise WorkspaceError(f"{name!r} cannot be the name of an experiment", hint="use letters, digits, - and _")
    return name


def note_jobs(root: Path, name: str, script: str, jobs: Mapping[str, dict[str, Any]]) -> None:
    """Add a run's jobs to its experiment; two runs at once do not lose each other's."""
    from filelock import FileLock  # with asyncio and more: for whoever writes only

    folder = root / "experiments" / check_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "experiment.json"
    (root / ".xpm" / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".xpm" / "locks" / "experiments"):
        record = read_experiment(path) or ExperimentRecord(name)
        record.jobs.update(jobs)
        record.latest = list(jobs)
        record.script = script
        record.updated = time.time()
        write_json(str(path), json.loads(json.dumps(asdict(record), default=str)))


def read_experiment(path: Path) -> ExperimentRecord | None:
    """The experiment of an ``experiment.json``, or None when there is none."""
    document = read_json(str(path))
    known = {one.name for one in fields(ExperimentRecord)}  # a newer version may have written more
    if not document or "name" not in document:
        return None
    return ExperimentRecord(**{key: document[key] for key in known & document.keys()})
