"""The files of one instance of the test cluster: its directories, keys, configuration and home directories.

An instance's root directory holds

    etc/        what is seen as /etc/hosts and /etc/slurm, and the configuration of every sshd
    keys/       the keys of users and hosts, made once
    laptop/home, gate/home, cluster/home, oar/home, p1/home, p2/home, scratch/HOST
    state/, spool/NODE, dev/, mysql/     Slurm's and MariaDB's
    oar/    OAR's and PostgreSQL's, see rig_oar
    log/, run/  of the running instance: NAME.log and NAME.pid for every host and daemon, settings.json
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import rig_config as config
import rig_oar
from rig_config import ADDRESSES, GPUS_PER_NODE, NODES, OAR_HOSTS, PRIVATE_NODES, USERS, Settings
from rig_machine import make_directory, run, write_file

USER_KEYS = ("laptop", "cluster", "refused", "oar")  # no host accepts the third; the last is the user oar's
# The last belongs to no sshd: it is what the laptop remembers of the host whose key has changed.
HOST_KEYS = ("gate", "login", *NODES, *OAR_HOSTS, "changed", "unknown", "former")


def home(root: Path, host: str, user: str) -> Path:
    """A user's home directory on a host, as seen from outside."""
    own = ("laptop", "gate", *PRIVATE_NODES)
    place = host if host in own else "oar" if host in OAR_HOSTS else "cluster"
    return root / place / "home" / user


def prepare(root: Path, settings: Settings, sshds: Mapping[str, tuple[str, int]]) -> None:
    """Make or renew all files, and keep what others have written. `sshds`: name → host and port."""
    _make_directories(root)
    _make_keys(root)
    _write_configuration(root, settings)
    for name, (host, port) in sshds.items():
        text = config.sshd_config(ADDRESSES[host], port, root / "keys" / f"host-{name}")
        write_file(root / "etc" / f"sshd-{name}", text + (rig_oar.SSHD if port == rig_oar.SSH_PORT else ""))
    rig_oar.prepare(root, (root / "keys/oar").read_text(), _public_key(root, "oar"))
    for user in USERS:
        _make_homes(root, user)


def _make_directories(root: Path) -> None:
    """The instance's directories, and the mount points that the machine lacks; logs start anew."""
    shutil.rmtree(root / "log", ignore_errors=True)
    shutil.rmtree(root / "run", ignore_errors=True)
    for part in ("", "log", "run", "dev", "etc", "etc/slurm", "etc/empty", "hidden"):
        make_directory(root / part)
    for node in NODES:
        make_directory(root / "spool" / node)
    make_directory(root / "state", "slurm")
    for host in ADDRESSES:
        make_directory(root / "scratch" / host, mode=0o1777)
    make_directory(Path("/run/sshd"))
    Path("/scratch").mkdir(exist_ok=True)
    for number in range(GPUS_PER_NODE):
        device = root / "dev" / f"gpu{number}"
        if not device.exists():
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(195, number))


def _make_keys(root: Path) -> None:
    make_directory(root / "keys", mode=0o700)
    for name in (*USER_KEYS, *(f"host-{host}" for host in HOST_KEYS)):
        path = root / "keys" / name
        if not path.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)])


def _public_key(root: Path, name: str) -> str:
    return " ".join((root / "keys" / f"{name}.pub").read_text().split()[:2])


def _write_configuration(root: Path, settings: Settings) -> None:
    etc = root / "etc"
    write_file(etc / "hosts", config.hosts_file())
    write_file(etc / "slurm/slurm.conf", config.slurm_conf(root, settings))
    write_file(etc / "slurm/gres.conf", config.gres_conf(root))
    write_file(etc / "slurm/cgroup.conf", config.cgroup_conf())
    write_file(etc / "slurm/slurmdbd.conf", config.slurmdbd_conf(root), "slurm", 0o600)


def _make_homes(root: Path, user: str) -> None:
    """A user's home directories with what ssh needs in them; other files in them stay."""
    accepted = "".join(f"{_public_key(root, name)} {name}\n" for name in ("laptop", "cluster"))
    for host in ("laptop", "gate", "login", "oarfront", *PRIVATE_NODES):
        make_directory(home(root, host, user).parent)
        make_directory(home(root, host, user), user)
        make_directory(home(root, host, user) / ".ssh", user, 0o700)
        write_file(home(root, host, user) / ".ssh/authorized_keys", accepted, user, 0o600)

    former = config.changed_known_host(_public_key(root, "host-former"))
    laptop = {
        "config": config.ssh_config(user),
        "known_hosts": _known_hosts(root, "gate", "login", "oarfront") + former,
        "id_ed25519": (root / "keys/laptop").read_text(),
        "id_refused": (root / "keys/refused").read_text(),
    }
    cluster = {
        "known_hosts": _known_hosts(root, "login", *NODES),
        "id_ed25519": (root / "keys/cluster").read_text(),
    }
    oar = cluster | {"known_hosts": _known_hosts(root, "oarfront")}
    private = [(node, cluster) for node in PRIVATE_NODES]
    for host, files in (("laptop", laptop), ("login", cluster), ("oarfront", oar), *private):
        for name, text in files.items():
            write_file(home(root, host, user) / ".ssh" / name, text, user, 0o600)


def _known_hosts(root: Path, *hosts: str) -> str:
    return config.known_hosts({host: _public_key(root, f"host-{host}") for host in hosts})
