"""Somebody is told that an experiment has ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_cli import run, script  # noqa: F401

from experimaestro_hpc.driver import notify as notify_module
from experimaestro_hpc.driver.notify import notify

NEWS = {"experiment": "it's $(mine)", "state": "failed", "message": 'experiment "x": 1 failed', "jobs": {"failed": 1}}


class Server(HTTPServer):
    """Keeps what it gets, and answers with ``status``."""

    status = 204

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str | None, Any]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_address_gets_a_post(server):
    assert notify(server.address, NEWS) == ""
    assert server.got == [("application/json", NEWS)]


def test_a_server_that_refuses(server):
    server.status = 500
    assert notify(server.address, NEWS) == f"{server.address}: HTTP Error 500: Internal Server Error"


def test_nobody_listens(server):
    address = server.address
    server.server_close()
    assert notify(address, NEWS).startswith(f"{address}: ")


def test_a_command_gets_words_and_json(tmp_path):
    words = '"$XPM_HPC_EXPERIMENT" "$XPM_HPC_STATE" "$XPM_HPC_MESSAGE"'
    command = f'cat > "{tmp_path}/in"; printf "%s|" {words} > "{tmp_path}/env"'
    assert notify(command, NEWS) == ""
    assert json.loads((tmp_path / "in").read_text()) == NEWS
    assert (tmp_path / "env").read_text() == 'it\'s $(mine)|failed|experiment "x": 1 failed|'


def test_commands_that_fail_or_hang(monkeypatch):
    assert notify("exit 3", NEWS) == "exit 3: exit status 3"
    assert notify("exit 3 < /dev/null", NEWS).endswith("exit status 3"), "and does not read what it gets"
    monkeypatch.setattr(notify_module, "PATIENCE", 0.1)
    assert "timed out" in notify("exec sleep 60", NEWS)


@pytest.mark.parametrize(("what", "state", "code"), [("good", "done", 0), ("bad", "failed", 1)])
def test_run_notifies(script, tmp_path: Path, server, end_runners, what, state, code):  # noqa: F811
    try:
        ran = run("run", "--quiet", "--notify", server.address, script, "--", tmp_path / "work", what)
        assert ran.code == code
        ((_, news),) = server.got
        assert (news["experiment"], news["state"]) == ("demo", state)
        assert sum(news["jobs"].values()) == 2
        ran = run("run", "--quiet", "--notify", "exit 7", script, "--", tmp_path / "work", what)
        assert ran.code == code, "what is told changes nothing"
        assert "nobody was notified: exit 7: exit status 7\n" in ran.out
    finally:
        end_runners(tmp_path / "work")
