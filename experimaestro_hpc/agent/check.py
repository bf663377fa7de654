"""Whether a cluster can be used, step by step. In: a workspace and a scheduler. Out: what each step found, and when.

The steps that only the login node can take; the driver takes the others.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from typing import Any, Callable

from ..errors import XpmError
from ..runtime.files import read_json
from ..schedulers.base import NoInformation, Scheduler, Submission
from ..schedulers.command import Commands
from .layout import Layout

#: the command that tells each scheduler's version
VERSIONS = {"slurm": ["sinfo", "--version"], "oar": ["oarstat", "--version"]}
#: prints Slurm's partitions, also hidden ones; the default one is marked by a star
PARTITIONS = ["sinfo", "-h", "-a", "-o", "%P"]
#: bytes under which a workspace is nearly full
LITTLE = 1 << 30

#: the step that asks the scheduler itself
ANSWERS = "scheduler answers"

_SERIES = re.compile(r"(\d+)\.(\d+)")

Step = dict[str, Any]


def steps(layout: Layout, scheduler: Scheduler, python: str) -> list[Step]:
    """The steps on this host: ``step``, ``ok``, ``words`` and ``seconds`` of each.

    Where the scheduler says which partitions there are, the step that asked it has them as ``partitions``.

    :param python: the command that runs the tasks; "" when only the nodes have it
    """
    partitions: list[str] = []
    kinds: list[tuple[str, Callable[[], str]]] = [
        ("agent's Python", lambda: f"{sys.version.split()[0]} ({sys.executable})"),
        ("tasks' Python", lambda: _python(python)),
        ("scheduler", lambda: _version(scheduler)),
        ("queries", lambda: _queries(scheduler)),
        ("workdir", lambda: _workdir(layout)),
    ]
    if scheduler.command and shutil.which(scheduler.command) is not None:
        kinds.insert(3, (ANSWERS, lambda: _answer(scheduler, partitions)))
    taken: list[Step] = []
    for name, take in kinds:
        if name != "queries" or taken[-1]["ok"]:  # there is somebody to be asked
            taken.append(_timed(name, take))
    return [{**one, "partitions": partitions} if one["step"] == ANSWERS else one for one in taken]


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
    path, version = _found_python(python)
    if not path:
        return f"{python} is not on this host, and may be on the nodes: looked at with --job"
    if not _is_enough(version):
        raise XpmError(f"{python} is {version or 'no Python'}; tasks need 3.9 or newer")
    return f"{version} ({path})"


def check_python(python: str, host: str) -> None:
    """Refuse a Python that is there and too old; one that only the nodes have cannot be judged here.

    :raises XpmError: it is older than 3.9
    """
    try:
        _, version = _found_python(python)
    except XpmError:
        return
    if _SERIES.match(version) and not _is_enough(version):
        raise XpmError(
            f"tasks need Python 3.9 or newer, and {python} on {host} is {version}",
            where=f"host {host}",
            hint="set `python` in [environment] of the launcher file, or load a module in `setup`",
        )


def _found_python(python: str) -> tuple[str, str]:
    """Where a command of Python's is on this host, and its version; "" for what is not known."""
    path = shutil.which(os.path.expandvars(os.path.expanduser(python)))
    if path is None:
        return "", ""
    # the last word: what a user has Python do when it starts may print before
    words = _output([path, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]).split()
    return path, words[-1] if words else ""


def _is_enough(version: str) -> bool:
    found = _SERIES.match(version)
    return found is not None and (int(found[1]), int(found[2])) >= (3, 9)


def _version(scheduler: Scheduler) -> str:
    argv = VERSIONS.get(scheduler.name)
    if argv is None:
        return f"{scheduler.name}: this machine's own"
    if shutil.which(scheduler.command) is None:
        raise XpmError(f"there is no {scheduler.command} on this host: is it a login node?")
    said = _output(argv)
    return said.splitlines()[0] if said else f"{scheduler.name}, which does not tell its version"


def _answer(scheduler: Scheduler, partitions: list[str]) -> str:
    """Have the scheduler itself answer; its partitions are added to the list."""
    if scheduler.name != "slurm":
        scheduler.query(["1"])
        return "it does"
    answer = Commands().run(PARTITIONS)
    if answer.code:
        raise XpmError(f"{PARTITIONS[0]}: {answer.words or f'exit status {answer.code}'}")
    listed = answer.out.split()
    partitions += [one.rstrip("*") for one in listed]
    shown = ", ".join(one.replace("*", " (default)") for one in listed[:20])
    return (
        f"{len(listed)} {'partition' if len(listed) == 1 else 'partitions'}: {shown}{', …' if len(listed) > 20 else ''}"
    )


def _queries(scheduler: Scheduler) -> str:
    words = [scheduler.queries() or "asked directly"]
    if scheduler.name == "slurm":
        asked = ["sacct", "-n", "-X", "-o", "JobID", "-S", "now"]
        works = shutil.which("sacct") is not None and _ran(asked).returncode == 0
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


def _ran(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise XpmError(f"{argv[0]}: {error}") from error


def _output(argv: list[str]) -> str:
    return _ran(argv).stdout.decode("utf-8", "replace").strip()


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
