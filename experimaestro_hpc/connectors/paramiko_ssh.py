"""SSH through fabric and paramiko. In: a host of ~/.ssh/config and a command. Out: its streams.

Host keys are always checked: a known one must match, an unknown one is asked about on a terminal and refused
without one. Passphrases and second factors are asked for on a terminal, used once and kept nowhere.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import sys
import threading
from pathlib import Path
from typing import IO, Any, NoReturn

import fabric
import paramiko

from ..errors import ConnectionFailed
from .base import Tail, has_terminal

#: seconds to wait for a host that does not answer
CONNECT_TIMEOUT = 20
#: seconds to wait for a connection to end
CLOSE_TIMEOUT = 3
#: seconds between signs of life on an idle connection
KEEPALIVE = 30
#: how often a passphrase is asked for
ATTEMPTS = 3


class UnknownHostKey(paramiko.SSHException):
    """A host whose key is not known, and nobody to ask or the answer was no."""


class AskPolicy(paramiko.MissingHostKeyPolicy):
    """Asks on a terminal, as ``ssh`` does; refuses without one."""

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        fingerprint = f"{key.get_name()} {key.fingerprint}"
        if not has_terminal():
            raise UnknownHostKey(f"the key of {hostname} is not known: {fingerprint}")
        print(f"The key of {hostname} is not known: {fingerprint}", file=sys.stderr)
        print("Is it the right one? It is then noted in ~/.ssh/known_hosts (yes/no) ", file=sys.stderr, end="")
        if input().strip().lower() != "yes":
            raise UnknownHostKey(f"the key of {hostname} was not accepted")
        note_host(Path("~/.ssh/known_hosts").expanduser(), f"{hostname} {key.get_name()} {key.get_base64()}")


def note_host(known_hosts: Path, line: str) -> None:
    """Add a line to a file of known hosts, whose last line may lack its end."""
    known_hosts.parent.mkdir(mode=0o700, exist_ok=True)
    with known_hosts.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        is_ended = file.read() in (b"", b"\n")
        file.write(b"\n" * (not is_ended) + line.encode("ascii") + b"\n")


class ParamikoChannel:
    """A command on a paramiko channel."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel = channel
        self.stdin: IO[bytes] = channel.makefile_stdin("wb")  # type: ignore[assignment]
        self.stdout: IO[bytes] = channel.makefile("rb")  # type: ignore[assignment]
        self._tail = Tail(channel.makefile_stderr("rb"))

    def complaint(self) -> str:
        return self._tail.text()

    def exit_status(self) -> int | None:
        if not self.channel.status_event.wait(5):
            return None
        return self.channel.exit_status

    def close(self) -> None:
        _close_soon(self.channel)

    def abort(self) -> None:
        _close_soon(self.channel)


class ParamikoConnector:
    """Runs commands on ``host`` over one connection.

    :param host: an alias of ~/.ssh/config, ``user@host``, or ``ssh://user@host:port``
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.connection: Any = None

    def open(self, command: str) -> ParamikoChannel:
        try:
            if self.connection is None:
                self.connection = self._connect()
            transport = self.connection.client.get_transport()
            channel = transport.open_session(timeout=CONNECT_TIMEOUT)
            channel.exec_command(command)
        except Exception as error:
            self.close()
            _explain(self.host, error)
        return ParamikoChannel(channel)

    def _connect(self) -> Any:
        # fabric knows user@host:port, not the address that ssh takes for it
        host = self.host[6:].removesuffix("/") if self.host.startswith("ssh://") else self.host
        connection = fabric.Connection(host, connect_timeout=CONNECT_TIMEOUT)
        hops = [connection]
        while isinstance(hops[-1].gateway, fabric.Connection):
            hops.append(hops[-1].gateway)
        for hop in reversed(hops):  # the nearest first: each may ask for something
            _check_host_keys(hop)
            if hop.ssh_config.get("identitiesonly") == "yes":  # fabric does not look at it
                hop.connect_kwargs["look_for_keys"] = False
            _open(hop)
            hop.client.get_transport().set_keepalive(KEEPALIVE)
        return connection

    def explain(self, complaint: str) -> ConnectionFailed:
        what = complaint or "the connection ended without a word"
        return ConnectionFailed(what, where=f"host {self.host}", hint=f"does `ssh {self.host}` work?")

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            _close_soon(connection)


def _close_soon(something: Any) -> None:
    """Close a channel or a connection; one that hangs, on a lock of paramiko's that a Ctrl-C left locked, is left."""

    def close() -> None:
        with contextlib.suppress(Exception):
            something.close()

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(CLOSE_TIMEOUT)


class AskingTransport(paramiko.Transport):
    """Asks on a terminal for what a host wants beside a key; paramiko itself asks anywhere, and shows the answer."""

    has_asked = False

    def auth_interactive_dumb(self, username: str, handler: Any = None, submethods: str = "") -> list[str]:
        if not has_terminal():
            raise paramiko.AuthenticationException("the host asks for more than a key, and there is no terminal")
        self.has_asked = True
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self.auth_interactive(username, _answer, submethods)
            except paramiko.BadAuthenticationType:
                raise
            except paramiko.AuthenticationException:
                if attempt == ATTEMPTS or not self.is_active():
                    raise
        raise AssertionError


def _answer(title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
    for text in filter(None, (title.strip(), instructions.strip())):
        print(text, file=sys.stderr)
    return [input(text) if shown else getpass.getpass(text) for text, shown in prompts]


def _open(connection: Any) -> None:
    """Open a connection, asking on a terminal for what only a person has."""
    options = connection.connect_kwargs
    options["transport_factory"] = AskingTransport
    for attempt in range(ATTEMPTS + 1):
        try:
            connection.open()
            return
        except paramiko.ssh_exception.PasswordRequiredException:
            if not has_terminal():
                raise
        except paramiko.AuthenticationException:
            if not has_terminal() or not _answer_prompts(connection):
                raise
            return
        except paramiko.SSHException as error:
            # a wrong passphrase has no kind of its own; until then all was well
            if "passphrase" not in options or not _is_connected(connection):
                raise
            if attempt == ATTEMPTS:
                raise paramiko.AuthenticationException("the passphrase was wrong") from error
        connection.client.close()
        options["passphrase"] = getpass.getpass(f"Passphrase of the key for {connection.host}: ")


def _is_connected(connection: Any) -> bool:
    transport = connection.client.get_transport()
    return transport is not None and bool(transport.is_active())


def _answer_prompts(connection: Any) -> bool:
    """Let a person answer where a host takes no key at all; False when it asks nothing, or the answers were wrong."""
    transport = connection.client.get_transport()
    if not _is_connected(connection) or transport.has_asked:
        return False
    try:
        transport.auth_interactive_dumb(connection.user)
    except paramiko.BadAuthenticationType:
        return False
    connection.transport = transport
    return bool(transport.is_authenticated())


def _check_host_keys(connection: Any) -> None:
    """Known hosts as ``ssh`` reads them; fabric alone would accept any key that is not known."""
    options = connection.ssh_config
    files = [
        *str(options.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")).split(),
        *str(options.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")).split(),
    ]
    for name in files:
        path = Path(name).expanduser()
        if path.is_file():
            connection.client.load_system_host_keys(str(path))
    connection.client.set_missing_host_key_policy(AskPolicy())


def _explain(host: str, error: Exception) -> NoReturn:
    where = f"host {host}"
    if isinstance(error, paramiko.BadHostKeyException):
        raise ConnectionFailed(
            f"the key of {error.hostname} has CHANGED; somebody may be listening in, so nothing was sent",
            where=where,
            hint=f"if the change is known to be right: `ssh {host}` says how to remove the old key",
        ) from error
    if isinstance(error, UnknownHostKey):
        raise ConnectionFailed(
            str(error), where=where, hint=f"connect once with: ssh {host}  and check the key that it shows"
        ) from error
    if isinstance(error, (paramiko.AuthenticationException, paramiko.ssh_exception.PasswordRequiredException)):
        raise ConnectionFailed(
            f"the login was refused: {error}",
            where=where,
            hint=f"does `ssh {host}` work? check User and IdentityFile in ~/.ssh/config, or ssh-add the key",
        ) from error
    if isinstance(error, socket.gaierror):
        raise ConnectionFailed(
            f"the host's name is not known: {error.strerror}",
            where=where,
            hint="check `host` in the launcher file, and ~/.ssh/config",
        ) from error
    if isinstance(error, (TimeoutError, OSError, paramiko.SSHException, EOFError)):
        raise ConnectionFailed(
            f"the host does not answer: {error or type(error).__name__}",
            where=where,
            hint=f"is the network (or the VPN) up? does `ssh {host}` work?",
        ) from error
    if isinstance(error, ValueError):
        raise ConnectionFailed(
            f"this host is not understood: {error}",
            where=where,
            hint="check `host` in the launcher file, and ~/.ssh/config",
        ) from error
    raise error
