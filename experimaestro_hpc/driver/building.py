"""Build an environment on the login node. In: a session and a recipe. Out: the environment there, and lines for people.

The build is the agent's child and goes on without the driver: one request starts it, others ask how it is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import BuildFailed, ConnectionFailed
from .mirror import pack
from .recipe import Recipe
from .session import Session

#: seconds that the agent waits for news of a build before it answers
PATIENCE = 5.0
#: seconds between two lines about a build
TALK = 5.0
#: lines of the build's log that a failure shows
LAST_LINES = 20
#: seconds before the first try to connect again, and between tries at most
RECONNECT_FIRST, RECONNECT_MOST = 1.0, 60.0


def build(session: Session, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Have an environment built, and wait until it is.

    :param say: tells people how it goes
    :raises BuildFailed: it cannot be built; with the end of the build's log
    :raises XpmError: the cluster cannot be reached or used
    """
    say(f"  environment {recipe.title}: is built on {session.launcher.connector.host or 'this machine'}")
    began = told_at = time.monotonic()
    told = ""
    _start(session, recipe)
    size, lost = -1, 0
    while True:
        try:
            news = session.client.call("watch_build", digest=recipe.digest, seen=size, seconds=PATIENCE)
        except ConnectionFailed as error:  # the build does not mind
            if not lost:
                say(
                    f"  {error.where or 'the cluster'}: {error.what}; the build goes on, and so do the tries to connect"
                )
            time.sleep(min(RECONNECT_FIRST * 2 ** min(lost, 10), RECONNECT_MOST) * random.uniform(0.8, 1.2))
            lost += 1
            continue
        lost, size = 0, news["size"]
        now = time.monotonic()
        if news["state"] == "complete":
            say(f"  environment {recipe.title}: built in {now - began:.0f} s")
            return
        if news["state"] == "failed":
            raise _failure(session, recipe, news)
        line = next((one.strip() for one in reversed(news["lines"]) if one.strip()), "waiting for another builder")
        if now - told_at >= TALK and line != told:
            say(f"    {now - began:4.0f} s: {line[:160]}")
            told_at, told = now, line


def _start(session: Session, recipe: Recipe) -> None:
    body, size = pack(recipe.sent(), None)
    with body:
        session.client.call("build", digest=recipe.digest, body=body, size=size)


def _failure(session: Session, recipe: Recipe, news: dict[str, Any]) -> BuildFailed:
    lines = [f"| {line}" for line in news["lines"][-LAST_LINES:]] or ["it was ended before it printed anything"]
    host = session.launcher.connector.host
    return BuildFailed(
        f"the environment {recipe.title} could not be built; nothing was submitted",
        where=f"launcher {session.launcher.name}",
        hint="\n".join(
            [
                "the end of the build:",
                *lines,
                f"all of it: {recipe.folder}/build.log in the workspace" + (f" on {host}" if host else ""),
            ]
        ),
    )


def is_known(root: Path, recipe: Recipe, launcher: str) -> bool:
    """Whether this machine knows that an environment is there, as the last submission saw it."""
    return (root / recipe.folder / ".complete").exists() or _note(root, recipe, launcher).exists()


def note(root: Path, recipe: Recipe, launcher: str, is_there: bool) -> None:
    """Remember for a dry run whether an environment is there."""
    path = _note(root, recipe, launcher)
    if is_there:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    else:
        path.unlink(missing_ok=True)


def _note(root: Path, recipe: Recipe, launcher: str) -> Path:
    return root / recipe.folder / f"on-{launcher}"
