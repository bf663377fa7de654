"""Look at jobs again, after the experiment's process has gone. In: jobs as last seen. Out: jobs as they are now.

Jobs that have ended are not asked about. The others are, with one connection for each launcher, and the files of those
that have ended meanwhile come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import XpmError
from ..runtime.files import write_json
from ..workspace.index import Index
from ..workspace.jobs import FINAL, View, by_launcher, update

if TYPE_CHECKING:
    from .session import Session


@contextmanager
def session_of(root: Path, launcher: str) -> Iterator[Session]:
    """A session with the launcher that a job was submitted to.

    :raises XpmError: there is no such launcher any more, or the cluster cannot be reached
    """
    from .launchers import launcher_named  # what talks to clusters: most lists have no job that must be asked about
    from .session import Session

    session = Session(launcher_named(launcher), root)
    try:
        yield session
    finally:
        session.close()


class Refresher:
    """Brings views up to date, with one connection for each launcher for as long as it lives.

    :param root: the workspace on this machine
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open = ExitStack()
        self.sessions: dict[str, Session] = {}

    def __enter__(self) -> Refresher:
        return self

    def __exit__(self, *_error: object) -> None:
        self.open.close()

    def session(self, launcher: str) -> Session:
        """The session with a launcher, opened when it is first wanted.

        :raises XpmError: there is no such launcher any more
        """
        if launcher not in self.sessions:
            self.sessions[launcher] = self.open.enter_context(session_of(self.root, launcher))
        return self.sessions[launcher]

    def refresh(self, views: Iterable[View]) -> list[XpmError]:
        """Bring ``views`` up to date in place.

        :returns: what went wrong; the jobs of a launcher that cannot be asked stay as they were last seen
        """
        problems = []
        for launcher, mine in by_launcher(one for one in views if one["state"] not in FINAL).items():
            try:
                look(self.session(launcher), mine)
            except XpmError as error:
                problems.append(error)
        return problems


def refresh(root: Path, views: Iterable[View]) -> list[XpmError]:
    """Bring ``views`` up to date in place, once; see :meth:`Refresher.refresh`."""
    with Refresher(root) as refresher:
        return refresher.refresh(views)


def forget_ends(session: Session, jobs: Iterable[str]) -> None:
    """Remove what earlier attempts of jobs that are submitted again have left on this machine."""
    from ..agent.submit import ENDED  # see session_of

    if session.is_here:
        return
    for job in jobs:
        for ending in (*FINAL, "out", "err"):  # the logs of earlier attempts come back under names of their own
            Path(f"{session.layout.stem(job)}.{ending}").unlink(missing_ok=True)
        (session.layout.job(job) / "progress.json").unlink(missing_ok=True)
        record = session.layout.record(job)
        if not record.keys().isdisjoint(ENDED):
            without = {key: value for key, value in record.items() if key not in ENDED}
            write_json(str(session.layout.job(job) / "job.json"), without)


def look(session: Session, views: list[View]) -> None:
    """Ask one launcher about jobs, and bring back the files of those that have ended.

    What it says of the others is what is shown of them later when nobody asks.

    :raises XpmError: the cluster cannot be reached
    """
    from .mirror import pull  # see session_of

    seen = {one["id"]: {"native_id": one["native_id"]} for one in views if one["native_id"]}
    answer = session.client.call("watch", jobs=[one["id"] for one in views], seen=seen, seconds=0.0)
    for one in views:
        update(one, answer["states"].get(one["id"], {}))
    if not session.is_here:  # where what the job itself writes is at hand
        index = Index(session.layout.root)
        index.note(views)
        index.close()
    pull(session, [one["id"] for one in views if one["state"] in FINAL])
