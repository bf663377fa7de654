"""The two clusters of the rig, as the end-to-end tests know them: what differs between Slurm and OAR, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from rig import Rig


@dataclass(frozen=True)
class Site:
    """A cluster.

    :ivar scheduler: its name in launcher files
    :ivar front: the host with its commands, which the laptop reaches
    :ivar cluster: what the laptop's user calls it for ssh
    :ivar far: the same through the gate
    :ivar nodes: a pattern for the names of its nodes
    :ivar commands: those that the product may call
    """

    scheduler: str
    front: str
    cluster: str
    far: str
    nodes: str
    commands: tuple[str, ...]

    def jobs(self, rig: Rig, user: str, folder: str) -> dict[str, str]:
        """A user's jobs that were started in a folder: state in Slurm's words by native id, elements one by one."""
        return (slurm_jobs if self.scheduler == "slurm" else oar_jobs)(rig, user, folder)

    def cancel(self, rig: Rig, user: str, natives: Iterable[str]) -> None:
        """End jobs behind the product's back, as their user."""
        argv = ["scancel", "--quiet"] if self.scheduler == "slurm" else ["oardel"]
        ended = rig.exec(self.front, [*argv, *natives], user)
        # oardel's 6: one of them is being ended already
        assert ended.returncode == 0 or (self.scheduler == "oar" and ended.returncode == 6), ended

    def release(self, rig: Rig, user: str, natives: Iterable[str]) -> None:
        """Let jobs go that are held."""
        argv = ["scontrol", "release"] if self.scheduler == "slurm" else ["oarresume"]
        ended = rig.exec(self.front, [*argv, *natives], user)
        assert ended.returncode == 0, ended


def slurm_jobs(rig: Rig, user: str, folder: str) -> dict[str, str]:
    """squeue knows a job at once and forgets it after a while, sacct learns of it late and keeps it."""
    accounted = ["sacct", "-nXP", "-S", "now-1hour", "-o", "JobID,State,WorkDir"]
    queued = ["squeue", "-har", "-t", "all", "-o", "%i|%T|%Z"]
    found = {}
    for argv in (accounted, queued):
        ended = rig.exec("login", argv, user)
        assert ended.returncode == 0, ended
        for line in ended.stdout.splitlines():
            native, state, where = line.split("|", 2)
            if f"/{folder}" in where and "[" not in native:
                found[native] = state.split()[0]
    return found


def oar_jobs(rig: Rig, user: str, folder: str) -> dict[str, str]:
    """From the database: OAR's own listing takes seconds for hundreds of jobs.

    A folder whose name OAR would stumble over is in the command instead.
    """
    where = f"job_user = '{user}' AND (launching_directory || command) LIKE '%/{folder}%'"
    found = {}
    for line in rig.oar_sql(f"SELECT job_id, state, exit_code FROM jobs WHERE {where}").splitlines():
        native, state, code = line.split("|")
        ended = {"Terminated": "COMPLETED" if code == "0" else "FAILED", "Error": "CANCELLED"}
        found[native] = ended.get(state) or ("RUNNING" if state in ("Running", "Finishing") else "PENDING")
    return found


SITES = {
    "slurm": Site(
        *("slurm", "login", "mycluster", "farcluster", "c[12]"),
        ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo"),
    ),
    "oar": Site(
        *("oar", "oarfront", "myoar", "faroar", "o[12]"),
        ("oarsub", "oarstat", "oardel", "oarhold", "oarnodes"),
    ),
}


def only(scheduler: str, why: str) -> pytest.MarkDecorator:
    """For a test that is for one of the clusters; the others run on each. `why` is for whoever reads it."""
    assert why
    return pytest.mark.parametrize("site", [scheduler], indirect=True)
