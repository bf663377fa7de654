"""One of several processes of a task. In: the plan that the job's first process wrote, and a rank. Out: what the task
writes, and a report of its end to that first process.

The process that is started here only watches: it forks a child, which executes the task, and passes on what the first
process says. So signals arrive however the processes were started, a child that is stuck can be ended, none outlives
the job where the first process dies, and how a child was killed is known.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time

from ..config.jsonlight import dumps, loads
from ..config.objects import GracefulTimeout
from . import progress
from .files import read_json
from .ranks import variables_of
from .starters import REMOTE
from .task import Failure, describe, execute, flush, list_again, load, packages, say, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: seconds to wait until another machine's file is seen here, and until its answer comes
PATIENCE = 60.0
#: characters of a traceback that are passed on
_WORDS = 20_000


def plan_file(directory: str, nonce: str) -> str:
    """Where the first process writes what the others need; never sent anywhere, as it holds a secret."""
    return os.path.join(directory, f".processes-{nonce}.tmp")


def work(argv: list[str]) -> int:
    """``run_task.py JOBDIR --process NONCE [NODE LOCAL]``; returns the process's exit status."""
    directory, nonce, given = os.path.abspath(argv[1]), argv[3], argv[4:]
    plan = _read_plan(directory, nonce)
    try:
        variables = variables_of(plan["start"], os.environ, plan["nodes"], plan["per_node"], given)
    except ValueError as error:
        raise SystemExit(f"xpm-hpc: {error}") from None
    for name, value in plan["variables"].items():
        variables.setdefault(name, value)
    os.environ.update(variables)
    rank = int(variables["RANK"])
    first = _connect(plan)
    first.sendall(_line({"secret": plan["secret"], "rank": rank, "host": os.uname().nodename}))
    stem = os.path.join(directory, plan["name"])
    if rank:
        _redirect(f"{stem}.rank{rank}")
    if plan["start"] in REMOTE:
        os.setsid()  # nobody else ends what the task leaves here
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the child has them from elsewhere, or from the first process
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        first.close()
        for handle in (woken, wake, read_end):
            os.close(handle)
        return _perform(directory, plan, rank, write_end)
    os.close(write_end)
    os.set_blocking(read_end, False)
    code = _watch(first, child, read_end, woken)
    if rank:
        _drop_empty(f"{stem}.rank{rank}")
    return code


# --- The child


def _perform(directory: str, plan: dict[str, Any], rank: int, report: int) -> int:
    """Execute the task, and report its end; returns the exit status."""
    here = os.getpid()
    workspace, job = split(directory)
    os.chdir(directory)
    reporter = None
    if not rank:  # one is enough
        reporter = progress.Reporter(os.path.join(directory, "progress.json"), plan["started"])
        progress.use(reporter)
    code = 1
    end: dict[str, Any] = {"state": "failed", "reason": "exit", "message": "", "words": ""}
    try:
        code = execute(load(workspace, job, plan["record"]))
        end.update({"state": "done"} if not code else {"message": f"ended with exit status {code}"})
    except GracefulTimeout as stop:
        from .resume import Ended  # for resumable tasks only

        end.update(state="stopped", message=str(stop), is_end=isinstance(stop, Ended))
    except Failure as failure:
        cause = describe(failure.__cause__)[0] if failure.__cause__ else ""
        end.update(reason=failure.reason, message=str(failure), words=cause)
    except BaseException as error:
        words, message = describe(error)
        say(words)
        end.update(message=message, words=words)
    if os.getpid() != here:
        return code  # a child that the task forked and that came out here
    lost = flush()
    if lost and not code:
        code = 1
        end.update(state="failed", message=lost)
    if reporter is not None:
        end["packages"] = packages()
        try:
            reporter.finish()
        except OSError:
            pass  # the disk is full: the task itself will have said so where it matters
    end.update(words=end["words"][-_WORDS:], code=code)
    data = dumps(end).encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(report, data) :]
    os.close(report)
    return code


# --- The process that watches it


def _watch(first: socket.socket, child: int, report: int, woken: int) -> int:
    """Pass signals on to the child, and its end back, until the first process has no more to say.

    :param report: what the child says of its end
    :param woken: can be read when a child has ended
    :returns: an exit status, the child's
    """
    said = heard = b""
    line = first.fileno()
    status: int | None = None
    while True:
        ready, _, _ = select.select([line, report, woken] if status is None else [line], (), ())
        if woken in ready:
            os.read(woken, 4096)
            status = _ended(child, os.WNOHANG)
        if report in ready or status is not None:
            said += _read(report)
        if line in ready:
            data = _receive(first)
            if not data:
                break
            *lines, heard = (heard + data).split(b"\n")
            for text in lines:
                if status is None:
                    os.kill(child, loads(text.decode())["signal"])
        if woken in ready and status is not None:
            try:
                first.sendall(_line(_summary(said, status)))
            except OSError:
                break
    if status is None:
        os.kill(child, signal.SIGKILL)
        status = _ended(child, 0) or 0
    if os.getsid(0) == os.getpid():
        os.killpg(0, signal.SIGTERM)  # what the child has left behind; not this process, which ignores it
    return status if status >= 0 else 128 - status


def _ended(child: int, options: int) -> int | None:
    """The exit status of a child, negative for a signal; None while it lives."""
    pid, status = os.waitpid(child, options)
    return os.waitstatus_to_exitcode(status) if pid else None


def _read(handle: int) -> bytes:
    """What is in a pipe now."""
    parts: list[bytes] = []
    while True:
        try:
            data = os.read(handle, 65536)
        except BlockingIOError:
            data = b""
        if not data:
            return b"".join(parts)
        parts.append(data)


def _receive(connection: socket.socket) -> bytes:
    """What has come; nothing at the connection's end."""
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def _summary(said: bytes, status: int) -> dict[str, Any]:
    """What is reported of a child: its own words if it had any, and how it ended."""
    import resource  # after the task

    try:
        end = loads(said.decode())
    except ValueError:
        end = {}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {**end, "status": status, "cpu": used.ru_utime + used.ru_stime, "max_rss": used.ru_maxrss * 1024}


# --- The way to the first process


def _read_plan(directory: str, nonce: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while True:
        plan = read_json(plan_file(directory, nonce))
        if plan is not None:
            return plan
        if time.monotonic() > deadline:
            raise SystemExit(
                f"xpm-hpc: {os.uname().nodename} does not see what the job's first node wrote in {directory}"
            )
        time.sleep(0.2)
        list_again(directory)


def _connect(plan: dict[str, Any]) -> socket.socket:
    """A connection to the first process; it ends when one of the two machines does."""
    problems = []
    deadline = time.monotonic() + PATIENCE
    while True:
        for address in plan["addresses"]:
            try:
                made = socket.create_connection((address, plan["port"]), timeout=10.0)
            except OSError as error:
                problems.append(f"{address}: {error}")
                continue
            made.settimeout(None)
            watch_line(made)
            return made
        if time.monotonic() > deadline:
            words = "; ".join(dict.fromkeys(problems))
            raise SystemExit(f"xpm-hpc: {os.uname().nodename} cannot reach the job's first node: {words}")
        time.sleep(0.5)


def watch_line(connection: socket.socket) -> None:
    """Have the end of the other machine noticed, in about two minutes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _line(document: dict[str, Any]) -> bytes:
    return (dumps(document) + "\n").encode("utf-8", "backslashreplace")


# --- Logs: rank 0's are the job's


def _redirect(stem: str) -> None:
    for number, ending in ((1, "out"), (2, "err")):
        handle = os.open(f"{stem}.{ending}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(handle, number)
        os.close(handle)


def _drop_empty(stem: str) -> None:
    for ending in ("out", "err"):
        try:
            if not os.path.getsize(f"{stem}.{ending}"):
                os.unlink(f"{stem}.{ending}")
        except OSError:
            pass  # removed by the task
