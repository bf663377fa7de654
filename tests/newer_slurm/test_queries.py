"""What a newer Slurm says of jobs: both ways of asking it give the same, and it is what the older one means."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from newer import SPARSE, with_commands, with_pyslurm

from experimaestro_hpc.agent.service import Service
from experimaestro_hpc.schedulers.base import NoInformation, Status

UID = os.getuid()
EXPECTED = {
    "running": Status("running", host="n1"),
    "done": Status("ended", "", "COMPLETED", 0, "n1"),
    "exit 3": Status("ended", "exit", "FAILED", 3, "n1"),
    "exit 127": Status("ended", "launch", "FAILED", 127, "n1"),
    # the older one takes 128 off
    "exit 128": Status("ended", "exit", "FAILED", 128, "n1"),
    "exit 137": Status("ended", "exit", "killed by signal 9", 137, "n1"),
    "exit 255": Status("ended", "exit", "FAILED", 255, "n1"),
    "signal 9": Status("ended", "exit", "killed by signal 9", 137, "n1"),
    "element 0": Status("ended", "", "COMPLETED", 0, "n1"),
    "element 1": Status("ended", "exit", "FAILED", 1, "n1"),
    "element 130": Status("ended", "exit", "killed by signal 2", 130, "n1"),
    "waiting": Status("queued", detail="Dependency"),
    "one waiting element 0": Status("queued", detail="Dependency"),
    "held": Status("held", detail="JobHeldUser"),
    "later": Status("queued", detail="BeginTime"),
    "too long": Status("queued", detail="PartitionTimeLimit"),
    "gpu": Status("ended", "", "COMPLETED", 0, "n1"),
    "fails": Status("ended", "exit", "FAILED", 1, "n1"),
    "its child": Status("ended", "dependency", "CANCELLED", 0),
    "cancelled before": Status("ended", "cancelled", f"CANCELLED by {UID}", 0),
    "cancelled": Status("ended", "cancelled", f"CANCELLED by {UID}", 0, "n1"),
    **{f"waiting element {index}": Status("queued", detail="Dependency") for index in SPARSE},
}


def said(status: Status) -> Status:
    """A status without the name, and without what the job used, which is never the same."""
    return replace(status, name="", used={})


def test_the_states_of_jobs(slurm, jobs):
    assert set(EXPECTED) == set(jobs)
    found = slurm.query(list(jobs.values()))
    assert {name: said(found[native]) for name, native in jobs.items()} == EXPECTED
    assert {found[native].name.partition("-")[0] for native in jobs.values()} == {"task"}


def test_the_accounts_of_jobs_that_the_controller_has_forgotten(slurm, jobs):
    """As far as they are of use: those that have not ended are no information."""
    found = slurm._accounting(list(jobs.values()))
    ended = {name: status for name, status in EXPECTED.items() if status.state == "ended"}
    assert {name: said(found[native]) for name, native in jobs.items() if native in found} == ended


def test_a_job_that_slurm_does_not_know_is_not_in_the_answer(slurm, jobs):
    assert set(slurm.query([jobs["done"], "99999", "99999_3", f"{jobs['running']}_0"])) == {jobs["done"]}
    assert slurm.query([]) == {}


@pytest.mark.parametrize("make", [with_pyslurm, with_commands])
def test_a_controller_that_does_not_answer_gives_no_information(tmp_path, monkeypatch, make):
    there = Path("/etc/slurm/slurm.conf").read_text()
    (tmp_path / "slurm.conf").write_text(f"{there}\nSlurmctldPort=6999\nMessageTimeout=2\nTCPTimeout=2\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    slurm = make()
    way = slurm.queries()
    with pytest.raises(NoInformation, match=r"squeue: .*Unable to contact slurm controller"):
        slurm.query(["17"])
    assert slurm.calls().get("pyslurm", 0) == (way != "squeue")
    assert slurm.queries() == way
    slurm.pyslurm.close()


def test_a_child_that_dies_leaves_the_commands(jobs, capfd):
    slurm = with_pyslurm()
    running = Status("running", host="n1")
    assert said(slurm.query([jobs["running"]])[jobs["running"]]) == running
    assert slurm.calls() == {"scontrol": 1, "pyslurm": 1}
    os.kill(slurm.pyslurm.pid, signal.SIGSEGV)
    for _ in range(2):
        assert said(slurm.query([jobs["running"]])[jobs["running"]]) == running
    assert slurm.calls()["squeue"] == 2
    assert slurm.queries() == "squeue (pyslurm: it was ended by signal 11)"
    assert capfd.readouterr().err.count("pyslurm is not used: it was ended by signal 11") == 1


def test_the_agent_says_what_it_asks(tmp_path):
    survey = Service(str(tmp_path), "slurm").survey([])
    assert survey["queries"].startswith("pyslurm ")
