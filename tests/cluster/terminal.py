"""A command of a user's on a terminal: what it shows is read, and what a person would type is typed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

from rig import LAPTOP_VENV, Rig
from rig_machine import STANDARD_PATH


class Terminal:
    """Runs a command on the laptop with a terminal of its own, which is its controlling one: `with Terminal(…)`."""

    def __init__(self, rig: Rig, argv: Sequence[str], env: Mapping[str, str] | None = None, user: str = "alice"):
        words, environment = rig.command("laptop", argv, user, {"PATH": f"{LAPTOP_VENV}/bin:{STANDARD_PATH}"})
        self.master, slave = pty.openpty()
        os.fchmod(slave, 0o666)  # another user opens it as /dev/tty's own file
        self.process = subprocess.Popen(
            words,
            env=environment | dict(env or {}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.shown = ""
        self.seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)

    def expect(self, words: str, deadline: float = 30):
        """Read until `words` are shown, after what was expected before."""
        end = time.monotonic() + deadline
        while words not in self.shown[self.seen :]:
            assert self._read(end), f"{words!r} is not in what was shown:\n{self.shown}"
        self.seen = self.shown.index(words, self.seen) + len(words)

    def type(self, line: str):
        """Type a line."""
        os.write(self.master, line.encode() + b"\n")

    def answer(self, words: str, line: str):
        """Wait for a question, which ends in a blank, and type the answer; a secret is not shown."""
        self.expect(words)
        self.expect(" ") if not words.endswith(" ") else self.expect(": ")
        self.type(line)

    def end(self, deadline: float = 60) -> int:
        """Read to the end; the exit status."""
        end = time.monotonic() + deadline
        while self._read(end):
            pass
        return self.process.wait(max(0.1, end - time.monotonic()))

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # nobody has it open any more
            return False
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)
