"""Objects with parameters: how they are made, changed, labelled, shown and named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import experimaestro_hpc
from experimaestro_hpc import (
    Config,
    Constant,
    Meta,
    Param,
    PathGenerator,
    ResumableTask,
    Task,
    XpmError,
    field,
    identifier,
    tag,
    tags,
)
from experimaestro_hpc.config.declare import JobPath
from experimaestro_hpc.config.objects import job_name, module_name, task_id, type_name
from experimaestro_hpc.config.types import fields_of, walk
from experimaestro_hpc.errors import ParameterError

HERE = Path(__file__).name


class Model(Config):
    layers: Param[int] = 2
    names: Param[list[str]] = ["a"]  # noqa: RUF012
    note: Meta[str] = ""
    version: Constant[int] = 1
    plain: int = 5
    _private = 6


class Say(Task):
    word: Param[str]
    model: Param[Model] = Model(layers=3)
    times: Param[int] = field(default=2)
    log: Meta[Path] = field(default_factory=PathGenerator("log.txt"))

    def execute(self):
        print(self.word)


class Shout(Say):
    times = 3
    loud: Param[bool] = True


class Node(Config):
    left: Param[Node | None] = None
    right: Param[Node | None] = None
    value: Param[Any] = None


def test_defaults():
    say = Say(word="x")
    assert (say.word, say.times, say.model.layers, say.model.version) == ("x", 2, 3, 1)
    assert isinstance(say.log, JobPath)
    assert repr(say.log) == "<log.txt in the job directory>"
    assert list(fields_of(Say)) == ["word", "model", "times", "log"]


def test_what_is_no_parameter_stays_what_it_is():
    assert list(fields_of(Model)) == ["layers", "names", "note", "version"]
    assert (Model().plain, Model()._private) == (5, 6)


def test_inherited_parameters():
    assert list(fields_of(Shout)) == ["word", "model", "times", "log", "loud"]
    assert (Shout(word="x").times, Shout(word="x", times=7).times, Say(word="x").times) == (3, 7, 2)


@pytest.mark.parametrize("make", [Say, Say.C], ids=["Say", "Say.C"])
def test_both_spellings(make):
    say = make(word="x")
    assert type(say) is Say
    assert identifier(say) == identifier(Say(word="x"))
    assert Shout.C is Shout


@pytest.mark.parametrize("name", ["C", "cls", "self", "name", "values", "config", "type"])
def test_names_that_a_parameter_may_have(name):
    cls = type("Odd", (Config,), {"__annotations__": {name: Param[float]}})
    assert getattr(cls(**{name: 2.5}), name) == 2.5


@pytest.mark.parametrize("name", ["tag", "submit", "result", "execute"])
def test_names_that_a_parameter_cannot_have(name):
    """Otherwise ``task.result()`` calls the parameter's value."""
    cls = type("Odd", (Task,), {"__annotations__": {name: Param[float]}})
    with pytest.raises(ParameterError, match=rf"Odd\.{name} cannot be a parameter: it is a method of (Task|Config)"):
        cls(**{name: 2.5})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "Say needs a value for 'word' (str)"),
        ({"word": 1}, "Say.word must be str, not 1 (int)"),
        ({"word": "x", "time": 1}, "Say has no parameter 'time'\n  did you mean 'times'?"),
        ({"word": "x", "zzzz": 1}, "Say has no parameter 'zzzz'\n  it has: word, model, times, log"),
        ({"word": "x", "model": Model}, "Say.model must be Model, not <class 'test_objects.Model'> (type)"),
        ({"word": "x", "log": "log.txt"}, "Say.log must be Path, not 'log.txt' (str)"),
    ],
)
def test_wrong_values(values, message):
    with pytest.raises(ParameterError) as caught:
        Say(**values)
    what = str(caught.value)
    assert message in what
    assert what.startswith(f"{__file__}:")  # the line of the user's own code
    assert isinstance(caught.value, TypeError)
    assert caught.value.exit_status == 2


def test_a_constant_cannot_be_given_or_changed():
    with pytest.raises(ParameterError, match=r"Model\.version is a constant and cannot be given"):
        Model(version=2)
    with pytest.raises(ParameterError, match=r"Model\.version is a constant and cannot change"):
        Model().version = 2


def test_positions_are_no_names():
    with pytest.raises(TypeError):
        Say("x")


def test_changes_are_checked():
    say = Say(word="x")
    say.word = "y"
    say.other = object()  # no parameter
    assert say.word == "y"
    with pytest.raises(ParameterError, match=r"Say\.word must be str, not 1 \(int\)"):
        say.word = 1
    assert say.word == "y"


def test_a_submitted_object_does_not_change():
    say = Say(word="x")
    say.__dict__["__xpm__"].sealed = True
    with pytest.raises(ParameterError, match=r"Say\.word cannot change: the object was submitted"):
        say.word = "y"
    say.note = "no parameter"
    assert say.word == "x"


# --- defaults belong to one object ---


def test_containers_are_copied():
    given = [["a"]]
    node = Node(value=given)
    given[0].append("b")
    assert node.value == [["a"]]


def test_a_default_container_is_not_shared():
    first = Model()
    first.names.append("b")
    assert Model().names == ["a"]
    assert identifier(first) != identifier(Model())


def test_a_default_object_cannot_be_changed_for_all():
    """Otherwise the changed value would still count as the default, and have the identifier of the old one."""
    say = Say(word="x")
    with pytest.raises(ParameterError, match=r"Model\.layers cannot change: .* is a default that others share"):
        say.model.layers = 9
    say.model = Model(layers=9)
    assert Say(word="x").model.layers == 3
    assert identifier(say) != identifier(Say(word="x"))


@pytest.mark.parametrize("name", ["/etc/passwd", "..", "a/../../b", "../b", "", ".", "a\0b"])
def test_a_generated_path_is_in_the_job_directory(name):
    with pytest.raises(ParameterError, match="is no path below the job directory"):
        PathGenerator(name)


@pytest.mark.parametrize("name", ["a b $(x)", "a/b", "..a", Path("a/b")])
def test_names_of_generated_paths(name):
    assert PathGenerator(name)().name == str(name)


def test_default_factories():
    made = []

    class Counted(Config):
        n: Param[list[int]] = field(default_factory=lambda: made)

    first = Counted()
    made.append(1)
    assert (first.n, Counted().n) == ([], [1])


def test_what_a_factory_makes_is_checked():
    class Wrong(Config):
        n: Param[int] = field(default_factory=lambda: "1")

    with pytest.raises(ParameterError, match=r"Wrong\.n must be int, not '1' \(str\)"):
        Wrong()


def test_a_wrong_default_names_the_class():
    class Wrong(Config):
        n: Param[int] = "1"

    with pytest.raises(ParameterError, match=r"^class test_objects\..*Wrong: .*Wrong\.n must be int, not '1' \(str\)$"):
        Wrong(n=1)


def test_a_constant_needs_a_value():
    class Wrong(Config):
        n: Constant[int]

    with pytest.raises(ParameterError, match="constant 'n' has no value"):
        Wrong()


# --- graphs of objects ---


def diamond(depth: int) -> Node:
    node = Node()
    for _ in range(depth):
        node = Node(left=node, right=node)
    return node


def test_walk_meets_each_once_parts_first():
    top = diamond(400)
    found = list(walk(top))
    assert len(found) == 401
    place = {id(node): number for number, node in enumerate(found)}
    assert all(place[id(node.left)] < place[id(node)] for node in found if node.left)


def test_walk_passes_by_what_is_left_out():
    inner = Node()
    middle = Node(left=inner)
    top = Node(left=middle, right=inner)
    assert list(walk(top, leave_out=lambda node: node is middle)) == [inner, top]
    assert list(walk(top, leave_out=lambda node: node is top)) == []


@pytest.mark.parametrize("between", [0, 1, 3000])
def test_an_object_that_holds_itself(between):
    first = last = Node()
    for _ in range(between):
        last = Node(left=last)
    first.right = last
    with pytest.raises(ParameterError, match="an object holds itself: Node > Node"):
        identifier(first)
    with pytest.raises(ParameterError, match="an object holds itself"):
        tags(first)
    assert "..." in repr(first)


@pytest.mark.parametrize("shape", [diamond(400), Node(value=[diamond(400)] * 3), Node(value={"a": diamond(30)})])
def test_an_error_about_a_large_object_is_short(shape):
    with pytest.raises(ParameterError) as caught:
        Say(word=shape)
    assert "Say.word must be str, not Node(" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_repr():
    assert repr(Model(layers=3)) == "Model(layers=3, names=['a'], note='', version=1)"
    assert repr(Node(value={"a": [Node(value=Node())]})) == "Node(left=None, right=None, value={'a': [Node(...)]})"


# --- tags ---


def test_tags_of_the_parts_and_its_own_last():
    inner = Model().tag("size", 1).tag("who", "inner")
    say = Say(word="x", model=inner).tag("who", "say").tag(3, None)
    assert tags(say) == {"size": 1, "who": "say", "3": None}
    assert tags(inner) == {"size": 1, "who": "inner"}
    assert tags(Say(word="x")) == {}


def test_tag_gives_the_object_back():
    model = Model()
    assert model.tag("a", 1) is model
    assert tag(model, "b", 2) is model
    assert tags(model) == {"a": 1, "b": 2}


def test_a_task_has_the_tags_of_its_parents():
    parent = Node(value=1).tag("a", 1)
    assert tags(Node(left=Node(right=parent))) == {"a": 1}


# --- tasks ---


def test_a_task_that_was_not_submitted():
    say = Say(word="x")
    assert say.__xpmtask__ is say
    assert Model().__xpmtask__ is None
    for call, message in [
        (say.submit, "a task was submitted outside of an experiment\n  submit tasks inside: with experiment("),
        (say.result, "Say was not submitted\n  call submit() first"),
        (lambda: say.__xpm_stdout__, "Say has no log yet\n  call submit() first"),
        (lambda: say.__xpm_stderr__, "Say has no log yet\n  call submit() first"),
    ]:
        with pytest.raises(XpmError) as caught:
            call()
        assert message in str(caught.value)


def test_logs_are_in_the_job_directory():
    say = Say(word="x")
    say.__dict__["__xpm__"].directory = "/w/jobs/test_objects.say/1"
    assert say.__xpm_stdout__ == Path("/w/jobs/test_objects.say/1/say.out")
    assert say.__xpm_stderr__ == Path("/w/jobs/test_objects.say/1/say.err")


def test_execute_is_the_users_to_write():
    class Lazy(ResumableTask):
        pass

    with pytest.raises(NotImplementedError, match="Lazy has no execute method"):
        Lazy().execute()


# --- names ---


class Outer:
    class Inner(Config):
        pass


class Renamed(Task):
    __xpmid__ = "old.place.Renamed"


class BelowRenamed(Renamed):
    pass


@pytest.mark.parametrize(
    ("cls", "name", "stem"),
    [
        (Say, "test_objects.Say", "say"),
        (Outer.Inner, "test_objects.Outer.Inner", "inner"),
        (Renamed, "old.place.Renamed", "renamed"),
        (BelowRenamed, "test_objects.BelowRenamed", "belowrenamed"),  # an explicit id is for one class
    ],
)
def test_type_names(cls, name, stem):
    assert type_name(cls) == name
    assert task_id(cls) == name.lower()
    assert job_name(task_id(cls)) == stem


def test_job_name_of_a_name_without_dots():
    assert job_name("say") == "say"


NAME = """
from experimaestro_hpc import Task, identifier
class Say(Task): pass
if __name__ == "__main__":
    from experimaestro_hpc.config.objects import type_name
    print(type_name(Say), identifier(Say()))
"""


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (["hello world.py"], "hello world.Say"),
        (["./pkg/script.py"], "script.Say"),
        (["-m", "pkg.script"], "pkg.script.Say"),
        (["-m", "pkg"], "pkg.Say"),
        (
            ["-c", "import pkg.script as s, experimaestro_hpc as x; print('imported', x.identifier(s.Say()))"],
            "imported",
        ),
        (["-c", NAME], "__main__.Say"),
    ],
)
def test_main_has_the_name_of_its_file(tmp_path, start, name):
    (tmp_path / "hello world.py").write_text(NAME)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    for file in ("script.py", "__main__.py"):
        (tmp_path / "pkg" / file).write_text(NAME)
    command = [sys.executable, *start]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.rsplit(maxsplit=1)
    assert said[0] == name
    if name == "imported":
        again = [sys.executable, "-m", "pkg.script"]
        assert said[1] in subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=True).stdout


def test_module_name_of_an_import():
    assert module_name("a.b") == "a.b"


def test_public_names():
    for name in experimaestro_hpc.__all__:
        assert getattr(experimaestro_hpc, name) is not None
    assert dir(experimaestro_hpc) == sorted(experimaestro_hpc.__all__)
    with pytest.raises(AttributeError, match="module 'experimaestro_hpc' has no attribute 'Nothing'"):
        _ = experimaestro_hpc.Nothing
