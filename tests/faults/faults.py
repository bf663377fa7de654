"""What the tests of faults share: stand-ins for commands, processes to kill, schedulers as they should be."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, wait_for
from rig import Rig
from rig_config import NODES, PRIVATE_NODES
from rig_machine import is_in

#: tasks that each append a line to the workspace's file `runs`, so that a second run shows
COUNTED = """
import os, sys, time
from experimaestro_hpc import Param, Task, experiment

def note(line, file="runs"):
    here = os.open("../../../" + file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(here, (line + "\\n").encode())
    os.close(here)

class Root(Task):
    word: Param[str]

    def execute(self):
        note(self.word)

class Twin(Task):
    word: Param[str]
    root: Param[Root]

    def execute(self):
        note(self.word)

class Sink(Task):
    word: Param[str]
    twins: Param[list[Twin]]

    def execute(self):
        note(self.word)
"""
#: an array of ten, an array of nine that each wait for one of them, and one that waits for these
TWENTY = (
    COUNTED
    + """
if __name__ == "__main__":
    with experiment(sys.argv[1], "twenty"):
        roots = [Root(word=f"root-{n}").submit() for n in range(10)]
        twins = [Twin(word=f"twin-{n}", root=roots[n]).submit() for n in range(9)]
        Sink(word="sink", twins=twins).submit()
"""
)
WORDS = sorted([*(f"root-{n}" for n in range(10)), *(f"twin-{n}" for n in range(9)), "sink"])


class Standins:
    """Commands on the login node's PATH before the scheduler's own.

    Unless told otherwise they note the call and pass it on.

    :ivar folder: where they are, as the login node sees it
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.real = dict(zip(desk.site.commands, desk.on_login("which", *desk.site.commands).split()))
        self.notes = desk.write_there("calls", "", 0o666)
        self.folder = str(Path(desk.write_there("bin/none", "")).parent)
        self.clear()

    def set(self, command: str, body: str) -> None:
        """Lines of shell that run before the real command; `$real` is it, `$here` the workdir, `once` is true once."""
        here = self.notes.removesuffix("/calls")
        text = (
            f"#!/bin/bash\nreal={self.real[command]} here={here}\necho {command} >>$here/calls\n"
            'once() { mkdir "$here/once" 2>/dev/null; }\n'
            f'{body}\nexec $real "$@"\n'
        )
        self.desk.write_there(f"bin/{command}.new", text, 0o755)
        (self.desk.there / f"bin/{command}.new").replace(self.desk.there / f"bin/{command}")  # one may be starting

    def clear(self, *commands: str) -> None:
        """Pass on these commands' calls again, or all."""
        for command in commands or self.real:
            self.set(command, "")
        with contextlib.suppress(FileNotFoundError):
            (self.desk.there / "once").rmdir()

    def fired(self) -> bool:
        """Whether what was to happen once has happened."""
        return (self.desk.there / "once").exists()

    def calls(self) -> Counter[str]:
        """What was called since the last look."""
        path = self.desk.there / "calls"
        found = Counter(path.read_text().split())
        path.write_text("")
        return found


def oar_is_well(rig: Rig) -> None:
    """Start what is stopped, and have the nodes take jobs."""
    dead = [name for name in ("postgres", "almighty") if not rig.pid(name)]
    if dead:
        rig.start(*dead)

    def is_well() -> bool:
        if not rig.oar_sql("SELECT 1 FROM resources WHERE state <> 'Alive' OR next_state <> 'UnChanged'"):
            return True
        rig.exec("oarfront", ["/usr/sbin/oarnodesetting", "-n", "--sql", "state <> 'Alive'", "-s", "Alive"], "root")
        return False

    wait_for(is_well, "the nodes to take jobs")


def on_slurm(rig: Rig, *argv: str) -> str:
    """What a command of the administrator's prints."""
    ended = rig.exec("login", argv, "root")
    assert ended.returncode == 0, ended
    return ended.stdout


def slurm_is_well(rig: Rig) -> None:
    """Start what is stopped, and have the nodes take jobs."""
    dead = [name for name in ("slurmdbd", "slurmctld", *(f"slurmd-{node}" for node in NODES)) if not rig.pid(name)]
    if dead:
        rig.start(*dead)

    def is_well() -> bool:
        states = rig.exec("login", ["sinfo", "-h", "-N", "-p", "cpu", "-o", "%T"], "root").stdout.split()
        if len(states) == len(NODES) - len(PRIVATE_NODES) and set(states) <= {
            "idle",
            "mixed",
            "allocated",
            "completing",
        }:
            return True
        rig.exec("login", ["scontrol", "update", f"nodename={','.join(NODES)}", "state=resume"], "root")
        return False

    wait_for(is_well, "the nodes to take jobs")


@contextlib.contextmanager
def stopped(rig: Rig, name: str, number: int = signal.SIGTERM) -> Iterator[None]:
    """A daemon does not run while the block does."""
    rig.stop(name, number)
    try:
        yield
    finally:
        rig.start(name)


def processes(rig: Rig, host: str, words: str) -> list[int]:
    """The processes on a host whose command line has these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words.encode() in path.read_bytes().replace(b"\0", b" "):
                pid = int(path.parent.name)
                if is_in(pid, [Path(f"/run/netns/{rig.name}-{host}")]):
                    found.append(pid)
    return found


def kill(pids: list[int]) -> None:
    """Kill processes; those that have ended are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def finish(driver: subprocess.Popen[str], seconds: float = 90) -> str:
    """Wait for the end of a run; what it said. The test fails, with what it said, when the end does not come."""
    try:
        return driver.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        driver.kill()
        pytest.fail(f"not over after {seconds} s:\n{driver.communicate()[0]}")


def agents(rig: Rig, host: str = "login") -> list[int]:
    """The agents on a login node, and nothing that they called."""
    return [pid for pid in processes(rig, host, "b64decode") if Path(f"/proc/{pid}/comm").read_text()[:2] != "sh"]


def connections(rig: Rig, host: str = "login") -> list[int]:
    """The ends of alice's connections on a login node."""
    return processes(rig, host, "sshd: alice")


def runs(folder: Path) -> list[str]:
    """What the tasks of COUNTED have noted, sorted."""
    path = folder / "runs"
    return sorted(path.read_text().split()) if path.exists() else []


def submitted(desk: Desk) -> Counter[str]:
    """How many jobs, array elements each on its own, there have ever been of each folder of the workdir."""

    def below(path: str) -> str:
        return path.partition(f"/{desk.folder}")[2].strip("/").split("/")[0]

    if desk.site.scheduler == "oar":
        where = f"launching_directory LIKE '%/{desk.folder}%'"
        return Counter(map(below, desk.rig.oar_sql(f"SELECT launching_directory FROM jobs WHERE {where}").split()))
    found: dict[str, str] = {}
    accounted = desk.on_login("sacct", "-nXP", "-S", "now-3hours", "-o", "JobID,WorkDir")
    queued = desk.on_login("squeue", "-har", "-t", "all", "-o", "%i|%Z")
    for line in [*accounted.splitlines(), *queued.splitlines()]:
        native, folder = line.split("|", 1)
        if f"/{desk.folder}" in folder and "[" not in native:
            found[native] = below(folder)
    return Counter(found.values())
