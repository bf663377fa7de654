"""Submission, each job exactly once. In: staged files and groups of jobs, parents first. Out: native ids or refusals.

Under one lock for the workspace: look again at what is known, put the files of the jobs that are not in their
places, then for each group write a receipt, call the scheduler once, and write what it said.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import SubmissionError
from ..runtime.files import read_json, write_json
from ..schedulers.base import NoInformation, Scheduler
from .layout import Layout
from .receipts import Receipt, read_receipt
from .watch import Watcher

#: states of jobs that are not submitted again
SETTLED = ("done", "running", "queued", "waiting", "held")
#: how often a submission without a clear answer is looked for, and then tried again (seconds between)
PAUSES = (1.0, 3.0, 9.0, 27.0)


@contextlib.contextmanager
def submission_lock(layout: Layout) -> Iterator[None]:
    """Nobody else submits in this workspace while the block runs; given up by itself when the process ends."""
    folder = layout.internal / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "submit").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Submitter:
    """Submits groups of jobs.

    :param watcher: knows the states
    :param incoming: folder where the files were unpacked: ``jobs/…``, ``batches/…``
    """

    def __init__(self, layout: Layout, scheduler: Scheduler, watcher: Watcher, incoming: Path) -> None:
        self.layout = layout
        self.scheduler = scheduler
        self.watcher = watcher
        self.incoming = incoming
        self.natives: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.unknown: dict[str, str] = {}

    def run(self, groups: list[dict[str, Any]]) -> dict[str, Any]:
        """Submit; the answer has ``natives``, ``refused`` and ``unknown`` (words by job), and ``attached``.

        Attached are the jobs that were known already. An unknown job may have been submitted: the scheduler did not
        say. Whoever submits next looks for it first.

        :param groups: each with ``token``, ``name``, ``jobs`` (ids) and ``parents`` (ids), parents before children
        """
        jobs = [job for group in groups for job in group["jobs"]]
        parents = [parent for group in groups for parent in group["parents"]]
        reconcile(self.layout, self.scheduler, self.watcher, {*jobs, *parents})
        self.watcher.forget([*jobs, *parents])
        states = self.watcher.states({*jobs, *parents})
        attached = [job for job in jobs if states[job]["state"] in SETTLED]
        for group in groups:
            todo = {str(index): job for index, job in enumerate(group["jobs"]) if states[job]["state"] not in SETTLED}
            if todo:
                self._group(group, todo, states)
        self.watcher.forget(jobs)
        return {"natives": self.natives, "refused": self.refused, "unknown": self.unknown, "attached": attached}

    def _group(self, group: dict[str, Any], jobs: dict[str, str], states: dict[str, Any]) -> None:
        token, parents = group["token"], group["parents"]
        lost = [parent for parent in parents if parent in self.refused]
        if lost:
            self._refuse(jobs, "dependency", f"its parent {lost[0]} was refused")
            return
        open_ = [parent for parent in parents if parent in self.unknown]
        if open_:
            self.unknown.update(dict.fromkeys(jobs.values(), f"it is not known whether {open_[0]} was submitted"))
            return
        receipt = Receipt(token, self.scheduler.name, group["name"], len(group["jobs"]) > 1, jobs, time=time.time())
        self._place(receipt)
        receipt.write(self.layout)
        alive = [parent for parent in parents if states[parent]["state"] != "done"]
        dependencies = [self.natives.get(one) or states[one].get("native_id") for one in alive]
        missing = [parent for parent, native in zip(alive, dependencies) if not native]
        try:
            if missing:
                raise SubmissionError(f"its parent {missing[0]} is neither done nor submitted")
            native_ids = self._submit(receipt, [native for native in dependencies if native])
        except SubmissionError as error:
            receipt.state, receipt.words = "refused", str(error)
            receipt.write(self.layout)
            self._refuse(jobs, "launch", str(error))
        except NoInformation as error:
            self.unknown.update(dict.fromkeys(jobs.values(), str(error)))  # the receipt stays: the next run looks
        else:
            receipt.settle(self.layout, native_ids)
            self.natives.update(receipt.natives)

    def _submit(self, receipt: Receipt, dependencies: list[str]) -> list[str]:
        submission = receipt.submission(self.layout, dependencies)
        for pause in (*PAUSES, None):
            try:
                return self.scheduler.submit(submission)
            except NoInformation as error:
                if pause is None:
                    raise
                time.sleep(pause * random.uniform(0.8, 1.2))
                try:
                    found = self.scheduler.find(submission)
                except NoInformation:
                    raise error from None
                if found is not None:
                    return found
        raise AssertionError("the last round returns or raises")

    def _place(self, receipt: Receipt) -> None:
        """Move the files of the jobs into their directories; ``job.json`` last, with the receipt's token."""
        staged = self.incoming / "batches" / receipt.token
        if staged.is_dir():
            target = self.layout.batch(receipt.token)
            target.mkdir(parents=True, exist_ok=True)
            for file in staged.iterdir():
                file.replace(target / file.name)
        for job in receipt.jobs.values():
            source, target = self.incoming / "jobs" / job, self.layout.job(job)
            target.mkdir(parents=True, exist_ok=True)
            record = read_json(str(source / "job.json")) or {}
            old = self.layout.record(job)
            record.update(batch=receipt.token, attempt=int(old.get("attempt", 0)) + 1)
            for name in ("params.json", "job.sh"):
                os.replace(source / name, target / name)
            stem = self.layout.stem(job)
            for leftover in (f"{stem}.failed", str(target / "progress.json")):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(leftover)
            write_json(str(target / "job.json"), record)

    def _refuse(self, jobs: dict[str, str], reason: str, words: str) -> None:
        for job in jobs.values():
            self.refused[job] = words
            target = self.layout.job(job)
            target.mkdir(parents=True, exist_ok=True)
            end = {
                "state": "failed",
                "reason": reason,
                "message": words,
                "ended": time.time(),
                "by": self.scheduler.name,
            }
            record = self.layout.record(job) or read_json(str(self.incoming / "jobs" / job / "job.json")) or {}
            write_json(str(target / "job.json"), {**record, **end})
            write_json(f"{self.layout.stem(job)}.failed", end, durable=True)


def reconcile(layout: Layout, scheduler: Scheduler, watcher: Watcher, jobs: set[str]) -> None:
    """Find out what became of submissions of these jobs that were cut off; the submission lock must be held.

    One that the scheduler knows is settled. One that it does not know, while it answers, was never made: its receipt
    is removed, and the jobs can be submitted.

    :raises NoInformation: the scheduler does not answer, so nothing may be submitted
    """
    tokens = {layout.record(job).get("batch") for job in jobs}
    for token in sorted(one for one in tokens if one):
        receipt = read_receipt(layout, token)
        if receipt is None or receipt.state != "submitting" or receipt.scheduler != scheduler.name:
            continue
        found = scheduler.find(receipt.submission(layout))
        if found is not None:
            receipt.settle(layout, found)
        else:
            shutil.rmtree(layout.batch(token))
        watcher.receipts.pop(token, None)
