"""Whether a cluster can be used, step by step. In: a workspace and a scheduler. Out: what each step found, and when.

The steps that only the login node can take; the driver takes the others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from typing import Any, Callable

from ..errors import XpmError
from ..runtime.files import read_json
from ..schedulers.base import NoInformation, Scheduler, Submission
from .layout import Layout

#: the command that tells each scheduler's version
VERSIONS = {"slurm": ["sinfo", "--version"], "oar": ["oarstat", "--version"]}
#: bytes under which a workspace is nearly full
LITTLE = 1 << 30

Step = dict[str, Any]


def steps(layout: Layout, scheduler: Scheduler, python: str) -> list[Step]:
    """The steps on this host: ``step``, ``ok``, ``words`` and ``seconds`` of each.

    :param python: the command that runs the tasks; "" when only the nodes have it
    """
    kinds: list[tuple[str, Callable[[], str]]] = [
        ("agent's Python", lambda: f"{sys.version.split()[0]} ({sys.executable})"),
        ("tasks' Python", lambda: _python(python)),
        ("scheduler", lambda: _version(scheduler)),
        ("queries", lambda: _queries(scheduler)),
        ("workdir", lambda: _workdir(layout)),
    ]
    return [_timed(name, take) for name, take in kinds]


def _timed(name: str, take: Callable[[], str]) -> Step:
    began = time.monotonic()
    try:
        ok, words = True, take()
    except (OSError, XpmError, NoInformation) as error:
        ok, words = False, str(error)
    return {"step": name, "ok": ok, "words": words, "seconds": round(time.monotonic() - began, 3)}


def _python(python: str) -> str:
    if not python:
        return "set up on the nodes, looked at with --job"
    path = shutil.which(os.path.expandvars(os.path.expanduser(python)))
    if path is None:
        return f"{python} is not on this host, and may be on the nodes: looked at with --job"
    asked = _output([path, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"])
    version = tuple(int(part) for part in asked.split(".")[:2] if part.isdigit())
    if version < (3, 9):
        raise XpmError(f"{python} is {asked or 'no Python'}; tasks need 3.9 or newer")
    return f"{asked} ({path})"


def _version(scheduler: Scheduler) -> str:
    argv = VERSIONS.get(scheduler.name)
    if argv is None:
        return f"{scheduler.name}: this machine's own"
    if shutil.which(scheduler.command) is None:
        raise XpmError(f"there is no {scheduler.command} on this host: is it a login node?")
    return _output(argv).splitlines()[0] if _output(argv) else f"{scheduler.name}, which does not tell its version"


def _queries(scheduler: Scheduler) -> str:
    words = [scheduler.queries() or "asked directly"]
    if scheduler.name == "slurm":
        asked = (
            subprocess.run(
                ["sacct", "-n", "-X", "-o", "JobID", "-S", "now"], capture_output=True, check=False, timeout=60
            )
            if shutil.which("sacct")
            else None
        )
        works = asked is not None and asked.returncode == 0
        words.append("sacct works" if works else "no sacct: how killed jobs ended is known from squeue alone")
    return ", ".join(words)


def _workdir(layout: Layout) -> str:
    path = layout.internal / f"check-{secrets.token_hex(4)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)
    free = shutil.disk_usage(layout.root).free
    words = f"{layout.root} can be written, {free / 1e9:.0f} GB free"
    return words if free > LITTLE else f"{words}: nearly full"


def _output(argv: list[str]) -> str:
    try:
        asked = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise XpmError(f"{argv[0]}: {error}") from error
    return asked.stdout.decode("utf-8", "replace").strip()


class CheckJob:
    """A tiny job that says from its node what it sees.

    :param script: its text; it runs ``run_task.py`` where it starts
    :param report: the text of that, which writes ``seen.json``
    """

    def __init__(self, layout: Layout, scheduler: Scheduler, script: str, report: str) -> None:
        self.scheduler = scheduler
        token = secrets.token_hex(6)
        self.folder = layout.internal / "check" / token
        self.folder.mkdir(parents=True)
        path = self.folder / "job.sh"
        path.write_text(script)
        path.chmod(0o755)
        (self.folder / "run_task.py").write_text(report)
        submission = Submission(
            token=token,
            name=f"xpm-hpc-check-{token}",
            script=str(path),
            directory=str(self.folder),
            directories=[str(self.folder)],
        )
        try:
            self.native = scheduler.submit(submission)[0]
        except BaseException:
            self.remove()
            raise

    def look(self, seconds: float) -> dict[str, Any]:
        """What is known after at most ``seconds``: ``state``, ``detail``, and ``seen`` when it has reported."""
        deadline = time.monotonic() + seconds
        while True:
            os.listdir(self.folder)  # NFS forgets what it remembers
            seen = read_json(str(self.folder / "seen.json"))
            status = self.scheduler.query([self.native]).get(self.native)
            state = status.state if status else "unknown"
            if seen is not None or state == "ended" or time.monotonic() > deadline:
                detail = ": ".join(filter(None, (status.detail if status else "", self._log())))
                return {"native_id": self.native, "state": state, "detail": detail, "seen": seen}
            time.sleep(1.0)

    def _log(self) -> str:
        for path in self.folder.glob("*.err"):
            with contextlib.suppress(OSError):
                return path.read_text(errors="replace")[-500:].strip()
        return ""

    def end(self) -> None:
        """Cancel the job if it has not ended, and remove its folder."""
        with contextlib.suppress(NoInformation):
            self.scheduler.cancel([self.native])
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
