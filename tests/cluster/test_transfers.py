"""Large files and full disks over a real sshd: what is cut goes on where it stopped, nothing half-written stays."""

from __future__ import annotations

import contextlib
import filecmp
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, wait_for
from sites import SITES, Site

pytestmark = pytest.mark.slow


@pytest.fixture
def site() -> Site:
    """Files travel alike whatever the scheduler."""
    return SITES["slurm"]


#: a task that writes a file that cannot be compressed, one that can, one with holes, and one of a strange name
FILES = """
import os, sys
from experimaestro_hpc import Param, Task, experiment

class Files(Task):
    size: Param[int]

    def execute(self):
        with open("large", "wb") as file:
            block = os.urandom(1 << 20)
            for number in range(self.size):
                file.write(number.to_bytes(8, "big") + block[8:])
        with open("holes", "wb") as file:
            file.seek(300 << 20)
            file.write(b"end")
        os.makedirs("empty/folder")
        os.symlink("large", "link")
        with open(b"\\xff \\n$(x)", "w") as file:
            file.write("strange")

if __name__ == "__main__":
    with experiment("work", "files"):
        Files(size=int(sys.argv[1])).submit()
"""


@pytest.fixture
def made(desk: Desk, request: pytest.FixtureRequest) -> tuple[Desk, str, Path, Path]:
    """A desk with a job that is done and has large files; its id, and its directory there and here."""
    desk.write("files.py", FILES)
    desk.launcher(transport=getattr(request, "param", "auto"))
    size = "2048" if request.node.name.startswith("test_two_gigabytes") else "200"
    desk.run("xpm-hpc", "run", "--launcher", "mycluster", "files.py", "--", size, timeout=600).ok()
    (job,) = (one["id"] for one in desk.jobs().values())
    return desk, job, desk.there / "jobs" / job, desk.here / "work/jobs" / job


def pull(desk: Desk, job: str, *patterns: str) -> Any:
    return desk.run("xpm-hpc", "jobs", "pull", job, *patterns, "--workdir", "work", timeout=600)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name.endswith((".tmp", ".xpm-part"))]


def assert_same(there: Path, here: Path) -> None:
    """Content, links, names, empty folders; and what is a hole there takes no room here."""
    names = {path.relative_to(there) for path in there.rglob("*")} - {Path(".lock")}
    assert names == {path.relative_to(here) for path in here.rglob("*")}
    for name in names:
        one, other = there / name, here / name
        assert one.is_symlink() == other.is_symlink()
        if one.is_file() and not one.is_symlink():
            assert filecmp.cmp(one, other, shallow=False), name
            assert one.stat().st_mtime_ns == other.stat().st_mtime_ns
    assert (here / "holes").stat().st_blocks * 512 < 8 << 20


def test_two_gigabytes_and_what_else_there_is(made):
    """Nothing is spooled: neither side's /tmp grows."""
    desk, job, there, here = made
    assert pull(desk, job).ok().out.startswith("4 files, ")
    assert (here / "large").stat().st_size == 2048 << 20
    assert_same(there, here)
    assert pull(desk, job).ok().out.startswith("0 files came back")


@pytest.mark.parametrize("made", ["paramiko", "openssh"], indirect=True)
def test_a_pull_that_was_killed_goes_on_where_it_stopped(made):
    desk, job, there, here = made
    process = desk.start("xpm-hpc", "jobs", "pull", job, "large", "--workdir", "work")
    try:
        wait_for(lambda: [one for one in leftovers(here) if one.stat().st_size > 20 << 20], "a part of the file")
    finally:
        process.kill()
        process.communicate()
    (part,) = leftovers(here)
    assert part.stat().st_size < 200 << 20, "it was killed too late to show anything"
    inode = part.stat().st_ino
    assert pull(desk, job, "large").ok().out.startswith("1 file, ")
    assert (here / "large").stat().st_ino == inode, "it began anew"
    assert filecmp.cmp(there / "large", here / "large", shallow=False)
    assert leftovers(here) == []


def test_two_pulls_at_once(made):
    desk, job, there, here = made
    processes = [desk.start("xpm-hpc", "jobs", "pull", job, "--workdir", "work") for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert_same(there, here)
    assert leftovers(here) == []


@contextlib.contextmanager
def small_disk(desk: Desk, host: str, place: str) -> Iterator[None]:
    """A file system of 50 MB, on one host, at a folder of alice's."""
    path = f"/home/alice/{desk.folder}/{place}"
    mount = desk.rig.exec(host, ["mount", "-t", "tmpfs", "-o", "size=50m,mode=777", "tmpfs", path], "root")
    assert mount.returncode == 0, mount
    try:
        yield
    finally:
        assert desk.rig.exec(host, ["umount", path], "root").returncode == 0


def test_a_full_disk_on_the_laptop(made):
    desk, job, _, here = made
    record = (here / "job.json").read_bytes()
    desk.run("mkdir", "full").ok()
    with small_disk(desk, "laptop", "full"):
        desk.run("cp", "-r", "work/.", "full").ok()
        ended = desk.run("xpm-hpc", "jobs", "pull", job, "large", "--workdir", "full")
        ended.error(2, "cannot be written on this machine", "No space left on device")
        found = desk.run("find", "full", "-size", "+1M").ok()
        assert found.out == ""
        desk.run("cmp", f"full/jobs/{job}/job.json", f"work/jobs/{job}/job.json").ok()
    assert (here / "job.json").read_bytes() == record


UP = """
import os, sys
from experimaestro_hpc import Param, Task, experiment

class Files(Task):
    size: Param[int]

    def execute(self):
        with open("large", "wb") as file:
            for _ in range(self.size):
                file.write(os.urandom(1 << 20))

class Reader(Task):
    files: Param[Files]

    def execute(self):
        print(os.path.getsize(self.files.__xpm_stdout__.parent / "large"))

if __name__ == "__main__":
    with experiment("work", "up"):
        files = Files(size=200).submit(launcher="local")
        files.result()
        Reader(files=files).submit()
"""


def up(desk: Desk) -> Any:
    return desk.run("xpm-hpc", "run", "--launcher", "mycluster", "up.py", timeout=300)


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_full_disk_on_the_cluster(desk, transport):
    """Results of this machine that a task there needs: an error, and the disk there is as it was."""
    desk.write("up.py", UP)
    desk.launcher(transport=transport)
    desk.write_there("x", "")
    with small_disk(desk, "login", "."):
        ended = up(desk)
        ended.error(2, "No space left on device")
        there = desk.on_login("find", f"/home/alice/{desk.folder}", "-size", "+1M")
        assert there == ""
    up(desk).ok()
    assert desk.results("reader.out") == ["209715200\n"]


def test_an_upload_that_was_killed_goes_on_where_it_stopped(desk):
    desk.write("up.py", UP)
    desk.launcher()
    incoming = desk.there / ".xpm/incoming"

    def parts() -> list[Path]:
        return [one for one in leftovers(incoming) if one.stat().st_size > 20 << 20]

    process = desk.start("xpm-hpc", "run", "--launcher", "mycluster", "up.py")
    try:
        wait_for(parts, "a part of the file")
    finally:
        process.kill()
        process.communicate()
    (part,) = parts()
    inode, size = part.stat().st_ino, part.stat().st_size
    assert size < 200 << 20, "it was killed too late to show anything"
    up(desk).ok()
    assert desk.results("reader.out") == ["209715200\n"]
    (large,) = desk.there.glob("jobs/*/*/large")
    assert large.stat().st_ino == inode, "it began anew"
    assert filecmp.cmp(large, next(desk.here.glob("work/jobs/*/*/large")), shallow=False)
    assert not [name for name in incoming.iterdir() if name.suffix != ".lock"]
