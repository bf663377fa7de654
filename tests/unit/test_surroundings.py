"""File systems, quotas, modules and Pythons of a login node: from text to facts."""

from __future__ import annotations

import os
import stat

import pytest

from experimaestro_hpc.agent import look
from experimaestro_hpc.agent.surroundings import (
    Quota,
    mount_of,
    parse_lustre_quota,
    parse_modules,
    parse_mounts,
    parse_quota,
    parse_version,
)
from experimaestro_hpc.agent.temporary import TEMPORARY, end
from experimaestro_hpc.errors import XpmError

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
auto.home /home autofs rw 0 0
nas:/vol/home /home nfs4 rw 0 0
nas:/vol/odd /home/odd\\040name nfs rw 0 0
10.0.0.1@o2ib:/lustre /lustre/scratch lustre rw 0 0
sshfs#x /mnt/x fuse.sshfs rw 0 0
tmpfs /tmp tmpfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind", "is_network"),
    [
        ("/home/me/xpm", "nfs4", True),
        ("/home", "nfs4", True),
        ("/homes/me", "ext4", False),
        ("/home/odd name/x", "nfs", True),
        ("/lustre/scratch/me", "lustre", True),
        ("/lustre", "ext4", False),
        ("/mnt/x", "fuse.sshfs", True),
        ("/tmp/x", "tmpfs", False),
        ("/", "ext4", False),
    ],
)
def test_the_file_system_of_a_path(path, kind, is_network):
    mount = mount_of(path, parse_mounts(MOUNTS))
    assert (mount.kind, mount.is_network) == (kind, is_network)


def test_no_mounts_at_all():
    assert mount_of("/home", []).kind == ""
    assert not mount_of("/home", []).is_network


def test_quotas():
    out = """\
Disk quotas for user me (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
nas:/vol/home 1024*  2048  4096           5       0       0
/dev/sdb       10     0     0             5       0       0
/dev/sdc       10     0     20            5       0       0
"""
    found = parse_quota(out)
    assert found == {"nas:/vol/home": Quota(1 << 20, 2 << 20), "/dev/sdc": Quota(10 << 10, 20 << 10)}
    assert found["nas:/vol/home"].left == 1 << 20
    assert Quota(5, 3).left == 0
    assert parse_quota("") == {}
    assert parse_lustre_quota("/lustre/scratch\n   100  200 300 - 5 0 0 -\n") == Quota(100 << 10, 200 << 10)
    assert parse_lustre_quota("") is None


def test_modules():
    out = """\
/opt/modules:
cuda/11.8
cuda/12.2(default)
gcc/12
python/3.9.18
python/3.11.2 (D)
Python/
$(touch x)
anaconda3/2023.09
"""
    assert parse_modules(out) == ["Python", "anaconda3/2023.09", "cuda/12.2", "python/3.11.2"]
    assert parse_modules("") == []


@pytest.mark.parametrize(
    ("said", "version"),
    [("3.11.2\n", "3.11.2"), ("a banner\n3.9.1\n", "3.9.1"), ("Python 2.7", ""), ("", ""), ("3.9", "")],
)
def test_versions(said, version):
    assert parse_version(said) == version


# --- The look itself, on this machine


def test_folders(tmp_path, monkeypatch):
    home, scratch = tmp_path / "home", tmp_path / "big disk"
    home.mkdir()
    scratch.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SCRATCH", str(scratch))
    monkeypatch.setenv("WORK", "relative")
    monkeypatch.setenv("STORE", str(home))  # the same as home: once is enough
    monkeypatch.setenv("PROJECT", str(tmp_path / "none"))
    found = {one["spelling"]: one for one in look.folders()}
    assert {"~", "$SCRATCH"} <= set(found)
    assert not {"$WORK", "$STORE", "$PROJECT"} & set(found)
    assert found["$SCRATCH"]["path"] == str(scratch)
    assert found["~"]["can_write"]
    assert found["~"]["left"] > 0


def test_a_workdir_that_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    [found] = look.folders("~/not/yet/there")
    assert (found["spelling"], found["path"]) == ("~/not/yet/there", f"{tmp_path}/not/yet/there")
    assert not (tmp_path / "not").exists()  # a look changes nothing
    with pytest.raises(XpmError, match="a variable is not set"):
        look.folders("$XPM_NO_SUCH/x")
    with pytest.raises(XpmError, match="not absolute"):
        look.folders("relative")
    (tmp_path / "file").write_text("")
    with pytest.raises(XpmError, match="cannot be made or written"):
        look.folders(f"{tmp_path}/file/below")


def program(folder, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_host_without_a_scheduler_says_where_its_commands_are(tmp_path, monkeypatch):
    monkeypatch.setattr(look, "USUAL", (f"{tmp_path}/opt/*/bin",))
    monkeypatch.setenv("PATH", str(tmp_path))  # no bash either
    assert look.scheduler()["name"] == ""
    assert look.scheduler()["elsewhere"] == ""
    (tmp_path / "opt/slurm/bin").mkdir(parents=True)
    program(tmp_path / "opt/slurm/bin", "sbatch", "exit 1")
    assert look.scheduler()["elsewhere"] == f"{tmp_path}/opt/slurm/bin/sbatch"
    assert look.scheduler("oar")["elsewhere"] == ""
    assert look.scheduler("local")["name"] == "local"


def test_a_scheduler_that_does_not_answer_gives_way_to_one_that_does(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    for name in ("sbatch", "oarsub"):
        program(tmp_path, name, "exit 1")
    program(tmp_path, "sinfo", "echo 'no controller' >&2; exit 1")
    program(tmp_path, "oarstat", "echo 'OAR version : 2.5.9 (x)'")
    program(tmp_path, "oarnodes", """echo '{"1": {"type": "default", "network_address": "n1", "core": 1}}'""")
    found = look.scheduler()
    assert (found["name"], found["version"], len(found["partitions"])) == ("oar", "OAR 2.5.9", 1)
    silent = look.scheduler("slurm")
    assert (silent["partitions"], silent["notes"]) == ([], ["sinfo -h -e: no controller"])
    program(tmp_path, "oarnodes", "echo 'this is no JSON'")
    assert "not understood" in look.scheduler("oar")["notes"][0]


def test_software(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    program(tmp_path, "python3", "echo 3.6.8")
    program(tmp_path, "python3.12", "echo 3.12.1")
    program(tmp_path, "python3.10", "echo what; exit 3")
    program(tmp_path, "uv", "exit 1")
    found = look.software()
    versions = {one["command"]: one["version"] for one in found["pythons"]}
    assert (versions["python3"], versions["python3.12"]) == ("3.6.8", "3.12.1")
    assert "python3.10" not in versions
    assert "uv" in found["tools"]


def test_only_a_folder_for_a_look_is_removed(tmp_path):
    kept, gone = tmp_path / "xpm", tmp_path / f"{TEMPORARY}0a"
    for folder in (kept, gone):
        (folder / ".xpm").mkdir(parents=True)
        end(str(folder))
    assert kept.exists()
    assert not gone.exists()
    link = tmp_path / f"{TEMPORARY}link"
    link.symlink_to(kept)
    end(str(link))
    assert (kept / ".xpm").exists()


def test_an_unknown_part():
    with pytest.raises(XpmError, match="cannot look at"):
        look.look("everything")
