"""What runs on clusters: the standard library of Python 3.9 and newer is all it needs, and little of that."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from job_directory import Workspace, lib

from experimaestro_hpc.driver.ship import SHIPPED, build, install, shipped_files

PACKAGE = "experimaestro_hpc"
FILES = shipped_files()
MODULES = sorted(name for name in FILES if name.startswith(f"{PACKAGE}/"))
#: what newer Pythons have and 3.9 has not, and what they have no longer
NOT_EVERYWHERE = {
    *("annotationlib", "compression", "tomllib"),
    *("aifc", "asynchat", "asyncore", "audioop", "binhex", "cgi", "cgitb", "chunk", "crypt", "distutils", "formatter"),
    *("imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "parser", "pipes", "smtpd"),
    *("sndhdr", "spwd", "sunau", "symbol", "telnetlib", "uu", "xdrlib"),
}


def module_of(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


SHIPPED_MODULES = {module_of(name) for name in MODULES}


def find_python(version: str) -> str | None:
    """The interpreter of a version; no shim, which may stand for nothing."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if version == own:
        return sys.executable
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    usual = shutil.which(f"python{version}")
    return str(found[-1]) if found else usual if usual and "shims" not in Path(usual).parts else None


#: found now: tests have another home
NEW = {version: path for version in (f"3.{minor}" for minor in range(9, 20)) if (path := find_python(version))}
OLD = {version: find_python(version) for version in ("2.7", "3.6", "3.7", "3.8")}
each_python = pytest.mark.parametrize("python", NEW.values(), ids=NEW)


def imports(name: str) -> Iterator[tuple[int, str]]:
    """All modules that a file imports, wherever in it, with the line; a relative one by its full name."""
    package = module_of(name).split(".") if name.endswith("__init__.py") else module_of(name).split(".")[:-1]
    for node in ast.walk(ast.parse(FILES[name])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in SHIPPED_MODULES or not node.module else base
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "__import__":
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                yield node.lineno, argument.value


def wrong_imports(name: str) -> list[tuple[int, str]]:
    """Names of our own must be shipped too; all others are Python's, in every version."""
    wrong = []
    unused = only_on_the_laptop(name)
    for line, module in imports(name):
        top, _, _ = module.partition(".")
        if top == PACKAGE:
            ok = module in SHIPPED_MODULES or module.rpartition(".")[0] in SHIPPED_MODULES - {PACKAGE}
        else:
            ok = top in sys.stdlib_module_names and top not in NOT_EVERYWHERE
        if not ok and line not in unused:
            wrong.append((line, module))
    return wrong


@pytest.mark.parametrize("name", MODULES)
def test_imports(name):
    assert wrong_imports(name) == []


def only_on_the_laptop(name: str) -> set[int]:
    """Lines that never run on a cluster: under TYPE_CHECKING; or that only a Python runs which has what they import."""
    return {
        inner.lineno
        for node in ast.walk(ast.parse(FILES[name]))
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "sys.version_info >= (3, 14)")
        for one in node.body
        for inner in ast.walk(one)
        if hasattr(inner, "lineno")
    }


def test_the_check_of_imports_sees_them(monkeypatch):
    """The test above must be able to fail."""
    name = f"{PACKAGE}/runtime/run.py"
    lines = [
        "import os.path, tomllib",
        "def f():",
        "    import click",
        "    from ..driver import plan",
        "    from .. import cli",
        "    from ..driver.plan import x",
        "    import experimaestro_hpc.web",
        "    __import__('tqdm')",
        "    from ..errors import XpmError",
        "    from . import files",
        "    from .. import errors",
        "if TYPE_CHECKING:",
        "    from numpy import array",
        "if sys.version_info >= (3, 14):",
        "    import annotationlib",
        "if sys.version_info >= (3, 9):",
        "    import annotationlib",
    ]
    monkeypatch.setitem(FILES, name, "\n".join(lines).encode())
    assert sorted(wrong_imports(name)) == [
        (1, "tomllib"),
        (3, "click"),
        (4, f"{PACKAGE}.driver"),
        (5, f"{PACKAGE}.cli"),
        (6, f"{PACKAGE}.driver.plan"),
        (7, f"{PACKAGE}.web"),
        (8, "tqdm"),
        (17, "annotationlib"),
    ]


@pytest.mark.parametrize("name", sorted(FILES))
def test_grammar(name):
    ast.parse(FILES[name], name, feature_version=(3, 9))


def test_this_python_is_among_those_that_are_tried():
    assert sys.executable in NEW.values()


@each_python
def test_every_module_compiles_and_loads(python, tmp_path):
    """Without site-packages, each in the Python that it will meet; the zip itself is what is imported."""
    (tmp_path / "lib.zip").write_bytes(build().zip())
    names = sorted(module for module in SHIPPED_MODULES if not module.endswith("__main__"))
    look = f"""
import sys, importlib, warnings
warnings.simplefilter("error")
sys.path.insert(0, {str(tmp_path / "lib.zip")!r})
for name in {names!r}:
    importlib.import_module(name)
foreign = [m.__file__ for m in list(sys.modules.values()) if "site-packages" in (getattr(m, "__file__", "") or "")]
assert not foreign, foreign
"""
    ended = subprocess.run([python, "-I", "-S", "-c", look], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


TASKS = """
import enum, sys
from pathlib import Path
from typing import List, Optional
from experimaestro_hpc import Config, Meta, Param, PathGenerator, Task, experiment, field, progress, tqdm

class Colour(enum.Enum):
    RED = 1

class Model(Config):
    size: Param[int] = 3
    path: Meta[Path] = field(default_factory=PathGenerator("model.pt"))

class Say(Task):
    word: Param[str]
    values: Param[list]
    model: Param[Model]
    before: Param[Optional["Say"]] = None
    names: Param[List[str]] = []

    def execute(self):
        for _ in tqdm(range(3), desc="epoch"):
            pass
        self.model.path.write_text(self.word)
        assert self.names == [] and Model(size=4).size == 4
        if self.before:
            print(self.before.model.path.read_text(), self.before.before, self.values)

with experiment("w", "e"):
    print("not here")
"""


@each_python
def test_a_job_from_start_to_end(python, tmp_path):
    workspace = Workspace(tmp_path)
    workspace.script(TASKS)
    model = {"class": "Model", "params": {"size": 3, "path": {"$jobpath": "model.pt"}}}
    values = [{"$set": [1]}, {"$float": "inf"}, {"$int": "0x1" + "0" * 20}, {"$str": [0x20AC]}, {"$dict": [[1, None]]}]
    enum = {"$enum": {"module": "tasks", "file": "tasks.py", "name": "Colour", "member": "RED"}}
    params = {"word": "é", "values": [*values, enum], "model": {"$config": 1}, "before": None}
    first = workspace.job("Say", params, configs=[model], identifier="a")
    ended = first.run(python=python)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "")
    assert first.read("progress.json")["progress"] == [{"value": 1.0, "desc": "epoch"}]
    second = workspace.job(
        "Say", {**params, "before": {"$task": first.id}}, configs=[model], identifier="b", parents=[first.id]
    )
    ended = second.run(python=python, PYTHONIOENCODING="utf-8")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"é None [{{1}}, inf, {16**20}, '€', {{1: None}}, <Colour.RED: 1>]\n"
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    assert second.marker["python"] == version
    failing = workspace.job("Say", {**params, "before": 3}, configs=[model], identifier="c")
    assert failing.run(python=python).returncode == 1
    assert failing.marker["message"].startswith("AttributeError: 'int' object has no attribute 'model'")


@each_python
def test_json_is_read_and_written_alike(python):
    """The parser in C is used directly; what is broken must be a ValueError in each version, without json loaded."""
    broken = ["", "{", "[", '"', "[1,", '{"a"', '{"a":1,}', "nul", "-", "1 2", "\ufeff1", '"\x01"', '"\\x"', "{'a':1}"]
    whole = [None, True, [1, -2.5, "é\ud800\U0001f600\0"], {"a": {"b": []}, "c": [2**70]}, "", 0]
    look = f"""
import sys
from experimaestro_hpc.config.jsonlight import dumps, loads
for text in {broken!a}:
    for module in [m for m in sys.modules if m == "json" or m.startswith("json.")]:
        del sys.modules[module]
    try: loads(text)
    except ValueError: pass
    else: print("read", ascii(text))
print(dumps([loads(text) for text in {[json.dumps(value) for value in whole]!a}]))
"""
    ended = subprocess.run(
        [python, "-S", "-c", look], env={"PYTHONPATH": str(lib())}, capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
    assert ended.stdout == json.dumps(whole) + "\n"


# --- start-up ---


def test_import_loads_nothing_of_others():
    """As it is installed here, with all dependencies at hand."""
    look = (
        "import sys; before = set(sys.modules); import experimaestro_hpc as x; x.Task, x.Param, x.field\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in said if not name.startswith(PACKAGE)} <= {"__future__"}
    assert {name.split(".")[1] for name in said if name.startswith(f"{PACKAGE}.")} == {"config"}


def test_public_names_load_nothing_of_others():
    """All but experiment, which is the laptop's."""
    look = (
        "import sys; import experimaestro_hpc as x\n"
        "for name in x.__all__:\n    if name != 'experiment': getattr(x, name)\n"
        f"print(*sorted({{m.split('.')[0] for m in sys.modules}} - set(sys.stdlib_module_names) - {{'{PACKAGE}'}}))"
    )
    env = {"PYTHONPATH": str(lib())}
    said = subprocess.run(
        [sys.executable, "-S", "-c", look], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert said.split() in ([], ["__main__"])


#: what would cost each job milliseconds, and none of them needs
HEAVY = ("typing", "re", "json", "dataclasses", "enum", "pathlib", "inspect", "click")


@each_python
@pytest.mark.parametrize("file", ["tasks.py", None], ids=["script", "module"])
def test_a_small_job_loads_little(python, file, tmp_path):
    workspace = Workspace(tmp_path)
    text = (
        "from experimaestro_hpc import Config, Param, Meta, Task, field, progress, tqdm\n"
        "import sys, atexit, os\n"
        "class Model(Config):\n    size: Param[int] = 3\n    path: Meta[str] = field(default=None)\n"
        "class Say(Task):\n"
        "    word: Param[str]\n"
        "    model: Param[Model] = None\n"
        "    before: Param['Say'] = None\n"
        "    def execute(self):\n"
        "        for _ in tqdm(range(3)): progress(0.5)\n"
        "        assert self.model.size + 1 == 4 and self.before.word\n"
        "        here = os.getcwd()\n"
        # after the marker has been written
        "        def look():\n"
        "            assert os.path.exists(here + '/say.done')\n"
        "            print(*sys.modules)\n"
        "        atexit.register(look)\n"
    )
    workspace.script(text)
    parent = workspace.job("Say", {"word": "p", "before": None}, file=file, identifier="p").mark()
    model = {"class": "Model", "params": {"size": 3}}
    params = {"word": "x", "model": {"$config": 1}, "before": {"$task": parent.id}}
    job = workspace.job("Say", params, file=file, configs=[model], parents=[parent.id])
    ended = job.run(python=python)
    assert ended.stderr == ""
    loaded = set(ended.stdout.split())
    assert f"{PACKAGE}.runtime.run" in loaded
    without_site = subprocess.run(
        [python, "-S", "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert loaded & set(HEAVY) - set(without_site) == set()
    ours = {name for name in loaded if name.startswith(f"{PACKAGE}.")}
    assert not [name for name in ours if name.split(".")[1] in ("agent", "schedulers", "resources")]
    assert not ours & {f"{PACKAGE}.config.{name}" for name in ("types", "identifier", "serialize", "context")}


# --- run_task.py ---


def test_run_task_is_read_by_old_pythons():
    """They must get as far as to say what is wrong."""
    text = FILES["run_task.py"].decode("ascii")
    tree = ast.parse(text, feature_version=(3, 4))
    first, check, *rest = tree.body
    assert ast.unparse(first) == "import sys"
    assert isinstance(check, ast.If)
    assert ast.unparse(check.test) == "sys.version_info < (3, 9)"
    assert "set `python` in [environment] of the launcher" in text
    assert any(isinstance(node, ast.ImportFrom) for node in rest)
    assert not re.search(r"\bf['\"]", text)
    init = ast.parse(FILES[f"{PACKAGE}/__init__.py"], feature_version=(3, 4))
    assert init.body


@pytest.mark.parametrize("version", OLD)
def test_an_old_python_says_what_is_wrong(version, tmp_path):
    python = OLD[version]
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    ended = Workspace(tmp_path).job("Say").run(python=python)
    assert ended.returncode == 1
    assert f"xpm-hpc: tasks need Python 3.9 or newer, and {python} is {version}; set `python` in" in ended.stderr
    assert "Traceback" not in ended.stderr


# --- the zip ---


def test_what_is_in_the_zip():
    with zipfile.ZipFile(io.BytesIO(build().zip())) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
    here = Path(__file__).parents[2] / PACKAGE
    expected = {
        path.relative_to(here).as_posix()
        for path in here.rglob("*.py")
        if path.relative_to(here).parts[0] in SHIPPED and "__pycache__" not in path.parts
    }
    assert {name.removeprefix(f"{PACKAGE}/") for name in MODULES} == expected
    assert {PurePosixPath(name).parts[0] for name in expected} == set(SHIPPED)
    assert not [name for name in FILES if PurePosixPath(name).is_absolute() or ".." in name]


def test_the_same_files_give_the_same_zip(monkeypatch):
    one, other = build(), build()
    assert one == other
    assert one.zip() == other.zip()
    assert re.fullmatch(r"\.xpm/lib/[0-9a-f]{16}", one.folder)
    monkeypatch.setitem(build.__globals__, "shipped_files", lambda: {**FILES, "run_task.py": b"pass\n"})
    assert build().digest != one.digest


def test_what_is_installed_can_be_run_and_read_by_all(tmp_path):
    shipment = build()
    install(shipment, tmp_path)
    folder = tmp_path / shipment.folder
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert folder.stat().st_mode & 0o777 == 0o755
    install(shipment, tmp_path)
    assert [path.name for path in folder.parent.iterdir()] == [shipment.digest]
