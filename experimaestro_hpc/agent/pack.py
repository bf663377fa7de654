"""Files into a tar stream that is made while it is read. In: names and paths. Out: a stream, in bounded memory.

What is read of a file is what it was at one moment. One that grows is cut at the size it had; one that shrinks, or is
written anew, while it is read is read again, and at last left out with a word why. A large file goes in pieces, its
holes left out, from where the other side's copy of that very state stopped.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple

from ..errors import WorkspaceError
from . import tar

#: bytes; a larger file goes in pieces of this size
PIECE = 4 << 20
#: bytes that a smaller file must lack on the disk to go in pieces too, without its holes
HOLES = 1 << 16
#: a frame's size for a stream whose length nobody knows yet
UNKNOWN = -1
#: how often a file that changes while it is read is tried
_ATTEMPTS = 3
_CHANGED = "it changed while it was read"

Progress = Callable[[int, int], None]


class _Entry(NamedTuple):
    name: str
    path: str = ""
    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tar.FILE
    problem: str = ""
    known: tuple[int, str] = (0, "")


class _Changed(Exception):
    """A file is not what it was when its reading began."""


def part_id(name: str, size: int, mtime_ns: int) -> str:
    """Names one state of a file: two with the same id are pieces of the same."""
    text = f"{size} {mtime_ns} {name}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:24]


class Packer:
    """Collects what a stream will hold.

    :param parts: length (bytes) and SHA-256 of what the other side has of large files, by :func:`part_id`
    :param strict: a file that is gone or cannot be read is an error, and is not left out
    """

    def __init__(self, parts: Mapping[str, Sequence[Any]] | None = None, strict: bool = False) -> None:
        self.parts = parts or {}
        self.strict = strict
        self.entries: list[_Entry] = []
        #: bytes of content
        self.total = 0

    def add_bytes(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file from memory."""
        self.entries.append(_Entry(name, data=data, mode=mode))
        self.total += len(data)

    def add_file(
        self, name: str, path: os.PathLike[str] | str, size: int = 0, known: tuple[int, str] = (0, "")
    ) -> None:
        """Add a file or a link from the disk, which is read when the stream is.

        :param size: bytes, for a progress bar
        :param known: length (bytes) and SHA-256 of the file as the other side has it: if it has only grown since, what
            was added is enough
        """
        self.entries.append(_Entry(name, path=os.fspath(path), known=known))
        self.total += size

    def add_folder(self, name: str) -> None:
        """Add a folder, which need not be empty."""
        self.entries.append(_Entry(name, kind=tar.FOLDER, mode=0o755))

    def add_problem(self, name: str, problem: str) -> None:
        """Say why a file does not come."""
        self.entries.append(_Entry(name, problem=problem))

    def finish(self, progress: Progress | None = None) -> tuple[Stream, int]:
        """The stream, and its size for a frame, which is unknown.

        :param progress: told how many bytes of content have been read, and how many there are
        """
        return Stream(self._blocks(progress)), UNKNOWN

    def _blocks(self, progress: Progress | None) -> Iterator[bytes]:
        done = 0
        more: dict[str, object] = {tar.ALL: self.total}
        for name, path, data, mode, kind, problem, known in self.entries:
            if problem:
                yield self._problem(name, problem)
            elif path:
                for blocks in self._file(name, path, known):
                    yield blocks
                    done += len(blocks)
                    if progress is not None:
                        progress(min(done, self.total), self.total)
            else:
                yield tar.header(name, len(data), mode, kind=kind, more=more) + data + tar.padding(len(data))
            more = {}
        yield tar.END

    def _problem(self, name: str, problem: str, part: str = "") -> bytes:
        if self.strict:
            raise WorkspaceError(f"a file cannot be sent: {problem}", where=name)
        return tar.header(name, more={tar.PROBLEM: problem, tar.PART: part})

    def _file(self, name: str, path: str, known: tuple[int, str]) -> Iterator[bytes]:
        """A file as it was at one moment."""
        for _ in range(_ATTEMPTS):
            try:
                # a named pipe does not block, and a link is seen as one
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                yield from self._other(name, path, error)
                return
            try:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):
                    yield self._problem(name, "it is neither file, folder nor link")
                elif _has_grown(handle, status.st_size, known):
                    yield from self._pieces(name, handle, status, *known)
                elif status.st_size <= PIECE and status.st_size - status.st_blocks * 512 < HOLES:
                    data = _read_piece(handle, 0, status.st_size, status)
                    head = tar.header(name, len(data), status.st_mode & 0o777, status.st_mtime_ns)
                    yield b"".join((head, data, tar.padding(len(data))))
                else:
                    yield from self._pieces(name, handle, status)
                return
            except _Changed:
                continue
            except OSError as error:
                yield self._problem(name, error.strerror or str(error))
                return
            finally:
                os.close(handle)
        yield self._problem(name, _CHANGED)

    def _other(self, name: str, path: str, error: OSError) -> Iterator[bytes]:
        """What cannot be opened as a file: a link, or nothing."""
        if error.errno in (errno.ELOOP, errno.EMLINK):  # the latter on some BSDs
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                yield tar.header(name, mtime_ns=status.st_mtime_ns, kind=tar.LINK, link=os.readlink(path))
                return
        if not isinstance(error, FileNotFoundError):
            yield self._problem(name, error.strerror or str(error))
        elif self.strict:
            raise WorkspaceError("a file has vanished before it was sent", where=path)

    def _pieces(
        self, name: str, handle: int, status: os.stat_result, grown_from: int = 0, digest: str = ""
    ) -> Iterator[bytes]:
        size = status.st_size
        part = part_id(name, size, status.st_mtime_ns)
        start = self._start(part, handle, size)
        more: dict[str, object] = {tar.PART: part, tar.TOTAL: size, tar.FROM: start}
        if grown_from and not start:
            start = grown_from
            more.update({tar.FROM: start, tar.GROWN: digest})
        try:
            for offset, length in _with_end(_data(handle, start, size), size):
                data = _read_piece(handle, offset, length, status)
                more[tar.OFFSET] = offset
                head = tar.header(name, length, status.st_mode & 0o777, status.st_mtime_ns, more=more)
                yield b"".join((head, data, tar.padding(length)))
                more.pop(tar.FROM, None)
                more.pop(tar.GROWN, None)
        except _Changed:
            if tar.FROM not in more:
                yield tar.header(name, more={tar.PROBLEM: "", tar.PART: part})  # forget what has come of it
            raise

    def _start(self, part: str, handle: int, size: int) -> int:
        """How much of a file the other side has already."""
        length, digest = self.parts.get(part, (0, ""))
        if 0 < length <= size and hash_of(handle, length) == digest:
            return int(length)
        return 0


def _has_grown(handle: int, size: int, known: tuple[int, str]) -> bool:
    """Whether a file begins with what the other side has of it, and that is not all."""
    length, digest = known
    return 0 < length < size and hash_of(handle, length) == digest


class Stream:
    """What a generator gives, as a file to read from."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = b""
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        pieces = []
        left = size
        while left:
            if self._at == len(self._block):
                self._block, self._at = next(self._blocks, b""), 0
                if not self._block:
                    break
            end = len(self._block) if left < 0 else min(len(self._block), self._at + left)
            pieces.append(self._block[self._at : end])
            left -= end - self._at if left > 0 else 0
            self._at = end
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of the file that is being read."""
        self._blocks.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _read_piece(handle: int, offset: int, size: int, first: os.stat_result) -> bytes:
    """A piece of a file that is still what it was at ``first``, but that it may have grown.

    :raises _Changed: it is not
    """
    data = os.pread(handle, size, offset) if size else b""
    while len(data) < size:
        more = os.pread(handle, size - len(data), offset + len(data))
        if not more:
            raise _Changed
        data += more
    now = os.fstat(handle)
    if now.st_mtime_ns != first.st_mtime_ns and now.st_size <= first.st_size:
        raise _Changed
    return data


def _data(handle: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, in pieces: offset and length."""
    while start < size:
        try:
            start = os.lseek(handle, start, os.SEEK_DATA)
            end = min(size, os.lseek(handle, start, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a hole up to the end
            end = size  # a file system that knows no holes
        while start < end:
            length = min(PIECE, end - start)
            yield start, length
            start += length


def _with_end(pieces: Iterator[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """The pieces, the last of which ends where the file does, if it has no byte."""
    end = -1
    for offset, length in pieces:
        end = offset + length
        if end <= size:
            yield offset, length
    if end != size:
        yield size, 0


def hash_of(handle: int, length: int) -> str:
    """SHA-256 of a file's first ``length`` bytes; "" if it is shorter."""
    digest = hashlib.sha256()
    done = 0
    while done < length:
        data = os.pread(handle, min(PIECE, length - done), done)
        if not data:
            return ""
        digest.update(data)
        done += len(data)
    return digest.hexdigest()
