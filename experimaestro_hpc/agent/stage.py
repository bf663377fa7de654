"""What a node that does not see the workspace asks of the login node. In: one request. Out: files, or files in place.

The script of a job runs this here over SSH, once for each request (``templates/staged.sh.j2``). A request begins with
lines: what is asked, a nonce, and the job; an answer with ``xpm-hpc NONCE``, as a login shell may print things before.

* ``give``: the job's directory, those of all tasks above it, the package and the code, as a tar stream. The job's lock
  file gets a new token: whoever has an older one, a start of the job that was given up, can write no more.
* ``note``: pieces of logs, and the progress, while the task runs.
* ``take``: what the task has left, as a tar stream; the marker appears last.
* ``fail``: the node cannot run the job.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from ..errors import WorkspaceError
from ..runtime.task import Failure, check_parents
from .files import MARKERS
from .layout import Layout
from .place import move_tree
from .unpack import stays_inside

#: exit statuses of a job's script that could not tell the login node what happened, and what did
ENDS = {
    114: "the login node could not give the files of the task",
    115: "the node's scratch cannot be used; check `scratch` in [mirror] of the launcher file",
    116: "the node has no ssh, tar or flock",
    117: "the login node refused the node's SSH",
    118: "the login node did not answer the node's SSH",
    119: "the results could not be copied back to the login node; they are kept for a week in the node's scratch",
}
#: the one after which the task has run
KEPT = 119
_LOCK = ".lock"


def explain(status: int | None, login: str, host: str) -> str:
    """What the end of a staged job's script means, and what to do; "" for another end."""
    if status not in ENDS:
        return ""
    words = f"{ENDS[status]} ({host or 'a node'} to {login})"
    if status in (117, 118):
        words += (
            f"; on the node, `ssh -o BatchMode=yes {login} true` must work without a question: a key in ~/.ssh there"
        )
        words += " that the login node accepts, and its host key in known_hosts; or name another host as `login` in"
        words += " [mirror] of the launcher file"
    return words


def main(root: str, lib: str) -> int:
    """Answer the request on standard input; the process's exit status."""
    requests = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  # what follows the lines is for others to read
    kind, nonce, job = (_line(requests) for _ in range(3))
    stage = Stage(Layout(root), job, lib)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(*lines: str) -> IO[bytes]:
        answers.write("".join(f"{line}\n" for line in (f"xpm-hpc {nonce}", *lines)).encode("utf-8", "surrogateescape"))
        answers.flush()
        return answers

    try:
        if kind == "give":
            stage.give(list(iter(lambda: _line(requests), "")), answer)
        elif kind == "fail":
            token, reason = _line(requests), _line(requests)
            answer("ok" if stage.fail(token, reason, requests.read().decode("utf-8", "replace")) else "other")
        elif kind == "note":
            answer("ok" if stage.note(_line(requests), requests) else "other")
        else:
            token = _line(requests)
            gone = base64.b64decode(_line(requests)).split(b"\0")
            answer("ok" if stage.take(token, [os.fsdecode(name) for name in gone if name]) else "other")
    except (OSError, WorkspaceError, ValueError) as error:
        print(f"{os.uname().nodename}: {error}", file=sys.stderr)
        return 1
    finally:
        with contextlib.suppress(OSError):
            answers.close()
    return 0


class Stage:
    """One job's files, on their way to its node and back.

    :param lib: folder of the shipped package below the workspace
    """

    def __init__(self, layout: Layout, job: str, lib: str) -> None:
        self.layout = layout
        self.job = job
        self.folder = layout.job(job)
        self.lib = lib

    def give(self, have: Sequence[str], answer: Callable[..., IO[bytes]]) -> None:
        """Send what the job needs.

        :param have: folders below the workspace that the node has
        :param answer: begins the answer with lines
        """
        record = self.layout.record(self.job)
        if not record:
            raise WorkspaceError(f"there is no {self.folder}/job.json")
        with contextlib.suppress(Failure):  # the task's start on the node says the same
            check_parents(str(self.layout.root), record.get("parents") or [])
        token = secrets.token_hex(8)
        with self._locked() as lock:
            lock.seek(0)
            lock.truncate()
            lock.write(token.encode())
        with tarfile.open(fileobj=answer(token, os.path.basename(self.layout.stem(self.job))), mode="w|") as tar:
            for folder in (self.lib, str(record.get("code") or "")):
                if folder and folder not in have:
                    _add_tree(tar, self.layout.root / folder, folder)
            for job in self._above(record.get("parents") or []):
                _add_tree(tar, self.layout.job(job), f"jobs/{job}")
            _add_tree(tar, self.folder, f"jobs/{self.job}")
            tar.add(self.folder / _LOCK, f"jobs/{self.job}/{_LOCK}")  # last: so all is there

    def _above(self, parents: Sequence[str]) -> list[str]:
        """The tasks that a job needs, those that they need, and so on: a task may look at all of them."""
        found: dict[str, None] = {}
        todo = list(parents)
        while todo:
            job = todo.pop()
            if job not in found and self.layout.job(job).is_dir():
                found[job] = None
                todo += self.layout.record(job).get("parents") or []
        return list(found)

    def note(self, token: str, stream: IO[bytes]) -> bool:
        """Take in pieces of logs: lines ``OFFSET LENGTH NAME``, each before its bytes. -1 replaces the file.

        What cannot be the log of that name, hidden files and what a link leads to, is passed over.
        """
        with self._locked() as lock:
            if not _is_current(lock, token):
                return False
            for line in iter(lambda: _line(stream), ""):
                offset, length, name = line.split(" ", 2)
                piece = _piece(stream, int(length))
                path = self.folder / name
                if "/" not in name and not name.startswith(".") and _is_free(path):
                    self._put_piece(path, int(offset), piece)
                for _ in piece:
                    pass
        return True

    @staticmethod
    def _put_piece(path: Path, offset: int, piece: Iterator[bytes]) -> None:
        target = path.with_name(f"{path.name}.{os.getpid()}.tmp") if offset < 0 else path
        with open(os.open(target, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
            try:
                file.seek(max(0, offset))
                file.writelines(piece)
                file.truncate()
            except BaseException:
                target.unlink() if offset < 0 else None
                raise
        if target != path:
            target.replace(path)

    def take(self, token: str, gone: Sequence[str]) -> bool:
        """Take in the files on standard input, a tar stream whose last is the lock file; False if they are not wanted.

        :param gone: names that the node was given and that the task has removed
        """
        incoming = self.layout.internal / "incoming" / f"staged-{secrets.token_hex(6)}"
        files, markers = incoming / "files", incoming / "markers"
        files.mkdir(parents=True)
        markers.mkdir()
        try:
            tar = subprocess.run(["tar", "-x", "-C", str(files)], stderr=subprocess.PIPE, check=False)
            if tar.returncode or not (files / _LOCK).exists():
                raise WorkspaceError(tar.stderr.decode("utf-8", "replace").strip() or "the files did not arrive whole")
            (files / _LOCK).unlink()
            for path in [path for pattern in MARKERS for path in files.glob(pattern)]:
                path.rename(markers / path.name)
            with self._locked() as lock:
                if not _is_current(lock, token):
                    return False
                move_tree(files, self.folder)
                for name in sorted(gone, reverse=True):  # folders after what is in them
                    _remove(self.folder, name)
                move_tree(markers, self.folder)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        return True

    def fail(self, token: str, reason: str, message: str) -> bool:
        """Write that the job has failed, unless another start of it is under way."""
        with self._locked() as lock:
            if token and not _is_current(lock, token):
                return False
            words = message.strip()[-2000:]
            end = {
                "state": "failed",
                "reason": reason,
                "message": words,
                "ended": time.time(),
                "by": "the job's script",
            }
            self.layout.fail(self.job, end)
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        with open(os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as lock:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock


def _remove(folder: Path, name: str) -> None:
    """Remove a file, a link or an empty folder below ``folder``, but nothing behind a link: that has other names."""
    top = folder.resolve()
    path = Path(os.path.normpath(top / name))
    if top in path.parents and path.parent.resolve() == path.parent:
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _add_tree(tar: tarfile.TarFile, folder: Path, name: str) -> None:
    """Add a folder; of a link that leaves it, what it leads to."""
    for here, folders, names in os.walk(folder):
        relative = os.path.relpath(here, folder)
        below = name if relative == "." else f"{name}/{relative}"
        depth = 0 if relative == "." else relative.count("/") + 1
        tar.add(os.path.realpath(here), below, recursive=False)
        links = [one for one in folders if os.path.islink(os.path.join(here, one))]
        for one in sorted([*names, *links]):
            path = os.path.join(here, one)
            if one == _LOCK or one.endswith(".tmp"):
                continue
            try:
                if os.path.islink(path) and not stays_inside(os.readlink(path), depth) and os.path.exists(path):
                    path = os.path.realpath(path)
                kind = os.lstat(path).st_mode
                if stat.S_ISREG(kind) or stat.S_ISLNK(kind) or stat.S_ISDIR(kind):
                    tar.add(path, f"{below}/{one}")
            except FileNotFoundError:
                continue  # removed meanwhile


def _is_current(lock: IO[bytes], token: str) -> bool:
    lock.seek(0)
    return lock.read() == token.encode()


def _is_free(path: Path) -> bool:
    """Whether a file of that name can be written, and is in that folder."""
    return not os.path.lexists(path) or (path.is_file() and not path.is_symlink())


def _piece(stream: IO[bytes], length: int) -> Iterator[bytes]:
    """The next bytes of a stream.

    :raises WorkspaceError: it ends before
    """
    while length:
        data = stream.read(min(length, 1 << 20))
        if not data:
            raise WorkspaceError("a piece of a log did not arrive whole")
        yield data
        length -= len(data)


def _line(stream: IO[bytes]) -> str:
    return stream.readline().rstrip(b"\n").decode("utf-8", "surrogateescape")
