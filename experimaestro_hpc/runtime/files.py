"""Small files that others read while they are written. In: a document. Out: the whole new file, or the old one."""

from __future__ import annotations

import os
from _thread import get_ident  # threading costs a job a millisecond

from ..config.jsonlight import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write_json(path: str, document: dict[str, Any], *, durable: bool = False, mode: int = 0o666) -> None:
    """Write ``document`` to ``path``; see :func:`write_bytes`."""
    write_bytes(path, (dumps(document) + "\n").encode("utf-8", "backslashreplace"), durable=durable, mode=mode)


def write_bytes(path: str, data: bytes, *, durable: bool = False, mode: int = 0o666) -> None:
    """Write ``data`` to ``path`` by rename, so that a reader sees the old file or the new one.

    :param durable: also wait until it is on the disk
    :param mode: who may read and write it, from its first byte on; less what the umask takes away
    :raises OSError: disk full, directory gone; the old file is untouched
    """
    temporary = f"{path}.{os.getpid()}.{get_ident()}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        try:
            while data:
                data = data[os.write(handle, data) :]
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass  # interrupted when it had been renamed already
        raise


def read_json(path: str) -> dict[str, Any] | None:
    """The document at ``path``, or None when there is none, or none that is whole."""
    try:
        with open(path, encoding="utf-8") as file:
            document = loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return document if isinstance(document, dict) else None
