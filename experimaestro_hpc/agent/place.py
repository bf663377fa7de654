"""Results that come from elsewhere. In: unpacked job directories of jobs that are done. Out: the same in the workspace.

A directory appears by rename. Where there is one already, left by an attempt that failed, its files are replaced one
after the other and the marker comes last.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .adopt import remove_dangling
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
            remove_dangling(target)
            try:
                source.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                move_tree(source, target)
        if (layout.marker(job) or {}).get("state") == "done":
            done.append(job)
    return done


def move_tree(source: Path, target: Path) -> None:
    """Move all files below ``source`` to the same places below ``target``, each by rename, markers last."""
    last = {path for pattern in MARKERS for path in source.glob(pattern)}
    moves: list[tuple[Path, Path]] = []
    for folder, folders, names in os.walk(source):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        here = target / os.path.relpath(folder, source)
        if here.is_symlink() or not here.is_dir():
            here.unlink(missing_ok=True)
            here.mkdir(parents=True)
        moves += [(Path(folder, name), here / name) for name in (*names, *links)]
    for path, new in sorted(moves, key=lambda move: move[0] in last):
        if new.is_dir() and not new.is_symlink():
            shutil.rmtree(new)
        path.replace(new)
    if last:
        kept = {path.name for path in last}
        for old in (path for pattern in MARKERS for path in target.glob(pattern) if path.name not in kept):
            old.unlink(missing_ok=True)
