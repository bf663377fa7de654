"""Ways into a cluster, on real SSH servers: what a person is asked, and what is never asked without one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig_config
from desk import GATED, Desk, wait_for
from rig_machine import is_in, make_directory, run, write_file
from sites import SITES, Site
from terminal import Terminal

pytestmark = pytest.mark.slow


@pytest.fixture
def site() -> Site:
    """The ways into a cluster do not depend on its scheduler."""
    return SITES["slurm"]


BOTH = pytest.mark.parametrize("transport", ["paramiko", "openssh"])
PASSPHRASE = "correct horse battery"
CODE = "424242"
SECRETS = (PASSPHRASE, CODE, "wrong guess")
#: name → where the server is, its port, and more of its configuration
SERVERS = {
    "factor": ("login", 2301, "AuthenticationMethods publickey,keyboard-interactive:pam"),
    "gatefactor": ("gate", 2302, "AuthenticationMethods publickey,keyboard-interactive:pam"),
    "locked": ("login", 2303, "AuthenticationMethods publickey\nAuthorizedKeysFile {folder}/locked.pub"),
    "agentkey": ("login", 2304, "AuthorizedKeysFile {folder}/agentkey.pub"),
    "few": ("login", 2305, "MaxSessions 1"),
}
LAPTOP = """
Host factor
  HostName login
  Port 2301
Host gatefactor
  HostName gate
  Port 2302
Host farfactor
  HostName login
  Port 2301
  ProxyJump gatefactor
Host locked
  HostName login
  Port 2303
  IdentityFile ~/.ssh/id_locked
  IdentitiesOnly yes
Host agentkey
  HostName login
  Port 2304
Host proxied
  HostName login
  ProxyCommand ssh -W %h:%p gate
Match host matched
  HostName login
Host few
  HostName login
  Port 2305
Host shared
  HostName login
  ControlPath ~/.ssh/master-%r-%h-%p
"""


class Ways:
    """The servers and the laptop's configuration for them."""

    def __init__(self, desk: Desk, folder: Path):
        self.desk = desk
        self.rig = desk.rig
        self.folder = folder

    def check(self, host: str, transport: str, env: dict[str, str] | None = None):
        """`xpm-hpc launchers check` without a terminal."""
        self.desk.launcher("way", host=host, transport=transport)
        return self.desk.run("xpm-hpc", "launchers", "check", "way", env=env, timeout=60)

    def check_on_terminal(self, host: str, transport: str, env: dict[str, str] | None = None) -> Terminal:
        """The same on a terminal."""
        self.desk.launcher("way", host=host, transport=transport)
        return Terminal(self.rig, ["xpm-hpc", "launchers", "check", "way"], env)


@pytest.fixture(scope="module")
def servers(laptop) -> Iterator[Path]:
    """The servers; the folder of their files."""
    rig = laptop.rig
    folder = rig.root / "ways"
    shutil.rmtree(folder, ignore_errors=True)
    make_directory(folder)
    make_directory(folder / "pam.d")
    write_file(folder / "code", f'#!/bin/sh\n[ "$(cat | tr -d "\\000")" = {CODE} ]\n', mode=0o755)
    pam = f"auth required pam_exec.so quiet expose_authtok {folder}/code\nauth required pam_permit.so\n"
    pam += "account required pam_permit.so\n"
    write_file(folder / "pam.d/sshd", pam + "session required pam_permit.so\n")
    for name, phrase in (("locked", PASSPHRASE), ("agentkey", "")):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-C", name, "-f", str(folder / name)])
    home = laptop.home / ".ssh"
    write_file(home / "id_locked", (folder / "locked").read_text(), "alice", 0o600)
    config, known = (home / "config").read_text(), (home / "known_hosts").read_text()
    with contextlib.ExitStack() as running:
        for name, (host, port, more) in SERVERS.items():
            key = f"{rig.root}/keys/host-{host}"
            text = rig_config.sshd_config(rig_config.ADDRESSES[host], port, Path(key))
            text = text.replace("UsePAM no", "UsePAM yes").replace("KbdInteractiveAuthentication no", "")
            text = text.replace("MaxSessions 10", "") + f"\n{more.format(folder=folder)}\n"
            write_file(folder / f"{name}.conf", text)
            start = f"mount --bind {folder}/pam.d /etc/pam.d && exec /usr/sbin/sshd -D -e -f {folder}/{name}.conf"
            with (folder / f"{name}.log").open("w") as log:
                server = rig.popen(host, ["unshare", "--mount", "sh", "-c", start], "root", stdout=log, stderr=log)
            running.callback(server.wait)
            running.callback(server.terminate)
            public = " ".join(Path(f"{key}.pub").read_text().split()[:2])
            known += f"[{host}]:{port},[{rig_config.ADDRESSES[host]}]:{port} {public}\n"
        write_file(home / "config", f"{config}\nHost *\n  User alice\n{LAPTOP}", "alice", 0o600)
        write_file(home / "known_hosts", known, "alice", 0o600)
        for name in SERVERS:
            wait_for(lambda name=name: "listening" in (folder / f"{name}.log").read_text(), name)
        yield folder
        write_file(home / "config", config, "alice", 0o600)
        write_file(home / "known_hosts", known, "alice", 0o600)


@pytest.fixture
def ways(desk: Desk, servers: Path) -> Iterator[Ways]:
    ways = Ways(desk, servers)
    home = desk.rig.home("laptop")
    known = (home / ".ssh/known_hosts").read_text()
    yield ways
    ended = desk.rig.exec("laptop", ["sh", "-c", "for s in ~/.cache/xpm-hpc/ssh/*; do ssh -S $s -O exit x; done"])
    assert ended is not None
    shutil.rmtree(home / ".cache/xpm-hpc/ssh", ignore_errors=True)
    write_file(home / ".ssh/known_hosts", known, "alice", 0o600)


def assert_up(shown: str):
    assert re.search(r"connection and agent.*agent on login", shown), shown
    assert "Traceback" not in shown


def assert_no_secret(ways: Ways, shown: str):
    """No secret is in what was shown, in a file of the user's, or in the words or environment of a process."""
    for secret in SECRETS:
        assert secret not in shown
        homes = [str(ways.rig.home(host)) for host in ("laptop", "login", "gate")]
        found = subprocess.run(["grep", "-rlIF", "--exclude-dir=venv", secret, *homes], capture_output=True, text=True)
        assert found.stdout == ""
    for path in Path("/proc").glob("[0-9]*"):
        if is_in(int(path.name), [Path(f"/run/netns/{ways.rig.name}-laptop")]):
            with contextlib.suppress(OSError):
                seen = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
                assert not any(secret.encode() in seen for secret in SECRETS)


@BOTH
def test_a_key_with_a_passphrase(ways, transport):
    with ways.check_on_terminal("locked", transport) as terminal:
        terminal.answer("assphrase ", "wrong guess")
        terminal.answer("assphrase ", "wrong guess")
        terminal.answer("assphrase ", PASSPHRASE)
        assert terminal.end() == 0, terminal.shown
        assert_up(terminal.shown)
        assert_no_secret(ways, terminal.shown)


@BOTH
def test_a_passphrase_that_nobody_knows(ways, transport):
    with ways.check_on_terminal("locked", transport) as terminal:
        for _ in range(3):
            terminal.answer("assphrase ", "wrong guess")
        assert terminal.end() != 0
        assert len(re.findall("assphrase (?:of|for) ", terminal.shown)) == 3, terminal.shown
        assert "login was refused" in terminal.shown


@BOTH
@pytest.mark.parametrize("host", ["locked", "factor", "farfactor"])
def test_nothing_is_asked_without_a_terminal(ways, transport, host):
    ended = ways.check(host, transport)
    assert ended.status != 0
    assert "assphrase of" not in ended.text
    assert "Password" not in ended.text
    assert f"`ssh {host}`" in ended.text
    assert "Traceback" not in ended.text


@BOTH
def test_a_second_factor(ways, transport):
    with ways.check_on_terminal("factor", transport) as terminal:
        terminal.answer("Password", CODE)
        assert terminal.end() == 0, terminal.shown
        assert_up(terminal.shown)
        assert_no_secret(ways, terminal.shown)


@BOTH
def test_a_second_factor_that_is_wrong(ways, transport):
    with ways.check_on_terminal("factor", transport) as terminal:
        for _ in range(3):
            terminal.answer("Password", "wrong guess")
        assert terminal.end() != 0, terminal.shown
        assert "Traceback" not in terminal.shown
        assert "login was refused" in terminal.shown


@BOTH
def test_a_jump_host_that_asks_before_a_host_that_asks(ways, transport):
    with ways.check_on_terminal("farfactor", transport) as terminal:
        terminal.answer("Password", CODE)
        terminal.answer("Password", CODE)
        assert terminal.end() == 0, terminal.shown
        assert_up(terminal.shown)
        assert_no_secret(ways, terminal.shown)


@BOTH
@pytest.mark.parametrize("host", ["proxied", "matched"])
def test_what_the_configuration_says(ways, transport, host):
    assert_up(ways.check(host, transport).ok().text)


@BOTH
def test_a_key_that_only_the_agent_has(ways, transport):
    assert ways.check("agentkey", transport).status != 0
    socket = f"/home/alice/{ways.desk.folder}/agent"
    key = ways.desk.write("key", (ways.folder / "agentkey").read_text())
    key.chmod(0o600)
    with ways.rig.popen("laptop", ["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            wait_for((ways.desk.here / "agent").exists, "the agent")
            added = ways.desk.run("ssh-add", "-q", "key", env={"SSH_AUTH_SOCK": socket})
            assert added.status == 0, added
            key.unlink()
            assert_up(ways.check("agentkey", transport, {"SSH_AUTH_SOCK": socket}).ok().text)
        finally:
            agent.terminate()


def test_a_master_that_lives_already_is_used(ways):
    """By ``auto``: the key is taken away, so that no other way is open."""
    master = ["ssh", "-o", "ControlMaster=yes", "-o", "BatchMode=yes", "-N", "shared"]
    key = ways.rig.home("laptop") / ".ssh/id_ed25519"
    with ways.rig.popen("laptop", master) as process:
        try:
            wait_for(lambda: list(key.parent.glob("master-*")), "the master")
            away = key.rename(key.with_name("away"))
            try:
                assert_up(ways.check("shared", "auto").ok().text)
            finally:
                away.rename(key)
        finally:
            process.terminate()


@BOTH
@pytest.mark.parametrize("answer", ["yes", "no"])
def test_an_unknown_host_key(ways, transport, answer):
    known = ways.rig.home("laptop") / ".ssh/known_hosts"
    before = known.read_text()
    with ways.check_on_terminal("unknowncluster", transport) as terminal:
        terminal.answer("yes/no", answer)
        status = terminal.end()
    added = known.read_text().removeprefix(before)
    if answer == "yes":
        assert status == 0, terminal.shown
        assert_up(terminal.shown)
        assert len(added.splitlines()) >= 1
        assert_up(ways.check("unknowncluster", transport).ok().text)
    else:
        assert status != 0
        assert added == ""
        assert "Traceback" not in terminal.shown


@BOTH
def test_a_server_that_allows_one_session(ways, transport):
    assert_up(ways.check("few", transport).ok().text)


def test_a_master_that_takes_no_more_sessions(ways):
    control = ["-o", "ControlPath=~/.ssh/master-few"]
    master = ["ssh", *control, "-o", "ControlMaster=yes", "-o", "BatchMode=yes", "few", "sleep 60"]
    config = ways.rig.home("laptop") / ".ssh/config"
    text = config.read_text()
    with ways.rig.popen("laptop", master) as process:
        try:
            wait_for(lambda: list(config.parent.glob("master-few")), "the master")
            config.write_text(text.replace("Port 2305", "Port 2305\n  ControlPath ~/.ssh/master-few"))
            assert_up(ways.check("few", "auto").ok().text)
        finally:
            config.write_text(text)
            process.terminate()


MANY = """
import sys
from experimaestro_hpc import Param, Task, experiment

class Say(Task):
    word: Param[str]

    def execute(self):
        print(self.word.upper())

if __name__ == "__main__":
    with experiment("work-" + sys.argv[1], "mine"):
        for number in range(3):
            Say(word=f"{sys.argv[1]} {number}").submit()
"""


def masters(ways: Ways) -> list[Path]:
    return list((ways.rig.home("laptop") / ".cache/xpm-hpc/ssh").glob("*"))


def test_two_drivers_share_a_connection(ways):
    """Our own: who comes first opens it, and those who come at the same time do not stumble over each other."""
    ways.desk.launcher("way", host="mycluster", transport="openssh")
    ways.desk.write("many.py", MANY)
    assert masters(ways) == []
    drivers = [ways.desk.start("xpm-hpc", "run", "--launcher", "way", "many.py", "--", name) for name in ("a", "b")]
    try:
        told = [driver.communicate(timeout=120)[0] for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
    for driver, name, text in zip(drivers, "ab", told, strict=True):
        assert driver.returncode == 0, text
        words = sorted(path.read_text() for path in (ways.desk.here / f"work-{name}").glob("jobs/*/*/say.out"))
        assert words == [f"{name.upper()} {number}\n" for number in range(3)]
    assert len(masters(ways)) == 1
    key = ways.rig.home("laptop") / ".ssh/id_ed25519"
    away = key.rename(key.with_name("away"))  # so that no other way is open
    try:
        assert_up(ways.check("mycluster", "openssh").ok().text)
        drivers = [ways.desk.start("xpm-hpc", "launchers", "check", "way") for _ in range(2)]
        for driver in drivers:
            assert_up(driver.communicate(timeout=60)[0])
    finally:
        away.rename(key)


def test_a_home_whose_name_is_too_long_for_a_socket(ways):
    cache = {"XDG_CACHE_HOME": f"/home/alice/{ways.desk.folder}/{'long' * 20}"}
    assert_up(ways.check("mycluster", "openssh", cache).ok().text)
    assert masters(ways) == []


HANGING = """
import sys, time
from pathlib import Path
from experimaestro_hpc.driver import client
from experimaestro_hpc.driver.session import Session
from experimaestro_hpc.errors import ConnectionFailed
import os
client.ANSWER_TIMEOUT = 2.0
from experimaestro_hpc.driver.launchers import find_launcher, shipped_dir, user_dir
launcher = find_launcher("way", environ=os.environ, shipped=shipped_dir(), user_dir=user_dir(os.environ))
session = Session(launcher, Path("work"))
session.client.hello()
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
try:
    session.client.call("clock")
except ConnectionFailed as error:
    print("given up:", error, time.monotonic() - began < 20)
session.close()
"""


@BOTH
def test_an_agent_that_hangs_is_given_up(ways, transport):
    ways.desk.launcher("way", host="mycluster", transport=transport)
    ways.desk.write("hanging.py", HANGING)
    words, environment, folder = ways.desk.command("python", "hanging.py")
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with ways.rig.popen("laptop", words, "alice", environment, folder, **streams) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            stopped = agents(ways.rig)
            assert stopped
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            told = process.communicate("\n", timeout=60)[0]
        finally:
            process.kill()
            for pid in agents(ways.rig):
                os.kill(pid, signal.SIGKILL)
    assert "given up: " in told, told
    assert told.rstrip().endswith("True"), told


def agents(rig) -> list[int]:
    """The agents on the login node."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"b64decode" in path.read_bytes() and is_in(
                int(path.parent.name), [Path(f"/run/netns/{rig.name}-login")]
            ):
                found.append(int(path.parent.name))
    return found


@BOTH
def test_a_server_that_dies_in_the_middle(ways, transport):
    """Its sessions with it, and it is away for a while: that is said once, and then that it is back."""
    ways.desk.launcher("way", host="mycluster", transport=transport)
    ways.desk.write("gated.py", GATED)
    rig = ways.rig
    with ways.desk.start("xpm-hpc", "run", "--launcher", "way", "gated.py", "--", "work") as driver:
        try:
            told = read_until(driver, "running on c")
            rig.stop("sshd-login", signal.SIGKILL)
            for pid in sessions(rig):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            told += read_until(driver, "the jobs go on, and so do the tries to connect")
            ways.desk.open("hello", "world", "concat")
            wait_for(lambda: len(ways.desk.markers("done")) == 3, "the graph's end")
            rig.start("sshd-login")
            told += driver.communicate(timeout=120)[0]
        finally:
            driver.kill()
            if not rig.pid("sshd-login"):
                rig.start("sshd-login")
    assert driver.returncode == 0, told
    assert told.count("the tries to connect") == 1, told
    assert told.count("connected to way ") == 1, told
    assert len(ways.desk.native_jobs()) == 3


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What a process prints, up to the line that has these words."""
    told = ""
    for line in process.stdout:
        told += line
        if words in line:
            return told
    raise AssertionError(f"it ended without saying {words!r}:\n{told}")


def sessions(rig) -> list[int]:
    """The sessions of the login node's SSH servers."""
    login, found = Path(f"/run/netns/{rig.name}-login"), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"sshd: alice") and is_in(int(path.parent.name), [login]):
                found.append(int(path.parent.name))
    return found
