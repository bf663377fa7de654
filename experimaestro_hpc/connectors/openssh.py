"""The user's own ``ssh``: its configuration, its agents, its master connections. In: a command. Out: its streams.

A first connection stays as a master, the user's own or ours, for all that follow. On a terminal it asks for what it
needs (passphrase, second factor, Kerberos); those that follow never ask, and without a terminal nothing is ever asked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import IO

from ..errors import ConnectionFailed
from .base import Tail, has_terminal

#: seconds to wait for a host that does not answer
CONNECT_TIMEOUT = 20
#: seconds that a master connection of ours stays when nobody uses it
PERSIST = 600
#: bytes of the name of its socket's folder: a socket's may have 103; its own has 41, and 17 more while it is made
LONGEST_FOLDER = 103 - 41 - 17


class OpenSshChannel:
    """A command run by ``ssh``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.process = process
        self.stdin: IO[bytes] = process.stdin
        self.stdout: IO[bytes] = process.stdout
        self._tail = Tail(process.stderr)

    def complaint(self) -> str:
        return self._tail.text()

    def exit_status(self) -> int | None:
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        for stream in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):  # the other side has gone already
                stream.close()
        threading.Thread(target=self._reap, daemon=True).start()  # nobody needs to wait for its end

    def _reap(self) -> None:
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def abort(self) -> None:
        self.process.kill()  # closing a stream would wait for whoever reads from it


class OpenSshConnector:
    """Runs commands on ``host`` through the ``ssh`` program.

    :param host: as ``ssh`` takes it: an alias of ~/.ssh/config, ``user@host``, or ``ssh://user@host:port``
    :param own_master: whether the user's configuration has no master connection for it, so that we may bring up ours
    """

    def __init__(self, host: str, own_master: bool = False) -> None:
        self.host = host
        self.own_master = own_master
        self.asked = False

    def open(self, command: str) -> OpenSshChannel:
        program = shutil.which("ssh")
        if program is None:
            raise ConnectionFailed("there is no ssh program", hint='install OpenSSH, or set transport = "paramiko"')
        base = [
            program,
            "-T",
            *("-o", f"ConnectTimeout={CONNECT_TIMEOUT}"),
            *("-o", "ServerAliveInterval=10"),  # a dead master would keep others waiting for as long
            *("-o", "ServerAliveCountMax=3"),
        ]
        if self.own_master:
            base += master_options(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser())
        if has_terminal():
            self._bring_up_master(base)
        argv = [*base, "-o", "BatchMode=yes", "--", self.host, command]
        # its own session: a Ctrl-C is for the driver, which then ends the connection in order
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return OpenSshChannel(process)

    def _bring_up_master(self, base: list[str]) -> None:
        """Where no master lives, connect once in the foreground, where ``ssh`` can ask on the terminal."""
        if self.asked:
            return
        self.asked = True
        lives = subprocess.run([*base, "-O", "check", "--", self.host], capture_output=True, check=False)
        if lives.returncode:
            subprocess.run([*base, "--", self.host, "true"], stdout=subprocess.DEVNULL, check=False)

    def explain(self, complaint: str) -> ConnectionFailed:
        what, hint = explain(self.host, complaint)
        return ConnectionFailed(what, where=f"host {self.host}", hint=hint)

    def close(self) -> None:
        """Each channel is its own process; nothing else is open."""


def master_options(cache: Path) -> list[str]:
    """``ssh``'s options for a master connection of ours; none where its socket's name would be too long.

    :param cache: the user's cache folder
    """
    folder = cache / "xpm-hpc" / "ssh"
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        return []
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [
        *("-o", "ControlMaster=auto"),
        *("-o", f"ControlPath={str(folder).replace('%', '%%')}/%C"),
        *("-o", f"ControlPersist={PERSIST}"),
    ]


def explain(host: str, complaint: str) -> tuple[str, str]:
    """What happened and what to do next, from what ``ssh`` wrote to its standard error."""
    lines = complaint.strip().splitlines() or ["the connection ended without a word"]
    works = f"does `ssh {host}` work?"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in complaint:
        return (
            "the host's key has CHANGED; somebody may be listening in, so nothing was sent",
            f"if the change is known to be right: `ssh {host}` says how to remove the old key",
        )
    if "Host key verification failed" in complaint:
        return "the host's key is not known", f"connect once with: ssh {host}  and check the key that it shows"
    if "Permission denied" in complaint:
        return (
            f"the login was refused: {lines[-1]}",
            f"{works} check User and IdentityFile in ~/.ssh/config, or ssh-add the key",
        )
    if "Could not resolve" in complaint:
        return (
            f"the host's name is not known: {lines[-1].removeprefix('ssh: ')}",
            "check `host` in the launcher file, and ~/.ssh/config",
        )
    if "timed out" in complaint or "refused" in complaint or "No route" in complaint:
        return (
            f"the host does not answer: {lines[-1].removeprefix('ssh: ')}",
            f"is the network (or the VPN) up? {works}",
        )
    return "\n".join(lines[-3:]), works
