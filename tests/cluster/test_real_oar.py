"""What only OAR does, with real jobs."""

from __future__ import annotations

import json

from desk import GATED, Desk, wait_for
from sites import only
from test_commands import states

pytestmark = only("oar", "this is about OAR")


def start(desk: Desk, types: str) -> dict[str, str]:
    """GATED's jobs on what others leave over, both says at their gates; native ids."""
    desk.write("gated.py", GATED)
    desk.launcher(more=f"[defaults]\ntype = {types}\n")
    desk.run("xpm-hpc", "run", "--launcher", desk.cluster, "--detach", "gated.py", "--", "work").ok()
    wait_for(lambda: [states(desk)[word] for word in ("hello", "world")] == [("running", None)] * 2, "both to run")
    return {label: job["native_id"] for label, job in desk.jobs().items()}


def take_all(desk: Desk) -> None:
    """Somebody else's job that needs all nodes runs, and has ended."""
    argv = ["oarsub", "-d", "/tmp", "-O", "/dev/null", "-E", "/dev/null", "-l", "/nodes=2,walltime=0:5:0", "true"]
    ended = desk.rig.exec(desk.site.front, argv, user="bob")
    assert ended.returncode == 0, ended
    query = "SELECT 1 FROM jobs WHERE job_user = 'bob' AND state NOT IN ('Terminated', 'Error')"
    wait_for(lambda: not desk.rig.oar_sql(query), "the other job to end")


def test_a_job_that_makes_room(desk):
    natives = start(desk, '"besteffort"')
    shown = json.loads(desk.on_login("oarstat", "-J", "-f", "-j", natives["hello"]))[natives["hello"]]
    assert (shown["queue"], shown["types"]) == ("besteffort", ["besteffort"])
    take_all(desk)
    wait_for(lambda: states(desk)["concat"][0] == "failed", "the end")
    assert states(desk) == {
        "hello": ("failed", "preempted"),
        "world": ("failed", "preempted"),
        "concat": ("failed", "dependency"),
    }


def test_a_job_that_oar_submits_again(desk):
    """It is followed to its new id, and waited for, by its child too; we submit nothing."""
    natives = start(desk, '["besteffort", "idempotent"]')
    take_all(desk)
    desk.open("hello", "world", "concat")
    wait_for(lambda: set(states(desk).values()) == {("done", None)}, "the end")
    assert desk.results("concat.out") == ["HELLO WORLD\n"]
    ended = desk.await_native("CANCELLED", "CANCELLED", "COMPLETED", "COMPLETED", "COMPLETED")
    assert [ended[natives[label]] for label in ("hello", "world", "concat")] == ["CANCELLED", "CANCELLED", "COMPLETED"]


FAILING = GATED.replace("wait_for(self.word)\n", 'wait_for(self.word)\n        raise RuntimeError("no voice today")\n')
assert FAILING != GATED


def test_the_child_of_a_failed_task_ends_by_itself_when_nobody_looks(desk):
    """OAR starts it, as its parents have ended."""
    desk.write("gated.py", FAILING)
    desk.run("xpm-hpc", "run", "--launcher", desk.launcher(), "--detach", "gated.py", "--", "work").ok()
    desk.open("hello", "world", "concat")
    wait_for(lambda: desk.markers() == ["concat.failed", "say.failed", "say.failed"], "the end")
    desk.await_native("FAILED", "FAILED", "FAILED")
    assert states(desk) == {
        "hello": ("failed", "exit"),
        "world": ("failed", "exit"),
        "concat": ("failed", "dependency"),
    }


def test_a_server_that_is_away_when_jobs_are_submitted(desk):
    """oarsub says "Job is killed" and fails, and the job is in the queue all the same."""
    desk.write("gated.py", GATED)
    desk.rig.stop("almighty")
    try:
        desk.run("xpm-hpc", "run", "--launcher", desk.launcher(), "--detach", "gated.py", "--", "work").ok()
        assert list(desk.native_jobs().values()) == ["PENDING"] * 3
    finally:
        desk.rig.start("almighty")
    desk.open("hello", "world", "concat")
    desk.await_native(*["COMPLETED"] * 3)
    desk.jobs()
    assert desk.results("concat.out") == ["HELLO WORLD\n"]


ASKS = """
import os, sys
from experimaestro_hpc import Param, Task, experiment

class Look(Task):
    asked: Param[str]

    def execute(self):
        print(os.environ.get("CUDA_VISIBLE_DEVICES"))

with experiment(sys.argv[1], "asks"):
    for asked in sys.argv[2:]:
        Look(asked=asked).submit(resources=asked)
"""
EVERYTHING = """
[defaults]
resource = "/host=1/cpu=1/core=2,walltime=0:20"
queue = "besteffort"
property = "cluster = 'rig' OR mem < 0"
type = ["besteffort", "idempotent"]
project = "my project"
notify = "mail:alice@localhost"
checkpoint = 33
signal = 10
walltime = "0:30"
host_property = "host"
core_property = "core"
gpu_property = "gpu"
gpu_model_property = "gpu_model"
gpu_memory_property = "gpu_mem"
memory_property = "mem"
memory_unit = "M"
"""


def test_what_is_asked_for_is_what_oar_is_asked_and_gives(desk):
    """Every option of a launcher, and every amount that a task can ask for, as OAR itself understood it."""
    desk.write("asks.py", ASKS)
    desk.launcher(more=EVERYTHING)
    one, two, three = (
        "gpu(model=FakeGPU, mem=20G) * 2 & mem=8G & duration=10m",
        "cores=3 & nodes=2 & duration=90s",
        "any",
    )
    desk.run("xpm-hpc", "run", "--launcher", desk.cluster, "asks.py", "--", "work", one, two, three).ok()
    listed = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    jobs = {
        json.loads((desk.outside(job["path"]) / "params.json").read_text())["configs"][0]["params"]["asked"]: job
        for job in listed
    }
    natives = {asked: job["native_id"] for asked, job in jobs.items()}
    shown = json.loads(
        desk.on_login("oarstat", "-J", "-f", *(word for id_ in natives.values() for word in ("-j", id_)))
    )
    found = {asked: shown[native] for asked, native in natives.items()}
    wanted = {asked: job["wanted_resources"].strip() for asked, job in found.items()}
    assert {asked: text.partition("}")[2].strip('" ') for asked, text in wanted.items()} == {
        one: "/host=1/gpu=2,walltime=0:10:0",
        two: "/host=2/core=3,walltime=0:1:30",
        three: "/host=1/cpu=1/core=2,walltime=0:20:0",
    }
    assert {asked: len(job["assigned_resources"]) for asked, job in found.items()} == {one: 8, two: 6, three: 2}
    assert {asked: len(job["assigned_network_address"]) for asked, job in found.items()} == {one: 1, two: 2, three: 1}
    for asked, job in found.items():
        assert (job["queue"], job["project"], sorted(job["types"])) == (
            "besteffort",
            "my project",
            ["besteffort", "idempotent"],
        )
        assert "cluster = 'rig' OR mem < 0" in job["properties"], asked
    asked_for = ("gpu_model = 'FakeGPU'", "gpu_mem >= 20480", "mem >= 8192")
    assert [all(term in found[asked]["properties"] for term in asked_for) for asked in (one, two, three)] == [
        True,
        False,
        False,
    ]
    ids = ",".join(natives.values())
    row = desk.rig.oar_sql(f"SELECT DISTINCT checkpoint, checkpoint_signal, notify FROM jobs WHERE job_id IN ({ids})")
    assert row == "33|10|mail:alice@localhost\n"
    # what the tasks see is what OAR gave
    for asked, job in jobs.items():
        given = ",".join(str(id_) for id_ in found[asked]["assigned_resources"])
        first = found[asked]["assigned_network_address"][0] if asked == two else ""
        here = f" AND network_address = '{first}'" if first else ""
        query = f"SELECT DISTINCT gpudevice FROM resources WHERE resource_id IN ({given}){here} ORDER BY 1"
        devices = ",".join(desk.rig.oar_sql(query).split())
        assert (desk.outside(job["path"]) / "look.out").read_text() == f"{devices}\n", asked


def test_a_task_that_is_to_be_held(desk):
    desk.write("asks.py", ASKS)
    desk.launcher(more="[defaults]\nhold = true\n")
    desk.run("xpm-hpc", "run", "--detach", "--launcher", desk.cluster, "asks.py", "--", "work", "any").ok()
    (job,) = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    assert job["state"] == "held"
    desk.site.release(desk.rig, desk.user, [job["native_id"]])
    wait_for(lambda: desk.markers() == ["look.done"], "the end")
