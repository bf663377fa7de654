"""The test cluster is what the other tests take it for."""

from __future__ import annotations

import re
import signal
import time

import pytest

SSH = ["ssh", "-o", "BatchMode=yes"]


def printed(result) -> str:
    """What a command printed; it must have succeeded."""
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("way", ["cluster", "far"])
def test_laptop_reaches_the_login_node(rig, site, way):
    submit = site.commands[0]
    words = printed(rig.exec("laptop", [*SSH, getattr(site, way), f"hostname; whoami; command -v {submit}"])).split()
    assert words == [site.front, "alice", f"/usr/bin/{submit}"]


def test_the_far_way_goes_through_the_gate(rig, site):
    visitors = printed(rig.exec("laptop", [*SSH, site.far, "echo $SSH_CONNECTION"]))
    assert visitors.split()[0] == "10.77.0.5"


def test_the_gate_has_no_scheduler(rig):
    result = rig.exec("laptop", [*SSH, "plaincluster", "hostname; command -v sbatch squeue sinfo oarsub oarstat"])
    assert (result.returncode, result.stdout) == (1, "gate\n")


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("changedcluster", "REMOTE HOST IDENTIFICATION HAS CHANGED"),
        ("unknowncluster", "Host key verification failed"),
        ("refusedcluster", "Permission denied (publickey)"),
    ],
)
def test_a_connection_fails_for_its_own_reason(rig, cluster, message):
    result = rig.exec("laptop", [*SSH, cluster, "true"])
    assert result.returncode == 255
    assert message in result.stderr


def test_deadcluster_does_not_answer(rig):
    result = rig.exec("laptop", [*SSH, "-o", "ConnectTimeout=1", "deadcluster", "true"])
    assert result.returncode == 255
    assert "timed out" in result.stderr


def test_the_laptop_has_no_slurm_configuration(rig):
    result = rig.exec("laptop", ["sinfo"])
    assert result.returncode != 0
    assert "configuration source" in result.stderr


def test_a_job_sees_the_gpus_it_asked_for(rig):
    show = 'echo "$CUDA_VISIBLE_DEVICES $SLURM_GPUS_ON_NODE"'
    assert printed(rig.exec("login", ["srun", "--gres=gpu:2", "sh", "-c", show])) == "0,1 2"


def test_a_batch_job_is_in_the_accounts(rig):
    submit = ["sbatch", "--parsable", "--wait", "--gres=gpu:2", "--comment=token", "--output=gpus.out"]
    job = printed(rig.exec("login", [*submit, "--wrap", "echo $CUDA_VISIBLE_DEVICES"]))
    assert (rig.home("login") / "gpus.out").read_text() == "0,1\n"

    query = ["sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode,Comment,Account,User"]
    end = time.monotonic() + 60
    while (row := printed(rig.exec("login", query))).startswith(("RUNNING", "COMPLETING")) or not row:
        assert time.monotonic() < end, row
        time.sleep(0.2)
    assert row == "COMPLETED|0:0|token|lab|alice"


def test_too_many_jobs_for_the_quality_of_service(rig):
    submit = ["sbatch", "--parsable", "--hold", "--qos=tiny", "--wrap", "true"]
    jobs = [printed(rig.exec("login", submit)) for _ in range(2)]
    refused = rig.exec("login", submit)
    printed(rig.exec("login", ["scancel", *jobs]))
    assert refused.returncode == 1
    assert "job submit limit" in refused.stderr


def test_an_oar_job_knows_what_it_was_given(rig):
    """Its command runs on the first node, as its user, and all nodes are in the file."""
    front, home = "oarfront", rig.home("oarfront")
    rig.exec(front, ["sh", "-c", "rm -f oar.out"])
    show = "hostname; whoami; uniq $OAR_NODE_FILE; cat $OAR_RESOURCE_PROPERTIES_FILE | wc -l"
    submit = ["oarsub", "-d", "/home/alice", "-l", "/nodes=2/gpu=1,walltime=0:1:0", "-p", "gpu_model='FakeGPU'"]
    job = re.search(r"^OAR_JOB_ID=(\d+)$", printed(rig.exec(front, [*submit, "-O", "oar.out", show])), re.MULTILINE)
    end = time.monotonic() + 60
    while rig.oar_sql(f"SELECT state FROM jobs WHERE job_id = {job[1]}").strip() != "Terminated":
        assert time.monotonic() < end
        time.sleep(0.2)
    assert (home / "oar.out").read_text().split() == ["o1", "alice", "o1", "o2", "8"]


def test_home_is_shared_and_scratch_is_not(rig, site):
    printed(rig.exec(site.front, ["sh", "-c", "echo shared >~/where; echo login >/scratch/where"]))
    printed(rig.exec("laptop", ["rm", "-f", "where"]))
    for node in ("c1", "c2") if site.scheduler == "slurm" else ("o1", "o2"):
        assert printed(rig.exec(node, ["cat", "where"])) == "shared"
        assert rig.exec(node, ["cat", "/scratch/where"]).returncode == 1
    assert rig.exec("laptop", ["cat", "where"]).returncode == 1
    assert rig.exec(site.front, ["cat", "where"], user="bob").returncode == 1


def test_a_command_gets_nothing_of_the_callers_environment(rig, monkeypatch):
    monkeypatch.setenv("LEAK", "1")
    lines = printed(rig.exec("laptop", ["env"], env={"EXTRA": "2"})).splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    assert set(variables) == {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "EXTRA"}
    assert printed(rig.exec("laptop", ["pwd"])) == variables["HOME"] == "/home/alice"


def test_up_does_nothing_when_up_and_repairs_what_died(rig):
    before = rig.status()
    assert rig.up() is False
    assert rig.status() == before

    rig.stop("slurmctld")  # not killed: it would forget the jobs of its last seconds
    rig.stop("slurmdbd", signal.SIGKILL)
    rig.stop("slurmd-c1", signal.SIGKILL)
    rig.stop("almighty")
    rig.stop("postgres", signal.SIGKILL)
    dead = ("slurmctld", "slurmdbd", "slurmd-c1", "almighty", "postgres")
    assert rig.status() == before | dict.fromkeys(dead)
    assert rig.up() is False
    assert all(rig.status().values())
    assert printed(rig.exec("login", ["srun", "hostname"])) in ("c1", "c2")
