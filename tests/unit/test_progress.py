"""Progress: what is written, how often, and that it never stops a task."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from experimaestro_hpc import progress, tqdm
from experimaestro_hpc.runtime import files
from experimaestro_hpc.runtime import progress as module
from experimaestro_hpc.runtime.files import read_json, write_json

START = {"host": "n1", "attempt": 2}


class Clock:
    """Stands for ``time``; each look at it may take time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step = 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now

    def time(self) -> float:
        return self.now + 1e9


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


class Watched:
    """A reporter's file, and how often it was written."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.writes = 0

        def count(name: str, document: dict[str, Any], **options: Any) -> None:
            self.writes += 1
            write_json(name, document, **options)

        monkeypatch.setattr(module, "write_json", count)

    @property
    def document(self) -> Any:
        return json.loads(self.path.read_text())

    @property
    def levels(self) -> list[tuple[float, str]]:
        return [(level["value"], level["desc"]) for level in self.document["progress"]]


@pytest.fixture
def watched(tmp_path, monkeypatch, clock):
    """The job of this process, whose clock goes on by itself so that all is written."""
    monkeypatch.setattr(module._Process, "reporter", None)
    monkeypatch.setattr(module._Process, "pid", 0)
    made = Watched(tmp_path / "progress.json", monkeypatch)
    module.use(module.Reporter(str(made.path), dict(START)))
    clock.step = module.INTERVAL
    return made


def test_outside_of_a_job():
    assert module._Process.reporter is None
    progress(0.5)
    progress("nonsense", level=-3)
    assert list(tqdm([1, 2])) == [1, 2]


def test_the_start_is_written_at_once(watched, clock):
    assert watched.document == {**START, "progress": [], "updated": 1e9 + 1000}


def test_the_document(watched, clock):
    progress(0.25, desc="all")
    assert watched.document == {**START, "progress": [{"value": 0.25, "desc": "all"}], "updated": clock.time()}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, 0.0),
        (0.5, 0.5),
        (1, 1.0),
        (True, 1.0),
        (-0.1, 0.0),
        (1.5, 1.0),
        (math.inf, 1.0),
        (-math.inf, 0.0),
        (math.nan, 0.0),
    ],
)
def test_values(watched, value, shown):
    progress(value)
    assert watched.levels == [(shown, "")]


@pytest.mark.parametrize(
    ("calls", "levels"),
    [
        ([(0.1, 0, "a"), (0.2, 0, None)], [(0.2, "a")]),
        ([(0.1, 0, "a"), (0.2, 0, "")], [(0.2, "")]),
        ([(0.1, 0, "a"), (0.5, 1, "b")], [(0.1, "a"), (0.5, "b")]),
        ([(0.5, 1, "b")], [(0.0, ""), (0.5, "b")]),
        ([(0.5, 2, 3)], [(0.0, ""), (0.0, ""), (0.5, "3")]),
        # a new value of the whole ends its parts
        ([(0.1, 0, "a"), (0.9, 1, "b"), (0.2, 0, None)], [(0.2, "a")]),
        ([(0.1, 0, "a"), (0.9, 1, "b"), (0.9, 2, "c"), (0.95, 1, None)], [(0.1, "a"), (0.95, "b")]),
        ([(0.5, 0, "\ud800 é $(x)\n")], [(0.5, "\ud800 é $(x)\n")]),
    ],
)
def test_levels(watched, calls, levels):
    for value, level, desc in calls:
        progress(value, level=level, desc=desc)
    assert watched.levels == levels


def test_a_tight_loop_writes_a_few_times_a_second(watched, clock):
    clock.step = 0.0
    before = watched.writes
    for number in range(10_000):
        clock.now += 0.001  # ten seconds in all
        progress(number / 20_000)
    assert 15 <= watched.writes - before <= 20
    assert watched.levels[0][0] > 0.47


def test_the_first_report_and_the_end_are_written_at_once(watched, clock):
    clock.step = 0.0
    progress(0.5)
    assert watched.levels == [(0.5, "")]
    progress(0.6)
    assert watched.levels == [(0.5, "")]
    clock.now += module.INTERVAL
    progress(0.7)
    assert watched.levels == [(0.7, "")]
    progress(1.0)
    assert watched.levels == [(1.0, "")]


def test_a_report_that_cannot_be_written_stops_nothing(watched, tmp_path):
    watched.path.unlink()
    watched.path.mkdir()
    progress(0.5)
    watched.path.rmdir()
    progress(0.6)
    assert watched.levels == [(0.6, "")]
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_a_child_process_does_not_report(watched, monkeypatch):
    """Workers of a data loader report their own loops, not the task's."""
    monkeypatch.setattr(os, "getpid", lambda: -1)
    progress(0.5)
    assert watched.levels == []


# --- tqdm ---


class Odd:
    """Like an array: its truth is not known."""

    def __init__(self, *items: int) -> None:
        self.items = items

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self):
        return iter(self.items)


@pytest.mark.parametrize(
    ("items", "options", "levels"),
    [
        ([1, 2], {}, [[], [(0.5, "")]]),
        ((1, 2), {"desc": "a"}, [[], [(0.5, "a")]]),
        (range(4), {}, [[], [(0.25, "")], [(0.5, "")], [(0.75, "")]]),
        (Odd(1, 2), {}, [[], [(0.5, "")]]),
        (iter([1, 2]), {}, [[], []]),
        (iter([1, 2]), {"total": 4}, [[], [(0.25, "")]]),
        ([1, 2], {"total": 4}, [[], [(0.25, "")]]),
        (iter([1, 2]), {"total": 0}, [[], []]),
        ([1, 2], {"level": 1}, [[], [(0.0, ""), (0.5, "")]]),
        ([1, 2], {"leave": False, "unit": "B", "disable": True}, [[], [(0.5, "")]]),
        ([], {}, []),
        ({"a": 1}, {}, [[]]),
    ],
)
def test_a_loop(watched, items, options, levels):
    expected = list(items) if not hasattr(items, "__next__") else [1, 2]
    seen = []
    found = []
    for item in tqdm(items, **options):
        seen.append(watched.levels)
        found.append(item)
    assert found == expected
    assert seen == levels


def test_the_end_of_a_loop(watched):
    list(tqdm(range(3)))
    assert watched.levels == [(1.0, "")]
    list(tqdm(iter(range(9)), total=3, desc="more than said"))
    assert watched.levels == [(1.0, "more than said")]


def test_by_hand(watched):
    with tqdm(total=10, desc="a") as bar:
        bar.update()
        assert watched.levels == [(0.1, "a")]
        bar.set_description("b")
        bar.update(4)
        assert watched.levels == [(0.5, "b")]
        bar.set_postfix(loss=3)
        bar.update(0)
    bar.close()
    assert (bar.n, bar.total) == (5, 10)
    assert list(tqdm()) == []


def test_loops_in_loops(watched):
    for _ in tqdm(range(2), desc="epoch"):
        for _ in tqdm(range(2), desc="batch", level=1):
            pass
        inner = watched.levels
    assert inner == [(0.5, "epoch"), (1.0, "batch")]
    assert watched.levels == [(1.0, "epoch")]


def test_an_error_in_a_loop_is_the_loops(watched):
    def broken():
        yield 1
        raise KeyError("x")

    with pytest.raises(KeyError):
        list(tqdm(broken(), total=2))
    assert watched.levels == [(0.5, "")]


# --- the files ---


def test_write_and_read(tmp_path):
    path = str(tmp_path / "a.json")
    write_json(path, {"a": ["é\ud800", None, 1.5]})
    assert read_json(path) == {"a": ["é\ud800", None, 1.5]}
    write_json(path, {}, durable=True)
    assert read_json(path) == {}
    assert Path(path).read_bytes() == b"{}\n"


@pytest.mark.parametrize("text", [None, "", "{", '{"a": 1', "[1]", "3", "\udcff"])
def test_what_is_not_whole_is_nothing(tmp_path, text):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(os.fsencode(text))
    assert read_json(str(path)) is None


def test_below_a_file_there_is_nothing(tmp_path):
    (tmp_path / "a").touch()
    assert read_json(str(tmp_path / "a" / "b.json")) is None


@pytest.mark.parametrize(
    ("name", "document", "error"),
    [("a.json", {"a": object()}, TypeError), ("gone/a.json", {}, FileNotFoundError), ("folder", {}, IsADirectoryError)],
)
def test_a_failed_write_leaves_what_was_there(tmp_path, name, document, error):
    (tmp_path / "folder").mkdir()
    write_json(str(tmp_path / "a.json"), {"old": 1})
    with pytest.raises(error):
        write_json(str(tmp_path / name), document)
    assert read_json(str(tmp_path / "a.json")) == {"old": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "folder"]


def test_a_full_disk(tmp_path, monkeypatch):
    """The system may also take a part only."""
    path = str(tmp_path / "a.json")
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))
    write_json(path, {"a": "long enough"})
    assert read_json(path) == {"a": "long enough"}

    def full(handle: int, data: bytes) -> int:
        real(handle, data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"b": 1})
    assert read_json(path) == {"a": "long enough"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("durable", [True, False])
def test_durable_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, durable):
    order = []
    monkeypatch.setattr(files.os, "fsync", lambda handle: order.append("fsync"))
    real = os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (order.append("replace"), real(a, b)))
    write_json(str(tmp_path / "a.json"), {}, durable=durable)
    assert order == (["fsync", "replace"] if durable else ["replace"])
