"""The identifier of an object: a Merkle hash over its parameters. In: a ``Configured``. Out: 64 hexadecimal digits.

Each value is written as one tag byte, the length of what follows (8 bytes, big endian), and its bytes, so that no
two different values are written alike. An object inside another counts by its own identifier, so the cost grows
with the number of objects, not with the number of paths to them. Tags, launchers, resources and code do not count.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from pathlib import Path, PurePath
from typing import Any, Callable, Optional

from .declare import MISSING, Configured, JobPath, State
from .objects import type_name
from .types import configs_in, fields_of, parts_of, walk

_SCHEMA = b"xpm-hpc identifier 1"


def identifier(config: Configured) -> str:
    """The identifier of ``config`` (hexadecimal, 64 digits).

    :raises ParameterError: the object holds itself

    >>> class Say(Config):
    ...     word: Param[str]
    >>> identifier(Say(word="x")) == identifier(Say(word="x"))
    True
    """
    known: str | None = config.__dict__["__xpm__"].digest
    if known is not None:
        return known
    digests: dict[int, str] = {}
    for part in walk(config, leave_out=_is_known):
        state: State = part.__dict__["__xpm__"]
        digest = _digest(part, digests)
        digests[id(part)] = digest
        if state.sealed:
            state.digest = digest
    return digests[id(config)]


def is_changed(config: Configured) -> bool:
    """Whether a list or the like in a submitted object was changed in place, where no check is made."""
    known = config.__dict__["__xpm__"].digest
    return known is not None and _digest(config, {id(part): identifier(part) for part in parts_of(config)}) != known


def _is_known(config: Configured) -> bool:
    return config.__dict__["__xpm__"].digest is not None


def _digest(config: Configured, digests: dict[int, str]) -> str:
    own = config.__dict__
    pieces = [_chunk(b"t", type_name(type(config)).encode("utf-8", "surrogatepass"))]
    for name, start, default, factory, is_meta in _counting(type(config)):
        value = own[name]
        if is_meta and not _counts_anyway(value):
            continue
        write = _WRITERS.get(type(value))
        encoded = write(value, digests) if write is not None else _encode(value, digests)
        if encoded and encoded != (default if factory is None else _written(factory())):
            pieces += (start, encoded)
    state: State = own["__xpm__"]
    if state.source is not None:
        pieces.append(_chunk(b"o", bytes.fromhex(_digest_of(state.source, digests))))
    first = b"".join([_encode(one, digests) for one in state.init_tasks])
    if first:
        pieces.append(_chunk(b"x", first))
    return hashlib.sha256(_SCHEMA + _chunk(b"c", b"".join(pieces))).hexdigest()


def _counts_anyway(value: Any) -> bool:
    """Whether an object says that it counts, even as a ``Meta`` parameter."""
    return isinstance(value, Configured) and value.__dict__["__xpm__"].is_meta is False


#: a parameter: its name, the chunk of it, how its default is written (empty: there is none that is left out), what
#: makes the default anew each time, and whether it counts only for objects that say so
_Counted = tuple[str, bytes, bytes, Optional[Callable[[], Any]], bool]


def _counting(cls: type) -> list[_Counted]:
    """The parameters of a class as far as they count, in order; worked out once for each class."""
    known: list[_Counted] | None = cls.__dict__.get("__xpm_counting__")
    if known is not None:
        return known
    found: list[_Counted] = []
    for name, parameter in sorted(fields_of(cls).items()):
        left_out = parameter.kind == "param" and parameter.ignore_default
        factory = parameter.default_factory if left_out else None
        default = parameter.default if left_out and factory is None else MISSING
        written = b"" if default is MISSING else _written(default)
        found.append((name, _chunk(b"k", name.encode()), written, factory, parameter.kind == "meta"))
    cls.__xpm_counting__ = found  # type: ignore[attr-defined]
    return found


def _written(default: Any) -> bytes:
    """A default as its value would be written; nothing for none."""
    if default is MISSING:
        return b""
    return _encode(default, {id(part): identifier(part) for part in configs_in(default)})


def _digest_of(part: Configured, digests: dict[int, str]) -> str:
    known: str | None = part.__dict__["__xpm__"].digest
    return known or digests[id(part)]


def _encode(value: Any, digests: dict[int, str]) -> bytes:
    write = _WRITERS.get(type(value))
    if write is None:  # a class derived from one of them; the first that fits
        write = next((write for kind, write in _WRITERS.items() if isinstance(value, kind)), None)
    assert write is not None, f"unchecked value: {value!r}"
    return write(value, digests)


def _object(value: Configured, digests: dict[int, str]) -> bytes:
    """Nothing for an object that says that it does not count: neither does its place in a list."""
    if value.__dict__["__xpm__"].is_meta:
        return b""
    return _chunk(b"c", bytes.fromhex(_digest_of(value, digests)))


def _member(value: enum.Enum, _digests: object) -> bytes:
    return _chunk(b"e", _chunk(b"s", type_name(type(value)).encode()) + _chunk(b"s", value.name.encode()))


def _int(value: int, _digests: object) -> bytes:
    return _chunk(b"i", b"%x" % value)  # hexadecimal: no limit on digits


def _float(value: float, _digests: object) -> bytes:
    if value != value:
        return _chunk(b"f", b"nan")  # one, whatever its bits
    return _chunk(b"f", struct.pack(">d", value + 0.0))  # + 0.0 makes -0.0 and 0.0, which are equal, one


def _str(value: str, _digests: object) -> bytes:
    return _chunk(b"s", value.encode("utf-8", "surrogatepass"))


def _path(value: PurePath, _digests: object) -> bytes:
    return _chunk(b"p", str(value).encode("utf-8", "surrogatepass"))


def _job_path(value: JobPath, _digests: object) -> bytes:
    return _chunk(b"j", value.name.encode("utf-8", "surrogatepass"))


def _list(value: list[Any], digests: dict[int, str]) -> bytes:
    return _chunk(b"l", b"".join([_encode(item, digests) for item in value]))


def _tuple(value: tuple[Any, ...], digests: dict[int, str]) -> bytes:
    return _chunk(b"u", b"".join([_encode(item, digests) for item in value]))


def _set(value: frozenset[Any], digests: dict[int, str]) -> bytes:
    return _chunk(b"z", b"".join(sorted([_encode(item, digests) for item in value])))


def _dict(value: dict[Any, Any], digests: dict[int, str]) -> bytes:
    pairs = sorted([(_encode(key, digests), _encode(item, digests)) for key, item in value.items()])
    return _chunk(b"d", b"".join([part for pair in pairs if pair[0] and pair[1] for part in pair]))


def _chunk(tag: bytes, content: bytes) -> bytes:
    return tag + len(content).to_bytes(8, "big") + content


_NONE = _chunk(b"n", b"")
_BOOLS = {value: _chunk(b"b", b"1" if value else b"0") for value in (True, False)}

#: in this order: a bool is an int too, and a member of an enum may be a str
_WRITERS: dict[type, Callable[[Any, Any], bytes]] = {
    Configured: _object,
    enum.Enum: _member,
    type(None): lambda _value, _digests: _NONE,
    bool: lambda value, _digests: _BOOLS[value],
    int: _int,
    float: _float,
    str: _str,
    type(Path()): _path,
    PurePath: _path,
    JobPath: _job_path,
    list: _list,
    tuple: _tuple,
    set: _set,
    frozenset: _set,
    dict: _dict,
}
