"""JSON for the jobs: the same as ``json``, without its cost. In: text. Out: values, and back.

``import json`` loads ``re`` to find white space and takes longer than all the rest of a small job; the parser and
the encoder proper are in C. They are used directly where this Python has them, and ``json`` otherwise.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import _json as _c
except ImportError:  # another Python than CPython
    _c = None  # type: ignore[assignment]


class _Settings:
    """What the C scanner asks for; the defaults of ``json.loads``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__


def loads(text: str) -> Any:
    """Read one JSON document.

    :raises ValueError: ``text`` is no JSON
    """
    if _c is None:
        from json import loads as slow_loads

        return slow_loads(text)
    text = text.strip(" \t\n\r")
    try:
        value, end = _c.make_scanner(_Settings)(text, 0)  # type: ignore[arg-type]
    except StopIteration as stop:
        raise ValueError(f"no JSON: unexpected end or character at {stop.value}") from None
    except SystemError:  # Python 3.11 has no words for what is wrong unless json is loaded
        from json import loads as slow_loads

        return slow_loads(text)
    if end != len(text):
        raise ValueError(f"no JSON: something follows at {end}")
    return value


def dumps(value: object) -> str:
    """Write one JSON document on one line.

    :raises TypeError: a value that JSON does not have
    """
    if _c is None:
        from json import dumps as slow_dumps

        return slow_dumps(value)
    encode = _c.make_encoder({}, _refuse, _c.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    if isinstance(value, (dict, list, tuple)):
        return "".join(encode(value, 0))
    return "".join(encode([value], 0))[1:-1]


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is no JSON")
