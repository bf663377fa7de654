"""Look at a cluster and write its launcher file. In: a way to it. Out: what was found, step by step, and a text."""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..agent import temporary
from ..agent.look import COMMANDS
from ..errors import ConnectionFailed, LauncherError, XpmError
from ..schedulers.site import SchedulerFacts
from .found import Found, best_python, workdir_of
from .launcher import Connector, Launcher
from .session import Session

#: where the agent is shipped to for the time of the look; it removes the folder when it ends
_PLACE = "/tmp"
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

#: told of each step: what it was, what came of it, its seconds
Report = Callable[[str, str, float], None]


def parse_host(given: str) -> str:
    """The ``host`` of a launcher file from what people write: ``ssh://user@host``, ``user@host``, or a name that ssh
    knows. A port is kept, in the only form that both have: ``ssh://user@host:2222``.

    :raises LauncherError: it is none of these, or what ssh or a shell would take for something else

    >>> parse_host("ssh://me@cluster.org"), parse_host("ssh://me@cluster.org:2222/")
    ('me@cluster.org', 'ssh://me@cluster.org:2222')
    """
    hint = "write ssh://user@host, user@host, or a Host of ~/.ssh/config"
    scheme, _, rest = given.rpartition("://")
    user, at, place = rest.rpartition("@")
    host, colon, port = place.removesuffix("/").partition(":") if scheme else (place, "", "")
    bad = scheme not in ("", "ssh") or not _HOST.fullmatch(host) or (at and not _USER.fullmatch(user))
    if bad or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        if not scheme and re.fullmatch(r"[^:]*:\d+", place):
            hint = f"with a port: ssh://{rest}" if len(rest) < 80 else hint
        raise LauncherError(f"{given!r:.80} is not a host", hint=hint)
    where = f"{user}{at}{host}"
    return f"ssh://{where}:{port}" if colon and int(port) != 22 else where


def find(name: str, connector: Connector, workdir: str, scheduler: str, report: Report) -> Found:
    """Connect once and look.

    :param workdir: the one that was asked for; "" for the best place
    :param scheduler: look for this one only; "" for any
    :raises XpmError: the host cannot be reached, has no scheduler, or the workdir cannot be
    """
    place = f"{_PLACE}/{temporary.TEMPORARY}{secrets.token_hex(8)}"
    session = Session(Launcher(name, "local", place, connector), Path(tempfile.gettempdir()))
    try:
        return _look(session, workdir, scheduler, report)
    except ConnectionFailed as error:
        hint = error.hint.replace("`host` in the launcher file", "the name")  # there is none yet
        raise ConnectionFailed(error.what, where=error.where, hint=hint) from error
    finally:
        session.close()
        if connector.type == "local":
            temporary.end(place)


def _look(session: Session, workdir: str, scheduler: str, report: Report) -> Found:
    began = time.monotonic()

    def told(step: str, words: str) -> None:
        nonlocal began
        now = time.monotonic()
        report(step, words, now - began)
        began = now

    def asked(part: str, **arguments: Any) -> Any:
        return session.client.call("look", part=part, **arguments)

    hello = session.client.hello()
    host = str(hello["host"])
    told("connection", f"{host}, agent on Python {hello['python']}")
    facts: SchedulerFacts = asked("scheduler", name=scheduler)
    if not facts["name"]:
        raise _no_scheduler(host, facts, scheduler)
    if facts["notes"] and not facts["partitions"]:
        hint = "try again when it does; nothing was written"
        raise ConnectionFailed(f"{facts['name']} does not answer: {facts['notes'][0]}", where=f"host {host}", hint=hint)
    told("scheduler", _scheduler_words(facts))
    folders = asked("folders", wanted=workdir)
    found = Found(host, facts, folders, {"pythons": [], "tools": [], "has_modules": False, "modules": []}, workdir)
    there, folder = workdir_of(found)
    told("workdir", f"{there}, on {folder['kind'] or 'an unknown file system'}")
    found = Found(host, facts, folders, asked("software"), workdir)
    command, version = best_python(found.software)
    modules = ", with modules" if found.software["has_modules"] else ""
    told("software", (f"{command} is {version}" if command else "no Python 3.9 or newer on PATH") + modules)
    return found


def _scheduler_words(facts: SchedulerFacts) -> str:
    partitions = facts["partitions"]
    gpus = sorted({one["type"] or "GPUs" for part in partitions for kind in part["kinds"] for one in kind["gpus"]})
    words = [facts["version"] or facts["name"]]
    if partitions:
        noun = "queue" if facts["name"] == "oar" else "partition"
        words.append(f"{len(partitions)} {noun}{'' if len(partitions) == 1 else 's'}")
    return ", ".join([*words, *gpus])


def _no_scheduler(host: str, facts: SchedulerFacts, wanted: str) -> XpmError:
    what = f"no scheduler was found: there is no {COMMANDS.get(wanted, 'sbatch and no oarsub')} on PATH"
    path = facts["elsewhere"]
    if path:
        folder = path.rpartition("/")[0]
        hint = f"but there is {path}, which shells without a terminal do not find there. Put this at the top of the\n"
        hint += f"~/.bashrc on {host}, before it may end for such shells: export PATH={folder}:$PATH"
    else:
        hint = "is it a login node of the cluster?\nto run tasks on that host itself: --scheduler local"
    return XpmError(what, where=f"host {host}", hint=hint)
