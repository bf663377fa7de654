"""What is known of a workspace's jobs, kept in a database so that listing does not read each job's files again.

In: a workspace. Out: views of jobs (:mod:`.jobs`), chosen by what a query names. The job directories are the truth: the
index lies in the user's cache folder, can be deleted at any time, and follows what has changed: a job's files appear by
rename, which changes the time of its directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agent.layout import Layout, is_job_id
from .experiments import read_experiment
from .jobs import FINAL, View, view

#: of the tables; an index of another version is made anew
_VERSION = 1
#: values in one statement
_CHUNK = 900
#: seconds to wait for another process that writes
_PATIENCE = 30.0
_TABLES = """
CREATE TABLE jobs (id TEXT PRIMARY KEY, changed INTEGER, state TEXT, launcher TEXT, submitted REAL, view TEXT);
CREATE TABLE experiments (name TEXT PRIMARY KEY, changed INTEGER, updated REAL, script TEXT, latest TEXT);
CREATE TABLE members (experiment TEXT, job TEXT, tags TEXT, PRIMARY KEY (experiment, job)) WITHOUT ROWID;
CREATE INDEX members_by_job ON members (job);
"""


@dataclass(frozen=True)
class Query:
    """Which jobs. What is empty or None asks for nothing.

    :ivar states: their states as last seen; jobs that had not ended then are always among the answer
    :ivar launcher: by its name
    :ivar since: submitted after this time, in seconds since 1970
    :ivar ids: beginnings of identifiers or of ``task/identifier``
    """

    states: Sequence[str] = ()
    experiment: str | None = None
    launcher: str | None = None
    since: float | None = None
    ids: Sequence[str] = ()


class Index:
    """The jobs of one workspace.

    :param root: the workspace
    """

    def __init__(self, root: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.root = root
        self.layout = Layout(root)
        self.database = _open(_file(root, environ))

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def update(self) -> None:
        """Read what has changed since the last time."""
        known = dict(self.database.execute("SELECT id, changed FROM jobs"))
        fresh = []
        gone = set(known)
        for job, changed in _directories(self.root):
            gone.discard(job)
            if known.get(job) != changed:
                fresh.append((job, changed))
        experiments = dict(self.database.execute("SELECT name, changed FROM experiments"))
        found = {path.parent.name: path for path in (self.root / "experiments").glob("*/experiment.json")}
        times = {name: path.stat().st_mtime_ns for name, path in found.items()}
        if not fresh and not gone and times == experiments:
            return
        with self.database:  # one transaction: all of it or nothing
            self.database.executemany("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)", self._rows(fresh))
            self.database.executemany("DELETE FROM jobs WHERE id = ?", [(job,) for job in gone])
            for name in experiments.keys() | times.keys():
                if experiments.get(name) != times.get(name):
                    self._take_experiment(name, found.get(name), times.get(name, 0))

    def _rows(self, jobs: Iterable[tuple[str, int]]) -> Iterator[tuple[Any, ...]]:
        for job, changed in jobs:
            record = self.layout.record(job)
            one = (
                view(self.layout, job, record, self.layout.marker(job), [], record.get("tags") or {}) if record else {}
            )
            state, launcher = one.get("state"), one.get("launcher")
            yield job, changed, state, launcher, one.get("submitted") or 0.0, json.dumps(one) if one else None

    def _take_experiment(self, name: str, path: Path | None, changed: int) -> None:
        self.database.execute("DELETE FROM experiments WHERE name = ?", (name,))
        self.database.execute("DELETE FROM members WHERE experiment = ?", (name,))
        record = read_experiment(path) if path else None
        if record is None:
            return
        row = (name, changed, record.updated, record.script, json.dumps(record.latest))
        self.database.execute("INSERT INTO experiments VALUES (?, ?, ?, ?, ?)", row)
        members = [(name, job, json.dumps(of.get("tags") or {})) for job, of in record.jobs.items()]
        self.database.executemany("INSERT INTO members VALUES (?, ?, ?)", members)

    def views(self, query: Query = Query()) -> list[View]:
        """The jobs that fit, the latest submitted last."""
        conditions, values = _conditions(query)
        rows = self.database.execute(
            f"SELECT id, view FROM jobs WHERE view IS NOT NULL{''.join(conditions)} ORDER BY submitted, id",
            values,
        ).fetchall()
        named = self._members([job for job, _ in rows])
        found = []
        for job, text in rows:
            one: View = json.loads(text)
            if job in named:
                one["experiments"] = [name for name, _ in named[job]]
                one["tags"] = json.loads(named[job][0][1])
            found.append(one)
        return found

    def _members(self, jobs: list[str]) -> dict[str, list[tuple[str, str]]]:
        """By job, the experiments that have it, the latest first, and its tags there."""
        order = {name: number for number, (name,) in enumerate(self._by_age())}
        found: dict[str, list[tuple[str, str]]] = {}
        for start in range(0, len(jobs), _CHUNK):
            some = jobs[start : start + _CHUNK]
            marks = ", ".join("?" * len(some))
            for job, name, tags in self.database.execute(
                f"SELECT job, experiment, tags FROM members WHERE job IN ({marks})",
                some,
            ):
                found.setdefault(job, []).append((name, tags))
        for of in found.values():
            of.sort(key=lambda pair: order[pair[0]])
        return found

    def _by_age(self) -> list[tuple[str]]:
        return self.database.execute("SELECT name FROM experiments ORDER BY updated DESC").fetchall()

    def count(self) -> int:
        """How many jobs there are."""
        return int(self.database.execute("SELECT count(*) FROM jobs WHERE view IS NOT NULL").fetchone()[0])

    def states_of(self, experiment: str) -> dict[str, int]:
        """How many jobs of an experiment are in which state, as last seen."""
        return dict(
            self.database.execute(
                "SELECT state, count(*) FROM jobs JOIN members ON id = job WHERE experiment = ? GROUP BY state",
                (experiment,),
            )
        )

    def latest_experiment(self) -> str:
        """The name of the experiment that was run last; "" without any."""
        row = self.database.execute("SELECT name FROM experiments ORDER BY updated DESC LIMIT 1").fetchone()
        return str(row[0]) if row else ""

    def experiments(self) -> list[dict[str, Any]]:
        """The experiments, the latest first: ``name``, ``updated`` (seconds since 1970), ``script``, ``latest``."""
        rows = self.database.execute("SELECT name, updated, script, latest FROM experiments ORDER BY updated DESC")
        return [
            {"name": name, "updated": updated, "script": script, "latest": json.loads(latest)}
            for name, updated, script, latest in rows
        ]

    def beginnings(self, text: str, most: int = 200) -> list[str]:
        """Ids of jobs that begin with ``text``, as last seen: for completion, which must be quick."""
        rows = self.database.execute(
            "SELECT id FROM jobs WHERE id LIKE ? ESCAPE '\\' OR id LIKE ? ESCAPE '\\' ORDER BY submitted DESC LIMIT ?",
            (f"{_literal(text)}%", f"%/{_literal(text)}%", most),
        )
        return [job for (job,) in rows]


def _conditions(query: Query) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    if query.states:
        states = [*query.states, *({"unscheduled", "waiting", "queued", "held", "running"} - set(query.states))]
        states = [one for one in states if one in query.states or one not in FINAL]
        conditions.append(f" AND state IN ({', '.join('?' * len(states))})")
        values += states
    if query.launcher is not None:
        conditions.append(" AND (launcher = ? OR launcher LIKE ? ESCAPE '\\')")
        values += [query.launcher, f"%/{_literal(query.launcher)}.toml"]
    if query.since is not None:
        conditions.append(" AND submitted >= ?")
        values.append(query.since)
    if query.experiment is not None:
        conditions.append(" AND id IN (SELECT job FROM members WHERE experiment = ?)")
        values.append(query.experiment)
    if query.ids:
        likes = []
        for one in query.ids:
            likes += ["id LIKE ? ESCAPE '\\'"] * 2
            values += [f"{_literal(one)}%", f"%/{_literal(one)}%"]
        conditions.append(f" AND ({' OR '.join(likes)})")
    return conditions, values


def _literal(text: str) -> str:
    """``text`` as a pattern of LIKE's that means itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _directories(root: Path) -> Iterator[tuple[str, int]]:
    """The ids of all jobs, and when their directories changed (nanoseconds)."""
    with contextlib.suppress(FileNotFoundError), os.scandir(root / "jobs") as tasks:
        for task in tasks:
            if not task.is_dir():
                continue
            with os.scandir(task.path) as entries:
                if not is_job_id(f"{task.name}/0"):
                    continue
                for entry in entries:
                    if entry.name.isalnum() and entry.name.isascii() and entry.is_dir():
                        with contextlib.suppress(FileNotFoundError):
                            yield f"{task.name}/{entry.name}", entry.stat().st_mtime_ns


def _file(root: Path, environ: Mapping[str, str]) -> Path:
    cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:20]
    return cache / "xpm-hpc" / "index" / f"{name}.sqlite"


def _open(path: Path) -> sqlite3.Connection:
    """The database at ``path``, made anew if it is damaged or of another version; in memory if it cannot be there."""
    for attempt in (1, 2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return _connect(str(path))
        except (OSError, sqlite3.Error):
            if attempt == 1:
                for one in path.parent.glob(f"{path.name}*"):
                    with contextlib.suppress(OSError):
                        one.unlink()
    return _connect(":memory:")


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_PATIENCE)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError("of another version")
        if version == 0:
            with database:
                database.execute("BEGIN IMMEDIATE")
                if database.execute("PRAGMA user_version").fetchone()[0] == 0:  # nobody was faster
                    for statement in filter(str.strip, _TABLES.split(";")):
                        database.execute(statement)
                    database.execute(f"PRAGMA user_version = {_VERSION}")
        database.execute("SELECT id, changed FROM jobs LIMIT 1")
        database.execute("SELECT name, changed FROM experiments LIMIT 1")
    except BaseException:
        database.close()
        raise
    return database
