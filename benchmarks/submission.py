"""Round trips and scheduler calls of a submission, for 3 and for 200 tasks. ``python benchmarks/submission.py``

Needs the test cluster (``make up``); the experiment runs on its laptop host.
"""

from __future__ import annotations

import json
import time

from cluster import Laptop

SCRIPT = """
import json, sys, time
from typing import List
from experimaestro_hpc import Param, Task, experiment

class Say(Task):
    word: Param[str]
    def execute(self):
        print(self.word)

class Concat(Task):
    words: Param[List[Say]]
    def execute(self):
        pass

if __name__ == "__main__":
    from experimaestro_hpc.driver.client import RemoteClient  # not there in the jobs
    count, run = int(sys.argv[1]), sys.argv[2]
    calls = {}
    original = RemoteClient.call
    def call(self, operation, **arguments):
        answer = original(self, operation, **arguments)
        if operation == "submit":
            calls.update(answer["calls"], requests=self.round_trips, seconds=round(time.time() - began, 2))
        return answer
    RemoteClient.call = call
    began = time.time()
    with experiment("bench-work", "bench"):
        words = [Say(word=f"{run} {number}").submit() for number in range(count)]
        if count == 2:
            Concat(words=words).submit()
    print(json.dumps({**calls, "all_results": round(time.time() - began, 2)}))
"""


def main() -> None:
    laptop = Laptop()
    laptop.launcher("bench")
    laptop.write("bench_submission.py", SCRIPT)
    print("requests: the agent's start counts as one, shipping the package as one more")
    for title, count in (("first ever, helloworld", 2), ("helloworld", 2), ("200 tasks", 200), ("200 tasks", 200)):
        words = ("python", "bench_submission.py", str(count), f"{title} {count} {time.time()}")
        ended = laptop.run(*words, XPM_HPC_LAUNCHER="bench")
        print(f"{title:<24}", json.loads(ended.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
