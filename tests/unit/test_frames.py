"""Frames: what is written is read back, past any noise, and a stream that is cut is never taken for an answer."""

from __future__ import annotations

import io
from typing import IO, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experimaestro_hpc.agent.frames import CHUNK, Body, read_exactly, read_frame, write_frame
from experimaestro_hpc.errors import ConnectionFailed

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
