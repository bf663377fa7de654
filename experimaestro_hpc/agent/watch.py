"""The states of jobs. In: markers, receipts, and one question to the scheduler for all. Out: a state for each job.

The marker decides. The scheduler explains what it cannot: queued, why it waits, how it was ended. A scheduler that
does not answer, and a job that is missing from an answer, say nothing: the last known state stays.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Callable

from ..runtime.files import read_json, write_json
from ..runtime.parents import words_of_failure
from ..schedulers.base import NoInformation, Scheduler, Status
from .layout import Layout
from .lock import submission_lock
from .receipts import Receipt, read_receipt
from .stage import KEPT, explain

#: seconds between a job's end as the scheduler sees it and the conclusion that its marker will not come
MARKER_PATIENCE = 20.0
#: seconds that a job may be unknown to a scheduler that answers, before it counts as lost
LOST_AFTER = 300.0
#: seconds by which the clocks of two hosts may differ
CLOCKS_DIFFER = 10.0
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
        #: by native id, how jobs end that were cancelled through us
        self.cancelled: dict[str, Status] = {}
        self.asked_at: float | None = None
        self.as_of = float("-inf")  # what the scheduler said last is not older than this
        self.asking = 0.0  # seconds that the last answer took
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
        if natives and self._ask(list(natives.values()), max_age) and not self.scheduler.ends_orphans:
            self._end_orphans(natives)
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

    def _submission(self, job: str) -> tuple[dict[str, Any], Receipt | None]:
        record = self._record(job)
        token = record.get("batch")
        return record, self._receipt(token) if token else None

    def _native(self, job: str) -> str | State:
        """The native id of a submitted job, or the state of one that has none."""
        record, receipt = self._submission(job)
        if job in self.records and (receipt is None or job not in receipt.natives):
            del self.records[job]  # somebody may have submitted it meanwhile, or a part of its array with it
            record, receipt = self._submission(job)
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

    def _ask(self, natives: list[str], max_age: float) -> bool:
        """Ask the scheduler, unless its last answer will do; whether it has just answered."""
        now = self.clock()
        fresh = self.asked_at is not None and now - self.asked_at < max_age
        if fresh and all(native in self.statuses or native in self.first_missed for native in natives):
            return False
        if fresh and self.trouble:
            return False  # no hammering of a scheduler in trouble
        self.asked_at = now
        try:
            answer = self.scheduler.query(natives, max_age)
        except NoInformation as error:
            self.trouble = str(error)
            for native in natives:  # what nobody answers about is not missing
                self.first_missed.pop(native, None)
            return False
        self.asking = self.clock() - now
        self.trouble = ""
        self.as_of = now - max_age  # another process may have asked
        self.statuses.update(answer)
        for native in natives:
            if native in answer:
                self.first_missed.pop(native, None)
            else:
                self.first_missed.setdefault(native, now)
        return True

    def _end_orphans(self, natives: dict[str, str]) -> None:
        """End the jobs that wait for one that failed, and those that wait for these.

        The scheduler would start them once their other parents have ended as well, for nothing.
        """
        orphans: dict[str, Status] = {}
        count = -1
        while count < len(orphans):
            count = len(orphans)
            for job, native in natives.items():
                status = self.statuses.get(native)
                if native in orphans or status is None or status.state not in ("queued", "held"):
                    continue
                for parent in self._record(job).get("parents", ()):
                    if self._final_state(parent) == "failed" or natives.get(parent) in orphans:
                        orphans[native] = Status(
                            "ended", "dependency", words_of_failure(parent, self.layout.marker(parent))
                        )
        if orphans:
            try:
                self.scheduler.cancel(list(orphans))
            except NoInformation as error:
                self.trouble = str(error)  # the next look tries again
            else:
                self.statuses.update(orphans)

    def _live(self, job: str, native: str) -> State:
        """The state of a job that has a native id and no marker."""
        record = self._record(job)
        state: State = {**self._common(record), "native_id": native}
        status = self.statuses.get(native)
        if status is not None and status.native:  # the scheduler has submitted it again by itself
            state["native_id"] = status.native
        running = self.layout.progress(job)
        if running is not None and running.get("native_id") not in (state["native_id"], None):
            running = None  # of an earlier attempt, or not known to the scheduler yet
        if status is not None and status.name and not self._is_ours(status.name, record):
            status = None  # another job that got the same id
        missed = self.first_missed.get(native)
        if running is not None and status is not None and missed is None and self._is_requeued(job, running, status):
            running = None
        cancelled = self.cancelled.get(native)
        if missed is not None and (status is None or status.state != "ended"):
            if cancelled is not None:  # Slurm forgets an array's element that is cancelled while it waits
                return self._conclude(job, cancelled, state, running)
            if self.clock() - missed > LOST_AFTER:
                words = f"{self.scheduler.name} has not known job {native} for {LOST_AFTER:.0f} s"
                return self._conclude(job, Status("ended", "lost", words), state, running)
        if status is not None and status.state == "ended":
            if cancelled is not None and status.reason == "cancelled":
                # who did it; or its parent was meant, whose own end may be told later
                status = replace(status, reason=cancelled.reason, detail=cancelled.detail)
            return self._ended(job, status, state, running)
        if running is not None:
            return {**state, **running, "state": "running", "detail": ""}
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
        """Whether the scheduler, asked after the job was seen to run, says that it waits (again).

        One that began long ago, as clocks go that need not agree, has been running before anybody looked.
        """
        known = self.seen_running.get(job)
        if known is None or known[0] != running.get("started"):
            age = time.time() - (running.get("started") or time.time())
            known = self.seen_running[job] = (
                running.get("started"),
                self.clock() - max(0.0, age - CLOCKS_DIFFER),
            )
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
            reason = "exit" if status.exit_code == KEPT else "launch"
            return self._conclude(job, replace(status, reason=reason, detail=words), state, running)
        ends = {parent: self._final_state(parent) for parent in record.get("parents", ())}
        failed = [parent for parent, end in ends.items() if end == "failed"]
        if not failed and status.reason == "dependency":  # the scheduler knows before the parent's marker is given up
            failed = [parent for parent, end in ends.items() if end != "done"]
        if failed and running is None:
            words = words_of_failure(failed[0], self.layout.marker(failed[0]))
            return self._conclude(job, Status("ended", "dependency", words), state, running)
        if status.reason in ("", "exit") and self._without_marker(job, state) < MARKER_PATIENCE:
            return {**state, **(running or {}), "state": "running", "detail": "ended; its marker is awaited"}
        if not status.reason:
            words = f"it ended ({status.detail}) and left no marker"
            status = Status("ended", "lost", words, status.exit_code, status.host)
        return self._conclude(job, status, state, running)

    def _without_marker(self, job: str, state: State) -> float:
        """Seconds since somebody, here or in another process, first saw that the job has ended and left no marker."""
        key = f"marker of {job}"
        if key not in self.first_missed:
            path = str(self.layout.job(job) / ".no-marker")
            noted = read_json(path) or {}
            if noted.get("native_id") != state["native_id"]:
                noted = {"native_id": state["native_id"], "time": time.time()}
                with contextlib.suppress(OSError):
                    write_json(path, noted)
            self.first_missed[key] = self.clock() - max(0.0, time.time() - noted["time"])
        return self._since_seen(job)

    def _since_seen(self, job: str) -> float:
        """Seconds since a job without a marker was first seen to have ended; 0 if it was not."""
        now = self.clock()
        return now - self.first_missed.get(f"marker of {job}", now)

    def _conclude(self, job: str, status: Status, state: State, running: dict[str, Any] | None) -> State:
        """Write the marker that the job itself could not write, so that everybody sees the same."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # where nothing can be written the end is told all the same
                if not stack.enter_context(submission_lock(self.layout, wait=False)):
                    # somebody may just submit it anew: the next look will tell
                    known = {**state, **(running or {}), "detail": "it has ended; how is told in a moment"}
                    return {**known, "state": "running" if running else "queued"}
            if self.layout.record(job).get("batch") == self._record(job).get("batch"):
                return self._write_end(job, status, state, running)
        self.forget([job])  # that was an earlier attempt: somebody has submitted it anew
        return self.states([job])[job]

    def _write_end(self, job: str, status: Status, state: State, running: dict[str, Any] | None) -> State:
        end: dict[str, Any] = {
            **(running or {}),
            "state": "failed",
            "reason": status.reason,
            "message": status.detail,
            "exit_code": status.exit_code,
            "native_id": state.get("native_id"),
            "ended": time.time() - self._since_seen(job),
            "by": self.scheduler.name,
        }
        if status.host:
            end.setdefault("host", status.host)
        if status.exit_code is not None and status.exit_code > 128:
            end["signal"] = status.exit_code - 128
        if status.used:
            end["used"] = dict(status.used)
        try:
            self.layout.fail(job, end)
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
            began, asked_at = self.clock(), self.asked_at
            interval = max(FASTEST, 5 * self.asking) if self.scheduler.command else 0.1
            quiet = began - quiet_since
            max_age = min(SLOWEST, max(interval, quiet / 10))
            now_so = {
                job: _unless_removed(state, seen.get(job, {})) for job, state in self.states(jobs, max_age).items()
            }
            changed = {job: state for job, state in now_so.items() if seen.get(job) != state}
            # the more a look costs, the rarer it is: at most a twentieth of the time
            now = self.clock()
            asking = self.asking if self.asked_at != asked_at else 0.0  # the scheduler's rest is counted above
            self.rest_until = now + min(max(pause, 20 * (now - began - asking)), 1.0)
            if changed or now >= deadline:
                return changed
            pause *= 1.5


def _unless_removed(state: State, seen: State) -> State:
    """``state``; of a job that was submitted, as somebody has seen, and of which nothing is left: its end."""
    if state != {"state": "unscheduled"} or not seen.get("native_id"):
        return state
    words = f"its directory has been removed; it was job {seen['native_id']}"
    return {**seen, "state": "failed", "reason": "lost", "message": words}
