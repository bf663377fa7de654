"""What no live job needs any more. In: a workspace. Out: what was removed, or would be, and its size.

Live is every job that was submitted and has no marker. Whatever its scripts and its record name stays, whoever wrote it
there; so does what was used in the last hour, for the submission that may just be on its way. The receipt of a call
without an answer stays as long as any job's record names it. Notes of what is held have people's environments in them;
they are written together with the record that names them, under the submission lock, so they need no such hour.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from ..runtime.files import read_json
from .layout import Layout

#: seconds for which something stays after its last use
GRACE = 3600.0
#: the folders below ``.xpm`` whose entries come and go, and what people call those
FOLDERS = {
    "code": "code snapshot",
    "lib": "shipped package",
    "env": "environment",
    "batches": "batch",
    "held": "note of a held submission",
    "incoming": "leftover of an upload",
    "trash": "leftover of a removal",
}
#: those in which nothing stays for having been used lately
_AT_ONCE = ("held", "trash")


def clean(layout: Layout, dry_run: bool, grace: float = GRACE) -> list[dict[str, Any]]:
    """Remove what no live job needs; the submission lock must be held.

    :param grace: seconds for which something stays after its last use
    :returns: for each: ``kind``, ``path`` in the workspace, ``bytes``
    """
    now = time.time()
    needed, batches = named_by_jobs(layout)
    trash = layout.internal / "trash"
    found = []
    for folder, kind in FOLDERS.items():
        for entry in sorted(_entries(layout.internal / folder)):
            token = entry.name.partition(".")[0]
            if token.encode() in needed or (folder not in _AT_ONCE and now - _last_use(entry) < grace):
                continue
            if folder == "batches" and token in batches and _has_no_answer(entry):
                continue
            if folder in ("incoming", "env") and _is_locked(entry):
                continue
            found.append({"kind": kind, "path": entry.relative_to(layout.root).as_posix(), "bytes": _size(entry)})
            if dry_run:
                continue
            if folder != "trash":  # gone in a moment, so that nobody finds half of it
                trash.mkdir(parents=True, exist_ok=True)
                entry = entry.rename(trash / f"{secrets.token_hex(6)}-{entry.name}")
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
    with contextlib.suppress(OSError):
        trash.rmdir()
    return found


def touch(path: os.PathLike[str] | str) -> None:
    """Note that something is used."""
    with contextlib.suppress(OSError):  # somebody else's, in a workspace that several write to
        os.utime(path)


def named_by_jobs(layout: Layout) -> tuple[bytes, set[str]]:
    """What is written in the records and scripts of live jobs, and in those of their batches; and the batches of all
    jobs."""
    folders: dict[Path, None] = {}
    batches: set[str] = set()
    for job in layout.jobs():
        record = layout.record(job)
        if not record.get("batch"):
            continue
        batches.add(str(record["batch"]))
        if layout.marker(job) is not None:
            continue
        batch = layout.batch(str(record["batch"]))
        folders[layout.job(job)] = None
        if batch not in folders:
            folders[batch] = None
            script = (read_json(str(batch / "receipt.json")) or {}).get("script")
            if script:  # of an array, perhaps of an earlier attempt
                folders[layout.batch(script)] = None
    texts = []
    for folder in folders:
        for name in ("job.json", "job.sh", "array.sh", "receipt.json"):
            with contextlib.suppress(OSError):
                texts.append((folder / name).read_bytes())
    return b"\n".join(texts), batches


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _last_use(path: Path) -> float:
    """When something was made, or noted to be used, or changed at its top."""
    times = [0.0]
    for one in (path, *(_entries(path) if path.is_dir() else [])):
        with contextlib.suppress(OSError):
            times.append(one.lstat().st_mtime)
    return max(times)


def _has_no_answer(batch: Path) -> bool:
    """Whether it is still to be found out what became of a submission."""
    return (read_json(str(batch / "receipt.json")) or {}).get("state") == "submitting"


def _is_locked(path: Path) -> bool:
    """Whether somebody writes to it at the moment: uploads have their lock beside them, environments inside."""
    beside = path if path.name.endswith(".lock") else path.with_name(f"{path.name}.lock")
    return _is_held(beside) or _is_held(path / ".lock")


def _is_held(lock: Path) -> bool:
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    """Bytes on the disk that go with it."""
    total = 0
    for folder, folders, names in os.walk(path) if path.is_dir() else [(str(path.parent), [], [path.name])]:
        for name in (*folders, *names):
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(folder, name))
                total += status.st_blocks * 512 if status.st_nlink == 1 or name in folders else 0
    return total
