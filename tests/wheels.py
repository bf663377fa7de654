"""Small packages for environments: tests need no network. In: a name and code. Out: a wheel; a study that needs it."""

from __future__ import annotations

import zipfile
from pathlib import Path

#: an experiment whose tasks need a package
GREET = """
import sys
from experimaestro_hpc import Param, Task, experiment

class Greet(Task):
    word: Param[str]

    def execute(self):
        import greetings
        print(greetings.greet(self.word), sys.prefix)

if __name__ == "__main__":
    with experiment(sys.argv[1], "greet"):
        for word in sys.argv[2:]:
            Greet(word=word).submit()
"""
#: its ``pyproject.toml``, without an index
PROJECT = """
[project]
name = "study"
version = "0"
requires-python = ">=3.9"
dependencies = {packages}

[tool.uv]
no-index = true
find-links = ["{wheels}"]
"""


def write_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """Write a wheel with one module; the same content is the same file."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for one, text in files.items():
            wheel.writestr(zipfile.ZipInfo(one, (2020, 1, 1, 0, 0, 0)), text)
    return path
