"""What is held goes on when a job ends, in the environment of whoever held it, and whether or not anybody watches."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest
from job_directory import Job, Workspace
from standin import A, B, C, D, StandIn, Start, agents, group, send, submitted_jobs

from experimaestro_hpc.agent import after
from experimaestro_hpc.agent import send as send_module
from experimaestro_hpc.agent import service as service_module
from experimaestro_hpc.agent.held import environment, note, noted
from experimaestro_hpc.driver.ship import build, install


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (service_module, after):
        monkeypatch.setattr(module, "scheduler_class", lambda _name: StandIn)
    monkeypatch.setattr(StandIn, "command", "true")
    monkeypatch.setattr(send_module, "PAUSES", (0.001, 0.001))
    monkeypatch.setattr(after, "PAUSE", 0.01)
    monkeypatch.setattr(after, "PATIENCE", 0.2)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return agents(tmp_path)


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How many jobs can be submitted by each scheduler that is asked from now on."""
    found: list[int | None] = []
    init = StandIn.__init__

    def with_room(self: StandIn, workspace: str) -> None:
        init(self, workspace)
        self.room = found.pop(0) if len(found) > 1 else found[0]
        made.append(self)

    made: list[StandIn] = []
    monkeypatch.setattr(StandIn, "__init__", with_room)
    monkeypatch.setattr(StandIn, "made", made, raising=False)
    return found


def test_what_is_held_has_a_note_for_its_owner(start, monkeypatch):
    monkeypatch.setenv("SITE", "of the submission")
    service, scheduler = start()
    scheduler.room = 1
    send(service, group("t1", [A]), group("t2", [B], [A]), group("t3", [C], [B]))
    assert list(noted(service.layout)) == ["t2", "t3"]
    path = service.layout.internal / "held" / "t2"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["SITE"] == "of the submission"
    monkeypatch.setenv("SITE", "of who tries it again")
    note(service.layout, "t2")
    assert json.loads(path.read_text())["SITE"] == "of the submission"


def test_a_note_is_there_when_it_is_whole(start, monkeypatch):
    service, scheduler = start()
    scheduler.room = 0
    path = service.layout.internal / "held" / "t1"
    write = os.write

    def full(handle: int, data: bytes) -> int:
        if str(Path(f"/proc/self/fd/{handle}").readlink()).startswith(str(path)):
            modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
            assert noted(service.layout) == {}
            write(handle, data[:7])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    modes: list[int] = []
    monkeypatch.setattr(os, "write", full)
    send(service, group("t1", [A]))
    assert (modes, list(path.parent.iterdir())) == ([0o600], [])
    monkeypatch.setattr(os, "write", write)
    note(service.layout, "t1")
    assert environment(service.layout) == dict(os.environ)


def test_half_a_note_of_a_process_that_was_killed_is_none(start):
    service, _ = start()
    folder = service.layout.internal / "held"
    folder.mkdir(parents=True)
    (folder / "t1.7.7.tmp").write_text('{"PATH"')
    assert noted(service.layout) == {}


def test_it_is_submitted_when_there_is_room(start, rooms):
    rooms.append(1)
    service, scheduler = start()
    send(service, group("t1", [A]), group("t2", [B], [A]), group("t3", [C], [B]))
    rooms[:] = [0, 0, None]
    after.main(str(service.layout.root))
    assert noted(service.layout) == {}
    assert submitted_jobs(service, scheduler) == [A, B, C]


def test_a_job_does_not_try_for_ever(start, rooms):
    rooms.append(0)
    service, scheduler = start()
    send(service, group("t1", [A]))
    after.main(str(service.layout.root))
    assert list(noted(service.layout)) == ["t1"]
    assert submitted_jobs(service, scheduler) == []


def test_who_waits_goes_on_for_who_is_at_it(start, rooms):
    """So that the job that is at it ends, and leaves its place to what is held."""
    rooms.append(0)
    service, _ = start()
    send(service, group("t1", [A]))
    before = len(StandIn.made)
    with (service.layout.internal / "locks" / "held-next").open("a") as next_one:
        fcntl.flock(next_one, fcntl.LOCK_EX)
        after.main(str(service.layout.root))
    assert len(StandIn.made) == before, "nothing was tried: somebody waits already"


def test_a_note_without_its_submission_is_removed(start):
    service, scheduler = start()
    scheduler.room = 0
    send(service, group("t1", [A]), group("t2", [D]))
    (service.layout.batch("t1") / "receipt.json").unlink()
    (service.layout.internal / "held" / "t2").write_text("no JSON")
    assert after.submit_held(service.layout)
    assert noted(service.layout) == {}


def test_what_another_user_holds_is_left_to_them(start, rooms):
    rooms.append(0)
    service, scheduler = start()
    send(service, group("t1", [A]), group("t2", [D]))
    theirs = service.layout.internal / "held" / "t1"
    theirs.unlink()
    theirs.mkdir()  # nobody can read it as a note
    rooms[:] = [None]
    after.main(str(service.layout.root))
    assert submitted_jobs(service, scheduler) == [D]


def test_what_was_cancelled_is_not_submitted(start, rooms):
    rooms.append(0)
    service, scheduler = start()
    send(service, group("t1", [A, B]))
    service.cancel([A, B])
    rooms[:] = [None]
    after.main(str(service.layout.root))
    assert (noted(service.layout), submitted_jobs(service, scheduler)) == ({}, [])


def test_a_node_without_the_schedulers_commands_leaves_it_alone(start, monkeypatch):
    service, scheduler = start()
    scheduler.room = 0
    send(service, group("t1", [A]))
    monkeypatch.setattr(StandIn, "command", "sbatch-of-nowhere")
    assert after.submit_held(service.layout), "nothing to be tried again"
    assert list(noted(service.layout)) == ["t1"]


# --- As the job does it


@pytest.fixture
def ending(tmp_path: Path) -> tuple[Job, Path]:
    """A job that is about to end well, and the folder of the notes."""
    workspace = Workspace(tmp_path)
    workspace.script("from experimaestro_hpc import Task\nclass Say(Task):\n    def execute(self): pass\n")
    notes = tmp_path / ".xpm" / "held"
    notes.mkdir(parents=True)
    return workspace.job("Say"), notes


@pytest.mark.parametrize(("end", "goes_on"), [("", True), ("1000000000", False)])
def test_the_end_of_a_job(tmp_path, ending, end, goes_on):
    """As a real one does it, unless it has too little time left: the note is of nothing, so it goes."""
    job, notes = ending
    note = notes / "t1"
    note.write_text(json.dumps({"SITE": "of the submission", "PATH": os.environ["PATH"]}))
    ran = job.run(XPM_HPC_END_TIME=end, entry=[str(installed(tmp_path))])
    assert (ran.returncode, ran.stderr, job.markers) == (0, "", [".done"])
    assert note.exists() != goes_on


def test_a_note_that_cannot_be_read_is_passed_over(tmp_path, ending):
    """As one of another user: the next one is read, and the job ends well."""
    job, notes = ending
    (notes / "t1").mkdir()
    (notes / "t2").write_text(json.dumps({"PATH": os.environ["PATH"]}))
    ran = job.run(entry=[str(installed(tmp_path))])
    assert (ran.returncode, ran.stderr, job.markers) == (0, "", [".done"])
    assert not (notes / "t2").exists()


@pytest.mark.parametrize(("code", "marker"), [(0, ".done"), (7, ".failed")])
def test_a_job_ends_as_its_task_whatever_comes_of_what_is_held(tmp_path, ending, code, marker):
    job, notes = ending
    job.workspace.script(
        f"import sys\nfrom experimaestro_hpc import Task\nclass Say(Task):\n    def execute(self): sys.exit({code})\n"
    )
    (notes / "t1").write_text("{}")
    entry = installed(tmp_path)
    (entry.parent / "experimaestro_hpc" / "agent" / "after.py").write_text("raise OSError(5, 'Input/output error')")
    ran = job.run(entry=[str(entry)])
    assert (ran.returncode, job.markers) == (code, [marker])


def installed(root: Path) -> Path:
    """The shipped package in a workspace of its own; its ``run_task.py``."""

    shipment = build()
    install(shipment, root)
    return root / shipment.folder / "run_task.py"
