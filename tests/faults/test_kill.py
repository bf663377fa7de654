"""Rounds of twenty tasks, each round with one kill, and the script run again until it ends well: each task runs once.

`make test-kill` has 100 rounds on Slurm, `make test-kill-oar` 30 on OAR; XPM_HPC_KILL_ROUNDS says otherwise, and a few
are part of all tests.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import pytest
from desk import Desk, wait_for
from faults import TWENTY, WORDS, Standins, agents, connections, kill, runs, submitted
from sites import SITES

ROUNDS = int(os.environ.get("XPM_HPC_KILL_ROUNDS") or 5)
#: in the stand-in of the command that submits: at its call number N, once
AT = "calls=$(wc -l <$here/calls); if [ $calls -ge {call} ] && once; then\n{body}\nfi"
POINTS = {
    "agent killed before the command, which goes on": "kill -9 $PPID",
    "agent killed before the command, which ends": "kill -9 $PPID; exit 1",
    "agent killed before the command, which goes on late": "kill -9 $PPID; sleep 2",
    "agent killed between the command and its reply": 'out=$($real "$@"); kill -9 $PPID; echo "$out"; exit 0',
    "agent killed after the reply": '$real "$@"; (sleep 0.{random}; kill -9 $PPID) >/dev/null 2>&1 & exit 0',
}
AT_RANDOM: dict[str, Callable[[Desk, subprocess.Popen[str]], object]] = {
    "driver killed at random": lambda desk, driver: driver.kill(),
    "agent killed at random": lambda desk, driver: kill(agents(desk.rig, desk.site.front)),
    "connection cut at random": lambda desk, driver: kill(connections(desk.rig, desk.site.front)),
}
SUBMITS = {"slurm": "sbatch", "oar": "oarsub"}


def play(desk: Desk, standins: Standins, number: int, dice: random.Random) -> str:
    """One round: a run that is hurt, and runs until one ends well; what was done to the first."""
    folder = f"r{number}"
    desk.launcher(workdir=f"{desk.workdir}/{folder}")
    standins.clear()
    standins.calls()
    kinds = [*POINTS, *AT_RANDOM]
    kind = kinds[number % len(kinds)]
    if kind in POINTS:
        body = POINTS[kind].replace("{random}", f"{dice.randrange(60):03}")
        standins.set(SUBMITS[desk.site.scheduler], AT.format(call=dice.randint(1, 3), body=body))
    words = ("xpm-hpc", "run", "--launcher", desk.cluster, "twenty.py", "--", f"work-{folder}")
    with desk.start(*words) as driver:
        try:
            if kind in AT_RANDOM:
                time.sleep(dice.uniform(0.3, 3.0))  # where it hits is what is tried
                AT_RANDOM[kind](desk, driver)
            else:
                wait_for(lambda: standins.fired() or driver.poll() is not None, "the kill", 60)
                if dice.random() < 0.5:
                    driver.kill()  # else it connects again, or ends with an error, by itself
            driver.communicate(timeout=180)
        finally:
            driver.kill()
    for _ in range(3):
        ended = desk.run(*words)
        if ended.status == 0:
            return kind
    raise AssertionError(f"round {number}, {kind}: {ended}")


@pytest.mark.parametrize("site", list(SITES), indirect=True)
def test_each_task_runs_once_whatever_is_killed(desk: Desk, standins: Standins, capsys: pytest.CaptureFixture[str]):
    seed = int(os.environ.get("XPM_HPC_KILL_SEED") or random.randrange(10**6))
    dice = random.Random(seed)
    desk.write("twenty.py", TWENTY)
    kinds: Counter[str] = Counter()
    for number in range(ROUNDS):
        kinds[play(desk, standins, number, dice)] += 1
    wait_for(lambda: sum(submitted(desk).values()) >= ROUNDS * len(WORDS), "the scheduler to know all jobs")
    jobs = submitted(desk)
    ran = {number: Counter(runs(desk.there / f"r{number}")) for number in range(ROUNDS)}
    report = {
        "seed": seed,
        "rounds": ROUNDS,
        "tasks": ROUNDS * len(WORDS),
        "lost": sum(ran[number][word] == 0 for number in ran for word in WORDS),
        "run twice": sum(ran[number][word] > 1 for number in ran for word in WORDS),
        "submitted": sum(jobs.values()),
        "rounds with more jobs than tasks": [number for number in ran if jobs[f"r{number}"] != len(WORDS)],
        "kills": dict(kinds),
    }
    with capsys.disabled():
        print("\nkill test:", json.dumps(report, indent=2))
    assert (report["lost"], report["run twice"], report["submitted"]) == (0, 0, report["tasks"]), report
