"""Frames: one JSON document and some bytes, over a stream that may carry noise. In: bytes. Out: documents and bytes.

A frame is a line ``\\x1expm-hpc NONCE J B\\n``, J bytes of JSON and B bytes of body. A login banner, a noisy
``.bashrc`` or a module's message before a frame is passed over, since it does not hold the nonce.
"""

from __future__ import annotations

import json
from typing import IO, Any, Callable

from ..errors import ConnectionFailed

#: bytes that are copied at once
CHUNK = 1 << 18
#: the longest noise passed over before the first frame, in bytes
_NOISE = 1 << 20


def write_frame(stream: IO[bytes], nonce: str, document: Any, body: IO[bytes] | None = None, size: int = 0) -> None:
    """Write a frame; ``size`` bytes of ``body`` follow the document."""
    data = json.dumps(document).encode()
    stream.write(f"\x1expm-hpc {nonce} {len(data)} {size}\n".encode() + data)
    left = size
    while left and body is not None:
        piece = body.read(min(CHUNK, left))
        if not piece:
            raise ConnectionFailed("a file became shorter while it was sent")
        stream.write(piece)
        left -= len(piece)
    stream.flush()


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
        json_size, body_size = (int(word) for word in rest.split())
    except ValueError:
        raise ConnectionFailed(f"a broken frame: {rest[:80]!r}") from None
    return json.loads(read_exactly(stream, json_size)), body_size


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
    :param size: number of bytes
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream = stream
        self.left = size

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        data = read_exactly(self.stream, wanted)
        self.left -= len(data)
        return data

    def drain(self) -> None:
        """Read what nobody read, so that the next frame can follow."""
        while self.left:
            self.read(CHUNK)
