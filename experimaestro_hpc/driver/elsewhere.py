"""Jobs that another launcher has. In: new jobs, and the workspace. Out: those of them that stay with that launcher.

A workspace may be used with one launcher today and with another tomorrow. What the first one has in its queue, or has
done without this machine having heard of it, must not run a second time at the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote

from ..agent.layout import Layout
from ..agent.submit import SETTLED
from ..errors import ConnectionFailed, XpmError
from ..workspace.jobs import FINAL
from ..workspace.words import count_of
from .jobs import Job, place_of
from .launcher import Launcher
from .launchers import launcher_named
from .session import Session


def staying(
    layout: Layout, jobs: Mapping[str, Job], session_with: Callable[[Launcher], Session]
) -> dict[str, Launcher]:
    """The jobs that another launcher has under way or has done, and that launcher; each of these is asked once.

    Jobs whose end is known here are not asked about.

    :param jobs: the new jobs, by id
    :param session_with: opens a session
    :raises ConnectionFailed: a launcher cannot be asked: silence is no reason to run anything again
    """
    sent: dict[str, list[str]] = {}
    for id_, job in jobs.items():
        if any(Path(f"{layout.stem(id_)}.{ending}").exists() for ending in FINAL):
            continue
        place = str(layout.record(id_).get("launcher") or "")
        if place and place != place_of(job.launcher):
            sent.setdefault(place, []).append(id_)
    found: dict[str, Launcher] = {}
    for place, mine in sent.items():
        try:
            launcher = launcher_named(place)
            states = session_with(launcher).client.call("survey", jobs=mine)["states"]
        except XpmError as error:
            raise ConnectionFailed(
                f"{count_of(mine)} went to {place} earlier, which cannot be asked what became of them: {error.what}",
                where=error.where,
                hint="run this again when it can be, so that nothing runs twice. If it never can, forget what it has:\n"
                f"xpm-hpc jobs clean --here --launcher {quote(place)} --state waiting --state queued --state running"
                f" --workdir {quote(str(layout.root))}",
            ) from error
        # one with a detail and no state was sent, and nobody knows yet whether it arrived
        found.update({id_: launcher for id_ in mine if states[id_]["state"] in SETTLED or "detail" in states[id_]})
    return found
