"""Results that are needed where they were not made. In: jobs that are done elsewhere. Out: their files, where they are
needed.

First to this machine, whole, and from here to the cluster: two clusters need not know each other.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from ..agent.files import Packer, walk_files
from .bars import shown
from .mirror import pull
from .session import Session


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
    packer = Packer(compress=not session.is_here)
    for job in jobs:
        directory = session.layout.job(job)
        for path in walk_files(directory):
            packer.add_file(f"jobs/{job}/{path.relative_to(directory).as_posix()}", path)
    body, size = packer.finish()
    with body, shown(body, size, f"sending {len(jobs)} results to {session.place}") as stream:
        answer = session.client.call("place", token=secrets.token_hex(6), jobs=jobs, body=stream, size=size)
    done: list[str] = answer["done"]
    return done
