"""Watch jobs to their ends. In: sessions and job ids. Out: lines for people, mirrored files, final states."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from ..config.objects import job_name
from ..errors import ConnectionFailed, XpmError
from ..workspace.jobs import FINAL, last_lines
from ..workspace.words import count_of, duration, first_line, in_words, short
from .mirror import pull
from .session import Session

if TYPE_CHECKING:  # a word for a dict; its module takes as long to load as all others here
    from ..agent.watch import State

#: seconds that the agent waits for a change before it answers
PATIENCE = 20.0
#: seconds before the first try to connect again, and between tries at most
RECONNECT_FIRST, RECONNECT_MOST = 1.0, 60.0
#: more jobs than this are summed up, not told one by one
TALKATIVE = 20
#: seconds between two summaries
SUMMARY = 5.0
#: failures that are told with the end of their log; the others are only named, and then only counted
TOLD_IN_FULL, TOLD = 3, 20
#: letters of a job's tags in a line
LABEL = 60


def describe(job: str, state: State, label: str = "") -> str:
    """One line: the job, its state, where, and why.

    :param label: what tells the job from others of its task
    """
    name = state.get("state", "")
    words = [f"{f'{short(job)} {label}':<36}", name]
    if name == "failed":
        words.append(f"({state.get('reason', 'exit')})")
    if state.get("host") and name in ("running", *FINAL):
        words.append(f"on {state['host']}")
    if state.get("native_id") and name in ("queued", "held", "waiting"):
        words.append(f"as {state['native_id']}")
    if name in FINAL and state.get("started") and state.get("ended"):
        words.append(f"in {duration(state['ended'] - state['started'])}")
    if state.get("again") and name not in FINAL:
        words.append(f"- {state['again']}")
    note = state.get("message") if name == "failed" else state.get("detail")
    if note and note not in ("Priority", "Resources", "Dependency"):
        words.append(f"- {first_line(str(note))}")
    return " ".join(words)


class Monitor:
    """Follows the jobs of an experiment and tells what becomes of them.

    :param sessions: by launcher name
    :param launchers: launcher name by job id
    :param quiet: tell only of what fails
    """

    def __init__(
        self,
        sessions: Mapping[str, Session],
        launchers: Mapping[str, str],
        out: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        self.sessions = sessions
        self.launchers = launchers
        self.out = out or sys.stdout
        self.quiet = quiet
        #: by job id, its tags in words
        self.labels: dict[str, str] = {}
        self.states: dict[str, State] = {}
        self.told: dict[str, str] = {}
        self.summed_at = 0.0
        self.trouble = ""
        self.failures = 0
        #: tries to connect again since the connection was lost
        self.lost = 0

    def say(self, text: str) -> None:
        """Print a line, at once, unless only failures are wanted."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Print a line, at once; what the terminal cannot show does not stop an experiment."""
        encoding = getattr(self.out, "encoding", None) or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=self.out, flush=True)

    def wait(self, jobs: Iterable[str]) -> dict[str, State]:
        """Watch until all ``jobs`` have ended, and bring their files back.

        :returns: their final states
        """
        jobs = list(jobs)
        while True:
            open_jobs = [job for job in jobs if not self.is_over(job)]
            if not open_jobs:
                return {job: self.states[job] for job in jobs}
            by_launcher: dict[str, list[str]] = {}
            for job in open_jobs:
                by_launcher.setdefault(self.launchers[job], []).append(job)
            patience = PATIENCE if len(by_launcher) == 1 else 1.0
            for name, some in by_launcher.items():
                self._look(self.sessions[name], some, patience)

    def cancel(self) -> int:
        """End the jobs that have not ended; returns how many were. What cannot be reached is told."""
        open_jobs = [job for job in self.launchers if not self.is_over(job)]
        cancelled = 0
        for name, session in self.sessions.items():
            session.client.close()  # a request may have been cut off by the interrupt
            mine = [job for job in open_jobs if self.launchers[job] == name]
            try:
                cancelled += len(session.client.call("cancel", jobs=mine)["cancelled"]) if mine else 0
            except XpmError as error:  # the others are ended all the same
                self.warn(f"{count_of(mine)} on {session.place} could not be cancelled: {error}")
        return cancelled

    def _rest(self, error: ConnectionFailed) -> None:
        """Wait before the next try, longer each time."""
        if not self.lost:
            self.say(f"  {error.where or 'the cluster'}: {error.what}; the jobs go on, and so do the tries to connect")
        time.sleep(min(RECONNECT_FIRST * 2 ** min(self.lost, 10), RECONNECT_MOST) * random.uniform(0.8, 1.2))
        self.lost += 1

    def is_over(self, job: str) -> bool:
        """Whether a job has ended, as far as it was seen."""
        return self.states.get(job, {}).get("state") in FINAL

    def _look(self, session: Session, jobs: list[str], patience: float) -> None:
        seen = {job: self.states[job] for job in jobs if job in self.states}
        patience = 0.0 if self.lost else patience  # to say soon that the connection is there again
        try:
            answer = session.client.call("watch", jobs=jobs, seen=seen, seconds=patience)
            changed: dict[str, State] = answer["states"]
            ended = [job for job, state in changed.items() if state.get("state") in FINAL]
            pull(session, ended)
        except ConnectionFailed as error:  # Wi-Fi gone, laptop asleep: the jobs do not mind
            self._rest(error)
            return
        if self.lost:
            self.lost = 0
            self.say(f"  connected to {session.place} again")
        self.note(changed, len(jobs) > TALKATIVE)
        for note in answer["notes"]:
            self.say(f"  {session.place}: {note}")
        if answer["trouble"] != self.trouble:
            self.trouble = answer["trouble"]
            self.say(f"  {session.place}: {self.trouble or 'answers again'}")

    def note(self, changed: Mapping[str, State], is_many: bool) -> None:
        """Take in new states and tell of them."""
        self.states.update(changed)
        for job, state in changed.items():
            name = state.get("state", "")
            line = describe(job, state, first_line(self.labels.get(job, ""))[:LABEL])
            if self.told.get(job) in (line, "done", "failed"):
                continue
            self.told[job] = name if name in FINAL else line
            if name == "failed":
                self._tell_failure(job, line)
            elif not is_many and (name not in ("unscheduled", "waiting") or state.get("native_id")):
                self.say(f"  {line}")
        over = all(self.is_over(job) for job in self.states)
        if is_many and (over or time.monotonic() - self.summed_at > SUMMARY):
            self.summed_at = time.monotonic()
            self.say(f"  {count(self.states)}")

    def _tell_failure(self, job: str, line: str) -> None:
        self.failures += 1
        if self.failures <= TOLD:
            self.warn(f"  {line}")
        elif self.failures == TOLD + 1:
            self.warn("  more jobs failed; they are counted from here on")
        if self.failures > TOLD_IN_FULL or self.states[job].get("reason") in ("dependency", "cancelled"):
            return
        layout = self.sessions[self.launchers[job]].layout
        lines = last_lines(layout, job)
        if lines:
            self.warn(f"    the end of {layout.job(job) / job_name(job.split('/')[0])}.err:")
            for one in lines:
                self.warn(f"    | {one}")


def count(states: Mapping[str, Mapping[str, Any]]) -> str:
    """``3 done, 1 failed``: how many jobs are in which state."""
    return in_words(Counter(str(state.get("state")) for state in states.values()))
