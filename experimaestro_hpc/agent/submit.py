"""Submission, each job exactly once. In: staged files and groups of jobs, parents first. Out: native ids or refusals.

Under one lock for the workspace: look again at what is known, put the files of the jobs that are not in their
places, then for each group write a receipt, call the scheduler once, and write what it said.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from ..runtime.files import read_json, write_json
from ..schedulers.base import Scheduler, job_name
from .adopt import make_directory
from .layout import Layout
from .receipts import Receipt, look_up, read_receipt
from .send import Sender
from .watch import Watcher

#: states of jobs that wait, that have not ended, and that are not submitted again
WAITING = ("queued", "waiting", "held")
LIVE = ("running", *WAITING)
SETTLED = ("done", *LIVE)
#: what the end of an attempt leaves in ``job.json``
ENDED = ("state", "reason", "message", "started", "ended", "host", "pid", "exit_code", "used", "native_id", "gpus")


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

    def run(self, groups: list[dict[str, Any]]) -> dict[str, Any]:
        """Submit; the answer has ``natives`` and words by job: ``refused``, ``held``, ``unknown``; and ``attached``.

        Attached are the jobs that were known already. An unknown job may have been submitted: the scheduler did not
        say. Whoever comes next looks for it first. Held ones are submitted later, by whoever watches them.

        :param groups: each with ``token``, ``label``, ``jobs`` (ids by index) and ``parents`` (lists of ids by job),
            parents before children
        """
        jobs = [job for group in groups for job in group["jobs"].values()]
        parents = [one for group in groups for needed in group["parents"].values() for one in needed]
        reconcile(self.layout, self.scheduler, self.watcher, {*jobs, *parents})
        self.watcher.forget([*jobs, *parents])
        states = self.watcher.states({*jobs, *parents})
        attached = [job for job in jobs if states[job]["state"] in SETTLED]
        sender = Sender(self.layout, self.scheduler, self.watcher, states)
        for group in groups:
            todo = {index: job for index, job in group["jobs"].items() if states[job]["state"] not in SETTLED}
            if todo:
                token, is_array = group["token"], len(group["jobs"]) > 1
                receipt = Receipt(
                    token,
                    self.scheduler.name,
                    job_name(group["label"], token),
                    todo,
                    script=token if is_array else "",
                    parents=group["parents"],
                )
                self._place(receipt)
                sender.send(receipt)
        self.watcher.forget(jobs)
        return {
            "natives": sender.natives,
            "refused": sender.refused,
            "held": sender.held,
            "unknown": sender.unknown,
            "attached": attached,
        }

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
            make_directory(target)
            record = read_json(str(source / "job.json")) or {}
            for name in ("params.json", "job.sh"):
                os.replace(source / name, target / name)
            start_attempt(self.layout, job, record, receipt.token, is_first=True)


def start_attempt(layout: Layout, job: str, record: dict[str, Any], token: str, is_first: bool = False) -> None:
    """Write ``job.json`` for a new attempt, with what is known of those before, and remove what the last one left.

    :param record: the new ``job.json``, without what a submission adds
    :param is_first: of a run of the script; attempts ``earlier`` than that do not count for its policy
    """
    old = layout.record(job)
    attempts = list(old.get("attempts") or ())
    if old.get("batch"):
        attempts.append({"attempt": old.get("attempt", 1), **{key: old[key] for key in ENDED if key in old}})
    record = {key: value for key, value in record.items() if key not in ENDED}
    record.update(batch=token, attempt=int(old.get("attempt", 0)) + 1, attempts=attempts)
    if is_first:
        record["earlier"] = len(attempts)
    for leftover in (f"{layout.stem(job)}.failed", str(layout.job(job) / "progress.json")):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leftover)
    write_json(str(layout.job(job) / "job.json"), record)


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
        found = look_up(layout, scheduler, receipt)
        if found is not None:
            receipt.settle(layout, found)
        else:
            (layout.batch(token) / "receipt.json").unlink()
        watcher.receipts.pop(token, None)
