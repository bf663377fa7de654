"""End jobs. In: their ids. Out: those that were ended, whatever state their submissions are in.

What runs or waits is the scheduler's to end. What it has not been given yet is refused here, and what may just be on
its way is looked for first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..runtime.parents import words_of_failure
from ..schedulers.base import Scheduler, Status
from .layout import Layout
from .lock import submission_lock
from .receipts import read_receipt
from .send import Sender
from .submit import LIVE, reconcile
from .watch import State, Watcher

#: said of jobs that were ended through us
CANCELLED = "cancelled, by `jobs kill` or the like"
_BEFORE = "cancelled before it ran"


def cancel(layout: Layout, scheduler: Scheduler, watcher: Watcher, jobs: Sequence[str]) -> list[str]:
    """End those of ``jobs`` that wait or run; returns them.

    :raises NoInformation: the scheduler does not answer
    """
    ended = _end(layout, scheduler, watcher, watcher.states(jobs))
    known = set(ended)
    rest = [job for job in jobs if job not in known]
    if not any(layout.record(job).get("batch") and layout.marker(job) is None for job in rest):
        return ended
    with submission_lock(layout):  # whoever submits them right now is done with it
        reconcile(layout, scheduler, watcher, set(rest))
        watcher.forget(rest)
        states = watcher.states(rest)
        submitted = _end(layout, scheduler, watcher, states)
        known = set(submitted)
        held = [job for job in rest if states[job]["state"] == "waiting" and job not in known]
        Sender(layout, scheduler, watcher, {}).refuse(held, "cancelled", _BEFORE)
        _settle(layout, held)
        watcher.forget(held)
    return [*held, *submitted, *ended]


def _end(layout: Layout, scheduler: Scheduler, watcher: Watcher, states: Mapping[str, State]) -> list[str]:
    """End the jobs that the scheduler has; those that wait first, so that none starts as another one ends."""
    live = {
        job: state["native_id"] for job, state in states.items() if state["state"] in LIVE and state.get("native_id")
    }
    waiting_first = sorted(live, key=lambda job: states[job]["state"] == "running")
    if live:
        scheduler.cancel([live[job] for job in waiting_first])
    for job, native in live.items():
        end = Status("ended", "cancelled", CANCELLED)
        if states[job]["state"] != "running":
            parent = next((one for one in layout.record(job).get("parents", ()) if one in live), "")
            words = words_of_failure(parent, None) if parent else _BEFORE
            end = Status("ended", "dependency" if parent else "cancelled", words)
        watcher.cancelled[native] = end
    return waiting_first


def _settle(layout: Layout, jobs: Iterable[str]) -> None:
    """Close the receipts of held jobs of which none is to be submitted any more."""
    for token in {str(layout.record(job).get("batch")) for job in jobs}:
        receipt = read_receipt(layout, token)
        if receipt is not None and receipt.state == "held" and all(map(layout.marker, receipt.jobs.values())):
            receipt.state, receipt.words = "refused", _BEFORE
            receipt.write(layout)
