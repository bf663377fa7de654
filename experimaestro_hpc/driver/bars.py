"""Progress bars for what moves over the network. In: a stream and its size. Out: the same stream, watched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: bytes under which a transfer is over before anybody could read a bar
SMALL = 1 << 20


@contextmanager
def shown(stream: Any, size: int, label: str) -> Iterator[Any]:
    """``stream``, whose reading is shown by a bar on a terminal.

    :param size: bytes
    """
    if not label or size < SMALL or not sys.stderr.isatty():
        yield stream
        return
    from tqdm import tqdm  # only for what is slow and looked at

    with tqdm.wrapattr(
        stream, "read", total=size, desc=label, unit="B", unit_scale=True, leave=False, file=sys.stderr
    ) as wrapped:
        yield wrapped
