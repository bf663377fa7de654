"""The commands as people and programs use them: what they print, where, and their exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from contract import FIELDS

from experimaestro_hpc import __version__
from experimaestro_hpc.cli import cli, main

XPM_HPC = [sys.executable, "-c", "from experimaestro_hpc.cli import main; main()"]

DEMO = """
import sys, time
from pathlib import Path
from experimaestro_hpc import Param, Task, experiment, progress

class Good(Task):
    x: Param[int]
    def execute(self):
        print("good", self.x)
        progress(0.5)

class Bad(Task):
    def execute(self):
        print("about to fail", file=sys.stderr)
        raise KeyError("no such key")

class Child(Task):
    parent: Param[Bad]
    def execute(self):
        raise AssertionError("its parent failed")

class Long(Task):
    def execute(self):
        print("sleeping", flush=True)
        time.sleep(300)

class Greedy(Task):
    def execute(self):
        pass

if __name__ == "__main__":
    what = sys.argv[2:]
    with experiment(sys.argv[1], "demo") as xp:
        if "wrong" in what:
            Good(x="no number")
        if "mine" in what:
            raise RuntimeError("my own mistake")
        if "exit" in what:
            sys.exit(5)
        if "good" in what:
            for x in (1, 2):
                Good(x=x).tag("x", x).tag("odd", "it's \\x1b[2J").submit()
        if "bad" in what:
            Child(parent=Bad().submit()).submit()
        if "long" in what:
            Long().submit(retry=1)
        if "greedy" in what:
            Greedy().submit(resources="gpu * 1000")
"""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def run(*argv: str | Path, cwd: Path | None = None, timeout: float = 60, **environ: str) -> Ran:
    """``xpm-hpc ARGV`` in a process of its own."""
    ran = subprocess.run(
        [*XPM_HPC, *map(str, argv)],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("project") / "demo.py"
    path.write_text(DEMO)
    return path


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory, script: Path, end_runners: Callable[[Path], None]
) -> Iterator[tuple[Path, Ran, Ran]]:
    """A workspace in which the demo ran twice: well, and with failures."""
    root = tmp_path_factory.mktemp("ran") / "it's my work"
    try:
        yield root, run("run", script, "--", root, "good"), run("run", script, "--", root, "good", "bad")
    finally:
        end_runners(root)


@pytest.fixture
def workspace(ran: tuple[Path, Ran, Ran]) -> Path:
    return ran[0]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """``xpm-hpc ARGV`` in this process."""
    monkeypatch.setenv("XPM_HPC_DEBUG", "")

    def call(*argv: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["xpm-hpc", *map(str, argv)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Ran(caught.value.code, out, err)

    return call


# --- run


def test_run_and_run_again(ran):
    _, first, second = ran
    assert (first.code, first.err) == (0, "")
    assert "2 jobs on local: 2 to run" in first.out
    assert first.out.endswith("experiment demo: 2 done\n")
    assert second.code == 1
    assert "4 jobs on local: 2 to run, 2 done before" in second.out
    assert "error: experiment demo: 2 of 4 jobs failed" in second.err
    assert "KeyError: 'no such key'" in second.out and "about to fail" in second.out
    assert "| KeyError: 'no such key'" in second.err
    assert "\nTraceback" not in f"\n{second.err}"


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "Missing argument 'SCRIPT'"),
        (["/nowhere/x.py"], 2, "'/nowhere/x.py' does not exist"),
        (["/"], 2, "is a directory"),
        (["--launcher", "clutser", "{script}", "--", "{work}", "good"], 2, "no launcher 'clutser'"),
        (["--launcher", "/nowhere/x.toml", "{script}", "--", "{work}", "good"], 2, "there is no such file"),
        (["--no-such-option", "{script}"], 2, "No such option"),
        (["{script}", "--", "{work}", "wrong"], 2, "Good.x must be int, not 'no number' (str)"),
        (["{script}", "--", "{work}", "greedy"], 2, "1000 GPUs asked for"),
        (["{script}", "--", "/dev/null/work", "good"], 2, "/dev/null/work"),
        (["{here}/broken.py"], 2, "broken.py, line 2: the script cannot be run"),
        (["{here}/binary.py"], 2, "the script cannot be run"),
        (["--launcher", "{here}/broken.toml", "{script}", "--", "{work}", "good"], 2, "broken.toml, line 2"),
        (["--launcher", "{here}/gate.toml", "{script}", "--", "{work}", "good"], 3, "the host does not answer"),
        (["{script}", "--", "{work}", "exit"], 5, ""),
        (["--dry-run", "{script}", "--", "{work}", "good", "bad"], 0, ""),
    ],
)
def test_what_goes_wrong_is_told_without_a_traceback(script, tmp_path, argv, code, words):
    (tmp_path / "broken.py").write_text("x = 1\ny = = 2\n")
    (tmp_path / "binary.py").write_bytes(b"\0\xff")
    (tmp_path / "broken.toml").write_text('scheduler = "local"\nschduler = 1\n')
    ssh(tmp_path, "echo 'ssh: connect to host gate port 22: Connection refused' >&2; exit 255")
    places = {"script": script, "work": tmp_path / "work", "here": tmp_path}
    ran = run("run", *(word.format(**places) for word in argv), PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (ran.code, "Traceback" in ran.err) == (code, False), ran.err
    assert words in ran.err
    assert not (tmp_path / "work" / "jobs").exists() or "greedy" in argv


def ssh(folder: Path, behaviour: str) -> Path:
    """A launcher ``gate`` that is reached by a program ``ssh`` that behaves like this; ``$command`` is what it runs."""
    (folder / "ssh").write_text(f'#!/bin/sh\nfor command; do :; done\n[ "$1" = -G ] && exit 0\n{behaviour}\n')
    (folder / "ssh").chmod(0o755)
    path = folder / "gate.toml"
    path.write_text(
        f'scheduler = "local"\nworkdir = {json.dumps(str(folder / "cluster"))}\n[connector]\ntype = "ssh"\n'
        f'host = "gate"\ntransport = "openssh"\n[environment]\npython = {json.dumps(sys.executable)}\n'
    )
    return path


def test_the_users_own_error_has_its_traceback(script, tmp_path):
    ran = run("run", script, "--", tmp_path / "work", "mine")
    assert ran.code == 1
    assert "Traceback" in ran.err and "RuntimeError: my own mistake" in ran.err


@pytest.mark.parametrize("how", ["--debug", "XPM_HPC_DEBUG"])
def test_debug_gives_a_traceback_and_the_same_exit_status(tmp_path, how):
    options, environ = ([how], {}) if how.startswith("-") else ([], {how: "1"})
    ran = run(*options, "jobs", "--workdir", tmp_path / "nowhere", **environ)
    assert "Traceback" in ran.err and "WorkspaceError" in ran.err and "no such folder" in ran.err
    assert ran.code == 2


def test_a_dry_run_touches_nothing(script, tmp_path):
    ran = run("run", "--dry-run", script, "--", tmp_path / "work", "good", "bad")
    assert (ran.code, ran.err) == (0, "")
    assert "dry run, nothing is touched" in ran.out
    assert ran.out.count("would be submitted to local") == 4
    assert ", after demo.bad/" in ran.out
    assert not (tmp_path / "work").exists()


def test_options_win_over_what_the_script_says(script, tmp_path):
    ran = run(
        "run", "--dry-run", "--workdir", tmp_path / "other", "--launcher", "slurm", script, "--", "/nowhere", "good"
    )
    assert ran.code == 0
    assert "would be submitted to slurm" in ran.out


def test_a_traceback_is_that_of_the_script(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def first():\n    return {}['lr']\nfirst()\n")
    ran = run("run", path, cwd=tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1] == "KeyError: 'lr'"
    assert [line.split('"')[1] for line in ran.err.splitlines() if line.startswith("  File")] == [str(path)] * 2


def test_an_argument_of_the_scripts_that_is_taken_for_one_of_ours(tmp_path):
    (tmp_path / "study.py").touch()
    ran = run("run", "study.py", "--epochs", "3", cwd=tmp_path)
    assert ran.code == 2
    assert "The script's own arguments follow a --" in ran.err


def test_a_script_sees_its_own_arguments(tmp_path):
    path = tmp_path / "it's a script.py"
    path.write_text("import sys, helper\nprint(repr(sys.argv), __name__, __file__)\n")
    (tmp_path / "helper.py").touch()
    ran = run("run", path.name, "--", "--launcher", "$(x)", "", cwd=tmp_path)
    assert ran == Ran(0, f"{[path.name, '--launcher', '$(x)', '']!r} __main__ {path}\n", "")


def test_detach_interrupt_and_kill(script, tmp_path, wait_until, end_runners, call):
    """One long job: started and left alone, looked at by another process that is interrupted, and ended at last."""
    root = tmp_path / "work"
    try:
        detached = run("run", "--detach", script, "--", root, "long")
        assert detached.code == 0
        assert "detached: the jobs go on without this process" in detached.out
        assert "tried again while somebody watches: xpm-hpc experiments attach" in detached.out

        def look() -> Any:
            (one,) = json.loads(call("jobs", "--json", "--workdir", root).out)
            return one

        wait_until(lambda: look()["state"] == "running")
        assert call("jobs", "list", "--state", "running", "--workdir", root).out.count("demo.long/") == 1
        assert call("jobs", "list", "--state", "done", "--workdir", root).out == f"no job of the 1 in {root} fits\n"
        wait_until(lambda: call("jobs", "logs", look()["identifier"], "--workdir", root).out == "sleeping\n")

        argv = [*XPM_HPC, "run", str(script), "--", str(root), "long"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as attached:
            assert attached.stdout and attached.stderr
            while "running" not in attached.stdout.readline():
                assert attached.poll() is None
            attached.send_signal(signal.SIGINT)
            out, err = attached.communicate(timeout=30)
        assert attached.returncode == 130
        assert "detached: the jobs go on" in out and "Traceback" not in err
        assert look()["state"] == "running"

        killed = call("jobs", "kill", look()["identifier"][:6], "--workdir", root)
        assert (killed.code, killed.err) == (0, "")
        assert killed.out.endswith("is failed (cancelled)\n")
        one = look()
        assert (one["state"], one["reason"], one["attempt"]) == ("failed", "cancelled", 1)
        again = call("jobs", "kill", one["identifier"][:6], "--workdir", root)
        assert again.out.endswith("is failed (cancelled)\n")
    finally:
        end_runners(root)


def test_over_a_connection(script, tmp_path, wait_until, end_runners, call, monkeypatch):
    """The whole way over ``ssh``, which here runs its command on this machine; and then the host is gone."""
    launcher = ssh(tmp_path, 'echo "Welcome!"; exec sh -c "$command"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    laptop, cluster = tmp_path / "laptop", tmp_path / "cluster"
    try:
        ran = run("run", "--launcher", launcher, script, "--", laptop, "good", "bad")
        assert ran.code == 1, ran.err
        assert "1 failed" not in ran.err and "2 of 4 jobs failed" in ran.err
        views = json.loads(call("jobs", "--json", "--workdir", laptop).out)
        assert sorted((one["task"], one["state"], one["reason"]) for one in views) == [
            ("demo.bad", "failed", "exit"),
            ("demo.child", "failed", "dependency"),
            ("demo.good", "done", None),
            ("demo.good", "done", None),
        ]
        for one in views:
            here, there = Path(one["path"]), cluster / "jobs" / one["id"]
            assert here == laptop / "jobs" / one["id"]
            names = {path.name for path in there.iterdir()} - {".lock"}
            assert {path.name for path in here.iterdir()} == names
            assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)
        # a job that was left behind, on a host that is not there any more
        one = next(one for one in views if one["state"] == "done")
        (Path(one["path"]) / "good.done").unlink()
        ssh(tmp_path, "echo 'ssh: Could not resolve hostname gate: Name or service not known' >&2; exit 255")
        gone = call("jobs", "--json", "--workdir", laptop)
        assert gone.code == 3
        assert {one["id"] for one in json.loads(gone.out)} == {one["id"] for one in views}
        assert "warning: host gate: the host's name is not known" in gone.err
        assert "shown as it was last seen" in gone.err
        offline = call("jobs", "--offline", "--json", "--workdir", laptop)
        assert (offline.code, offline.err, json.loads(offline.out)) == (0, "", json.loads(gone.out))
        killed = call("jobs", "kill", one["identifier"], "--workdir", laptop)
        assert (killed.code, "Traceback" in killed.err, killed.err[:6]) == (3, False, "error:")
        # it is there again, and the files come back
        ssh(tmp_path, 'exec sh -c "$command"')
        there = cluster / "jobs" / views[0]["id"] / "points"
        there.mkdir()
        for name in ("a.pt", "b.pt"):
            (there / name).write_bytes(bytes(3 << 20))
        pulled = call("jobs", "pull", views[0]["id"], "points/**", "--workdir", laptop)
        assert (pulled.code, pulled.err) == (0, "") and " files, 6.0 MB, came back to " in pulled.out
        absent = call("jobs", "pull", views[0]["id"], "*.ckpt", "--workdir", laptop)
        assert (absent.code, absent.err) == (1, "no file there fits '*.ckpt'\n")
        assert call("jobs", "--workdir", laptop).code == 0
        assert (Path(one["path"]) / "good.done").exists()
        # another laptop, to which everything is new: nothing runs again
        again = run("run", "--launcher", launcher, script, "--", tmp_path / "another laptop", "good")
        assert (again.code, "2 done before" in again.out) == (0, True), again.err
        assert sorted(path.name for path in tmp_path.glob("another laptop/jobs/*/*/good.done")) == ["good.done"] * 2
    finally:
        end_runners(cluster)


def test_without_a_network_jobs_are_shown_as_they_were_seen(
    script, tmp_path, wait_until, end_runners, call, monkeypatch
):
    launcher = ssh(tmp_path, 'exec sh -c "$command"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    laptop = tmp_path / "laptop"

    def look(*options: str) -> Any:
        (one,) = json.loads(call("jobs", "--json", *options, "--workdir", laptop).out)
        return one

    try:
        assert run("run", "--detach", "--launcher", launcher, script, "--", laptop, "long").code == 0
        assert look("--offline")["state"] == "queued", "nobody has looked yet"
        wait_until(lambda: look()["state"] == "running")
        seen = look()
        assert seen["host"] and look("--offline") == seen
        ssh(tmp_path, "echo 'ssh: Could not resolve hostname gate: Name or service not known' >&2; exit 255")
        gone = call("jobs", "--workdir", laptop)
        assert (gone.code, " running " in gone.out, "1 running" in gone.out) == (3, True, True)
        assert "shown as it was last seen" in gone.err
        assert "1 running" in call("experiments", "list", "--workdir", laptop).out
    finally:
        end_runners(tmp_path / "cluster")


# --- jobs


def test_json(call, workspace):
    ran = call("jobs", "--json", "--workdir", workspace)
    assert (ran.code, ran.err) == (0, "")
    assert call("jobs", "list", "--json", "--workdir", workspace) == ran
    assert call("jobs", "list", "--workdir", workspace, "--json") == ran
    views = json.loads(ran.out)
    assert len(views) == 4
    for one in views:
        assert one.keys() >= FIELDS
        assert one["id"] == f"{one['task']}/{one['identifier']}"
        assert one["path"] == str(workspace / "jobs" / one["id"])
        assert (one["launcher"], one["experiments"]) == ("local", ["demo"])
        assert one["submitted"] <= one["ended"]
    by_task = {one["task"]: one for one in views}
    assert by_task.keys() == {"demo.good", "demo.bad", "demo.child"}
    good, bad, child = by_task["demo.good"], by_task["demo.bad"], by_task["demo.child"]
    assert (good["state"], good["reason"], good["exit_code"], good["progress"]) == ("done", None, 0, 1.0)
    assert good["started"] <= good["ended"]
    assert good["tags"]["x"] in (1, 2)
    assert (bad["state"], bad["reason"], bad["exit_code"]) == ("failed", "exit", 1)
    assert "no such key" in bad["message"]
    assert (child["state"], child["reason"]) == ("failed", "dependency")


@pytest.mark.parametrize(
    ("options", "tasks"),
    [
        ([], ["bad", "child", "good", "good"]),
        (["--state", "done"], ["good", "good"]),
        (["--state", "failed"], ["bad", "child"]),
        (["--state", "failed", "--state", "done"], ["bad", "child", "good", "good"]),
        (["--state", "running"], []),
        (["--task", "demo.*"], ["bad", "child", "good", "good"]),
        (["--task", "DEMO.Good"], ["good", "good"]),
        (["--task", "good"], ["good", "good"]),
        (["--task", "goo"], []),
        (["--tag", "x=1"], ["good"]),
        (["--tag", "x=1", "--tag", "x=2"], []),
        (["--tag", "nothing=1"], []),
        (["--experiment", "demo"], ["bad", "child", "good", "good"]),
        (["--experiment", "other"], []),
    ],
)
def test_filters(call, workspace, options, tasks):
    views = json.loads(call("jobs", *options, "--json", "--workdir", workspace).out)
    assert sorted(one["task"] for one in views) == [f"demo.{task}" for task in tasks]


def test_a_table_for_people(call, workspace):
    ran = call("jobs", "--workdir", workspace)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert sorted(line.split("/")[0] for line in lines[2:-1]) == ["demo.bad", "demo.child"], "what is not done"
    assert lines[-1] == "experiment demo: 2 done, 2 failed (all of them: --all)"
    assert call("jobs", "list", "--workdir", workspace).out == ran.out
    ran = call("jobs", "--all", "--workdir", workspace)
    starts = sorted(line.split("/")[0] for line in ran.out.splitlines()[2:])
    assert starts == ["demo.bad", "demo.child", "demo.good", "demo.good"]
    assert (ran.out.count("failed (exit)"), ran.out.count("failed (dependency)")) == (1, 1)
    assert "x=1" in ran.out
    assert "\x1b" not in ran.out, "tags move no cursor"


def test_show_moves_no_cursor_either(call, workspace):
    identifier = json.loads(call("jobs", "--task", "demo.good", "--json", "--workdir", workspace).out)[0]["identifier"]
    ran = call("jobs", "show", identifier, "--workdir", workspace)
    assert identifier in ran.out and "| good" in ran.out
    assert "\x1b" not in ran.out


def test_show(call, workspace):
    ran = call("jobs", "show", "demo.bad", "demo.child", "--json", "--workdir", workspace)
    assert [one["task"] for one in json.loads(ran.out)] == ["demo.bad", "demo.child"]
    ran = call("jobs", "show", "demo.bad", "--workdir", workspace)
    assert "KeyError: 'no such key'" in ran.out and "about to fail" in ran.out


def test_logs_path_and_pull(call, workspace):
    ran = call("jobs", "logs", "--err", "demo.bad", "--workdir", workspace)
    assert ran.out.startswith("about to fail\n")
    ran = call("jobs", "logs", "-f", "demo.bad", "--workdir", workspace)
    assert (ran.code, ran.out) == (0, "")
    assert "failed (exit), has written nothing there\nfor its errors: xpm-hpc jobs logs --err demo.bad/" in ran.err
    (path,) = call("jobs", "path", "demo.bad", "--workdir", workspace).out.splitlines()
    assert (Path(path) / "bad.failed").is_file()
    nothing = f"0 files came back to {path}: nothing is new\n"
    assert call("jobs", "pull", "demo.bad", "--workdir", workspace) == Ran(0, nothing, "")
    assert call("jobs", "pull", "demo.bad", "*.err", "nosuch*", "--workdir", workspace)[:2] == (0, nothing)
    missing = call("jobs", "pull", "demo.bad", "nosuch*", "--workdir", workspace)
    assert missing == Ran(1, nothing, "no file there fits 'nosuch*'\n")


def test_retry_asks_about_those_that_failed_for_others_too(call, workspace):
    ran = call("jobs", "retry", "--state", "failed", "--workdir", workspace)
    asked = "submit 2 jobs again, 1 of them because one that they need failed"
    assert ran == Ran(2, "", f"error: {asked}: nobody is there to be asked\n  add --yes\n")


def test_why_of_a_job_that_is_done(call, workspace):
    ran = call("jobs", "why", "--task", "good", "--tag", "x=1", "--workdir", workspace)
    assert re.fullmatch(r"demo.good/[0-9a-f]{8} is done: it ran on \S+ for [0-9.]+ s\n", ran.out), ran


@pytest.mark.parametrize(
    "argv",
    [
        ["jobs", "show", "demo"],
        ["jobs", "logs", "demo.good"],
        ["jobs", "kill", "demo.good"],
        ["jobs", "path", "demo."],
        ["jobs", "pull", "demo.good"],
    ],
)
def test_a_prefix_that_fits_several(call, workspace, argv):
    ran = call(*argv, "--workdir", workspace)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ") and "jobs begin with" in ran.err
    assert ran.err.count("demo.good/") == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["jobs", "show", "ffffffffffff"], "no job begins with 'ffffffffffff'"),
        (["jobs", "show"], "no job is named"),
        (["jobs", "--tag", "x"], "'x' is not KEY=VALUE"),
        (["jobs", "--state", "finished"], "'finished' is not one of"),
        (["jobs", "--no-such-option"], "No such option"),
        (["jobs", "list", "extra"], "unexpected extra argument"),
        (["nonsense"], "No such command 'nonsense'"),
        (["launchers", "show", "clutser"], "no launcher 'clutser'"),
    ],
)
def test_calls_that_are_wrong(call, workspace, monkeypatch, argv, words):
    monkeypatch.setenv("XPM_HPC_WORKDIR", str(workspace))
    ran = call(*argv)
    assert (ran.code, ran.out, "Traceback" in ran.err) == (2, "", False)
    assert words in ran.err


@pytest.mark.parametrize("command", [["jobs"], ["experiments"], ["jobs", "show", "a"], ["jobs", "kill", "a"]])
def test_a_workspace_that_is_not_there(call, tmp_path, command):
    ran = call(*command, "--workdir", tmp_path / "nowhere")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: {tmp_path}/nowhere: no such folder\n  name a workspace with --workdir\n"


def test_an_empty_workspace(call, tmp_path):
    assert call("jobs", "--workdir", tmp_path) == Ran(0, f"no jobs in {tmp_path}\n", "")
    assert call("jobs", "--json", "--workdir", tmp_path) == Ran(0, "[]\n", "")
    assert call("experiments", "--workdir", tmp_path) == Ran(0, f"no experiments in {tmp_path}\n", "")


def test_the_workspace_that_was_used_last(call, workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert call("jobs").code == 2
    (tmp_path / "xpm-hpc").mkdir()
    (tmp_path / "xpm-hpc" / "workspaces").write_text(f"{workspace}\n")
    assert len(json.loads(call("jobs", "--json").out)) == 4


# --- experiments, launchers


def test_experiments(call, workspace, script):
    ran = call("experiments", "--json", "--workdir", workspace)
    (one,) = json.loads(ran.out)
    assert (one["name"], one["jobs"], one["states"], one["script"]) == ("demo", 4, "2 done, 2 failed", str(script))
    assert call("experiments", "list", "--json", "--workdir", workspace) == ran
    assert "2 done, 2 failed" in call("experiments", "--workdir", workspace).out


def test_launchers(call, nobodys_home):
    own = nobodys_home / "config" / "xpm-hpc" / "launchers"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text('scheduler = "local"\n')
    try:
        found = {one["name"]: one for one in json.loads(call("launchers", "--json").out)}
        whose = {name: one["whose"] for name, one in found.items()}
        assert {"local", "oar", "slurm", "lumi", "g5k-lille"} <= whose.keys()
        assert whose == {**dict.fromkeys(whose, "shipped"), "mine": "user"}
        assert call("launchers", "show", "mine").out == f'# {own}/mine.toml\nscheduler = "local"\n'
        assert "mine" in call("launchers").out
        (own / "mine.toml").write_text('schedular = "local"\n')
        (row,) = (line for line in call("launchers").out.splitlines() if line.startswith("mine "))
        assert row.split() == ["mine", "BROKEN", "user", str(own / "mine.toml")]
        ran = call("launchers", "show", "mine")
        assert (ran.code, "schedular" in ran.err, "Traceback" in ran.err) == (2, True, False)
    finally:
        (own / "mine.toml").unlink()


def test_fit_looks_at_ones_own_launchers_or_at_those_that_ship(call, nobodys_home):
    asked = "gpu(model=gh200) * 4"
    found = {one["launcher"]: one["fits"] for one in json.loads(call("launchers", "fit", asked, "--json").out)}
    assert found["daint"] and not found["lumi"]
    own = nobodys_home / "config" / "xpm-hpc" / "launchers"
    own.mkdir(parents=True, exist_ok=True)
    text = 'scheduler = "slurm"\n[[partitions]]\nname = "a"\n[partitions.options]\npartition = "b"\nqos = "long"\n'
    (own / "mine.toml").write_text(text)
    try:
        ran = call("launchers", "fit", asked, "--json")
        assert (ran.code, [one["launcher"] for one in json.loads(ran.out)]) == (1, ["mine"])
        shown = call("launchers", "fit", "cores=4").out
        assert "mine" in shown and "--partition=b" in shown and "--qos=long" in shown and "daint" not in shown
        assert call("launchers", "fit", asked, "--launcher", "daint").code == 0
    finally:
        (own / "mine.toml").unlink()


# --- Pipes and start-up


@pytest.mark.parametrize("jobs", [0, 1, 3000])
@pytest.mark.parametrize("options", [["--json"], []])
def test_a_reader_that_goes_away_is_no_error(tmp_path, jobs, options):
    """``xpm-hpc jobs | head -1``, whether it all fits into the pipe or not."""
    for number in range(jobs):
        folder = tmp_path / "jobs" / "test.say" / f"{number:08}"
        folder.mkdir(parents=True)
        (folder / "job.json").write_text('{"launcher": null}')
    read_end, write_end = os.pipe()
    os.close(read_end)
    argv = [*XPM_HPC, "jobs", *options, "--workdir", str(tmp_path)]
    ran = subprocess.run(argv, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write_end)
    assert (ran.returncode, ran.stderr) == (0, "")


HEAVY = ("fabric", "paramiko", "jinja2", "tqdm", "invoke", "cryptography", "markupsafe")


@pytest.mark.parametrize(
    ("argv", "more"),
    [
        (["--help"], ("filelock", "experimaestro_hpc.driver", "experimaestro_hpc.schedulers")),
        (["-h"], ()),
        (["--version"], ("filelock", "experimaestro_hpc.driver")),
        (["jobs", "--help"], ()),
        (["jobs", "--json", "--workdir", "{work}"], ()),
        (["run", "--help"], ()),
    ],
)
def test_start_up_is_cheap(tmp_path, argv, more):
    code = (
        "import sys\nfrom experimaestro_hpc.cli import main\n"
        "try: main()\nexcept SystemExit as end: print(end.code, *sys.modules, file=sys.stderr)"
    )
    words = [word.format(work=tmp_path) for word in argv]
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    status, *modules = ran.stderr.split()
    assert status == "0"
    assert not {*HEAVY, *more} & set(modules)


def test_importing_the_package_loads_nothing_else():
    code = "import sys; before = set(sys.modules); import experimaestro_hpc; print(*set(sys.modules) - before)"
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["experimaestro_hpc"]


def test_version_and_help(call):
    assert call("--version").out == f"xpm-hpc, version {__version__}\n"
    shown = call("--help").out
    assert all(f"\n  {command} " in shown for command in ("run", "jobs", "experiments", "launchers"))


@pytest.mark.parametrize(
    ("argv", "meant"), [(["job"], "jobs"), (["jobs", "shwo"], "show"), (["launchers", "ad"], "add")]
)
def test_a_mistyped_command(call, argv, meant):
    ran = call(*argv)
    assert (ran.code, f"Did you mean {meant!r}?" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["jobs", "a485"], "xpm-hpc jobs show a485"),
        (["jobs", "study.train/a4", "--json"], "xpm-hpc jobs show study.train/a4"),
        (["experiments", "no such"], "xpm-hpc experiments show 'no such'"),
        (["launchers", "mycluster"], "xpm-hpc launchers show mycluster"),
        (["jobs", "nonsense"], ""),
    ],
)
def test_a_name_in_place_of_a_command(call, argv, meant):
    ran = call(*argv)
    assert ran.code == 2 and f"No such command '{argv[1]}'." in ran.err
    assert (f"Did you mean {meant}?" in ran.err) if meant else ("Did you mean" not in ran.err)


def leaves(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    """The names of all commands that are no groups."""
    if not isinstance(command, click.Group):
        yield names
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from leaves(inner, *names, name)


def test_each_command_has_an_example(call):
    found = list(leaves(cli))
    assert ("jobs", "list") in found and ("completion",) in found
    for names in found:
        shown = call(*names, "--help").out.partition("\n")[2]
        spellings = {" ".join(names), " ".join(one for one in names if one != "list")}
        assert any(f"xpm-hpc {words}" in shown for words in spellings), names


def test_the_installed_command_is_the_same():
    scripts = Path(sys.executable).parent / "xpm-hpc"
    if not scripts.exists():
        pytest.skip("the package is not installed beside this Python")
    ran = subprocess.run([scripts, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"xpm-hpc, version {__version__}\n"


@pytest.mark.parametrize("is_debugging", [False, True])
def test_a_plain_script_ends_like_run(script, tmp_path, is_debugging):
    argv = [sys.executable, str(script), str(tmp_path / "work"), "greedy"]
    environ = {**os.environ, "XPM_HPC_DEBUG": "1" if is_debugging else ""}
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert (ran.returncode, "Traceback" in ran.stderr) == (2, is_debugging)
    assert "launcher local: local: 1000 GPUs asked for" in ran.stderr
    assert is_debugging or ran.stderr.startswith("error: ")
