"""Jobs looked at and ended from another process, and what the scheduler itself says of them."""

from __future__ import annotations

import json
import re

from desk import GATED, UNDER_WAY, Desk, wait_for
from sites import only

#: what `jobs --json` promises for each job, see docs/design.md
FIELDS = {
    *("id", "task", "identifier", "state", "reason", "launcher", "native_id", "experiments", "tags", "submitted"),
    *("started", "ended", "exit_code", "progress", "path", "resources"),
}


def states(desk: Desk) -> dict[str, tuple[str, str | None]]:
    """State and reason by task, as another process sees them."""
    return {label: (job["state"], job["reason"]) for label, job in desk.jobs().items()}


def kill(desk: Desk, label: str) -> str:
    """End a job, named by the beginning of its identifier as people copy it; what was printed."""
    return desk.run("xpm-hpc", "jobs", "kill", desk.jobs()[label]["identifier"][:8], "--workdir", "work").ok().out


@only("slurm", "OAR's chains are in a test of their own")
def test_concat_is_chained_by_slurm_itself(under_way):
    jobs = under_way.jobs()
    says = {jobs["hello"]["native_id"], jobs["world"]["native_id"]}
    concat = jobs["concat"]["native_id"]

    shown = under_way.on_login("scontrol", "show", "job", concat)
    dependency = re.search(r"JobState=PENDING Reason=Dependency Dependency=(\S+)", shown)
    assert dependency, shown
    assert set(re.findall(r"afterok:([0-9_]+)\(unfulfilled\)", dependency[1])) == says
    assert under_way.on_login("squeue", "-h", "-j", concat, "-o", "%E").strip() == dependency[1]

    under_way.open("hello", "concat")
    wait_for(lambda: states(under_way)["hello"] == ("done", None), "hello to end")
    assert states(under_way)["concat"] == ("waiting", None)
    under_way.open("world")
    wait_for(lambda: states(under_way)["concat"] == ("done", None), "concat to end")
    assert under_way.results("concat.out") == ["HELLO WORLD\n"]


@only("oar", "Slurm's chains are in a test of their own")
def test_concat_is_chained_by_oar_itself(under_way):
    jobs = under_way.jobs()
    concat = jobs["concat"]["native_id"]
    shown = json.loads(under_way.on_login("oarstat", "-J", "-f", "-j", concat))[concat]
    assert shown["state"] == "Waiting"
    assert sorted(shown["dependencies"]) == sorted(int(jobs[label]["native_id"]) for label in ("hello", "world"))

    under_way.open("hello", "concat")
    wait_for(lambda: states(under_way)["hello"] == ("done", None), "hello to end")
    assert states(under_way)["concat"] == ("waiting", None)
    under_way.open("world")
    wait_for(lambda: states(under_way)["concat"] == ("done", None), "concat to end")
    assert under_way.results("concat.out") == ["HELLO WORLD\n"]


PAIRS = """
import sys
from experimaestro_hpc import Param, Task, experiment

class One(Task):
    def execute(self):
        while not os.path.exists("../../../open-one"):
            time.sleep(0.1)
        print("one")

class Many(Task):
    one: Param[One]
    number: Param[int]

    def execute(self):
        print(self.one.__xpm_stdout__.read_text().strip(), self.number)

import os, time
with experiment(sys.argv[1], "pairs"):
    one = One().submit()
    for number in range(3):
        Many(one=one, number=number).submit()
"""


def test_all_elements_of_an_array_wait_for_an_only_parent(desk):
    """OAR itself forgets this dependency."""
    desk.write("pairs.py", PAIRS)
    desk.run("xpm-hpc", "run", "--launcher", desk.launcher(), "--detach", "pairs.py", "--", "work").ok()
    wait_for(lambda: sorted(desk.native_jobs().values()) == ["PENDING"] * 3 + ["RUNNING"], "the parent to run")
    desk.open("one")
    desk.await_native(*["COMPLETED"] * 4)
    desk.jobs()
    assert sorted(desk.results("many.out")) == ["one 0\n", "one 1\n", "one 2\n"]


def test_a_job_that_is_cancelled_behind_our_back(under_way):
    under_way.site.cancel(under_way.rig, under_way.user, [under_way.jobs()["hello"]["native_id"]])
    wait_for(lambda: states(under_way)["concat"][0] == "failed", "concat to end")
    assert states(under_way) == {
        "hello": ("failed", "cancelled"),
        "world": ("running", None),
        "concat": ("failed", "dependency"),
    }


THREE = """
import sys
from experimaestro_hpc import Param, Task, experiment

class Say(Task):
    word: Param[str]

    def execute(self):
        print(self.word)

if __name__ == "__main__":
    with experiment(sys.argv[1], "three"):
        for word in ("one", "two", "three"):
            Say(word=word).submit()
"""


@only("slurm", "OAR has a job for each element")
def test_elements_that_are_cancelled_before_they_start(desk):
    """Slurm keeps one row for all of them."""
    desk.write("three.py", THREE)
    desk.run(
        "xpm-hpc",
        "run",
        "--launcher",
        desk.launcher(more="[defaults]\nhold = true\n"),
        "--detach",
        "three.py",
        "--",
        "work",
    ).ok()
    (array,) = {job["native_id"].partition("_")[0] for job in desk.jobs().values()}
    desk.on_login("scancel", array)
    wait_for(lambda: {one[0] for one in states(desk).values()} == {"failed"}, "them to end", 60)
    assert set(states(desk).values()) == {("failed", "cancelled")}


@only("oar", "Slurm counts in minutes: it would take longer than all other tests here")
def test_a_job_that_is_too_long(desk):
    """And its child, of which nobody needs to tell the scheduler."""
    desk.write("gated.py", GATED.replace("word=word).submit()", "word=word).submit(resources='duration=5s')"))
    ended = desk.run("xpm-hpc", "run", "--launcher", desk.launcher(), "gated.py", "--", "work")
    assert ended.status == 1, ended
    assert states(desk) == {
        "hello": ("failed", "timeout"),
        "world": ("failed", "timeout"),
        "concat": ("failed", "dependency"),
    }


def test_list_and_show_while_they_run(under_way):
    jobs = under_way.jobs()
    for job in jobs.values():
        assert job.keys() >= FIELDS
        assert job["id"] == f"{job['task']}/{job['identifier']}"
        assert job["path"].endswith(f"/work/jobs/{job['id']}")
        assert (job["launcher"], job["experiments"], job["ended"]) == (under_way.cluster, ["gated"], None)
        assert job["submitted"] > 1e9
    assert [jobs[label]["tags"] for label in ("hello", "concat")] == [{}, {"y": 1}]
    assert [jobs[label]["progress"] for label in ("hello", "concat")] == [0.5, None]
    assert jobs["hello"]["started"] >= jobs["hello"]["submitted"]
    assert jobs["concat"]["started"] is None

    table = under_way.run("xpm-hpc", "jobs", "--workdir", "work").ok().out.splitlines()
    assert table[0].split()[:3] == ["job", "state", "progress"]
    for label, job in jobs.items():
        (line,) = (line for line in table if f"gated.{job['task'].split('.')[1]}/{job['identifier'][:8]} " in line)
        assert f" {job['state']} " in line
        assert f" {under_way.cluster} {job['native_id']} " in line
        assert (" on " in line, " 50% " in line, " y=1" in line) == (
            (False, False, True) if label == "concat" else (True, True, False)
        )

    assert list(under_way.jobs("--state", "waiting")) == ["concat"]
    assert list(under_way.jobs("--tag", "y=1")) == ["concat"]
    assert sorted(under_way.jobs("--task", "gated.say")) == ["hello", "world"]
    assert under_way.jobs("--experiment", "another") == {}
    only = under_way.run("xpm-hpc", "jobs", "list", "--state", "running", "--workdir", "work").ok().out
    assert only.count(" running ") == 2
    assert "concat" not in only

    shown = under_way.run("xpm-hpc", "jobs", "show", jobs["hello"]["identifier"][:6], "--workdir", "work").ok().out
    for name in ("state", "native_id", "host", "submitted", "started", "path"):
        assert re.search(rf"^{name} +\S", shown, re.MULTILINE), shown
    (document,) = under_way.run("xpm-hpc", "jobs", "show", jobs["concat"]["id"], "--json", "--workdir", "work").json()
    assert document.keys() >= FIELDS
    assert document["state"] == "waiting"


def test_logs_are_live(under_way):
    hello = under_way.jobs()["hello"]["identifier"][:8]
    logs = ("xpm-hpc", "jobs", "logs", hello, "--workdir", "work")
    assert under_way.run(*logs).ok().out == "thinking of hello\n"
    assert under_way.run(*logs, "--err").ok().out == ""

    with under_way.start(*logs, "--follow") as following:
        try:
            assert following.stdout.readline() == "thinking of hello\n"
            under_way.open("hello")
            assert following.communicate(timeout=60)[0] == "HELLO\n"
        finally:
            following.kill()
    assert following.returncode == 0


def test_kill_a_running_job(under_way):
    assert re.search(r"^gated.say/[0-9a-f]{8} is failed \(cancelled\)$", kill(under_way, "hello"), re.MULTILINE)
    wait_for(lambda: states(under_way)["concat"][0] == "failed", "concat to end")
    assert states(under_way) == {
        "hello": ("failed", "cancelled"),
        "world": ("running", None),
        "concat": ("failed", "dependency"),
    }
    under_way.await_native("CANCELLED", "CANCELLED", "RUNNING")

    under_way.open("hello", "world", "concat")
    again = under_way.run("xpm-hpc", "run", "--launcher", under_way.cluster, "gated.py", "--", "work").ok()
    assert "2 to run, 1 " in again.text  # world is under way, or done meanwhile
    assert set(states(under_way).values()) == {("done", None)}
    assert under_way.results("concat.out") == ["HELLO WORLD\n"]
    assert len(under_way.native_jobs()) == 5


def test_kill_a_waiting_job(under_way):
    assert re.search(r"^gated.concat/[0-9a-f]{8} is failed \(cancelled\)$", kill(under_way, "concat"), re.MULTILINE)
    assert states(under_way) == UNDER_WAY | {"concat": ("failed", "cancelled")}
    under_way.open("hello", "world")
    wait_for(lambda: states(under_way)["world"][0] == states(under_way)["hello"][0] == "done", "the says to end")
    assert states(under_way)["concat"] == ("failed", "cancelled")


def test_kill_queued_jobs(desk):
    later = {"slurm": 'begin = "now+1hour"', "oar": 'type = "postpone=2036-01-01 00:00:00"'}
    start_later(desk, later[desk.site.scheduler])
    assert states(desk) == {"hello": ("queued", None), "world": ("queued", None), "concat": ("waiting", None)}
    if desk.site.scheduler == "slurm":
        assert desk.jobs()["hello"]["detail"] == "BeginTime"
    ids = [job["identifier"] for job in desk.jobs().values()]
    desk.run("xpm-hpc", "jobs", "kill", *ids, "--workdir", "work").ok()
    assert {state for state, _ in states(desk).values()} == {"failed"}
    assert states(desk)["hello"] == states(desk)["world"] == ("failed", "cancelled")
    assert set(desk.native_jobs().values()) == {"CANCELLED"}


def test_no_task_runs_without_its_parents(desk):
    """For Slurm an array element that is cancelled before it ran is one that its children need not wait for."""
    start_later(desk, "hold = true")
    assert states(desk) == dict.fromkeys(("hello", "world", "concat"), ("held", None))
    kill(desk, "hello")
    jobs = desk.jobs()
    assert (jobs["hello"]["state"], jobs["hello"]["reason"]) == ("failed", "cancelled")
    assert jobs["concat"]["state"] == "failed", "what needs it is ended with it"

    desk.open("world", "concat")
    desk.site.release(desk.rig, desk.user, (jobs["world"]["native_id"],))
    expected = {"hello": "failed", "world": "done", "concat": "failed"}
    wait_for(lambda: {job: state for job, (state, _) in states(desk).items()} == expected, "world and concat to end")
    assert desk.results("concat.out") in ([], [""])


def start_later(desk: Desk, option: str):
    """Submit GATED's jobs with an option of the scheduler's that keeps them from starting."""
    desk.write("gated.py", GATED)
    desk.launcher(more=f"[defaults]\n{option}\n")
    desk.run("xpm-hpc", "run", "--launcher", desk.cluster, "--detach", "gated.py", "--", "work").ok()


def test_a_prefix_must_fit_one_job(under_way):
    ended = under_way.run("xpm-hpc", "jobs", "kill", "zz", "--workdir", "work")
    ended.error(2, "no job begins with 'zz'", "xpm-hpc jobs")
    ended = under_way.run("xpm-hpc", "jobs", "kill", "gated.say/", "--workdir", "work")
    message = ended.error(2, "2 jobs begin with 'gated.say/'")
    assert message.count("gated.say/") == 3
    assert states(under_way) == UNDER_WAY
