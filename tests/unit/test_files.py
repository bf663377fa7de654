"""Files over the wire: what arrives is what was sent, whole or not at all, and nothing gets out of its folder."""

from __future__ import annotations

import errno
import filecmp
import io
import os
import stat
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from experimaestro_hpc.agent import pack as pack_module
from experimaestro_hpc.agent import tar
from experimaestro_hpc.agent import unpack as unpack_module
from experimaestro_hpc.agent.files import add_changed, manifest
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.pack import Packer
from experimaestro_hpc.agent.unpack import Parts, safe_name, unpack
from experimaestro_hpc.errors import ConnectionFailed, WorkspaceError

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
    with tarfile.open(fileobj=stream, mode="w") as tar:
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
    assert ".." not in safe_name(name).split("/")


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
    packer = Packer()
    packer.add_bytes("first", b"1" * 3000)
    packer.add_bytes("second", os.urandom(3000))
    packer.add_bytes("a/third", b"")
    with packer.finish()[0] as stream:
        return stream.read()


def test_a_stream_cut_anywhere_is_an_error_and_leaves_no_half_files(box):
    whole = three_files()
    sizes = {"first": 3000, "second": 3000, "a/third": 0}
    for end in range(0, len(whole), 7):
        with pytest.raises(WorkspaceError, match="did not arrive whole") as caught:
            unpack(io.BytesIO(whole[:end]), box)
        assert caught.value.where == str(box)
        assert {name: len(data) for name, data in tree(box).items()}.items() <= sizes.items()
    assert unpack(io.BytesIO(whole), box) == ["first", "second", "a/third"]


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 8, 10, 11])
def test_a_tar_cut_between_two_files_is_an_error(box, blocks):
    packer = Packer()
    for name in "abcd":
        packer.add_bytes(name, b"x")
    with packer.finish()[0] as stream:
        content = stream.read()
    with pytest.raises(WorkspaceError, match="did not arrive whole"):
        unpack(io.BytesIO(content[: 512 * blocks]), box)


@pytest.mark.parametrize("position", [0, 1, 15, 20, 40, 124, 148, 156, 513])
def test_a_damaged_head_is_an_error(box, position):
    packer = Packer()
    packer.add_bytes("x", b"x")
    with packer.finish()[0] as stream:
        damaged = bytearray(stream.read())
    damaged[position] ^= 0xFF
    with pytest.raises(WorkspaceError, match="did not arrive whole"):
        unpack(io.BytesIO(bytes(damaged)), box)
    assert tree(box) == {}


@pytest.mark.parametrize(
    "words", [b"0 a=b\n", b"5 a=b\n", b"99 a=b\n", b"25 mtime=99999999999999999\n", b"15 XPM.all=abc\n"]
)
def test_damaged_keywords_are_an_error(box, words):
    stream = hostile(member("x"), data=b"new").read()
    head = bytearray(hostile(member("k", b"x"), data=b"").read()[:512])
    head[124:136] = b"%011o\0" % len(words)
    head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 256)
    with pytest.raises(WorkspaceError, match="did not arrive whole"):
        unpack(io.BytesIO(bytes(head) + words.ljust(512, b"\0") + stream), box)
    assert tree(box) == {}


def test_a_size_below_nothing_is_an_error(box):
    head = bytearray(hostile(member("x"), data=b"new").read())
    head[124:136] = b"-0000000001\0"
    head[148:156] = b"%06o\0 " % (sum(head[:512]) - sum(head[148:156]) + 256)
    with pytest.raises(WorkspaceError, match="did not arrive whole"):
        unpack(io.BytesIO(bytes(head)), box)


@pytest.mark.parametrize("junk", [b"", b"\n", b"<html>502 Bad Gateway</html>" * 100, b"\0" * 20])
def test_what_is_no_tar_at_all(box, junk):
    with pytest.raises(WorkspaceError, match="did not arrive whole"):
        unpack(io.BytesIO(junk), box)
    assert tree(box) == {}


def test_files_appear_by_rename(box, monkeypatch):
    """While the content of a file is copied, its old version is there."""
    (box / "x").write_bytes(b"old")
    seen = []
    finish = unpack_module._finish

    def look_and_finish(handle, member):
        seen.append((box / "x").read_bytes())
        finish(handle, member)

    monkeypatch.setattr(unpack_module, "_finish", look_and_finish)
    unpack(hostile(member("x"), data=b"new"), box)
    assert (seen, (box / "x").read_bytes()) == ([b"old"], b"new")


def test_a_file_that_cannot_be_put_in_place_leaves_no_temporary_one(box, monkeypatch):
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(unpack_module.os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        unpack(hostile(member("x"), data=b"new"), box)
    assert list(box.iterdir()) == []


@pytest.mark.parametrize("new", [member("a/model"), link("a/model", "b"), member("a/model/deep/er")])
@pytest.mark.parametrize("old", ["folder", "file", "link", "dangling link"])
def test_what_was_a_folder_may_become_a_file_and_the_reverse(box, old, new):
    (box / "a").mkdir()
    place = box / "a/model"
    if old == "folder":
        (place / "deep").mkdir(parents=True)
        (place / "deep" / "old").write_text("old")
    elif old == "file":
        place.write_text("old")
    else:
        (box / "a/b").touch() if old == "link" else None
        place.symlink_to("b")
    unpack(hostile(new, data=b"new"), box)
    arrived = box / new.name
    assert (arrived.readlink() if new.issym() else arrived.read_text()) == (Path("b") if new.issym() else "new")
    assert not [path for path in box.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("name", [".xpm/lib/x", "jobs/test.say/other/say.done", "jobs/test.say", "jobs/evil", "evil"])
def test_only_what_was_asked_for_is_taken(box, name):
    with pytest.raises(WorkspaceError, match="nobody asked for"):
        unpack(hostile(member(f"jobs/{JOB}/out/x"), member(name)), box, only={JOB})
    assert list(tree(box)) == [f"jobs/{JOB}/out/x"]


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


def test_names_with_any_bytes(tmp_path, box):
    packer = Packer()
    for number, name in enumerate(NAMES):
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
        packer.add_file(f"top/{name}", path)
    with packer.finish()[0] as stream:
        assert unpack(stream, box) == [f"top/{name}" for name in NAMES]
    assert tree(box / "top") == tree(tmp_path / "from")
    assert tree(box / "top") == {name: b"%d" % number for number, name in enumerate(NAMES)}


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o400, 0o777])
@pytest.mark.parametrize("mtime", [1.0, 1234567890.123456, 1700000000.999999, 4102444800.5])
def test_modes_and_times_are_kept(tmp_path, box, mode, mtime):
    path = tmp_path / "x"
    path.write_bytes(b"x")
    os.utime(path, (mtime, mtime))
    path.chmod(mode)
    packer = Packer()
    packer.add_file("x", path)
    with packer.finish()[0] as stream:
        unpack(stream, box)
    status = (box / "x").stat()
    assert stat.S_IMODE(status.st_mode) == mode
    assert status.st_mtime_ns == path.stat().st_mtime_ns


def test_no_set_user_id_bits_arrive(box):
    info = member("x")
    info.mode = 0o4755
    unpack(hostile(info), box)
    assert stat.S_IMODE((box / "x").stat().st_mode) == 0o755


def test_bytes_from_memory(box):
    packer = Packer()
    packer.add_bytes("a/job.sh", b"echo", 0o755)
    packer.add_bytes("a/params.json", b"{}")
    with packer.finish()[0] as stream:
        unpack(stream, box)
    assert tree(box) == {"a/job.sh": b"echo", "a/params.json": b"{}"}
    assert [stat.S_IMODE((box / "a" / name).stat().st_mode) for name in ("job.sh", "params.json")] == [0o755, 0o644]
    assert (box / "a/job.sh").stat().st_mtime > 1e9


# --- What happens to files while they are read


def arrive(packer: Packer, box: Path, parts: Parts | None = None) -> dict[str, str]:
    """Unpack what a packer has; why files did not come."""
    problems: dict[str, str] = {}
    with packer.finish()[0] as stream:
        unpack(stream, box, parts, problems=problems)
    assert not [path for path in box.rglob("*") if path.name.endswith((".tmp", ".xpm-part"))]
    return problems


@pytest.fixture
def after_first_read(monkeypatch):
    """``after_first_read(do)``: do something when a first piece of a file has been read."""

    def arrange(do, always=False):
        pread = os.pread
        times = []

        def read_and_do(handle, size, offset):
            data = pread(handle, size, offset)
            if always or not times:
                times.append(1)
                do()
            return data

        monkeypatch.setattr(pack_module.os, "pread", read_and_do)

    return arrange


@pytest.mark.parametrize("size", [5, 3 * pack_module.PIECE + 1])
@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten", "vanishes"])
def test_a_file_that_changes_while_it_is_read(tmp_path, box, monkeypatch, after_first_read, size, change):
    """What arrives is what the file was at one moment."""
    path = tmp_path / "log"
    path.write_bytes(b"a" * size)
    os.utime(path, (1, 1))
    shorter = b"b" * (size - 1)

    def do():
        if change == "grows":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "vanishes":
            path.unlink()
        else:
            with path.open("r+b") as file:
                file.write(b"b" * size if change == "is rewritten" else b"")
                if change == "shrinks":
                    file.write(shorter)
                    file.truncate()

    after_first_read(do)
    packer = Packer()
    packer.add_file("log", path)
    packer.add_bytes("next", b"next")
    assert arrive(packer, box) == {}
    content = {"grows": b"a" * size, "vanishes": b"a" * size, "shrinks": shorter, "is rewritten": b"b" * size}
    assert tree(box) == {"log": content[change], "next": b"next"}


@pytest.mark.parametrize("size", [5, 2 * pack_module.PIECE])
def test_a_file_that_changes_again_and_again_is_left_and_the_others_come(tmp_path, box, after_first_read, size):
    path = tmp_path / "busy"
    path.write_bytes(b"a" * size)
    count = iter(range(1, 1000))
    after_first_read(lambda: os.utime(path, (1, next(count))), always=True)
    packer = Packer()
    packer.add_file("busy", path)
    packer.add_bytes("next", b"next")
    assert arrive(packer, box) == {"busy": "it changed while it was read"}
    assert tree(box) == {"next": b"next"}


def test_a_file_that_is_gone_is_left(tmp_path, box):
    packer = Packer()
    packer.add_file("x", tmp_path / "x")
    assert arrive(packer, box) == {}
    assert tree(box) == {}


def test_a_file_that_is_gone_and_must_come_is_an_error(tmp_path):
    packer = Packer(strict=True)
    packer.add_file("x", tmp_path / "x")
    with pytest.raises(WorkspaceError, match="vanished"):
        packer.finish()[0].read()


def test_what_cannot_be_read_is_told_and_an_error_where_nobody_asks(tmp_path, box):
    os.mkfifo(tmp_path / "pipe")
    packer = Packer()
    packer.add_file("pipe", tmp_path / "pipe")
    packer.add_bytes("next", b"next")
    assert arrive(packer, box) == {"pipe": "it is neither file, folder nor link"}
    with packer.finish()[0] as stream, pytest.raises(WorkspaceError, match="did not come"):
        unpack(stream, box)


# --- Large files


def large(path: Path, size: int = 3 * pack_module.PIECE + 17) -> bytes:
    data = os.urandom(size)
    path.write_bytes(data)
    return data


def test_a_large_file_is_never_in_memory(tmp_path, box):
    """192 MB, most of it holes, in less than 64 MB."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        for offset in range(0, 192 << 20, 48 << 20):
            file.seek(offset)
            file.write(os.urandom(1 << 20))
        file.truncate(192 << 20)
    packer = Packer()
    packer.add_file("large", path)
    tracemalloc.start()
    arrive(packer, box)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert filecmp.cmp(path, box / "large", shallow=False)


@pytest.mark.parametrize("ends", ["data", "hole", "only holes"])
def test_a_sparse_file_stays_sparse(tmp_path, box, ends):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        if ends != "only holes":
            file.seek(100 << 20)
            file.write(b"x" * 1000)
        file.truncate((100 << 20) + 1000 + (ends != "data") * (50 << 20))
    packer = Packer()
    packer.add_file("sparse", path)
    arrive(packer, box)
    assert filecmp.cmp(path, box / "sparse", shallow=False)
    assert (box / "sparse").stat().st_blocks <= path.stat().st_blocks + 64


def test_a_small_file_stays_sparse_too(tmp_path, box):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x")
    packer = Packer()
    packer.add_file("sparse", path)
    assert len(packer.finish()[0].read()) < 1 << 16
    arrive(packer, box)
    assert filecmp.cmp(path, box / "sparse", shallow=False)
    assert (box / "sparse").stat().st_blocks <= path.stat().st_blocks


class Lost(io.BytesIO):
    """A connection that ends after its last byte."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise ConnectionFailed("the connection ended in the middle of an answer")
        return data


def cut(packer: Packer, box: Path, end: int) -> None:
    """Lose the connection after ``end`` bytes."""
    with packer.finish()[0] as stream, pytest.raises(ConnectionFailed), Parts() as parts:
        unpack(Lost(stream.read(end)), box, parts)


def resumed(path: Path, box: Path) -> int:
    """Send ``path`` as ``sub/large`` again, as a client does; the bytes that went over the line."""
    with Parts() as parts:
        manifest(box, parts.take)
        packer = Packer(parts.known())
        packer.add_file("sub/large", path)
        with packer.finish()[0] as stream:
            data = stream.read()
        assert unpack(io.BytesIO(data), box, parts) == ["sub/large"]
        parts.clear(all_=True)
    assert [one.name for one in (box / "sub").iterdir()] == ["large"]
    return len(data)


@pytest.mark.parametrize("end", [1000, pack_module.PIECE // 2, 2 * pack_module.PIECE + 9999, 3 * pack_module.PIECE])
def test_a_large_file_that_was_cut_goes_on_where_it_stopped(tmp_path, box, end):
    data = large(tmp_path / "large")
    packer = Packer()
    packer.add_file("sub/large", tmp_path / "large")
    cut(packer, box, end)
    assert not (box / "sub/large").exists()
    assert resumed(tmp_path / "large", box) <= len(data) - end + 8192 + unpack_module.tar._CHUNK
    assert (box / "sub/large").read_bytes() == data
    assert (box / "sub/large").stat().st_mtime_ns == (tmp_path / "large").stat().st_mtime_ns


@pytest.mark.parametrize("change", ["content", "time", "beginning of what has come"])
def test_a_file_that_changed_meanwhile_is_not_glued_together(tmp_path, box, change):
    """Not even when neither its size nor its time tells, but what has come of it does."""
    path = tmp_path / "large"
    data = large(path)
    times = path.stat().st_mtime_ns
    packer = Packer()
    packer.add_file("sub/large", path)
    cut(packer, box, 2 * pack_module.PIECE)
    if change == "content":
        data = large(path)
        os.utime(path, ns=(times, times))
    elif change == "time":
        os.utime(path, (1, 1))
    else:
        (part,) = (box / "sub").iterdir()
        with part.open("r+b") as file:
            file.write(bytes(100))
    assert resumed(path, box) > len(data)
    assert (box / "sub/large").read_bytes() == data


def test_two_at_once_do_not_write_the_same_part(tmp_path, box):
    data = large(tmp_path / "large")

    def stream() -> Any:
        packer = Packer()
        packer.add_file("large", tmp_path / "large")
        return packer.finish()[0]

    class Slow:
        """In the middle of its transfer the other one comes and goes."""

        def __init__(self) -> None:
            self.inner, self.count = stream(), 0

        def read(self, size: int = -1, /) -> bytes:
            self.count += 1
            if self.count == 20:
                assert unpack(stream(), box) == ["large"]
                assert (box / "large").read_bytes() == data
            return bytes(self.inner.read(size))

    assert unpack(Slow(), box) == ["large"]
    assert tree(box) == {"large": data}


def piece(**more: object) -> io.BytesIO:
    words = {f"XPM.{key}": str(value) for key, value in more.items()}
    return io.BytesIO(tar.header("a/x", 4, more=words) + b"evil" + tar.padding(4) + tar.END)


PART = "0" * 24


@pytest.mark.parametrize(
    "more",
    [
        {"part": PART, "offset": 0, "total": 8},
        {"part": PART, "offset": 4, "total": 8, "from": 4},
        {"part": PART, "offset": -4, "total": 8, "from": 0},
        {"part": PART, "offset": 0, "total": 3, "from": 0},
        {"part": PART, "offset": 0, "total": "x", "from": 0},
        {"part": PART, "offset": 0},
        {"part": "../../evil", "offset": 0, "total": 8, "from": 0},
        {"part": f"x/../../.{PART}", "offset": 0, "total": 8, "from": 0},
        {"part": PART, "offset": 0, "total": 8, "from": -1},
    ],
)
def test_hostile_pieces_are_refused(box, more):
    with pytest.raises(WorkspaceError, match="did not arrive whole"):
        unpack(piece(**more), box)
    assert sorted(path.name for path in box.parent.iterdir()) == ["box", "precious"]
    assert tree(box) == {}


def test_a_part_that_is_a_link_is_not_followed(box):
    (box / "a").mkdir()
    (box / "a" / f".{PART}.xpm-part").symlink_to("../../precious")
    with Parts() as parts:
        manifest(box, parts.take)
        assert parts.known() == {}
    unpack(piece(part=PART, offset=0, total=4, **{"from": 0}), box)
    assert (box / "a/x").read_bytes() == b"evil"
    assert (box.parent / "precious").read_text() == "precious"


def test_any_tar_reads_what_is_packed(tmp_path):
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "l").symlink_to("x")
    packer = Packer()
    packer.add_folder("empty")
    for name in ("x", "l"):
        packer.add_file(f"{'long/' * 60}{name}", tmp_path / name)
    with packer.finish()[0] as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as opened:
        folder, file, linked = opened.getmembers()
        assert (folder.name, folder.isdir()) == ("empty", True)
        content = opened.extractfile(file)
        assert content is not None
        assert (file.name, content.read()) == (f"{'long/' * 60}x", b"content")
        assert file.mtime == pytest.approx((tmp_path / "x").stat().st_mtime)
        assert (linked.issym(), linked.linkname) == (True, "x")


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
    packer = Packer()
    add_changed(packer, layout, JOB, patterns, max_size, have or {})
    return [entry.name.removeprefix(prefix) for entry in packer.entries]


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
    packer = Packer()
    add_changed(packer, layout, JOB, patterns, HUGE, {})
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


@pytest.mark.parametrize("target", ["/nowhere/at/all", "/dev", "../../nowhere", "/proc/self/nothing"])
def test_links_out_of_it_to_nothing_and_to_folders_are_left(layout, box, target):
    (layout.job(JOB) / "x.json").symlink_to(target)
    assert "x.json" not in sent(layout, box, "**")


@pytest.mark.parametrize("target", ["nowhere", "metrics", "x.json", "metrics/../say.out"])
def test_links_inside_it_come_as_they_are_and_once(layout, box, target):
    (layout.job(JOB) / "x.json").symlink_to(target)
    if ".." in target:  # goes down first: the other side refuses it, so it gets the file
        assert sent(layout, box, "**")["x.json"] == b"say.out"
        return
    assert sent(layout, box, "**")["x.json"] == f"-> {target}"
    assert chosen(layout, "**", have=manifest(box / "jobs" / JOB)) == []


def test_empty_files_and_folders_come(layout, box):
    (layout.job(JOB) / "nothing").touch()
    (layout.job(JOB) / "empty/inner").mkdir(parents=True)
    found = sent(layout, box, "**")
    assert found["nothing"] == b""
    assert (box / "jobs" / JOB / "empty/inner").is_dir()
    assert not (box / "jobs" / JOB / "empty").is_symlink()


def test_a_change_of_a_moment_that_leaves_the_size_is_seen(layout):
    have = manifest(layout.job(JOB))
    path = layout.job(JOB) / "say.out"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    assert chosen(layout, "**", have=have) == ["say.out"]


def test_a_file_system_that_keeps_whole_seconds_only(layout):
    have = {name: (size, time // 10**9 * 10**9) for name, (size, time) in manifest(layout.job(JOB)).items()}
    assert chosen(layout, "**", have=have) == []


def test_a_named_pipe_in_a_job_directory_is_left(layout, box):
    os.mkfifo(layout.job(JOB) / "pipe.json")
    assert "pipe.json" not in sent(layout, box, "**")


def test_nothing_of_a_job_that_is_not_there(tmp_path):
    assert chosen(Layout(tmp_path), "**") == []
