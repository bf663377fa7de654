"""Results that come from elsewhere. In: unpacked job directories of jobs that are done. Out: the same in the workspace.

A directory appears by rename. Where there is one already, left by an attempt that failed, its files are replaced one
after the other and the marker comes last.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .files import MARKERS
from .layout import Layout


def place(layout: Layout, incoming: Path, jobs: list[str]) -> list[str]:
    """Put the directories ``incoming/jobs/…`` of these jobs in their places; those that are done there are left alone.

    :returns: the jobs that are done now
    :raises OSError: disk full, no permission
    """
    done = []
    for job in jobs:
        source, target = incoming / "jobs" / job, layout.job(job)
        if (layout.marker(job) or {}).get("state") != "done":
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                source.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                _merge(source, target)
        if (layout.marker(job) or {}).get("state") == "done":
            done.append(job)
    return done


def _merge(source: Path, target: Path) -> None:
    for old in target.glob("*.failed"):
        with contextlib.suppress(FileNotFoundError):
            old.unlink()
    last = [path for pattern in MARKERS for path in source.glob(pattern)]
    walked = list(os.walk(source))
    files = [Path(folder, name) for folder, _, names in walked for name in names]
    for folder, _, _ in walked:
        (target / Path(folder).relative_to(source)).mkdir(parents=True, exist_ok=True)
    for path in [*(one for one in files if one not in last), *last]:
        path.replace(target / path.relative_to(source))
