"""The environments that tasks run in. In: a build script and the files that it reads. Out: ``.xpm/env/<digest>``.

::

    .xpm/env/<digest>/build.sh    builds it, under the lock; written by the driver
                      source/     the lock files that it reads
                      env/        the environment, or image.sif
                      build.log   what a build on the login node printed
                      .lock       held by the builder and what it started; given up by itself when they end
                      .complete   written last

A build on the login node goes on when the agent ends. One by a job is a job like others, of the task :data:`.BUILDER`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import WorkspaceError
from ..runtime.files import write_json
from ..runtime.parents import BUILDER
from .layout import Layout

#: bytes of a log that are sent at most
_TAIL = 16384
#: seconds that news of a build that goes on are held back: a log grows all the time
_NOT_BEFORE = 1.0


def is_builder(job: str) -> bool:
    """Whether a job builds an environment."""
    return job.partition("/")[0] == BUILDER


def folder_of(digest: str) -> str:
    """The folder of an environment, below the workspace."""
    return f".xpm/env/{digest}"


class Environments:
    """The environments of one workspace, and the builds that this process has started."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.builders: dict[str, subprocess.Popen[bytes]] = {}
        #: environments that another process builds, and that this one builds should that end without success
        self.awaited: set[str] = set()
        self.statuses: dict[str, int] = {}

    def folder(self, digest: str) -> Path:
        """Where an environment is.

        :raises WorkspaceError: ``digest`` is none
        """
        if not (digest.isalnum() and digest.isascii()):
            raise WorkspaceError(f"{digest!r:.80} is no environment")
        return self.layout.root / folder_of(digest)

    def is_complete(self, digest: str) -> bool:
        """Whether an environment has been built."""
        return (self.folder(digest) / ".complete").exists()

    def forget_removed(self, jobs: Iterable[str]) -> list[str]:
        """Count jobs as failed whose environments are not there any more, so that they run again.

        The submission lock must be held.

        :returns: these jobs
        """
        found = []
        for job in filter(is_builder, jobs):
            marker = f"{self.layout.stem(job)}.done"
            digest = self.layout.record(job).get("environment") or ""
            if os.path.exists(marker) and not (digest and self.is_complete(digest)):
                words = "the environment was removed"
                end = {"state": "failed", "reason": "lost", "message": words, "ended": time.time()}
                write_json(f"{self.layout.stem(job)}.failed", end)
                os.unlink(marker)
                found.append(job)
        return found

    def take(self, incoming: Path) -> None:
        """Put what a driver sent into the folders of the environments that are not complete."""
        for staged in sorted((incoming / "env").glob("*")):
            if self.is_complete(staged.name):
                continue
            target = self.folder(staged.name)
            for path in sorted(staged.rglob("*")):
                place = target / path.relative_to(staged)
                if path.is_dir():
                    place.mkdir(parents=True, exist_ok=True)
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(place)  # the content is what the digest says, so another builder may read it

    def start(self, digest: str) -> None:
        """Build an environment in the background; if another process does, only when that ends without success."""
        folder = self.folder(digest)
        if self.is_complete(digest):
            return
        if self._is_building(digest):
            self.awaited.add(digest)
            return
        self.builders[digest] = subprocess.Popen(
            ["/bin/bash", "build.sh", "build.log"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # the end of the connection does not concern it
        )

    def watch(self, digest: str, seen: int, seconds: float) -> dict[str, Any]:
        """How a build is: ``state`` (``building``, ``complete``, ``failed``) and ``lines``, the end of its log.

        :param seen: size of the log at the last look; when there is more it answers, within a second or so
        """
        now = time.monotonic()
        soon, deadline = now + min(_NOT_BEFORE, seconds), now + seconds
        pause = 0.05
        while True:
            # in this order: a build that ends in between is seen as complete at the next look
            building, complete = self._is_building(digest), self.is_complete(digest)
            if not building and not complete and digest in self.awaited:
                self.awaited.discard(digest)
                self.start(digest)
                continue
            size, lines = _tail(self.folder(digest) / "build.log")
            left = (soon if size != seen else deadline) - time.monotonic()
            if complete or not building or left <= 0:
                state = "complete" if complete else "building" if building else "failed"
                if state == "failed" and self.statuses.get(digest, 0) < 0:  # out of memory, most often
                    lines.append(f"the build was ended by signal {-self.statuses[digest]}")
                return {"state": state, "size": size, "lines": lines}
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 1.0)

    def _is_building(self, digest: str) -> bool:
        builder = self.builders.get(digest)
        if builder is not None:
            if builder.poll() is None:
                return True
            self.statuses[digest] = self.builders.pop(digest).returncode
        try:
            lock = os.open(self.folder(digest) / ".lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True  # another process builds it
        except OSError:
            return False  # a file system without locks
        finally:
            os.close(lock)
        return False


def _tail(log: Path) -> tuple[int, list[str]]:
    """The size of a log, and its last lines."""
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            return size, file.read().decode("utf-8", "replace").splitlines()[-50:]
    except FileNotFoundError:
        return 0, []
