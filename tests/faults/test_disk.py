"""Disks that are full: the workspace's own on the login node, and the one under a task."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from desk import Desk, wait_for
from faults import COUNTED, on_slurm, runs, submitted
from test_refusals import ROOTS

RUN = ("xpm-hpc", "run", "--launcher", "mycluster")
FILLS = (
    COUNTED
    + """
class Fills(Task):
    word: Param[str]

    def execute(self):
        with open("data", "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))

if __name__ == "__main__":
    with experiment(sys.argv[1], "fills"):
        Fills(word="fills").submit()
"""
)


@contextlib.contextmanager
def small_disk(desk: Desk, host: str, folder: str, size: str) -> Iterator[None]:
    """A file system of `size` over a folder of the workdir, as one host sees it; what was there is copied."""
    path = f"/home/alice/{folder}"
    script = f"""
        cp -a {path} /run/small-{desk.rig.name} && mount -t tmpfs -o size={size},uid=1001,mode=755 tmpfs {path} &&
        chown --reference=/home/alice {path} && cp -a /run/small-{desk.rig.name}/. {path}
        code=$?; rm -rf /run/small-{desk.rig.name}; exit $code"""
    ended = desk.rig.exec(host, ["sh", "-c", script], "root")
    assert ended.returncode == 0, ended
    try:
        yield
    finally:
        ended = desk.rig.exec(host, ["umount", "--lazy", path], "root")
        assert ended.returncode == 0, ended


def test_no_room_for_the_workspace(desk):
    """Nothing is submitted, and it is said why; with room, it all runs."""
    desk.write("roots.py", ROOTS)
    desk.write_there("here", "")
    with small_disk(desk, "login", desk.folder, "100k"):
        ended = desk.run(*RUN, "roots.py", "--", "work", "20")
        assert ended.status != 0, ended
        ended.error(ended.status, "No space left on device")
    assert not submitted(desk)
    assert "20 done" in desk.run(*RUN, "roots.py", "--", "work", "20").ok().out
    assert len(runs(desk.there)) == 20


def test_a_task_that_fills_the_disk(desk):
    """It fails with the system's words; where not even the marker can be written, Slurm's word counts."""
    desk.write("fills.py", FILLS)
    desk.launcher(more='[defaults]\nhold = true\nnodelist = "c1"\n')
    desk.run(*RUN, "--detach", "fills.py", "--", "work").ok()
    (job,) = desk.jobs().values()
    with small_disk(desk, "c1", f"{desk.folder}/jobs/{job['id']}", "200k"):
        on_slurm(desk.rig, "scontrol", "release", job["native_id"])
        wait_for(lambda: desk.jobs()["fills"]["state"] == "failed", "the end")
    assert desk.jobs()["fills"]["reason"] == "exit"
