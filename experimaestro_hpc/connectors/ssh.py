"""Which SSH to use. In: a host and a transport's name. Out: a connector that decides when it is first used."""

from __future__ import annotations

import shutil
import subprocess

from ..errors import ConnectionFailed
from .base import Channel, Connector


class SshConnector:
    """Reaches ``host``, one way or the other.

    :param transport: ``paramiko``, ``openssh``, or ``auto``: openssh where a master connection lives or is configured
    """

    def __init__(self, host: str, transport: str) -> None:
        self.host = host
        self.transport = transport
        self._chosen: Connector | None = None

    def open(self, command: str) -> Channel:
        return self._choose().open(command)

    def explain(self, complaint: str) -> ConnectionFailed:
        return self._choose().explain(complaint)

    def close(self) -> None:
        if self._chosen is not None:
            self._chosen.close()

    def _choose(self) -> Connector:
        if self._chosen is None:
            self._chosen = _connector(self.host, self.transport)
        return self._chosen


def _connector(host: str, transport: str) -> Connector:
    if transport == "openssh" or (transport == "auto" and wants_master(host)):
        from .openssh import OpenSshConnector

        return OpenSshConnector(host, own_master=transport == "openssh" and not wants_master(host))
    from .paramiko_ssh import ParamikoConnector  # paramiko takes a fifth of a second to load

    return ParamikoConnector(host)


def wants_master(host: str) -> bool:
    """Whether the user's ``ssh`` shares a master connection to ``host``: only ``ssh`` itself can use it."""
    program = shutil.which("ssh")
    if program is None:
        return False
    try:
        asked = subprocess.run(
            [program, "-G", "--", host],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return uses_master(asked.stdout.decode("utf-8", "replace"))


def uses_master(configuration: str) -> bool:
    """Whether what ``ssh -G`` prints says ControlMaster or ControlPath."""
    options = dict(line.split(" ", 1) for line in configuration.splitlines() if " " in line)
    return options.get("controlmaster", "false") not in ("false", "no") or options.get("controlpath", "none") != "none"
