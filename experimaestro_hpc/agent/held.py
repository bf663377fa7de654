"""Notes of submissions that are held, for jobs that end. In: a token. Out: a file with what submitting it takes.

That is the environment of whoever held it: Slurm hands on the environment of ``sbatch`` to the job, and that of a job
that ends is its own. The notes are for their owner's eyes.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from ..runtime.files import read_json
from .layout import Layout


def note(layout: Layout, token: str) -> None:
    """Remember that a submission is held, if that can be: whoever watches knows without."""
    folder = layout.internal / "held"
    with contextlib.suppress(OSError):  # the disk is full, or there is a note, which says the same
        folder.mkdir(exist_ok=True)
        # the mode counts from the first byte
        file = os.open(folder / token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            json.dump(dict(os.environ), stream)


def forget(layout: Layout, token: str) -> None:
    """It is held no more."""
    with contextlib.suppress(OSError):
        (layout.internal / "held" / token).unlink()


def noted(layout: Layout) -> dict[str, Path]:
    """The note of each submission that is held, by its token; other users' are for their own jobs."""
    folder = layout.internal / "held"
    try:
        notes = {token: folder / token for token in sorted(os.listdir(folder))}
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
