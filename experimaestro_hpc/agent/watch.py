"""The states of jobs. In: markers, receipts, and one question to the scheduler for all. Out: a state for each job.

The marker decides. The scheduler explains what it cannot: queued, why it waits, how it was ended. A scheduler that
does not answer, and a job that is missing from an answer, say nothing: the last known state stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Callable

from ..runtime.files import write_json
from ..schedulers.base import NoInformation, Scheduler, Status
from .layout import Layout
from .receipts import Receipt, read_receipt
from .stage import KEPT, explain

#: seconds between a job's end as the scheduler sees it and the conclusion that its marker will not come
MARKER_PATIENCE = 20.0
#: seconds that a job may be unknown to a scheduler that answers, before it counts as lost
LOST_AFTER = 300.0
#: seconds between two questions to the scheduler: while things move, and at most
FASTEST, SLOWEST = 2.0, 60.0

State = dict[str, Any]


class Watcher:
    """Knows the states of the jobs of one workspace.

    :param clock: seconds, for tests
    """

    def __init__(self, layout: Layout, scheduler: Scheduler, clock: Callable[[], float] = time.monotonic) -> None:
        self.layout = layout
        self.scheduler = scheduler
        self.clock = clock
        self.receipts: dict[str, Receipt | None] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.finals: dict[str, State] = {}
        self.statuses: dict[str, Status] = {}
        self.first_missed: dict[str, float] = {}
        self.seen_running: dict[str, tuple[Any, float]] = {}  # by job: which start, and when it was first seen
        self.cancelled: set[str] = set()  # native ids that were cancelled through us before they ran
        self.asked_at: float | None = None
        self.as_of = 0.0  # what the scheduler said last is not older than this
        self.trouble = ""
        self.rest_until = 0.0

    def forget(self, jobs: Iterable[str]) -> None:
        """Read these jobs' records again: they have been submitted anew."""
        for job in jobs:
            self.records.pop(job, None)
            self.finals.pop(job, None)
            self.first_missed.pop(f"marker of {job}", None)

    def states(self, jobs: Iterable[str], max_age: float = 0.0) -> dict[str, State]:
        """The state of each job; the scheduler is asked if its last answer is older than ``max_age`` seconds."""
        jobs = list(jobs)
        found: dict[str, State] = {}
        natives: dict[str, str] = {}
        for job in jobs:
            final = self._final(job)
            if final is not None:
                found[job] = final
                continue
            native = self._native(job)
            if isinstance(native, str):
                natives[job] = native
            else:
                found[job] = native
        if natives:
            self._ask(list(natives.values()), max_age)
        for job, native in natives.items():
            found[job] = self._live(job, native)
        return found

    def _final(self, job: str) -> State | None:
        """What the marker says; once read it is kept, unless the job is submitted again."""
        if job not in self.finals:
            marker = self.layout.marker(job)
            if marker is None:
                return None
            record = self._record(job)
            self.finals[job] = {**self._common(record), **marker}
        return self.finals[job]

    def _record(self, job: str) -> dict[str, Any]:
        if job not in self.records:
            record = self.layout.record(job)
            if not record.get("batch"):
                return record  # not submitted (yet): looked at again next time
            self.records[job] = record
        return self.records[job]

    def _receipt(self, token: str) -> Receipt | None:
        receipt = self.receipts.get(token)
        if receipt is None or receipt.state in ("submitting", "held"):
            receipt = self.receipts[token] = read_receipt(self.layout, token)
        return receipt

    def _native(self, job: str) -> str | State:
        """The native id of a submitted job, or the state of one that has none."""
        record = self._record(job)
        token = record.get("batch")
        receipt = self._receipt(token) if token else None
        if receipt is None:
            return {"state": "unscheduled"}
        if receipt.state == "refused":
            return {**self._common(record), "state": "failed", "reason": "launch", "message": receipt.words}
        if receipt.state == "held":
            return {**self._common(record), "state": "waiting", "detail": receipt.words}
        native = receipt.natives.get(job)
        if native is None:
            return {
                **self._common(record),
                "state": "unscheduled",
                "detail": "its submission was not confirmed",
            }
        return native

    def _common(self, record: dict[str, Any]) -> State:
        receipt = self._receipt(record["batch"]) if record.get("batch") else None
        known: State = {"submitted": receipt.time if receipt else None, "attempt": record.get("attempt", 1)}
        if record.get("again"):
            known["again"] = record["again"]
        return known

    def _ask(self, natives: list[str], max_age: float) -> None:
        now = self.clock()
        fresh = self.asked_at is not None and now - self.asked_at < max_age
        if fresh and all(native in self.statuses or native in self.first_missed for native in natives):
            return
        if fresh and self.trouble:
            return  # no hammering of a scheduler in trouble
        self.asked_at = now
        try:
            answer = self.scheduler.query(natives, max_age)
        except NoInformation as error:
            self.trouble = str(error)
            for native in natives:  # what nobody answers about is not missing
                self.first_missed.pop(native, None)
            return
        self.trouble = ""
        self.as_of = now - max_age  # another process may have asked
        self.statuses.update(answer)
        for native in natives:
            if native in answer:
                self.first_missed.pop(native, None)
            else:
                self.first_missed.setdefault(native, now)

    def _live(self, job: str, native: str) -> State:
        """The state of a job that has a native id and no marker."""
        record = self._record(job)
        state: State = {**self._common(record), "native_id": native}
        running = self.layout.progress(job)
        if running is not None and running.get("native_id") not in (native, None):
            running = None  # of an earlier attempt
        status = self.statuses.get(native)
        if status is not None and status.name and not self._is_ours(status.name, record):
            status = None  # another job that got the same id
        missed = self.first_missed.get(native)
        if running is not None and status is not None and missed is None and self._is_requeued(job, running, status):
            running = None
        if missed is not None and (status is None or status.state != "ended"):
            if native in self.cancelled:  # Slurm forgets an array's element that is cancelled while it waits
                return self._conclude(job, Status("ended", "cancelled", "cancelled before it ran"), state, running)
            if self.clock() - missed > LOST_AFTER:
                words = f"{self.scheduler.name} has not known job {native} for {LOST_AFTER:.0f} s"
                return self._conclude(job, Status("ended", "lost", words), state, running)
        if status is not None and status.state == "ended":
            return self._ended(job, status, state, running)
        if running is not None:
            return {**state, **running, "state": "running", "detail": self.trouble}
        if status is None:
            return {
                **state,
                "state": "queued",
                "detail": self.trouble or f"{self.scheduler.name} is being asked",
            }
        if status.state == "queued" and any(self._final_state(one) != "done" for one in record.get("parents", ())):
            return {**state, "state": "waiting", "detail": status.detail}
        return {**state, "state": status.state, "detail": status.detail, "host": status.host}

    def _is_ours(self, name: str, record: dict[str, Any]) -> bool:
        receipt = self._receipt(record["batch"])
        return receipt is None or receipt.name == name

    def _is_requeued(self, job: str, running: dict[str, Any], status: Status) -> bool:
        """Whether the scheduler, asked after the job was seen to run, says that it waits (again)."""
        known = self.seen_running.get(job)
        if known is None or known[0] != running.get("started"):
            known = self.seen_running[job] = (running.get("started"), self.clock())
        return status.state in ("queued", "held") and self.as_of > known[1]

    def _final_state(self, job: str) -> str:
        final = self._final(job)
        return str(final["state"]) if final else ""

    def _ended(self, job: str, status: Status, state: State, running: dict[str, Any] | None) -> State:
        """The scheduler says that the job has ended: its marker comes now, or it never will."""
        final = self._final(job)
        if final is not None:
            return final
        record = self._record(job)
        words = explain(status.exit_code, record["staged"], status.host) if record.get("staged") else ""
        if words:
            return self._conclude(
                job,
                replace(status, reason="exit" if status.exit_code == KEPT else "launch", detail=words),
                state,
                running,
            )
        failed = [parent for parent in record.get("parents", ()) if self._final_state(parent) == "failed"]
        if failed and running is None:
            words = f"its parent {failed[0]} failed"
            return self._conclude(job, Status("ended", "dependency", words), state, running)
        since = self.first_missed.setdefault(f"marker of {job}", self.clock())
        if status.reason in ("", "exit") and self.clock() - since < MARKER_PATIENCE:
            return {**state, **(running or {}), "state": "running", "detail": "ended; its marker is awaited"}
        if not status.reason:
            words = f"it ended ({status.detail}) and left no marker"
            status = Status("ended", "lost", words, status.exit_code, status.host)
        return self._conclude(job, status, state, running)

    def _conclude(self, job: str, status: Status, state: State, running: dict[str, Any] | None) -> State:
        """Write the marker that the job itself could not write, so that everybody sees the same."""
        end: dict[str, Any] = {
            **(running or {}),
            "state": "failed",
            "reason": status.reason,
            "message": status.detail,
            "exit_code": status.exit_code,
            "native_id": state.get("native_id"),
            "ended": time.time(),
            "by": self.scheduler.name,
        }
        if status.host:
            end.setdefault("host", status.host)
        if status.exit_code is not None and status.exit_code > 128:
            end["signal"] = status.exit_code - 128
        if status.used:
            end["used"] = dict(status.used)
        record = self.layout.record(job)
        try:
            write_json(str(self.layout.job(job) / "job.json"), {**record, **end})
            write_json(f"{self.layout.stem(job)}.failed", end, durable=True)
        except OSError as error:
            return {**state, **end, "message": f"{status.detail} (and it cannot be recorded: {error})"}
        return self._final(job) or {**state, **end}

    def wait(self, jobs: list[str], seen: dict[str, State], seconds: float) -> dict[str, State]:
        """The states that differ from ``seen``, as soon as one does, or after ``seconds``."""
        deadline = self.clock() + seconds
        quiet_since = self.clock()
        pause = 0.05
        while True:
            if seconds:
                time.sleep(max(0.0, min(self.rest_until, deadline) - self.clock()))
            began = self.clock()
            interval = FASTEST if self.scheduler.command else 0.1
            quiet = began - quiet_since
            max_age = min(SLOWEST, max(interval, quiet / 10))
            changed = {job: state for job, state in self.states(jobs, max_age).items() if seen.get(job) != state}
            # the more a look costs, the rarer it is: at most a twentieth of the time
            now = self.clock()
            self.rest_until = now + min(max(pause, 20 * (now - began)), 1.0)
            if changed or now >= deadline:
                return changed
            pause *= 1.5
