"""Files over the wire: what arrives is what was sent, whole or not at all, and nothing gets out of its folder."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from experimaestro_hpc.agent import files
from experimaestro_hpc.agent.files import Packer, changed_files, manifest, safe_name, unpack
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.errors import WorkspaceError

JOB = "test.say/" + "ab" * 32
HUGE = 1 << 40


def tree(folder: Path) -> dict[str, str | bytes]:
    """What is below a folder: content of files, targets of links, by name."""
    return {
        path.relative_to(folder).as_posix(): f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


def hostile(*members: tarfile.TarInfo, data: bytes = b"") -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for one in members:
            one.size = len(data) if one.isreg() else 0
            tar.addfile(one, io.BytesIO(data))
    stream.seek(0)
    return stream


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, target)


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A folder with another one around it, to see whether something gets out."""
    folder = tmp_path / "around" / "box"
    folder.mkdir(parents=True)
    (folder.parent / "precious").write_text("precious")
    return folder


# --- Unpacking refuses


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "//etc/passwd", "..", "../x", "a/../../x", "a/..", "a/../b", "", ".", "./", "a\0b"]
)
def test_safe_name_refuses(name):
    with pytest.raises(WorkspaceError, match="refused"):
        safe_name(name)


@pytest.mark.parametrize(
    "name", ["a", "a/b", "./a", "a//b", "...", "..a/b..", "-rf", "~", "$HOME", "a b", "c:\\d", "\n"]
)
def test_safe_name_lets_through(name):
    assert ".." not in safe_name(name).parts


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([member("../evil")], id="parent"),
        pytest.param([member("a/../../evil")], id="parent in the middle"),
        pytest.param([member("../new/", tarfile.DIRTYPE)], id="folder outside"),
        pytest.param([link("l", "/etc")], id="absolute link"),
        pytest.param([link("l", "..")], id="link to the parent"),
        pytest.param([link("l", "../evil")], id="link beside"),
        pytest.param([link("a/l", "../../evil")], id="link from a folder"),
        pytest.param([link("a/l", "b/../../../evil")], id="link with a detour"),
        pytest.param([member("l", tarfile.LNKTYPE, "/etc/passwd")], id="hard link"),
        pytest.param([member("d", tarfile.CHRTYPE)], id="character device"),
        pytest.param([member("d", tarfile.BLKTYPE)], id="block device"),
        pytest.param([member("d", tarfile.FIFOTYPE)], id="named pipe"),
        # each link stays inside by its letters, and their sum does not
        pytest.param([link("p", "."), link("q", "p/p/../.."), member("q/evil")], id="links that add up"),
        pytest.param([link("q", "p/p/../.."), link("p", "."), member("q/evil")], id="links that add up later"),
        pytest.param([link("p", "."), link("q", "p/p/../.."), member("q/new", tarfile.DIRTYPE)], id="folder behind"),
        pytest.param([link("p", "."), link("q", "p/p/../.."), member("q/new/evil")], id="new folder behind"),
        pytest.param([link("p", "."), link("p/p/q", "../.."), member("q/evil")], id="link in a linked folder"),
        pytest.param([link("a/b/p", "../.."), link("a/b/q", "p/.."), member("a/b/q/evil")], id="up after down"),
    ],
)
def test_unpack_refuses_what_leaves_the_folder(box, members):
    before = tree(box.parent)
    with pytest.raises(WorkspaceError, match=r"refused|neither file, folder nor link"):
        unpack(hostile(*members, data=b"evil"), box)
    outside = {name for name in tree(box.parent) if not name.startswith("box/")}
    assert outside == before.keys()
    assert sorted(path.name for path in box.parent.iterdir()) == ["box", "precious"]
    assert all(path.resolve().is_relative_to(box) for path in box.rglob("*"))
    assert not [path for path in box.rglob("*") if not (path.is_dir() or path.is_symlink())]


@pytest.mark.parametrize("name", ["out/evil", "out/new/evil", "out/precious"])
def test_unpack_does_not_follow_a_link_that_is_there_and_leaves_the_folder(box, name):
    (box / "out").symlink_to("..")
    with pytest.raises(WorkspaceError, match="behind a link that leaves the folder"):
        unpack(hostile(member(name), data=b"evil"), box)
    assert sorted(path.name for path in box.parent.iterdir()) == ["box", "precious"]
    assert (box.parent / "precious").read_text() == "precious"


def test_unpack_makes_no_folder_behind_a_link_that_is_there(box):
    (box / "out").symlink_to("..")
    with pytest.raises(WorkspaceError, match="behind a link that leaves the folder"):
        unpack(hostile(member("out/new", tarfile.DIRTYPE)), box)
    assert sorted(path.name for path in box.parent.iterdir()) == ["box", "precious"]


def test_a_file_takes_the_place_of_a_link_and_not_of_its_target(box):
    (box / "l").symlink_to("../precious")
    unpack(hostile(member("l"), data=b"mine"), box)
    assert not (box / "l").is_symlink()
    assert (box / "l").read_bytes() == b"mine"
    assert (box.parent / "precious").read_text() == "precious"


@pytest.mark.parametrize("target", ["b", "../top", "../a/b", "./b", "nowhere", "b/deeper/file"])
def test_links_that_stay_inside_are_kept(box, target):
    assert unpack(hostile(link("a/l", target), member("a/x")), box) == ["a/l", "a/x"]
    assert tree(box) == {"a/l": f"-> {Path(target)}", "a/x": b""}


def test_the_folder_is_made_when_it_is_not_there(tmp_path):
    unpack(hostile(member("a/x"), data=b"x"), tmp_path / "new" / "box")
    assert tree(tmp_path / "new" / "box") == {"a/x": b"x"}


# --- Whole or not at all


def three_files() -> bytes:
    packer = Packer(True)
    packer.add_bytes("first", b"1" * 3000)
    packer.add_bytes("second", os.urandom(3000))
    packer.add_bytes("a/third", b"")
    with packer.finish()[0] as stream:
        return stream.read()


def test_a_stream_cut_anywhere_is_an_error_and_leaves_no_half_files(box):
    whole = three_files()
    sizes = {"first": 3000, "second": 3000, "a/third": 0}
    for end in range(0, len(whole) - 40, 7):  # what follows are the zeros after the last file
        with pytest.raises(WorkspaceError, match="did not arrive whole") as caught:
            unpack(io.BytesIO(whole[:end]), box)
        assert caught.value.where == str(box)
        assert {name: len(data) for name, data in tree(box).items()}.items() <= sizes.items()
    assert unpack(io.BytesIO(whole), box) == ["first", "second", "a/third"]


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 8])
def test_a_tar_cut_between_two_files_is_an_error(box, blocks):
    """The gzip stream is whole, but the tar in it is not: its end is missing."""
    packer = Packer(True)
    for name in "abcd":
        packer.add_bytes(name, b"x")
    with packer.finish()[0] as stream:
        content = gzip.decompress(stream.read())
    with pytest.raises(WorkspaceError, match="did not arrive whole"):
        unpack(io.BytesIO(gzip.compress(content[: 512 * blocks])), box)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("position", [0, 1, 15, 20, 40])
def test_a_damaged_head_is_an_error(box, position, compress):
    packer = Packer(compress)
    packer.add_bytes("x", b"x")
    with packer.finish()[0] as stream:
        damaged = bytearray(stream.read())
    damaged[position] ^= 0xFF
    with pytest.raises(WorkspaceError, match="did not arrive whole"):
        unpack(io.BytesIO(bytes(damaged)), box)
    assert tree(box) == {}


@pytest.mark.parametrize("junk", [b"", b"\n", b"<html>502 Bad Gateway</html>" * 100, b"\0" * 20])
def test_what_is_no_tar_at_all(box, junk):
    with pytest.raises(WorkspaceError, match="did not arrive whole"):
        unpack(io.BytesIO(junk), box)
    assert tree(box) == {}


def test_files_appear_by_rename(box, monkeypatch):
    """While the content of a file is copied, its old version is there."""
    (box / "x").write_bytes(b"old")
    seen = []
    copy = files.shutil.copyfileobj

    def look_and_copy(source, target):
        copy(source, target)
        target.flush()
        seen.append((box / "x").read_bytes())

    monkeypatch.setattr(files.shutil, "copyfileobj", look_and_copy)
    unpack(hostile(member("x"), data=b"new"), box)
    assert (seen, (box / "x").read_bytes()) == ([b"old"], b"new")


def test_a_file_that_cannot_be_put_in_place_leaves_no_temporary_one(box):
    (box / "x").mkdir()
    with pytest.raises(OSError):
        unpack(hostile(member("x"), data=b"new"), box)
    assert [path.name for path in box.iterdir()] == ["x"]


# --- What is sent arrives

NAMES = [
    "plain.txt",
    "with space",
    " ",
    'it\'s "quoted" $(touch pwned) `x`',
    "-rf",
    "new\nline",
    "tab\t\x1b[31m",
    "猫/é/🐈",
    os.fsdecode(b"latin-\xe9"),
    os.fsdecode(bytes(range(0x80, 0x100))),
    "é" * 127,
    "猫" * 85,
    "x" * 255,
    "d/" * 60 + "deep",
    "~",
    "*",
    "..x",
]


@pytest.mark.parametrize("compress", [True, False])
def test_names_with_any_bytes(tmp_path, box, compress):
    packer = Packer(compress)
    for number, name in enumerate(NAMES):
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
        packer.add_file(f"top/{name}", path)
    stream, size = packer.finish()
    with stream:
        assert unpack(stream, box) == [f"top/{name}" for name in NAMES]
        assert stream.tell() == size
    assert tree(box / "top") == tree(tmp_path / "from")
    assert tree(box / "top") == {name: b"%d" % number for number, name in enumerate(NAMES)}


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o400, 0o777])
@pytest.mark.parametrize("mtime", [1.0, 1234567890.123456, 1700000000.999999, 4102444800.5])
def test_modes_and_times_are_kept(tmp_path, box, mode, mtime):
    path = tmp_path / "x"
    path.write_bytes(b"x")
    os.utime(path, (mtime, mtime))
    path.chmod(mode)
    packer = Packer(True)
    packer.add_file("x", path)
    with packer.finish()[0] as stream:
        unpack(stream, box)
    status = (box / "x").stat()
    assert stat.S_IMODE(status.st_mode) == mode
    assert status.st_mtime == pytest.approx(mtime, abs=1e-5)


def test_no_set_user_id_bits_arrive(box):
    info = member("x")
    info.mode = 0o4755
    unpack(hostile(info), box)
    assert stat.S_IMODE((box / "x").stat().st_mode) == 0o755


def test_bytes_from_memory(box):
    packer = Packer(False)
    packer.add_bytes("a/job.sh", b"echo", 0o755)
    packer.add_bytes("a/params.json", b"{}")
    with packer.finish()[0] as stream:
        unpack(stream, box)
    assert tree(box) == {"a/job.sh": b"echo", "a/params.json": b"{}"}
    assert [stat.S_IMODE((box / "a" / name).stat().st_mode) for name in ("job.sh", "params.json")] == [0o755, 0o644]
    assert (box / "a/job.sh").stat().st_mtime > 1e9


def test_a_large_stream_goes_through_the_disk(tmp_path, box):
    data = os.urandom(10 << 20)
    (tmp_path / "large").write_bytes(data)
    packer = Packer(True)
    packer.add_file("large", tmp_path / "large")
    stream, size = packer.finish()
    with stream:
        unpack(stream, box)
        assert size > len(data)
    assert (box / "large").read_bytes() == data


def test_a_file_that_grows_while_it_is_packed_is_cut_at_the_size_it_had(tmp_path, box, monkeypatch):
    path = tmp_path / "log"
    path.write_bytes(b"12345")
    fstat = os.fstat

    def grow_after(handle):
        status = fstat(handle)
        path.write_bytes(b"1234567890")
        return status

    packer = Packer(True)
    monkeypatch.setattr(files.os, "fstat", grow_after)
    packer.add_file("log", path)
    monkeypatch.undo()
    packer.add_bytes("next", b"next")
    with packer.finish()[0] as stream:
        unpack(stream, box)
    assert tree(box) == {"log": b"12345", "next": b"next"}


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError):
        Packer(True).add_file("x", tmp_path / "x")


# --- What comes back of a job directory


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "workspace")
    folder = layout.job(JOB)
    (folder / "metrics" / "deep").mkdir(parents=True)
    for name in (
        "job.json",
        "job.sh",
        "say.done",
        "say.err",
        "say.out",
        "model.bin",
        "metrics/loss.csv",
        "metrics/deep/x.csv",
        ".lock",
        "job.json.17.tmp",
    ):
        (folder / name).write_text(name)
    return layout


RECORDS = ["job.json", "job.sh", "say.err", "say.out", "say.done"]


def chosen(layout: Layout, *patterns: str, max_size: int = HUGE, have: dict | None = None) -> list[str]:
    prefix = f"jobs/{JOB}/"
    return [name.removeprefix(prefix) for name, _ in changed_files(layout, JOB, patterns, max_size, have or {})]


@pytest.mark.parametrize(
    ("patterns", "others"),
    [
        ([], []),
        (["nothing*"], []),
        (["metrics/**"], ["metrics/loss.csv", "metrics/deep/x.csv"]),
        (["metrics/*.csv", "*.bin"], ["model.bin", "metrics/loss.csv", "metrics/deep/x.csv"]),
        (["**"], ["model.bin", "metrics/loss.csv", "metrics/deep/x.csv"]),
        (["*.json"], []),
    ],
)
def test_records_always_come_back_and_the_marker_last(layout, patterns, others):
    found = chosen(layout, *patterns)
    assert found[-1] == "say.done"
    assert sorted(found) == sorted([*RECORDS, *others])


def test_large_files_stay_but_records_come_whatever_their_size(layout):
    assert chosen(layout, "**", max_size=0) == RECORDS
    assert "model.bin" in chosen(layout, "**", max_size=len("model.bin"))
    assert "model.bin" not in chosen(layout, "**", max_size=len("model.bin") - 1)


def test_what_the_other_side_has_is_not_sent_again(layout):
    have = manifest(layout.job(JOB))
    assert have.keys() == {*RECORDS, "model.bin", "metrics/loss.csv", "metrics/deep/x.csv"}
    assert chosen(layout, "**", have=have) == []
    (layout.job(JOB) / "say.out").write_text("longer than before")
    os.utime(layout.job(JOB) / "model.bin", (1, 1))
    assert chosen(layout, "**", have=have) == ["model.bin", "say.out"]


def sent(layout: Layout, box: Path, *patterns: str) -> dict[str, str | bytes]:
    packer = Packer(True)
    for name, path in changed_files(layout, JOB, patterns, HUGE, {}):
        packer.add_file(name, path)
    with packer.finish()[0] as stream:
        unpack(stream, box)
    return tree(box / "jobs" / JOB)


@pytest.mark.parametrize("target", ["../../../../outside.json", "{root}/outside.json", "{job}/metrics/loss.csv"])
def test_a_link_that_the_other_side_would_refuse_is_sent_as_a_file(layout, box, tmp_path, target):
    """A task that links to the data next door, or by a full path, must not keep its records from coming back."""
    (tmp_path / "outside.json").write_text("outside")
    place = layout.job(JOB) / "data.json"
    place.symlink_to(target.format(root=tmp_path, job=layout.job(JOB)))
    content = place.read_bytes()
    assert sent(layout, box, "*.json")["data.json"] == content


def test_a_link_inside_a_job_directory_stays_a_link(layout, box):
    (layout.job(JOB) / "latest.json").symlink_to("metrics/loss.csv")
    assert sent(layout, box, "**")["latest.json"] == "-> metrics/loss.csv"


@pytest.mark.parametrize("target", ["nowhere", "/nowhere/at/all", "/dev", "metrics", "x.json"])
def test_links_to_nothing_and_to_folders_are_left(layout, box, target):
    (layout.job(JOB) / "x.json").symlink_to(target)
    assert "x.json" not in sent(layout, box, "**")


def test_a_named_pipe_in_a_job_directory_is_left(layout, box):
    os.mkfifo(layout.job(JOB) / "pipe.json")
    assert "pipe.json" not in sent(layout, box, "**")


def test_nothing_of_a_job_that_is_not_there(tmp_path):
    assert list(changed_files(Layout(tmp_path), JOB, ["**"], HUGE, {})) == []
