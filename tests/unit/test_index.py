"""The index of a workspace: it follows what changes on disk, and what befalls its file is no matter."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workspaces import Made

from experimaestro_hpc.errors import WorkspaceError
from experimaestro_hpc.workspace import index as index_module
from experimaestro_hpc.workspace import index_file
from experimaestro_hpc.workspace.index import Index
from experimaestro_hpc.workspace.jobs import resolve, update
from experimaestro_hpc.workspace.query import Query

COUNT = 60
EVERYTHING = Query()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(tmp_path / "it's $(work)")
    for number in range(COUNT):
        made.job(number, "failed" if number % 10 == 0 else "done", tags={"n": number})
    return made


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def look(made: Made, environ: dict[str, str], query: Query = EVERYTHING) -> list[dict[str, Any]]:
    """What a process sees that starts now."""
    index = Index(made.root, environ)
    try:
        index.update()
        return index.views(query)
    finally:
        index.close()


def states(made: Made, environ: dict[str, str]) -> dict[str, str]:
    return {one["id"]: one["state"] for one in look(made, environ)}


def database(environ: dict[str, str]) -> Path:
    (path,) = Path(environ["XDG_CACHE_HOME"]).glob("xpm-hpc/index/*.sqlite")
    return path


def in_memory(index: Index) -> bool:
    return index.database.execute("PRAGMA database_list").fetchone()[2] == ""


# --- What is on disk is what is shown


def test_what_changes_on_disk_is_shown(made, environ):
    before = states(made, environ)
    assert len(before) == COUNT and list(before.values()).count("failed") == 6
    new = made.job(999, "unscheduled")
    assert states(made, environ)[new] == "unscheduled"
    made.end(new, "done")
    assert states(made, environ)[new] == "done"
    failed = next(job for job, state in before.items() if state == "failed")
    (made.root / "jobs" / failed / "train.failed").unlink()  # somebody wants it to run again
    assert states(made, environ)[failed] == "unscheduled"
    shutil.rmtree(made.root / "jobs" / failed)
    assert failed not in states(made, environ)
    shutil.rmtree(made.root / "jobs")
    assert states(made, environ) == {}


def test_a_second_change_within_one_tick_of_the_clock_is_shown(made, environ):
    """File systems keep times in ticks: a directory may change twice and keep its time."""
    job = made.job(999, "unscheduled")
    folder = made.root / "jobs" / job
    now = time.time_ns()
    os.utime(folder, ns=(now, now))
    assert states(made, environ)[job] == "unscheduled"
    made.end(job, "failed")
    os.utime(folder, ns=(now, now))
    assert states(made, environ)[job] == "failed"


def test_nothing_is_read_again_that_has_not_changed(made, environ, monkeypatch):
    look(made, environ)
    monkeypatch.setattr(index_module, "view", lambda *_: pytest.fail("a job was read again"))
    index = Index.__new__(Index)  # its constructor asks for the names of a view
    index.root, index.layout = made.root, index_module.Layout(made.root)
    index.database = index_file.open_at(index_file.file_of(made.root, environ))
    index.update()
    assert index.count() == COUNT
    index.close()


def test_an_experiment_that_changes_and_goes(made, environ):
    made.job(1, "done", tags={"n": "other"}, experiment="later")
    (one,) = look(made, environ, Query(ids=["0001"]))
    assert one["experiments"] in (["later", "study"], ["study", "later"])
    made.job(999, "done", tags={"n": "third"}, experiment="later")
    assert look(made, environ, Query(experiment="later"))[-1]["tags"] == {"n": "third"}
    shutil.rmtree(made.root / "experiments" / "later")
    assert look(made, environ, Query(experiment="later")) == []
    assert look(made, environ, Query(ids=["0001"]))[0]["tags"] == {"n": 1}


def test_a_workspace_that_was_moved_to_the_place_of_another(made, environ, tmp_path):
    look(made, environ)
    other = Made(tmp_path / "other")
    job = other.job(7, "failed")
    shutil.rmtree(made.root)
    other.root.rename(made.root)
    assert states(made, environ) == {job: "failed"}


def test_paths_are_those_of_the_workspace_as_it_is_named(made, environ, tmp_path):
    look(made, environ)
    (tmp_path / "link").symlink_to(made.root)
    index = Index(tmp_path / "link", environ)
    index.update()
    assert all(one["path"] == f"{tmp_path}/link/jobs/{one['id']}" for one in index.views())
    index.close()


@pytest.mark.parametrize("name", [b"caf\xe9.train", b"study.train"])
def test_folders_whose_names_are_no_text(made, environ, name):
    job = b"0" * 8 if name != b"study.train" else b"\xff" * 8
    (made.root / "jobs" / os.fsdecode(name) / os.fsdecode(job)).mkdir(parents=True)
    (made.root / "experiments" / os.fsdecode(b"\xff")).mkdir(parents=True)
    assert len(states(made, environ)) == COUNT


def test_a_workspace_that_cannot_be_read(made, environ, monkeypatch):
    def refuse(path: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(index_module.os, "scandir", refuse)
    with pytest.raises(WorkspaceError, match="cannot be read: Permission denied"):
        look(made, environ)


# --- What a cluster has said


RUNNING = {"state": "running", "native_id": "17", "host": "n1", "started": 6.0, "progress": [{"value": 0.12}]}


def note(made: Made, environ: dict[str, str], job: str, said: dict[str, Any]) -> None:
    """Note what a cluster says, as a process does that looks."""
    index = Index(made.root, environ)
    index.update()
    (one,) = index.views_of([job])
    update(one, said)
    index.note([one])
    index.close()


def seen(made: Made, environ: dict[str, str], job: str) -> tuple[Any, ...]:
    (one,) = look(made, environ, Query(ids=[job]))
    return tuple(one[name] for name in ("state", "native_id", "host", "started", "progress", "submitted", "tags"))


def test_what_was_seen_last_is_shown(made, environ):
    job = made.job(999, "unscheduled", native_id="17", tags={"n": 999}, experiment="mine")
    assert seen(made, environ, job) == ("queued", "17", None, None, None, 1e9 + 999, {"n": 999})
    note(made, environ, job, {**RUNNING, "submitted": 5.0})
    expected = ("running", "17", "n1", 6.0, 0.12, 5.0, {"n": 999})
    assert seen(made, environ, job) == seen(made, environ, job) == expected
    os.utime(made.root / "jobs" / job)  # a log has come
    assert seen(made, environ, job) == expected
    index = Index(made.root, environ)
    assert index.states_of("mine") == {"running": 1}
    index.close()
    note(made, environ, job, {"state": "held", "native_id": "18", "detail": "JobHeldUser", "started": None})
    assert seen(made, environ, job)[:4] == ("held", "18", "n1", None)


@pytest.mark.parametrize(
    "record", [{"native_id": "18"}, {"native_id": "17", "created": 2e9}, {"native_id": "17", "attempt": 2}]
)
def test_what_was_seen_of_an_earlier_submission_is_not(made, environ, record):
    job = made.job(999, "unscheduled", native_id="17")
    note(made, environ, job, RUNNING)
    made.job(999, "unscheduled", **record)
    assert seen(made, environ, job)[:4] == ("queued", record["native_id"], None, None)
    made.job(999, "unscheduled", native_id="17")
    assert seen(made, environ, job)[0] == "queued", "and is forgotten"


@pytest.mark.parametrize("said", ["{", "[1]", None, b"\xff", 7])
def test_what_was_seen_and_is_damaged_is_forgotten(made, environ, said):
    job = made.job(999, "unscheduled", native_id="17")
    note(made, environ, job, RUNNING)
    with sqlite3.connect(database(environ)) as damaged:
        damaged.execute("UPDATE seen SET said = ?", (said,))
    damaged.close()
    assert seen(made, environ, job)[:4] == ("queued", "17", None, None)


@pytest.mark.parametrize("is_noted", [True, False])
def test_what_was_seen_before_an_end_is_not_shown_after_it(made, environ, is_noted):
    """The end of an attempt is removed when the job is tried again, with the same record here."""
    job = made.job(999, "unscheduled", native_id="17")
    note(made, environ, job, RUNNING)
    if is_noted:
        note(made, environ, job, {"state": "failed", "reason": "exit"})
    made.end(job, "failed")
    if not is_noted:
        assert seen(made, environ, job)[0] == "failed"
    (made.root / "jobs" / job / "train.failed").unlink()
    assert seen(made, environ, job)[:4] == ("queued", "17", None, None)
    shutil.rmtree(made.root / "jobs" / job)
    assert job not in states(made, environ)


# --- Queries


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (Query(states=("failed",)), [0, 10, 20, 30, 40, 50]),
        (Query(states=("failed",), most=2), [40, 50]),
        (Query(most=3), [57, 58, 59]),
        (Query(most=3, states=("running",)), []),
        (Query(since=1e9 + 58), [58, 59]),
        (Query(ids=["0003", "study.train/0004"]), [3, 4]),
        (Query(ids=["%", "_", "000_"]), []),
        (Query(fits_task=lambda task: task == "study.other"), []),
        (Query(fits_task=lambda task: task.endswith("train"), most=1), [59]),
        (Query(experiment="nothing"), []),
        (Query(experiment="study", states=("failed",), since=1e9 + 45), [50]),
    ],
)
def test_queries(made, environ, query, numbers):
    assert [one["tags"]["n"] for one in look(made, environ, query)] == numbers


def test_of_those_that_have_not_ended_none_is_left_out(made, environ):
    """They are asked about, and may fit then."""
    jobs = [made.job(number, "unscheduled") for number in (100, 101)]
    found = [one["id"] for one in look(made, environ, Query(states=("failed",), most=1))]
    assert found[1:] == jobs and len(found) == 3


def test_many_ids(made, environ):
    """More than SQLite takes in one condition."""
    wanted = [one["id"] for one in look(made, environ)] * 20
    assert len(resolve(look(made, environ, Query(ids=wanted)), wanted)) == COUNT


def test_beginnings(made, environ):
    look(made, environ)
    index = Index(made.root, environ)
    assert [one[:16] for one in index.beginnings("0003")] == ["study.train/0003"]
    assert len(index.beginnings("")) == COUNT and len(index.beginnings("study.t", 5)) == 5
    assert index.beginnings("%") == index.beginnings("zz") == []
    index.close()


# --- What befalls the file


def damage_all(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def damage_start(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(200))


def damage_inside(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def of_somebody_else(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE jobs (id)")
        other.execute(f"PRAGMA user_version = {index_file._VERSION}")
    other.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()


@pytest.mark.parametrize(
    "what", [damage_all, damage_start, damage_inside, cut_off, empty, of_somebody_else, newer, Path.unlink]
)
def test_a_file_that_is_damaged_is_made_anew(made, environ, what):
    before = look(made, environ)
    what(database(environ))
    assert look(made, environ) == before
    index = Index(made.root, environ)
    assert not in_memory(index) and index.count() == COUNT, "and then it is whole"
    index.close()


def test_a_file_that_is_damaged_while_it_is_open(made, environ):
    before = look(made, environ)
    index = Index(made.root, environ)
    index.update()
    damage_inside(database(environ))
    index.database.execute("PRAGMA shrink_memory")
    assert index.views() == before
    assert index.count() == COUNT and index.latest_experiment() == "study"
    index.close()


def test_a_file_that_is_damaged_while_it_is_asked_for_tasks(made, environ):
    other = made.job(COUNT, task="study.other")
    query = Query(fits_task=lambda task: task == "study.other")
    before = look(made, environ, query)
    assert [one["id"] for one in before] == [other]
    index = Index(made.root, environ)
    index.update()
    damage_inside(database(environ))
    index.database.execute("PRAGMA shrink_memory")
    assert index.views(query) == before
    assert not in_memory(index)
    index.close()


@pytest.mark.parametrize("value", ["{", "", "[]", "null", b"\xff"])
@pytest.mark.parametrize(("table", "column"), [("jobs", "view"), ("members", "tags"), ("experiments", "latest")])
def test_a_row_that_is_not_understood(made, environ, table, column, value):
    if (column, value) == ("latest", "[]"):
        value = "{}"
    before = look(made, environ)
    index = Index(made.root, environ)
    experiments = index.experiments()
    with sqlite3.connect(database(environ)) as other:
        other.execute(f"UPDATE {table} SET {column} = ?", (value,))
    other.close()
    assert index.experiments() == experiments
    assert index.views_of([one["id"] for one in before]) == before
    assert index.views() == before
    assert look(made, environ) == before
    assert not in_memory(index)
    index.close()


def test_a_cache_folder_that_cannot_be_made(made):
    index = Index(made.root, {"XDG_CACHE_HOME": "/dev/null/cache"})
    index.update()
    assert index.count() == COUNT and in_memory(index)
    index.close()


def test_a_file_that_can_be_read_only(made, environ, monkeypatch):
    """As of another user's, or on a disk that went read-only; root may write everywhere, so SQLite is told."""
    before = look(made, environ)
    connect = sqlite3.connect

    def read_only(path: str, **options: Any) -> sqlite3.Connection:
        return connect(path if path == ":memory:" else f"file:{path}?mode=ro", uri=True, **options)

    made.job(999, "failed")
    monkeypatch.setattr(index_file.sqlite3, "connect", read_only)
    assert len(look(made, environ)) == len(before) + 1


def test_a_full_disk(made, environ):
    """A limit on the size of files stops the database as a full disk does, in the middle of writing."""
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom experimaestro_hpc.workspace.index import Index\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "index = Index(Path(sys.argv[1]))\nindex.update()\nprint(index.count(), len(index.views()))\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000
    argv = [sys.executable, "-c", code, str(made.root)]
    ran = subprocess.run(argv, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == (f"{COUNT} {COUNT}\n", "")
    assert len(look(made, environ)) == COUNT


def test_a_file_system_without_locks(made, environ, monkeypatch):
    """An NFS server without its lock daemon: SQLite would wait for a lock that nobody has."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(index_file.fcntl, "lockf", refuse)
    began = time.monotonic()
    index = Index(made.root, environ)
    index.update()
    assert index.count() == COUNT and in_memory(index)
    assert time.monotonic() - began < index_file._PATIENCE
    index.close()


def test_a_process_that_hangs_while_it_writes(made, environ, monkeypatch):
    before = look(made, environ)
    monkeypatch.setattr(index_file, "_PATIENCE", 0.2)
    other = sqlite3.connect(database(environ))
    other.execute("BEGIN IMMEDIATE")
    new = made.job(999, "failed")
    assert {one["id"] for one in look(made, environ)} == {one["id"] for one in before} | {new}
    other.rollback()
    other.close()
    assert len(look(made, environ)) == len(before) + 1


UPDATE = (
    "import sys\nfrom pathlib import Path\nfrom experimaestro_hpc.workspace.index import Index\n"
    "i = Index(Path(sys.argv[1]))"
)


def update_process(made: Made, environ: dict[str, str], code: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", f"{UPDATE}\n{code}", str(made.root)]
    return subprocess.Popen(argv, env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("rows", [0, 5, 37, COUNT])
def test_killed_in_the_middle_of_an_update(made, environ, rows):
    """After so many rows, within a transaction of ten."""
    code = (
        "import os, signal\nfrom experimaestro_hpc.workspace import index\nindex._BATCH = 10\ncount = 0\n"
        f"def trace(statement):\n    global count\n    count += statement.startswith('INSERT')\n"
        f"    if count > {rows}:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "i.database.set_trace_callback(trace)\ni.update()"
    )
    with update_process(made, environ, code) as process:
        assert process.wait(60) == -signal.SIGKILL
    assert len(states(made, environ)) == COUNT
    made.job(0, "done")  # which wins over what failed before
    assert list(states(made, environ).values()).count("failed") == 5


def test_several_at_once(made, environ):
    code = "print('ready', flush=True)\nfor _ in range(20): i.update()\nprint(i.count())"
    processes = [update_process(made, environ, code) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdout and process.stdout.readline() == "ready\n"
        for number in range(COUNT, COUNT + 30):
            made.job(number, "failed")
        assert all(process.wait(60) == 0 for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()
    found = states(made, environ)
    assert len(found) == COUNT + 30
    index = Index(made.root, environ)
    assert not in_memory(index) and index.database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    index.close()


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    yield
    assert [path for path in Path("/proc/self/fd").iterdir() if ".sqlite" in str(path.resolve())] == []
