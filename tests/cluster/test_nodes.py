"""Tasks on two nodes: one process for each rank, and one end for all of them."""

from __future__ import annotations

import ast
import json
import os
import shlex
from pathlib import Path

import pytest
from desk import REPOSITORY, Desk, wait_for
from sites import only

ALLREDUCE = (REPOSITORY / "docs/examples/allreduce.py").read_text()
HOSTILE = 'two\nlines, it\'s $(touch pwned) "q" `touch pwned` \\ é'

#: each rank notes its pid and the node, and does what it is told
RANKS = """
import os, sys, time
from experimaestro_hpc import GracefulTimeout, Param, ResumableTask, Task, experiment

def note(name, text):
    with open(f"{name}-{os.environ['RANK']}.new", "w") as file:
        file.write(str(text))
    os.rename(file.name, file.name[:-4])

def wait():
    note("pid", os.getpid())
    while True:
        time.sleep(0.05)

class Fail(Task):
    def execute(self):
        if os.environ["RANK"] == "1":
            while not os.path.exists("pid-0"):
                time.sleep(0.05)
            raise ValueError(f"no voice on {os.uname().nodename}")
        wait()

class Wait(Task):
    def execute(self):
        wait()

class Resume(ResumableTask):
    def execute(self):
        state = "state-" + os.environ["RANK"]
        if os.path.exists(state):
            print("goes on,", open(state).read())
            return
        try:
            wait()
        except GracefulTimeout:
            note("state", "saved on " + os.uname().nodename)
            raise

class See(Task):
    def execute(self):
        names = ("WORDS", "FROM_SETUP", "RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_PORT")
        note("seen", repr([os.environ[name] for name in names] + [os.getcwd(), os.uname().nodename]))
        note("cores", os.environ.get("SLURM_CPUS_PER_TASK"))

class Hold(Task):
    def execute(self):
        open("held", "w").close()
        while True:
            time.sleep(0.05)

class Gpus(Task):
    def execute(self):
        note("gpus", f"{os.uname().nodename} {os.environ.get('CUDA_VISIBLE_DEVICES')}")

if __name__ == "__main__":
    with experiment(sys.argv[1], "ranks"):
        globals()[sys.argv[2]]().submit(
            resources=sys.argv[3] if len(sys.argv) > 3 else "nodes=2 & duration=5m", retry={"timeout": 2}
        )
"""


def run(desk: Desk, task: str, *resources: str, more: str = "", detach: bool = False):
    desk.write("ranks.py", RANKS)
    options = ["--detach"] if detach else []
    launcher = desk.launcher(more=more)
    return desk.run("xpm-hpc", "run", *options, "--launcher", launcher, "ranks.py", "--", "work", task, *resources)


def pids(desk: Desk, count: int) -> list[int]:
    """The processes of the ranks, when all of them are there; hosts share the machine's numbers."""
    found = wait_for(lambda: len(paths := list(desk.there.glob("jobs/*/*/pid-?"))) == count and paths, f"{count} ranks")
    return [int(path.read_text()) for path in found]


def are_gone(numbers: list[int]) -> bool:
    return not any(Path(f"/proc/{number}").exists() for number in numbers)


def nodes_of(desk: Desk) -> tuple[str, str]:
    return ("c1", "c2") if desk.site.scheduler == "slurm" else ("o1", "o2")


def test_the_example_meets_on_two_nodes(desk):
    desk.write("allreduce.py", ALLREDUCE)
    ended = desk.run("xpm-hpc", "run", "--launcher", desk.launcher(), "allreduce.py", "--", "work").ok()
    first, second = nodes_of(desk)
    assert ended.out.endswith(f"rank 0 of 4 on {first}, 0 there\ntotal 60\n")
    logs = [desk.results("add.out"), *(desk.results(f"add.rank{rank}.out") for rank in (1, 2, 3))]
    assert logs == [
        [f"rank {rank} of 4 on {(first, second)[rank // 2]}, {rank % 2} there\ntotal 60\n"] for rank in range(4)
    ]
    (job,) = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    assert (job["state"], job["resources"]["nodes"]) == ("done", 2)
    assert job["progress"] == 1.0
    assert not list(desk.there.glob("jobs/*/*/.*.tmp"))  # they have the environment


def test_several_such_tasks_at_once(desk):
    """They are one array, and each of its elements has processes of its own."""
    loop = "        for steps in (1, 2, 3):\n            add = Add(steps=steps)"
    many = ALLREDUCE.replace("        add = Add(steps=10)", loop)
    assert many != ALLREDUCE
    desk.write("allreduce.py", many)
    desk.run("xpm-hpc", "run", "--launcher", desk.launcher(), "allreduce.py", "--", "work").ok()
    assert sorted(text.split()[-1] for text in desk.results("add.rank3.out")) == ["12", "18", "6"]


@pytest.mark.slow
@only("slurm", "OAR does not copy scripts to nodes that share nothing")
def test_processes_on_one_node_that_does_not_see_the_workdir(desk):
    desk.write("allreduce.py", ALLREDUCE.replace("nodes=2 & tasks_per_node=2", "tasks_per_node=2"))
    launcher = desk.launcher(more='[defaults]\npartition = "private"\n[mirror]\nnodes = "staged"\n')
    desk.run("xpm-hpc", "run", "--launcher", launcher, "allreduce.py", "--", "work").ok()
    logs = desk.results("add.out") + desk.results("add.rank1.out")
    assert [log.splitlines()[-1] for log in logs] == ["total 10", "total 10"]


@pytest.mark.parametrize("start", ["", "ssh"])
def test_the_environment_is_there_on_all_nodes(desk, start):
    if (start, desk.site.scheduler) == ("ssh", "oar"):
        start = "oarsh"  # users cannot log in on its nodes; this is the default, written down
    setup = ["export FROM_SETUP=" + shlex.quote(HOSTILE).replace("\n", "'$'\\n''")]
    more = f'[environment]\nsetup = {json.dumps(setup)}\nenv = {{ WORDS = "a $(touch pwned)" }}\n'
    if start:
        more += f'[processes]\nstart = "{start}"\n'
    run(desk, "See", "nodes=2 & tasks_per_node=2 & cores=2 & duration=5m", more=more).ok()
    seen = [ast.literal_eval(path.read_text()) for path in sorted(desk.there.glob("jobs/*/*/seen-?"))]
    folder = f"/home/{desk.user}/{desk.folder}"
    ports = {one[6] for one in seen}
    assert len(ports) == 1
    assert [one[2:6] for one in seen] == [[str(r), str(r % 2), str(r // 2), "4"] for r in range(4)]
    assert {one[0] for one in seen} == {"a $(touch pwned)"}
    assert {one[1] for one in seen} == {HOSTILE}
    assert all(one[7].startswith(f"{folder}/jobs/ranks.see/") for one in seen)
    first, second = nodes_of(desk)
    assert [one[8] for one in seen] == [first, first, second, second]
    assert not list(desk.there.rglob("pwned"))
    if desk.site.scheduler == "slurm":
        assert {path.read_text() for path in desk.there.glob("jobs/*/*/cores-?")} == {"2"}


def test_one_that_fails_ends_the_others(desk):
    ended = run(desk, "Fail")
    assert ended.status == 1
    other = nodes_of(desk)[1]
    assert f"rank 1 on {other}: ValueError: no voice on {other}" in ended.text
    assert are_gone(pids(desk, 1))
    (log,) = desk.results("fail.err")
    assert "raise ValueError" in log and "Traceback" in log
    (job,) = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    assert (job["state"], job["reason"], job["exit_code"]) == ("failed", "exit", 1)


def test_a_job_that_is_killed_leaves_nothing_on_its_nodes(desk):
    run(desk, "Wait", detach=True).ok()
    numbers = pids(desk, 2)
    desk.run("xpm-hpc", "jobs", "kill", "--yes", "--workdir", "work", "ranks.wait").ok()
    wait_for(lambda: are_gone(numbers), "the processes' end")
    (job,) = wait_for(
        lambda: [
            one for one in desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json() if one["state"] == "failed"
        ],
        "the job's end",
    )
    assert job["reason"] == "cancelled"


@pytest.mark.slow
def test_a_rank_that_is_killed(desk):
    """The scheduler sees the status of one that was killed; the log says which it was."""
    run(desk, "Wait", detach=True).ok()
    wait_for(lambda: list(desk.there.glob("jobs/*/*/pid-1")), "rank 1")
    (path,) = desk.there.glob("jobs/*/*/pid-1")
    numbers = pids(desk, 2)
    os.kill(int(path.read_text()), 9)
    wait_for(lambda: are_gone(numbers), "the processes' end")
    job = wait_for(
        lambda: (
            (found := desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()[0])["state"] == "failed"
            and found
        ),
        "the job's end",
    )
    assert job["reason"] == "exit"
    (log,) = wait_for(lambda: list(desk.there.glob("jobs/*/*/wait.err")), "the log")
    assert f"rank 1 on {nodes_of(desk)[1]} was killed by signal 9" in log.read_text()


@pytest.mark.slow
@only("slurm", "OAR has no requeue")
def test_a_resumable_task_is_warned_on_all_nodes_and_goes_on(desk):
    run(desk, "Resume", detach=True).ok()
    pids(desk, 2)
    (native,) = desk.native_jobs()
    desk.on_login("scancel", "--batch", "--signal=USR2", native)
    wait_for(lambda: desk.markers(), "the end of the second start", 180)
    assert desk.markers() == ["resume.done"]
    (first,) = desk.there.glob("jobs/*/*/resume.out")
    (second,) = desk.there.glob("jobs/*/*/resume.rank1.out")
    assert (first.read_text(), second.read_text()) == ("goes on, saved on c1\n", "goes on, saved on c2\n")
    assert desk.native_jobs().keys() == {native}


def test_nodes_that_do_not_see_the_workdir_are_refused(desk):
    ended = run(desk, "Wait", more='[mirror]\nnodes = "staged"\n')
    ended.error(2, "a task on 2 nodes needs nodes that see the workdir", "nodes = 'shared'")
    assert desk.native_jobs() == {}


@only("oar", "Slurm sets the variable itself, on each node")
def test_each_node_has_its_own_gpus_of_oar(desk):
    """The first node's first GPU is taken by another job, so that the two nodes give different ones."""
    run(desk, "Hold", "gpu & duration=5m", detach=True).ok()
    wait_for(lambda: list(desk.there.glob("jobs/*/*/held")), "the other job")
    run(desk, "Gpus", "gpu & nodes=2 & tasks_per_node=2 & duration=5m").ok()
    given = [path.read_text() for path in sorted(desk.there.glob("jobs/*/*/gpus-?"))]
    assert given == ["o1 1", "o1 1", "o2 0", "o2 0"]


@pytest.mark.slow
@only("slurm", "OAR ends jobs without a word")
def test_a_resumable_task_that_is_ended_may_save_on_all_nodes(desk):
    run(desk, "Resume", detach=True).ok()
    numbers = pids(desk, 2)
    desk.run("xpm-hpc", "jobs", "kill", "--yes", "--workdir", "work", "ranks.resume").ok()
    wait_for(lambda: are_gone(numbers), "the processes' end")
    states = wait_for(lambda: len(found := sorted(desk.there.glob("jobs/*/*/state-?"))) == 2 and found, "their states")
    assert [path.read_text() for path in states] == ["saved on c1", "saved on c2"]
    assert desk.markers("done") == []
