"""Frames: what is written is read back, past any noise, and a stream that is cut is never taken for an answer."""

from __future__ import annotations

import io
import os
import zlib
from typing import IO, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experimaestro_hpc.agent.frames import CHUNK, Body, read_exactly, read_frame, write_frame
from experimaestro_hpc.agent.pack import UNKNOWN
from experimaestro_hpc.errors import ConnectionFailed, WorkspaceError

NONCE = "00ff00ff00ff00ff"
MAGIC = f"\x1expm-hpc {NONCE} ".encode()
DOCUMENT = {"answer": {"word": "é\n\x1e", "numbers": [1, 2.5, None, True]}}


def framed(document: Any, body: bytes = b"", nonce: str = NONCE) -> bytes:
    stream = io.BytesIO()
    write_frame(stream, nonce, document, io.BytesIO(body), len(body))
    return stream.getvalue()


class Dribble(io.RawIOBase):
    """A pipe that gives a byte at a time, whatever is asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece, self.data = self.data[:1], self.data[1:]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"Welcome to the cluster!\n\n  ** maintenance on Monday **\n",
        b"no newline at its end",
        b"\x1expm-hpc another0nonce00 12 0\n{}",
        b"\x1expm-hpc ",
        b"\x1expm-hpc 00ff00ff\n",
        b"\x1e\x1e\x1e\x1expm-hpc",
        b"\x00\xff\xfe\r\n\x1b[31mred\x1b[0m\r\n",
        b"\n" * 5000,
        b"x" * 100_000 + b"\n",
    ],
)
def test_noise_before_and_between_frames_is_passed_over(noise):
    heard = []
    stream = io.BytesIO(noise + framed(DOCUMENT, b"body\x1e\n") + noise + framed([2]) + noise)
    for expected, body in ((DOCUMENT, b"body\x1e\n"), ([2], b"")):
        document, size = cast("tuple[Any, int]", read_frame(stream, NONCE, heard.append))
        assert (document, stream.read(size)) == (expected, body)
        assert b"".join(heard) == noise
        heard.clear()
    assert read_frame(stream, NONCE) is None


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=50),
            st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5),
            st.binary(max_size=50),
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read(frames):
    stream = io.BytesIO(b"".join(noise + framed(document, body) for noise, document, body in frames))
    for _, document, body in frames:
        read, size = cast("tuple[Any, int]", read_frame(stream, NONCE))
        assert (read, stream.read(size)) == (document, body)
    assert read_frame(stream, NONCE) is None


@pytest.mark.parametrize("noise", [b"", b"banner\n"])
def test_a_stream_cut_anywhere_is_no_answer(noise):
    whole = noise + framed(DOCUMENT)
    outcomes = set()
    for end in range(len(whole)):
        try:
            outcomes.add(read_frame(io.BytesIO(whole[:end]), NONCE))
        except ConnectionFailed as error:
            outcomes.add(error.what.split(":")[0])
    assert outcomes == {None, "a broken frame", "the connection ended in the middle of an answer"}
    assert read_frame(io.BytesIO(whole), NONCE) == (DOCUMENT, 0)


@pytest.mark.parametrize("header", [b"\n", b"5\n", b"5 x\n", b"5 0 0\n", b"five 0\n"])
def test_a_broken_header_is_refused(header):
    with pytest.raises(ConnectionFailed, match="a broken frame"):
        read_frame(io.BytesIO(MAGIC + header + b"[1,2]"), NONCE)


@pytest.mark.parametrize("noise", [b"y\n" * (1 << 20), b"y" * (3 << 20)])
def test_noise_without_end_is_given_up(noise):
    stream = io.BytesIO(noise + framed(DOCUMENT))
    with pytest.raises(ConnectionFailed, match="sends a lot, but nothing from the agent"):
        read_frame(stream, NONCE)
    assert stream.tell() <= 2 << 20


def test_a_stream_that_gives_a_byte_at_a_time():
    stream = io.BufferedReader(Dribble(b"hi\n" + framed(DOCUMENT, b"body")), 1)
    assert read_frame(stream, NONCE) == (DOCUMENT, 4)
    assert read_exactly(cast("IO[bytes]", stream.raw), 3) + stream.read() == b"body"


def test_body_is_read_in_pieces_and_never_beyond_its_end():
    data = bytes(range(256)) * 5000
    stream = io.BytesIO(data + b"the next frame")
    body = Body(stream, len(data))
    assert [len(piece) for piece in iter(lambda: body.read(CHUNK), b"")] == [CHUNK] * 4 + [len(data) - 4 * CHUNK]
    assert (body.left, body.read(), body.read(5)) == (0, b"", b"")
    assert stream.read() == b"the next frame"


@pytest.mark.parametrize("taken", [0, 1, CHUNK + 1])
def test_body_that_nobody_read_is_drained(taken):
    stream = io.BytesIO(b"x" * (2 * CHUNK) + b"next")
    body = Body(stream, 2 * CHUNK)
    body.read(taken)
    body.drain()
    assert stream.read() == b"next"


@pytest.mark.parametrize("read", [Body.read, Body.drain])
def test_body_that_is_cut(read):
    with pytest.raises(ConnectionFailed, match="in the middle of an answer"):
        read(Body(io.BytesIO(b"123"), 4))


def test_a_file_that_becomes_shorter_while_it_is_sent():
    with pytest.raises(ConnectionFailed, match="became shorter"):
        write_frame(io.BytesIO(), NONCE, {}, io.BytesIO(b"123"), 4)


def test_a_file_that_becomes_longer_is_cut():
    stream = io.BytesIO()
    write_frame(stream, NONCE, {}, io.BytesIO(b"12345"), 4)
    assert stream.getvalue().endswith(b"{}1234")


# --- Bodies of which nobody knows the length


def chunked(body: bytes) -> bytes:
    stream = io.BytesIO()
    write_frame(stream, NONCE, DOCUMENT, io.BytesIO(body), UNKNOWN)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"x", b"abc" * CHUNK, os.urandom(3 * CHUNK + 5), b"a" * CHUNK + os.urandom(9 * CHUNK) + bytes(CHUNK)]
)
def test_a_body_in_chunks(data):
    stream = io.BytesIO(chunked(data) + framed([2]))
    _, size = cast("tuple[Any, int]", read_frame(stream, NONCE))
    body = Body(stream, size)
    pieces = list(iter(lambda: body.read(1000), b""))
    assert b"".join(pieces) == data
    assert (body.read(), body.drain(), body.left) == (b"", True, 0)
    assert read_frame(stream, NONCE) == ([2], 0)


def test_what_can_be_compressed_is_and_what_cannot_is_not():
    assert len(chunked(b"abc" * 80_000)) < 5000
    noise = os.urandom(10 * CHUNK)
    assert len(chunked(noise)) < len(noise) + 1000


@pytest.mark.parametrize("end", [1, 5, 6, 1000, -1])
def test_a_body_in_chunks_that_is_cut(end):
    whole = chunked(os.urandom(2 * CHUNK))
    start = whole.index(b"}}") + 2
    stream = io.BytesIO(whole[: start + end if end > 0 else end])
    _, size = cast("tuple[Any, int]", read_frame(stream, NONCE))
    with pytest.raises(ConnectionFailed, match="in the middle of an answer"):
        Body(stream, size).read()


@pytest.mark.parametrize(
    "chunk",
    [
        b"q\0\0\0\1x",
        b"p\xff\xff\xff\xff",
        b"p\0\0\0\0",
        b"e\0\0\0\1x",
        b"z\0\0\0\4evil",
        b"z" + len(BOMB := zlib.compress(bytes(CHUNK + 1))).to_bytes(4, "big") + BOMB,
    ],
)
def test_a_chunk_that_is_none(chunk):
    with pytest.raises(ConnectionFailed, match="a broken frame"):
        Body(io.BytesIO(chunk + bytes(100)), UNKNOWN).read()


def test_a_long_document_is_compressed():
    document = {"jobs": [f"test.say/{number:064}" for number in range(2000)]}
    data = framed(document, b"body")
    assert len(data) < 30_000
    stream = io.BytesIO(data)
    assert read_frame(stream, NONCE) == (document, 4)
    assert stream.read() == b"body"


@pytest.mark.parametrize("data", [b"junk", zlib.compress(b"no json")])
def test_a_compressed_document_that_is_none(data):
    with pytest.raises(ConnectionFailed, match="a broken frame"):
        read_frame(io.BytesIO(MAGIC + b"z%d 0\n" % len(data) + data), NONCE)


def test_a_body_that_is_given_up():
    data = chunked(os.urandom(5 * CHUNK))
    stream = io.BytesIO(data)
    _, size = cast("tuple[Any, int]", read_frame(stream, NONCE))
    assert not Body(stream, size).drain(2 * CHUNK)
    assert stream.tell() < 4 * CHUNK


def test_a_file_that_cannot_be_read_is_no_lost_connection():
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error", "/data/x")

    with pytest.raises(WorkspaceError, match="cannot be read: Input/output error"):
        write_frame(io.BytesIO(), NONCE, {}, Broken(), UNKNOWN)
