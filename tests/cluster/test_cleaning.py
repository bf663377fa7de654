"""``xpm-hpc clean`` on a cluster: what a job that waits or runs needs stays, and afterwards everything goes."""

from __future__ import annotations

import os

import pytest
from desk import GATED, Desk, wait_for
from sites import SITES, Site


@pytest.fixture
def site() -> Site:
    """What is cleaned has nothing to do with the scheduler."""
    return SITES["slurm"]


def age(desk: Desk) -> None:
    """Let everything below ``.xpm`` on the cluster look old."""
    for path in (desk.there / ".xpm").glob("*/*"):
        for one in (path, *(path.iterdir() if path.is_dir() else ())):
            os.utime(one, (1, 1), follow_symlinks=False)


def names(desk: Desk, *folders: str) -> set[str]:
    return {path.name for folder in folders for path in (desk.there / ".xpm" / folder).glob("*")}


def test_clean(desk):
    desk.write("gated.py", GATED)
    desk.launcher()
    run = ("xpm-hpc", "run", "--launcher", "mycluster")
    desk.run(*run, "--detach", "gated.py", "--", "work").ok()
    desk.write("other.py", GATED + "\n# other code, that no job uses\n")
    desk.open("hello", "world", "concat")
    desk.run(*run, "other.py", "--", "work").ok()
    for gate in ("hello", "world", "concat"):
        (desk.there / f"open-{gate}").unlink()

    desk.write("gated.py", GATED.replace('"hello", "world"', '"good", "morning"'))
    desk.run(*run, "--detach", "gated.py", "--", "work").ok()
    wait_for(lambda: desk.jobs("--state", "running"), "a job that runs")
    age(desk)
    before = names(desk, "code", "lib", "batches")
    would = desk.run("xpm-hpc", "clean", "--workdir", "work", "--json", "--dry-run").json()["would_remove"]
    assert names(desk, "code", "lib", "batches") == before
    removed = desk.run("xpm-hpc", "clean", "--workdir", "work", "--json", "--yes").json()["removed"]
    assert [one["path"] for one in removed] == [one["path"] for one in would]
    gone = before - names(desk, "code", "lib", "batches")
    assert gone == {one["path"].rpartition("/")[2] for one in removed if one["place"] != "here"}
    assert len(names(desk, "lib")) == 1
    assert len(names(desk, "code")) == 1, "that of the jobs that run"
    assert {one["kind"] for one in removed} == {"code snapshot", "batch"}

    desk.open("good", "morning", "concat")
    desk.run(*run, "gated.py", "--", "work").ok()
    assert {one["state"] for one in desk.jobs().values()} == {"done"}
    age(desk)
    cleaned = desk.run("xpm-hpc", "clean", "--workdir", "work", "--yes").ok()
    assert "freed" in cleaned.out
    assert names(desk, "code", "batches") == set()
    assert "done before" in desk.run(*run, "gated.py", "--", "work").ok().out
