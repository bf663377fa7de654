"""What the test cluster does to the machine itself: packages, users, processes, files, commands.

Nothing here knows about hosts or instances.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

STANDARD_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
PACKAGES = (
    "slurm-wlm",
    "slurmdbd",
    "munge",
    "mariadb-server",
    "openssh-server",
    "openssh-client",
    "rsync",
    "iproute2",
    "python3-venv",
    # login shells that a cluster's users have
    "zsh",
    "fish",
    "tcsh",
)
#: what they recommend, a mail server above all, is not wanted
BARE_PACKAGES = (
    "oar-server",
    "oar-server-pgsql",
    "oar-node",
    "oar-user",
    "oar-user-pgsql",
    "libjson-perl",  # of oarstat -J
    "postgresql",
)


class RigError(Exception):
    """The test cluster cannot do what was asked; the message is meant for people."""


def run(argv: Sequence[str], input: str = "", env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end; if it fails, RigError says the last of what it printed."""
    result = subprocess.run(
        argv, input=input, env=env, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-20:])
        raise RigError(f"{shlex.join(argv)} ended with {result.returncode}:\n{tail}")


def detach(argv: Sequence[str], log: Path) -> None:
    """Start a process that outlives this one, in a session of its own; its output goes to the log."""
    with log.open("ab") as stream:
        subprocess.run(
            ["setsid", "--fork", *argv],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={"PATH": STANDARD_PATH},
            cwd="/",
            check=True,
        )


def wait(condition: Callable[[], bool], what: str, deadline: float) -> None:
    """Wait until a condition holds; RigError if it does not within the deadline, in seconds."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise RigError(f"waited {deadline} s in vain for {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep others who lock the same directory out; the directory is made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_in(pid: int, networks: Sequence[Path]) -> bool:
    """Whether a process lives in one of some network namespaces, which are given by their files."""
    with contextlib.suppress(OSError):
        own = Path(f"/proc/{pid}/ns/net").stat()
        return any(network.exists() and os.path.samestat(own, network.stat()) for network in networks)
    return False


def processes_in(networks: Sequence[Path]) -> set[int]:
    """The processes in some network namespaces."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {pid for pid in pids if is_in(pid, networks)}


def make_directory(path: Path, user: str = "root", mode: int = 0o755) -> None:
    """Make a directory, or give one that is there, to a user."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
    path.chmod(mode)


def write_file(path: Path, text: str, user: str = "root", mode: int = 0o644) -> None:
    """Write a file and give it to a user; one of mode 0600 can be read by nobody else at any time."""
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_text(text)
    shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def install_packages() -> None:
    """Install the Debian packages that are missing; none of the servers in them is started."""
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES, *BARE_PACKAGES]
    state = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    updated = False
    for options, packages in (((), PACKAGES), (("--no-install-recommends",), BARE_PACKAGES)):
        missing = [package for package in packages if f"{package} installed" not in state]
        if missing and not updated:
            run([*apt, "update"], env=environment)
            updated = True
        if missing:
            with _no_servers():
                run([*apt, "install", "--yes", *options, *missing], env=environment)


@contextlib.contextmanager
def _no_servers() -> Iterator[None]:
    """Keep packages from starting their servers, the Debian way, unless the machine does that already."""
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        yield
    finally:
        if made:
            policy.unlink()


def make_user(user: str) -> None:
    """A user whose password matches nothing: sshd would refuse an account that is locked instead."""
    if user not in {entry.pw_name for entry in pwd.getpwall()}:
        run(["useradd", "--no-create-home", f"--home-dir=/home/{user}", "--shell=/bin/bash", user])
    if any(line.startswith(f"{user}:!") for line in Path("/etc/shadow").read_text().splitlines()):
        run(["usermod", "--password", "*", user])


def start_munged() -> None:
    """Start the machine's munged unless it answers."""
    if subprocess.run(["munge", "--no-input"], capture_output=True).returncode == 0:
        return
    account = pwd.getpwnam("munge")
    make_directory(Path("/run/munge"), "munge")
    who = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    run([*who, "/usr/sbin/munged"], env={"PATH": STANDARD_PATH})


def build_wheel(source: Path, directory: Path) -> Path:
    """Build the wheel of a source tree into a directory, with the running interpreter's pip."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*build, f"--wheel-dir={directory}", str(source)])
    return next(directory.glob("*.whl"))


def wheel_content(wheel: Path) -> str:
    """A hash of what is in a wheel: two builds of the same files have the same."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            data = archive.read(name)
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()
