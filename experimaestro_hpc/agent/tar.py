"""The tar format (pax), as far as it is needed. In: members, or a stream. Out: a header's bytes, or members.

``tarfile`` takes a quarter of a millisecond for each small file, in all more than the files themselves. Any tar reads
what is written here; of a large file it sees the pieces, which :mod:`.unpack` puts together by our own keywords.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

BLOCK = 512
FILE, LINK, FOLDER = b"0", b"2", b"5"
#: two blocks of zeros: without them a stream is not whole
END = bytes(2 * BLOCK)
#: our own keywords: where a piece of a large file begins, the file's size, which state of the file it is, how much of
#: that the other side has already, and with what hash if it is in the file itself; why a file does not come; how many
#: bytes will come in all
OFFSET, TOTAL, PART, FROM, GROWN = "XPM.offset", "XPM.total", "XPM.part", "XPM.from", "XPM.grown"
PROBLEM, ALL = "XPM.problem", "XPM.all"
#: bytes of a member's keywords; longer ones are no names
_LONGEST = 1 << 20
#: the format's name and version, and no names of user and group
_MIDDLE = b"ustar\x0000" + bytes(64)
#: bytes read at once
_CHUNK = 1 << 18


class Readable(Protocol):
    """A stream: what it has in pieces, and nothing at its end."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes."""


class BrokenStream(Exception):
    """This is no tar stream, or its end is missing."""


class Member(NamedTuple):
    """A file, a piece of one, a link, a folder, or something else.

    :ivar kind: tar's letter
    :ivar size: bytes of content in the stream
    :ivar mtime_ns: nanoseconds since 1970, 0 if it does not matter
    :ivar more: our own keywords
    """

    name: str
    kind: bytes
    size: int
    mode: int
    mtime_ns: int
    link: str
    more: Mapping[str, str]


def header(
    name: str,
    size: int = 0,
    mode: int = 0o644,
    mtime_ns: int = 0,
    kind: bytes = FILE,
    link: str = "",
    more: Mapping[str, object] | None = None,
) -> bytes:
    """What stands before a member's content."""
    path, target = name.encode("utf-8", "surrogateescape"), link.encode("utf-8", "surrogateescape")
    seconds, fraction = divmod(mtime_ns, 1_000_000_000)
    records = b""
    split = _split(path)
    if split is None or len(target) > 100 or more or not 0 <= seconds < 1 << 33:
        for key, value in (more or {}).items():
            records += _record(key.encode(), str(value).encode("utf-8", "surrogateescape"))
        records += _record(b"path", path) + _record(b"linkpath", target) * bool(target)
        records += _record(b"mtime", b"%d.%09d" % (seconds, fraction)) * bool(mtime_ns)
        try:
            records.decode()
        except UnicodeDecodeError:
            records = _record(b"hdrcharset", b"BINARY") + records
        records = _block(b"-", b"", b"x", len(records), 0o644, 0, 0, b"") + records + padding(len(records))
        split, target, seconds, fraction = (b"", b"-"), b"", 0, 0
    return records + _block(split[1], split[0], kind, size, mode, seconds, fraction, target)


def padding(size: int) -> bytes:
    """What follows ``size`` bytes up to a whole block."""
    return bytes(-size % BLOCK)


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """A name for the two fields of a header, if it fits into them."""
    if len(path) <= 100:
        return b"", path
    slash = path.find(b"/", len(path) - 101)
    return (path[:slash], path[slash + 1 :]) if 0 < slash <= 155 and slash + 1 < len(path) else None


def _record(key: bytes, value: bytes) -> bytes:
    """``length key=value``, where the length counts itself."""
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    length = size + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(
    name: bytes, prefix: bytes, kind: bytes, size: int, mode: int, seconds: int, fraction: int, link: bytes
) -> bytes:
    """A header. The parts of a second stand in the two fields for a device's number, which files do not have."""
    start = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, 0, 0, size, seconds)
    end = b"%s%s%s%07o\0%07o\0%s" % (
        kind,
        link.ljust(100, b"\0"),
        _MIDDLE,
        fraction >> 21,
        fraction & 0x1FFFFF,
        prefix.ljust(167, b"\0"),
    )
    return b"%s%06o\0 %s" % (start, sum(start) + sum(end) + 256, end)


class Reader:
    """Reads a tar stream from its beginning to its end."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self._left = 0  # of the present member's content

    def __iter__(self) -> Iterator[Member]:
        """The members; the content of each can be read until the next is asked for.

        :raises BrokenStream: what comes is no tar, or ends before its end
        """
        records: dict[str, str] = {}
        while True:
            for _ in self.content():
                pass
            block = self._exactly(BLOCK)
            if block == END[:BLOCK]:
                if self._exactly(BLOCK) != END[:BLOCK]:
                    raise BrokenStream("zeros in the middle")
                return
            try:
                if sum(block) - sum(block[148:156]) + 256 != int(block[148:156].rstrip(b" \0"), 8):
                    raise BrokenStream("a damaged head")
                mode, size = int(block[100:107].rstrip(b" \0"), 8), int(block[124:135], 8)
                if size < 0:
                    raise BrokenStream("a damaged head")
                kind = block[156:157]
                if kind == b"x":
                    if size > _LONGEST:
                        raise BrokenStream("a name without end")
                    records = _records(self._exactly(size + -size % BLOCK)[:size])
                    continue
                member = _member(block, kind, size, mode, records)
            except (ValueError, ArithmeticError) as error:
                raise BrokenStream(f"a damaged head: {error}") from None
            self._left = size
            yield member
            records = {}

    def content(self) -> Iterator[bytes]:
        """What is left of the present member's content, in pieces."""
        size = self._left
        if not size:
            return
        while self._left:
            piece = self._some(self._left)
            self._left -= len(piece)
            yield piece
        self._exactly(-size % BLOCK)

    def _some(self, most: int) -> bytes:
        """At least a byte."""
        if self._at == len(self._data):
            self._data, self._at = self._stream.read(_CHUNK), 0
            if not self._data:
                raise BrokenStream("the end is missing")
        piece = self._data[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def _exactly(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        while len(piece) < size:
            piece += self._some(size - len(piece))
        return piece


def _records(data: bytes) -> dict[str, str]:
    found = {}
    while data:
        length = int(data[: data.index(b" ")])
        key, _, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
        if not key or not len(key) < length <= len(data):
            raise ValueError("a damaged keyword")
        found[key.decode()] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return found


def _member(block: bytes, kind: bytes, size: int, mode: int, records: dict[str, str]) -> Member:
    name = records.get("path")
    if name is None:
        prefix, short = block[345:500].rstrip(b"\0"), block[:100].rstrip(b"\0")
        name = (prefix + b"/" + short if prefix else short).decode("utf-8", "surrogateescape")
    link = block[157:257].rstrip(b"\0").decode("utf-8", "surrogateescape")
    seconds = int(block[136:147] or b"0", 8)
    fraction = (int(block[329:336].rstrip(b"\0 ") or b"0", 8) << 21) + int(block[337:344].rstrip(b"\0 ") or b"0", 8)
    if not records:
        return Member(name, FILE if kind == b"\0" else kind, size, mode & 0o777, _ns(seconds, fraction), link, records)
    if "mtime" in records:
        whole, _, digits = records["mtime"].partition(".")
        seconds, fraction = int(whole), int(digits[:9].ljust(9, "0"))
        if abs(seconds) >= 1 << 33:  # more than a file system can note
            raise ValueError("a time that cannot be")
    more = {key: value for key, value in records.items() if key.startswith("XPM.")}
    link = records.get("linkpath", link)
    return Member(name, FILE if kind == b"\0" else kind, size, mode & 0o777, _ns(seconds, fraction), link, more)


def _ns(seconds: int, fraction: int) -> int:
    return seconds * 1_000_000_000 + fraction
