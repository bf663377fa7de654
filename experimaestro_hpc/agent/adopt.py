"""Results under a former name. In: a workspace, new and old job ids. Out: the old directories, under the new names too.

A job's directory gets a second name, a link, and its logs and marker the names that the new task id asks for. When the
directory is removed, the link leads nowhere, and its name is free.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from ..config.objects import job_name
from .layout import Layout


def adopt(layout: Layout, former: Mapping[str, str]) -> list[str]:
    """Let the results of old jobs count as those of new ones; returns the new jobs that are done by it.

    :param former: by id of a new job, the id of the old one. Passed over when the old one is not done, or the new
        one has a directory of its own.
    """
    done = []
    for new, old in former.items():
        marker = layout.marker(old)
        if marker is None or marker["state"] != "done":
            continue
        source, target = layout.job(old), layout.job(new)
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_dangling(target)
        with contextlib.suppress(FileExistsError):
            target.symlink_to(os.path.relpath(source, target.parent), target_is_directory=True)
        if not target.is_symlink():
            continue
        before, after = (job_name(job.split("/")[0]) for job in (old, new))
        if before != after:
            for ending in ("out", "err", "done"):  # the marker last
                if (source / f"{before}.{ending}").exists():
                    with contextlib.suppress(FileExistsError):
                        (source / f"{after}.{ending}").symlink_to(f"{before}.{ending}")
        done.append(new)
    return done


def make_directory(path: Path) -> None:
    """Make a job's directory if it is not there.

    :raises OSError: disk full, no permission
    """
    remove_dangling(path)
    path.mkdir(parents=True, exist_ok=True)


def remove_dangling(path: Path) -> None:
    """Remove a job's link to a directory that is no more."""
    if path.is_symlink() and not path.exists():
        path.unlink(missing_ok=True)
