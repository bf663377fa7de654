"""The identifier of an object: a Merkle hash over its parameters. In: a ``Configured``. Out: 64 hexadecimal digits.

Each value is written as one tag byte, the length of what follows (8 bytes, big endian), and its bytes, so that no
two different values are written alike. An object inside another counts by its own identifier, so the cost grows
with the number of objects, not with the number of paths to them. Tags, launchers, resources and code do not count.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from pathlib import PurePath
from typing import Any

from .declare import MISSING, Configured, JobPath, State
from .objects import type_name
from .types import Parameter, configs_in, fields_of, parts_of, walk

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
    pieces = [_chunk(b"t", type_name(type(config)).encode("utf-8", "surrogatepass"))]
    for name, parameter in sorted(fields_of(type(config)).items()):
        value = config.__dict__[name]
        if _is_meta(value, parameter.kind == "meta"):
            continue
        encoded = _encode(value, digests)
        if parameter.kind == "constant" or not _is_default(parameter, encoded, digests):
            pieces.append(_chunk(b"k", name.encode()) + encoded)
    state: State = config.__dict__["__xpm__"]
    if state.source is not None:
        pieces.append(_chunk(b"o", bytes.fromhex(_digest_of(state.source, digests))))
    first = [one for one in state.init_tasks if not _is_meta(one, False)]
    if first:
        pieces.append(_chunk(b"x", b"".join(_encode(one, digests) for one in first)))
    return hashlib.sha256(_SCHEMA + _chunk(b"c", b"".join(pieces))).hexdigest()


def _is_meta(value: Any, otherwise: bool) -> bool:
    """Whether a value does not count: an object may say so itself."""
    flag = value.__dict__["__xpm__"].is_meta if isinstance(value, Configured) else None
    return otherwise if flag is None else bool(flag)


def _digest_of(part: Configured, digests: dict[int, str]) -> str:
    known: str | None = part.__dict__["__xpm__"].digest
    return known or digests[id(part)]


def _is_default(parameter: Parameter, encoded: bytes, digests: dict[int, str]) -> bool:
    """Whether a value is written as the parameter's default is, and so does not count."""
    default = parameter.make_default() if parameter.ignore_default else MISSING
    if default is MISSING:
        return False
    for part in configs_in(default):
        digests[id(part)] = identifier(part)
    return encoded == _encode(default, digests)


def _encode(value: Any, digests: dict[int, str]) -> bytes:
    if value is None:
        return _chunk(b"n", b"")
    if isinstance(value, Configured):
        return _chunk(b"c", bytes.fromhex(_digest_of(value, digests)))
    if isinstance(value, enum.Enum):
        cls = type(value)
        return _chunk(b"e", _chunk(b"s", type_name(cls).encode()) + _chunk(b"s", value.name.encode()))
    if isinstance(value, bool):
        return _chunk(b"b", b"1" if value else b"0")
    if isinstance(value, int):
        return _chunk(b"i", b"%x" % value)  # hexadecimal: no limit on digits
    if isinstance(value, float):
        return _chunk(b"f", _float(value))
    if isinstance(value, str):
        return _chunk(b"s", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (PurePath, JobPath)):
        text = value.name if isinstance(value, JobPath) else str(value)
        tag = b"j" if isinstance(value, JobPath) else b"p"
        return _chunk(tag, text.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        return _chunk(b"l", b"".join(_encode(item, digests) for item in value if not _is_meta(item, False)))
    if isinstance(value, tuple):
        return _chunk(b"u", b"".join(_encode(item, digests) for item in value if not _is_meta(item, False)))
    if isinstance(value, (set, frozenset)):
        return _chunk(b"z", b"".join(sorted(_encode(item, digests) for item in value if not _is_meta(item, False))))
    if isinstance(value, dict):
        counted = [pair for pair in value.items() if not any(_is_meta(one, False) for one in pair)]
        pairs = sorted((_encode(key, digests), _encode(item, digests)) for key, item in counted)
        return _chunk(b"d", b"".join(key + item for key, item in pairs))
    raise AssertionError(f"unchecked value: {value!r}")


def _float(value: float) -> bytes:
    if value != value:
        return b"nan"  # one, whatever its bits
    return struct.pack(">d", value + 0.0)  # + 0.0 makes -0.0 and 0.0, which are equal, one


def _chunk(tag: bytes, content: bytes) -> bytes:
    return tag + len(content).to_bytes(8, "big") + content
