"""Workspaces written by hand, for tests of what is shown of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

#: seconds; older than what an index reads again because it may have changed since
LONG_AGO = 3600.0


def identifier(number: int) -> str:
    """An identifier that begins with the number's digits."""
    return f"{number:04}" + "ab" * 30


class Made:
    """A workspace on disk: jobs, and experiments that have them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.members: dict[str, dict[str, Any]] = {}

    def job(
        self, number: int, state: str = "done", task: str = "study.train", experiment: str = "study", **more: Any
    ) -> str:
        """A job that has ended, or that no launcher can be asked about (``unscheduled``); its id.

        :param more: ``tags``, and what its record or its marker says
        """
        job = f"{task}/{identifier(number)}"
        folder = self.root / "jobs" / job
        folder.mkdir(parents=True, exist_ok=True)
        tags = more.pop("tags", {})
        record = {"id": job, "tags": tags, "launcher": None, "created": 1e9 + number, **more}
        (folder / "job.json").write_text(json.dumps(record))
        if state in ("done", "failed"):
            self.end(job, state, **more)
        self.age(job)
        self.members.setdefault(experiment, {})[job] = {"launcher": record["launcher"], "tags": tags}
        path = self.root / "experiments" / experiment / "experiment.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        jobs = self.members[experiment]
        record = {"name": experiment, "jobs": jobs, "latest": list(jobs), "script": "study.py", "updated": 1e9 + number}
        path.write_text(json.dumps(record))
        return job

    def end(self, job: str, state: str, **more: Any) -> None:
        """Write a job's marker, by rename as the runtime does."""
        name = job.partition("/")[0].rpartition(".")[2]
        folder = self.root / "jobs" / job
        end = {
            "state": state,
            "started": 1e9,
            "ended": 1e9 + 60,
            **({"reason": "exit"} if state == "failed" else {}),
            **more,
        }
        (folder / "new.tmp").write_text(json.dumps(end))
        (folder / "new.tmp").replace(folder / f"{name}.{state}")

    def age(self, job: str) -> None:
        """Make its directory one that changed long ago."""
        then = time.time() - LONG_AGO
        os.utime(self.root / "jobs" / job, (then, then))
