"""A user's script inside a job: its tasks are found, its experiment does not run, its command line is not needed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from job_directory import Workspace, lib

from experimaestro_hpc.config import script as module
from experimaestro_hpc.config.script import LAPTOP_PACKAGES, ExperimentReached, run_script

SAY = """
from experimaestro_hpc import Param, Task, experiment
class Say(Task):
    word: Param[str] = "said"
    def execute(self):
        print(self.word)
"""


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def said(workspace: Workspace, text: str, *options: str, name: str = "tasks.py", **job: object):
    """Run the task of a script; it must have run well, and have said its word and no more."""
    workspace.script(text, name)
    ended = workspace.job("Say", {"word": "said"}, file=name, **job).run(*options)
    assert (ended.stderr, ended.stdout, ended.returncode) == ("", "said\n", 0)


@pytest.mark.parametrize(
    "end",
    [
        "",
        "if __name__ == '__main__':\n    raise SystemExit('it is no main here')",
        "with experiment('work', 'e') as xp:\n    print('not here')\nprint('nor here')",
        "def main():\n    with experiment('work', 'e', port=0): print('no')\nmain()",
        "try:\n    experiment('work', 'e')\nexcept Exception:\n    print('swallowed')",
        "import experimaestro_hpc as x\nwith x.experiment('w', 'e'): print('no')",
        "from experimaestro_hpc import *\nwith experiment('w', 'e'): print('no')",
        "xp = experiment('w', 'e')\nxp.wait()\nprint('no')",
        "import sys\nsys.exit()",
        "import sys\nsys.exit(3)",
        "raise SystemExit('usage: …')",
        "raise SystemExit",
        "from experimaestro_hpc import RunMode, XpmError, Resources, tqdm, progress, identifier\nprint",
    ],
)
def test_the_experiment_does_not_run(workspace, end):
    said(workspace, f"{SAY}\n{end}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "from experimaestro_hpc import *\nwith experiment('w', 'e'): pass\n" + SAY,
            "does not define Say before its exp",
        ),
        ("import sys\nsys.exit()\n" + SAY, "does not define Say before its experiment starts; move the class up"),
        ("raise SystemExit('usage')\n" + SAY, "does not define Say before its experiment starts"),
        (SAY.replace("Say", "Shout"), "does not define Say before its experiment starts"),
        (SAY + "raise ValueError('at the end')", "ValueError: at the end"),
        (SAY + "raise KeyboardInterrupt", None),
    ],
)
def test_a_script_that_does_not_get_that_far(workspace, text, message):
    workspace.script(text)
    job = workspace.job("Say")
    assert job.run().returncode == 1
    if message:
        assert job.marker["reason"] == "launch"
        assert message in job.marker["message"]
        assert "install it" not in job.marker["message"]


# --- packages of the laptop ---

CLICK = """
import click
from click import argument, option as opt, UsageError
from click.testing import CliRunner
import click.decorators as deco
from pathlib import Path
class Mine(click.ParamType):
    name = "mine"
    def convert(self, value, param, ctx): return value
class Two(Mine, click.Choice): pass
kind = click.Path(exists=True, path_type=Path)
@click.group(context_settings={"help_option_names": ["-h"]})
@click.version_option("1")
def cli(): print("no")
@cli.command(name="run")
@opt("--n", type=click.IntRange(0, 3), default=1)
@argument("path", type=Mine())
@deco.pass_context
def run(ctx, path, n):
    with experiment(path, "e"): print("no")
"""


@pytest.mark.parametrize("call", ["", "cli()", "import sys\nsys.exit(cli())", "if __name__ == '__main__': cli()"])
def test_click_is_not_needed(workspace, call):
    """The helloworld's way: -S leaves this test's own packages out."""
    said(workspace, f"{SAY}\n{CLICK}\n{call}\n")


@pytest.mark.parametrize("package", LAPTOP_PACKAGES)
def test_packages_that_only_the_laptop_has(workspace, package):
    said(workspace, f"import {package}\nfrom {package}.some.where import thing\nx = thing(1)(2).y(z=3)\n{SAY}")


@pytest.mark.parametrize("how", ["__import__('click')", "__import__('importlib').import_module('click')"])
def test_other_ways_to_import(workspace, how):
    said(workspace, f"click = {how}\n@click.command()\ndef main(): pass\n{SAY}")


@pytest.mark.parametrize("folder", ["importlib study", "my.importlib/x"])
def test_a_folder_may_have_any_name(workspace, folder):
    said(workspace, f"import click\n{SAY}", name=f"{folder}/tasks.py")


@pytest.mark.parametrize(
    ("use", "printed"),
    [
        ("click.echo('x')", "No module named 'click' here: a task uses it, so install it in the cluster's environment"),
        ("echo('x')", "No module named 'click' here: a task uses it"),
        ("bar(range(3))", "No module named 'tqdm' here: a task uses it"),
        ("echo.attribute", "No module named 'click' here: a task uses it"),
        ("__import__('click')", "No module named 'click'"),
        ("__import__('click.testing')", "No module named 'click'"),
    ],
)
def test_a_task_that_uses_them_is_told(workspace, use, printed):
    """And at once: a silent stand-in would let it go on with nonsense."""
    use = f"import click\nfrom click import echo\nfrom tqdm import tqdm as bar\n{SAY}        {use}\n"
    workspace.script(use)
    job = workspace.job("Say", {"word": "said"})
    ended = job.run()
    assert ended.stdout == "said\n"
    assert job.marker["reason"] == "exit"
    assert job.marker["message"].startswith(f"ModuleNotFoundError: {printed}")


def test_a_library_finds_them_missing(workspace):
    """One that looks for an optional package must not take a stand-in for it."""
    workspace.script("try:\n    import tqdm\nexcept ImportError:\n    tqdm = None\nassert tqdm is None\n", "library.py")
    said(workspace, f"import click\nimport library\n{SAY}")


def test_the_real_one_is_used_where_there_is_one(workspace):
    workspace.script("def command(): return lambda function: function\nreal = True\n", "click.py")
    said(workspace, f"import click\nassert click.real\n{SAY}        assert click.real\n")


def test_nothing_else_has_a_stand_in(workspace):
    workspace.script(f"import numpy_of_tomorrow\n{SAY}")
    job = workspace.job("Say")
    assert job.run().returncode == 1
    assert "No module named 'numpy_of_tomorrow'" in job.marker["message"]


def test_a_missing_module_of_a_package_that_is_there(workspace):
    """A stand-in inside a real package would hide a wrong version."""
    workspace.script("", "click/__init__.py")
    workspace.script(f"import click\ntry:\n    click.command\nexcept AttributeError: pass\n{SAY}")
    assert workspace.job("Say").run().returncode == 0


# --- names ---


@pytest.mark.parametrize(
    ("name", "file"),
    [("my script", "my script.py"), ("2nd", "2nd.py"), ("é", "é.py"), ("deep", "a/b c/deep.py"), ("x.y", "x.y.py")],
)
def test_a_script_may_be_called_anything(workspace, name, file):
    said(workspace, SAY, name=file, module=name)


def test_a_script_called_like_a_module_of_pythons(workspace):
    said(workspace, SAY, name="code.py", module="code")


def test_parents_of_the_same_script_import_it_once(workspace):
    workspace.script("print('imported')\n" + SAY.replace("print(self.word)", "print(self.before.before.word)"))
    first = workspace.job("Say", {"word": "one"}, identifier="a")
    second = workspace.job("Say", {"word": "two", "before": {"$task": first.id}}, identifier="b")
    last = workspace.job("Say", {"word": "three", "before": {"$task": second.id}}, identifier="c")
    assert last.run().stdout == "imported\none\n"


def test_the_module_is_like_an_imported_one(workspace):
    look = (
        "import sys\nassert sys.modules[__name__].__dict__ is globals()\n"
        "assert (__name__, __file__, __spec__.name, __loader__.name) == ('tasks', __spec__.origin, 'tasks', 'tasks')\n"
        "import pickle, dataclasses\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n"
        "assert pickle.loads(pickle.dumps(Point(1))) == Point(1)\n"
    )
    said(workspace, look + SAY)


def test_children_of_a_task_import_its_script(workspace):
    """What multiprocessing's spawn does: another process finds the function by its module's name."""
    start = "import subprocess, sys\ndef work(): return 7\n" + SAY
    start += (
        "        subprocess.run([sys.executable, '-S', '-c', 'import tasks; assert tasks.work() == 7'], check=True)\n"
    )
    workspace.script(start)
    ended = workspace.job("Say", {"word": "said"}).run(PYTHONPATH=f"{workspace.code}:{lib()}")
    assert (ended.stderr, ended.returncode) == ("", 0)


# --- in this process ---


@pytest.fixture
def path(tmp_path, monkeypatch):
    made = tmp_path / "sample_script.py"
    monkeypatch.setitem(sys.modules, "sample_script", None)
    return made


def test_what_is_found_stays(path):
    path.write_text("x = 1\nraise SystemExit")
    made = run_script("sample_script", str(path), "x")
    assert made.x == 1
    assert sys.modules["sample_script"] is made


def test_what_failed_does_not_stay(path):
    path.write_text("x = 1\n1 / 0")
    before = list(sys.meta_path)
    with pytest.raises(ZeroDivisionError):
        run_script("sample_script", str(path), "x")
    assert "sample_script" not in sys.modules
    assert sys.meta_path == before


def test_nothing_of_the_stand_ins_stays(path, monkeypatch):
    monkeypatch.setattr(module, "LAPTOP_PACKAGES", ("clack",))
    path.write_text("import clack.deep\nfrom clack import a\nb = clack.deep.x(1)\nc = 1\n")
    before = list(sys.meta_path)
    made = run_script("sample_script", str(path), "c")
    assert not [name for name in sys.modules if name.startswith("clack")]
    assert sys.meta_path == before
    for use in (lambda: made.a(), lambda: made.b.c, lambda: made.clack.d, lambda: made.clack.deep.e):
        with pytest.raises(ModuleNotFoundError, match=r"No module named 'clack.*' here"):
            use()


def test_experiment_is_no_exception():
    with pytest.raises(ExperimentReached):
        module.experiment("w", name="x")
    assert not issubclass(ExperimentReached, Exception)


def test_the_name_experiment_depends_on_where_it_is():
    look = "import experimaestro_hpc as x; print(x.experiment.__module__)"
    env = {"PYTHONPATH": str(lib())}
    there = subprocess.run(
        [sys.executable, "-S", "-c", look],
        env={**env, "XPM_HPC_JOB": "a/1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout == "experimaestro_hpc.config.script\n"
    here = subprocess.run([sys.executable, "-c", look], env={}, capture_output=True, text=True, check=True)
    assert here.stdout == "experimaestro_hpc.driver.experiment\n"
