"""What the tests of a newer Slurm do again and again: submit, ask both ways, wait."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experimaestro_hpc.resources import Resources
from experimaestro_hpc.schedulers.base import Request, Submission, job_name
from experimaestro_hpc.schedulers.command import Commands
from experimaestro_hpc.schedulers.pyslurm_query import Pyslurm
from experimaestro_hpc.schedulers.slurm import Slurm

#: elements of an array whose list is longer than what Slurm shows unless told otherwise
SPARSE = tuple(range(0, 200, 2))

_tokens = (f"{number:016x}" for number in itertools.count(1))


class Submitter:
    """Submits what a shell does, in a directory of its own, as the driver and the agent do it together."""

    def __init__(self, place: Path, slurm: Slurm) -> None:
        self.place = place
        self.slurm = slurm

    def __call__(
        self,
        shell: str,
        *,
        after: Sequence[str] = (),
        indexes: Sequence[int] = (),
        resources: str = "any",
        directory: str = "",
        **options: Any,
    ) -> list[str]:
        return self.slurm.submit(self.prepare(shell, after, indexes, resources, directory, **options))

    def prepare(
        self,
        shell: str,
        after: Sequence[str] = (),
        indexes: Sequence[int] = (),
        resources: str = "any",
        directory: str = "",
        **options: Any,
    ) -> Submission:
        token = next(_tokens)
        folder = self.place / (directory or token)
        folder.mkdir(parents=True)
        wishes = Resources.parse(resources)
        partition = options.pop("partition", None)
        request = Request("task", wishes, partition, options=options, log="slurm.log", array=bool(indexes))
        script = folder / "job.sh"
        script.write_text("\n".join(["#!/bin/sh", *Slurm.directives(request), shell, ""]))
        return Submission(token, job_name("task", token), str(script), str(folder), after, indexes)


def until(condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    """What the condition gives, as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while not (given := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.1)
    return given


def command(*argv: str) -> str:
    """What one of Slurm's commands prints."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def with_commands() -> Slurm:
    commands = Commands()
    return Slurm("/nowhere", commands, Pyslurm(commands, None))


def with_pyslurm() -> Slurm:
    return Slurm("/nowhere")
