"""The driver's end of the agent. In: an operation and its arguments. Out: the agent's answer, or its error.

A :class:`RemoteClient` sends frames over a connector to an agent that it ships and starts; a
:class:`.client_here.LocalClient` calls the operations in this process. Both count round trips.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .. import errors
from ..agent.frames import Body, read_frame, write_frame
from ..agent.start import BOOTSTRAP
from ..agent.tar import Readable
from ..connectors.base import Channel, Connector
from ..errors import ConnectionFailed, XpmError
from . import ship
from .quoting import path_there

#: tried in this order for the agent, after the launcher's own
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.9", "/usr/bin/python3")
#: seconds after which a connection that is not there yet is worth a word
SLOW = 3.0
#: seconds after which an answer that is not there yet is
SLOW_ANSWER = 10.0
#: seconds that a request may take; the longest are submissions to a scheduler in trouble
ANSWER_TIMEOUT = 600.0
#: the agent's exit status when its Python is too old
_TOO_OLD = 97


class Client(Protocol):
    """What the driver asks an agent through."""

    round_trips: int

    def call(self, operation: str, *, body: Readable | None = None, size: int = 0, **arguments: Any) -> Any:
        """The answer to one operation.

        :raises XpmError: what the agent refused, or the connection's failure
        """

    def receive(self, operation: str, take: Callable[[Any], Any], **arguments: Any) -> Any:
        """The answer to an operation that sends bytes, which ``take`` gets as a file to read."""

    def begin(self) -> None:
        """Start to start the agent; other work can be done until it answers.

        :raises XpmError: the cluster cannot be reached, as far as that is seen already
        """

    def hello(self) -> dict[str, Any]:
        """Who and where the agent is; starts it if need be."""

    def close(self) -> None:
        """Let go of the agent."""


class RemoteClient:
    """Operations on a workspace of a cluster, through an agent on its login node.

    :param workdir: the workspace there, not expanded
    :param python: tried first for the agent
    """

    def __init__(
        self, connector: Connector, workdir: str, scheduler: str, shipment: ship.Shipment, python: str = ""
    ) -> None:
        self.connector = connector
        self.workdir = workdir
        self.scheduler = scheduler
        self.shipment = shipment
        self.python = python
        self.round_trips = 0
        self.channel: Channel | None = None
        self.nonce = ""
        self.greeting: dict[str, Any] = {}
        self.has_told = False

    def call(self, operation: str, *, body: Readable | None = None, size: int = 0, **arguments: Any) -> Any:
        answer, left = self._request(operation, arguments, body, size)
        self._take(left, Body.drain)
        return answer

    def receive(self, operation: str, take: Callable[[Any], Any], **arguments: Any) -> Any:
        answer, body = self._request(operation, arguments, None, 0)
        if body.left:
            self._take(body, take)
        return answer

    def _take(self, body: Body, take: Callable[[Any], Any]) -> None:
        assert self.channel is not None
        late = Deadline(ANSWER_TIMEOUT, self.channel.abort)  # to close it would wait for whoever reads it
        body.alive = late.put_off
        try:
            take(body)
            body.drain()
        except BaseException:  # the rest of this answer would get in the way of the next one
            self.close()
            raise
        finally:
            late.cancel()

    def begin(self) -> None:
        if self.channel is None:
            with self._telling(SLOW, self._tell_slow):
                self._open()

    def hello(self) -> dict[str, Any]:
        if not self.greeting:
            self.begin()
            with self._telling(SLOW, self._tell_slow):
                self._greet()
        return self.greeting

    def _request(self, operation: str, arguments: dict[str, Any], body: Readable | None, size: int) -> tuple[Any, Body]:
        self.hello()
        channel = self.channel
        assert channel is not None
        self.round_trips += 1
        late = Deadline(ANSWER_TIMEOUT, channel.abort)  # what waits for it then sees the end
        try:
            try:
                request = {"op": operation, "arguments": arguments}
                write_frame(channel.stdin, self.nonce, request, body and _Watched(body, late.put_off), size)
            except OSError as error:
                document, left = self._last_words(channel, error)
                self.close()
            else:
                with self._telling(SLOW_ANSWER + arguments.get("seconds", 0.0), self._tell_slow_answer):
                    document, left = self._read(channel)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            words = f"the connection was lost: {error or type(error).__name__}"
            raise ConnectionFailed(
                late.words if late.is_past else words,
                where=f"host {self.connector.host}",
            ) from error
        except XpmError as error:
            self.close()
            if late.is_past:
                raise ConnectionFailed(late.words, where=f"host {self.connector.host}") from error
            raise
        finally:
            late.cancel()
        return answer_of(document), Body(channel.stdout, left)

    def _last_words(self, channel: Channel, error: OSError) -> tuple[Any, int]:
        """The answer of an agent that reads no further, since the request has failed already.

        :raises OSError: ``error``, there is none
        """
        frame = read_frame(channel.stdout, self.nonce)
        if frame is None or "error" not in frame[0]:
            raise error
        return frame

    def _read(self, channel: Channel) -> tuple[Any, int]:
        frame = read_frame(channel.stdout, self.nonce)
        if frame is None:
            raise self._ended(channel)
        return frame

    def _ended(self, channel: Channel) -> XpmError:
        """Why the agent ended without an answer."""
        status, complaint = channel.exit_status(), channel.complaint()
        if status == _TOO_OLD:
            return XpmError(
                "no Python 3.9 or newer was found for the agent" + (f": {complaint}" if complaint else ""),
                where=f"host {self.connector.host}",
                hint="name one with `python` in [environment] of the launcher file",
            )
        return self.connector.explain(complaint)

    @contextlib.contextmanager
    def _telling(self, seconds: float, tell: Callable[[], None]) -> Iterator[None]:
        """Say that it takes long, if it does."""
        slow = threading.Timer(seconds, tell)
        slow.daemon = True
        slow.start()
        try:
            yield
        finally:
            slow.cancel()

    def _tell_slow(self) -> None:
        print(f"still connecting to {self.connector.host} …", file=sys.stderr, flush=True)

    def _tell_slow_answer(self) -> None:
        if not self.has_told:
            self.has_told = True
            words = f"still waiting for {self.connector.host}: its scheduler is slow to answer, or does not …"
            print(words, file=sys.stderr, flush=True)

    def _open(self) -> None:
        """Open a channel and start the agent in it."""
        self.nonce = secrets.token_hex(8)
        first = {
            "workdir": self.workdir,
            "hash": self.shipment.digest,
            "nonce": self.nonce,
            "scheduler": self.scheduler,
        }
        channel = self.connector.open(agent_command(self.python))
        try:
            channel.stdin.write(json.dumps(first).encode() + b"\n")
            channel.stdin.flush()
        except OSError as error:
            ended = self._ended(channel)
            channel.close()
            raise ended from error
        self.channel = channel

    def _greet(self) -> None:
        """Wait for the agent; ship the package if it is not there yet."""
        channel = self.channel
        assert channel is not None
        self.round_trips += 1
        try:
            document, _ = self._read(channel)
            if document.get("need"):
                self.round_trips += 1
                data = self.shipment.zip()
                channel.stdin.write(f"{len(data)}\n".encode() + data)
                channel.stdin.flush()
                document, _ = self._read(channel)
        except OSError as error:
            ended = self._ended(channel)
            self._drop()
            raise ended from error
        except BaseException:  # what comes later on this channel would not be understood
            self._drop()
            raise
        if "error" in document:
            self._drop()
            hint = "check `workdir` in the launcher file"
            raise XpmError(
                f"the agent cannot start: {document['error']}", where=f"host {self.connector.host}", hint=hint
            )
        self.greeting = document["answer"]

    def _drop(self) -> None:
        """Let go of the channel; the connection may serve for another one."""
        if self.channel is not None:
            self.channel.close()
        self.channel, self.greeting = None, {}

    def close(self) -> None:
        self._drop()
        self.connector.close()


class Deadline:
    """Calls something unless it is put off, or cancelled, in time.

    :param seconds: until then, from now or from the last time that it was put off
    """

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        self.seconds = seconds
        self._call = call
        self._over = threading.Event()
        self.is_past = False
        self.put_off()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while (left := self._at - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        self.is_past = True
        self._call()

    @property
    def words(self) -> str:
        """What it means that the time is over."""
        return f"no answer has come for {self.seconds:.0f} s"

    def put_off(self) -> None:
        """Something has happened."""
        self._at = time.monotonic() + self.seconds

    def cancel(self) -> None:
        """It is over."""
        self._over.set()


class _Watched:
    """A body whose reading puts a deadline off: what has been read before has been sent."""

    def __init__(self, body: Readable, alive: Callable[[], object]) -> None:
        self._body = body
        self._alive = alive

    def read(self, size: int = -1, /) -> bytes:
        self._alive()
        return self._body.read(size)


def agent_command(python: str) -> str:
    """The shell command that starts the agent with the first Python that is new enough; it fits any login shell."""
    code = base64.b64encode(BOOTSTRAP.encode()).decode()
    candidates = [python, *PYTHONS] if python and python not in PYTHONS else list(PYTHONS)
    names = " ".join(path_there(name) for name in candidates)
    script = (
        f'for p in {names}; do command -v "$p" >/dev/null 2>&1 || continue; '
        f'"$p" -c "import base64; exec(base64.b64decode(\'{code}\').decode())"; '
        f'r=$?; case "$r" in {_TOO_OLD}) "$p" --version >&2 ;; 126|127) ;; *) exit "$r" ;; esac; '  # 126: cannot be run
        f"done; exit {_TOO_OLD}"
    )
    return f"exec sh -c {shlex.quote(script)}"


def answer_of(document: dict[str, Any]) -> Any:
    """The answer in a document, or the error that it is.

    :raises XpmError: of the kind that the agent raised
    """
    error = document.get("error")
    if error is None:
        return document["answer"]
    kind = getattr(errors, str(error.get("kind")), XpmError)
    raise kind(error["what"], where=error.get("where", ""), hint=error.get("hint", ""))
