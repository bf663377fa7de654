"""What a connector gives: a running command and its three streams."""

from __future__ import annotations

import sys
import threading
from typing import IO, Any, Protocol

from ..errors import ConnectionFailed


class Channel(Protocol):
    """A command that runs on the other side."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def complaint(self) -> str:
        """The last of what it wrote to its standard error."""

    def exit_status(self) -> int | None:
        """Its exit status if it has ended, waiting for it a moment."""

    def close(self) -> None:
        """Let go of it; the command sees the end of its input."""

    def abort(self) -> None:
        """End it at once, from another thread: whoever reads from it sees the end."""


class Connector(Protocol):
    """Opens channels to one host."""

    host: str

    def open(self, command: str) -> Channel:
        """Run a shell command there.

        :raises ConnectionFailed: the host cannot be reached, or refuses
        """

    def explain(self, complaint: str) -> ConnectionFailed:
        """The error for a command that ended before it answered.

        :param complaint: what came on its standard error
        """

    def close(self) -> None:
        """End the connection."""


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


class Tail:
    """Reads a stream to its end in the background and keeps the last of it, so that nobody waits for a reader."""

    _SIZE = 4096

    def __init__(self, stream: Any) -> None:
        self._data = b""
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: Any) -> None:
        try:
            for line in stream:
                self._data = (self._data + line)[-self._SIZE :]
        except (OSError, ValueError):
            pass  # closed

    def text(self) -> str:
        """What there is; waits a moment for the stream's end."""
        self._thread.join(1.0)
        return self._data.decode("utf-8", "replace").strip()
