"""Out of memory. Without control groups Slurm does not see it: the task is killed, and stand-ins give the reason."""

from __future__ import annotations

import json

from desk import Desk
from faults import COUNTED, Standins

MEMORY = (
    COUNTED
    + """
import signal

class Hungry(Task):
    word: Param[str]

    def execute(self):
        given = int(os.environ["SLURM_MEM_PER_NODE"])
        note(f"{self.word}-{given}")
        if given < int(self.word):
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    with experiment(sys.argv[1], "memory"):
        retry = {"out_of_memory": {"mem": "x2", "max_mem": "800M"}}
        for need in ("350", "9999"):
            Hungry(word=need).submit(resources="cpu(mem=200M)", retry=retry)
"""
)


def test_more_memory_after_each_failure_up_to_a_limit(desk: Desk, standins: Standins):
    desk.write("memory.py", MEMORY)
    for command in ("squeue", "sacct"):
        standins.set(command, '$real "$@" | sed "s/|FAILED|/|OUT_OF_MEMORY|/"; exit ${PIPESTATUS[0]}')
    ended = desk.run("xpm-hpc", "run", "--launcher", "mycluster", "memory.py", "--", "work")
    assert ended.status == 1, ended
    jobs = desk.jobs()
    found = {word: (job["state"], job["reason"]) for word, job in jobs.items()}
    assert found == {"350": ("done", None), "9999": ("failed", "out_of_memory")}, ended
    tried = sorted((desk.there / "runs").read_text().split())
    assert tried == ["350-200", "350-400", "9999-200", "9999-400", "9999-800"], ended
    record = json.loads((desk.outside(jobs["9999"]["path"]) / "job.json").read_text())
    assert [one["reason"] for one in record["attempts"]] == ["out_of_memory"] * 2
