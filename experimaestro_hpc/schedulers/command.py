"""Run a scheduler's command. In: an argument vector. Out: exit status and text, and a count of the calls."""

from __future__ import annotations

import collections
import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..runtime.files import read_json, write_json
from .base import NoInformation, Scheduler

#: seconds; a busy controller answers late, a dead one never
TIMEOUT = 120.0
#: settings of the user's shell that would change what the commands do or print
_SCRUBBED = (
    "SLURM_",
    "SBATCH_",
    "SQUEUE_",
    "SACCT_",
    "SALLOC_",
    "SCANCEL_",
    "SRUN_",
    "PMI_",
    "PMIX_",
    "OAR_",
    # a session on the login node, which means nothing on another host
    "DBUS_",
    "XDG_RUNTIME_",
    "XDG_SESSION_",
    "XDG_SEAT",
    "XDG_VTNR",
)
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")


class Answer(NamedTuple):
    """What a command printed, and its exit status."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """The command's complaint on one line."""
        return " ".join((self.err.strip() or self.out.strip()).split())[:500]


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without what a surrounding job or the user's settings would pass on; messages in English."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _KEPT
        or (not name.startswith(_SCRUBBED) and name not in ("XPM_HPC_JOB", "XPM_HPC_END_TIME", "PYTHONPATH"))
    }
    return {**kept, "LC_ALL": "C"}


class Commands:
    """Runs commands and counts them.

    :param environ: the environment to clean and pass on
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ = clean_environment(os.environ if environ is None else environ)
        self.calls: collections.Counter[str] = collections.Counter()

    def run(self, argv: Sequence[str], *, extra: Mapping[str, str] | None = None) -> Answer:
        """Run a command to its end.

        :param extra: more environment variables
        :raises NoInformation: it cannot be started, or does not end in time
        """
        self.calls[argv[0]] += 1
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**self.environ, **(extra or {})},
                start_new_session=True,  # a Ctrl-C is not for it: oarsub would delete the job it has just made
                close_fds=False,  # it keeps the submission lock: whoever comes when we are killed waits for its end
            )
        except OSError as error:
            raise NoInformation(f"{argv[0]}: {error}") from error
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired as error:
            _abandon(process)
            raise NoInformation(f"{argv[0]} has not answered for {TIMEOUT:.0f} s") from error
        return Answer(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


class SharedText:
    """What a command printed, for all who ask from this workspace, so that many who watch cost one query.

    :param path: the file
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, max_age: float) -> str | None:
        """The text, if it was written at most ``max_age`` seconds ago."""
        try:
            document = read_json(str(self.path)) if max_age else None
            if document is None or not 0 <= time.time() - document["time"] <= max_age:
                return None
        except (OSError, KeyError, TypeError):
            return None  # not readable, or another version's
        text = document.get("text")
        return text if isinstance(text, str) else None

    def write(self, text: str) -> None:
        """Keep the text for others; when it cannot be, they ask themselves."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(str(self.path), {"time": time.time(), "text": text})

    def forget(self) -> None:
        """Something has changed: the text is of the past."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class CommandScheduler(Scheduler):
    """A scheduler that is asked through its commands on this machine.

    :param commands: runs and counts them
    """

    def __init__(self, workspace: str, commands: Commands | None = None) -> None:
        super().__init__(workspace)
        self.commands = commands or Commands()

    def calls(self) -> dict[str, int]:
        return dict(self.commands.calls)


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """End a command that does not answer; one that runs as another user (OAR's do) ends when nobody reads it."""
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    with contextlib.suppress(PermissionError):
        process.kill()
        process.wait()
