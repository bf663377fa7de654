"""Notes of submissions that are held, for jobs that end. In: a token. Out: a file with what submitting it takes.

That is the environment of whoever held it: Slurm hands on the environment of ``sbatch`` to the job, and that of a job
that ends is its own. The notes are for their owner's eyes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..runtime.files import read_json, write_json
from .layout import Layout


def note(layout: Layout, token: str) -> None:
    """Remember that a submission is held, if that can be: whoever watches knows without."""
    folder = layout.internal / "held"
    with contextlib.suppress(OSError):  # the disk is full
        folder.mkdir(exist_ok=True)
        if not (folder / token).exists():  # else the environment of whoever held it first
            write_json(str(folder / token), dict(os.environ), mode=0o600)


def forget(layout: Layout, token: str) -> None:
    """It is held no more."""
    with contextlib.suppress(OSError):
        (layout.internal / "held" / token).unlink()


def noted(layout: Layout) -> dict[str, Path]:
    """The note of each submission that is held, by its token; other users' are for their own jobs."""
    folder = layout.internal / "held"
    try:
        notes = {token: folder / token for token in sorted(os.listdir(folder)) if "." not in token}  # a whole one
    except OSError:
        return {}
    return {token: path for token, path in notes.items() if os.path.isfile(path) and os.access(path, os.R_OK)}


def environment(layout: Layout) -> dict[str, str] | None:
    """The environment in the first note that can be read."""
    for path in noted(layout).values():
        with contextlib.suppress(OSError):
            found = read_json(str(path))
            if found:
                return found
    return None
