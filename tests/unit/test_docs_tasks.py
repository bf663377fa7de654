"""docs/tasks.md: each example runs, and prints what stands below it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
FOUND = re.findall(r"^## (.*?)$|^```python\n(.*?)^```\n(?:```\n(.*?)^```\n)?", PAGE.read_text(), re.M | re.S)


def examples() -> list[tuple[str, str, str]]:
    found, heading = [], ""
    for title, code, output in FOUND:
        heading = title or heading
        if code:
            found.append((heading, code, output))
    return found


@pytest.mark.parametrize(("code", "output"), [pytest.param(code, out, id=name) for name, code, out in examples()])
def test_example(code, output, tmp_path, end_runners):
    assert output, "an example says what it prints"
    (tmp_path / "example.py").write_text(f"from experimaestro_hpc import *\nfrom pathlib import Path\n\n{code}")
    try:
        ran = subprocess.run(
            [sys.executable, "example.py"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        end_runners(tmp_path / "work")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = [line for line in ran.stdout.splitlines() if line and not line.startswith(("experiment ", "  "))]
    assert said == output.splitlines()


def test_all_examples_are_seen():
    assert len(examples()) == PAGE.read_text().count("```python\n") > 8
