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
