"""Send receipts to the scheduler, parents first. In: receipts of jobs whose files are in place. Out: what became of it.

Each ends as submitted, refused, held (no room, a scheduler that is away, or a parent that is not submitted yet) or
unknown (no clear answer). After one that did not reach the scheduler the others are held: each would take minutes to
find out the same, under the submission lock, which must be held.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import SubmissionError
from ..runtime.files import write_json
from ..runtime.parents import words_of_failure
from ..schedulers.base import NoInformation, NoRoom, NotReached, Scheduler, Unclear, job_name
from .calls import shortened, split
from .layout import Layout
from .receipts import Receipt, look_up
from .watch import Watcher

#: seconds before a submission without a clear answer is looked for, and then tried again; after these it is left
#: to whoever watches the jobs
PAUSES = (1.0, 3.0)
#: why jobs are held, to begin with
NO_ROOM = "waiting for a slot"
#: dependencies up to which each is named by itself; thousands do not fit on a command line
FEW = 100


class Sender:
    """Sends receipts.

    :param states: of all jobs concerned and their parents
    :ivar held: by job id, why it is not submitted yet
    :ivar unknown: by job id, the scheduler's words where it is not clear whether it took the job
    :ivar closed: why nothing more can be submitted now; "" while it can
    :ivar is_away: that is because the scheduler does not answer
    """

    def __init__(
        self, layout: Layout, scheduler: Scheduler, watcher: Watcher, states: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.layout = layout
        self.scheduler = scheduler
        self.watcher = watcher
        self.states = states
        self.natives: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self.closed = ""
        self.is_away = False

    def send(self, receipt: Receipt, cautious: bool = False) -> None:
        """Submit the jobs of ``receipt``, in as few calls as their parents allow.

        :param cautious: begin with few, as there was no room before
        """
        ready: dict[int, list[str]] = {}
        waiting: dict[str, str] = {}
        for index, job in list(receipt.jobs.items()):
            try:
                natives = [self._native(parent) for parent in receipt.parents.get(job, ()) if not self._is_done(parent)]
            except _ParentFailed as error:
                del receipt.jobs[index]
                self.refuse([job], "dependency", str(error))
            except _ParentWaits as error:
                waiting[index] = str(error)
            else:
                ready[int(index)] = natives
        rest = dict(receipt.jobs)
        parted: list[Receipt] = []
        for call in split(ready, self.scheduler.corresponds):
            pieces = _doubling(call.indexes) if cautious else [call.indexes]
            # a few are clearer one by one, in what the scheduler shows
            waits = list(call.dependencies)
            if len(waits) > FEW:
                waits = shortened(call.dependencies, self._sizes(waits) if self.scheduler.corresponds else {})
            while pieces:
                indexes = pieces.pop(0)
                if self.closed:
                    waiting.update({str(index): self.closed for index in indexes})
                    continue
                part = self._part(receipt, [str(index) for index in indexes], rest)
                try:
                    self._call(part, waits, call.corresponding)
                except NoRoom as error:
                    parted.append(part)
                    if len(indexes) > 1:  # fewer may fit
                        half = len(indexes) // 2
                        pieces[:0] = [indexes[:half], indexes[half:]]
                    else:
                        self.closed = f"{NO_ROOM}: {error}"
                        waiting[str(indexes[0])] = self.closed
        if waiting:
            self._hold(self._part(receipt, list(waiting), rest), waiting)
        # their jobs are all with other receipts now; the receipt's own token may still stand for some
        for one in [*parted, receipt]:
            if not rest or one.token != receipt.token:
                one.remove(self.layout)

    def _part(self, receipt: Receipt, indexes: list[str], rest: dict[str, str]) -> Receipt:
        """A receipt of its own for some of the elements; the last ones keep the token.

        :param rest: the elements that the receipt's own token still stands for
        """
        jobs = {index: receipt.jobs[index] for index in indexes}
        if jobs.keys() == rest.keys() or len(receipt.jobs) == 1:
            return replace(receipt, jobs=jobs, state="submitting")
        for index in indexes:
            rest.pop(index, None)
        return self._apart(receipt, jobs)

    def _apart(self, receipt: Receipt, jobs: dict[str, str]) -> Receipt:
        """A receipt with a token of its own for some of the elements."""
        token = secrets.token_hex(6)
        part = replace(
            receipt,
            token=token,
            name=job_name(receipt.name.rpartition("-")[0], token),
            jobs=jobs,
            parents={job: receipt.parents[job] for job in jobs.values() if job in receipt.parents},
            state="submitting",
        )
        part.write(self.layout)  # before a job refers to it: a job whose receipt is missing is nobody's
        for job in jobs.values():
            write_json(str(self.layout.job(job) / "job.json"), {**self.layout.record(job), "batch": token})
        return part

    def _call(self, receipt: Receipt, dependencies: list[str], corresponding: Iterable[str]) -> None:
        receipt.time, receipt.words = time.time(), ""
        receipt.write(self.layout)
        submission = receipt.submission(self.layout, dependencies, tuple(corresponding))
        for pause in (*PAUSES, None):
            try:
                native_ids: list[str] | None = self.scheduler.submit(submission)
            except SubmissionError as error:
                self._refused(receipt, str(error))
                return
            except NoInformation as error:
                if not isinstance(error, NotReached):
                    receipt.time, receipt.words = time.time(), str(error)
                    receipt.write(self.layout)
                try:
                    if pause is not None:
                        time.sleep(pause * random.uniform(0.8, 1.2))
                    elif not isinstance(error, Unclear):
                        raise
                    native_ids = look_up(self.layout, self.scheduler, receipt)
                except NoInformation as last:  # the receipt stays: whoever comes next looks for the job first
                    self.unknown.update(dict.fromkeys(receipt.jobs.values(), str(error)))
                    if last is not error or isinstance(error, NotReached):
                        self.is_away, self.closed = True, f"{self.scheduler.name} does not answer: {error}"
                    return
                if pause is None and native_ids is None:
                    self._refused(receipt, str(error))
            if native_ids is not None:
                rest = self.settle(receipt, native_ids)
                if rest is not None:
                    self._call(rest, dependencies, corresponding)
                return

    def _refused(self, receipt: Receipt, words: str) -> None:
        receipt.state, receipt.words = "refused", words
        receipt.write(self.layout)
        self.refuse(receipt.jobs.values(), "launch", words)

    def settle(self, receipt: Receipt, native_ids: list[str]) -> Receipt | None:
        """Note what the scheduler has of a submission; a receipt for the rest, if it has only some elements."""
        missing = {index: job for (index, job), native in zip(receipt.jobs.items(), native_ids) if not native}
        rest = self._apart(receipt, missing) if missing else None
        receipt.settle(self.layout, native_ids)
        self.natives.update(receipt.natives)
        self.watcher.receipts[receipt.token] = receipt
        return rest

    def _hold(self, receipt: Receipt, words: Mapping[str, str]) -> None:
        receipt.state, receipt.words = "held", next(iter(words.values()))
        receipt.time = receipt.time or time.time()
        receipt.write(self.layout)
        self.held.update({receipt.jobs[index]: text for index, text in words.items()})

    def refuse(self, jobs: Iterable[str], reason: str, words: str) -> None:
        """Write that these jobs will not run."""
        for job in jobs:
            self.refused[job] = words
            self.layout.job(job).mkdir(parents=True, exist_ok=True)
            end = {
                "state": "failed",
                "reason": reason,
                "message": words,
                "ended": time.time(),
                "by": self.scheduler.name,
            }
            self.layout.fail(job, end)

    def _is_done(self, parent: str) -> bool:
        return bool(self.states[parent]["state"] == "done")

    def _native(self, parent: str) -> str:
        """The native id of a parent that has not ended well."""
        if parent in self.natives:
            return self.natives[parent]
        if parent in self.refused:
            raise _ParentFailed(f"its parent {parent} was refused: {self.refused[parent]}")
        state = self.states[parent]
        if state["state"] == "failed":
            raise _ParentFailed(words_of_failure(parent, self.layout.marker(parent)))
        if state == {"state": "unscheduled"} and parent not in self.held and parent not in self.unknown:
            raise _ParentFailed(f"its parent {parent} is neither done nor submitted")
        if parent in self.held or parent in self.unknown or not state.get("native_id"):
            raise _ParentWaits(self.closed or f"its parent {parent} is not submitted yet")
        return str(state["native_id"])

    def _sizes(self, natives: Iterable[str]) -> dict[str, int]:
        """How many elements each array among ``natives`` has."""
        arrays = {native.rpartition("_")[0] for native in natives} - {""}
        sizes: dict[str, int] = {}
        for receipt in self.watcher.receipts.values() if arrays else ():
            first = next(iter(receipt.natives.values()), "") if receipt is not None else ""
            if receipt is not None and first.rpartition("_")[0] in arrays:
                sizes[first.rpartition("_")[0]] = len(receipt.natives)
        return sizes


class _ParentFailed(Exception):
    """A job cannot run any more."""


class _ParentWaits(Exception):
    """A job cannot be submitted yet."""


def _doubling(indexes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """1, 2, 4, … elements at a time."""
    pieces, start, size = [], 0, 1
    while start < len(indexes):
        pieces.append(indexes[start : start + size])
        start, size = start + size, size * 2
    return pieces
