"""`xpm-hpc launchers add` on the real clusters: what it writes is read as it was meant, and works unedited."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from desk import HELLOWORLD, Desk, Ended, wait_for
from rig import LAPTOP_VENV
from rig_machine import STANDARD_PATH
from sites import only

GB = 1 << 30
LOOKS = "xpm-hpc-look-*"


@pytest.fixture
def user(desk):
    """Runs `xpm-hpc` on the laptop, with launcher files that are this test's own."""
    before = set(Path("/tmp").glob(LOOKS))
    desk.write("helloworld.py", HELLOWORLD)

    def run(*argv: str) -> Ended:
        return desk.run("xpm-hpc", *argv, env={"XDG_CONFIG_HOME": f"/home/{desk.user}/{desk.folder}/config"})

    yield run
    # the agent removes what it was shipped to when the connection ends
    wait_for(lambda: not set(Path("/tmp").glob(LOOKS)) - before, "the temporary folder to go")


def added(desk: Desk, user, name: str, *argv: str) -> dict:
    """What the product reads in the file that was written."""
    told = user("launchers", "add", name, *argv, "--workdir", desk.workdir).ok()
    assert [line.split()[1] for line in told.err.splitlines()[1:]] == [
        *("connection:", "scheduler:", "workdir:", "software:")
    ]
    assert f"next: xpm-hpc launchers check {name} --job" in told.out
    return user("launchers", "show", name, "--json").json()


def runs(desk: Desk, user, name: str) -> None:
    """A trivial experiment runs with it."""
    ran = user("run", "--launcher", name, "helloworld.py", "--", "work", "--port", "0", "--sleeptime", "0.05").ok()
    assert "experiment helloworld: 3 done" in ran.out
    assert desk.results("concat.out") == ["HELLO WORLD\n"]


def test_what_is_written_works(desk, user):
    found = added(desk, user, "mine", f"ssh://alice@{desk.site.front}")
    assert (found["scheduler"], found["workdir"]) == (desk.site.scheduler, desk.workdir)
    assert found["connector"] == {"type": "ssh", "host": f"alice@{desk.site.front}", "transport": "auto"}
    assert found["environment"]["python"] == "python3"
    checked = {one["step"]: one for one in user("launchers", "check", "mine", "--job", "--json").json()}
    assert checked["job"]["ok"]
    runs(desk, user, "mine")
    assert desk.markers("done") == ["concat.done", "say.done", "say.done"]


def test_through_a_jump_host(desk, user):
    """The name of the launcher is that of the host in ~/.ssh/config."""
    found = added(desk, user, desk.site.far)
    assert found["connector"]["host"] == desk.site.far
    runs(desk, user, desk.site.far)


@only("slurm", "the facts are Slurm's")
def test_what_slurm_says(desk, user):
    found = added(desk, user, "mine", "mycluster")
    partitions = {one["name"]: one for one in found["partitions"]}
    assert list(partitions) == ["cpu", "private", "gpu", "scav"]  # the default first, what may be preempted last
    gpu = partitions["gpu"]
    assert (gpu["max_time"], gpu["cores"], gpu["memory"], gpu["nodes"]) == (7200, 16, 16000 << 20, 2)
    assert gpu["gpus"] == {"type": "h100", "count": 4, "memory": 80 * GB}
    assert partitions["private"]["gpus"] is None
    text = (desk.here / "config/xpm-hpc/launchers/mine.toml").read_text()
    for words in ('#account = "lab"', "yours: normal, tiny", "jobs here may be preempted", "GUESSED: the nodes see"):
        assert words in text
    [fit] = user("launchers", "fit", "gpu(mem=40G) * 2 & duration=1h", "--launcher", "mine", "--json").json()
    assert (fit["partition"], "#SBATCH --gres=gpu:h100:2" in fit["directives"]) == ("cpu", True)


@only("oar", "the facts are OAR's")
def test_what_oar_says(desk, user):
    found = added(desk, user, "mine", "myoar")
    [queue] = found["partitions"]
    assert (queue["name"], queue["cores"], queue["memory"], queue["nodes"]) == ("default", 8, 16000 << 20, 2)
    assert queue["gpus"] == {"type": "FakeGPU", "count": 2, "memory": 24 * GB}
    assert found["defaults"] == {"gpu_memory_property": "gpu_mem", "memory_property": "mem", "memory_unit": "M"}
    [fit] = user("launchers", "fit", "gpu(mem=20G) * 2", "--launcher", "mine", "--json").json()
    assert "#OAR --property (gpu_model = 'FakeGPU') AND (gpu_mem >= 20480)" in fit["directives"]


def test_one_connection_and_nothing_but_a_look(desk, user):
    log = desk.rig.root / f"log/sshd-{desk.site.front}.log"
    before = log.read_text(errors="replace").count("Accepted publickey")
    shown = user("launchers", "add", "mine", desk.cluster, "--workdir", desk.workdir + "/deeper", "--print").ok()
    assert shown.out.count("[connector]") == 1
    assert log.read_text(errors="replace").count("Accepted publickey") == before + 1
    assert not (desk.there / "deeper").exists()
    assert not (desk.here / "config").exists()


@only("slurm", "hosts and words are the same for both")
@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["plaincluster"], 2, ["no scheduler was found", "is it a login node", "--scheduler local"]),
        (["mycluster", "--scheduler", "oar"], 3, ["oar does not answer: oarnodes -J"]),
        (["unknowncluster"], 3, ["is not known"]),
        (["refusedcluster"], 3, ["the login was refused"]),
        (["ssh://alice@login:2223"], 3, ["is not known"]),
        (["mycluster", "--workdir", "/root/xpm"], 2, ["cannot be made or written"]),
        (["mycluster", "--workdir", "$NOPE/$(id)"], 2, ["a variable is not set"]),
    ],
)
def test_what_cannot_be(desk, user, argv, status, words):
    user("launchers", "add", "mine", *argv).error(status, *words)
    assert not (desk.here / "config/xpm-hpc/launchers/mine.toml").exists()


@only("slurm", "hosts and words are the same for both")
def test_a_scheduler_that_is_not_on_the_path(desk, user):
    """As on sites where only a login shell has it: the error says where it is, and what to do."""
    profile = desk.rig.home("gate") / ".bash_profile"
    folder = desk.rig.home("gate") / "slurm/bin"
    folder.mkdir(parents=True)
    try:
        (folder / "sbatch").write_text("#!/bin/sh\n")
        (folder / "sbatch").chmod(0o755)
        profile.write_text("export PATH=/home/alice/slurm/bin:$PATH\n")
        hint = "export PATH=/home/alice/slurm/bin:$PATH"
        user("launchers", "add", "mine", "plaincluster").error(2, "there is /home/alice/slurm/bin/sbatch", hint)
    finally:
        profile.unlink()
        shutil.rmtree(folder.parent)


@only("slurm", "the way to a host is the same for both")
def test_a_port_is_kept(desk, user):
    known = desk.rig.home("laptop") / ".ssh/known_hosts"
    before = known.read_text()
    try:
        ssh = desk.rig.exec("laptop", ["ssh-keyscan", "-p", "2223", "login"])
        assert ssh.returncode == 0, ssh
        known.write_text(before + ssh.stdout)
        for transport in ("paramiko", "openssh"):
            argv = ("ssh://alice@login:2223", "--transport", transport, "--yes")
            assert added(desk, user, "mine", *argv)["connector"]["host"] == "ssh://alice@login:2223"
            assert all(one["ok"] for one in user("launchers", "check", "mine", "--json").json())
    finally:
        known.write_text(before)


@only("slurm", "it is the connector that matters")
def test_on_the_login_node_itself(desk, laptop):
    """`--local`, with the package installed on the login node as it is on the laptop."""
    rig, front = desk.rig, desk.site.front
    there = rig.home(front) / Path(LAPTOP_VENV).name
    shutil.rmtree(there, ignore_errors=True)
    shutil.copytree(rig.home("laptop") / there.name, there, symlinks=True)
    example = desk.write_there("helloworld.py", HELLOWORLD)
    folder = f"/home/alice/{desk.folder}"
    environment = {"PATH": f"{LAPTOP_VENV}/bin:{STANDARD_PATH}", "XDG_CONFIG_HOME": f"{folder}/config"}

    def xpm_hpc(*argv: str) -> Ended:
        return Ended(rig.exec(front, ["xpm-hpc", *argv], "alice", env=environment, cwd=folder, timeout=180))

    try:
        xpm_hpc("launchers", "add", "here", "--local", "--workdir", f"{folder}/work").ok()
        found = xpm_hpc("launchers", "show", "here", "--json").json()
        assert (found["connector"]["type"], found["scheduler"]) == ("local", "slurm")
        assert found["partitions"][0]["name"] == "cpu"
        argv = ("run", "--launcher", "here", example, "--", f"{folder}/work", "--port", "0", "--sleeptime", "0.05")
        assert "3 done" in xpm_hpc(*argv).ok().out
    finally:
        shutil.rmtree(there)
