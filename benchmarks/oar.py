"""From submission to result on OAR, for 1, 20 and 200 tasks, against plain ``oarsub``. ``python benchmarks/oar.py``

Needs the test cluster (``make up``); the experiment runs on its laptop host, and oarsub on the front-end, where nothing
is sent and nothing is fetched. A plain task is one line of Python, and many are one array. Both wait for all results.
They take turns, and the ratio is the median of those of each turn; `load` is that of the machine, from turn to turn.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable

from cluster import Laptop

SCRIPT = """
import json, sys, time
from experimaestro_hpc import Param, Task, experiment

class Say(Task):
    word: Param[str]
    def execute(self):
        print(self.word)

if __name__ == "__main__":
    from experimaestro_hpc.driver.client import RemoteClient  # not there in the jobs
    count, run = int(sys.argv[1]), sys.argv[2]
    figures = {}
    original = RemoteClient.call
    def call(self, operation, **arguments):
        answer = original(self, operation, **arguments)
        if operation == "submit":
            figures["submitted"] = time.time() - began
        return answer
    RemoteClient.call = call
    began = time.time()
    with experiment("bench-work", "bench"):
        words = [Say(word=f"{run} {number}").submit() for number in range(count)]
    print(json.dumps({**figures, "results": time.time() - began}))
"""
PLAIN = """
import glob, json, os, shutil, subprocess, sys, time
count = int(sys.argv[1])
shutil.rmtree("plain", ignore_errors=True)
os.mkdir("plain")
task = "python3 -c 'print(1)' >plain/$OAR_ARRAY_INDEX.part && mv plain/$OAR_ARRAY_INDEX.part plain/$OAR_ARRAY_INDEX"
began = time.time()
options = ["-d", os.getcwd(), "-O", "/dev/null", "-E", "/dev/null"] + [f"--array={count}"] * (count > 1)
subprocess.run(["oarsub", *options, task], check=True, stdout=subprocess.DEVNULL)
submitted = time.time() - began
while len(glob.glob("plain/*[0-9]")) < count:
    time.sleep(0.05)
print(json.dumps({"submitted": submitted, "results": time.time() - began}))
"""


#: seconds in which OAR's own programs end after the last job
REST = 4.0


def figures(laptop: Laptop, host: str, *argv: str) -> dict[str, float]:
    """The seconds that a script tells at its end; then everything of OAR's is at rest."""
    ended = laptop.run(*argv, host=host, XPM_HPC_LAUNCHER="bench")
    while laptop.rig.oar_sql("SELECT 1 FROM jobs WHERE state NOT IN ('Terminated', 'Error')"):
        time.sleep(0.5)
    time.sleep(REST)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def main() -> None:
    laptop = Laptop()
    laptop.launcher("bench", host="myoar", scheduler="oar")
    laptop.write("bench_oar.py", SCRIPT)
    laptop.rig.exec("oarfront", ["sh", "-c", "cat >plain.py"], input=PLAIN)
    runs: dict[str, Callable[[int, str], dict[str, float]]] = {
        "plain oarsub": lambda count, run: figures(laptop, "oarfront", "python3", "plain.py", str(count)),
        "xpm-hpc": lambda count, run: figures(laptop, "laptop", "python", "bench_oar.py", str(count), run),
    }
    runs["xpm-hpc"](1, "the package is shipped")
    print(f"{'seconds, median':<24}{'submitted':>10}{'results':>10}{'from':>8}{'to':>8}{'ratio':>8}   load", flush=True)
    for count, times in ((1, 5), (20, 3), (200, 2)):
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
        loads = []
        for number in range(times):
            for name in list(runs)[:: -1 if number % 2 else 1]:
                taken[name].append(runs[name](count, f"{count} {number} {time.time()}"))
            loads.append(os.getloadavg()[0])
        base = [one["results"] for one in taken["plain oarsub"]]
        for name, all_ in taken.items():
            results = [one["results"] for one in all_]
            ratio = statistics.median(one / plain for one, plain in zip(results, base, strict=True))
            submitted = statistics.median(one["submitted"] for one in all_)
            print(
                f"{f'{count} by {name}':<24}{submitted:>10.2f}{statistics.median(results):>10.2f}{min(results):>8.2f}"
                f"{max(results):>8.2f}{ratio:>7.2f}x   {min(loads):.1f} to {max(loads):.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
