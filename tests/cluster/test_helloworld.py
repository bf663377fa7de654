"""The example that people try first, on this machine and on the cluster, read as they read it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from desk import HELLOWORLD, Desk
from sites import only

QUICK = ("--port", "0", "--sleeptime", "0.1")
UNGUARDED = HELLOWORLD.replace('if __name__ == "__main__":\n    cli()', "cli()")
FAILING = HELLOWORLD.replace("        print(self.word.upper())", '        raise RuntimeError("no voice today")')
assert HELLOWORLD not in (UNGUARDED, FAILING)
#: as short as a script can be: neither a guard nor a command line
PLAIN = """
import sys
from experimaestro_hpc import Param, Task, experiment

class Say(Task):
    word: Param[str]

    def execute(self):
        print(self.word.upper())

class Concat(Task):
    strings: Param[list[Say]]

    def execute(self):
        print(" ".join(one.__xpm_stdout__.read_text().strip() for one in self.strings))

with experiment(sys.argv[1], "plain"):
    Concat(strings=[Say(word=word).submit() for word in ("hello", "world")]).submit()
"""


def assert_told(ended, place: str):
    """The output says where each of the three jobs ran and that it ended well, and nothing of a library's."""
    ended.ok()
    for task, count in (("say", 2), ("concat", 1)):
        line = rf"^  \w+\.{task}/[0-9a-f]{{8}}(?: y=1)? +done on ({place}) in [0-9.]+ s$"
        where = re.findall(line, ended.text, re.MULTILINE)
        assert len(where) == count, ended
    assert "3 done" in ended.text.splitlines()[-1]
    assert_quiet(ended)


def assert_quiet(ended):
    """The script's logging.basicConfig(level=DEBUG) shows nothing of the libraries'."""
    assert not re.search(r"^(DEBUG|INFO|WARNING)\b|paramiko|fabric|filelock", ended.text, re.MULTILINE), ended


def assert_result(desk: Desk, workdir: str = "work"):
    """The result is where the README says, on the laptop, and there are three jobs and no more."""
    assert [path.parent.parent.name for path in sorted((desk.here / workdir / "jobs").glob("*/*/concat.out"))] == [
        f"{script(desk)}.concat"
    ]
    assert desk.results("concat.out", workdir) == ["HELLO WORLD\n"]
    assert sorted(desk.results("say.out", workdir)) == ["HELLO\n", "WORLD\n"]
    assert len(list((desk.here / workdir / "jobs").glob("*/*"))) == 3


def script(desk: Desk) -> str:
    (found,) = desk.here.glob("*.py")
    return found.stem


HERE_ONLY = only("slurm", "it runs on this machine, and no cluster is asked")


@HERE_ONLY
def test_on_this_machine(desk):
    desk.write("helloworld.py", HELLOWORLD)
    assert_told(desk.run("python", "helloworld.py", *QUICK, "work"), "laptop")
    assert_result(desk)
    ends = sorted(desk.results("*.done"))

    again = desk.run("python", "helloworld.py", *QUICK, "work").ok()
    assert "3 jobs on local: 3 done before" in again.text
    assert sorted(desk.results("*.done")) == ends
    assert_quiet(again)


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
@pytest.mark.parametrize("way", ["near", "far"])
def test_on_the_cluster(desk, way, transport):
    cluster = desk.site.cluster if way == "near" else desk.site.far
    desk.write("helloworld.py", HELLOWORLD)
    desk.launcher(cluster, transport=transport)
    first = desk.run("python", "helloworld.py", *QUICK, "work", env={"XPM_HPC_LAUNCHER": cluster})
    assert_told(first, desk.site.nodes)
    assert f"3 jobs on {cluster} ({desk.site.scheduler} on {cluster}): 3 to run" in first.text
    assert_result(desk)
    jobs = desk.await_native(*["COMPLETED"] * 3)
    assert desk.markers() == ["concat.done", "say.done", "say.done"]

    second = desk.run("xpm-hpc", "run", "--launcher", cluster, "helloworld.py", "--", *QUICK, "work").ok()
    assert "3 done before" in second.text
    assert_quiet(second)
    assert desk.native_jobs() == jobs


@pytest.fixture
def bobs_desk(laptop, site) -> Iterator[Desk]:
    desk = Desk(laptop.rig, "nothing", site, user="bob")
    yield desk
    desk.clear()


def test_nothing_needs_to_be_on_the_cluster(laptop, bobs_desk):
    """As bob, whose home directory on the cluster is emptied first."""
    desk = bobs_desk
    home = laptop.rig.home(desk.site.front, "bob")
    for path in home.iterdir():
        if path.name != ".ssh":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    keys = sorted(path.name for path in (home / ".ssh").iterdir())
    for module in ("click", "experimaestro_hpc", "jinja2", "paramiko"):
        absent = laptop.rig.exec(desk.site.front, ["python3", "-c", f"import {module}"], user="bob")
        assert "ModuleNotFoundError" in absent.stderr, absent

    desk.write("helloworld.py", HELLOWORLD)
    launcher = desk.launcher(workdir="~/xpm")
    ended = desk.run("xpm-hpc", "run", "--launcher", launcher, "helloworld.py", "--", *QUICK, "work")
    assert_told(ended, desk.site.nodes)
    assert_result(desk)
    assert sorted(path.name for path in home.iterdir()) == [".ssh", "xpm"]
    assert sorted(path.name for path in (home / ".ssh").iterdir()) == keys


@HERE_ONLY
def test_a_failed_task_here_is_told_with_its_last_words(desk):
    assert_failure_told(desk, "local")


def test_a_failed_task_is_told_with_its_last_words(desk):
    assert_failure_told(desk, desk.launcher())


def assert_failure_told(desk: Desk, launcher: str):
    desk.write("failing.py", FAILING)
    program = ("python",) if launcher == "local" else ("xpm-hpc", "run", "--launcher", launcher)
    separator = () if launcher == "local" else ("--",)
    ended = desk.run(*program, "failing.py", *separator, *QUICK, "work")
    assert ended.status == 1, ended
    assert len(re.findall(r"^  failing.say/[0-9a-f]{8} +failed \(exit\) on ", ended.out, re.MULTILINE)) == 2, ended
    assert re.search(r"^  failing.concat/[0-9a-f]{8} y=1 +failed \(dependency\)", ended.out, re.MULTILINE), ended
    assert "    | RuntimeError: no voice today" in ended.out.splitlines(), ended
    assert "3 of 3 jobs failed" in ended.err
    assert desk.results("concat.out") in ([], [""])
    assert "/experimaestro_hpc/" not in ended.text, "our own frames in a user's traceback"


NO_GUARD = pytest.mark.parametrize("text", [UNGUARDED, PLAIN], ids=["unguarded", "plain"])


@HERE_ONLY
@NO_GUARD
def test_without_a_guard_no_task_here_runs_the_experiment_again(desk, text):
    run_unguarded(desk, text, "local", "laptop")


@NO_GUARD
def test_without_a_guard_no_task_runs_the_experiment_again(desk, text):
    run_unguarded(desk, text, desk.launcher(), desk.site.nodes)
    desk.await_native(*["COMPLETED"] * 3)
    assert len(list(desk.there.glob("jobs/*/*"))) == 3


def run_unguarded(desk: Desk, text: str, launcher: str, place: str):
    desk.write("script.py", text)
    options = QUICK if text is UNGUARDED else ()
    assert_told(desk.run("xpm-hpc", "run", "--launcher", launcher, "script.py", "--", *options, "work"), place)
    assert_result(desk)
