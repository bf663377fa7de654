"""What ``xpm-hpc run`` makes of scripts: what Python makes of them, and a word where something was meant otherwise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_cli import Ran, run

from experimaestro_hpc import Param, RunMode, Task, experiment
from experimaestro_hpc.driver.monitor import Monitor
from experimaestro_hpc.errors import ConnectionFailed, ParameterError, XpmError
from experimaestro_hpc.workspace.words import with_short_ids

Run = Callable[..., Ran]

HEAD = """
import sys, time
from experimaestro_hpc import Param, Task, experiment

class Wait(Task):
    seconds: Param[float]
    def execute(self):
        time.sleep(self.seconds)

class Idle(Task):
    n: Param[int] = 0
"""


@pytest.fixture
def of(tmp_path: Path, end_runners: Callable[[Path], None]) -> Iterator[Run]:
    """Run a script with these lines; its workspace is ``work``."""

    def of(lines: str, *options: str) -> Ran:
        path = tmp_path / "study.py"
        path.write_text(f"{HEAD}\n{lines}\n")
        return run("run", *options, path, cwd=tmp_path)

    yield of
    end_runners(tmp_path / "work")


def test_annotations_are_what_they_are_to_python(tmp_path):
    script = tmp_path / "s.py"
    script.write_text("def f(x: int): pass\nprint(f.__annotations__)\ndef g(x: nosuch): pass\n")
    plain = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    ran = run("run", script)
    assert (ran.out, ran.code) == (plain.stdout, plain.returncode) == ("{'x': <class 'int'>}\n", 1)
    assert "NameError: name 'nosuch' is not defined" in ran.err


@pytest.mark.parametrize(
    ("lines", "options", "status", "words"),
    [
        ("pass", ["--scripts"], 2, "--scripts shows what --dry-run would submit: give both"),
        ('with experiment("work", "x"): pass', [], 0, "experiment x: no task was submitted"),
        ('with experiment("work", "x"): Idle().submit()', [], 2, "Idle has no execute method"),
        ('with experiment("study.py", "x"): Wait(seconds=0).submit()', [], 2, "study.py: the workspace cannot be used"),
    ],
)
def test_what_was_meant_otherwise(of, lines, options, status, words):
    ran = of(lines, *options)
    assert ran.code == status and words in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_jobs_that_go_on_after_the_script_has_failed_are_told(of, tmp_path):
    ran = of("with experiment('work', 'x'):\n  Wait(seconds=60).submit()\n  Wait(seconds=0).submit().result()\n  1 / 0")
    assert ran.code == 1 and "ZeroDivisionError" in ran.err
    cancel = f"xpm-hpc experiments cancel x --workdir {tmp_path / 'work'}"
    assert f"the script has failed, and 1 job may go on; to end them: {cancel}" in ran.out


def test_a_workspace_that_cannot_be_written(tmp_path, monkeypatch):
    xp = experiment(tmp_path / "work", "x", launcher="local")
    monkeypatch.setattr(xp, "_send", lambda: (tmp_path / "gone" / "file").touch())
    with pytest.raises(XpmError, match="a file of the workspace cannot be written: No such file") as caught:
        xp.wait()
    assert (caught.value.where, caught.value.exit_status) == (str(tmp_path / "gone" / "file"), 2)


class Plain(Task):
    n: Param[int] = 0
    forgotten: float = 1.0

    def execute(self) -> None:
        pass


@pytest.fixture
def dry(tmp_path):
    with experiment(tmp_path / "work", "dry", run_mode=RunMode.DRY_RUN, launcher="local") as xp:
        yield xp


def test_tags_of_what_is_submitted_twice_are_those_of_both(dry):
    Plain(n=1).tag("a", 1).submit()
    Plain(n=1).tag("b", 2).submit()
    (job,) = dry.jobs.values()
    assert job.tags == {"a": 1, "b": 2}


def test_a_tag_that_comes_too_late_is_refused(dry):
    task = Plain().submit()
    with pytest.raises(XpmError, match="Plain was submitted, and its tags were noted\n  first tag"):
        task.tag("late", 1)


def test_an_annotation_that_is_no_parameter_is_named():
    with pytest.raises(ParameterError) as caught:
        Plain(forgotten=2.0)
    assert caught.value.hint == "write its type as Param[…]: `forgotten: Param[…]`"


def test_identifiers_are_short_for_people_and_paths_whole():
    job = "study.train/" + "0123456789abcdef" * 4
    assert with_short_ids(f"{job} needs {job}, see /w/jobs/{job}/train.err and jobs/{job}") == (
        f"study.train/01234567 needs study.train/01234567, see /w/jobs/{job}/train.err and jobs/{job}"
    )


def test_all_that_can_be_reached_is_cancelled(capsys):
    """The first launcher is away, the second has nothing to cancel, the third has."""
    asked: list[Any] = []

    def session(name: str) -> Any:
        def call(_operation: str, jobs: list[str]) -> Any:
            asked.append((name, jobs))
            if name == "away":
                raise ConnectionFailed("the host does not answer", where="host away")
            return {"cancelled": jobs}

        return SimpleNamespace(place=name, client=SimpleNamespace(call=call, close=lambda: None))

    sessions = {name: session(name) for name in ("away", "idle", "good")}
    monitor = Monitor(sessions, {"t/a": "away", "t/b": "idle", "t/c": "good"})
    monitor.states["t/b"] = {"state": "done"}
    assert monitor.cancel() == 1
    assert asked == [("away", ["t/a"]), ("good", ["t/c"])]
    assert "1 job on away could not be cancelled: host away: the host does not answer" in capsys.readouterr().out
