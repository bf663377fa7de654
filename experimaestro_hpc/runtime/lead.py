"""A task of several processes: how the job's first process leads. In: how many, and on what. Out: the task's end.

This process owns the job's markers, lock and signals, and does not load the task. It writes what the others need to
find it, has them started (:mod:`.starters`), and waits for them (:mod:`.team`).
"""

from __future__ import annotations

import os
import re
import socket
import sys

from .deadline import output_of
from .files import read_json, write_json
from .starters import REMOTE, commands, find_hosts, gpus_of, node_script
from .task import Failure
from .team import Team
from .worker import plan_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def lead(directory: str, name: str, record: Mapping[str, Any], more: dict[str, Any]) -> int:
    """Execute a task in several processes; returns the exit status: 0, or it raises.

    :param name: stem of the log files
    :param more: gets ``hosts``, and of all processes together ``used`` and ``packages``
    :raises Failure: one of them has failed, or they cannot be started
    :raises GracefulTimeout: the task stopped, and goes on in a new start
    :raises Unexplained: one of them was killed
    """
    asked = record["processes"]
    _tidy(directory, name)
    team = Team(asked["nodes"] * asked["per_node"], bool(asked.get("resumes")))
    nonce = os.urandom(6).hex()
    try:
        _start(team, directory, name, record, nonce)
        team.run()
    finally:
        team.end()
        more.update(team.summary())
        for path in (plan_file(directory, nonce), _script(directory, nonce)):
            try:
                os.unlink(path)
            except OSError:
                pass  # not there, or of no use to anybody
    team.judge()
    return 0


def _start(team: Team, directory: str, name: str, record: Mapping[str, Any], nonce: str) -> None:
    """Start all processes.

    :param nonce: names the files for them, so that no node takes those of an earlier start for these
    """
    asked, environ = record["processes"], os.environ
    nodes, per_node, start = asked["nodes"], asked["per_node"], asked["start"]
    if nodes == 1 and start in REMOTE:
        start = "local"
    hosts = find_hosts(environ, lambda argv: output_of(argv, errors=None)) if nodes > 1 else []
    if start in REMOTE and len(hosts) < nodes:
        raise Failure("launch", f"{nodes} nodes were asked for; the scheduler names {', '.join(hosts) or 'none'}")
    listener, addresses = _listen(nodes, hosts)
    variables = {"MASTER_ADDR": addresses[0], "MASTER_PORT": str(_free_port())}
    plan = {
        "addresses": addresses,
        "port": listener.getsockname()[1],
        "secret": team.secret,
        "start": start,
        "nodes": nodes,
        "per_node": per_node,
        "name": name,
        "variables": {key: environ.get(key) or value for key, value in variables.items()},
        "started": _started(directory),
        "record": {key: record.get(key) for key in ("code", "argv", "settings")},
    }
    script = _script(directory, nonce)
    command = [sys.executable, _entry(), directory, "--process", nonce]
    before = os.umask(0o077)  # the plan holds a secret, and so may the environment
    try:
        write_json(plan_file(directory, nonce), plan)
        if start in REMOTE:
            gpus = [gpus_of(_properties(), host) for host in hosts] if "CUDA_VISIBLE_DEVICES" in environ else []
            with open(script, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(node_script(environ, directory, command, per_node, gpus))
    finally:
        os.umask(before)
    team.start(listener, start, commands(start, hosts[:nodes], asked, environ, script, command))


def _script(directory: str, nonce: str) -> str:
    """Where the script of the other nodes is; never sent anywhere."""
    return os.path.join(directory, f".node-{nonce}.tmp")


def _listen(nodes: int, hosts: Sequence[str]) -> tuple[socket.socket, list[str]]:
    """A socket for the processes, and this machine's names for them, the best first."""
    if nodes == 1:
        return socket.create_server(("127.0.0.1", 0), backlog=1024), ["127.0.0.1"]
    listener = socket.create_server(("", 0), backlog=1024)
    here = os.uname().nodename
    named = [host for host in hosts[:1] if host.split(".")[0] == here.split(".")[0]]
    return listener, list(dict.fromkeys([*named, here]))


def _free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _entry() -> str:
    """What this process was started with: ``run_task.py``, beside the package."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "run_task.py")


def _started(directory: str) -> dict[str, Any]:
    """What the job's progress says of its start."""
    known = read_json(os.path.join(directory, "progress.json")) or {}
    return {key: value for key, value in known.items() if key not in ("progress", "updated")}


def _properties() -> str:
    """What OAR says of the job's resources."""
    try:
        with open(os.environ["OAR_RESOURCE_PROPERTIES_FILE"], encoding="utf-8") as file:
            return file.read()
    except (KeyError, OSError):
        return ""


def _tidy(directory: str, name: str) -> None:
    """Keep the other ranks' logs of earlier attempts, as the job script keeps rank 0's; drop what a killed one left."""
    for found in sorted(os.listdir(directory)):
        path = os.path.join(directory, found)
        log = re.fullmatch(rf"({re.escape(name)}\.rank\d+)\.(out|err)", found)
        if log:
            number = 1
            while os.path.exists(os.path.join(directory, f"{log[1]}.{number}.{log[2]}")):
                number += 1
            os.rename(path, os.path.join(directory, f"{log[1]}.{number}.{log[2]}"))
        elif re.fullmatch(r"\.(processes|node)-[0-9a-f]+\.tmp", found):
            os.unlink(path)
