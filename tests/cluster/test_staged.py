"""Nodes that share no files with the login node: what a task needs goes there, and what it leaves comes back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest
from desk import GATED, HELLOWORLD, Desk, Ended, wait_for
from sites import SITES, Site

pytestmark = pytest.mark.slow


@pytest.fixture
def site() -> Site:
    """OAR does not copy the script to the node: such nodes are refused there."""
    return SITES["slurm"]


SCRATCH = "/scratch/it's $(touch pwned) a disk"
NODES = ("p1", "p2")
MIRROR = """
[defaults]
partition = "private"
{defaults}
[mirror]
nodes = "staged"
scratch = "{scratch}"
{mirror}
"""

#: gates that the nodes can see: a file in the scratch of each
GATES = GATED.replace('"../../../open-" + gate', '"/scratch/open-" + gate')

ODD = """
import os, sys
from pathlib import Path
from experimaestro_hpc import Meta, Param, PathGenerator, Task, experiment, field

class Data(Task):
    path: Meta[Path] = field(default_factory=PathGenerator("it's $(touch pwned) data"))

    def execute(self):
        self.path.mkdir()
        (self.path / "-n").write_text("first")
        (self.path / "two\\nlines *").write_bytes(b"")
        (self.path / "empty").mkdir()
        (self.path / "link").symlink_to("-n")
        (self.path / "wide").symlink_to("/etc/hostname")
        (self.path / "run").write_text("#!/bin/sh")
        (self.path / "run").chmod(0o755)

class Model(Task):
    data: Param[Data]

    def execute(self):
        print("data at", self.data.path.exists())

class Report(Task):
    model: Param[Model]

    def execute(self):
        path = self.model.data.path
        print(sorted(os.listdir(path)), (path / "link").read_text(), os.access(path / "run", os.X_OK))

if __name__ == "__main__":
    with experiment(sys.argv[1], "odd"):
        Report(model=Model(data=Data().submit()).submit()).submit()
"""

FAILING = """
import sys
from experimaestro_hpc import Param, Task, experiment

class Fail(Task):
    word: Param[str]

    def execute(self):
        open("left", "w").write("half a result")
        print("before the end")
        raise RuntimeError(self.word)

if __name__ == "__main__":
    with experiment(sys.argv[1], "failing"):
        Fail(word="no voice today").submit()
"""

LONG = """
import sys, time
from experimaestro_hpc import Param, Task, experiment, progress

class Long(Task):
    x: Param[int]

    def execute(self):
        progress(0.25)
        print("begun", flush=True)
        open("left", "w").write("half a result")
        time.sleep(600)

if __name__ == "__main__":
    with experiment(sys.argv[1], "long"):
        Long(x=1).submit()
"""

RESUMABLE = """
import os, shutil, sys, time
from pathlib import Path
from experimaestro_hpc import GracefulTimeout, Param, ResumableTask, experiment

def settle():
    # as if what was given had come long ago: a copy takes its time
    stamp = Path(os.environ["XPM_HPC_STAGED"].partition("/jobs/")[0], "stamp")
    probe = stamp.with_name("probe")
    stamp.touch()
    probe.touch()
    while probe.stat().st_mtime_ns == stamp.stat().st_mtime_ns:
        probe.touch()

class Train(ResumableTask):
    x: Param[int]

    def execute(self):
        host = os.uname().nodename
        if os.path.exists("state"):
            settle()
            os.remove("first")
            shutil.rmtree("ckpt")
            os.rename("last", "previous")
            os.mkdir("last")
            Path("last/weights").write_text("2")
            print("goes on from", open("state").read(), "on", host)
            return
        open("first", "w").close()
        os.makedirs("ckpt/deep/er")
        Path("ckpt/deep/x").write_text("1")
        os.makedirs("last/deep")
        Path("last/weights").write_text("1")
        Path("last/deep/x").write_text("1")
        print("begins on", host, flush=True)
        try:
            time.sleep(600)
        except GracefulTimeout:
            open("state", "w").write(host)
            raise

if __name__ == "__main__":
    with experiment(sys.argv[1], "resumable"):
        Train(x=1).submit(resources="duration=1m", retry={"timeout": {"times": 2}})
"""


@pytest.fixture
def staged(desk: Desk) -> Iterator[Desk]:
    """A desk whose launcher is for the private nodes."""
    launch(desk)
    clear = "rm -rf /scratch/it* /scratch/open-* /scratch/small"
    for node in NODES:
        desk.rig.exec(node, ["sh", "-c", clear])
    yield desk


def launch(desk: Desk, defaults: str = "", mirror: str = "", scratch: str = SCRATCH):
    desk.launcher("mycluster", more=MIRROR.format(defaults=defaults, mirror=mirror, scratch=scratch))


def run(desk: Desk, script: str, *more: str) -> Ended:
    return desk.run("xpm-hpc", "run", "--launcher", "mycluster", *more, script, "--", "work")


def left_on_the_nodes(desk: Desk) -> str:
    """What of the jobs' folders is left in the nodes' scratch."""
    look = "ls -d /scratch/*/xpm-hpc-*/job.* /scratch/pwned 2>/dev/null"
    return "".join(desk.rig.exec(node, ["sh", "-c", look]).stdout for node in NODES)


def open_gates(desk: Desk, *gates: str):
    for node in NODES:
        desk.rig.exec(node, ["touch", *(f"/scratch/open-{gate}" for gate in gates)])


def test_the_nodes_share_nothing_with_the_login_node(rig):
    rig.exec("login", ["touch", "/home/alice/of-login"])
    for node in NODES:
        assert rig.exec(node, ["ls", "/home/alice/of-login"]).returncode != 0


def test_a_graph_with_an_array(staged):
    staged.write("helloworld.py", HELLOWORLD)
    words = ("--port", "0", "--sleeptime", "0.1")
    ended = staged.run("python", "helloworld.py", *words, "work", env={"XPM_HPC_LAUNCHER": "mycluster"}).ok()
    assert "done on p" in ended.text
    assert staged.results("concat.out") == ["HELLO WORLD\n"]
    assert len([native for native in staged.native_jobs() if "_" in native]) == 2
    assert left_on_the_nodes(staged) == ""

    again = staged.run("python", "helloworld.py", *words, "work", env={"XPM_HPC_LAUNCHER": "mycluster"}).ok()
    assert "3 done before" in again.text


def test_logs_and_progress_while_it_runs(staged):
    staged.write("gated.py", GATES)
    run(staged, "gated.py", "--detach").ok()
    wait_for(lambda: [job["progress"] for job in staged.jobs().values()].count(0.5) == 2, "the progress")
    hello = staged.jobs()["hello"]
    assert hello["state"] == "running"
    assert staged.run("xpm-hpc", "jobs", "logs", hello["id"], "--workdir", "work").ok().out == "thinking of hello\n"
    open_gates(staged, "hello", "world", "concat")
    wait_for(lambda: staged.markers() == ["concat.done", "say.done", "say.done"], "the graph's end")
    assert sorted(path.read_text() for path in staged.there.glob("jobs/*/*/say.out")) == [
        "thinking of hello\nHELLO\n",
        "thinking of world\nWORLD\n",
    ]


def test_odd_names_and_what_is_above_the_parents(staged):
    staged.write("my script's odd.py", ODD)
    run(staged, "my script's odd.py").ok()
    (report,) = staged.results("Report.out") or staged.results("report.out")
    names = ["-n", "empty", "link", "run", "two\nlines *", "wide"]
    assert report == f"{names} first True\n"
    (data,) = staged.there.glob("jobs/*/*/it's*")
    assert sorted(path.name for path in data.iterdir()) == names
    assert left_on_the_nodes(staged) == ""


def test_a_failing_task(staged):
    staged.write("failing.py", FAILING)
    run(staged, "failing.py").error(1, "no voice today")
    (job,) = staged.jobs().values()
    assert (job["state"], job["reason"]) == ("failed", "exit")
    assert [path.read_text() for path in staged.there.glob("jobs/*/*/left")] == ["half a result"]
    assert staged.results("fail.out") == ["before the end\n"]
    assert left_on_the_nodes(staged) == ""


@pytest.mark.parametrize("end", ["cancelled", "timeout"])
def test_what_a_job_has_left_when_it_is_ended(staged, end):
    if end == "timeout":
        launch(staged, 'time = "0:01"')
    staged.write("long.py", LONG)
    run(staged, "long.py", "--detach").ok()
    wait_for(lambda: next(iter(staged.jobs().values()))["progress"] == 0.25, "the start")
    (job,) = staged.jobs().values()
    if end == "cancelled":
        staged.run("xpm-hpc", "jobs", "kill", job["id"], "--workdir", "work").ok()
    wait_for(lambda: next(iter(staged.jobs().values()))["state"] == "failed", "the end", 180)
    (job,) = staged.jobs().values()
    assert job["reason"] == end
    assert staged.results("long.out") == ["begun\n"]
    assert [path.read_text() for path in staged.there.glob("jobs/*/*/left")] == ["half a result"]
    assert left_on_the_nodes(staged) == ""


def test_a_resumable_task_goes_on_another_node(staged):
    staged.write("resumable.py", RESUMABLE)
    run(staged, "resumable.py", "--detach").ok()
    (path,) = wait_for(lambda: list(staged.there.glob("jobs/*/*/train.out")), "the start")
    wait_for(lambda: "begins on" in path.read_text(), "the first start")
    first = path.read_text().split()[-1]
    staged.rig.exec("login", ["scontrol", "update", f"nodename={first}", "state=drain", "reason=test"], user="root")
    try:
        wait_for(lambda: staged.markers() != [], "the end", 240)
    finally:
        staged.rig.exec("login", ["scontrol", "update", f"nodename={first}", "state=resume"], user="root")
    assert staged.markers() == ["train.done"]
    other = "p2" if first == "p1" else "p1"
    assert path.read_text() == f"goes on from {first} on {other}\n"
    assert path.with_name("train.1.out").read_text() == f"begins on {first}\n"
    assert not path.with_name("first").exists()
    assert not path.with_name("ckpt").exists()
    kept = {
        str(one.relative_to(path.parent)): one.read_text()
        for folder in ("last", "previous")
        for one in path.with_name(folder).rglob("*")
        if one.is_file()
    }
    assert kept == {"last/weights": "2", "previous/weights": "1", "previous/deep/x": "1"}
    assert left_on_the_nodes(staged) == ""


def test_a_login_node_that_refuses_the_nodes(staged):
    launch(staged, mirror='login = "nobody@login"')
    staged.write("failing.py", FAILING)
    run(staged, "failing.py").error(
        1, "refused the node's SSH", "ssh -o BatchMode=yes nobody@login true", "known_hosts"
    )
    (job,) = staged.jobs().values()
    assert (job["state"], job["reason"]) == ("failed", "launch")
    assert left_on_the_nodes(staged) == ""


def test_a_scratch_that_is_full(staged):
    launch(staged, scratch="/scratch/small")
    staged.write("failing.py", FAILING)
    enter = {node: staged.rig.command(node, [], "root")[0] for node in NODES}
    for words in enter.values():
        subprocess.run([*words, "sh", "-c", "mkdir -p /scratch/small && mount -t tmpfs -o size=64k x /scratch/small"])
    for words in enter.values():
        subprocess.run([*words, "chmod", "1777", "/scratch/small"], check=True)
    try:
        run(staged, "failing.py").error(1, "cannot be written to /scratch/small", "No space left on device")
    finally:
        for words in enter.values():
            subprocess.run([*words, "umount", "/scratch/small"], check=True)
    (job,) = staged.jobs().values()
    assert (job["state"], job["reason"]) == ("failed", "launch")


def test_a_scratch_that_is_not_there(staged):
    launch(staged, scratch="$NO_SUCH_DISK/mine")
    staged.write("failing.py", FAILING)
    run(staged, "failing.py").error(1, "scratch cannot be used")


def test_results_that_cannot_be_copied_back_are_kept(staged):
    staged.write("gated.py", GATES)
    run(staged, "gated.py", "--detach").ok()
    wait_for(lambda: [job["progress"] for job in staged.jobs().values()].count(0.5) == 2, "the progress")
    incoming = staged.there / ".xpm/incoming"
    incoming.chmod(0o555)
    try:
        open_gates(staged, "hello", "world", "concat")
        wait_for(lambda: len(staged.markers("failed")) >= 2, "the end")
    finally:
        incoming.chmod(0o755)
    hello = staged.jobs()["hello"]
    assert (hello["state"], hello["reason"]) == ("failed", "exit")
    kept = re.search("cannot be copied back to login, and are kept in (.*?): .*Permission denied", hello["message"])
    assert kept, hello
    log = f"{kept.group(1)}/jobs/{hello['id']}/say.out"
    assert "HELLO" in staged.rig.exec(hello["message"].partition(":")[0], ["cat", log]).stdout


def test_jobs_of_one_node_share_the_code(staged):
    launch(staged, 'nodelist = "p1"')
    staged.write("helloworld.py", HELLOWORLD)
    words = ("--port", "0", "--sleeptime", "0.1", "work")
    staged.run("python", "helloworld.py", *words, env={"XPM_HPC_LAUNCHER": "mycluster"}).ok()
    listed = staged.rig.exec("p1", ["sh", "-c", "cd /scratch/it*/xpm-hpc-*/cache && ls -A && stat -c %a .."]).stdout
    assert re.fullmatch(r"\.xpm-code-\w+\n\.xpm-lib-\w+\n700\n", listed), listed


def test_what_killed_jobs_left_is_removed_by_the_next_one(staged):
    """Of its folder's age and lock, only the lock says whether a job is alive."""
    launch(staged, 'nodelist = "p1"')
    staged.write("failing.py", FAILING)
    base = f"{SCRATCH}/xpm-hpc-1001"
    base = base.replace("1001", staged.rig.exec("p1", ["id", "-u"]).stdout.strip())
    make = 'umask 77; for j in dead alive young; do mkdir -p "$0/job.$j" && : >"$0/job.$j/held" || exit 1; done'
    assert staged.rig.exec("p1", ["sh", "-c", f'{make}; touch -d "-2 hours" "$0"/job.[da]*', base]).returncode == 0
    with staged.rig.popen("p1", ["flock", f"{base}/job.alive/held", "sleep", "60"]) as holder:
        try:
            run(staged, "failing.py").error(1, "no voice today")
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
    left = staged.rig.exec("p1", ["ls", base]).stdout.split()
    assert left == ["cache", "job.alive", "job.young"]
