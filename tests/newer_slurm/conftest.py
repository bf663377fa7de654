"""Fixtures of the tests that run inside the chroot with a newer Slurm; see `chroot.py`. Elsewhere none is collected.

`slurm` is our scheduler as an agent has it, once with pyslurm and once with the text commands alone: what a test says
must hold for both. `jobs` are jobs in every state that can be had quickly, submitted once for all tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from newer import SPARSE, Submitter, command, until, with_commands, with_pyslurm

from experimaestro_hpc.schedulers.slurm import Slurm

collect_ignore_glob = [] if os.environ.get("XPM_HPC_NEWER_SLURM") else ["test_*.py"]


@pytest.fixture(params=[with_pyslurm, with_commands])
def slurm(request: pytest.FixtureRequest) -> Iterator[Slurm]:
    """Our scheduler; whichever way is asked for is the one that is used to the end."""
    scheduler = request.param()
    way = "pyslurm " if request.param is with_pyslurm else "squeue"
    assert scheduler.queries().startswith(way), scheduler.queries()
    yield scheduler
    assert scheduler.queries().startswith(way), scheduler.queries()
    calls = scheduler.calls()
    assert ("pyslurm" if way == "squeue" else "squeue") not in calls
    assert way == "squeue" or calls["pyslurm"]
    scheduler.pyslurm.close()


@pytest.fixture(scope="session")
def submit(tmp_path_factory: pytest.TempPathFactory) -> Submitter:
    return Submitter(tmp_path_factory.mktemp("jobs"), with_commands())


@pytest.fixture(scope="session")
def jobs(submit: Submitter) -> Iterator[dict[str, str]]:
    """Native ids by what becomes of the jobs; all that end have ended, in the accounts as well."""
    made: dict[str, str] = {}

    def add(name: str, *arguments: Any, **options: Any) -> str:
        natives = submit(*arguments, **options)
        made.update({f"{name} {index}": one for index, one in zip(options.get("indexes", ()), natives)})
        if not options.get("indexes"):
            (made[name],) = natives
        return natives[0]

    running = add("running", "sleep 3600")
    add("done", "true")
    add("exit 3", "exit 3")
    add("exit 127", "no-such-command")
    add("exit 128", "exit 128")
    add("exit 137", "exit 137")
    add("exit 255", "exit 255")
    add("signal 9", "kill -9 $$")
    add("element", 'exit "$SLURM_ARRAY_TASK_ID"', indexes=(0, 1, 130))
    add("waiting", "true", after=[running])
    add("waiting element", "true", after=[running], indexes=SPARSE)
    add("one waiting element", "true", after=[running], indexes=(0,))
    add("held", "true", hold=True)
    add("later", "true", begin="now+1hour")
    add("too long", "true", partition="short", resources="duration=5h")
    add("gpu", 'test "$CUDA_VISIBLE_DEVICES" = 0,1 && test "$SLURM_JOB_GPUS" = 0,1', resources="gpu * 2")
    failing = add("fails", "sleep 2; exit 1")
    add("its child", "true", after=[failing])
    add("cancelled before", "true", hold=True)
    add("cancelled", "sleep 3600")
    both = f"{running},{made['cancelled']}"
    until(lambda: command("squeue", "-h", "-o", "%T", "-j", both).split() == ["RUNNING"] * 2, "the jobs to run")
    submit.slurm.cancel([made["cancelled before"], made["cancelled"]])
    alive = {"running", "held", "later", "too long"}
    ends = {one for name, one in made.items() if name not in alive and "waiting" not in name}

    def ended() -> bool:
        lines = command("sacct", "-n", "-X", "-P", "-o", "JobID,State", "-j", ",".join(ends)).splitlines()
        words = ("COMPLETED", "FAILED", "CANCELLED")
        done = {line.split("|")[0] for line in lines if line.split("|")[1].startswith(words)} == ends
        return done and "COMPLETING" not in command("squeue", "-h", "-o", "%T").split()

    until(ended, "the jobs to end")
    yield made
    submit.slurm.cancel([one for one in made.values() if one not in ends])
