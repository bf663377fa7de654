"""Files between the laptop and the cluster. In: a session, what is to go up or to come down. Out: the same files there.

Everything goes in one stream and one request in each direction. In the laptop's workspace a file appears by rename,
and the marker of a job last, so that a job that looks done is all there. What a lost connection has cut goes on where
it stopped: file by file, and inside a large file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..agent.adopt import make_directory
from ..agent.files import Manifest, manifest, with_hashes
from ..agent.pack import Packer, Stream
from ..agent.unpack import Parts, unpack
from ..errors import WorkspaceError
from ..runtime.files import write_bytes, write_json
from .bars import shown
from .session import Session
from .snapshot import Snapshot, source


def pack(files: Mapping[str, str], snapshot: Snapshot | None) -> tuple[Stream, int]:
    """What a submission sends.

    :param files: text by name; scripts are made executable
    :param snapshot: the code, if the other side lacks it
    :returns: a tar stream, and its size for the request; reading it raises WorkspaceError if a file of the project has
        vanished or cannot be read
    """
    packer = Packer(strict=True)
    for name, text in files.items():
        mode = 0o755 if name.endswith(".sh") else 0o644
        packer.add_bytes(name, text.encode("utf-8", "surrogateescape"), mode)
    if snapshot is not None:
        add_code(packer, snapshot)
    return packer.finish()


def add_code(packer: Packer, snapshot: Snapshot) -> None:
    """Pack a code snapshot."""
    for name in snapshot.files:
        packer.add_file(f"code/{name}", source(snapshot.root, name))


def write_here(session: Session, files: Mapping[str, str]) -> None:
    """Put the files of jobs into the laptop's workspace as well."""
    for name, text in files.items():
        path = session.layout.root / name
        make_directory(path.parent)
        write_bytes(str(path), text.encode("utf-8", "surrogateescape"))


def pull(
    session: Session,
    jobs: Iterable[str],
    patterns: Sequence[str] | None = None,
    label: str = "",
    names: list[str] | None = None,
) -> int:
    """Bring back what is new of these jobs: records and logs always, and what the launcher or ``patterns`` say.

    :param patterns: take these instead of the launcher's, whatever their size
    :param label: what a progress bar says; none without
    :param names: gets the names of the files that came, below the workspace
    :returns: the number of files
    :raises WorkspaceError: they cannot be written here; or one that was asked for did not come, and all others did
    :raises ConnectionFailed: the connection was lost; what has come stays, and the next call goes on from there
    """
    if session.is_here:
        return 0
    mirror = session.launcher.mirror
    root = session.layout.root
    taken = [] if names is None else names
    before = len(taken)
    problems: dict[str, str] = {}

    def take(stream: Any) -> None:
        try:
            with shown(label) as progress:
                taken.extend(unpack(stream, root, parts, progress, problems, only=have))
        except OSError as error:
            what = f"the files of jobs cannot be written on this machine: {error.strerror or error}"
            raise WorkspaceError(what, where=str(error.filename or root)) from error

    jobs = lacking(session, jobs) if patterns is None else list(jobs)
    if not jobs:
        return 0
    session.client.begin()  # goes on while we look at what is here
    with Parts() as parts:
        have = {job: _manifest(session, job, parts) for job in jobs}
        session.client.receive(
            "fetch",
            take,
            jobs=have,
            patterns=list(mirror.pull if patterns is None else patterns),
            max_size=mirror.max_pull if patterns is None else 1 << 62,
            parts=parts.known(),
        )
        parts.clear(all_=patterns is not None and "**" in patterns)
    if patterns is None and not problems:
        _note_here(session, have)
    _tell(problems, must_come=patterns is not None)
    return len(taken) - before


def _manifest(session: Session, job: str, parts: Parts) -> Manifest:
    directory = session.layout.job(job)
    found = manifest(directory, parts.take)
    return found if session.layout.marker(job) else with_hashes(directory, found)  # logs grow until there is a marker


def lacking(session: Session, jobs: Iterable[str]) -> list[str]:
    """The jobs whose files have not come yet, as far as they come by themselves."""
    since = _settings_since(session)
    return [job for job in jobs if not _is_here(session, job, since)]


def _is_here(session: Session, job: str, since: float) -> bool:
    """Whether a job's files have come: its marker, which comes last, did so since the settings are what they are."""
    try:
        return Path(f"{session.layout.stem(job)}.done").stat().st_ctime > since
    except OSError:
        return False


def _note_here(session: Session, jobs: Iterable[str]) -> None:
    """Note that all is here of these jobs: a marker that was here before looks as if it had come now."""
    for job in jobs:
        path = f"{session.layout.stem(job)}.done"
        with contextlib.suppress(OSError):
            status = Path(path).stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _settings_since(session: Session) -> float:
    """Since when what comes back of this launcher's jobs by itself is what it is; seconds since 1970."""
    launcher, mirror = session.launcher, session.launcher.mirror
    digest = hashlib.sha256(launcher.name.encode()).hexdigest()[:16]
    path = session.layout.internal / "mirror" / f"{digest}.json"
    settings = {
        "host": launcher.connector.host,
        "workdir": launcher.workdir,
        "pull": list(mirror.pull),
        "max_pull": mirror.max_pull,
    }
    try:
        if json.loads(path.read_bytes()) == settings:
            return path.stat().st_ctime
    except (OSError, ValueError):
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(str(path), settings)
    return path.stat().st_ctime


def _tell(problems: Mapping[str, str], must_come: bool) -> None:
    if not problems:
        return
    listed = "\n".join(f"{name}: {words}" for name, words in list(problems.items())[:10])
    if must_come:
        raise WorkspaceError(f"{len(problems)} file(s) did not come; the others did", hint=listed)
    print(f"warning: {len(problems)} file(s) of jobs did not come:\n{listed}", file=sys.stderr)
