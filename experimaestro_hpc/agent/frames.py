"""Frames: one JSON document and some bytes, over a stream that may carry noise. In: bytes. Out: documents and bytes.

A frame is a line ``\\x1expm-hpc NONCE J B\\n``, J bytes of JSON and B bytes of body; ``zJ`` says that the JSON is
compressed, and a B of -1 that the body comes in chunks, since nobody knows its length yet. A login banner, a noisy
``.bashrc`` or a module's message before a frame is passed over, since it does not hold the nonce.

A chunk is a letter, four bytes of length, and that many bytes: ``p`` plain, ``z`` compressed, ``e`` the end.
"""

from __future__ import annotations

import json
import time
import zlib
from typing import IO, Any, Callable

from ..errors import ConnectionFailed, WorkspaceError
from .pack import UNKNOWN
from .tar import Readable

#: bytes that are copied at once; no chunk is longer
CHUNK = 1 << 18
#: the longest noise passed over before the first frame, in bytes
_NOISE = 1 << 20
#: bytes of JSON from which on it is compressed
_LONG = 1 << 14
#: how many chunks go plain, at most, before it is tried again whether compression pays
_REST = 64
#: bytes of a chunk that are looked at first
_SAMPLE = 1 << 13


def write_frame(stream: IO[bytes], nonce: str, document: Any, body: Readable | None = None, size: int = 0) -> None:
    """Write a frame; ``size`` bytes of ``body`` follow the document, or all that it has if that is ``UNKNOWN``.

    :raises WorkspaceError: the body cannot be read to its end
    """
    data = json.dumps(document).encode()
    mark = ""
    if len(data) >= _LONG:
        mark, data = "z", zlib.compress(data, 1)
    stream.write(f"\x1expm-hpc {nonce} {mark}{len(data)} {size}\n".encode() + data)
    if size == UNKNOWN and body is not None:
        _write_chunks(stream, body)
    left = max(size, 0)
    while left and body is not None:
        piece = _read(body, min(CHUNK, left))
        if not piece:
            raise ConnectionFailed("a file became shorter while it was sent")
        stream.write(piece)
        left -= len(piece)
    stream.flush()


def _read(body: Readable, size: int) -> bytes:
    try:
        return body.read(size)
    except OSError as error:
        what = f"a file cannot be read: {error.strerror or error}"
        raise WorkspaceError(what, where=str(error.filename or "")) from error


def _saves(sample: bytes) -> bool:
    """Whether compression may be worth it: much of what is large cannot be compressed, and its beginning shows that."""
    return len(zlib.compress(sample, 1)) < 0.95 * len(sample)


def _write_chunks(stream: IO[bytes], body: Readable) -> None:
    """Chunks, compressed as long as that makes them pass faster than plain ones would."""
    speed = 0.0  # bytes that the stream has taken a second; unknown at first: then it is taken for slow
    rest, resting = 0, 1
    while piece := _read(body, CHUNK):
        kind, data = b"p", piece
        if rest:
            rest -= 1
        else:
            began = time.perf_counter()
            small = zlib.compress(piece, 1) if _saves(piece[:_SAMPLE]) else piece
            spent = time.perf_counter() - began
            saved = len(piece) - len(small)
            if saved > 0:
                kind, data = b"z", small
            if saved < len(piece) / 10 or (speed and spent > saved / speed):
                rest, resting = resting, min(2 * resting, _REST)
            else:
                resting = 1
        began = time.perf_counter()
        stream.write(b"%c%s" % (kind, len(data).to_bytes(4, "big")) + data)
        now = len(data) / max(time.perf_counter() - began, 1e-6)
        speed = 0.7 * speed + 0.3 * now if speed else now
    stream.write(b"e\0\0\0\0")


def read_frame(stream: IO[bytes], nonce: str, noise: Callable[[bytes], None] | None = None) -> tuple[Any, int] | None:
    """Read up to the next frame; its document and the number of bytes that follow, or None at the end.

    :param noise: called with what was passed over
    :raises ConnectionFailed: the stream ends inside a frame, or carries nothing but noise
    """
    magic = f"\x1expm-hpc {nonce} ".encode()
    passed = 0
    while True:
        line = stream.readline(_NOISE)
        if not line:
            return None
        before, found, rest = line.partition(magic)
        if before or not found:
            passed += len(line)
            if noise is not None:
                noise(before if found else line)
            if passed > _NOISE:
                raise ConnectionFailed("the other side sends a lot, but nothing from the agent")
        if found:
            break
    try:
        first, second = rest.split()
        json_size, body_size = int(first.removeprefix(b"z")), int(second)
    except ValueError:
        raise ConnectionFailed(f"a broken frame: {rest[:80]!r}") from None
    data = read_exactly(stream, json_size)
    try:
        return json.loads(zlib.decompress(data) if first.startswith(b"z") else data), body_size
    except (ValueError, zlib.error) as error:
        raise ConnectionFailed(f"a broken frame: {error}") from None


def read_exactly(stream: IO[bytes], size: int) -> bytes:
    """``size`` bytes.

    :raises ConnectionFailed: the stream ends before
    """
    pieces = []
    while size:
        try:
            piece = stream.read(min(size, CHUNK))
        except OSError as error:
            raise ConnectionFailed(f"the connection was lost in the middle of an answer: {error}") from error
        if not piece:
            raise ConnectionFailed("the connection ended in the middle of an answer")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


class Body:
    """The bytes that follow a frame's document, as a file to read from.

    :param stream: positioned after the document
    :param size: number of bytes, or ``UNKNOWN`` for chunks
    :ivar alive: called whenever something has come
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream = stream
        self.left = size
        self.alive: Callable[[], object] | None = None
        self._chunk = b""
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, all without; of chunks there may be more when it gives less, but not nothing."""
        if self.left != UNKNOWN:
            wanted = self.left if size < 0 else min(size, self.left)
            data = read_exactly(self.stream, wanted)
            self.left -= len(data)
        elif size < 0:
            data = b"".join(iter(lambda: self.read(CHUNK), b""))
        else:
            if self._at == len(self._chunk):
                self._chunk, self._at = self._next_chunk(), 0
            data = self._chunk[self._at : self._at + size]
            self._at += len(data)
            if not self._chunk:
                self.left = 0
        if self.alive is not None:
            self.alive()
        return data

    def _next_chunk(self) -> bytes:
        head = read_exactly(self.stream, 5)
        kind, size = head[:1], int.from_bytes(head[1:], "big")
        if kind not in b"pze" or size > CHUNK:
            raise ConnectionFailed(f"a broken frame: {head!r}")
        data = read_exactly(self.stream, size)
        if kind == b"z":
            try:
                data = zlib.decompressobj().decompress(data, CHUNK + 1)
            except zlib.error as error:
                raise ConnectionFailed(f"a broken frame: {error}") from None
        if len(data) > CHUNK or (kind != b"e") != bool(data):
            raise ConnectionFailed("a broken frame: a chunk that says nothing, or too much")
        return data

    def drain(self, most: float = float("inf")) -> bool:
        """Read what nobody read, so that the next frame can follow.

        :param most: bytes after which to give up
        :returns: whether all has been read
        """
        while self.left and most > 0:
            most -= len(self.read(CHUNK))
        return not self.left
