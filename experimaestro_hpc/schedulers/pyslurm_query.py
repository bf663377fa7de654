"""Queries through pyslurm. In: native ids. Out: rows as squeue and sacct print them, or word to ask these.

pyslurm is asked in a child process (:mod:`.pyslurm_child`), which is started at the first query if this Python has a
pyslurm, and kept. It is used only where it was made for the series of Slurm whose commands are here. A child that
dies, does not answer in time or says what is not understood is given up for good, with one word on standard error.
One that is refused by Slurm is asked again next time; whether Slurm answers at all is for the commands to say.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from typing import IO, Any

from .base import NoInformation
from .command import Commands

#: seconds that the child may take, to start and for an answer
START_TIMEOUT, TIMEOUT = 60.0, 120.0
#: what the child runs; the arguments are the places where this Python looks for modules
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from experimaestro_hpc.schedulers.pyslurm_child import main; main()"

Row = Sequence[str]


class Unusable(Exception):
    """pyslurm cannot be used here; the words say why."""


def series(text: str) -> tuple[int, int]:
    """The series in a version of Slurm's or pyslurm's.

    >>> series("slurm-wlm 26.05.5"), series("26.5.5")
    ((26, 5), (26, 5))

    :raises Unusable: there is none in it
    """
    found = re.search(r"(\d+)\.(\d+)", text)
    if not found:
        raise Unusable(f"no version is understood in {text.strip()[:80]!r}")
    return int(found.group(1)), int(found.group(2))


def check_series(greeting: dict[str, Any], slurm: str) -> str:
    """pyslurm's version, if it is made for the Slurm that is here.

    :param greeting: the child's first answer
    :param slurm: what ``scontrol --version`` prints
    :raises Unusable: they are not of one series: the records of another one look different in memory
    """
    version = str(greeting.get("version"))
    here = series(slurm)
    for made_for in (series(version), series(str(greeting.get("built_for")))):
        if made_for != here:
            names = ["{:d}.{:02d}".format(*one) for one in (made_for, here)]
            raise Unusable("it is made for Slurm {}, and this is {}".format(*names))
    return version


def rows_of(answer: dict[str, Any], width: int) -> list[Row] | None:
    """The rows in an answer of the child's; None if Slurm refused to answer it.

    :raises Unusable: the answer is not understood
    """
    if "refused" in answer:
        return None
    rows = answer.get("rows")
    if not isinstance(rows, list):
        raise Unusable(f"it says what is not understood: {str(answer)[:80]}")
    for row in rows:
        if not isinstance(row, list) or len(row) != width or not all(isinstance(field, str) for field in row):
            raise Unusable(f"it has a record that is not understood: {str(row)[:80]}")
    return rows


def installed() -> bool:
    """Whether this Python has a pyslurm; a file or folder of the user's with that name is none."""
    try:
        spec = importlib.util.find_spec("pyslurm")
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and bool(spec.submodule_search_locations)


class Pyslurm:
    """pyslurm, as long as it can be used.

    :param commands: runs ``scontrol``, has the environment for the child, and counts
    :param argv: starts the child; None where there is no pyslurm
    """

    def __init__(self, commands: Commands, argv: Sequence[str] | None) -> None:
        self.commands = commands
        self.argv = argv
        self.version = ""
        self.trouble = ""
        self._child: _Child | None = None

    @classmethod
    def here(cls, commands: Commands) -> Pyslurm:
        """The pyslurm of this Python, if it has one."""
        if not installed():
            return cls(commands, None)
        return cls(commands, [sys.executable, "-c", _PROGRAM, *(path for path in sys.path if path)])

    def queries(self) -> str:
        """What answers queries: ``pyslurm 26.5.5``, or ``squeue``, with why if a pyslurm is here and not used."""
        self._started()
        if self.trouble:
            return f"squeue (pyslurm: {self.trouble})"
        return f"pyslurm {self.version}" if self.version else "squeue"

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return self._child.process.pid if self._child else None

    def close(self) -> None:
        """End the child; the next query starts another."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def queue(self) -> list[Row] | None:
        """Rows as squeue prints them, of all of this user's jobs; None: squeue must be asked."""
        return self._ask({"ask": "queue"}, 5)

    def accounting(self, native_ids: Sequence[str]) -> tuple[list[Row], list[str]]:
        """Rows as sacct prints them, and the ids among ``native_ids`` that sacct must be asked about."""
        ids = sorted({int(one.partition("_")[0]) for one in native_ids})
        rows = self._ask({"ask": "accounting", "ids": ids}, 9)
        if rows is None:
            return [], list(native_ids)
        untold = {row[0] for row in rows if not row[2]}
        return [row for row in rows if row[2]], [one for one in native_ids if one in untold]

    def _ask(self, question: dict[str, Any], width: int) -> list[Row] | None:
        child = self._started()
        if child is None:
            return None
        self.commands.calls["pyslurm"] += 1
        try:
            return rows_of(child.ask(question), width)
        except Unusable as error:
            self._give_up(str(error))
            return None

    def _started(self) -> _Child | None:
        """The child, started if need be; None where there is no pyslurm, or none that can be used."""
        if self._child is not None or self.argv is None:
            return self._child
        try:
            answer = self.commands.run(["scontrol", "--version"])
            # no list of elements is cut short
            self._child = _Child(self.argv, {**self.commands.environ, "SLURM_BITSTR_LEN": "0"})
            self.version = check_series(self._child.read(START_TIMEOUT), answer.out)
        except (Unusable, NoInformation, OSError) as error:
            self._give_up(str(error))
        return self._child

    def _give_up(self, why: str) -> None:
        self.trouble, self.argv = why, None
        self.close()
        print(f"xpm-hpc: pyslurm is not used: {why}; squeue and sacct are asked instead", file=sys.stderr, flush=True)


class _Child:
    """A process that answers lines of JSON with lines of JSON. Every failure is :class:`Unusable`."""

    def __init__(self, argv: Sequence[str], environ: dict[str, str]) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self.process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environ,
            start_new_session=True,  # a Ctrl-C is not for it
        )
        self.rest = b""
        self.end = weakref.finalize(self, _end, self.process, self.errors)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise Unusable(self._last_words()) from None
        return self.read(TIMEOUT)

    def read(self, seconds: float) -> dict[str, Any]:
        """The next answer."""
        assert self.process.stdout is not None
        stream = self.process.stdout.fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self.rest:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Unusable(f"it has not answered for {seconds:g} s")
            data = os.read(stream, 1 << 20)
            if not data:
                raise Unusable(self._last_words())
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Unusable(f"it says what is not understood: {line[:80]!r}")
        return answer

    def _last_words(self) -> str:
        """How it ended."""
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "it has closed its output"
        self.errors.seek(0)
        lines = self.errors.read()[-10000:].decode("utf-8", "replace").strip().splitlines()
        how = f"it was ended by signal {-status}" if status < 0 else f"it ended with exit status {status}"
        return how + (f" ({lines[-1].strip()[:200]})" if lines else "")


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    """End the child: it is idle, or it does not answer."""
    for stream in (process.stdin, process.stdout, errors):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.kill()
    process.wait()
