"""An index's file, a database of SQLite's. In: a workspace. Out: a connection to a whole one, whatever was there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: of the tables; an index of another version is made anew
_VERSION = 4
#: seconds to wait for another process that writes
_PATIENCE = 10.0
_TABLES = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, changed INTEGER, task TEXT, state TEXT, launcher TEXT, submitted REAL, view TEXT
);
CREATE INDEX jobs_seen ON jobs (id, changed);
CREATE INDEX jobs_by_state ON jobs (state, submitted);
CREATE INDEX jobs_by_time ON jobs (submitted, id);
CREATE TABLE experiments (name TEXT PRIMARY KEY, changed INTEGER, updated REAL, script TEXT, latest TEXT);
CREATE TABLE members (
    experiment TEXT, job TEXT, tags TEXT, is_latest INTEGER, PRIMARY KEY (experiment, job)
) WITHOUT ROWID;
CREATE INDEX members_by_job ON members (job, experiment, tags);
CREATE TABLE seen (id TEXT PRIMARY KEY, record TEXT, said TEXT);
"""


def file_of(root: Path, environ: Mapping[str, str]) -> Path:
    """Each machine has its own: several of them may share the user's home, and no memory."""
    cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = hashlib.sha256(os.fsencode(root.resolve()) + b"\0" + os.uname().nodename.encode()).hexdigest()[:20]
    return cache / "xpm-hpc" / "index" / f"{name}.sqlite"


def remove(path: Path) -> None:
    """Remove a database, its file first: what is beside it means nothing without."""
    for one in (path, *sorted(path.parent.glob(f"{path.name}-*"))):
        with contextlib.suppress(OSError):
            one.unlink()


def open_at(path: Path) -> sqlite3.Connection:
    """The database at ``path``, made anew if it is damaged or of another version; in memory if it cannot be there."""
    for _attempt in (1, 2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _try_locks(path.parent)
            return connect(str(path))
        except (OSError, sqlite3.OperationalError):
            break
        except sqlite3.DatabaseError:
            remove(path)
    return connect(":memory:")


def _try_locks(folder: Path) -> None:
    """
    :raises OSError: the file system has no locks; SQLite would take that for somebody else's lock, and wait
    """
    if fcntl is None:
        return
    with (folder / ".lock").open("ab") as file, contextlib.suppress(BlockingIOError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def connect(path: str) -> sqlite3.Connection:
    """A database with the tables, made if there is none.

    :param path: ``:memory:`` for none on the disk
    :raises sqlite3.DatabaseError: it is damaged, or of another version
    """
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
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        if not {"jobs", "experiments", "members", "seen"} <= tables:
            raise sqlite3.DatabaseError("not ours")
    except BaseException:
        database.close()
        raise
    return database
