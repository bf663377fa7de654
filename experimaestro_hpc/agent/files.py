"""What there is in folders, and what of it the other side lacks. In: folders, a manifest. Out: names, sizes, times.

Made for folders of many files: one ``lstat`` for each, and no objects for paths.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable

from .layout import Layout
from .pack import Packer, hash_of
from .unpack import is_unfinished, stays_inside

#: what always comes back of a job directory, whatever its size: records and logs, the markers last
RECORDS = ("job.json", "params.json", "progress.json", "*.out", "*.err", "job.sh")
MARKERS = ("*.done", "*.failed")

#: logs, which grow while their job runs
LOGS = ("*.out", "*.err")
#: bytes from which on of a log that has grown only what was added is sent
LONG_LOG = 1 << 16

#: size (bytes; of a link, its target's name) and modification time (nanoseconds) by relative name; see also with_hashes
Manifest = dict[str, Sequence[Any]]


def walk(
    directory: str, unfinished: Callable[[str], object] | None = None, below: str = ""
) -> Iterator[tuple[str, os.stat_result | None]]:
    """What is below a folder, in order, without what is being written: relative names, and what ``lstat`` says.

    A folder that is empty has a name that ends with a slash; one that cannot be read too, and None.

    :param unfinished: told the paths of files that are being written, or were left in the middle of it
    """
    folders, found = [], []
    try:
        with os.scandir(f"{directory}/{below}" if below else directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif is_unfinished(entry.name):
                    if unfinished is not None:
                        unfinished(entry.path)
                elif entry.name != ".lock":
                    found.append(entry)
            for entry in sorted(found, key=lambda one: one.name):
                try:
                    yield below + entry.name, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # a temporary file that has been renamed
    except FileNotFoundError:
        return
    except OSError:
        yield below, None
        return
    if below and not folders and not found:
        yield below, os.stat_result((stat.S_IFDIR | 0o755, *[0] * 9))
    for name in sorted(folders):
        yield from walk(directory, unfinished, f"{below}{name}/")


def manifest(directory: str | os.PathLike[str], unfinished: Callable[[str], object] | None = None) -> Manifest:
    """Size (bytes) and modification time (nanoseconds) of the files and links below a folder, by relative name."""
    return {
        name: (status.st_size, status.st_mtime_ns)
        for name, status in walk(os.fspath(directory), unfinished)
        if status is not None and not name.endswith("/")
    }


def with_hashes(directory: str | os.PathLike[str], found: Manifest) -> Manifest:
    """``found`` of a job directory, and of long logs their SHA-256, so that only what is new in them need be sent."""
    is_log = _matcher(LOGS)
    for name, (size, mtime) in list(found.items()):
        if "/" not in name and is_log(name) and size >= LONG_LOG:
            with contextlib.suppress(OSError), open(f"{os.fspath(directory)}/{name}", "rb") as file:
                found[name] = (size, mtime, hash_of(file.fileno(), size))
    return found


def is_known(status: os.stat_result, known: Sequence[Any] | None) -> bool:
    """Whether the other side has a file as it is; some file systems keep whole seconds only."""
    if known is None or known[0] != status.st_size:
        return False
    whole_seconds = known[1] % 1_000_000_000 == 0 and known[1] // 1_000_000_000 == status.st_mtime_ns // 1_000_000_000
    return bool(known[1] == status.st_mtime_ns or whole_seconds)


def as_sent(directory: str, name: str, status: os.stat_result | None) -> tuple[str, os.stat_result] | None:
    """Where a file is read, and its status: a link that leaves the folder stands for the file that it points to.

    None for what does not travel: devices and pipes, links that leave it and point to a folder or to nothing.
    """
    path = f"{directory}/{name}"
    if status is not None and stat.S_ISLNK(status.st_mode):
        try:
            if stays_inside(os.readlink(path), name.count("/")):
                return path, status
            path = os.path.realpath(path)
            status = os.stat(path)
        except OSError:
            return None
    return (path, status) if status is not None and stat.S_ISREG(status.st_mode) else None


def add_changed(
    packer: Packer,
    layout: Layout,
    job: str,
    patterns: Sequence[str],
    max_size: int,
    have: Mapping[str, Sequence[Any]],
) -> int:
    """Pack what of a job directory the other side lacks, the markers last; the number of files.

    :param patterns: what to take beside records and logs, relative to the job directory
    :param max_size: bytes; larger files are left, unless they are records or logs
    :param have: what the other side has, by name in the job directory; of logs with a hash only what was added is sent
    """
    directory = str(layout.job(job))
    is_wanted, is_record, is_marker = _matcher(patterns), _matcher(RECORDS), _matcher(MARKERS)
    prefix = f"jobs/{job}/"
    markers = []
    count = 0
    for name, status in walk(directory):
        at_top = "/" not in name
        marker = at_top and is_marker(name)
        record = marker or (at_top and is_record(name))
        if not (record or is_wanted(name)):
            continue
        if name.endswith("/"):
            if status is None:
                packer.add_problem(prefix + name + "*", "the folder cannot be read")
            elif have or is_wanted(name):
                packer.add_folder(prefix + name.rstrip("/"))
            continue
        sent = as_sent(directory, name, status)
        if sent is None:
            continue
        path, status = sent
        if is_known(status, have.get(name)) or (status.st_size > max_size and not record):
            continue
        count += 1
        if marker:
            markers.append((prefix + name, path, status.st_size))
        else:
            known = have.get(name, ())
            packer.add_file(prefix + name, path, status.st_size, (known[0], known[2]) if len(known) > 2 else (0, ""))
    for marked in markers:
        packer.add_file(*marked)
    return count


def _matcher(patterns: Sequence[str]) -> Callable[[str], Any]:
    """Whether a name fits a pattern; ``metrics/**`` is everything below ``metrics``."""
    if not patterns:
        return lambda name: False
    return re.compile("|".join(fnmatch.translate(pattern.replace("**", "*")) for pattern in patterns)).match
