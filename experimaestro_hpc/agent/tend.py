"""What is due for jobs that are watched. In: their receipts and states. Out: later submissions, and new attempts.

* Submissions without a clear answer are looked up, and made if they never were; held ones are made when there is room.
* A job that failed is tried again if its policy says so (:mod:`.retry`), and with it the jobs that failed for it.

Whoever watches does this, under the submission lock, so that two who watch do it once.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import XpmError
from ..resources import Resources
from ..schedulers.base import NoInformation, Scheduler, job_name
from .layout import Layout
from .lock import submission_lock
from .receipts import Receipt, look_up, read_receipt
from .retry import Attempt, next_attempt
from .send import Sender
from .submit import start_attempt
from .watch import State, Watcher

#: seconds between two tries to submit what was held or without an answer: at first, and at most
FIRST_PAUSE, LONGEST_PAUSE = 3.0, 60.0


class Tender:
    """Does what is due, and knows when the next thing is.

    :param watcher: knows the states
    """

    def __init__(self, layout: Layout, scheduler: Scheduler, watcher: Watcher) -> None:
        self.layout = layout
        self.scheduler = scheduler
        self.watcher = watcher
        self.pause = FIRST_PAUSE
        self.next_try = 0.0

    def patience(self, jobs: Iterable[str]) -> float:
        """Seconds until something may be due for these jobs."""
        return max(0.0, self.next_try - time.monotonic()) if self._open(jobs) else float("inf")

    def run(self, jobs: list[str], changed: dict[str, State]) -> dict[str, State]:
        """Do what is due.

        :param jobs: those that are watched
        :param changed: their new states
        :returns: ``changed``, with the states of jobs that were submitted again
        """
        again: list[str] = []
        if any(self._may_retry(job, state) for job, state in changed.items()):
            again = self._retry(jobs, changed)
        if self._open(jobs) and time.monotonic() >= self.next_try:
            again += self._submit_open(jobs)
        if not again:
            return changed
        self.watcher.forget(again)
        return {**changed, **self.watcher.states(again)}

    def start_again(self, jobs: list[str]) -> dict[str, str]:
        """New attempts of jobs that failed, whatever their policy; returns what is in the way, by job id.

        :param jobs: parents before children
        """
        with submission_lock(self.layout):
            self.watcher.forget(jobs)
            states = self.watcher.states(jobs)
            parents = {one for job in jobs for one in self.layout.record(job).get("parents", ())}
            states.update(self.watcher.states(parents - states.keys()))
            sender = Sender(self.layout, self.scheduler, self.watcher, states)
            for job in jobs:
                if states[job]["state"] == "failed":
                    asked = Resources.from_json(self.layout.record(job).get("asked") or {})
                    self._start(job, Attempt(asked, 0.0, False), states[job], sender)
                    states[job] = {"state": "queued"}
        self.watcher.forget(jobs)
        return {**sender.refused, **sender.held, **sender.unknown}

    def _open(self, jobs: Iterable[str]) -> list[Receipt]:
        """The receipts of these jobs that are held or without an answer, as last read."""
        live = [job for job in jobs if job not in self.watcher.finals]
        tokens = dict.fromkeys(self.watcher.records.get(job, {}).get("batch") for job in live)
        receipts = [self.watcher.receipts.get(token) for token in tokens if token]
        return [one for one in receipts if one is not None and one.state in ("held", "submitting")]

    def _submit_open(self, jobs: list[str]) -> list[str]:
        """Try to submit what is held or without an answer; the jobs that it concerns."""
        touched: list[str] = []
        with submission_lock(self.layout):
            self.watcher.forget(jobs)
            states = self.watcher.states(jobs)
            receipts = sorted(self._open(jobs), key=lambda one: one.time)
            parents = {parent for one in receipts for needed in one.parents.values() for parent in needed}
            states.update(self.watcher.states(parents - states.keys()))
            sender = Sender(self.layout, self.scheduler, self.watcher, states)
            for known in receipts:
                receipt = read_receipt(self.layout, known.token)
                if receipt is None or receipt.state not in ("held", "submitting"):
                    self.watcher.receipts.pop(known.token, None)
                    touched += known.jobs.values()
                    continue
                try:
                    self._submit_one(receipt, sender)
                except NoInformation as error:
                    self.watcher.trouble = str(error)
                    break
                self.watcher.receipts.pop(known.token, None)
                touched += known.jobs.values()
        progressed = bool(sender.natives)
        self.pause = FIRST_PAUSE if progressed else min(self.pause * 2, LONGEST_PAUSE)
        self.next_try = time.monotonic() + self.pause * random.uniform(0.8, 1.2)
        return touched

    def _submit_one(self, receipt: Receipt, sender: Sender) -> None:
        if receipt.state == "submitting":
            found = look_up(self.layout, self.scheduler, receipt)
            if found is not None:
                rest = sender.settle(receipt, found)
                if rest is None:
                    return
                receipt = rest
        receipt.jobs = {
            index: job
            for index, job in receipt.jobs.items()
            if self.layout.record(job).get("batch") == receipt.token and self.layout.marker(job) is None
        }
        if receipt.jobs:
            sender.send(receipt, cautious=receipt.state == "held")

    def _may_retry(self, job: str, state: Mapping[str, Any]) -> bool:
        if state.get("state") != "failed":
            return False
        return state.get("reason") == "dependency" or bool(self.layout.record(job).get("retry"))

    def _retry(self, jobs: list[str], changed: Mapping[str, State]) -> list[str]:
        """Start new attempts of failed jobs, parents first; the jobs that have one."""
        with submission_lock(self.layout):
            self.watcher.forget(jobs)
            states = self.watcher.states(jobs)
            # somebody else who watches may have been faster
            again = [job for job in changed if changed[job]["state"] == "failed" != states[job]["state"]]
            failed = [job for job in jobs if states[job]["state"] == "failed"]
            parents = {one for job in failed for one in self.layout.record(job).get("parents", ())}
            states.update(self.watcher.states(parents - states.keys()))
            sender = Sender(self.layout, self.scheduler, self.watcher, states)
            found = True
            while found:  # a child is looked at again when its parent has a new attempt
                found = False
                for job in failed:
                    if job in again:
                        continue
                    attempt = self._attempt(job, states)
                    if attempt is not None:
                        self._start(job, attempt, states[job], sender)
                        states[job] = {"state": "queued", "submitted": time.time()}
                        again.append(job)
                        found = True
        return again

    def _attempt(self, job: str, states: Mapping[str, State]) -> Attempt | None:
        """The next attempt of a failed job, if there is to be one."""
        record, reason = self.layout.record(job), states[job].get("reason", "exit")
        asked = Resources.from_json(record.get("asked") or {})
        if reason == "dependency":
            parents = [states[one] for one in record.get("parents", ())]
            since = states[job].get("submitted") or 0.0
            is_newer = any((one.get("submitted") or 0.0) > since for one in parents)
            is_lost = any(one["state"] == "failed" for one in parents)
            return Attempt(asked, 0.0, False) if is_newer and not is_lost else None
        counted = (record.get("attempts") or ())[record.get("earlier", 0) :]
        reasons = [one.get("reason", "") for one in counted]
        try:
            return next_attempt(record.get("retry") or {}, [*reasons, reason], asked)
        except XpmError:
            return None  # written by another version

    def _start(self, job: str, attempt: Attempt, state: State, sender: Sender) -> None:
        record = self.layout.record(job)
        token = secrets.token_hex(6)
        before, asked = record.get("asked") or {}, attempt.resources.to_json()
        changed = {
            **(record.get("changed") or {}),
            **{key: asked[key] for key in asked if asked[key] != before.get(key)},
        }
        avoid = set(record.get("avoid") or ())
        if attempt.avoid and state.get("host"):
            avoid.add(state["host"])
        receipt = Receipt(
            token,
            self.scheduler.name,
            job_name(record.get("name", "job"), token),
            {"0": job},
            parents={job: list(record.get("parents", ()))},
            resources=changed or None,
            delay=attempt.delay,
            avoid=sorted(avoid),
        )
        why = f"attempt {int(record.get('attempt', 1)) + 1}, after {state.get('reason')}"
        record.update(asked=asked, changed=changed, avoid=sorted(avoid))
        record["again"] = f"{why}, with {attempt.changes}" if attempt.changes else why
        receipt.state, receipt.words, receipt.time = "held", "a new attempt", time.time()
        receipt.write(self.layout)  # before the job refers to it: whoever comes next goes on from here
        start_attempt(self.layout, job, record, token)
        self.watcher.forget([job])
        sender.send(receipt)
