"""Environments that are really built on this machine, by venv and by uv, and tasks that run in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import XPM_HPC
from wheels import GREET, PROJECT, write_wheel

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


class Project:
    """A project beside a workspace, and a launcher of this machine."""

    def __init__(self, around: Path, manager: str) -> None:
        self.folder = around / "a project"
        self.folder.mkdir()
        self.work = around / "work"
        self.wheels = around / "wheels"
        self.launcher = around / "here.toml"
        self.manager = manager
        write_wheel(self.wheels, "greetings", "1", "def greet(word):\n    return 'hello ' + word\n")
        (self.folder / "greet.py").write_text(GREET)
        self.require("greetings")
        self.write("login")

    def write(self, build: str, more: str = "") -> None:
        index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        lines = [f'{name} = "{value}"' for name, value in index.items()]
        self.launcher.write_text(
            f'scheduler = "local"\n[environment]\nmanager = "{self.manager}"\nbuild = "{build}"\n{more}\n'
            f"env = {{ {', '.join(lines)} }}\n"
        )

    def require(self, *packages: str) -> None:
        """What the environment is to have."""
        if self.manager == "venv":
            (self.folder / "requirements.txt").write_text("\n".join(packages) + "\n")
            return
        assert UV, "uv comes with the development dependencies"
        (self.folder / "pyproject.toml").write_text(PROJECT.format(packages=list(packages), wheels=self.wheels))
        subprocess.run([UV, "lock", "--quiet"], cwd=self.folder, check=True, env=self.environ())

    def environ(self, **more: str) -> dict[str, str]:
        path = f"{Path(UV).parent if UV else ''}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "XPM_HPC_LAUNCHER": str(self.launcher), **more}

    def run(self, *words: str, dry: bool = False) -> subprocess.CompletedProcess[str]:
        command = [*XPM_HPC, "run", *(["--dry-run"] if dry else [])]
        argv = [*command, "greet.py", "--", str(self.work), *words]
        return subprocess.run(
            argv, cwd=self.folder, env=self.environ(), capture_output=True, text=True, timeout=300, check=False
        )

    def built(self) -> list[Path]:
        return sorted(self.work.glob(".xpm/env/*/.complete"))

    def said(self) -> list[str]:
        return sorted(path.read_text() for path in self.work.glob("jobs/greet.greet/*/greet.out"))

    def states(self) -> list[str]:
        return sorted(
            path.suffix[1:]
            for path in self.work.glob("jobs/greet.greet/*/greet.*")
            if path.suffix in (".done", ".failed")
        )


@pytest.fixture(params=["venv", "uv"])
def project(request, tmp_path, end_runners) -> Iterator[Project]:
    made = Project(tmp_path, request.param)
    yield made
    end_runners(made.work)


#: what differs little between the two is shown quickly by the quick one
QUICK_FIRST = pytest.mark.parametrize("project", ["uv", pytest.param("venv", marks=pytest.mark.slow)], indirect=True)


@pytest.mark.parametrize("build", ["login", "job"])
def test_built_once_and_reused(project, build):
    project.write(build)
    dry = project.run("world", dry=True)
    assert dry.returncode == 0, dry
    assert "would be " + ("built on the login node" if build == "login" else "submitted") in dry.stdout
    assert not project.work.exists()

    first = project.run("world")
    assert first.returncode == 0, first
    (marker,) = project.built()
    prefix = marker.parent / "env"
    assert project.said() == [f"hello world {prefix}\n"]
    assert ("built in" in first.stdout) == (build == "login")
    before = marker.stat().st_mtime_ns

    dry = project.run("world", "moon", dry=True)
    assert "is there, is reused" in dry.stdout if build == "login" else "xpm.environment/" in dry.stdout
    second = project.run("world", "moon")
    assert second.returncode == 0, second
    assert project.said() == [f"hello {word} {prefix}\n" for word in ("moon", "world")]
    assert (project.built(), marker.stat().st_mtime_ns) == ([marker], before)
    assert "is built" not in second.stdout

    shutil.rmtree(marker.parent)  # somebody made room
    assert project.run("world", "moon").returncode == 0, "all is done, so nothing is built"
    assert project.built() == []
    third = project.run("sun")
    assert third.returncode == 0, third
    assert project.built() == [marker]


@QUICK_FIRST
def test_other_requirements_are_another_environment(project):
    assert project.run("world").returncode == 0
    write_wheel(project.wheels, "farewells", "1", "")
    project.require("greetings", "farewells")
    assert project.run("moon").returncode == 0
    assert len(project.built()) == 2


@QUICK_FIRST
def test_what_cannot_be_built_on_the_login_node(project):
    write_wheel(project.wheels, "absent", "1", "")
    project.require("greetings", "absent")
    (project.wheels / "absent-1-py3-none-any.whl").unlink()
    ended = project.run("world")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: launcher here: the environment ")
    assert "could not be built; nothing was submitted" in ended.stderr
    assert "absent" in ended.stderr.partition("the end of the build:")[2]
    assert "Traceback" not in ended.stderr
    assert not list(project.work.glob("jobs/*/*/job.json"))
    write_wheel(project.wheels, "absent", "1", "")
    again = project.run("world")
    assert again.returncode == 0, "a half-built one is built anew: " + again.stderr


@QUICK_FIRST
def test_what_a_job_cannot_build(project):
    project.write("job")
    write_wheel(project.wheels, "absent", "1", "")
    project.require("greetings", "absent")
    (project.wheels / "absent-1-py3-none-any.whl").unlink()
    ended = project.run("world", "moon")
    assert ended.returncode == 1, ended
    assert "3 of 3 jobs failed" in ended.stderr
    assert "absent" in ended.stderr.partition("the end of the log of xpm.environment/")[2]
    told = [line for line in ended.stdout.splitlines() if "failed (dependency)" in line]
    assert len(told) == 2 and all("its environment was not built" in line for line in told)
    assert project.states() == ["failed", "failed"]
    write_wheel(project.wheels, "absent", "1", "")
    again = project.run("world", "moon")
    assert again.returncode == 0, again
    assert project.states() == ["done", "done"]


def test_no_lock_file(project):
    for name in ("requirements.txt", "uv.lock"):
        (project.folder / name).unlink(missing_ok=True)
    ended = project.run("world")
    assert ended.returncode == 2
    assert "there is no " + ("uv.lock" if project.manager == "uv" else "requirements.txt") in ended.stderr


TWO = """
import sys
from experimaestro_hpc import Param, Task, experiment

class First(Task):
    word: Param[str]
    def execute(self):
        import greetings
        print(greetings.greet(self.word))

class Second(Task):
    first: Param[First]
    def execute(self):
        import greetings
        print(self.first.__xpm_stdout__.read_text().strip(), greetings.greet("again"))

with experiment(sys.argv[1], "two"):
    Second(first=First(word="you").submit()).submit(launcher=sys.argv[2])
"""


@QUICK_FIRST
def test_two_launchers_with_the_same_environment(project):
    """Each has its job, and what they share is built once."""
    project.write("job")
    other = project.launcher.with_name("other.toml")
    other.write_text(project.launcher.read_text())
    (project.folder / "greet.py").write_text(TWO)
    ended = project.run(str(other))
    assert ended.returncode == 0, ended
    assert "4 done" in ended.stdout
    (said,) = [path.read_text() for path in project.work.glob("jobs/greet.second/*/second.out")]
    assert said == "hello you hello again\n"
    assert len(project.built()) == 1
    logs = [path.read_text() for path in project.work.glob("jobs/xpm.environment/*/environment.out")]
    assert len(logs) == 2
    assert sum("the environment is there" in log for log in logs) == 1
