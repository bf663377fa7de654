"""What users wait for over a link with 25 ms each way. ``python benchmarks/slow_link.py [DONE_TASKS]``

Submission of 1 and of 500 tasks, ``xpm-hpc jobs``, and a run again of 2,000 tasks that are done, all on the test
cluster, through a relay of our own on its laptop host: once as with a new launcher file, when the cluster is asked, and
once more. ``ssh true`` tells what a connection alone costs; with ``openssh``, ours stays from the first command on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import LAPTOP_VENV, Laptop, column, load

PORT, DELAY = 2222, 25
SCRIPT = """
import json, sys, time
began = time.perf_counter()
from experimaestro_hpc import Param, Task, experiment

class Say(Task):
    word: Param[str]
    def execute(self):
        pass

if __name__ == "__main__":
    from experimaestro_hpc.driver.client import RemoteClient  # not there in the jobs
    run, count = sys.argv[1], int(sys.argv[2])
    times = {"connect": 0.0}
    def timed(method):
        def timing(self):
            before = time.perf_counter()
            method(self)
            times["connect"] += time.perf_counter() - before
        return timing
    RemoteClient._open, RemoteClient._greet = timed(RemoteClient._open), timed(RemoteClient._greet)
    imported = time.perf_counter()
    xp = experiment("bench-work", run)
    try:
        with xp:
            for number in range(count):
                Say(word=f"{run} {number}").submit()
    finally:  # detaching ends the script there
        trips = sum(session.client.round_trips for session in xp.sessions.values())
        print("bench", json.dumps({"trips": trips, "whole": time.perf_counter() - began, **times}))
"""
HELD = "[defaults]\nhold = true\n"


@contextmanager
def slow_link(laptop: Laptop) -> Iterator[None]:
    """While it runs, ``slowcluster`` is the cluster behind the relay."""
    laptop.write("bench_relay.py", (Path(__file__).parent / "relay.py").read_text())
    files = [laptop.home / ".ssh" / name for name in ("config", "known_hosts")]
    before = [path.read_text() for path in files]
    key = next(line.split(" ", 1)[1] for line in before[1].splitlines() if line.startswith("login,"))
    files[0].write_text(f"{before[0]}\nHost slowcluster\n  HostName 127.0.0.1\n  Port {PORT}\n  User alice\n")
    files[1].write_text(f"{before[1]}\n[127.0.0.1]:{PORT} {key}\n")
    argv = [f"{LAPTOP_VENV}/bin/python", "bench_relay.py", str(PORT), "login", "22", str(DELAY)]
    relay = laptop.rig.popen("laptop", argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert relay.stdout.readline() == "ready\n"
        yield
    finally:
        relay.communicate()
        for path, text in zip(files, before, strict=True):
            path.write_text(text)


def experiment(laptop: Laptop, launcher: str, run: str, count: int, *options: str) -> dict[str, Any]:
    """Run the script; what it says, and the wall time of the command."""
    began = time.perf_counter()
    ended = laptop.run("xpm-hpc", "run", "--launcher", launcher, *options, "bench_slow.py", "--", run, str(count))
    wall = time.perf_counter() - began
    (told,) = re.findall("^bench (.*)$", ended.stdout, re.MULTILINE)
    return {**json.loads(told), "wall": wall}


def show(title: str, figures: dict[str, Any]) -> None:
    rest = figures["whole"] - figures["connect"]
    column(title, [figures["trips"], *(f"{one:.2f} s" for one in (figures["wall"], figures["connect"], rest))])


def main() -> None:
    done = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    laptop = Laptop()
    laptop.write("bench_slow.py", SCRIPT)
    laptop.launcher("bench")
    print(f"running {done} tasks, for the run again; {load()}", flush=True)
    experiment(laptop, "bench", "done", done)
    with slow_link(laptop):
        for transport in ("paramiko", "openssh"):
            laptop.launcher("slow", "slowcluster", transport)
            laptop.launcher("held", "slowcluster", transport, HELD)
            print(f"\n{DELAY} ms each way, {transport}; {load()}")
            print("requests: the agent's start counts as one; rest: in the script, without the connection")
            column("", ["requests", "command", "connection", "rest"])
            for count in (1, 500):
                show(f"submission of {count}", experiment(laptop, "held", f"{transport} {count}", count, "--detach"))
            laptop.run("rm", "-rf", "bench-work/.xpm/mirror")  # as if the launcher file had just been written
            show(f"{done} done tasks, the cluster is asked", experiment(laptop, "slow", "done", done))
            show(f"{done} done tasks again", experiment(laptop, "slow", "done", done))
            began = time.perf_counter()
            laptop.run("xpm-hpc", "jobs", "--experiment", f"{transport} 500", "--workdir", "bench-work")
            column("xpm-hpc jobs, 500 that wait", ["", f"{time.perf_counter() - began:.2f} s"])
        began = time.perf_counter()
        laptop.run("ssh", "slowcluster", "true")
        column("ssh true", ["", f"{time.perf_counter() - began:.2f} s"])
    laptop.rig.exec("login", ["sh", "-c", "scancel --quiet -u alice"])


if __name__ == "__main__":
    main()
