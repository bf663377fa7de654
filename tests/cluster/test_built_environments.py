"""Environments that uv and venv build on the cluster, which sees no package index: packages are in a folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from desk import Desk, wait_for
from wheels import GREET, PROJECT, write_wheel

pytestmark = pytest.mark.slow


class Study:
    """A project on the laptop, and the packages that it needs on both sides, under one name."""

    def __init__(self, desk: Desk, manager: str) -> None:
        self.desk = desk
        self.manager = manager
        self.wheels = f"/home/{desk.user}/{desk.folder}/wheels"
        desk.write("greet.py", GREET)
        self.package("greetings", "def greet(word):\n    return 'hello ' + word\n")
        if manager == "uv":
            self.uv = self.install_uv()
        self.require("greetings")

    def package(self, name: str, code: str) -> None:
        for host, folder in (("laptop", self.desk.here), (self.desk.site.front, self.desk.there)):
            home = self.desk.rig.home(host, self.desk.user)
            self.desk._write(home, folder / "wheels", None)
            write_wheel(folder / "wheels", name, "1", code)

    def remove(self, name: str) -> None:
        (self.desk.there / f"wheels/{name}-1-py3-none-any.whl").unlink()

    def install_uv(self) -> str:
        """Where its users have it, which is on no PATH of a command over SSH."""
        found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        assert found, "uv comes with the development dependencies"
        for host in ("laptop", self.desk.site.front):
            home = self.desk.rig.home(host, self.desk.user)
            path = home / ".local/bin/uv"
            self.desk._write(home, path.parent, None)
            if not path.exists() or path.stat().st_size != Path(found).stat().st_size:
                shutil.copy(found, path)
        return f"/home/{self.desk.user}/.local/bin/uv"

    def require(self, *packages: str) -> None:
        if self.manager == "venv":
            self.desk.write("requirements.txt", "\n".join(packages) + "\n")
            return
        text = PROJECT.format(packages=json.dumps(packages), wheels=self.wheels)
        self.desk.write("pyproject.toml", text)
        self.desk.run(self.uv, "lock", "--quiet").ok()

    def run(self, build: str, *words: str, options: tuple[str, ...] = ()):
        environ = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.wheels}
        lines = ", ".join(f'{name} = "{value}"' for name, value in environ.items())
        more = f'[environment]\nmanager = "{self.manager}"\nbuild = "{build}"\nenv = {{ {lines} }}\n'
        self.desk.launcher(more=more)
        return self.desk.run(
            "xpm-hpc", "run", "--launcher", self.desk.cluster, *options, "greet.py", "--", "work", *words
        )

    def built(self) -> list[Path]:
        return sorted(self.desk.there.glob(".xpm/env/*/.complete"))


@pytest.fixture(params=["uv", "venv"])
def study(desk: Desk, request) -> Study:
    return Study(desk, request.param)


@pytest.mark.parametrize("build", ["login", "job"])
def test_built_once_and_reused(study, build):
    desk = study.desk
    dry = study.run(build, "world", options=("--dry-run",)).ok()
    assert ("would be built on the login node" if build == "login" else "xpm.environment/") in dry.text
    study.run(build, "world").ok()
    (marker,) = study.built()
    prefix = f"/home/{desk.user}/{desk.folder}/.xpm/env/{marker.parent.name}/env"
    assert desk.results("greet.out") == [f"hello world {prefix}\n"]
    stamp = marker.stat().st_mtime_ns
    jobs = 1 if build == "login" else 2
    assert len(desk.native_jobs()) == jobs
    dry = study.run(build, "moon", options=("--dry-run",)).ok()
    assert ("is there, is reused" if build == "login" else "done, is reused") in dry.text
    study.run(build, "world", "moon").ok()
    assert sorted(desk.results("greet.out")) == [f"hello {word} {prefix}\n" for word in ("moon", "world")]
    assert (study.built(), marker.stat().st_mtime_ns) == ([marker], stamp)
    assert len(desk.native_jobs()) == jobs + 1


def test_what_cannot_be_built_on_the_login_node(study):
    study.package("absent", "")
    study.require("absent")
    study.remove("absent")
    message = study.run("login", "world").error(2, "could not be built; nothing was submitted")
    assert "absent" in message.partition("the end of the build:")[2]
    assert study.desk.native_jobs() == {}
    study.package("absent", "")
    study.require("greetings", "absent")
    study.run("login", "world").ok()


def test_what_a_job_cannot_build(study):
    study.package("absent", "")
    study.require("greetings", "absent")
    study.remove("absent")
    message = study.run("job", "world", "moon").error(1, "3 of 3 jobs failed")
    assert "absent" in message.partition("the end of the log of xpm.environment/")[2]
    jobs = study.desk.jobs()
    assert {name: job["reason"] for name, job in jobs.items() if name in ("world", "moon")} == {
        "world": "dependency",
        "moon": "dependency",
    }
    assert "absent" in jobs["world"]["message"] and "absent" in jobs["moon"]["message"]
    study.package("absent", "")
    study.run("job", "world", "moon").ok()


def test_a_builder_that_is_killed_leaves_nothing_in_the_way(desk):
    """The builder goes on until the test says so; when it is killed, another driver that waits for it builds anew."""
    study = Study(desk, "venv")
    there = f"/home/{desk.user}/{desk.folder}"
    line = f"echo $$ >{there}/new; mv {there}/new {there}/pid; while [ ! -e {there}/open ]; do sleep 0.1; done"
    environ = f'{{ PIP_NO_INDEX = "1", PIP_FIND_LINKS = "{study.wheels}" }}'
    desk.launcher(more=f'[environment]\nmanager = "venv"\nsetup = ["""{line}"""]\nenv = {environ}\n')
    command = ("xpm-hpc", "run", "--launcher", desk.cluster, "greet.py", "--")
    first = desk.start(*command, "work", "world")
    pid = int(wait_for(lambda: (desk.there / "pid").exists() and (desk.there / "pid").read_text(), "the builder"))
    second = desk.start(*command, "work2", "moon")
    assert first.stdout and second.stdout
    wait_for(lambda: "is built on" in second.stdout.readline(), "the second driver")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: int((desk.there / "pid").read_text()) != pid, "another builder")
    (desk.there / "open").touch()
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    said, _ = first.communicate(timeout=120)
    assert first.returncode in (0, 2), "built by the other, or told that its own builder was ended: " + said
    assert len(study.built()) == 1
    desk.run(*command, "work", "world").ok()
    assert len(desk.results("greet.out", "work")) == len(desk.results("greet.out", "work2")) == 1
