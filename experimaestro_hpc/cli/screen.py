"""Text that changes, shown in place. In: lines, again and again. Out: a terminal that shows the last of them, and keeps
them when it ends; in a pipe one after the other.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

#: another screen, without cursor and line breaks of the terminal's own; and back
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Screen:
    """Shows texts, each in place of the one before: ``with Screen() as screen``.

    On a terminal what was there before comes back at the end, and the last text stays below it, whole.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.is_terminal = self.out.isatty()
        self.lines: Sequence[str] = ()

    def __enter__(self) -> Screen:
        if self.is_terminal:
            for number in (signal.SIGTERM, signal.SIGHUP):  # the terminal must not stay as it is
                signal.signal(number, lambda number, _frame: sys.exit(128 + number))
            self._write(_ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self.is_terminal:
            self._write(_LEAVE)
            if kind is None or kind is KeyboardInterrupt:
                self._write("".join(f"{line}\n" for line in self.lines))

    def show(self, lines: Sequence[str]) -> None:
        """Show a text; what has no place on a terminal is counted, but for its last line."""
        before, self.lines = self.lines, lines
        if not self.is_terminal:
            self._write("\n" if before else "", *(f"{line}\n" for line in lines))
            return
        height = shutil.get_terminal_size().lines
        if len(lines) > height:
            lines = [*lines[: max(height - 2, 0)], f"… {len(lines) - max(height - 2, 0) - 1} lines more", lines[-1]]
        self._write("\x1b[H", "\x1b[K\n".join(lines), "\x1b[K\x1b[J")

    def _write(self, *texts: str) -> None:
        self.out.write("".join(texts))
        self.out.flush()
