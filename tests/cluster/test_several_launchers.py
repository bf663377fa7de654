"""One graph on several launchers: what a task needs that ran elsewhere is there when it starts, whatever it is."""

from __future__ import annotations

import re

import pytest
from desk import Desk
from sites import SITES, Site

pytestmark = pytest.mark.slow


@pytest.fixture
def site() -> Site:
    """The launchers are named in the script."""
    return SITES["slurm"]


#: each task leaves a text, a link to it, an empty folder and a file that says where it ran; the next one reads them
GRAPH = """
import os, sys
from pathlib import Path
from experimaestro_hpc import Meta, Param, PathGenerator, Task, experiment, field

class Step(Task):
    word: Param[str]
    path: Meta[Path] = field(default_factory=PathGenerator("it's made $(here)"))

    def before(self):
        return []

    def execute(self):
        self.path.mkdir()
        (self.path / "empty").mkdir()
        lines = [*self.before(), f"{self.word} on {os.uname()[1]}"]
        (self.path / "text").write_text("\\n".join(lines))
        (self.path / "link").symlink_to("text")
        (self.path / "noise").write_bytes(os.urandom(5_000_000))
        print(", ".join(lines))

class Next(Step):
    parents: Param[list[Step]]

    def before(self):
        for one in self.parents:
            assert os.listdir(one.path / "empty") == []
            assert (one.path / "noise").stat().st_size == 5_000_000
        return [line for one in self.parents for line in (one.path / "link").read_text().splitlines()]

if __name__ == "__main__":
    workdir, *places = sys.argv[1:]
    with experiment(workdir, "chain"):
        step = Step(word="step 0").submit(launcher=places[0])
        for number, place in enumerate(places[1:], 1):
            step = Next(word=f"step {number}", parents=[step]).submit(launcher=place)
"""
HOSTS = {"local": "laptop", "mycluster": "c[12]", "myoar": "o[12]"}


@pytest.fixture
def graph(desk: Desk) -> Desk:
    desk.write("chain.py", GRAPH)
    desk.launcher()
    return desk


def assert_chain(desk: Desk, places: list[str]) -> None:
    """The last task has seen the words of all before it, each from where it was to run."""
    wanted = ", ".join(f"step {number} on {HOSTS[place]}" for number, place in enumerate(places))
    last = max((desk.here / "work/jobs").glob("*/*/*.out"), key=lambda path: len(path.read_text()))
    assert re.fullmatch(wanted, last.read_text().strip()), last.read_text()
    listed = desk.run("xpm-hpc", "jobs", "--json", "--workdir", "work").json()
    assert sorted(one["launcher"] for one in listed) == sorted(places)
    assert {one["state"] for one in listed} == {"done"}


def test_from_here_to_the_cluster_and_back(graph):
    places = ["local", "mycluster", "local", "mycluster"]
    graph.run("python", "chain.py", "work", *places, timeout=300).ok()
    assert_chain(graph, places)
    before = graph.native_jobs()
    assert len(before) == 2
    again = graph.run("python", "chain.py", "work", *places, timeout=300).ok()
    assert "to run" not in again.out
    assert graph.native_jobs() == before


def test_from_one_cluster_to_another(graph):
    graph.launcher("myoar")
    text = graph.rig.home("laptop") / ".config/xpm-hpc/launchers/myoar.toml"
    text.write_text(text.read_text().replace('scheduler = "slurm"', 'scheduler = "oar"'))
    places = ["mycluster", "myoar", "local"]
    graph.run("python", "chain.py", "work", *places, timeout=300).ok()
    assert_chain(graph, places)


def test_what_failed_elsewhere_runs_nowhere_else(graph):
    graph.write("chain.py", GRAPH.replace("        self.path.mkdir()\n", "        raise RuntimeError(self.word)\n", 1))
    ended = graph.run("python", "chain.py", "work", "local", "mycluster", "local", timeout=300)
    assert ended.status == 1
    assert "3 of 3 jobs failed" in ended.text
    assert "RuntimeError: step 0" in ended.text
    assert graph.native_jobs() == {}
