"""A whole experiment on a newer Slurm's login node, as its user starts it, and an agent as a laptop starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from newer import until

from experimaestro_hpc.connectors.openssh import OpenSshChannel
from experimaestro_hpc.driver.client import RemoteClient
from experimaestro_hpc.driver.ship import build
from experimaestro_hpc.errors import ConnectionFailed

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("way", ["pyslurm", "commands"])
def test_helloworld(tmp_path, way):
    workdir = tmp_path / "work"
    launcher = tmp_path / "here.toml"
    launcher.write_text(f'scheduler = "slurm"\nworkdir = "{workdir}"\n[connector]\ntype = "local"\n')
    modules = [str(REPOSITORY)]
    if way == "commands":  # what is no package is not taken for pyslurm
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "pyslurm.py").write_text("raise SystemExit('nobody imports this')\n")
        modules.insert(0, str(tmp_path / "modules"))
    script = REPOSITORY / "docs/examples/helloworld.py"
    ended = subprocess.run(
        [sys.executable, str(script), str(workdir), "--port", "0", "--sleeptime", "0.1"],
        env={**os.environ, "PYTHONPATH": ":".join(modules), "XPM_HPC_LAUNCHER": str(launcher)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended
    assert "pyslurm is not used" not in ended.stderr
    (said,) = workdir.glob("jobs/helloworld.concat/*/concat.out")
    assert said.read_text() == "HELLO WORLD\n"
    assert len(list(workdir.glob("jobs/*/*/*.done"))) == 3


class Shell:
    """Runs commands as sshd would, here."""

    host = "here"

    def open(self, command: str) -> OpenSshChannel:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environ = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(["sh", "-c", command], env=environ, start_new_session=True, **pipes)
        return OpenSshChannel(self.process)

    def explain(self, complaint: str) -> ConnectionFailed:
        return ConnectionFailed(complaint)

    def close(self) -> None:
        """Nothing is open."""


def test_an_agent_that_is_shipped_and_killed_leaves_no_child(tmp_path):
    """Its Python finds pyslurm, and its modules are where they were shipped to."""
    shell = Shell()
    client = RemoteClient(shell, str(tmp_path / "work"), "slurm", build())
    assert client.call("survey", jobs=[])["queries"].startswith("pyslurm ")

    def children() -> list[bytes]:
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        return [line for line in lines if b"pyslurm_child" in line]

    assert len(children()) == 1
    os.killpg(shell.process.pid, signal.SIGKILL)
    until(lambda: not children(), "the child to end")
    client.close()
