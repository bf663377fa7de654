"""The driver's end of the agent, over a connector that runs the agent's command on this machine, and its accidents."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experimaestro_hpc.agent.pack import Packer
from experimaestro_hpc.agent.start import BOOTSTRAP
from experimaestro_hpc.connectors.openssh import OpenSshChannel
from experimaestro_hpc.driver import client as client_module
from experimaestro_hpc.driver import ship
from experimaestro_hpc.driver.client import Client, Deadline, RemoteClient, agent_command, answer_of
from experimaestro_hpc.driver.client_here import LocalClient
from experimaestro_hpc.errors import ConnectionFailed, LauncherError, WorkspaceError, XpmError

JOB = "test.say/" + "ab" * 8


class ShConnector:
    """Runs commands with ``sh -c``, as sshd would with the login shell.

    :param home: the home directory over there
    """

    host = "gate"

    def __init__(self, home: Path) -> None:
        self.environ = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8"}
        #: what the login shell says and does before a command
        self.profile = ""
        #: run in place of the next commands
        self.instead: list[str] = []
        self.channels: list[OpenSshChannel] = []
        self.shell = "sh"
        self.is_closed = False

    def open(self, command: str) -> OpenSshChannel:
        if self.instead:
            command = self.instead.pop(0)
        process = subprocess.Popen(
            [self.shell, "-c", f"{self.profile}\n{command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environ,
            start_new_session=True,
        )
        self.channels.append(OpenSshChannel(process))
        return self.channels[-1]

    def explain(self, complaint: str) -> ConnectionFailed:
        return ConnectionFailed(complaint or "it ended without a word", where="host gate")

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(scope="session")
def shipment() -> ship.Shipment:
    return ship.build()


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, shipment: ship.Shipment) -> Path:
    """A folder where the package has been shipped to."""
    root = tmp_path_factory.mktemp("installed")
    ship.install(shipment, root)
    return root / ".xpm" / "lib"


@pytest.fixture
def home(tmp_path: Path, installed: Path) -> Path:
    """A home over there, with a workspace ``work`` that has the package already."""
    folder = tmp_path / "home"
    (folder / "bin").mkdir(parents=True)
    (folder / "work" / ".xpm").mkdir(parents=True)
    (folder / "work" / ".xpm" / "lib").symlink_to(installed)
    wrapper(folder / "bin" / "python3", f'exec {sys.executable} "$@"')
    return folder


def wrapper(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def gate(home: Path) -> Iterator[ShConnector]:
    connector = ShConnector(home)
    yield connector
    for channel in connector.channels:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(channel.process.pid, signal.SIGKILL)
        channel.close()


Connect = Callable[..., RemoteClient]


@pytest.fixture
def connect(gate: ShConnector, shipment: ship.Shipment) -> Iterator[Connect]:
    clients = []

    def new(workdir: str = "~/work", scheduler: str = "local", python: str = "") -> RemoteClient:
        clients.append(RemoteClient(gate, workdir, scheduler, shipment, python))
        return clients[-1]

    yield new
    for client in clients:
        client.close()


# --- Where the agent is


@pytest.mark.parametrize(
    ("workdir", "root"),
    [
        ("~/work", "{home}/work"),
        ("$HOME/a b/it's $(x)", None),
        ("${HOME}/w", "{home}/w"),
        ("{home}/plain", "{home}/plain"),
        ("{home}/猫 \"q\" 'x'", "{home}/猫 \"q\" 'x'"),
        ("~/link", "{home}/real"),
    ],
)
def test_hello(connect, home, workdir, root):
    (home / "real").mkdir()
    (home / "link").symlink_to("real")
    client = connect(workdir.replace("{home}", str(home)))
    if root is None:  # what looks like a variable and is none
        with pytest.raises(XpmError, match="a variable is not set"):
            client.hello()
        return
    greeting = client.hello()
    assert greeting["root"] == root.replace("{home}", str(home))
    assert (greeting["host"], greeting["scheduler"], greeting["scheduler_found"]) == (
        os.uname().nodename,
        "local",
        True,
    )
    assert client.hello() is greeting
    assert len(client.connector.channels) == 1


@pytest.mark.parametrize(
    ("workdir", "words"),
    [
        ("$SCRATCH_OF_NOBODY/work", "a variable is not set"),
        ("work", "not absolute"),
        ("~nobody-here/work", "not absolute"),
        ("/dev/null/work", "NotADirectoryError"),
    ],
)
def test_a_workdir_that_cannot_be(connect, workdir, words):
    with pytest.raises(XpmError, match=words) as caught:
        connect(workdir).hello()
    assert (caught.value.where, caught.value.exit_status) == ("host gate", 2)
    assert "workdir" in caught.value.hint


def test_an_unknown_scheduler_there(connect):
    with pytest.raises(ConnectionFailed):
        connect(scheduler="pbs").hello()


# --- The package is shipped once


def test_the_package_is_shipped_once(connect, home, shipment):
    first = connect("~/fresh")
    first.hello()
    assert first.round_trips == 2
    lib = home / "fresh" / ".xpm" / "lib"
    assert [path.name for path in lib.iterdir()] == [shipment.digest]
    again = connect("~/fresh")
    again.hello()
    assert again.round_trips == 1
    assert [path.name for path in lib.iterdir()] == [shipment.digest]


def test_what_is_shipped_is_what_is_installed(connect, home, shipment):
    connect("~/fresh").hello()
    lib = home / "fresh" / shipment.folder
    with zipfile.ZipFile(io.BytesIO(shipment.zip())) as archive:
        expected = {name: archive.read(name) for name in archive.namelist()}
    assert {name: (lib / name).read_bytes() for name in expected} == expected
    assert not any(part in name for name in expected for part in ("driver", "cli", "connectors", "web"))


def test_two_that_ship_at_the_same_time(connect, home, shipment):
    clients = [connect("~/fresh") for _ in range(3)]
    threads = [threading.Thread(target=client.hello) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(client.greeting for client in clients)
    assert [path.name for path in (home / "fresh" / ".xpm" / "lib").iterdir()] == [shipment.digest]


def test_the_agent_imports_nothing_outside_of_what_was_shipped(connect, gate, home):
    """No site-packages: ``-I -S`` for the agent's Python."""
    wrapper(home / "bin" / "python3", f'exec {sys.executable} -I -S "$@"')
    assert connect().call("survey", jobs=[])["states"] == {}


# --- Noise


@pytest.mark.parametrize(
    "profile",
    [
        "echo 'Welcome to the cluster!'; echo",
        "printf 'no newline at its end'",
        "echo noise >&2; echo more >&2",
        "printf 'a\\0b\\377\\r\\033[31m'; seq 5000",
        "printf '\\036xpm-hpc 0123 5 0\\n[1,2]\\n'",
        "seq 20000 >&2",
    ],
)
def test_noise_of_the_login_shell(connect, gate, profile):
    gate.profile = profile
    client = connect()
    assert client.call("survey", jobs=[JOB])["states"] == {JOB: {"state": "unscheduled"}}


def test_what_the_agents_own_commands_print_is_no_answer(connect, gate, home):
    """A python that prints: ``survey`` asks it for its version, and its noise must not get between the frames."""
    wrapper(home / "bin" / "chatty", "echo hello >&2; echo 3.12")
    client = connect()
    for _ in range(3):
        assert client.call("survey", jobs=[], python="chatty")["states"] == {}


def test_what_else_prints_in_the_agents_process_is_no_part_of_an_answer(connect, gate, home):
    """Somebody's ``sitecustomize``, or a scheduler from a plugin."""
    (home / "sitecustomize.py").write_text(
        "import os, threading, time\n"
        "def spam():\n    while True:\n        os.write(1, b'noise\\n')\n        time.sleep(0.0002)\n"
        "threading.Thread(target=spam, daemon=True).start()\n"
    )
    gate.environ["PYTHONPATH"] = str(home)
    folder = home / "work" / "jobs" / JOB
    folder.mkdir(parents=True)
    data = os.urandom(6 << 20)
    (folder / "say.out").write_bytes(data)
    taken: list[bytes] = []
    connect().receive("read", lambda file: taken.append(file.read()), job=JOB, limit=1 << 30)
    assert b"".join(taken) == data


def test_nothing_but_noise(connect, gate):
    gate.instead = ["yes"]
    with pytest.raises(ConnectionFailed, match="sends a lot, but nothing from the agent"):
        connect().hello()
    assert gate.channels[0].process.wait(30) is not None


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo 'Permission denied (publickey).' >&2; exit 255", "Permission denied"),
        ("exit 3", "without a word"),
        ("echo only words", "without a word"),
        ("exec 0<&-; echo no input >&2; sleep 0.2; exit 1", "no input"),
    ],
)
def test_a_command_that_ends_without_an_answer(connect, gate, command, words):
    gate.instead = [command]
    client = connect()
    with pytest.raises(ConnectionFailed, match=words) as caught:
        client.hello()
    assert caught.value.exit_status == 3
    assert client.call("survey", jobs=[])["states"] == {}, "the next try is a new one"


def test_a_connection_that_takes_its_time_is_worth_a_word(connect, gate, monkeypatch, capsys):
    monkeypatch.setattr(client_module, "SLOW", 0.02)
    gate.profile = "sleep 0.2"
    connect().hello()
    assert capsys.readouterr().err == "still connecting to gate …\n"
    monkeypatch.setattr(client_module, "SLOW", 30.0)
    connect().hello()
    assert capsys.readouterr().err == ""


def test_an_answer_that_takes_its_time_is_worth_a_word(connect, gate, monkeypatch, capsys):
    """Once: what a scheduler's trouble is, the answers say."""
    client = connect()
    client.hello()
    agent = gate.channels[0].process.pid
    tell = client._tell_slow_answer

    def tell_and_go_on() -> None:
        tell()
        os.killpg(agent, signal.SIGCONT)

    monkeypatch.setattr(client, "_tell_slow_answer", tell_and_go_on)
    monkeypatch.setattr(client_module, "SLOW_ANSWER", 0.02)
    for _ in range(2):
        os.killpg(agent, signal.SIGSTOP)
        assert client.call("survey", jobs=[])["states"] == {}
    words = "still waiting for gate: its scheduler is slow to answer, or does not …\n"
    assert capsys.readouterr().err == words


# --- Which Python


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish", "tcsh"])
def test_any_login_shell(connect, gate, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    gate.shell = shell
    assert connect().hello()["scheduler"] == "local"


def old(path: Path) -> None:
    """A Python that is too old: it says so with the agent's own exit status."""
    wrapper(path, 'if [ "$1" = --version ]; then echo Python 3.6.8; else exit 97; fi')


@pytest.mark.parametrize(
    ("olds", "news", "python", "expected"),
    [
        ([], ["python3"], "", "python3"),
        (["python3"], ["python3.11", "python3.12"], "", "python3.12"),
        (["python3", "python3.13"], ["python3.12", "python3.9"], "", "python3.12"),
        ([], ["python3", "mine"], "mine", "mine"),
        (["mine"], ["python3"], "mine", "python3"),
        ([], ["python3"], "not-there", "python3"),
        ([], ["python3", "it's $(x)"], "it's $(x)", "it's $(x)"),
    ],
)
def test_the_first_python_that_is_new_enough(connect, home, olds, news, python, expected):
    (home / "bin" / "python3").unlink()
    for name in olds:
        old(home / "bin" / name)
    for name in news:
        wrapper(home / "bin" / name, f'export STARTED_AS={shlex.quote(name)}; exec {sys.executable} "$@"')
    client = connect(python=python)
    client.hello()
    found = set()
    for pid in session_of(client):
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found |= {word for word in environ if word.startswith(b"STARTED_AS=")}
    assert found == {f"STARTED_AS={expected}".encode()}


def session_of(client: RemoteClient) -> Iterator[int]:
    """The processes on the other side of a client's channel."""
    assert isinstance(client.channel, OpenSshChannel)
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(path.name)) == client.channel.process.pid:
                yield int(path.name)


@pytest.mark.parametrize("has_old", [True, False])
def test_no_python_that_is_new_enough(connect, gate, home, has_old):
    (home / "bin" / "python3").unlink()
    for name in ("sh", "env"):
        (home / "bin" / name).symlink_to(shutil.which(name) or "")
    gate.environ["PATH"] = str(home / "bin")
    command = agent_command("").replace("/usr/bin/python3", "/nowhere/python3")
    gate.instead = [command]
    if has_old:
        old(home / "bin" / "python3")
    with pytest.raises(XpmError, match=r"no Python 3\.9 or newer") as caught:
        connect().hello()
    assert ("Python 3.6.8" in caught.value.what) == has_old
    assert "[environment]" in caught.value.hint


def test_what_an_old_python_must_read_has_no_new_words():
    """Before it can say that it is too old, it must be able to parse what it is given."""
    tree = ast.parse(BOOTSTRAP, feature_version=(3, 4))
    new = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.AsyncFunctionDef, ast.Await, ast.Match)
    assert not [node for node in ast.walk(tree) if isinstance(node, new)]
    first = [type(node).__name__ for node in tree.body[:2]]
    assert (first, "version_info" in ast.unparse(tree.body[1])) == (["Import", "If"], True)


# --- Requests


@pytest.fixture(params=["here", "over there"])
def client(request: pytest.FixtureRequest, home: Path, shipment: ship.Shipment) -> Client:
    """The same operations in this process, and over a connector."""
    if request.param == "here":
        return LocalClient(home / "work", "local", shipment)
    return request.getfixturevalue("connect")()  # type: ignore[no-any-return]


def test_bytes_go_up(client, home):
    data = os.urandom(3 << 20)
    packer = Packer()
    packer.add_bytes("code/it's $(x).bin", data)
    body, size = packer.finish()
    with body:
        answer = client.call("submit", token="t", groups=[], code="0f", body=body, size=size)
    assert answer["natives"] == {}
    assert (home / "work/.xpm/code/0f/it's $(x).bin").read_bytes() == data
    assert client.call("survey", jobs=[], code="0f")["has_code"]


def test_bytes_come_down(client, home):
    client.hello()
    folder = home / "work" / "jobs" / JOB
    folder.mkdir(parents=True)
    data = os.urandom(3 << 20) + b"the end"
    (folder / "say.out").write_bytes(data)
    taken: list[bytes] = []

    def take(file: Any) -> None:
        taken.append(file.read())

    for offset, limit in ((0, 1 << 30), (-7, 100), (5, 1000), (len(data), 10), (len(data) + 5, 10), (0, 0)):
        taken.clear()
        answer = client.receive("read", take, job=JOB, offset=offset, limit=limit)
        start = len(data) + offset if offset < 0 else min(offset, len(data))
        assert b"".join(taken) == data[start : start + limit]
        assert answer == {"offset": start, "size": len(data)}
    assert client.receive("read", take, job=JOB, stream="err") == {"offset": 0, "size": 0}


def test_a_taker_that_takes_only_some(client, home):
    client.hello()
    folder = home / "work" / "jobs" / JOB
    folder.mkdir(parents=True)
    (folder / "say.out").write_bytes(b"x" * 100_000)
    for _ in range(3):
        client.receive("read", lambda file: file.read(10), job=JOB)
        client.receive("read", lambda file: None, job=JOB)
        client.call("read", job=JOB)
    assert client.call("survey", jobs=[])["states"] == {}


@pytest.mark.parametrize(
    ("operation", "arguments", "kind", "words"),
    [
        ("manifest", {"job": JOB}, WorkspaceError, "no job test.say/"),
        ("manifest", {"job": "../../etc"}, WorkspaceError, "is no job id"),
        ("read", {"job": JOB, "stream": "/etc/passwd"}, WorkspaceError, "has no log"),
        ("steal", {}, XpmError, "knows no operation 'steal'"),
    ],
)
def test_errors_come_back_as_they_were(client, operation, arguments, kind, words):
    for _ in range(2):
        with pytest.raises(kind, match=words) as caught:
            client.call(operation, **arguments)
        assert type(caught.value) is kind


def test_a_defect_in_the_agent_is_told_and_it_goes_on(connect):
    client = connect()
    with pytest.raises(XpmError, match="a defect in the agent: TypeError"):
        client.call("survey", no_such_argument=1)
    with pytest.raises(XpmError, match="a defect in the agent"):
        client.call("submit", body=io.BytesIO(b"x" * 100_000), size=100_000)
    assert client.call("survey", jobs=[])["states"] == {}


@pytest.mark.parametrize(
    ("document", "kind", "text"),
    [
        ({"error": {"what": "w", "kind": "LauncherError"}}, LauncherError, "w"),
        (
            {"error": {"what": "w", "where": "x", "hint": "h", "kind": "ConnectionFailed"}},
            ConnectionFailed,
            "x: w\n  h",
        ),
        ({"error": {"what": "w", "kind": "SomethingNew"}}, XpmError, "w"),
        ({"error": {"what": "w"}}, XpmError, "w"),
    ],
)
def test_answer_of(document, kind, text):
    with pytest.raises(kind) as caught:
        answer_of(document)
    assert (type(caught.value), str(caught.value)) == (kind, text)
    assert answer_of({"answer": {"error": 1}}) == {"error": 1}


def test_round_trips_are_counted(connect):
    client = connect()
    client.hello()
    before = client.round_trips
    for _ in range(3):
        client.call("survey", jobs=[])
    assert client.round_trips == before + 3


def test_a_workspace_that_cannot_be_made_here(tmp_path, shipment):
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError) as caught:
        LocalClient(tmp_path / "file" / "work", "local", shipment)
    assert str(tmp_path / "file") in str(caught.value)


# --- Accidents

#: an agent that greets, and answers the first request with a frame that is cut; the nonce is in its first line of input
DYING = r"""
import json, sys
nonce = json.loads(sys.stdin.buffer.readline())["nonce"]
def frame(document, body=b""):
    data = json.dumps(document).encode()
    return b"\x1expm-hpc %s %d %d\n" % (nonce.encode(), len(data), len(body)) + data + body
sys.stdout.buffer.write(frame({"answer": {"scheduler": "local"}}))
sys.stdout.buffer.flush()
sys.stdin.buffer.read(20)
whole = frame({"answer": {"states": {}}}, b"0123456789")
cut = {"nothing": 0, "magic": 5, "header": whole.index(b"\n") - 1, "document": whole.index(b"\n") + 9,
       "before body": len(whole) - 10, "body": len(whole) - 3}[sys.argv[1]]
sys.stdout.buffer.write(whole[:cut])
sys.stdout.buffer.flush()
print("Killed", file=sys.stderr)
"""


@pytest.mark.parametrize("where", ["nothing", "magic", "header", "document", "before body", "body"])
@pytest.mark.parametrize("is_received", [False, True])
def test_an_agent_that_dies_in_the_middle_of_an_answer(connect, gate, tmp_path, where, is_received):
    (tmp_path / "dying.py").write_text(DYING)
    gate.instead = [f"exec {sys.executable} {tmp_path / 'dying.py'} {shlex.quote(where)}"]
    client = connect()
    taken: list[bytes] = []
    with pytest.raises(ConnectionFailed):
        if is_received:
            client.receive("watch", lambda file: taken.append(file.read()), jobs=[], seen={}, seconds=0)
        else:
            client.call("watch", jobs=[], seen={}, seconds=0)
    assert taken == []
    assert gate.channels[0].process.wait(30) is not None, "it was let go"
    # the next call is answered by a new agent
    assert client.call("survey", jobs=[])["states"] == {}
    assert len(gate.channels) == 2


def test_an_agent_that_was_killed_between_two_requests(connect, gate):
    client = connect()
    client.call("survey", jobs=[])
    os.killpg(gate.channels[0].process.pid, signal.SIGKILL)
    gate.channels[0].process.wait()
    with pytest.raises(ConnectionFailed):
        client.call("survey", jobs=[])
    assert client.call("survey", jobs=[])["states"] == {}


def test_a_taker_that_fails_does_not_spoil_the_next_answer(connect, home):
    client = connect()
    client.hello()
    folder = home / "work" / "jobs" / JOB
    folder.mkdir(parents=True)
    (folder / "say.out").write_bytes(b"x\n" * 500_000)

    def fail(file: Any) -> None:
        file.read(10)
        raise WorkspaceError("refused")

    with pytest.raises(WorkspaceError, match="refused"):
        client.receive("read", fail, job=JOB)
    assert client.call("survey", jobs=[])["states"] == {}


def test_a_file_that_becomes_shorter_on_its_way_up(connect):
    client = connect()
    with pytest.raises(ConnectionFailed, match="became shorter"):
        client.call("submit", token="t", groups=[], code="", body=io.BytesIO(b"12"), size=3)
    assert client.call("survey", jobs=[])["states"] == {}


def test_closing_ends_the_agent(connect, gate):
    client = connect()
    client.hello()
    process = gate.channels[0].process
    client.close()
    assert process.wait(10) == 0
    assert gate.is_closed
    client.close()


def test_closing_while_nothing_is_open(connect, gate):
    connect().close()
    assert gate.channels == []


def test_a_deadline_that_is_not_put_off_calls(wait_until):
    called = threading.Event()
    deadline = Deadline(0.01, called.set)
    wait_until(called.is_set)
    deadline.cancel()


def test_a_deadline_that_is_put_off_or_cancelled_does_not_call():
    called = threading.Event()
    deadline = Deadline(3600.0, called.set)
    first = deadline._at
    deadline.put_off()
    assert deadline._at >= first
    deadline.cancel()
    assert not called.is_set()
