"""The processes of a task, seen from the job's first one. In: how many, and commands that start them. Out: one end.

Each process connects to this one (:mod:`.worker`), and reports how it ended. It passes on what the scheduler
tells it. When one fails the others are ended.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time

from ..config.jsonlight import dumps, loads
from ..config.objects import GracefulTimeout
from .task import Failure, Unexplained, say
from .worker import watch_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import Any

#: seconds until all processes must have started
START_PATIENCE = float(os.environ.get("XPM_HPC_START_PATIENCE", "600"))
#: seconds that the others have to end when one has failed, from one word to the next stronger one
GRACE = float(os.environ.get("XPM_HPC_GRACE", "10"))
#: seconds that the others have when one has stopped to go on later: they may be saving
STOP_PATIENCE = 60.0
#: seconds in which what a process has said must arrive when what started it has ended
LATE = 3.0


class Member:
    """One of the processes.

    :ivar rank: its rank, -1 until it has said it
    :ivar end: its report
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.rank = -1
        self.host = ""
        self.heard = b""
        self.end: dict[str, Any] | None = None


class Team:
    """The processes of a task.

    :param size: how many there are
    :param resumes: whether it is a task that is told of signals
    """

    def __init__(self, size: int, resumes: bool) -> None:
        self.size = size
        self.resumes = resumes
        self.members: dict[int, Member] = {}
        #: those that ended otherwise than well, in their order
        self.bad: list[Member] = []
        self.starters: list[subprocess.Popen[bytes]] = []
        #: what starts the processes
        self.program = ""
        self.selector = selectors.DefaultSelector()
        self.secret = os.urandom(16).hex()
        self.signals: list[int] = []
        self.is_told = False  # to stop, by the scheduler
        self.told: list[int] = []
        self.started = time.monotonic()
        #: what to do next with those that have not ended: when, and which signal
        self.next: list[tuple[float, int]] = []
        self.give_up_at: float | None = None

    # --- Start

    def start(self, listener: socket.socket, program: str, commands: Sequence[Sequence[str]]) -> None:
        """Start all processes.

        :param listener: where they connect
        :param program: what starts them, for messages
        :raises Failure: ``launch``: what starts them is not there
        """
        self.selector.register(listener, selectors.EVENT_READ, None)
        self._listen_for_signals()
        self.program = program
        for words in commands:
            try:
                self.starters.append(subprocess.Popen(words, stdin=subprocess.DEVNULL))
            except OSError as error:
                raise Failure("launch", f"{words[0]} cannot be started: {error.strerror}") from error

    def _listen_for_signals(self) -> None:
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(woken, selectors.EVENT_READ, "woken")
        if self.resumes:  # otherwise SIGTERM ends this process, and with it the others
            signal.signal(signal.SIGUSR2, self._note)
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signals.append(number)

    # --- While they run

    def run(self) -> None:
        """Until all have ended, or what is left of them need not be waited for."""
        while not self._is_over():
            for key, _ in self.selector.select(1.0):
                if key.data is None:
                    self._accept(key.fileobj)
                elif key.data == "woken":
                    os.read(key.fd, 4096)
                else:
                    self._hear(key.data)
            while self.signals:
                number = self.signals.pop()
                self.is_told = True
                self.tell(number)
            if self.next and time.monotonic() >= self.next[0][0]:
                self.tell(self.next.pop(0)[1])
                if not self.next:
                    self._give_up_soon()

    def _accept(self, listener: Any) -> None:
        connection, _ = listener.accept()
        connection.settimeout(10.0)
        watch_line(connection)
        self.selector.register(connection, selectors.EVENT_READ, Member(connection))

    def _hear(self, member: Member) -> None:
        try:
            data = member.connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(member.connection)
            if member.rank >= 0 and member.end is None:
                self._note_end(member, {"state": "lost"})
            return
        *lines, member.heard = (member.heard + data).split(b"\n")
        if member.rank < 0 and len(member.heard) > 4096:
            lines.append(b"")  # a stranger
        for line in lines:
            try:
                said = loads(line.decode("utf-8", "surrogateescape"))
                if member.rank < 0:
                    if said["secret"] != self.secret or said["rank"] in self.members:
                        raise ValueError
                    member.rank, member.host = said["rank"], str(said["host"])
                    self.members[member.rank] = member
                    for number in self.told:
                        self._send(member, number)
                else:
                    self._note_end(member, said)
            except (KeyError, TypeError, ValueError):  # another one
                self.selector.unregister(member.connection)
                member.connection.close()
                return

    def _note_end(self, member: Member, end: dict[str, Any]) -> None:
        """Keep how a process ended; the first that ends otherwise than well decides what becomes of the others."""
        member.end = end
        if end.get("state") == "done":
            return
        self.bad.append(member)
        now = time.monotonic()
        if end.get("state") == "stopped":
            if not self.is_told and not self.next:
                self.next = [(now + STOP_PATIENCE, signal.SIGUSR2), (now + 2 * STOP_PATIENCE, signal.SIGKILL)]
        elif self.is_told or any(one.end and one.end.get("state") == "stopped" for one in self.bad):
            if not self.next:  # it fails since another has stopped; those that save have time for it
                self.next = [(now + STOP_PATIENCE, signal.SIGKILL)]
        elif len(self.bad) == 1:
            self.next = [(now, signal.SIGTERM), (now + GRACE, signal.SIGKILL)]

    def tell(self, number: int) -> None:
        """Have those that have not ended get a signal."""
        self.told.append(number)  # for those that are yet to come
        for member in self.members.values():
            if member.end is None:
                self._send(member, number)

    @staticmethod
    def _send(member: Member, number: int) -> None:
        try:
            member.connection.sendall((dumps({"signal": int(number)}) + "\n").encode())
        except OSError:
            pass  # its end is noticed when it is listened to

    def _is_over(self) -> bool:
        if len(self.members) == self.size and all(member.end for member in self.members.values()):
            return True
        codes = [starter.poll() for starter in self.starters]
        if None not in codes or (len(self.members) < self.size and any(codes)):
            self._give_up_soon()  # what started them has ended, perhaps before all were there
        now = time.monotonic()
        if len(self.members) < self.size and now - self.started > START_PATIENCE:
            return True
        return self.give_up_at is not None and now > self.give_up_at

    def _give_up_soon(self) -> None:
        """Wait no longer than for what is on its way."""
        self.give_up_at = self.give_up_at or time.monotonic() + LATE

    # --- The end

    def end(self) -> None:
        """Let the processes go, and what started them."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for key in list(self.selector.get_map().values()):
            if isinstance(key.data, Member):
                key.data.connection.close()
            elif key.data == "woken":
                os.close(key.fd)
            else:
                key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()
        for starter in self.starters:
            for number in (None, signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # srun wants it twice
                if number is not None:
                    starter.send_signal(number)
                try:
                    starter.wait(GRACE)
                    break
                except subprocess.TimeoutExpired:
                    continue
        if self.resumes:
            from .resume import stop_listening  # as after any resumable task

            stop_listening()

    def summary(self) -> dict[str, Any]:
        """What the job's record gets."""
        known = [self.members[rank] for rank in sorted(self.members)]
        ends = [member.end or {} for member in known]
        found: dict[str, Any] = {"hosts": list(dict.fromkeys(member.host for member in known))}
        if ends:
            found["packages"] = next((end["packages"] for end in ends if "packages" in end), {})
            found["used"] = {
                "wall": round(time.monotonic() - self.started, 3),
                "cpu": round(sum(end.get("cpu", 0.0) for end in ends), 3),
                "max_rss": max(end.get("max_rss", 0) for end in ends),
            }
        return found

    def judge(self) -> None:
        """Raise what became of the task, if it did not end well."""
        stopped = [one for one in self.bad if one.end and one.end.get("state") == "stopped"]
        if stopped and (self.is_told or self.bad[0] in stopped):
            for one in self.bad:
                if one not in stopped:
                    say(f"xpm-hpc: {_named(one)} did not stop as the others did: {_words(one)}\n")
            from .resume import Ended

            end = stopped[0].end or {}
            raise (Ended if any((one.end or {}).get("is_end") for one in stopped) else GracefulTimeout)(end["message"])
        if self.bad:
            self._fail(self.bad[0])
        missing = [str(rank) for rank in range(self.size) if rank not in self.members]
        if missing:
            code = next((starter.returncode for starter in self.starters if starter.returncode), 0)
            words = f" ({self.program} ended with {code})" if code else ""
            ranks = f"rank {', '.join(missing[:20])}{words}"
            raise Failure("launch", f"{len(missing)} of {self.size} processes did not start: {ranks}")

    def _fail(self, member: Member) -> None:
        end = member.end or {}
        if member.rank and end.get("words"):
            say(f"xpm-hpc: {_named(member)}:\n{end['words']}")
        status = end.get("status")
        if end.get("state") == "lost":
            raise Unexplained(f"{_named(member)} was lost: its node, or the connection to it, is gone", 128 + 9)
        if "reason" not in end and status is not None and status < 0:
            raise Unexplained(f"{_named(member)} was killed by signal {-status}", 128 - status)
        message = end.get("message") or f"ended with exit status {status}"
        raise Failure(end.get("reason") or "exit", f"{_named(member)}: {message}", int(end.get("code") or status or 1))


def _named(member: Member) -> str:
    return f"rank {member.rank} on {member.host}"


def _words(member: Member) -> str:
    end = member.end or {}
    return str(end.get("message") or f"exit status {end.get('status')}")
