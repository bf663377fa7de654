"""A host's file systems, Pythons and modules. In: what /proc and commands say. Out: facts. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

#: file systems that other hosts see too, as far as their type tells
NETWORK = {
    *("afs", "beegfs", "beegfs_nodev", "ceph", "cifs", "cvfs", "fhgfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"),
    *("nfs4", "ocfs2", "gfs2", "orangefs", "panfs", "pvfs2", "quobyte", "smb3", "smbfs", "wekafs", "yas3fs"),
}
#: at the start of the type of those that a program serves
NETWORK_FUSE = (
    *("fuse.ceph", "fuse.dfuse", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.moosefs", "fuse.mfs"),
    *("fuse.quobyte", "fuse.sshfs", "fuse.daos"),
)
#: the beginnings of modules that environments are made of
MODULES = ("anaconda", "conda", "cuda", "mamba", "miniconda", "miniforge", "python", "pytorch", "tensorflow")


class Mount(NamedTuple):
    """A mounted file system."""

    path: str
    kind: str
    source: str

    @property
    def is_network(self) -> bool:
        """Whether other hosts may see it."""
        return self.kind in NETWORK or self.kind.startswith(NETWORK_FUSE)


def parse_mounts(text: str) -> list[Mount]:
    """The lines of ``/proc/self/mounts``, later ones over earlier ones."""
    found = []
    for line in text.splitlines():
        fields = [re.sub(r"\\([0-7]{3})", lambda one: chr(int(one.group(1), 8)), word) for word in line.split(" ")]
        if len(fields) >= 3 and fields[2] != "autofs":  # what it stands for is mounted over it
            found.append(Mount(fields[1], fields[2], fields[0]))
    return found


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount:
    """The file system that a path is on.

    >>> mount_of("/home/me", [Mount("/", "ext4", "a"), Mount("/home", "nfs4", "b")]).kind
    'nfs4'
    """
    best = Mount("/", "", "")
    for mount in mounts:
        if (path + "/").startswith(mount.path.rstrip("/") + "/") and len(mount.path) >= len(best.path):
            best = mount
    return best


class Quota(NamedTuple):
    """A user's quota on a file system, in bytes."""

    used: int
    limit: int

    @property
    def left(self) -> int:
        """What may still be written."""
        return max(0, self.limit - self.used)


def parse_quota(out: str) -> dict[str, Quota]:
    """What ``quota -w`` printed, by the source or place of the file system; those without a limit are left out."""
    return {words[0]: one for words in map(str.split, out.splitlines()) if (one := _quota(words[1:])) is not None}


def parse_lustre_quota(out: str) -> Quota | None:
    """What ``lfs quota -q`` printed, for one file system; it may break the line after the name."""
    words = out.split()
    return _quota(words[1:]) if words else None


def _quota(words: Sequence[str]) -> Quota | None:
    """Blocks used, soft limit, hard limit, in KiB; ``*`` follows what is over the limit."""
    numbers = [int(word.rstrip("*")) for word in words[:3] if word.rstrip("*").isdecimal()]
    if len(numbers) < 3:
        return None
    used, soft, hard = numbers
    limit = soft or hard
    return Quota(used << 10, limit << 10) if limit else None


def parse_modules(out: str) -> list[str]:
    """The modules in what ``module -t avail`` printed that environments are made of; the newest of each."""
    newest: dict[str, str] = {}
    for word in out.split():
        name = re.sub(r"\(.*?\)$", "", word).rstrip("/")  # (default), (D)
        if re.fullmatch(r"[A-Za-z0-9][\w.+/-]*", name) and name.lower().startswith(MODULES):
            family = name.partition("/")[0]
            if _version(name) >= _version(newest.get(family, "")):
                newest[family] = name
    return sorted(newest.values())[:12]


def _version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text.partition("/")[2])]


def parse_version(text: str) -> str:
    """The version in what a Python said of itself; "" if it is none."""
    found = re.search(r"^(\d+\.\d+\.\d+)\s*$", text, re.MULTILINE)
    return found.group(1) if found else ""
