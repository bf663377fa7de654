"""Files over the wire: tar streams, packed and unpacked with care. In: folders or a stream. Out: a stream or folders.

Unpacking trusts nothing: no absolute names, no ``..``, no link that leaves the folder, nothing but files, folders and
links; and each file appears by rename, so that nobody sees half of one.
"""

from __future__ import annotations

import fnmatch
import gzip
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..errors import WorkspaceError
from .layout import Layout

#: what always comes back of a job directory, whatever its size: records and logs, the markers last
RECORDS = ("*.json", "*.out", "*.err", "job.sh")
MARKERS = ("*.done", "*.failed")
#: kept in memory up to this size (bytes), on the disk above it
_SPOOL = 8 << 20


def safe_name(name: str) -> PurePosixPath:
    """A name inside a tar stream, if it stays inside the folder that it is unpacked to.

    :raises WorkspaceError: it does not
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise WorkspaceError(f"a file name that leaves the folder was refused: {name!r}")
    return path


def unpack(stream: IO[bytes], target: Path) -> list[str]:
    """Unpack a tar stream below ``target``; the names of the files, in their order.

    :raises WorkspaceError: an unsafe name, or a stream that is broken
    :raises OSError: disk full, no permission
    """
    names = []
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as tar:
            for member in tar:
                relative = safe_name(member.name)
                _unpack_member(tar, member, target / relative, target, relative)
                names.append(str(relative))
    except (tarfile.TarError, EOFError) as error:
        raise WorkspaceError(f"the files did not arrive whole: {error}", where=str(target)) from error
    return names


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, root: Path, relative: PurePosixPath
) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise WorkspaceError(f"a file behind a link that leaves the folder was refused: {member.name!r}")
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    try:
        if member.issym():
            inside = os.path.normpath(os.path.join(relative.parent, member.linkname))
            if member.linkname.startswith("/") or inside.split("/")[0] == "..":
                raise WorkspaceError(f"a link that leaves the folder was refused: {member.name!r}")
            temporary.symlink_to(member.linkname)
        elif member.isreg():
            content = tar.extractfile(member)
            if content is None:
                raise WorkspaceError(f"no content for {member.name!r}")
            with temporary.open("wb") as file:
                shutil.copyfileobj(content, file)
            temporary.chmod(member.mode & 0o777)
            os.utime(temporary, ns=(int(member.mtime * 1e9), int(member.mtime * 1e9)))
        else:
            raise WorkspaceError(f"neither file, folder nor link: {member.name!r}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Packer:
    """Collects files into a tar stream of known size."""

    def __init__(self) -> None:
        # closed by who reads it
        self.file = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115
        self.gzip = gzip.GzipFile(fileobj=self.file, mode="wb", compresslevel=1, mtime=0)
        self.tar = tarfile.TarFile(fileobj=self.gzip, mode="w")

    def add_bytes(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file from memory."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = mode
        self.tar.addfile(member, io.BytesIO(data))

    def add_file(self, name: str, path: Path) -> None:
        """Add a file or a link from the disk; one that grows meanwhile is cut at the size it had.

        :raises OSError: it is gone or cannot be read
        """
        if path.is_symlink():
            member = tarfile.TarInfo(name)
            member.type = tarfile.SYMTYPE
            member.linkname = os.readlink(path)
            self.tar.addfile(member)
            return
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            member = tarfile.TarInfo(name)
            member.size = status.st_size
            member.mode = status.st_mode & 0o777
            member.mtime = status.st_mtime_ns / 1e9
            self.tar.addfile(member, file)

    def finish(self) -> tuple[IO[bytes], int]:
        """The stream, at its start, and its size in bytes."""
        self.tar.close()
        self.gzip.close()
        size = self.file.tell()
        self.file.seek(0)
        return self.file, size


def changed_files(
    layout: Layout, job: str, patterns: Sequence[str], max_size: int, have: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, Path]]:
    """What of a job directory the other side lacks: name in the workspace and path, the markers last.

    :param patterns: what to take beside records and logs, relative to the job directory
    :param max_size: bytes; larger files are left, unless they are records or logs
    :param have: size (bytes) and modification time (seconds) of what the other side has, by name in the job directory
    """
    directory = layout.job(job)
    markers = []
    for path in _walk(directory):
        relative = path.relative_to(directory).as_posix()
        is_record = "/" not in relative and _matches(relative, RECORDS)
        is_marker = "/" not in relative and _matches(relative, MARKERS)
        if not (is_record or is_marker or _matches(relative, patterns)):
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # a temporary file that has been renamed, or a broken link
        known = have.get(relative)
        if known and known[0] == status.st_size and abs(known[1] - status.st_mtime) < 1:
            continue
        if status.st_size > max_size and not (is_record or is_marker):
            continue
        name = f"jobs/{job}/{relative}"
        if is_marker:
            markers.append((name, path))
        else:
            yield name, path
    yield from markers


def _walk(directory: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            if not (name.endswith(".tmp") or name == ".lock"):
                yield Path(folder, name)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether ``name`` fits a pattern; ``metrics/**`` is everything below ``metrics``."""
    return any(fnmatch.fnmatchcase(name, pattern.replace("**", "*")) for pattern in patterns)


def manifest(directory: Path) -> dict[str, list[Any]]:
    """Size (bytes) and modification time (seconds) of the files below a folder, by relative name."""
    found = {}
    for path in _walk(directory):
        status = path.lstat()
        found[path.relative_to(directory).as_posix()] = [status.st_size, status.st_mtime]
    return found
