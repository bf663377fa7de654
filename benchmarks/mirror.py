"""Results that come back, side by side with rsync over the same sshd. ``python benchmarks/mirror.py [ROUNDS]``

5,000 small files for the first time, and again with nothing changed; one file of 1 GB that cannot be compressed. The
files are a task's, on the test cluster; both commands run on its laptop host, from a shell. rsync and paramiko connect
each time; with ``openssh`` our master connection stays, and a line tells what rsync makes of it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Callable

from cluster import Laptop, load
from measure import Figures, alternate, show

SCRIPT = """
import os, sys
from experimaestro_hpc import Param, Task, experiment

class Files(Task):
    count: Param[int]
    size: Param[int]

    def execute(self):
        for number in range(self.count):
            folder = f"out/{number % 50}"
            os.makedirs(folder, exist_ok=True)
            with open(f"{folder}/{number}", "wb") as file:
                for _ in range(max(1, self.size >> 20)):
                    file.write(os.urandom(min(self.size, 1 << 20)))

if __name__ == "__main__":
    with experiment("bench-work", "bench"):
        Files(count=5000, size=2000).submit()
        Files(count=1, size=1 << 30).submit()
"""
TRANSPORTS = ("paramiko", "openssh")
MASTER = "ssh -o ControlPath=~/.cache/xpm-hpc/ssh/%C"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    laptop = Laptop()
    laptop.write("bench_files.py", SCRIPT)
    laptop.launcher("bench")
    laptop.run("xpm-hpc", "run", "--launcher", "bench", "bench_files.py")
    jobs = json.loads(laptop.run("xpm-hpc", "jobs", "--json", "--workdir", "bench-work").stdout)
    by_count = {_count(laptop, one["id"]): one["id"] for one in jobs}
    print(f"\nwall: of the command, from the shell; CPU: on the laptop; medians of {rounds} in turns; {load()}")
    _small(laptop, by_count[5000], rounds)
    _large(laptop, by_count[1], rounds)
    shutil.rmtree(laptop.home / "bench-old")
    print(f"\nat the end: {load()}")


def _count(laptop: Laptop, job: str) -> int:
    params = json.loads((laptop.home / "bench-work/jobs" / job / "params.json").read_text())
    return int(params["configs"][0]["params"]["count"])


def _runs(laptop: Laptop, job: str, is_first: bool) -> dict[str, Callable[[], Figures]]:
    def rsync(*options: str) -> Figures:
        if is_first:
            _away(laptop, "bench-rsync")
        return laptop.timed("rsync", *options, f"mycluster:bench/jobs/{job}/", "bench-rsync/")

    def pull(transport: str) -> Figures:
        if is_first:
            _away(laptop, f"bench-work/jobs/{job}/out")
        laptop.launcher("bench", transport=transport)
        return laptop.timed("xpm-hpc", "jobs", "pull", job, "--workdir", "bench-work")

    runs: dict[str, Callable[[], Figures]] = {
        "rsync -a": lambda: rsync("-a"),
        "rsync -az": lambda: rsync("-az"),
        "rsync -a, over our master": lambda: rsync("-a", "-e", MASTER),
    }
    for transport in TRANSPORTS:
        runs[f"xpm-hpc jobs pull, {transport}"] = lambda transport=transport: pull(transport)  # type: ignore[misc]
    return runs


def _away(laptop: Laptop, path: str) -> None:
    """Move away what came last time: file systems avoid places that were removed just before, and are slow then."""
    (laptop.home / "bench-old").mkdir(exist_ok=True)
    if (laptop.home / path).exists():
        (laptop.home / path).rename(laptop.home / "bench-old" / secrets.token_hex(6))


def _small(laptop: Laptop, job: str, rounds: int) -> None:
    show("5,000 files of 2 kB, first time", alternate(_runs(laptop, job, True), rounds), "rsync -a")
    show("5,000 files of 2 kB, nothing changed", alternate(_runs(laptop, job, False), rounds), "rsync -a")


def _large(laptop: Laptop, job: str, rounds: int) -> None:
    show("one file of 1 GB", alternate(_runs(laptop, job, True), max(1, rounds // 2)), "rsync -a")


if __name__ == "__main__":
    main()
