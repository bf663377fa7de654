"""A tar stream into a folder, with care. In: a stream that nobody vouches for. Out: files, each whole or not there.

No absolute names, no ``..``, no link that leaves the folder, nothing but files, folders and links; and each file
appears by rename, so that nobody sees half of one. What was a folder may become a file, and the reverse.

What has come of a large file when the connection is lost stays beside its place, named by :func:`.pack.part_id`, and
is gone on with; where this side fails (a full disk) it goes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ..errors import WorkspaceError
from . import tar
from .pack import PIECE, Progress, hash_of

#: seconds for which what has come of a file is kept, if nobody asks for the file
KEPT = 7 * 86400.0
#: pieces of large files that have not come to their end
_PART = re.compile(r"\.([0-9a-f]{24})\.xpm-part")


def is_unfinished(name: str) -> bool:
    """Whether a file of this name is being written, or has been left in the middle of it."""
    return name.endswith(".tmp") or (name.endswith(".xpm-part") and _PART.fullmatch(name) is not None)


def safe_name(name: str) -> str:
    """A name inside a tar stream, if it stays inside the folder that it is unpacked to.

    :raises WorkspaceError: it does not
    """
    if "//" in name or "/." in name or name[:1] in ("", ".", "/") or name[-1] == "/" or "\0" in name:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or not parts or "\0" in name:
            raise WorkspaceError(f"a file name that leaves the folder was refused: {name!r}")
        return "/".join(parts)
    return name


def stays_inside(link: str, depth: int) -> bool:
    """Whether a link stays inside its tree whatever other links are there: it goes up first, and down only then.

    :param depth: how many folders of the tree the link is in
    """
    parts = [part for part in link.split("/") if part not in ("", ".")]
    ups = parts.count("..")
    return not link.startswith("/") and "\0" not in link and ".." not in parts[ups:] and ups <= depth


class Parts:
    """What there is of large files whose transfer was cut, each locked so that no two go on with it."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, int]] = {}

    def take(self, path: str, new: bool = False) -> int | None:
        """Lock a part; its handle, or None if it is somebody else's.

        :param new: make it if it is not there
        """
        match = _PART.fullmatch(os.path.basename(path))
        if match is None or (match[1] in self.held and not new):
            return None
        if match[1] in self.held:
            return self.held[match[1]][1]
        try:
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if new else 0), 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(path)):  # else it has just been finished
                self.held[match[1]] = (path, handle)
                return handle
        except OSError:
            pass
        os.close(handle)
        return None

    def known(self) -> dict[str, list[Any]]:
        """Length (bytes) and SHA-256 of each."""
        sizes = {part: os.fstat(handle).st_size for part, (_, handle) in self.held.items()}
        return {part: [size, hash_of(self.held[part][1], size)] for part, size in sizes.items()}

    def remove(self, part: str) -> None:
        """Give up what has come of a file."""
        path, handle = self.held.pop(part)
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(handle)

    def clear(self, all_: bool) -> None:
        """Remove those that nobody went on with.

        :param all_: all files were looked at, so that they are of none that is there; otherwise only what is old goes
        """
        for part, (_, handle) in list(self.held.items()):
            if all_ or time.time() - os.fstat(handle).st_mtime > KEPT:
                self.remove(part)

    def close(self) -> None:
        """Unlock them."""
        for _, handle in self.held.values():
            os.close(handle)
        self.held.clear()

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def unpack(
    stream: tar.Readable,
    target: Path | str,
    parts: Parts | None = None,
    progress: Progress | None = None,
    problems: dict[str, str] | None = None,
    only: Collection[str] | None = None,
) -> list[str]:
    """Unpack a tar stream below ``target``; the names of the files, in their order.

    :param parts: what is there of large files, if the sender was told of it
    :param progress: told how many bytes have come, and how many will
    :param problems: gets why files did not come; without it that is an error
    :param only: jobs, whose directories all of it must be in
    :raises WorkspaceError: an unsafe name, or a stream that is broken
    :raises OSError: disk full, no permission
    """
    os.makedirs(target, exist_ok=True)
    with contextlib.ExitStack() as stack:
        unpacker = _Unpacker(os.fspath(target), parts or stack.enter_context(Parts()), progress, only)
        try:
            unpacker.run(tar.Reader(stream))
        except tar.BrokenStream as error:
            raise WorkspaceError(f"the files did not arrive whole: {error}", where=str(target)) from error
    if problems is not None:
        problems.update(unpacker.problems)
    elif unpacker.problems:
        name, words = next(iter(unpacker.problems.items()))
        raise WorkspaceError(f"a file did not come: {words}", where=name)
    return unpacker.names


class _Unpacker:
    """Puts the members of a tar stream into a folder."""

    def __init__(self, root: str, parts: Parts, progress: Progress | None, only: Collection[str] | None) -> None:
        self.root = root
        self.only = only
        self.real_root = os.path.realpath(root)
        self.parts = parts
        self.progress = progress
        self.names: list[str] = []
        self.problems: dict[str, str] = {}
        #: folders that were found to be inside; a new link may change that
        self.inside: set[str] = set()
        self.token = secrets.token_hex(6)
        self.all = self.done = 0
        #: a part that another process writes as well: ours has another name, and does not stay
        self.private: dict[str, tuple[str, int]] = {}

    def run(self, reader: tar.Reader) -> None:
        try:
            for member in reader:
                self._take(member, reader)
        finally:
            for path, handle in self.private.values():
                os.unlink(path)
                os.close(handle)

    def _take(self, member: tar.Member, reader: tar.Reader) -> None:
        name = safe_name(member.name)
        path = f"{self.root}/{name}"
        if member.more:
            try:
                self.all = int(member.more.get(tar.ALL, self.all))
            except ValueError:
                raise tar.BrokenStream("a size that is no number") from None
        if member.kind == tar.FOLDER:
            self._make(path, member)
            return
        folder = path[: path.rindex("/")]
        self._make(folder, member)
        if tar.PROBLEM in member.more:
            self._miss(member)
        elif member.kind == tar.LINK:
            self._link(member, folder, path)
        elif member.kind != tar.FILE:
            raise WorkspaceError(f"neither file, folder nor link: {member.name!r}")
        elif tar.PART in member.more:
            self._piece(member, self._content(reader), folder, path)
        else:
            self._file(member, self._content(reader), folder, path)

    def _content(self, reader: tar.Reader) -> Iterator[bytes]:
        for data in reader.content():
            yield data
            if self.progress is not None:
                self.done += len(data)
                self.progress(min(self.done, self.all), self.all)

    def _miss(self, member: tar.Member) -> None:
        part = member.more.get(tar.PART, "")
        if part in self.parts.held:
            self.parts.remove(part)
        if member.more[tar.PROBLEM]:
            self.problems[member.name] = member.more[tar.PROBLEM]

    def _make(self, folder: str, member: tar.Member) -> None:
        if folder in self.inside:
            return
        if self.only is not None:
            top, _, job = folder[len(self.root) + 1 :].partition("/")
            if top != "jobs" or "/".join(job.split("/")[:2]) not in self.only:
                raise WorkspaceError(f"a file that nobody asked for was refused: {member.name!r}")
        existing = folder
        while not os.path.exists(existing):
            existing = existing[: existing.rindex("/")]
        if not self._is_inside(existing):
            raise WorkspaceError(f"a file behind a link that leaves the folder was refused: {member.name!r}")
        try:
            os.makedirs(folder, exist_ok=True)
        except (FileExistsError, FileNotFoundError, NotADirectoryError):  # it was a file, or a link to nothing
            os.unlink(_first_that_is_no_folder(folder, len(self.root)))
            os.makedirs(folder, exist_ok=True)
        self.inside.add(folder)

    def _is_inside(self, path: str) -> bool:
        return f"{os.path.realpath(path)}/".startswith(f"{self.real_root.rstrip('/')}/")

    def _link(self, member: tar.Member, folder: str, path: str) -> None:
        depth = os.path.realpath(folder).count("/") - self.real_root.rstrip("/").count("/")
        if not stays_inside(member.link, depth):
            raise WorkspaceError(f"a link that leaves the folder was refused: {member.name!r}")
        self.inside.clear()
        temporary = f"{folder}/.{self.token}.tmp"
        os.symlink(member.link, temporary)
        try:
            if member.mtime_ns:
                os.utime(temporary, ns=(member.mtime_ns, member.mtime_ns), follow_symlinks=False)
            _put(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        self.names.append(member.name)

    def _file(self, member: tar.Member, content: Iterator[bytes], folder: str, path: str) -> None:
        temporary = f"{folder}/.{self.token}.tmp"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                for data in content:
                    _write(handle, data)
                _finish(handle, member)
            finally:
                os.close(handle)
            _put(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        self.names.append(member.name)

    def _piece(self, member: tar.Member, content: Iterator[bytes], folder: str, path: str) -> None:
        more = member.more
        try:
            part, offset, total = more[tar.PART], int(more[tar.OFFSET]), int(more[tar.TOTAL])
            start = int(more[tar.FROM]) if tar.FROM in more else None
            grown = more.get(tar.GROWN, "")
        except (KeyError, ValueError):
            raise tar.BrokenStream("a piece of a file that does not say which") from None
        unfinished = f"{folder}/.{part}.xpm-part"
        if _PART.fullmatch(f".{part}.xpm-part") is None or not 0 <= offset <= offset + member.size <= total:
            raise tar.BrokenStream("a piece of a file that does not say which")
        if start is not None:
            self._begin(part, 0 if grown else start, unfinished)
        known = self.private.get(part) or self.parts.held.get(part)
        if known is None:
            raise tar.BrokenStream("a piece of a file that nothing is known of")
        unfinished, handle = known
        try:
            if start and grown:
                _copy_beginning(path, handle, start, grown)
            os.lseek(handle, offset, os.SEEK_SET)
            for data in content:
                _write(handle, data)
            if offset + member.size < total:
                return
            os.ftruncate(handle, total)
            _finish(handle, member)
            _put(unfinished, path)
        except OSError:  # of this side: nobody would want half a file on a full disk
            if part in self.parts.held and part not in self.private:
                self.parts.remove(part)
            raise
        self.private.pop(part, None) or self.parts.held.pop(part)
        os.close(handle)
        self.names.append(member.name)

    def _begin(self, part: str, start: int, path: str) -> None:
        """Go on with a large file, or begin with it."""
        handle = self.parts.take(path, new=True) if not start or part in self.parts.held else None
        if handle is not None:
            if not 0 <= start <= os.fstat(handle).st_size:
                raise tar.BrokenStream("a piece of a file that nothing is known of")
            os.ftruncate(handle, start)
        elif start:
            raise tar.BrokenStream("a piece of a file that nothing is known of")
        else:
            path = f"{path}.{self.token}.tmp"
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self.private[part] = (path, handle)


def _copy_beginning(path: str, handle: int, length: int, digest: str) -> None:
    """Copy the first bytes of a file.

    :raises OSError: they are not those that the sender was told of
    """
    done, sha = 0, hashlib.sha256()
    os.lseek(handle, 0, os.SEEK_SET)
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        while done < length and (data := file.read(min(PIECE, length - done))):
            _write(handle, data)
            sha.update(data)
            done += len(data)
    if done < length or sha.hexdigest() != digest:
        raise OSError(errno.ESTALE, "it has changed meanwhile; try again", path)


def _put(temporary: str, path: str) -> None:
    try:
        os.replace(temporary, path)
    except IsADirectoryError:  # it was a folder
        shutil.rmtree(path)
        os.replace(temporary, path)


def _first_that_is_no_folder(folder: str, start: int) -> str:
    """The first part of a path, after ``start`` characters, that is there and is something else."""
    end = folder.find("/", start + 1)
    while end >= 0 and (os.path.isdir(folder[:end]) or not os.path.lexists(folder[:end])):
        end = folder.find("/", end + 1)
    return folder[:end] if end >= 0 else folder


def _write(handle: int, data: bytes) -> None:
    written = os.write(handle, data)
    while written < len(data):  # a full disk: the next one says so
        written += os.write(handle, data[written:])


def _finish(handle: int, member: tar.Member) -> None:
    os.fchmod(handle, member.mode)
    if member.mtime_ns:
        os.utime(handle, ns=(member.mtime_ns, member.mtime_ns))
