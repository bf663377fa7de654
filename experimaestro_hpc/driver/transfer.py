"""Results, and code, that are needed where they were not made. In: jobs done elsewhere. Out: their files there.

First to this machine, whole, and from here to the cluster: two clusters need not know each other. A large upload asks
first what has come of it before, so that one that was cut goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..agent.files import as_sent, is_known, walk
from ..agent.pack import Packer
from ..errors import WorkspaceError
from .bars import shown
from .mirror import pull
from .session import Session
from .snapshot import Snapshot, source

#: bytes from which on an upload asks first what is there of it
LARGE = 8 << 20


def fetch_whole(session: Session, jobs: Iterable[str]) -> None:
    """Bring all files of these jobs to this machine.

    :param session: where they ran
    :raises XpmError: the cluster cannot be reached
    """
    pull(session, jobs, ["**"], label="fetching results")


def send_up(session: Session, jobs: list[str]) -> list[str]:
    """Send the directories of jobs that are done, as they are on this machine; returns those that are done there now.

    :raises XpmError: the cluster cannot be reached, or its disk is full
    """
    files: list[tuple[str, str, os.stat_result]] = []
    for job in jobs:
        directory = str(session.layout.job(job))
        for name, status in walk(directory):
            if status is None:
                raise WorkspaceError("a folder cannot be read", where=f"{directory}/{name}")
            sent = (directory, status) if name.endswith("/") else as_sent(directory, name, status)
            if sent is not None:
                files.append((f"jobs/{job}/{name}", *sent))
    answer = _send(session, files, f"sending {len(jobs)} results to {session.place}", "place", jobs=jobs)
    done: list[str] = answer["done"]
    return done


def send_code(session: Session, snapshot: Snapshot) -> bool:
    """Send a code snapshot by itself if it is large, and say so; a small one travels with the submission.

    :raises WorkspaceError: a file of it has vanished, or cannot be read
    :raises XpmError: the cluster cannot be reached, or its disk is full
    """
    try:
        paths = {name: source(snapshot.root, name) for name in snapshot.files}
        files = [(f"code/{name}", str(path), path.lstat()) for name, path in paths.items()]
    except OSError as error:
        what = f"a file of the project cannot be sent: {error.strerror or error}"
        raise WorkspaceError(what, where=str(error.filename or snapshot.root)) from error
    if sum(status.st_size for *_, status in files) < LARGE:
        return False
    _send(session, files, f"sending the code to {session.place}", "take_code", code=snapshot.digest)
    return True


def _send(
    session: Session, files: Sequence[tuple[str, str, os.stat_result]], label: str, operation: str, **arguments: Any
) -> Any:
    """Send files with a request, without those that are there since an earlier attempt."""
    token = secrets.token_hex(12)
    have: Mapping[str, Sequence[int]] = {}
    parts: Mapping[str, Sequence[Any]] = {}
    if sum(status.st_size for *_, status in files) >= LARGE:
        text = repr((str(session.layout.root), os.uname().nodename, operation, sorted(arguments.items())))
        known = session.client.call("prepare", token=hashlib.sha256(text.encode()).hexdigest()[:24])
        token, have, parts = known["token"], known["have"], known["parts"]
    packer = Packer(parts, strict=True)
    for name, path, status in files:
        if name.endswith("/"):
            packer.add_folder(name.rstrip("/"))
        elif not is_known(status, have.get(name)):
            packer.add_file(name, path, status.st_size)
    with shown(label) as progress:
        body, size = packer.finish(progress)
        with body:
            return session.client.call(operation, token=token, body=body, size=size, **arguments)
