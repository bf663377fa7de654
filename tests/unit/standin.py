"""A scheduler for tests of the agent: its jobs are files, so that they outlive the process that submitted them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from experimaestro_hpc.agent import send as send_module
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.receipts import read_receipt
from experimaestro_hpc.agent.service import Service
from experimaestro_hpc.driver.mirror import pack
from experimaestro_hpc.errors import SubmissionError
from experimaestro_hpc.schedulers.base import (
    NoInformation,
    NoRoom,
    NotReached,
    Request,
    Scheduler,
    Status,
    Submission,
    Unclear,
)

A, B, C, D = (f"test.{name}/{name * 8}" for name in "abcd")
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


class Crash(BaseException):
    """The process dies here."""


class StandIn(Scheduler):
    """Does what its script says, then what its room allows; then all is well."""

    name = "standin"
    arrays = True
    corresponds = True

    def __init__(self, workspace: str) -> None:
        super().__init__(workspace)
        self.cluster = Path(workspace).parent / "cluster"
        self.cluster.mkdir(exist_ok=True)
        #: what becomes of the next submissions
        self.script: list[str] = []
        #: how many jobs can still be submitted
        self.room: int | None = None
        #: what it says of jobs, by native id; the others are queued
        self.says: dict[str, Status] = {}
        self.submissions: list[Submission] = []
        self.looked_for: list[str] = []
        self.is_deaf = False
        self.may_cancel = False
        self.cancelled: list[str] = []

    @classmethod
    def directives(cls, request: Request) -> list[str]:
        return []

    def submit(self, submission: Submission) -> list[str]:
        receipt = read_receipt(Layout(self.workspace), submission.token)
        assert receipt is not None and receipt.state == "submitting", "the receipt is on the disk before the call"
        self.submissions.append(submission)
        what = self.script.pop(0) if self.script else "accept"
        size = len(submission.indexes) or 1
        if what == "full" or (self.room is not None and size > self.room):
            raise NoRoom("QOSMaxSubmitJobPerUserLimit")
        if self.room is not None:
            self.room -= size
        if what == "not reached":
            raise NotReached("sbatch: Batch job submission failed: Unable to contact slurm controller")
        if what == "refuse":
            raise SubmissionError("Invalid partition name specified", where="sbatch")
        if what == "die before":
            raise Crash
        if what == "accept a part":
            (self.cluster / f"{submission.token}.part").touch()
            raise NoInformation(TIMED_OUT)
        if what == "accept a part, die":
            (self.cluster / f"{submission.token}.part").touch()
            raise Crash
        if what.startswith(("accept", "die after")):
            with (self.cluster / submission.token).open("a") as file:
                file.write("submitted\n")
        if what == "die after":
            raise Crash
        if "unclear" in what:
            raise Unclear("FAILED: Invalid project")
        if what != "accept":
            raise NoInformation(TIMED_OUT)
        return self.natives(submission)

    @staticmethod
    def natives(submission: Submission) -> list[str]:
        return [f"{submission.token}_{index}" for index in submission.indexes] or [submission.token]

    def find(self, submission: Submission) -> list[str] | None:
        self.looked_for.append(submission.token)
        if self.is_deaf:
            raise NoInformation("squeue: slurm_load_jobs error: Unable to contact slurm controller")
        if (self.cluster / f"{submission.token}.part").exists():  # every other element
            return [native * (place % 2) for place, native in enumerate(self.natives(submission))]
        return self.natives(submission) if (self.cluster / submission.token).exists() else None

    def query(self, native_ids: Sequence[str], max_age: float = 0.0) -> dict[str, Status]:
        if self.is_deaf:
            raise NoInformation("squeue: slurm_load_jobs error: Unable to contact slurm controller")
        return {one: self.says.get(one, Status("queued", detail="Priority")) for one in native_ids}

    def cancel(self, native_ids: Sequence[str]) -> None:
        assert self.may_cancel, "nobody cancels here"
        self.cancelled += native_ids

    @property
    def calls_made(self) -> list[tuple[str, str, str]]:
        """Of each call the directories' jobs, what all of them wait for, and the arrays of corresponding elements."""
        return [
            (
                " ".join(Path(one).parent.name.rpartition(".")[2] for one in call.directories),
                " ".join(call.dependencies),
                " ".join(call.corresponding),
            )
            for call in self.submissions
        ]


def group(
    token: str, jobs: Sequence[str] | Mapping[int, str], parents: Sequence[str] | Mapping[str, Sequence[str]] = ()
) -> dict[str, Any]:
    """As the driver sends it.

    :param parents: those of all jobs, or by job
    """
    elements = jobs if isinstance(jobs, Mapping) else dict(enumerate(jobs))
    needed = parents if isinstance(parents, Mapping) else dict.fromkeys(elements.values(), parents)
    return {
        "token": token,
        "label": "job",
        "jobs": {str(index): job for index, job in elements.items()},
        "parents": {job: list(needed.get(job, ())) for job in elements.values()},
    }


def staged(groups: Sequence[dict[str, Any]], version: str = "1", **record: Any) -> dict[str, str]:
    """The files of the jobs.

    :param record: more of what ``job.json`` says
    """
    found = {}
    for one in groups:
        for job in one["jobs"].values():
            name = job.split("/")[0].rpartition(".")[2]
            document = {"id": job, "parents": one["parents"][job], "name": name, "version": version, **record}
            found[f"jobs/{job}/params.json"] = json.dumps(version)
            found[f"jobs/{job}/job.json"] = json.dumps(document)
            found[f"jobs/{job}/job.sh"] = f"#!/bin/bash\n# {version}\n"
        if len(one["jobs"]) > 1:
            found[f"batches/{one['token']}/array.sh"] = "#!/bin/bash\n"
    return found


def send(
    service: Service, *groups: dict[str, Any], version: str = "1", token: str = "request", **record: Any
) -> dict[str, Any]:
    """Submit; the answer, or the error."""
    body, _ = pack(staged(groups, version, **record), None)
    with body:
        arguments = {"token": token, "groups": list(groups), "code": "0123"}
        document, _ = service.handle({"op": "submit", "arguments": arguments}, body)
    answer: dict[str, Any] = document.get("answer") or document["error"]
    return answer


def times_submitted(scheduler: StandIn) -> dict[str, int]:
    """How often the cluster has taken each token."""
    return {path.name: path.read_text().count("\n") for path in scheduler.cluster.iterdir()}


def submitted_jobs(service: Service, scheduler: StandIn) -> list[str]:
    """The jobs that the cluster has taken, as often as it has."""
    found = []
    for token, times in times_submitted(scheduler).items():
        receipt = read_receipt(service.layout, token)
        assert receipt is not None
        found += list(receipt.jobs.values()) * times
    return sorted(found)


def numbered_workspaces(tmp_path: Path) -> Iterator[Service]:
    for number in itertools.count():
        root = tmp_path / str(number) / "workspace"
        root.mkdir(parents=True)
        yield Service(str(root), "standin")


def restart(service: Service) -> tuple[Service, Any]:
    """Another process on the same workspace."""
    fresh = Service(str(service.layout.root), "standin")
    return fresh, fresh.scheduler


class Deaths:
    """Makes the process die at the n-th write of the agent's own small files, or call of the scheduler."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        #: how many steps it still lives
        self.left: float = float("inf")
        write, submit = send_module.write_json, StandIn.submit

        def write_or_die(path: str, document: dict[str, Any], **more: Any) -> None:
            self.step()
            write(path, document, **more)

        def submit_or_die(scheduler: StandIn, submission: Any) -> list[str]:
            self.step()
            natives = submit(scheduler, submission)
            self.step()
            return natives

        for module in ("send", "submit", "receipts"):
            monkeypatch.setattr(f"experimaestro_hpc.agent.{module}.write_json", write_or_die)
        monkeypatch.setattr(StandIn, "submit", submit_or_die)

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def at(self, number: int, do: Callable[[], object]) -> bool:
        """Die at this step of what is done, if it takes as many; whether it was done to its end."""
        self.left = number
        try:
            do()
        except Crash:
            return False
        finally:
            self.left = float("inf")
        return True


#: makes a new agent on the same workspace, and its scheduler
Start = Callable[[], tuple[Service, Any]]


def agents(tmp_path: Path) -> Start:
    """New agents on one workspace below ``tmp_path``."""

    def fresh() -> tuple[Service, Any]:
        root = tmp_path / "workspace"
        root.mkdir(exist_ok=True)
        service = Service(str(root), "standin")
        return service, service.scheduler

    return fresh
