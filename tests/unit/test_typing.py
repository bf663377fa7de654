"""Editors and type checkers know what a task can be made of: mypy and pyright read ``typing_sample.py``.

pyright runs on Node.js, which its extra ``nodejs`` brings along. Some versions of the package fetch the checker from
the npm registry when they are first used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

SAMPLE = Path(__file__).with_name("typing_sample.py")
LINES = dict(enumerate(SAMPLE.read_text(encoding="utf-8").splitlines(), 1))
#: found now: tests have another home, and what was fetched is below the user's own
ENVIRON = dict(os.environ)


class Said(NamedTuple):
    """What a checker says of the sample."""

    errors: dict[int, str]
    types: dict[int, str]


def run(argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=folder,
        env=ENVIRON,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,  # the first time, a download
        check=False,
    )


def mypy(path: Path, folder: Path) -> Said:
    options = ["--strict", "--config-file=", "--no-pretty", "--no-error-summary", "--no-color-output"]
    ran = run(["mypy", *options, f"--cache-dir={folder / 'cache'}", str(path)], folder)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    said = Said({}, {})
    for line in ran.stdout.splitlines():
        found = re.match(r"(.*?):(\d+): (error|note): (.*)", line)
        assert found, line
        file, number, kind, text = found.groups()
        assert (folder / file).resolve() == path, line
        if kind == "error":
            said.errors.setdefault(int(number), text)
        elif text.startswith("Revealed type is "):
            said.types[int(number)] = text.removeprefix("Revealed type is ").strip('"')
    return said


def pyright(path: Path, folder: Path) -> Said:
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    argv = ["pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(folder)]
    ran = run(argv, folder)
    try:
        found = json.loads(ran.stdout[ran.stdout.index("{") :])["generalDiagnostics"]
    except ValueError:
        pytest.fail(
            "pyright did not run. It needs Node.js (pip install 'pyright[nodejs]'), and its package may have to fetch"
            " the checker from the npm registry: is that within reach?"
            f" `{sys.executable} -m pyright --version` tries again.\n{ran.stdout}{ran.stderr}"
        )
    said = Said({}, {})
    for one in found:
        number = one["range"]["start"]["line"] + 1
        assert Path(one["file"]) == path, one
        if one["severity"] == "error":
            said.errors.setdefault(number, one["message"])
        elif one["severity"] == "information" and "is " in one["message"]:
            said.types[number] = one["message"].partition(" is ")[2].strip('"')
    return said


CHECKERS = [pytest.param(mypy, id="mypy"), pytest.param(pyright, id="pyright")]


def plain(text: str) -> str:
    """A type without the modules of its names."""
    return re.sub(r"\b(\w+\.)+(?=\w)", "", text)


@pytest.mark.parametrize("check", CHECKERS)
def test_the_sample(check: Callable[[Path, Path], Said], tmp_path: Path) -> None:
    copy = tmp_path.resolve() / SAMPLE.name
    shutil.copy(SAMPLE, copy)
    said = check(copy, copy.parent)
    wrong = {number for number, line in LINES.items() if line.endswith("# wrong")}
    assert {number: said.errors[number] for number in said.errors.keys() - wrong} == {}
    assert [LINES[number] for number in sorted(wrong - said.errors.keys())] == []
    marked = {number: line.partition("# is: ")[2] for number, line in LINES.items() if "# is: " in line}
    assert {number: plain(said.types.get(number, "")) for number in marked} == marked


@pytest.mark.parametrize("check", CHECKERS)
def test_the_check_sees_what_it_should(check: Callable[[Path, Path], Said], tmp_path: Path) -> None:
    """The test above must be able to fail."""
    path = tmp_path.resolve() / "other.py"
    path.write_text(
        "from experimaestro_hpc import Config, Param\n\n\nclass A(Config):\n    a: Param[int]\n\n\nA()\nA(a=1)\n"
    )
    assert list(check(path, path.parent).errors) == [8]
