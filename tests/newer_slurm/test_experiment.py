"""A whole experiment on a newer Slurm's login node, as its user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
