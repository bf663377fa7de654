"""params.json: from a task to text, and from the text to an equal task inside a job."""

from __future__ import annotations

import enum
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_directory import Job, Workspace

from experimaestro_hpc import Config, Meta, Param, PathGenerator, RunMode, Task, experiment, field, identifier
from experimaestro_hpc.config import jsonlight
from experimaestro_hpc.config.load import Loader
from experimaestro_hpc.config.serialize import job_id, own_parts, params_text, parents_of
from experimaestro_hpc.driver.collect import _made_by
from experimaestro_hpc.errors import ParameterError, WorkspaceError

CODE = Path(__file__).parent


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Box(Config):
    value: Param[Any]
    more: Param[Any] = None


class Encoder(Config):
    size: Param[int] = 1
    path: Meta[Path] = field(default_factory=PathGenerator("encoder.pt"))


class Model(Config):
    encoder: Param[Encoder] = Encoder()
    path: Meta[Path] = field(default_factory=PathGenerator("model.pt"))


class Learn(Task):
    model: Param[Model]
    value: Param[Any] = None

    def task_outputs(self, dep):
        return dep(self.model)


class Use(Task):
    model: Param[Any] = None
    value: Param[Any] = None
    other: Param[Any] = None


class Order(Config):
    """Notes in which order the objects of a job are finished."""

    seen: list[str] = []  # noqa: RUF012
    name: Param[str]
    a: Param[Any] = None
    b: Param[Any] = None

    def __post_init__(self):
        assert not isinstance(self.a, Order) or self.a.name
        Order.seen.append(self.name)


class Holder:
    class Inner(Task):
        value: Param[Any] = None

        class Colour(enum.Enum):
            RED = 1


class Store:
    """A workspace's jobs on the disk."""

    def __init__(self, root: Path) -> None:
        self.jobs = root / "jobs"

    def write(self, *tasks: Task) -> None:
        for task in tasks:
            folder = self.jobs / job_id(task)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "params.json").write_text(params_text(task, CODE), encoding="ascii")

    def load(self, task: Task) -> Any:
        return Loader(str(self.jobs), str(CODE)).task(job_id(task))

    def again(self, task: Task) -> Any:
        """The task as its job sees it."""
        self.write(task)
        return self.load(task)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def document(task: Task) -> Any:
    return json.loads(params_text(task, CODE))


def same(one: Any, other: Any) -> bool:
    """Equal values of equal types, all the way down; nan is nan, and -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Config):
        values = [{k: v for k, v in config.__dict__.items() if k != "__xpm__"} for config in (one, other)]
        return same(*values)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            any(same(k, key) and same(v, item) for k, v in other.items()) for key, item in one.items()
        )
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(item, i) for i in other) for item in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other) if isinstance(one, float) else one == other


class OddFloat(float):
    def __repr__(self):
        return "odd"


VALUES = [
    None, True, False, 0, 1, -1, 2**63, 2**64 - 1, 2**64, -(2**64), -(2**63) - 1, 2**100,
    0.0, -0.0, 1.0, 1e100, 5e-324, 0.1, math.nan, math.inf, -math.inf,
    "", "a", "a\"b'c\\n", "a\nb\r\t\0\x7f\u2028", "$(touch x) `x` ; # ${x}", "é", "e\u0301", "\u212b", "😀", "\ufeff",
    "\ud800", "\udc80", "\ud83d\ude00", "\ude00\ud83d", "$path", "null", "NaN",
    Path("a"), Path("a b/$(c)'\"\n"), Path("/a"), Path(), Path("\udcff"), Path("é"),
    Colour.RED,
    [], [[]], [[], [None]], [1, "a", 2.5], (), (1,), ((), []), set(), {1, "a", None}, frozenset(),
    {frozenset({1}), (1, 2)},
    {}, {"a": 1}, {"a": {"b": []}}, {"": 1}, {"$path": "a"}, {"$task": "x/1"}, {"$config": 0}, {"$": {"$dict": []}},
    {1: "a", "1": "b"}, {True: 1}, {None: {}}, {1.5: 1, math.inf: 2}, {(1, "a"): [1]}, {Path("a"): Colour.BLUE},
    {"\ud800": 1, "\ud83d\ude00": 2}, {frozenset({1}): {2}}, {Colour.RED: {Colour.BLUE}},
    [{"a": (1, {2: [Path("b"), {3.5}]})}, math.nan],
    Box(value=1), [Box(value=[Box(value="x")]), {"k": Box(value=Colour.RED)}], {Box(value=2): Box(value=())},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_round_trip(store, value):
    task = Use(value=value)
    again = store.again(task)
    if isinstance(value, dict) and any(isinstance(key, Config) for key in value):
        assert same([*again.value.items()], [*value.items()])
    else:
        assert same(again.value, value)
    assert type(again) is Use
    assert again.__dict__["__xpm__"].directory == str(store.jobs / job_id(task))


def test_a_huge_integer(store):
    assert store.again(Use(value=10**9999)).value == 10**9999


def test_a_float_of_another_class(store):
    """NumPy's, for one, has a repr of its own."""
    values = store.again(Use(value=[OddFloat("nan"), OddFloat("inf"), OddFloat(2.5)])).value
    assert values[0] != values[0]
    assert values[1:] == [math.inf, 2.5]


LETTERS = st.sampled_from(
    ["", "a", "$", "$set", "\0", "é", "e\u0301", "\ud800", "\udc00", "\ud83d\ude00", "😀", '"', "\\u"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.lists(LETTERS, max_size=3).map("".join),
    st.sampled_from([Path("a"), Path("a/b"), Path("/c")]),
    st.sampled_from(Colour),
)
KEYS = st.recursive(
    SCALARS, lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=2)), max_leaves=3
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=4),
        st.builds(lambda value, more: Box(value=value, more=more), inner, inner),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN)
def test_any_value_comes_back(tmp_path_factory, value):
    store = Store(tmp_path_factory.getbasetemp())
    task = Use(value=value)
    again = store.again(task)
    assert same(again, task)
    assert identifier(again) == identifier(task)
    assert params_text(again, CODE) == params_text(task, CODE)


# --- the document ---


def test_the_document():
    box = Box(value=Path("a"))
    task = Use(value=[box, box, {"k": Colour.RED}], model=Model())
    reference = {"module": "test_params", "name": "Use"}
    assert document(task) == {
        "schema": 1,
        "task": "test_params.use",
        "identifier": identifier(task),
        "configs": [
            {
                "class": reference,
                "params": {
                    "model": {"$config": 1},
                    "other": None,
                    "value": [
                        {"$config": 3},
                        {"$config": 3},
                        {"k": {"$enum": {"module": "test_params", "name": "Colour", "member": "RED"}}},
                    ],
                },
            },
            {
                "class": {**reference, "name": "Model"},
                "params": {"encoder": {"$config": 2}, "path": {"$jobpath": "model.pt"}},
            },
            {"class": {**reference, "name": "Encoder"}, "params": {"path": {"$jobpath": "encoder.pt"}, "size": 1}},
            {"class": {**reference, "name": "Box"}, "params": {"more": None, "value": {"$path": "a"}}},
        ],
    }


def test_the_text_is_ascii_and_ends_a_line():
    text = params_text(Use(value=["é\ud800\0😀"]), CODE)
    assert text.isascii()
    assert text.endswith("}\n")


def test_order_does_not_change_the_text():
    one = Use(value=[{"a": 1, "b": {3, 1, 2}}, {1: 0, "1": 1, None: 2}, {Box(value=1), Box(value=2)}])
    other = Use(value=[{"b": {2, 3, 1}, "a": 1}, {None: 2, "1": 1, 1: 0}, {Box(value=2), Box(value=1)}])
    assert params_text(one, CODE) == params_text(other, CODE)


ELSEWHERE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_params import *
boxes = {Box(value={"x", "y", "z"}, more=n) for n in range(9)}
print(params_text(Use(value=[boxes, {"b", "a"}, {"k": boxes, ("t", 1): {"z", "y"}}]), CODE))
"""


def test_the_same_text_in_every_process():
    said = {
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE, str(CODE)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_nested_classes(store):
    again = store.again(Holder.Inner(value=Holder.Inner.Colour.RED))
    assert type(again) is Holder.Inner
    assert again.value is Holder.Inner.Colour.RED


def test_classes_that_a_job_cannot_find():
    class Local(Task):
        pass

    class Hidden(enum.Enum):
        A = 1

    for task, name in [(Local(), "Local"), (Use(value=Hidden.A), "Hidden")]:
        with pytest.raises(ParameterError, match=rf"class .*<locals>\.{name} was made inside a function") as caught:
            params_text(task, CODE)
        assert "define it at the top of a module" in str(caught.value)


def test_a_class_typed_at_a_prompt():
    text = (
        "from experimaestro_hpc import Task\nfrom experimaestro_hpc.config.serialize import params_text\n"
        "from pathlib import Path\nclass Say(Task): pass\nparams_text(Say(), Path())"
    )
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert "class Say was typed at a prompt, where a job cannot find it\n  write it into a file" in ended.stderr


def seal(*parts: Config) -> None:
    for part in parts:
        part.__dict__["__xpm__"].sealed = True


@pytest.mark.parametrize(
    "change",
    [
        lambda task: task.value.append(2),
        lambda task: task.value.append(Box(value=1)),
        lambda task: task.other.value["k"].add(1),
        lambda task: task.other.value.clear(),
    ],
)
def test_what_was_submitted_is_what_is_written(change):
    """A list that is changed later must not run under the identifier of the old one."""
    task = Use(value=[1], other=Box(value={"k": set()}))
    seal(task.other, task)
    identifier(task)
    before = params_text(task, CODE)
    assert params_text(task, CODE) == before
    change(task)
    with pytest.raises(ParameterError, match=r"a list, set or dict in (Use|Box) was changed after it was submitted"):
        params_text(task, CODE)


# --- graphs ---


def diamond(depth: int) -> Box:
    box = Box(value=0)
    for _ in range(depth):
        box = Box(value=box, more=box)
    return box


def test_a_diamond_is_written_once_each_and_stays_one(store):
    began = time.process_time()
    again = store.again(Use(value=diamond(400)))
    assert time.process_time() - began < 2
    depth, box = 0, again.value
    while isinstance(box.value, Box):
        assert box.value is box.more
        depth, box = depth + 1, box.value
    assert depth == 400


def test_a_chain_of_tasks(store):
    """Each params.json names its parents only, and loading the last reads two files."""
    tasks = [Use()]
    for number in range(1, 2000):
        tasks.append(Use(value=number, other=[tasks[-1]]))
        tasks[-1].__dict__["__xpm__"].sealed = True
    store.write(*tasks)
    assert len(document(tasks[-1])["configs"]) == 1
    assert max(file.stat().st_size for file in store.jobs.rglob("params.json")) < 1000
    loader = Loader(str(store.jobs), str(CODE))
    one = loader.task(job_id(tasks[-1]))
    assert len(loader.tasks) == 2
    for task in reversed(tasks):
        assert same(one.value, task.value)
        one = one.other[0] if one.other else None
    assert one is None
    assert len(loader.tasks) == 2000


def test_parents():
    a, b, c, d = (Use(value=n) for n in "abcd")
    boxed = Box(value={"k": [b]}, more={c})
    boxed.__dict__["__xpm__"].source = d
    task = Use(value=[a, (boxed, a)], other=Use(value=Use(value="grandparent")))
    assert {job_id(parent) for parent in parents_of(task)} == {job_id(one) for one in (a, b, c, d, task.other)}
    assert parents_of(task) == sorted(parents_of(task), key=job_id)
    assert parents_of(a) == []


def test_equal_parents_are_one():
    assert len(parents_of(Use(value=[Use(value=1), Use(value=1)]))) == 1


def test_own_parts_are_the_task_and_what_is_no_task():
    box = Box(value=Use(value=Box(value="not mine")))
    task = Use(value=[box], model=box)
    assert own_parts(task) == [task, box]


def test_wholes_come_before_their_parts(store):
    inner = Order(name="inner")
    middle = Order(name="middle", a=inner)
    task = Use(value=[inner, middle, Order(name="last", b={"k": middle})])
    names = [part.name for part in own_parts(task)[1:]]
    assert names.index("last") < names.index("middle") < names.index("inner")
    Order.seen.clear()
    store.again(task)
    assert Order.seen == names[::-1]


# --- outputs of tasks, and paths ---


def test_paths_are_below_the_job_directory(store):
    task = Use(model=Model(), value=[Encoder(path=Path("/elsewhere"))])
    again = store.again(task)
    assert again.model.path == store.jobs / job_id(task) / "model.pt"
    assert again.model.encoder.path == store.jobs / job_id(task) / "encoder.pt"
    assert again.value[0].path == Path("/elsewhere")


def output(learn: Learn) -> Model:
    """What ``submit`` returns."""
    model: Model = learn.task_outputs(lambda config: _made_by(learn, config))
    return model


def test_an_output_knows_its_task(store):
    learn = Learn(model=Model(encoder=Encoder(size=5)).tag("size", 5), value="x")
    made = output(learn)
    assert made is not learn.model
    assert made.__xpmtask__ is learn
    assert learn.model.__xpmtask__ is None
    use = Use(model=made)
    assert [job_id(parent) for parent in parents_of(use)] == [job_id(learn)]
    store.write(learn)
    again = store.again(use)
    assert again.model.__xpmtask__.value == "x"
    assert again.model.__xpmtask__ is again.model.__xpmtask__
    assert again.model.encoder.size == 5
    assert again.__xpmtask__ is again


def test_paths_of_an_output_are_where_it_was_made(store):
    learn = Learn(model=Model())
    store.write(learn)
    home = store.jobs / job_id(learn)
    assert store.load(learn).model.path == home / "model.pt"
    again = store.again(Use(model=output(learn), value=Encoder()))
    assert again.model.path == home / "model.pt"
    assert again.value.path == store.jobs / job_id(Use(model=output(learn), value=Encoder())) / "encoder.pt"


def test_what_an_output_is_made_of_was_made_with_it(store):
    """The learner wrote encoder.pt beside model.pt, whoever uses it later."""
    learn = Learn(model=Model(encoder=Encoder(size=5)))
    store.write(learn)
    home = store.jobs / job_id(learn)
    assert store.load(learn).model.encoder.path == home / "encoder.pt"
    again = store.again(Use(model=output(learn)))
    assert again.model.encoder.path == home / "encoder.pt"
    assert again.model.encoder.__xpmtask__.model.encoder.size == 5
    other = Learn(model=Model(), value=2)
    store.write(other)
    nested = store.again(Use(model=_made_by(learn, Box(value=output(other)))))
    assert nested.model.value.path == store.jobs / job_id(other) / "model.pt"


def test_a_task_that_makes_what_its_parent_made(store):
    """Outputs of outputs: each step depends on the one before."""
    first = Learn(model=Model())
    second = Learn(model=output(first))
    third = Use(model=output(second))
    store.write(first, second)
    again = store.again(third)
    assert again.model.path == store.jobs / job_id(second) / "model.pt"
    assert again.model.__xpmtask__.model.path == store.jobs / job_id(first) / "model.pt"
    assert len({identifier(task) for task in (first, second, third)}) == 3


# --- loading ---


def test_a_shared_parent_is_loaded_once(store):
    parent = Use(value="p")
    store.write(parent)
    again = store.again(Use(value=[parent, Box(value=parent)], other={"k": parent}))
    assert again.value[0] is again.value[1].value is again.other["k"]


def test_grandparents_are_loaded_when_they_are_looked_at(store):
    old = Use(value="old")
    middle = Use(value="middle", other=[{"k": (old, 1)}], model=Box(value=old))
    task = Use(other=middle)
    store.write(old, middle, task)
    loader = Loader(str(store.jobs), str(CODE))
    again = loader.task(job_id(task))
    assert again.other.value == "middle"
    assert sorted(loader.tasks) == sorted([job_id(task), job_id(middle)])
    assert isinstance(again.other.model, Box)
    assert len(loader.tasks) == 2
    assert again.other.other[0]["k"][0].value == "old"
    assert again.other.other[0]["k"][0] is again.other.model.value
    assert len(loader.tasks) == 3


def test_a_lost_grandparent_is_an_error_at_each_look(store):
    middle = Use(value="middle", other=Use(value="lost"))
    store.write(middle)
    again = store.again(Use(other=middle))
    for _ in range(2):
        with pytest.raises(WorkspaceError, match="the parameters of a task cannot be read"):
            print(again.other.other)
    store.write(Use(value="lost"))
    assert again.other.other.value == "lost"


def test_objects_of_a_class_that_was_read_late_can_be_made(store):
    """Reading late must leave the class as it was: defaults, and new objects."""
    middle = Learn(model=Model(), value=Use(value="old"))
    store.write(middle, Use(value="old"))
    again = store.again(Use(other=middle))
    del Learn.__xpm_fields__  # as in a job, which has not looked at them
    assert Learn(model=Model()).value is None
    assert again.other.value.value == "old"
    again.other.value = 3
    assert again.other.value == 3


def test_a_loaded_task_may_be_changed(store):
    """Inside a job nothing is checked."""
    again = store.again(Learn(model=Model()))
    again.model = "anything"
    assert again.model == "anything"


def test_a_parameter_that_did_not_exist(store):
    """The code is newer than the job: defaults hold; what has none is missing."""
    task = Learn(model=Model())
    store.write(task)
    path = store.jobs / job_id(task) / "params.json"
    text = json.loads(path.read_text())
    del text["configs"][0]["params"]["value"]
    del text["configs"][1]["params"]["path"]
    del text["configs"][0]["params"]["model"]
    path.write_text(json.dumps(text))
    loaded = store.load(task)
    assert loaded.value is None
    with pytest.raises(AttributeError, match="model"):
        print(loaded.model)
    text["configs"][0]["params"]["model"] = {"$config": 1}
    path.write_text(json.dumps(text))
    loaded = store.load(task)
    assert loaded.model.path == path.parent / "model.pt"
    assert loaded.model.path is loaded.model.path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the parameters of a task cannot be read: no JSON"),
        ('{"schema": 1, "con', "the parameters of a task cannot be read: "),
        ("\ufeff{}", "the parameters of a task cannot be read: no JSON"),
        (
            '{"schema": 3}',
            "written by another version of xpm-hpc (schema 3, known: 1)\n  use the version that wrote it",
        ),
    ],
)
def test_what_cannot_be_read(store, text, message):
    task = Use()
    store.write(task)
    path = store.jobs / job_id(task) / "params.json"
    path.write_text(text)
    with pytest.raises(WorkspaceError) as caught:
        store.load(task)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


# --- from the experiment's script to its job ---

SCRIPT = """
import enum, sys
import click
from experimaestro_hpc import Param, RunMode, Task, experiment
from {helper} import Part

class Colour(enum.Enum):
    RED = 1

class Say(Task):
    word: Param[str]
    part: Param[Part]
    colour: Param[Colour]
    def execute(self):
        print(self.word, type(self.part).__module__, self.colour, __name__)

{guard}with experiment(sys.argv[1], "e", run_mode=RunMode.GENERATE_ONLY):
    {guard_in}Say(word="hello", part=Part(), colour=Colour.RED).submit()
"""


@pytest.mark.parametrize(
    ("start", "file", "helper", "module", "guard"),
    [
        (["my script.py"], "my script.py", "helper", "my script", ""),
        (["my script.py"], "my script.py", "helper", "my script", 'if __name__ == "__main__":\n  '),
        (["sub/study.py"], "sub/study.py", "helper2", "study", ""),
        (["-m", "pkg.study"], "pkg/study.py", "pkg.helper3", "pkg.study", ""),
        (["-m", "pkg"], "pkg/__main__.py", ".helper3", "pkg.__main__", ""),
    ],
)
def test_from_script_to_job(tmp_path, start, file, helper, module, guard):
    project, root = tmp_path / "project", tmp_path / "work"
    for name in ("helper.py", "sub/helper2.py", "pkg/helper3.py", "pkg/__init__.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("from experimaestro_hpc import Config\nclass Part(Config): pass\n")
    (project / file).write_text(SCRIPT.format(helper=helper, guard=guard, guard_in="  " if guard else ""))
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)  # the project's root is the code's root
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XPM_HPC_LAUNCHER": "local"}
    subprocess.run([sys.executable, *start, str(root)], cwd=project, env=env, check=True)
    (directory,) = root.glob("jobs/*/*")
    code = json.loads((directory / "job.json").read_text())["code"]
    workspace = Workspace(root, code)
    shutil.copytree(project, workspace.code, dirs_exist_ok=True)
    job = Job(workspace, f"{directory.parent.name}/{directory.name}")
    ended = job.run(PYTHONPATH=f"{workspace.code}:{workspace.code}/sub")
    assert ended.stderr == ""
    assert ended.stdout == f"hello {helper if helper[0] != '.' else f'pkg{helper}'} Colour.RED {module}\n"
    assert job.markers == [".done"]


def test_a_mode_that_writes_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with experiment(tmp_path / "w", "e", run_mode=RunMode.GENERATE_ONLY):
        use = Use(model=Learn(model=Model()).submit()).submit()
    assert (tmp_path / "w" / "jobs" / job_id(use) / "params.json").read_text().startswith("{")
    assert use.__xpm_stdout__ == tmp_path / "w" / "jobs" / job_id(use) / "use.out"


# --- JSON without json ---


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        2**70,
        "",
        'é\ud800"\\\n',
        [],
        {},
        [1, [2, {"a": []}]],
        {"a": None, "b": [True, "x"]},
        (1, 2),
    ],
)
def test_json_like_json(value):
    assert jsonlight.dumps(value) == json.dumps(value)
    assert jsonlight.loads(jsonlight.dumps(value)) == json.loads(json.dumps(value))
    assert jsonlight.loads(f" \n{json.dumps(value, indent=2)}\t\r\n") == json.loads(json.dumps(value))


def test_json_of_what_is_no_number():
    assert jsonlight.dumps([math.nan, math.inf]) == "[NaN, Infinity]"
    assert jsonlight.loads("[Infinity, -Infinity]") == [math.inf, -math.inf]
    assert math.isnan(jsonlight.loads("NaN"))


@pytest.mark.parametrize("value", [object(), {1, 2}, b"a", [Path("a")], {"a": {"b": 1j}}])
def test_json_refuses(value):
    with pytest.raises(TypeError, match=r"is no JSON$"):
        jsonlight.dumps(value)


BROKEN = [
    "",
    " ",
    "{",
    "[",
    '"',
    "[1,",
    '{"a"',
    '{"a":',
    '{"a":1,}',
    "nul",
    "-",
    "1 2",
    "{}x",
    "'a'",
    "\ufeff1",
    '"\x01"',
    '"\\x"',
]


@pytest.mark.parametrize("text", BROKEN)
def test_broken_json(text):
    with pytest.raises(ValueError):
        jsonlight.loads(text)


@pytest.mark.parametrize("function", ["loads", "dumps"])
def test_another_python_uses_json(function, monkeypatch):
    monkeypatch.setattr(jsonlight, "_c", None)
    assert (
        getattr(jsonlight, function)({"loads": "[1]", "dumps": [1]}[function])
        == {"loads": [1], "dumps": "[1]"}[function]
    )
