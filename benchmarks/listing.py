"""Listing jobs, beside experimaestro's. ``python benchmarks/listing.py [--peer PYTHON] [--jobs 5000 100000]``

Workspaces are written by hand, as their files are when jobs have ended: ten experiments of as many jobs, three in a
hundred failed. ``--peer`` is a Python with ``experimaestro`` 2.7 installed, in an environment of its own; it makes its
own workspace of 5,000.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Figures, alternate, once, show

COMMAND = str(Path(sys.executable).parent / "xpm-hpc")
EXPERIMENTS, TASKS = 10, ("study.prepare", "study.train", "study.evaluate")
FAILED_EACH = 33
#: the goal
GOAL = {5_000: 0.3, 100_000: 1.0}
PEERS_JOBS = 5_000
PEER = """
import sys
from experimaestro import Param, RunMode, Task, experiment

class Train(Task):
    n: Param[int]
    def execute(self):
        pass

if __name__ == "__main__":
    with experiment(sys.argv[1], "study", run_mode=RunMode.GENERATE_ONLY):
        for n in range(int(sys.argv[2])):
            Train.C(n=n).tag("n", n).submit()
"""


def make_workspace(root: Path, count: int) -> None:
    """A workspace of ``count`` jobs that have ended."""
    experiments: list[dict[str, dict[str, object]]] = [{} for _ in range(EXPERIMENTS)]
    for number in range(count):
        task = TASKS[number % len(TASKS)]
        identifier = hashlib.sha256(str(number).encode()).hexdigest()
        job, name = f"{task}/{identifier}", task.rpartition(".")[2]
        tags = {"lr": number % 7 / 10, "seed": number}
        state = "failed" if number % FAILED_EACH == 0 else "done"
        end = {
            "state": state,
            "started": 1.7e9 + number,
            "ended": 1.7e9 + number + 60,
            "host": "node17",
            "attempt": 1,
            "native_id": f"{number}",
            "exit_code": 0,
            "used": {"wall": 60.0, "cpu": 55.0, "max_rss": 123456789},
            **({"reason": "exit", "message": "ValueError: not that"} if state == "failed" else {}),
        }
        record = {
            "schema": 1,
            "id": job,
            "task": task,
            "identifier": identifier,
            "name": name,
            "tags": tags,
            "parents": [],
            "launcher": "cluster",
            "scheduler": "slurm",
            "created": 1.7e9 + number,
            "batch": "t0ken",
            "resources": {"cores": 4, "memory": 16 << 30, "duration": 3600},
            "git": {"commit": "0" * 40},
            **end,
        }
        folder = root / "jobs" / job
        folder.mkdir(parents=True)
        for file, document in (("job.json", record), (f"{name}.{state}", end)):
            (folder / file).write_text(json.dumps(document))
        experiments[number * EXPERIMENTS // count][job] = {"launcher": "cluster", "tags": tags}
    for number, jobs in enumerate(experiments):
        path = root / "experiments" / f"study{number}" / "experiment.json"
        path.parent.mkdir(parents=True)
        document = {"name": f"study{number}", "jobs": jobs, "latest": list(jobs), "script": "study.py"}
        path.write_text(json.dumps({**document, "updated": 1.7e9 + number}))


def measure(folder: Path, count: int, times: int, peer: str | None) -> None:
    root = folder / f"work{count}"
    make_workspace(root, count)
    cache = folder / "cache"
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "XDG_STATE_HOME": str(folder), "XPM_HPC_WORKDIR": str(root)}
    words = {**env, "COMP_CWORD": "3", "_XPM_HPC_COMPLETE": "bash_complete", "COMP_WORDS": "xpm-hpc jobs show 3f"}

    def cold() -> Figures:
        shutil.rmtree(cache, ignore_errors=True)
        return once([COMMAND, "jobs"], env)

    def run(*argv: str, env: dict[str, str] = env) -> Figures:
        return once([COMMAND, *argv], env)

    runs = {
        "python -c pass": lambda: once([sys.executable, "-c", "pass"], env),
        "xpm-hpc --version": lambda: run("--version"),
        "xpm-hpc jobs": lambda: run("jobs"),
        "xpm-hpc jobs --state failed": lambda: run("jobs", "--state", "failed"),
        "xpm-hpc jobs --all -n 20": lambda: run("jobs", "--all", "-n", "20"),
        "xpm-hpc jobs --json | wc": lambda: once(["sh", "-c", '"$0" jobs --json | wc', COMMAND], env),
        "completion of an id": lambda: run(env=words),
    }
    if peer and count == PEERS_JOBS:
        runs["experimaestro jobs list"] = _peer(folder, peer)
    first = alternate({"xpm-hpc jobs, without an index": cold}, min(times, 3))
    show(
        f"{count} jobs; goal for the first two: {GOAL.get(count, 0)} s",
        first | alternate(runs, times),
        "python -c pass",
    )
    shutil.rmtree(root)


def _peer(folder: Path, python: str) -> object:
    script, root = folder / "peer.py", folder / "peer"
    script.write_text(PEER)
    argv = [python, str(script), str(root), str(PEERS_JOBS)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    command = str(Path(python).parent / "experimaestro")
    return lambda: once([command, "jobs", "--workdir", str(root), "list"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer")
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--jobs", type=int, nargs="+", default=list(GOAL))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for count in options.jobs:
            measure(Path(folder), count, options.times, options.peer)


if __name__ == "__main__":
    main()
