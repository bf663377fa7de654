"""A workspace as the laptop sees it: its jobs, its experiments, and which workspace is meant."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from contract import FIELDS

from experimaestro_hpc.errors import WorkspaceError
from experimaestro_hpc.workspace.diff import ABSENT, Difference, differences
from experimaestro_hpc.workspace.experiments import ExperimentRecord, check_name, note_jobs, read_experiment
from experimaestro_hpc.workspace.index import Index
from experimaestro_hpc.workspace.jobs import resolve, update
from experimaestro_hpc.workspace.params import parameters, value_in_words
from experimaestro_hpc.workspace.recent import find_workspace, is_obvious, remember

SAY, OTHER = "test.say/" + "ab" * 32, "test.other/" + "cd" * 32


def write(root: Path, job: str, **files: Any) -> None:
    """``job__json=…``: documents of a job's directory."""
    folder = root / "jobs" / job
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)


def load_jobs(root: Path) -> list[dict[str, Any]]:
    """All jobs of a workspace, as an index finds them that was not there before."""
    index = Index(root, {"XDG_CACHE_HOME": f"{root}/.cache"})
    try:
        index.update()
        return index.views()
    finally:
        index.close()


def experiments(root: Path) -> list[ExperimentRecord]:
    """All experiments of a workspace, the latest first, each as the index and its own file have it."""
    index = Index(root, {"XDG_CACHE_HOME": f"{root}/.cache"})
    try:
        index.update()
        names = [one["name"] for one in index.experiments()]
    finally:
        index.close()
    return [found for name in names if (found := read_experiment(root / "experiments" / name / "experiment.json"))]


def one(root: Path) -> dict[str, Any]:
    (found,) = load_jobs(root)
    return found


# --- Jobs


def test_a_job_that_was_only_submitted(tmp_path):
    record = {"tags": {"y": 1}, "launcher": "gate", "resources": {"cores": 2}, "created": 5.0, "parents": [OTHER]}
    write(tmp_path, SAY, job__json=record)
    found = one(tmp_path)
    assert found.keys() >= FIELDS
    assert found == {
        **dict.fromkeys(found),
        "id": SAY,
        "task": "test.say",
        "identifier": "ab" * 32,
        "state": "unscheduled",
        "launcher": "gate",
        "experiments": [],
        "tags": {"y": 1},
        "submitted": 5.0,
        "path": str(tmp_path / "jobs" / SAY),
        "resources": {"cores": 2},
        "parents": [OTHER],
        "attempt": 1,
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {"state": "unscheduled", "progress": None}),
        (
            {"progress__json": {"native_id": "17", "host": "n1", "started": 6.0, "progress": [{"value": 0.5}]}},
            {"state": "running", "native_id": "17", "host": "n1", "started": 6.0, "progress": 0.5},
        ),
        ({"progress__json": {"progress": []}}, {"progress": None}),
        (
            {"say__done": {"state": "done", "ended": 9.0, "exit_code": 0, "attempt": 2}},
            {"state": "done", "reason": None, "ended": 9.0, "exit_code": 0, "progress": 1.0, "attempt": 2},
        ),
        (
            {"say__failed": {"reason": "timeout", "message": "m"}, "progress__json": {"progress": [{"value": 0.5}]}},
            {"state": "failed", "reason": "timeout", "message": "m", "progress": 0.5},
        ),
        ({"say__failed": {"reason": "lost"}, "say__done": {}}, {"state": "done"}),
        ({"say__done": "{"}, {"state": "unscheduled"}),
        ({"progress__json": "not json"}, {"state": "unscheduled"}),
    ],
)
def test_what_the_files_say(tmp_path, files, expected):
    write(tmp_path, SAY, job__json={"launcher": "gate"}, **files)
    assert expected.items() <= one(tmp_path).items()


def test_only_jobs_with_a_record_in_the_order_of_their_submission(tmp_path):
    write(tmp_path, SAY, job__json={"created": 9.0})
    write(tmp_path, OTHER, job__json={"created": 5.0, "submitted": 10.0})
    write(tmp_path, "test.say/00", job__json={"id": "x"})
    write(tmp_path, "test.say/11", params__json={})
    (tmp_path / "jobs" / "test.say" / "file").touch()
    (tmp_path / "jobs" / "file").touch()
    assert [found["id"] for found in load_jobs(tmp_path)] == ["test.say/00", SAY, OTHER]


@pytest.mark.parametrize("name", ["a copy", "ab.bak", ".trash", "-", "new\nline", "\u732b"])
def test_folders_that_are_no_jobs_are_passed_over(tmp_path, name):
    """Somebody has copied a job directory to keep it: all other jobs are still to be seen."""
    write(tmp_path, SAY, job__json={"id": "x"})
    write(tmp_path, f"test.say/{name}", job__json={"id": "x"})
    write(tmp_path, "bad\ttask/ab", job__json={"id": "x"})
    assert [found["id"] for found in load_jobs(tmp_path)] == [SAY]


def test_no_jobs(tmp_path):
    assert load_jobs(tmp_path) == load_jobs(tmp_path / "nowhere") == []


def test_tags_are_those_of_the_latest_experiment(tmp_path):
    write(tmp_path, SAY, job__json={"tags": {"y": 1}})
    note_jobs(tmp_path, "first", "s.py", {SAY: {"launcher": "gate", "tags": {"y": 2}}})
    note_jobs(tmp_path, "second", "s.py", {SAY: {"launcher": "gate", "tags": {"z": 3}}})
    note_jobs(tmp_path, "third", "s.py", {OTHER: {"launcher": "gate", "tags": {"q": 3}}})
    assert (one(tmp_path)["experiments"], one(tmp_path)["tags"]) == (["second", "first"], {"z": 3})


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ({}, "unscheduled"),
        ({"parents": [OTHER]}, "unscheduled"),
        ({"native_id": "17"}, "queued"),
        ({"batch": "t0ken"}, "queued"),
        ({"native_id": "17", "parents": [OTHER]}, "waiting"),
        ({"native_id": "17", "parents": [OTHER], "started": 6.0}, "running"),
    ],
)
def test_the_state_as_far_as_this_machine_knows(tmp_path, record, state):
    write(tmp_path, SAY, job__json={"id": SAY, **record})
    assert one(tmp_path)["state"] == state


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"state": "queued", "detail": "Priority", "native_id": "17"}, {"detail": "Priority", "native_id": "17"}),
        ({"state": "running", "progress": [{"value": 0.4}], "submitted": 7.0}, {"progress": 0.4, "submitted": 7.0}),
        ({"state": "running", "submitted": None, "attempt": None}, {"submitted": 5.0, "attempt": 1}),
        ({"state": "failed", "reason": "timeout", "ended": 8.0}, {"reason": "timeout", "ended": 8.0}),
        ({}, {"state": "unscheduled"}),
    ],
)
def test_update(tmp_path, state, expected):
    write(tmp_path, SAY, job__json={"created": 5.0})
    found = one(tmp_path)
    update(found, state)
    assert {**({"state": state["state"]} if state else {}), **expected}.items() <= found.items()


# --- A job by the beginning of its id

VIEWS = [{"id": f"{task}/{digits}", "identifier": digits} for task, digits in (("a.say", "abcd"), ("a.say", "abef"))]
VIEWS.append({"id": "b.other/1234", "identifier": "1234"})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["abc"], ["a.say/abcd"]),
        (["abcd"], ["a.say/abcd"]),
        (["1"], ["b.other/1234"]),
        (["a.say/abe"], ["a.say/abef"]),
        (["b."], ["b.other/1234"]),
        (["B.Other/12"], ["b.other/1234"]),
        ([" ABC "], ["a.say/abcd"]),
        (["12", "abc"], ["b.other/1234", "a.say/abcd"]),
        (["12", "1234", "b.other"], ["b.other/1234"]),
        ([], []),
    ],
)
def test_resolve(wanted, found):
    assert [view["id"] for view in resolve(VIEWS, wanted)] == found


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("ab", "2 jobs begin with 'ab'"),
        ("a.say", "2 jobs begin with 'a.say'"),
        ("ff", "no job begins with 'ff'"),
        ("", "no job begins with ''"),
        ("  ", "no job begins with"),
        ("abcde", "no job begins with"),
        ("say/ab", "no job begins with"),
        ("*", "no job begins with"),
    ],
)
def test_a_prefix_that_fits_none_or_several(prefix, words):
    with pytest.raises(WorkspaceError, match=words) as caught:
        resolve(VIEWS, ["1234", prefix])
    if words.startswith("2"):
        assert caught.value.hint.splitlines()[1:] == ["a.say/abcd", "a.say/abef"]


def test_not_all_of_many_are_listed():
    with pytest.raises(WorkspaceError) as caught:
        resolve([{"id": f"t/a{n}", "identifier": f"a{n}"} for n in range(500)], ["a"])
    assert "500 jobs" in caught.value.what
    assert len(caught.value.hint.splitlines()) == 11


# --- Experiments


@pytest.mark.parametrize("name", ["a", "it's $(x)", "猫", "x" * 200, "...", "-rf"])
def test_names_of_experiments(name, tmp_path):
    note_jobs(tmp_path, check_name(name), "s.py", {})
    assert [found.name for found in experiments(tmp_path)] == [name]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\nb", "\0", "x" * 201])
def test_names_that_cannot_be_folders(name, tmp_path):
    with pytest.raises(WorkspaceError, match="cannot be the name of an experiment"):
        note_jobs(tmp_path, name, "s.py", {})


def test_an_experiment_keeps_the_jobs_of_all_its_runs(tmp_path):
    note_jobs(tmp_path, "mine", "old.py", {SAY: {"tags": {"path": Path("/x")}}})
    note_jobs(tmp_path, "other", "s.py", {})
    note_jobs(tmp_path, "mine", "new.py", {OTHER: {"tags": {}}})
    mine, other = experiments(tmp_path)
    assert (mine.name, mine.jobs.keys(), mine.latest, mine.script) == ("mine", {SAY, OTHER}, [OTHER], "new.py")
    assert mine.jobs[SAY] == {"tags": {"path": "/x"}}
    assert other.name == "other"
    assert mine.updated >= other.updated


def test_two_runs_at_once_do_not_lose_each_others_jobs(tmp_path):
    def note(number: int) -> None:
        for count in range(10):
            note_jobs(tmp_path, "mine", "s.py", {f"test.say/{number}{count}": {}})

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=note, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    (mine,) = experiments(tmp_path)
    assert len(mine.jobs) == 30


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_an_experiment_file_that_is_broken_is_passed_over(tmp_path, text):
    note_jobs(tmp_path, "mine", "s.py", {})
    (tmp_path / "experiments" / "broken").mkdir()
    (tmp_path / "experiments" / "broken" / "experiment.json").write_text(text)
    assert [found.name for found in experiments(tmp_path)] == ["mine"]


def test_an_experiment_file_of_a_newer_version(tmp_path):
    note_jobs(tmp_path, "mine", "s.py", {})
    path = tmp_path / "experiments" / "mine" / "experiment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "something": "new"}))
    assert [found.name for found in experiments(tmp_path)] == ["mine"]


# --- Which workspace


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path / "home")}


def places(tmp_path: Path, *names: str) -> list[Path]:
    for name in names:
        (tmp_path / name).mkdir(exist_ok=True)
    return [tmp_path / name for name in names]


def test_the_one_that_was_used_last(tmp_path, environ):
    first, second = places(tmp_path, "first", "it's $(second)")
    with pytest.raises(WorkspaceError, match="no workspace is known"):
        find_workspace(None, environ)
    remember(first, environ)
    remember(second, environ)
    assert find_workspace(None, environ) == second
    remember(first, environ)
    assert find_workspace(None, environ) == first
    first.rmdir()
    assert find_workspace(None, environ) == second
    second.rmdir()
    with pytest.raises(WorkspaceError, match="no workspace is known"):
        find_workspace(None, environ)


def test_one_near_the_current_folder_comes_before_one_that_was_used_later(tmp_path, environ, monkeypatch):
    study, other = places(tmp_path, "study", "other")
    here, there = study / "work", other / "work"
    for one in (here, there):
        one.mkdir()
        remember(one, environ)
    assert find_workspace(None, environ) == there
    monkeypatch.chdir(study)
    assert find_workspace(None, environ) == here
    (here / "jobs").mkdir()
    monkeypatch.chdir(here / "jobs")
    assert find_workspace(None, environ) == here
    monkeypatch.chdir("/")
    assert find_workspace(None, environ) == there, "both are near"


def test_the_workspace_that_one_stands_in_and_whether_another_could_be_meant(tmp_path, environ, monkeypatch):
    study, other = places(tmp_path, "study", "other")
    for root in (study / "old", study / "new", other / "work"):
        root.mkdir()
        remember(root, environ)
    monkeypatch.chdir(other)
    assert is_obvious(find_workspace(None, environ), environ)
    monkeypatch.chdir(study)
    assert find_workspace(None, environ) == study / "new"
    assert not is_obvious(study / "new", environ), "two are below"
    (other / "work").rename(study / "unknown")
    for name in ("jobs", ".xpm"):
        (study / "unknown" / name).mkdir()
    monkeypatch.chdir(study / "unknown" / "jobs")
    assert find_workspace(None, environ) == study / "unknown", "though nothing was run there"
    assert is_obvious(study / "unknown", environ)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_workspace(None, environ) == study / "new" and not is_obvious(study / "new", environ)
    (study / "old").rmdir()
    assert not is_obvious(study / "new", environ), "it is elsewhere"
    (tmp_path / "elsewhere").rmdir()
    assert find_workspace(None, environ) == study / "new"


def test_the_given_one_wins_and_then_the_variable(tmp_path, environ, monkeypatch):
    first, second, third = places(tmp_path, "first", "second", "third")
    remember(first, environ)
    assert find_workspace(None, {**environ, "XPM_HPC_WORKDIR": str(second)}) == second
    assert find_workspace(str(third), {**environ, "XPM_HPC_WORKDIR": str(second)}) == third
    monkeypatch.chdir(tmp_path)
    assert find_workspace("second", environ) == second
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_workspace("~/third", environ) == third


@pytest.mark.parametrize("given", ["/nowhere/at/all", "file"])
def test_a_given_one_that_is_no_folder(tmp_path, environ, monkeypatch, given):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for call in (lambda: find_workspace(given, environ), lambda: find_workspace("", {"XPM_HPC_WORKDIR": given})):
        with pytest.raises(WorkspaceError, match="no such folder"):
            call()


def test_the_list_stays_short_and_clean(tmp_path, environ):
    for number in range(30):
        remember(tmp_path / str(number), environ)
    remember(tmp_path / "29", environ)
    remember(tmp_path / "new\nline", environ)
    lines = (tmp_path / "state" / "xpm-hpc" / "workspaces").read_text().splitlines()
    assert lines == [str(tmp_path / str(number)) for number in range(29, 9, -1)]


def test_a_home_that_cannot_be_written_to_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    remember(tmp_path, {"XDG_STATE_HOME": str(tmp_path / "file")})
    with pytest.raises(WorkspaceError):
        find_workspace(None, {"XDG_STATE_HOME": str(tmp_path / "file")})


# --- Parameters


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({}, {}),
        ({"configs": []}, {}),
        ({"configs": [{"params": {"x": 1, "s": "a b", "n": None}}]}, {"x": "1", "s": '"a b"', "n": "null"}),
        ({"configs": [{"params": {"l": [1, 2], "d": {"a": 1}}}]}, {"l": "[1, 2]", "d": '{"a": 1}'}),
        ({"configs": [{"params": {"t": {"$task": SAY}}}]}, {"t": "test.say/abababab"}),
        (
            {"configs": [{"params": {"l": [{"$task": SAY}, {"$config": 1}]}}, {"params": {"size": 3}}]},
            {"l[0]": "test.say/abababab", "l[1].size": "3"},
        ),
        (
            {"configs": [{"params": {"a": {"$config": 1}, "b": {"$config": 1}}}, {"params": {"size": 3}}]},
            {"a.size": "3", "b": "(as above)"},
        ),
        (
            {"configs": [{"params": {"a": {"$config": 1}}}, {"params": {}, "class": {"name": "Adam"}}]},
            {"a": "Adam()"},
        ),
    ],
)
def test_parameters(document, found):
    assert parameters(document) == found


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        (True, "True"),
        (1e-5, "1e-05"),
        ("a 'b' é", "\"a 'b' é\""),
        ([1, ["a"]], '[1, ["a"]]'),
        ({"a": {"$path": "/x y"}}, '{"a": /x y}'),
        ({}, "{}"),
        ({"$tuple": [1]}, "(1,)"),
        ({"$tuple": [{"$config": 0}, {"$task": SAY}]}, "(Adam(...), test.say/abababab)"),
        ({"$set": []}, "set()"),
        ({"$set": [1, 2]}, "{1, 2}"),
        ({"$dict": [[1, None], [{"$enum": {"name": "K", "member": "A"}}, {"$float": "nan"}]]}, "{1: None, K.A: nan}"),
        ({"$int": "0x10"}, "0x10"),
        ({"$str": [0xD800]}, "'\\ud800'"),
        ({"$enum": {}}, '{"$enum": {}}'),
        ({"$new": 1}, '{"$new": 1}'),
        ({"$config": 7}, '{"$config": 7}'),
    ],
)
def test_values_in_words(value, words):
    assert value_in_words(value, [{"class": {"name": "Adam"}}]) == words


# --- Which parameters differ


def document(*configs: tuple[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"configs": [{"class": {"module": "m", "name": name}, "params": params, **more} for name, params in configs]}


@pytest.mark.parametrize(
    ("left", "right", "found"),
    [
        (document(("Say", {"x": 1})), document(("Say", {"x": 1})), []),
        (document(("Say", {"x": 1})), document(("Say", {"x": 2})), [("x", "1", "2")]),
        (document(("Say", {"x": 1})), document(("Say", {"x": "1"})), [("x", "1", '"1"')]),
        (document(("Say", {})), document(("Say", {"x": None})), [("x", ABSENT, "null")]),
        (document(("A", {})), document(("B", {})), [("(class)", "m.A", "m.B")]),
        (document(("A", {"l": [1, 2]})), document(("A", {"l": [1, 3]})), [("l[1]", "2", "3")]),
        (document(("A", {"l": [1]})), document(("A", {"l": [1, 3]})), [("l[1]", ABSENT, "3")]),
        (
            document(("A", {"m": {"$config": 1}}), ("B", {"x": 1})),
            document(("A", {"m": {"$config": 1}}), ("B", {"x": 2})),
            [("m.x", "1", "2")],
        ),
        (
            document(("A", {"m": {"$config": 1}, "n": {"$config": 1}}), ("B", {"x": 1})),
            document(("A", {"m": {"$config": 2}, "n": {"$config": 1}}), ("B", {"x": 1}), ("B", {"x": 2})),
            [("m.x", "1", "2")],
        ),
        (
            document(("A", {"t": {"$task": "a/1"}})),
            document(("A", {"t": {"$task": "a/2"}})),
            [("t", "a/1", "a/2")],
        ),
        (document(("A", {}), source="a/1"), document(("A", {})), [("(made by)", "a/1", ABSENT)]),
    ],
)
def test_differences(left, right, found):
    assert differences(left, right) == [Difference(*one) for one in found]
    assert differences(right, left) == [Difference(place, right, left) for place, left, right in found]


@pytest.mark.parametrize("kind", ["$tuple", "$set", "$frozenset"])
def test_differences_inside_of_what_json_has_no_form_for(kind):
    left = document(("Sum", {"many": {kind: [{"$config": 1}]}}), ("M", {"size": 3}))
    right = document(("Sum", {"many": {kind: [{"$config": 1}]}}), ("M", {"size": 4}))
    assert differences(left, right) == [("many[0].size", "3", "4")]
    assert differences(left, document(("Sum", {"many": [1]}))) != []


def test_differences_of_the_tasks_that_are_needed():
    """Inside of them, at any depth; where one cannot be read, or the other has none, by their ids."""
    train = {"a/1": document(("Train", {"lr": 0.1})), "a/2": document(("Train", {"lr": 0.2}))}
    evaluate = {"b/1": document(("Eval", {"m": {"$task": "a/1"}})), "b/2": document(("Eval", {"m": {"$task": "a/2"}}))}
    left = document(("Sum", {"l": [{"$task": "b/1"}], "best": {"$task": "a/1"}, "made": {"$config": 1}}), ("M", {}))
    right = document(("Sum", {"l": [{"$task": "b/2"}], "best": {"$task": "a/2"}, "made": {"$config": 1}}), ("M", {}))
    left["configs"][1]["source"], right["configs"][1]["source"] = "a/1", "a/2"
    assert differences(left, right, {**train, **evaluate}.get) == [("best.lr", "0.1", "0.2")], "each pair is told once"
    assert differences(left, right, evaluate.get) == [
        ("best", "a/1", "a/2"),
        ("l[0].m", "a/1", "a/2"),
        ("made (made by)", "a/1", "a/2"),
    ]
    assert differences(train["a/1"], evaluate["b/1"], train.get) == [
        ("(class)", "m.Train", "m.Eval"),
        ("lr", "0.1", ABSENT),
        ("m", ABSENT, "a/1"),
    ]
