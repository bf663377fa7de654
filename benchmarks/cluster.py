"""What the benchmarks on the test cluster share. In: scripts and launcher files. Out: commands on its laptop, measured.

Needs the test cluster (``make up``); it is brought up if it is not.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

from measure import Figures, cpu_of_children

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

from rig import LAPTOP_VENV, Rig  # noqa: E402
from rig_machine import STANDARD_PATH  # noqa: E402

LAUNCHER = """\
scheduler = "{scheduler}"
workdir = "~/bench"
[connector]
type = "ssh"
host = "{host}"
transport = "{transport}"
"""


class Laptop:
    """alice's laptop with this repository's package, and nothing left of earlier runs."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.rig.up()
        self.rig.install_on_laptop(ROOT)
        self.home: Path = self.rig.home("laptop")
        for host in ("login", "oarfront", "laptop"):
            self.rig.exec(host, ["sh", "-c", "rm -rf ~/bench ~/bench-work ~/bench-rsync"], timeout=None)

    def write(self, name: str, text: str) -> None:
        """Write a file of alice's."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.run("chown", "-R", "alice:", f"/home/alice/{name.split('/')[0]}", user="root")

    def launcher(
        self,
        name: str,
        host: str = "mycluster",
        transport: str = "auto",
        more: str = "",
        scheduler: str = "slurm",
    ) -> None:
        """Write a launcher file."""
        text = LAUNCHER.format(scheduler=scheduler, host=host, transport=transport)
        self.write(f".config/xpm-hpc/launchers/{name}.toml", text + more)

    def run(self, *argv: str, user: str = "alice", host: str = "laptop", **env: str) -> CompletedProcess[str]:
        """Run a command to its end; the benchmark ends with it if it fails."""
        environment = {"PATH": f"{LAPTOP_VENV}/bin:{STANDARD_PATH}", **env}
        ended: CompletedProcess[str] = self.rig.exec(host, argv, user, env=environment, timeout=None)
        if ended.returncode:
            sys.exit(f"{' '.join(argv)} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
        return ended

    def timed(self, *argv: str) -> Figures:
        """Run a command; its CPU time on the laptop, and the wall time."""
        before, began = cpu_of_children(), time.perf_counter()
        self.run(*argv)
        return Figures(cpu_of_children() - before, time.perf_counter() - began)


def load() -> str:
    """How busy the machine is."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} over the last minute"


def column(text: str, words: Sequence[object]) -> None:
    """Print a line of a table."""
    print(f"{text:<44}" + "".join(f"{word!s:>14}" for word in words), flush=True)
