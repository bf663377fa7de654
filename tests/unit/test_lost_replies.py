"""What an unclear answer of a scheduler's means: whether the request was made, may still be, or never was."""

from __future__ import annotations

import time

import pytest

from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.receipts import Receipt, look_up
from experimaestro_hpc.agent.watch import _unless_removed
from experimaestro_hpc.errors import SubmissionError
from experimaestro_hpc.schedulers.base import NoInformation, NoRoom, NotReached, Submission
from experimaestro_hpc.schedulers.command import Answer, clean_environment
from experimaestro_hpc.schedulers.slurm import Slurm

#: seconds for which a request may be accepted late
LATE = 20.0
SUBMISSION = Submission("t0", "job-t0", "/w/job.sh", "/w", directories=["/w"])


@pytest.fixture(autouse=True)
def some_come_late(nothing_comes_late: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a real cluster."""
    monkeypatch.setattr("experimaestro_hpc.agent.receipts.LATE", LATE)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Batch job submission failed: Socket timed out on send/recv operation", NoInformation),
        ("Batch job submission failed: Unable to contact slurm controller (connect failure)", NotReached),
        ("Munge encode failed: Failed to connect to /run/munge/munge.socket.2", NotReached),
        ("Batch job submission failed: Zero Bytes were transmitted or received", NoInformation),
        ("QOSMaxSubmitJobPerUserLimit", NoRoom),
        ("Batch job submission failed: Invalid partition name specified", SubmissionError),
    ],
)
def test_what_sbatchs_refusals_mean(tmp_path, monkeypatch, words, kind):
    slurm = Slurm(str(tmp_path))
    monkeypatch.setattr(slurm.commands, "run", lambda argv, **_options: Answer(1, "", f"sbatch: error: {words}\n"))
    with pytest.raises(kind) as raised:
        slurm.submit(SUBMISSION)
    assert type(raised.value) is kind


def receipt(**changes) -> Receipt:
    return Receipt("t0", "slurm", "job-t0", {"0": "a.say/0123"}, **{"time": time.time(), **changes})


@pytest.mark.parametrize(
    ("changes", "may_come"),
    [
        ({"words": "sbatch: Socket timed out"}, True),
        ({"words": ""}, False),  # it never got as far, or its process was killed and its sbatch has ended since
        ({"words": "sbatch: Socket timed out", "time": time.time() - LATE}, False),
        ({"words": "waiting for a slot", "state": "held"}, False),
    ],
)
def test_whether_a_request_may_still_be_accepted(changes, may_come):
    assert bool(receipt(**changes).may_come()) is may_come


class Finder:
    """A scheduler that knows a job from the given look on."""

    def __init__(self, since: int) -> None:
        self.since = since
        self.looks = 0

    def find(self, submission: Submission) -> list[str] | None:
        self.looks += 1
        return ["17"] if self.looks >= self.since else None


def test_a_late_acceptance_is_found_and_what_cannot_come_is_not_waited_for(tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    layout = Layout(tmp_path)
    assert look_up(layout, Finder(3), receipt(time=now, words="timed out")) == ["17"]
    never, began = Finder(1000), now
    assert look_up(layout, never, receipt(time=now, words="timed out")) is None
    assert now - began == pytest.approx(LATE)
    assert never.looks < 10
    clear = Finder(2)
    assert look_up(layout, clear, receipt(time=now)) is None
    assert clear.looks == 1


def test_a_session_of_the_login_node_is_not_passed_on_and_the_users_folders_are():
    environ = {"XDG_RUNTIME_DIR": "/run/user/1", "XDG_SESSION_ID": "3", "DBUS_SESSION_BUS_ADDRESS": "unix:x"}
    kept = {"XDG_CACHE_HOME": "/scratch/cache", "SLURM_CONF": "/etc/slurm.conf", "HOME": "/home/a"}
    assert clean_environment({**environ, **kept}) == {**kept, "LC_ALL": "C"}


SEEN = {"state": "running", "native_id": "17", "host": "c1"}


@pytest.mark.parametrize(
    ("state", "seen", "expected"),
    [
        ({"state": "unscheduled"}, SEEN, ("failed", "lost")),
        ({"state": "unscheduled"}, {}, ("unscheduled", None)),
        ({"state": "unscheduled", "detail": "its submission was not confirmed"}, SEEN, ("unscheduled", None)),
        ({"state": "done"}, SEEN, ("done", None)),
    ],
)
def test_a_job_whose_directory_is_gone(state, seen, expected):
    found = _unless_removed(state, seen)
    assert (found["state"], found.get("reason")) == expected
