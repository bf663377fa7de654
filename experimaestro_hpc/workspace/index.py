"""What is known of a workspace's jobs, kept in a database so that listing does not read each job's files again.

In: a workspace. Out: views of jobs (:mod:`.jobs`), chosen by what a query names. The job directories are the truth: the
index lies in the user's cache folder, can be deleted at any time, and follows what has changed: a job's files appear by
rename, which changes the time of its directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from ..agent.layout import Layout, is_job_id
from ..errors import WorkspaceError
from .experiments import read_experiment
from .index_file import connect, file_of, open_at, remove
from .jobs import FINAL, View, view
from .query import ALL, Query, conditions_of, literal, marks

_Found = TypeVar("_Found")

#: values in one statement
_CHUNK = 900
#: jobs in one transaction: a process that is killed in the middle has kept the others
_BATCH = 2_000
#: nanoseconds: what has changed so lately may change again without another time of its directory
_LATELY = 2_500_000_000
#: known from the id and the workspace, or from the experiments
_NOT_KEPT = ("id", "task", "identifier", "path", "experiments")
#: what a cluster says of a job that has not ended
_SAID = ("state", "detail", "native_id", "host", "submitted", "started", "attempt", "progress")


class Index:
    """The jobs of one workspace. What is wrong with the database is no error: it is made anew, or kept in memory.

    :param root: the workspace
    """

    def __init__(self, root: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.root = root
        self.layout = Layout(root)
        self.file = file_of(root, environ)
        #: files of experiments that cannot be read, as of the last update
        self.unread: list[Path] = []
        self.fits_task: Callable[[str], bool] = bool
        self._use(open_at(self.file))
        self._blank = dict.fromkeys(view(self.layout, "a/0", {}, None, [], {}))

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def _use(self, database: sqlite3.Connection) -> None:
        """Go on with this database, where ``fits_task`` is a function of SQL's."""
        self.database = database
        database.create_function("fits_task", 1, lambda task: self.fits_task(task))

    def update(self) -> None:
        """Read what has changed since the last time.

        :raises WorkspaceError: the workspace cannot be read
        """
        try:
            self._update()
        except sqlite3.DatabaseError as error:
            self._start_again(error)

    def _start_again(self, error: sqlite3.DatabaseError | ValueError) -> None:
        """Go on with a new database if this one is damaged; in memory if it cannot be read or written, or for long."""
        self.database.close()
        if not isinstance(error, sqlite3.OperationalError):
            remove(self.file)
            self._use(open_at(self.file))
            with contextlib.suppress(sqlite3.DatabaseError):
                self._update()
                return
            self.database.close()
        self._use(connect(":memory:"))
        self._update()

    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self.database.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            self._start_again(error)
            return self.database.execute(statement, values).fetchall()

    def _understood(self, read: Callable[[], _Found]) -> _Found:
        """What ``read`` makes of rows; of those of a new database if it finds one that it does not understand."""
        try:
            return read()
        except ValueError as error:
            self._start_again(error)
            return read()

    def _update(self) -> None:
        now = time.time_ns()
        known = dict(self.database.execute("SELECT id, changed FROM jobs"))
        fresh = _changes(self.root, known)
        seen = {job: said for job, *said in self.database.execute("SELECT id, record, said FROM seen")}
        for start in range(0, len(fresh), _BATCH):
            rows = [self._row(job, changed, now, seen) for job, changed in fresh[start : start + _BATCH]]
            with self.database:  # what is read above takes no lock
                self.database.executemany("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        gone = [(job,) for job in known]  # those that are left
        if gone:
            with self.database:
                self.database.executemany("DELETE FROM jobs WHERE id = ?", gone)
        over = [(job,) for job in seen.keys() & {job for job, _ in fresh} if not seen[job]] + gone
        if over:
            with self.database:
                self.database.executemany("DELETE FROM seen WHERE id = ?", over)
        experiments = dict(self.database.execute("SELECT name, changed FROM experiments"))
        found = _experiments(self.root)
        for name in experiments.keys() | found.keys():
            if name not in found or experiments.get(name) != found[name][1]:
                with self.database:
                    path, changed = found.get(name, (None, 0))
                    self._take_experiment(name, path, _trusted(changed, now))
        taken = {name for (name,) in self.database.execute("SELECT name FROM experiments")}
        self.unread = [path for name, (path, _) in sorted(found.items()) if name not in taken]

    def _row(self, job: str, changed: int, now: int, seen: dict[str, Any]) -> tuple[Any, ...]:
        record = self.layout.record(job)
        if not record:
            return job, _trusted(changed, now), None, None, None, 0.0, None
        one = view(self.layout, job, record, self.layout.marker(job), [], record.get("tags") or {})
        submitted = one["submitted"] or 0.0
        if job in seen:
            record_then, said = seen[job]
            seen[job] = None  # of an earlier submission, or of a job that has ended, or damaged
            if one["state"] not in FINAL and record_then == _submission(record):
                with contextlib.suppress(ValueError, TypeError):
                    seen[job] = _loaded(said, dict)
                    one.update(seen[job])
        kept = {name: value for name, value in one.items() if value is not None and name not in _NOT_KEPT}
        text = json.dumps(kept)
        return job, _trusted(changed, now), one["task"], one["state"], one["launcher"], submitted, text

    def note(self, views: Iterable[View]) -> None:
        """Keep what a cluster has just said of jobs, for as long as they are not submitted anew and have not ended."""
        with contextlib.suppress(sqlite3.DatabaseError):  # it is forgotten
            known = {job: tuple(said) for job, *said in self.database.execute("SELECT id, record, said FROM seen")}
            ended, news = [], []
            for one in views:
                job = one["id"]
                said = _submission(self.layout.record(job)), json.dumps({name: one[name] for name in _SAID})
                if one["state"] in FINAL:
                    ended += [(job,)] if job in known else []
                elif known.get(job) != said:
                    news.append((job, *said))
            if not (ended or news):
                return
            with self.database:
                self.database.executemany("DELETE FROM seen WHERE id = ?", ended)
                self.database.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", news)
                again = [(job,) for job, *_ in [*ended, *news]]
                self.database.executemany("UPDATE jobs SET changed = 0 WHERE id = ?", again)

    def _take_experiment(self, name: str, path: Path | None, changed: int) -> None:
        self.database.execute("DELETE FROM experiments WHERE name = ?", (name,))
        self.database.execute("DELETE FROM members WHERE experiment = ?", (name,))
        record = read_experiment(path) if path else None
        if record is None:
            return
        row = (name, changed, record.updated, record.script, json.dumps(record.latest))
        self.database.execute("INSERT INTO experiments VALUES (?, ?, ?, ?, ?)", row)
        latest = set(record.latest)
        members = [(name, job, json.dumps(of.get("tags") or {}), job in latest) for job, of in record.jobs.items()]
        self.database.executemany("INSERT INTO members VALUES (?, ?, ?, ?)", members)

    def views(self, query: Query = ALL) -> list[View]:
        """The jobs that fit, the latest submitted last."""
        return self._understood(lambda: self._views(query))

    def _views(self, query: Query) -> list[View]:
        conditions, values = conditions_of(query)
        if query.fits_task is not None:
            self.fits_task = cache(query.fits_task)  # asked once for each task
        select = f"SELECT id, view, submitted FROM jobs WHERE state IS NOT NULL{''.join(conditions)}"
        if query.most is None:
            rows = self._read(f"{select} ORDER BY submitted, id", values)
        else:
            latest = f"{select} AND state IN {FINAL} ORDER BY submitted DESC, id DESC LIMIT ?"
            rows = self._read(latest, [*values, query.most])
            rows += self._read(f"{select} AND state NOT IN {FINAL}", values)
            rows.sort(key=lambda row: (row[2], row[0]))
        return self._made([(job, text) for job, text, _ in rows])

    def views_of(self, jobs: Sequence[str]) -> list[View]:
        """These jobs, as far as they are there."""
        return self._understood(lambda: self._views_of(jobs))

    def _views_of(self, jobs: Sequence[str]) -> list[View]:
        rows: list[Any] = []
        for start in range(0, len(jobs), _CHUNK):
            some = jobs[start : start + _CHUNK]
            rows += self._read(f"SELECT id, view FROM jobs WHERE state IS NOT NULL AND id IN ({marks(some)})", some)
        return self._made(rows)

    def _made(self, rows: Sequence[tuple[str, str]]) -> list[View]:
        named = self._members([job for job, _ in rows])
        found = []
        for job, text in rows:
            task, _, identifier = job.partition("/")
            one: View = {**self._blank, **_loaded(text, dict)}
            of = named.get(job, ())
            one.update(id=job, task=task, identifier=identifier, path=f"{self.root}/jobs/{job}")
            one["experiments"] = [name for name, _ in of]
            if of:
                one["tags"] = _loaded(of[0][1], dict)
            found.append(one)
        return found

    def _members(self, jobs: list[str]) -> dict[str, list[tuple[str, str]]]:
        """By job, the experiments that have it, the latest first, and its tags there."""
        order = {name: number for number, name in enumerate(self._by_age())}
        select = "SELECT job, experiment, tags FROM members"
        if len(jobs) > 10 * _CHUNK:  # most of them, so all
            rows = self._read(select)
        else:
            rows = []
            for start in range(0, len(jobs), _CHUNK):
                some = jobs[start : start + _CHUNK]
                rows += self._read(f"{select} WHERE job IN ({marks(some)})", some)
        found: dict[str, list[tuple[str, str]]] = {}
        for job, name, tags in rows:
            found.setdefault(job, []).append((name, tags))
        for of in found.values():
            if len(of) > 1:
                of.sort(key=lambda pair: order[pair[0]])
        return found

    def _by_age(self) -> list[str]:
        return [name for (name,) in self._read("SELECT name FROM experiments ORDER BY updated DESC")]

    def count(self) -> int:
        """How many jobs there are."""
        return int(self._read("SELECT count(*) FROM jobs WHERE state IS NOT NULL")[0][0])

    def states_of(self, experiment: str) -> dict[str, int]:
        """How many jobs of an experiment are in which state, as last seen: those of its latest run, and earlier ones
        that have not ended."""
        return dict(
            self._read(
                "SELECT state, count(*) FROM jobs JOIN members ON id = job"
                f" WHERE experiment = ? AND state IS NOT NULL AND (is_latest OR state NOT IN {FINAL}) GROUP BY state",
                (experiment,),
            )
        )

    def latest_experiment(self) -> str:
        """The name of the experiment that was run last; "" without any."""
        return next(iter(self._by_age()), "")

    def experiments(self) -> list[dict[str, Any]]:
        """The experiments, the latest first: ``name``, ``updated`` (seconds since 1970), ``script``, ``latest``."""
        return self._understood(self._read_experiments)

    def _read_experiments(self) -> list[dict[str, Any]]:
        rows = self._read("SELECT name, updated, script, latest FROM experiments ORDER BY updated DESC")
        return [
            {"name": name, "updated": updated, "script": script, "latest": _loaded(latest, list)}
            for name, updated, script, latest in rows
        ]

    def beginnings(self, text: str, most: int = 200) -> list[str]:
        """Ids of jobs that begin with ``text``, as last seen: for completion, which must be quick."""
        rows = self._read(
            "SELECT id FROM jobs WHERE state IS NOT NULL AND (id LIKE ? ESCAPE '\\' OR id LIKE ? ESCAPE '\\')"
            " ORDER BY submitted DESC, id DESC LIMIT ?",
            (f"{literal(text)}%", f"%/{literal(text)}%", most),
        )
        return [job for (job,) in rows]


def _submission(record: Mapping[str, Any]) -> str:
    """What a job's record says of its submission: another one is another text."""
    return json.dumps([record.get(name) for name in ("created", "batch", "native_id", "attempt")])


def _loaded(text: str | bytes, kind: type[_Found]) -> _Found:
    """What is kept as JSON.

    :raises ValueError: it is none, or of another kind
    """
    found = json.loads(text)
    if not isinstance(found, kind):
        raise ValueError(f"{found!r} is no {kind.__name__}")
    return found


def _changes(root: Path, known: dict[str, int]) -> list[tuple[str, int]]:
    """The jobs whose directories changed, and when (nanoseconds); what is there is taken out of ``known``.

    :raises WorkspaceError: the workspace cannot be read
    """
    found = []
    try:
        for task in _entries(root / "jobs"):
            prefix = f"{task.name}/"
            for entry in _entries(task.path):
                job = prefix + entry.name
                try:
                    changed = entry.stat().st_mtime_ns
                except FileNotFoundError:
                    continue
                if known.get(job) == changed:
                    del known[job]
                elif is_job_id(job) and _is_text(job) and entry.is_dir():
                    known.pop(job, None)
                    found.append((job, changed))
    except OSError as error:
        raise WorkspaceError(f"the workspace cannot be read: {error.strerror}", where=str(error.filename)) from error
    return found


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """What a folder holds; nothing if it is none, or has gone."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from entries


def _is_text(name: str) -> bool:
    """Whether a name is Unicode: other folders are none of ours."""
    return name.isascii() or not any("\ud800" <= one <= "\udfff" for one in name)


def _experiments(root: Path) -> dict[str, tuple[Path, int]]:
    """The files of the experiments, and when they changed."""
    found = {}
    for path in (root / "experiments").glob("*/experiment.json"):
        with contextlib.suppress(OSError):
            if _is_text(path.parent.name):
                found[path.parent.name] = path, path.stat().st_mtime_ns
    return found


def _trusted(changed: int, now: int) -> int:
    """A time to compare with the next one; that of a late change equals no other, so that it is read again."""
    return changed if changed < now - _LATELY else -changed
