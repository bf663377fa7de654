"""Whether a launcher can be used. In: a launcher. Out: steps, one after the other, each with its time.

A step that fails says what to do; those that need it are not taken.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import XpmError
from ..resources import Resources
from .fit import choose_partition, request_for
from .launcher import Launcher
from .launchers import template_folders
from .script import ScriptJob, Scripts
from .session import Session
from .toml_table import did_you_mean

#: seconds that clocks may differ before it is worth a word
SKEW = 5.0
#: seconds to wait for the job of ``--job``; the queue of a busy cluster is long
JOB_PATIENCE = 600.0


#: what the tiny job runs: in any Python, since it is to say which one there is
REPORT = """\
import json, os, sys
seen = {"host": os.uname()[1], "python": "%d.%d.%d" % tuple(sys.version_info[:3]), "executable": sys.executable}
seen["new_enough"] = sys.version_info >= (3, 9)
with open("seen.tmp", "w") as file:
    json.dump(seen, file)
os.rename("seen.tmp", "seen.json")
"""


class Step(NamedTuple):
    """What a step found.

    :ivar seconds: how long it took
    """

    step: str
    ok: bool
    words: str
    seconds: float


def check(launcher: Launcher, root: Path, with_job: bool = False) -> Iterator[Step]:
    """Take the steps.

    :param root: a workspace on this machine
    :param with_job: also run a tiny job, to see the workdir and Python from a node
    """
    session = Session(launcher, root)
    try:
        if launcher.connector.host:
            yield _name(launcher.connector.host)
        began = time.monotonic()
        try:
            hello = session.client.hello()
        except XpmError as error:
            yield Step("connection", False, str(error), time.monotonic() - began)
            return
        took = time.monotonic() - began
        yield Step("connection and agent", True, f"{session.place}: agent on {hello['host']}", took)
        yield _clock(session)
        python = "" if launcher.environment.setup or launcher.environment.manager else launcher.python
        good = True
        for one in session.client.call("check", python=python):
            known = one.pop("partitions", None)
            steps = [Step(**one), *(_partitions(launcher, known) if known else ())]
            good = good and all(step.ok for step in steps)
            yield from steps
        if with_job and good:
            yield from _job(session, launcher)
    finally:
        session.close()


def _name(host: str) -> Step:
    """Look the host up, unless another one does: behind a jump host only that one may know it."""
    from fabric import Config  # takes a fifth of a second to load

    began = time.monotonic()
    name = host.rpartition("@")[2]
    if host.startswith("ssh://"):
        name = name.removeprefix("ssh://").partition(":")[0]
    options = Config().base_ssh_config.lookup(name)
    name = options.get("hostname", name)
    if options.get("proxyjump", "none") != "none" or "proxycommand" in options:
        way = options.get("proxyjump") or options["proxycommand"]
        return Step("name", True, f"{name}, reached through {way}", time.monotonic() - began)
    try:
        address = socket.getaddrinfo(name, None)[0][4][0]
    except OSError as error:
        words = f"{name} is not known: {error.strerror}; check `host` in the launcher file, and ~/.ssh/config"
        return Step("name", False, words, time.monotonic() - began)
    return Step("name", True, f"{name} is {address}", time.monotonic() - began)


def _clock(session: Session) -> Step:
    before = time.time()
    there = session.client.call("clock")
    after = time.time()
    skew = there - (before + after) / 2
    words = f"{abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}, round trip {(after - before) * 1000:.0f} ms"
    if abs(skew) > SKEW:
        words += ": times in listings are wrong by that much; nothing else depends on it"
    return Step("clock", True, words, after - before)


def _partitions(launcher: Launcher, known: Sequence[str]) -> Iterator[Step]:
    """Whether there are the partitions that the launcher file names, if it names any."""
    named: dict[str, None] = {}
    for partition in (None, *launcher.partitions):
        given = request_for(launcher, "", Resources(), partition).merged().get("partition")
        if isinstance(given, str):
            named.update(dict.fromkeys(one.strip() for one in given.split(",")))
    wrong = [f"there is no partition {one!r}{did_you_mean(one, known)}" for one in named if one not in known]
    if named:
        yield Step("partitions", not wrong, "\n".join(wrong) or f"{', '.join(named)}: known there", 0.0)


def _job(session: Session, launcher: Launcher) -> Iterator[Step]:
    began = time.monotonic()
    if launcher.mirror.nodes == "staged":
        words = "not taken: with nodes = 'staged' the nodes do not see the workdir; the first task will tell"
        yield Step("job", True, words, 0.0)
        return
    try:
        native = session.client.call("check_job_start", script=check_script(launcher), report=REPORT)["native_id"]
    except XpmError as error:
        yield Step("job", False, str(error), time.monotonic() - began)
        return
    yield Step("job submitted", True, f"as {native}", time.monotonic() - began)
    try:
        while True:
            known = session.client.call("check_job_look", seconds=10.0)
            waited = time.monotonic() - began
            if known["seen"] is not None:
                seen = known["seen"]
                words = f"{seen['host']} sees the workdir; Python {seen['python']} ({seen['executable']})"
                if launcher.environment.manager:
                    words += f", and not that of the environment, which {launcher.environment.manager} builds for tasks"
                yield Step("job", bool(seen["new_enough"]), words, waited)
                return
            if known["state"] == "ended":
                words = f"it ended and left nothing in the workdir: {known['detail'] or 'is it shared with the nodes?'}"
                yield Step("job", False, words, waited)
                return
            if waited > JOB_PATIENCE:
                words = f"it is {known['state']} ({known['detail']}) after {waited:.0f} s, and is given up"
                yield Step("job", False, words, waited)
                return
    finally:
        session.client.call("check_job_end")


def check_script(launcher: Launcher) -> str:
    """The script of the tiny job: what any task's would be, with :data:`REPORT` in place of the task."""
    choice, partition = choose_partition(launcher, Resources())
    job = ScriptJob(
        scheduler=launcher.scheduler,
        template=launcher.template,
        request=replace(request_for(launcher, "xpm-hpc-check", choice, partition), log="check.err"),
        name="check",
        python="python3" if launcher.environment.manager else launcher.python,  # nothing is built for a check
        lib=".",
        setup=launcher.environment.setup,
        env=launcher.environment.env,
    )
    return Scripts(template_folders()).render(job)
