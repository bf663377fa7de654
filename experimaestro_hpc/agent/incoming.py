"""Files on their way in. In: tar streams. Out: a folder with what they held, while a request needs it.

A folder of an upload that announced itself stays when the connection is lost, and the next attempt goes on with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConnectionFailed, WorkspaceError
from .files import manifest
from .layout import Layout
from .tar import Readable
from .unpack import Parts, unpack


class Incoming:
    """The folders below ``.xpm/incoming`` of one agent."""

    def __init__(self, layout: Layout) -> None:
        self.folder = layout.internal / "incoming"
        self.locks: dict[str, int] = {}

    def prepare(self, token: str) -> dict[str, Any]:
        """See :meth:`.service.Service.prepare`."""
        if not (token.isascii() and token.replace("-", "").isalnum()):
            raise WorkspaceError(f"{token!r} is no token")
        token = token if token in self.locks or self._lock(token) else secrets.token_hex(12)
        with Parts() as parts:
            have = manifest(self.folder / token, parts.take)
            return {"token": token, "have": have, "parts": parts.known()}

    def _lock(self, token: str) -> bool:
        """Keep others from the same upload, until it is over or this process ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._lock_file(token)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(path)):  # else whoever had it has just removed it
                self.locks[token] = handle
                return True
        except OSError:
            pass
        os.close(handle)
        return False

    def _lock_file(self, token: str) -> Path:
        return self.folder / f"{token}.lock"

    @contextlib.contextmanager
    def unpacked(self, token: str, body: Readable) -> Iterator[Path]:
        """The folder with what a stream held, and with what had come of it before; removed at the end."""
        folder = self.folder / token
        folder.mkdir(parents=True, exist_ok=token in self.locks)
        try:
            with Parts() as parts:
                if token in self.locks:
                    manifest(folder, parts.take)
                unpack(body, folder, parts)
                parts.clear(all_=True)
            yield folder
        except ConnectionFailed:
            if token not in self.locks:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        except BaseException:
            self._remove(token, folder)
            raise
        self._remove(token, folder)

    def _remove(self, token: str, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        handle = self.locks.pop(token, None)
        if handle is not None:
            self._lock_file(token).unlink(missing_ok=True)
            os.close(handle)
