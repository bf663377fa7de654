"""`xpm-hpc launchers check` where all is well, and where something is not: which step says so, and what it says."""

from __future__ import annotations

import pytest
from desk import Desk
from sites import SITES, Site


@pytest.fixture
def site() -> Site:
    """Its words and launcher files are Slurm's; the steps are the same."""
    return SITES["slurm"]


STEPS = [
    *("name", "connection and agent", "clock", "agent's Python", "tasks' Python"),
    *("scheduler", "scheduler answers", "queries", "workdir"),
]
QUICK = '[defaults]\ntime = "0:02"\n'


def check(desk: Desk, *options: str) -> tuple[int, dict[str, dict]]:
    """The exit status, and the steps by name."""
    ended = desk.run("xpm-hpc", "launchers", "check", "checked", "--json", *options)
    assert "Traceback" not in ended.text
    ended.status, status = 0, ended.status
    return status, {step["step"]: step for step in ended.json()}


def test_all_is_well(desk):
    desk.launcher("checked", host="mycluster", more=QUICK)
    status, steps = check(desk, "--job")
    assert status == 0, steps
    assert list(steps) == [*STEPS, "job submitted", "job"]
    assert all(step["ok"] and step["seconds"] >= 0 for step in steps.values())
    assert "slurm" in steps["scheduler"]["words"]
    assert "sacct works" in steps["queries"]["words"]
    assert "sees the workdir; Python 3." in steps["job"]["words"]
    assert not list((desk.there / ".xpm/check").iterdir())


def test_the_same_for_people(desk):
    desk.launcher("checked", host="farcluster")
    told = desk.run("xpm-hpc", "launchers", "check", "checked").ok().out.splitlines()
    assert len(told) == len(STEPS)
    assert all(line.startswith("ok    ") and line.endswith(" s]") for line in told)
    assert "reached through gate" in told[0]


@pytest.mark.parametrize(
    ("host", "failed", "words", "status"),
    [
        ("deadcluster", ["connection"], "does not answer", 3),
        ("refusedcluster", ["connection"], "the login was refused", 3),
        ("unknowncluster", ["connection"], "is not known", 3),
        ("no-such-host.invalid", ["name", "connection"], "the host's name is not known", 3),
        ("plaincluster", ["scheduler"], "there is no sbatch on this host: is it a login node?", 1),
    ],
)
def test_a_host_that_cannot_be_used(desk, host, failed, words, status):
    desk.launcher("checked", host=host)
    got, steps = check(desk, "--job")
    assert [name for name, step in steps.items() if not step["ok"]] == failed
    assert words in steps[failed[-1]]["words"]
    assert got == status
    assert "job submitted" not in steps


@pytest.mark.parametrize(
    ("workdir", "words"),
    [
        ("/proc/xpm", "the agent cannot start"),
        ("/root/xpm", "Permission denied"),
        ("$NO_SUCH_VARIABLE/xpm", "a variable is not set"),
    ],
)
def test_a_workdir_that_cannot_be(desk, workdir, words):
    desk.launcher("checked", host="mycluster", workdir=workdir)
    status, steps = check(desk)
    assert [name for name, step in steps.items() if not step["ok"]] == ["connection"]
    assert words in steps["connection"]["words"]
    assert "workdir" in steps["connection"]["words"]
    assert status == 3


def test_a_workdir_that_can_no_longer_be_written(desk):
    desk.launcher("checked", host="mycluster")
    assert check(desk)[0] == 0
    internal = desk.there / ".xpm"
    internal.chmod(0o555)
    try:
        status, steps = check(desk, "--job")
    finally:
        internal.chmod(0o755)
    assert [name for name, step in steps.items() if not step["ok"]] == ["workdir"]
    assert "Permission denied" in steps["workdir"]["words"]
    assert status == 1


@pytest.mark.parametrize(
    ("says", "ok", "words"),
    [
        ("3.8.2", False, "is 3.8.2; tasks need 3.9 or newer"),
        ("what?", False, "is what?; tasks need 3.9 or newer"),
        ("", False, "is no Python"),
        ("3.9.1", True, "3.9.1 ("),
    ],
)
def test_the_python_of_the_tasks(desk, says, ok, words):
    as_agent = 'case "$2" in *b64decode*) exit 97 ;; esac'  # as an old one would; the agent takes the next
    python = desk.write_there("python", f"#!/bin/sh\n{as_agent}\necho '{says}'\n", 0o755)
    desk.launcher("checked", host="mycluster", more=f'[environment]\npython = "{python}"\n')
    status, steps = check(desk)
    assert steps["tasks' Python"]["ok"] is ok
    assert words in steps["tasks' Python"]["words"]
    assert status == (0 if ok else 1)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ('setup = ["exit 0"]', "it ended and left nothing in the workdir"),
        ('setup = ["echo no such module >&2; exit 1"]', "no such module"),
        ('python = "/no/such/python"', "/no/such/python"),
    ],
)
def test_a_job_that_does_not_say_what_it_sees(desk, environment, words):
    desk.launcher("checked", host="mycluster", more=f"{QUICK}[environment]\n{environment}\n")
    status, steps = check(desk, "--job")
    assert [name for name, step in steps.items() if not step["ok"]] == ["job"], steps
    assert words in steps["job"]["words"]
    assert status == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('[defaults]\npartition = "cpuu"\n', "there is no partition 'cpuu'; did you mean 'cpu'?"),
        ('[defaults]\npartition = "cpu,nowhere"\n', "there is no partition 'nowhere'"),
        ('[[partitions]]\nname = "cpu"\n[[partitions]]\nname = "gpus"\n', "there is no partition 'gpus'"),
        ('[[partitions]]\nname = "big"\n[partitions.options]\npartition = "cpu"\n', ""),
        ('[[partitions]]\nname = "big"\n[partitions.options]\npartition = false\n', None),
    ],
)
def test_the_partitions_of_the_launcher_file(desk, more, words):
    desk.launcher("checked", host="mycluster", more=more)
    status, steps = check(desk, "--job") if words else check(desk)
    assert [name for name, step in steps.items() if not step["ok"]] == (["partitions"] if words else [])
    assert ("partitions" in steps) is (words is not None)
    assert words is None or words in steps["partitions"]["words"]
    assert status == (1 if words else 0)
    assert "cpu (default)" in steps["scheduler answers"]["words"]


def test_a_scheduler_that_does_not_answer(desk):
    """Its commands are there, and nobody listens where they look for the controller."""
    nobody = "ClusterName=none\nSlurmctldHost=nowhere(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=1\n"
    desk.launcher("checked", host="mycluster")
    bashrc = desk.rig.home(desk.site.front) / ".bashrc"
    bashrc.write_text(f"export SLURM_CONF={desk.write_there('nobody.conf', nobody)}\n")
    try:
        status, steps = check(desk, "--job")
    finally:
        bashrc.unlink()
    assert [name for name, step in steps.items() if not step["ok"]] == ["scheduler answers"]
    assert "Unable to contact slurm controller" in steps["scheduler answers"]["words"]
    assert "queries" not in steps and "job submitted" not in steps
    assert status == 1


@pytest.mark.parametrize("site", [SITES["oar"]], ids=["oar"])
def test_oar(desk):
    desk.launcher("checked", host=desk.cluster)
    status, steps = check(desk)
    assert (status, list(steps)) == (0, STEPS), steps
    assert steps["scheduler answers"]["words"] == "it does"


def test_nodes_that_do_not_see_the_workdir(desk):
    desk.launcher("checked", host="mycluster", more='[defaults]\npartition = "private"\n')
    status, steps = check(desk, "--job")
    assert [name for name, step in steps.items() if not step["ok"]] == ["job"]
    assert "left nothing in the workdir" in steps["job"]["words"]
    assert status == 1
