"""Ctrl-C in a terminal: once leaves the jobs alone, twice ends them."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import XPM_HPC, ssh

SCRIPT = """
import os, sys, time
from experimaestro_hpc import Param, Task, experiment

class Long(Task):
    n: Param[int]
    def execute(self):
        open("began", "w").close()
        end = time.monotonic() + 300  # should the test forget it
        while not os.path.exists("go") and time.monotonic() < end:
            time.sleep(0.02)
        print("went on")

class After(Task):
    parent: Param[Long]
    def execute(self):
        pass

if __name__ == "__main__":
    with experiment(sys.argv[1], "long"):
        for n in (1, 2):
            After(parent=Long(n=n).submit()).submit()
"""


class Terminal:
    """A process in a terminal of its own, whose keys are pressed by :meth:`press`."""

    def __init__(self, argv: list[str], cwd: Path, environ: dict[str, str]) -> None:
        self.said = ""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.chdir(cwd)
            os.execve(argv[0], argv, environ)

    def read_until(self, words: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.said:
            assert time.monotonic() < deadline, f"no {words!r} in {self.said!r}"
            if not self._read(1.0):
                raise AssertionError(f"no {words!r} in {self.said!r}")

    def _read(self, seconds: float) -> bool:
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                text = os.read(self.fd, 65536)
            except OSError:  # the process has ended
                return False
            self.said += text.decode().replace("\r\n", "\n")
            return bool(text)
        return True

    def press(self) -> None:
        os.write(self.fd, b"\x03")

    def status(self) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + 60
        while self._read(1.0):
            assert time.monotonic() < deadline, self.said
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Place:
    def __init__(self, folder: Path, root: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.root = root  # where jobs run
        self.environ = environ

    def start(self) -> Terminal:
        (self.folder / "long.py").write_text(SCRIPT)
        argv = [sys.executable, "long.py", str(self.folder / "work")]
        return Terminal(argv, self.folder, {**os.environ, **self.environ})

    def markers(self) -> dict[str, list[str]]:
        """By ending, the tasks whose jobs have it."""
        found: dict[str, list[str]] = {"done": [], "failed": []}
        for path in sorted(self.root.glob("jobs/*/*/*")):
            if path.suffix[1:] in found:
                found[path.suffix[1:]].append(path.stem)
        return found

    def both_run(self) -> bool:
        return len(list(self.root.glob("jobs/long.long/*/began"))) == 2

    def let_go(self) -> None:
        for path in self.root.glob("jobs/long.long/*/"):
            (path / "go").touch()


@pytest.fixture(params=["here", "over ssh"])
def place(request, tmp_path, end_runners) -> Iterator[Place]:
    folder = tmp_path / "a project"
    folder.mkdir()
    if request.param == "here":
        made = Place(folder, folder / "work", {})
    else:  # a real child process in the same terminal, which the key ends as well
        launcher = ssh(tmp_path, 'exec sh -c "$command"')
        path = f"{tmp_path}:{os.environ['PATH']}"
        made = Place(folder, tmp_path / "cluster", {"PATH": path, "XPM_HPC_LAUNCHER": str(launcher)})
    yield made
    end_runners(made.root)


def test_once_detaches(place, wait_until):
    terminal = place.start()
    wait_until(place.both_run)
    terminal.read_until("running")
    terminal.press()
    assert terminal.status() == 130
    assert "detached: the jobs go on. To come back, run the script again" in terminal.said
    assert f"xpm-hpc jobs --workdir {shlex.quote(str(place.folder / 'work'))}" in terminal.said
    assert "Ctrl-C again within 3 s cancels them" in terminal.said
    assert "Traceback" not in terminal.said and "cancelled" not in terminal.said
    assert place.markers() == {"done": [], "failed": []}
    place.let_go()
    wait_until(lambda: place.markers()["done"] == ["after"] * 2 + ["long"] * 2)


def test_twice_cancels(place, wait_until):
    terminal = place.start()
    wait_until(place.both_run)
    terminal.read_until("running")
    terminal.press()
    terminal.read_until("cancels them")
    terminal.press()
    assert terminal.status() == 130
    assert "cancelled 4 jobs" in terminal.said
    assert "Traceback" not in terminal.said

    def look() -> list[tuple[str, str]]:
        said = subprocess.run(
            [*XPM_HPC, "jobs", "--workdir", str(place.folder / "work"), "--json"],
            env={**os.environ, **place.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return [(one["state"], one["reason"]) for one in json.loads(said.stdout)]

    wait_until(lambda: {state for state, _ in look()} == {"failed"})
    found = [reason for _, reason in look()]
    assert len(found) == 4 and set(found) <= {"cancelled", "dependency"} and found.count("cancelled") >= 2
    assert place.markers()["done"] == []
