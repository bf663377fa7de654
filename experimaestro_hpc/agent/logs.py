"""The logs of jobs. In: a job, and where to read. Out: a piece of what it printed."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from ..errors import WorkspaceError
from .layout import Layout


def read_log(
    layout: Layout, job: str, stream: str, offset: int, limit: int, attempt: int | None
) -> tuple[dict[str, Any], tuple[io.BytesIO, int] | None]:
    """A piece of a job's log: its first byte and the size of all; and its bytes with their number, if there are any.

    :param stream: ``out`` or ``err``
    :param offset: first byte; negative counts from the end
    :param limit: bytes at most
    :param attempt: an earlier attempt's; otherwise the latest one's
    :raises WorkspaceError: there is no log of that attempt
    """
    if stream not in ("out", "err"):
        raise WorkspaceError(f"a job has no log {stream!r}")
    path = Path(f"{layout.stem(job)}.{stream}")
    if attempt is not None:
        earlier = Path(f"{layout.stem(job)}.{attempt}.{stream}")
        # what the scheduler has started again by itself is counted by the job
        known = (layout.record(job), layout.progress(job), layout.marker(job))
        latest = max(int((one or {}).get("attempt") or 1) for one in known)
        if earlier.exists():
            path = earlier
        elif attempt != latest:
            raise WorkspaceError(f"no log of attempt {attempt} is there", where=job, hint=f"the latest is {latest}")
    if not path.exists():
        return {"offset": 0, "size": 0}, None
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size + offset) if offset < 0 else min(offset, size)
        file.seek(start)
        data = file.read(limit)
    return {"offset": start, "size": size}, (io.BytesIO(data), len(data))
