"""Results of deprecated classes and parameters: a script runs, is changed, and runs again with nothing left to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import ssh

from experimaestro_hpc.agent.adopt import adopt
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.place import place

HEAD = """
from typing import Any
import sys
from experimaestro_hpc import *

class Read(Task):
    parent: Param[Task]
    again: Param[int] = 0
    def execute(self):
        print("read", self.parent.__xpm_stdout__.read_text().strip())
"""
OLD = """
class Model(Config):
    size: Param[int]

class Train(Task):
    rate: Param[int]
    model: Param[Model]
    def execute(self):
        print("trained", self.rate, self.model.size)

def make():
    return Train(rate=2, model=Model(size=3))
"""
NEW = """
class Net(Config):
    size: Param[int]

@deprecate
class Model(Net):
    pass

class Learn(Task):
    rates: Param[list[float]]
    net: Param[Net]
    note: Param[str] = ""
    @deprecate
    def rate(self, value):
        self.rates = [value, float(self.net.size)]
    @deprecate
    def model(self, value):
        self.net = value
        assert value.size == 3
    def execute(self):
        assert self.rates == [2.0, 3.0], self.rates
        print("learnt", self.rates)

@deprecate
class Train(Learn):
    pass

def make():
    return Learn(rates=[2, 3], net=Net(size=3))
"""
NEWER = NEW.replace("class Learn(", "class Fit(") + "\n@deprecate\nclass Learn(Fit): pass\n"
NEWER = NEWER.replace("class Train(Learn):\n    pass\n", "class Train(Fit):\n    pass\n")
NEWER = NEWER.replace("return Learn(", "return Fit(")
TAIL = """
if __name__ == "__main__":
    with experiment(sys.argv[1], "former") as xp:
        for number in range(int(sys.argv[2])):
            task = make()
            task.submit()
            if "early" in sys.argv:
                task.result()
            Read(parent=Read(parent=task, again=number).submit(), again=number).submit()
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "work"
        self.out = ""

    def run(self, text: str, *words: str, status: int = 0, root: Path | None = None, **environ: str) -> list[str]:
        """Run the script with this text; returns what became of jobs, one line each."""
        (self.folder / "script.py").write_text(HEAD + text + TAIL)
        ran = subprocess.run(
            [sys.executable, "script.py", str(root or self.root), *(words or ("1",))],
            cwd=self.folder,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == status, ran.stdout + ran.stderr
        self.out = ran.stdout
        return [line.split("/")[0].strip() for line in ran.stdout.splitlines() if line.startswith("  script.")]

    def logs(self) -> list[str]:
        """What all jobs printed; what has two names, once."""
        return sorted(path.read_text() for path in self.root.glob("jobs/*/*/*.out") if not path.parent.is_symlink())


@pytest.fixture
def project(tmp_path, end_runners):
    (tmp_path / "a project").mkdir()
    made = Project(tmp_path / "a project")
    yield made
    end_runners(made.root)


def test_nothing_runs_again(project):
    """The task under another name and other parameters, its child, and the child's child, which hold it."""
    assert set(project.run(OLD)) == {"script.train", "script.read"}
    before = project.logs()
    assert len(before) == 3
    assert project.run(NEW) == []
    assert "3 jobs on local" in project.out and "3 done before" in project.out
    assert project.run(NEW) == [] and "3 done before" in project.out
    links = [path for path in project.root.glob("jobs/*/*") if path.is_symlink()]
    assert sorted(path.parent.name for path in links) == ["script.learn", "script.read", "script.read"]
    assert not any(path.readlink().is_absolute() for path in links)  # the workspace may be moved
    assert {path.name for path in project.root.glob("jobs/script.learn/*/*.done")} == {"train.done", "learn.done"}
    # a second renaming finds what was found before
    assert project.run(NEWER) == [] and "3 done before" in project.out
    # a new child in a process of its own reads the parent's files, under the name that the log has now
    assert set(project.run(NEWER, "2")) == {"script.read"}
    assert project.logs().count("read trained 2 3\n") == 2


@pytest.mark.parametrize(
    ("start", "classes", "main"),
    [
        (["main.py"], "library.py", "main.py"),
        (["-m", "pack"], "pack/__main__.py", "pack/__main__.py"),
        (["-m", "pack.script"], "pack/script.py", "pack/script.py"),
        (["-m", "pack.script"], "pack/library.py", "pack/script.py"),
    ],
)
def test_wherever_the_classes_are(project, start, classes, main):
    def run(text: str) -> str:
        for name in (classes, main):
            (project.folder / name).parent.mkdir(exist_ok=True)
        module = classes.removesuffix(".py").replace("/", ".")
        (project.folder / main).write_text(
            f"import sys\nfrom {module} import *\nfrom experimaestro_hpc import *\n{TAIL}"
        )
        (project.folder / classes).write_text(HEAD + text + (TAIL if classes == main else ""))
        argv = [sys.executable, *start, str(project.root), "1"]
        ran = subprocess.run(
            argv, cwd=project.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert "3 to run" in run(OLD)
    assert "3 done before" in run(NEW)


def test_children_of_a_parent_that_was_found_before(project):
    project.run(OLD)
    assert project.run(NEW, "1", "early") == []
    assert project.out.count("done before") == 2


def test_a_dry_run_says_so_and_touches_nothing(project):
    project.run(OLD)
    files = sorted(project.root.rglob("*"))
    dry = NEW + "\nimport functools\nexperiment = functools.partial(experiment, run_mode=RunMode.DRY_RUN)\n"
    assert len(project.run(dry)) == 3
    assert "done as script.train/" in project.out and "would be submitted" not in project.out
    assert sorted(project.root.rglob("*")) == files


def test_without_deprecate_all_is_new(project):
    project.run(OLD)
    assert set(project.run(NEW.replace("@deprecate\nclass Train(Learn):", "class Train(Learn):"))) == {
        "script.learn",
        "script.read",
    }


def test_failed_results_are_not_found(project):
    project.run(OLD.replace("print(", "raise ValueError("), status=1)
    assert set(project.run(NEW)) == {"script.learn", "script.read"}
    assert any("learnt [2.0, 3.0]" in text for text in project.logs())


def test_a_parameter_that_nobody_replaced(project):
    """A result of ``seed=1`` is none of a class that knows no seed."""
    seeded = OLD.replace("rate: Param[int]", "rate: Param[int]\n    seed: Param[int]").replace(
        "rate=2", "rate=2, seed=1"
    )
    project.run(seeded)
    assert set(project.run(NEW)) == {"script.learn", "script.read"}


def test_what_lies_about_in_the_old_folder_is_no_harm(project):
    project.run(OLD)
    (folder,) = project.root.glob("jobs/script.train")
    (job,) = folder.iterdir()
    for name, text in {"copy of it": "{}", "0a": "{", "0b": "[]", "0c": '{"schema": 9}', "0d": "null"}.items():
        (folder / name).mkdir()
        (folder / name / "params.json").write_text(text)
        (folder / name / "train.done").write_text("{}")
    circle = json.loads((job / "params.json").read_text())
    circle["configs"][0]["params"]["model"] = {"$task": "script.train/0e"}
    (folder / "0e").mkdir()
    (folder / "0e" / "params.json").write_text(json.dumps(circle))
    assert project.run(NEW) == []
    assert "3 done before" in project.out


LONG = """
class First(Task):
    n: Param[int] = 0
    before: Param[Any] = None
    def execute(self): pass
def make():
    task = First().submit()
    for n in range(1, 300):
        task = First(n=n, before=task).submit()
    return First(n=-1, before=task)
"""


def test_a_long_chain_is_found(project):
    """Written by hand: 300 tasks, one on the other, whose first is of a deprecated class."""
    launch = "\nexperiment_ = experiment\ndef experiment(*a): return experiment_(*a, run_mode=RunMode.GENERATE_ONLY)\n"
    project.run(LONG + launch)
    for path in project.root.glob("jobs/*/*"):
        (path / f"{path.parent.name.split('.')[1]}.done").write_text('{"state": "done"}')
    new = LONG.replace("class First(Task)", "class Start(Task)").replace("First(", "Start(")
    assert project.run(new + "\n@deprecate\nclass First(Start): pass\n") == []
    assert "303 jobs on local" in project.out and "303 done before" in project.out


def test_found_on_a_cluster(project, end_runners):
    """Over ``ssh``, which here runs its command on this machine; results were not brought back before."""
    launcher = ssh(project.folder.parent, 'exec sh -c "$command"')
    environ = {"PATH": f"{project.folder.parent}:{os.environ['PATH']}", "XPM_HPC_LAUNCHER": str(launcher)}
    cluster = project.folder.parent / "cluster"
    try:
        project.run(OLD, **environ)
        for marker in project.root.glob("jobs/*/*/*.done"):
            marker.unlink()
        assert project.run(NEW, **environ) == []
        assert "3 done before" in project.out
        (marker,) = project.root.glob("jobs/script.learn/*/learn.done")
        (log,) = project.root.glob("jobs/script.learn/*/learn.out")
        assert log.read_text() == "trained 2 3\n"
        assert project.run(NEW, **environ) == []
        assert project.run(NEWER, **environ) == []
        assert set(project.run(NEWER, "2", **environ)) == {"script.read"}
        assert (project.root / ".xpm" / "lib").exists() is False  # all of it ran over there
    finally:
        end_runners(cluster)


# --- the agent's half ---


def done(layout: Layout, job: str, state: str = "done") -> Path:
    folder = layout.job(job)
    folder.mkdir(parents=True)
    name = job.split("/")[0].rpartition(".")[2]
    (folder / f"{name}.{state}").write_text("{}")
    (folder / f"{name}.out").write_text("said")
    return folder


def test_adopting(tmp_path):
    layout = Layout(tmp_path)
    done(layout, "m.old/1")
    done(layout, "m.old/2", "failed")
    done(layout, "m.old/3")
    done(layout, "m.new/3", "failed")
    layout.job("m.old/4").mkdir()
    former = {f"m.new/{n}": f"m.old/{n}" for n in (1, 2, 3, 4, 5)}
    for _ in range(2):  # the second time, and after a half-done first one
        assert adopt(layout, former) == ["m.new/1"]
        (tmp_path / "jobs/m.old/1/new.done").unlink()
    assert adopt(layout, former) == ["m.new/1"]
    marker = layout.marker("m.new/1")
    assert marker is not None and marker["state"] == "done"
    assert Path(layout.stem("m.new/1") + ".out").read_text() == "said"
    assert not os.path.lexists(layout.stem("m.new/1") + ".err")  # there was none
    assert not layout.job("m.new/2").exists()
    failed = layout.marker("m.new/3")
    assert failed is not None and failed["state"] == "failed"


def test_adopting_anew_what_was_adopted_from_a_job_that_is_no_more(tmp_path):
    layout = Layout(tmp_path)
    for old in ("m.old/1", "m.older/1"):
        done(layout, old)
        assert adopt(layout, {"m.new/1": old}) == ["m.new/1"]
        assert layout.marker("m.new/1") is not None
        shutil.rmtree(layout.job(old))
    assert adopt(layout, {"m.new/1": "m.old/1"}) == []


def test_a_result_comes_from_elsewhere_to_a_name_that_led_to_one_that_is_no_more(tmp_path):
    layout, incoming = Layout(tmp_path / "here"), Layout(tmp_path / "incoming")
    done(incoming, "m.new/1")
    old = done(layout, "m.old/1")
    adopt(layout, {"m.new/1": "m.old/1"})
    shutil.rmtree(old)
    assert place(layout, incoming.root, ["m.new/1"]) == ["m.new/1"]


@pytest.mark.parametrize("job", ["../x/1", "m.new/../1", "m.new", ""])
def test_adopting_under_a_name_that_is_none(tmp_path, job):
    layout = Layout(tmp_path)
    done(layout, "m.old/1")
    with pytest.raises(Exception, match="is no job id"):
        adopt(layout, {job: "m.old/1"})
