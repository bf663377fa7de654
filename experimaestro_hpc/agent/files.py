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
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..errors import WorkspaceError
from .layout import Layout

#: what always comes back of a job directory, whatever its size: records and logs, the markers last
RECORDS = ("job.json", "params.json", "progress.json", "*.out", "*.err", "job.sh")
MARKERS = ("*.done", "*.failed")
#: kept in memory up to this size (bytes), on the disk above it
_SPOOL = 8 << 20


def safe_name(name: str) -> PurePosixPath:
    """A name inside a tar stream, if it stays inside the folder that it is unpacked to.

    :raises WorkspaceError: it does not
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise WorkspaceError(f"a file name that leaves the folder was refused: {name!r}")
    return path


def stays_inside(link: str, depth: int) -> bool:
    """Whether a link stays inside its tree whatever other links are there: it goes up first, and down only then.

    :param depth: how many folders of the tree the link is in
    """
    parts = PurePosixPath(link).parts
    ups = parts.count("..")
    return not link.startswith("/") and ".." not in parts[ups:] and ups <= depth


def unpack(stream: IO[bytes], target: Path) -> list[str]:
    """Unpack a tar stream, compressed or not, below ``target``; the names of the files, in their order.

    :raises WorkspaceError: an unsafe name, or a stream that is broken
    :raises OSError: disk full, no permission
    """
    names = []
    target.mkdir(parents=True, exist_ok=True)
    unpacker = _Unpacker(target)
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                unpacker.take(tar, member)
                names.append(member.name)
            if tar.fileobj is None or tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:
                raise tarfile.ReadError("the end is missing")  # tarfile takes a cut between two files for the end
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise WorkspaceError(f"the files did not arrive whole: {error}", where=str(target)) from error
    return names


class _Unpacker:
    """Puts the members of a tar stream into a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real_root = root.resolve()
        #: folders that were found to be inside; a new link may change that
        self.inside: set[Path] = set()

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self.root / safe_name(member.name)
        if member.isdir():
            self._make(path, member)
            return
        self._make(path.parent, member)
        temporary = path.with_name(f".{path.name[:60]}.{os.getpid()}.tmp")  # a name has at most 255 bytes
        try:
            if member.issym():
                depth = len(path.parent.resolve().relative_to(self.real_root).parts)
                if not stays_inside(member.linkname, depth):
                    raise WorkspaceError(f"a link that leaves the folder was refused: {member.name!r}")
                self.inside.clear()
                temporary.symlink_to(member.linkname)
            elif member.isreg():
                self._write(tar, member, temporary)
            else:
                raise WorkspaceError(f"neither file, folder nor link: {member.name!r}")
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _make(self, folder: Path, member: tarfile.TarInfo) -> None:
        if folder in self.inside:
            return
        existing = folder
        while not existing.exists():
            existing = existing.parent
        if not existing.resolve().is_relative_to(self.real_root):
            raise WorkspaceError(f"a file behind a link that leaves the folder was refused: {member.name!r}")
        folder.mkdir(parents=True, exist_ok=True)
        self.inside.add(folder)

    @staticmethod
    def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, temporary: Path) -> None:
        content = tar.extractfile(member)
        if content is None:
            raise WorkspaceError(f"no content for {member.name!r}")
        with temporary.open("wb") as file:
            shutil.copyfileobj(content, file)
            os.fchmod(file.fileno(), member.mode & 0o777)
        if member.mtime:
            os.utime(temporary, ns=(int(member.mtime * 1e9), int(member.mtime * 1e9)))


class Packer:
    """Collects files into a tar stream of known size.

    :param compress: whether the stream goes over a network
    """

    def __init__(self, compress: bool) -> None:
        # closed by who reads it
        self.file = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115
        self.gzip = gzip.GzipFile(fileobj=self.file, mode="wb", compresslevel=1, mtime=0) if compress else None
        self.tar = tarfile.TarFile(fileobj=self.gzip or self.file, mode="w")

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
        if self.gzip is not None:
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
    for path in walk_files(directory):
        relative = path.relative_to(directory).as_posix()
        is_record = "/" not in relative and _matches(relative, RECORDS)
        is_marker = "/" not in relative and _matches(relative, MARKERS)
        if not (is_record or is_marker or _matches(relative, patterns)):
            continue
        try:
            status = path.stat()
            if path.is_symlink() and not stays_inside(os.readlink(path), relative.count("/")):
                path = path.resolve()  # the other side refuses such links: it gets the file
        except (OSError, RuntimeError):
            continue  # a temporary file that has been renamed, a broken link, a link to itself
        if not stat.S_ISREG(status.st_mode):
            continue
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


def walk_files(directory: Path) -> Iterator[Path]:
    """The files and links below a folder, in order, without those that are being written."""
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
    for path in walk_files(directory):
        status = path.lstat()
        found[path.relative_to(directory).as_posix()] = [status.st_size, status.st_mtime]
    return found
