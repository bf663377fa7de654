"""Progress bars for what moves over the network. In: how much has moved, again and again. Out: a bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: bytes under which a transfer is over before anybody could read a bar
SMALL = 1 << 20


@contextmanager
def shown(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """What is to be told how many bytes have moved, and how many will; None where nobody would see it."""
    if not label or not sys.stderr.isatty():
        yield None
        return
    bars: list[Any] = []

    def progress(done: int, total: int) -> None:
        if total < SMALL:
            return
        if not bars:
            from tqdm import tqdm  # only for what is slow and looked at

            bars.append(tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False, file=sys.stderr))
        bars[0].update(done - bars[0].n)

    try:
        yield progress
    finally:
        for bar in bars:
            bar.close()
