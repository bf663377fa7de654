#!/usr/bin/env python3
"""Run the tests of this folder against a Slurm newer than the test cluster's, in a chroot. As root on Debian.

    chroot.py [ARGUMENTS OF PYTEST…]    build the chroot if it is not there, start Slurm in it, test, end all
    chroot.py --build                   build the chroot only
    chroot.py --shell                   start Slurm, and a shell in place of the tests; all ends with it

The chroot is made by `build.sh` and kept in `.newer-slurm/KEY` of the repository, where KEY stands for what
`build.sh` says. Nothing writes into it afterwards: each run lays memory over the directories that change, in
namespaces of its own (processes, mounts, network, host name). They go with the one process that holds them, and
all that runs in them with it, however it ends. Two runs do not meet.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
CACHE = REPOSITORY / ".newer-slurm"
#: what a site's network may need; nothing else of the caller's environment gets in
PASSED = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")
#: the first dies with this process, its child with it, and with that one all others
NAMESPACES = [
    "setpriv",
    "--pdeathsig=KILL",
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--propagation=private",
]

#: makes the mounts and the network of a run (slurmdbd wants more than the loopback), and goes in; the first process of
#: a namespace of processes inherits the orphans, which a shell that waits takes care of
ENTER = r"""
set -eu
root=$1 repository=$2
shift 2
hostname n1
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
for place in tmp run home srv; do mount -t tmpfs -o mode=755 tmpfs "$root/$place"; done
mount --bind "$repository" "$root/repository"
mount -o remount,bind,ro "$root/repository"
chmod 1777 "$root/tmp"
printf '%s\n' "link set lo up" "link add eth0 type veth peer name other" "addr add 10.78.0.1/24 dev eth0" \
    "link set eth0 up" "link set other up" | chroot "$root" ip -batch -
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TERM="${TERM:-dumb}" \
    sh -c 'exec 3<&0; python3 /repository/tests/newer_slurm/cluster.py "$@" <&3 3<&- & wait $!' sh "$@"
"""


def main(arguments: list[str]) -> int:
    if reason := unavailable():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    root = build()
    if arguments == ["--build"]:
        return 0
    argv = [*NAMESPACES, "--uts", "--net", "--ipc", "sh", "-c", ENTER, "sh", str(root), str(REPOSITORY)]
    if arguments != ["--shell"]:
        return subprocess.run([*argv, *arguments], check=False, stdin=subprocess.DEVNULL).returncode
    return subprocess.run([*argv, *arguments], check=False).returncode


def unavailable() -> str:
    """Why there can be no chroot here, or ""."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "the tests of a newer Slurm need root on Debian"
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        return "the tests of a newer Slurm need a kernel that lets root make namespaces"
    return ""


def build() -> Path:
    """The chroot, made if it is not there yet; others of an older `build.sh` are removed."""
    key = hashlib.sha256((HERE / "build.sh").read_bytes()).hexdigest()[:12]
    root = CACHE / key
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.is_dir():
            return root
        began = time.monotonic()
        for old in CACHE.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
        if not shutil.which("debootstrap"):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
            subprocess.run([*apt, "update"], check=True, env=environment)
            subprocess.run([*apt, "install", "--yes", "--no-install-recommends", "debootstrap"], check=True)
        making, log = CACHE / "making", CACHE / "build.log"
        print(f"building the chroot (some minutes); what it prints is in {log}", flush=True)
        passed = {name: os.environ[name] for name in PASSED if name in os.environ}
        environment = {**passed, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        with log.open("w") as out:
            argv = [*NAMESPACES, "sh", str(HERE / "build.sh"), str(making)]
            ended = subprocess.run(argv, check=False, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment)
        if ended.returncode:
            print(*log.read_text(errors="replace").splitlines()[-20:], sep="\n", file=sys.stderr)
            sys.exit(f"error: the chroot could not be built; all of it is in {log}")
        making.rename(root)
        print(f"built in {time.monotonic() - began:.0f} s", flush=True)
    return root


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
