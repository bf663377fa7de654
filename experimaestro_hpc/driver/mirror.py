"""Files between the laptop and the cluster. In: a session, what is to go up or to come down. Out: the same files there.

Everything goes in one stream and one request in each direction. In the laptop's workspace a file appears by rename,
and the marker of a job last, so that a job that looks done is all there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..agent.files import Packer, manifest, unpack
from ..errors import WorkspaceError
from .bars import shown
from .session import Session
from .snapshot import Snapshot, source


def pack(files: Mapping[str, str], snapshot: Snapshot | None, compress: bool) -> tuple[IO[bytes], int]:
    """What a submission sends.

    :param files: text by name; scripts are made executable
    :param snapshot: the code, if the other side lacks it
    :param compress: whether it goes over a network
    :returns: a tar stream, and its size in bytes
    :raises OSError: a file of the project has vanished or cannot be read
    """
    packer = Packer(compress)
    for name, text in files.items():
        mode = 0o755 if name.endswith(".sh") else 0o644
        packer.add_bytes(name, text.encode("utf-8", "surrogateescape"), mode)
    if snapshot is not None:
        for name in snapshot.files:
            packer.add_file(f"code/{name}", source(snapshot.root, name))
    return packer.finish()


def write_here(session: Session, files: Mapping[str, str]) -> None:
    """Put the files of jobs into the laptop's workspace as well."""
    for name, text in files.items():
        path = session.layout.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
        temporary.replace(path)  # by rename: whoever lists jobs sees that something has changed


def pull(session: Session, jobs: Iterable[str], patterns: Sequence[str] | None = None, label: str = "") -> int:
    """Bring back what is new of these jobs: records and logs always, and what the launcher or ``patterns`` say.

    :param patterns: take these instead of the launcher's, whatever their size
    :param label: what a progress bar says; none without
    :returns: the number of files
    """
    if session.is_here:
        return 0
    mirror = session.launcher.mirror
    have = {job: _known(session.layout.job(job)) for job in jobs}
    if not have:
        return 0
    taken: list[str] = []

    def take(stream: Any) -> None:
        try:
            with shown(stream, stream.left, label) as watched:
                taken.extend(unpack(watched, session.layout.root))
        except OSError as error:
            what = f"the files of jobs cannot be written on this machine: {error.strerror or error}"
            raise WorkspaceError(what, where=str(error.filename or session.layout.root)) from error

    session.client.receive(
        "fetch",
        take,
        jobs=have,
        patterns=list(mirror.pull if patterns is None else patterns),
        max_size=mirror.max_pull if patterns is None else 1 << 62,
    )
    return len(taken)


def _known(directory: Path) -> dict[str, list[Any]]:
    return manifest(directory) if directory.is_dir() else {}
