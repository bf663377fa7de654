"""Where things are in a workspace, and the small files that say how jobs are. In: a workspace. Out: paths, records.

::

    jobs/<task id>/<identifier>/   params.json job.json job.sh <name>.out <name>.err progress.json
                                   <name>.done | <name>.failed
    experiments/<name>/
    .xpm/lib/<hash>/               the shipped package
    .xpm/code/<hash>/              code snapshots
    .xpm/batches/<token>/          receipts of submissions, scripts of arrays
    .xpm/incoming/<token>/         files on their way in
    .xpm/locks/
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.objects import job_name
from ..errors import WorkspaceError
from ..runtime.files import read_json, write_json

_CONTROL = re.compile("[\x00-\x1f\x7f]")


def is_job_id(job: str) -> bool:
    """Whether ``job`` has the form ``task/identifier``."""
    task, slash, identifier = job.partition("/")
    fits = slash and identifier.isalnum() and identifier.isascii() and task not in ("", ".", "..")
    return bool(fits) and _CONTROL.search(task) is None


def checked_job_id(job: str) -> str:
    """``job`` if it is a job id: ``task/identifier``, fit to be two folder names.

    :raises WorkspaceError: it is not
    """
    if not is_job_id(job):
        raise WorkspaceError(f"{job!r} is no job id", hint="a job id is task/identifier")
    task = job.partition("/")[0]
    if len(os.fsencode(task)) > 240:
        raise WorkspaceError(f"the name of task {task[:40]!r}… is too long for a folder")
    return job


class Layout:
    """The places in one workspace.

    :param root: absolute path
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.internal = self.root / ".xpm"
        self._stems: dict[str, str] = {}
        #: whether whoever uses this object has the submission lock; see :mod:`.lock`
        self.is_locked = False

    def job(self, job: str) -> Path:
        """The directory of a job."""
        return Path(f"{self.root}/jobs/{checked_job_id(job)}")

    def stem(self, job: str) -> str:
        """The path of a job's logs and markers, without their ending."""
        known = self._stems.get(job)
        if known is None:  # asked for again and again while jobs are watched
            task = checked_job_id(job).partition("/")[0]
            known = self._stems[job] = f"{self.root}/jobs/{job}/{job_name(task)}"
        return known

    def marker(self, job: str) -> dict[str, Any] | None:
        """What the marker of an ended job says, or None while there is none."""
        stem = self.stem(job)
        for ending in ("done", "failed"):
            document = read_json(f"{stem}.{ending}")
            if document is not None:
                return {**document, "state": ending}
        return None

    def record(self, job: str) -> dict[str, Any]:
        """The job's ``job.json``; empty when there is none."""
        return read_json(f"{os.path.dirname(self.stem(job))}/job.json") or {}

    def fail(self, job: str, end: Mapping[str, Any]) -> None:
        """Write that a job has failed and why, in its ``job.json`` and then in the marker that makes it so."""
        write_json(f"{os.path.dirname(self.stem(job))}/job.json", {**self.record(job), **end})
        write_json(f"{self.stem(job)}.failed", dict(end), durable=True)

    def progress(self, job: str) -> dict[str, Any] | None:
        """The job's ``progress.json``: written when it starts, and while it runs."""
        return read_json(f"{os.path.dirname(self.stem(job))}/progress.json")

    def batch(self, token: str) -> Path:
        """The folder of one submission."""
        return self.internal / "batches" / token

    def code(self, digest: str) -> Path:
        """The folder of a code snapshot; it appears by rename, so it is whole when it is there."""
        return self.internal / "code" / digest

    def jobs(self) -> list[str]:
        """The ids of all jobs, sorted."""
        found = []
        try:
            tasks = [entry for entry in os.scandir(self.root / "jobs") if entry.is_dir()]
        except FileNotFoundError:
            return []
        for task in tasks:
            found += [f"{task.name}/{one.name}" for one in os.scandir(task.path) if one.is_dir()]
        return sorted(filter(is_job_id, found))  # somebody may have copied a job's folder
