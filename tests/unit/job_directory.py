"""Job directories for the tests of the runtime: written by hand, and run as the job script runs them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experimaestro_hpc.driver.ship import build, install

#: seconds; a process that takes longer hangs
LONG = 30.0
CODE = ".xpm/code/c"


@functools.cache
def shipped() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """The shipped package as it is installed on a cluster: its folder, and what removes it at the end."""
    holder = tempfile.TemporaryDirectory(prefix="shipped-")
    shipment = build()
    install(shipment, Path(holder.name))
    return holder, Path(holder.name, shipment.folder)


def lib() -> Path:
    """The folder with ``run_task.py``."""
    return shipped()[1]


class Workspace:
    """A workspace with a code folder; :meth:`job` adds jobs to it."""

    def __init__(self, root: Path, code: str = CODE) -> None:
        self.root = root
        self.code = root / code
        self.code.mkdir(parents=True)

    def script(self, text: str, name: str = "tasks.py") -> Path:
        path = self.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def job(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        identifier: str = "1",
        file: str | None = "tasks.py",
        module: str = "tasks",
        configs: Sequence[Mapping[str, Any]] = (),
        **record: Any,
    ) -> Job:
        """A job of the class ``name``, of the script ``file`` or, without one, of an importable module.

        :param configs: further objects of ``params.json``; those without a class get ``name``'s file
        :param record: what ``job.json`` says beside the folder of the code
        """
        task = f"{module}.{name}".lower()
        job = Job(self, f"{task}/{identifier}")
        reference = {"module": module, "file": file} if file else {"module": module}
        first = {"class": {**reference, "name": name}, "params": dict(params or {})}
        others = [{**one, "class": {**reference, "name": one["class"]}} for one in configs]
        document = {"schema": 1, "task": task, "identifier": identifier, "configs": [first, *others]}
        job.directory.mkdir(parents=True)
        job.write("params.json", document)
        job.write("job.json", {"id": job.id, "code": CODE, "argv": ["tasks.py"], **record})
        return job


class Job:
    """One job directory."""

    def __init__(self, workspace: Workspace, job: str) -> None:
        self.id = job
        self.workspace = workspace
        self.directory = workspace.root / "jobs" / job
        self.name = job.split("/")[0].rpartition(".")[2]

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        (self.directory / name).write_text(json.dumps(document), encoding="utf-8")

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file; NaN and the like are no JSON."""
        text = (self.directory / name).read_text(encoding="utf-8")
        document: dict[str, Any] = json.loads(text, parse_constant=lambda name: [][0])
        return document

    def text(self, name: str) -> str:
        return (self.directory / name).read_text(encoding="utf-8")

    @property
    def record(self) -> dict[str, Any]:
        return self.read("job.json")

    @property
    def markers(self) -> list[str]:
        """The endings of the markers that are there."""
        return sorted(p.suffix for p in self.directory.iterdir() if p.suffix in (".done", ".failed"))

    @property
    def marker(self) -> dict[str, Any]:
        """The only marker."""
        (ending,) = self.markers
        return self.read(self.name + ending)

    def mark(self, state: str = "done") -> Job:
        """Write a marker as if the job had run."""
        self.write(f"{self.name}.{state}", {"state": state})
        return self

    def command(self, *options: str, python: str = sys.executable, entry: Sequence[str] = ()) -> list[str]:
        """As in the job script; without site-packages, as on a cluster where nothing is installed."""
        return [python, "-S", *options, *(entry or [str(lib() / "run_task.py")]), str(self.directory)]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**kept, "PYTHONPATH": str(self.workspace.code), "XPM_HPC_MARKER_PATIENCE": "0", **more}

    def run(
        self, *options: str, python: str = sys.executable, entry: Sequence[str] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(*options, python=python, entry=entry),
            cwd=self.directory,
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )

    def start(self, **env: str) -> subprocess.Popen[bytes]:
        """Start it; its output is lost."""
        return subprocess.Popen(
            self.command(),
            cwd=self.directory,
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
