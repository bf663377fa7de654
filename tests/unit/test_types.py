"""Types of parameters: what each takes, what is stored, what is refused and how."""

# ruff: noqa: F821, UP006 - users write both List[int] and list[int], and names of classes that come later

from __future__ import annotations

import collections.abc
import enum
import linecache
import sys
import types
import typing
from pathlib import Path, PosixPath, PurePath, PurePosixPath
from typing import Any, Dict, FrozenSet, Generic, List, Literal, Optional, Set, Tuple, TypeVar, Union  # noqa: UP035

import pytest

from experimaestro_hpc import Config, Meta, Param, Task
from experimaestro_hpc.config.checks import checker
from experimaestro_hpc.config.types import Parameter, fields_of
from experimaestro_hpc.errors import ParameterError


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"
    CRIMSON = 1  # noqa: PIE796 - an alias of RED


class Level(enum.IntEnum):
    LOW = 1


class Word(str, enum.Enum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


class Number(int):
    def __repr__(self):
        return "Number"


class Leaf(Config):
    n: Param[int] = 0


class Twig(Leaf):
    pass


T = TypeVar("T")


class Box(Config, Generic[T]):
    item: Param[T]


LEAF, TWIG = Leaf(), Twig()
BOX = Box(item=[1, {"a": (2.5, None)}])


def holder(wanted: Any) -> type[Config]:
    return type("Holder", (Config,), {"__annotations__": {"value": Param[wanted]}, "__module__": __name__})


def same(one: object, other: object) -> bool:
    """Equal, and of equal types all the way down; nan is nan."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            any(same(key, k) and same(item, i) for k, i in other.items()) for key, item in one.items()
        )
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(item, i) for i in other) for item in one)
    return repr(one) == repr(other) if isinstance(one, float) else one is other or one == other


@pytest.mark.parametrize(
    ("wanted", "given", "stored"),
    [
        (str, "", ""),
        (str, "a\"b'c\n\0$(d)\ud800é", "a\"b'c\n\0$(d)\ud800é"),
        (str, Text("a"), "a"),
        (int, 0, 0),
        (int, -(10**400), -(10**400)),
        (int, Number(3), 3),
        (float, 1.5, 1.5),
        (float, 1, 1.0),
        (float, -0.0, -0.0),
        (float, float("nan"), float("nan")),
        (float, float("-inf"), float("-inf")),
        (bool, True, True),
        (type(None), None, None),
        (None, None, None),
        (Path, Path("a/./b//c"), Path("a/b/c")),
        (Path, PurePosixPath("a b"), Path("a b")),
        (PurePath, Path("a"), Path("a")),
        (Colour, Colour.BLUE, Colour.BLUE),
        (Colour, Colour.CRIMSON, Colour.RED),
        (Level, Level.LOW, Level.LOW),
        (Word, Word.YES, Word.YES),
        (Right, Right.READ, Right.READ),
        (Leaf, LEAF, LEAF),
        (Leaf, TWIG, TWIG),
        (Config, TWIG, TWIG),
        (Box, BOX, BOX),
        (Box[int], BOX, BOX),
        # alternatives: the exact type first
        (Optional[int], None, None),
        (Optional[int], 3, 3),
        (Optional[Path], Path("a"), Path("a")),
        (int | None, 3, 3),
        (Union[bool, int], True, True),
        (Union[bool, int], 1, 1),
        (Union[int, bool], True, True),
        (Union[float, int], 1, 1),
        (Union[int, float], 1.0, 1.0),
        (Union[str, float], 1, 1.0),
        (Union[Path, str], "a", "a"),
        (Union[str, Path], Path("a"), Path("a")),
        (Union[List[int], List[str]], ["a"], ["a"]),
        (Union[List[int], Dict[str, int]], {"a": 1}, {"a": 1}),
        (Literal["a", 1, True, None], True, True),
        (Literal["a", 1, True, None], 1, 1),
        (Literal["a", 1, True, None], None, None),
        (Literal[Colour.RED], Colour.RED, Colour.RED),
        # containers
        (list, [], []),
        (list, [1, "a", [None, {}]], [1, "a", [None, {}]]),
        (List[float], [1, 2.5], [1.0, 2.5]),
        (list[list[int]], [[], [1]], [[], [1]]),
        (List, ["a"], ["a"]),
        (collections.abc.Sequence[int], (1, 2), [1, 2]),
        (typing.Sequence[int], [1, 2], [1, 2]),
        (set, set(), set()),
        (Set[int], {1, 2}, {1, 2}),
        (Set[int], frozenset({1}), {1}),
        (FrozenSet[int], {1}, frozenset({1})),
        (frozenset, frozenset({1}), frozenset({1})),
        (Set[FrozenSet[int]], {frozenset({1}), frozenset()}, {frozenset({1}), frozenset()}),
        (set[tuple[str, ...]], {("a",), ()}, {("a",), ()}),
        (collections.abc.Set[int], frozenset({1}), frozenset({1})),
        (collections.abc.Set[int], {1}, {1}),
        (dict, {}, {}),
        (Dict[str, float], {"a": 1}, {"a": 1.0}),
        (dict[str, Leaf], {"a": TWIG}, {"a": TWIG}),
        (Dict[Path, List[int]], {Path("a"): [1]}, {Path("a"): [1]}),
        (Dict, {1: "a"}, {1: "a"}),
        (collections.abc.Mapping[str, int], {"a": 1}, {"a": 1}),
        (tuple, (), ()),
        (tuple, (1, "a"), (1, "a")),
        (Tuple, (1, "a"), (1, "a")),
        (Tuple[int, str], (1, "a"), (1, "a")),
        (Tuple[float, ...], (1, 2), (1.0, 2.0)),
        (tuple[()], (), ()),
        # anything that can be written down
        (Any, None, None),
        (Any, Level.LOW, Level.LOW),
        (Any, {"a": [(1, 2.0), {True}, frozenset({"x"}), Path("p"), LEAF]}, ...),
        (T, [LEAF], [LEAF]),
        # names
        ("Leaf", TWIG, TWIG),
        (List["Leaf"], [TWIG], [TWIG]),
        (list["Leaf"], [TWIG], [TWIG]),
        ("Optional[List[Leaf]]", [TWIG], [TWIG]),
    ],
)  # fmt: skip
def test_taken(wanted, given, stored):
    value = holder(wanted)(value=given).value
    assert same(value, given if stored is ... else stored)


@pytest.mark.parametrize(
    ("wanted", "given", "message"),
    [
        (str, 1, "Holder.value must be str, not 1 (int)"),
        (str, None, "Holder.value must be str, not None (NoneType)"),
        (str, b"a", "Holder.value must be str, not b'a' (bytes)"),
        (str, Word.YES, "Holder.value must be str, not <Word.YES: 'yes'> (Word)"),
        (str, Path("a"), "Holder.value must be str, not PosixPath('a') (PosixPath)"),
        (int, True, "Holder.value must be int, not True (bool)"),
        (int, "1", "Holder.value must be int, not '1' (str)"),
        (int, 1.0, "Holder.value must be int, not 1.0 (float)"),
        (int, Level.LOW, "Holder.value must be int, not <Level.LOW: 1> (Level)"),
        (float, True, "Holder.value must be float, not True (bool)"),
        (float, "nan", "Holder.value must be float, not 'nan' (str)"),
        (float, 10**400, "; the number is too large for a float"),
        (float, 1j, "Holder.value must be float, not 1j (complex)"),
        (bool, 1, "Holder.value must be bool, not 1 (int)"),
        (Path, "a", "Holder.value must be Path, not 'a' (str)"),
        (Colour, 1, "Holder.value must be Colour, not 1 (int)"),
        (Colour, "RED", "Holder.value must be Colour, not 'RED' (str)"),
        (Right, Right.READ | Right.WRITE, "a combination of flags cannot be a parameter's value"),
        (Right, Right(0), "a combination of flags cannot be a parameter's value"),
        (Any, Right(0), "a combination of flags cannot be a parameter's value"),
        (Leaf, Leaf, "Holder.value must be Leaf, not <class 'test_types.Leaf'> (type)"),
        (Twig, LEAF, "Holder.value must be Twig, not Leaf(n=0) (Leaf)"),
        (Box[int], LEAF, "Holder.value must be test_types.Box[int], not Leaf(n=0) (Leaf)"),
        (Optional[int], "a", "Holder.value must be Optional[int], not 'a' (str)"),
        (int | None, True, "Holder.value must be int | None, not True (bool)"),
        (Literal["a", 1], True, "Holder.value must be Literal['a', 1], not True (bool)"),
        (Literal["a", 1], 1.0, "Holder.value must be Literal['a', 1], not 1.0 (float)"),
        (list, (1,), "Holder.value must be list, not (1,) (tuple)"),
        (List[int], "12", "Holder.value must be List[int], not '12' (str)"),
        (List[int], [1, "2"], "; at 1: not '2' (str)"),
        (Dict[str, List[int]], {"a": [1, True]}, "; at ['a']: at 1: not True (bool)"),
        (Dict[str, int], {1: 1}, "; at key 1: not 1 (int)"),
        (Dict[str, int], [("a", 1)], "Holder.value must be Dict[str, int], not [('a', 1)] (list)"),
        (Set[int], [1], "Holder.value must be Set[int], not [1] (list)"),
        (Set[int], {True}, "; at an element: not True (bool)"),
        (Tuple[int, str], (1,), "; it has 1 elements, not 2"),
        (Tuple[int, ...], (1, "a"), "; at 1: not 'a' (str)"),
        (tuple, [1], "Holder.value must be tuple, not [1] (list)"),
        (Any, object, "; a type cannot be a parameter's value"),
        (Any, [b"a"], "; at 0: a bytes cannot be a parameter's value"),
        (Any, {"a": (1, {"b": 1j})}, "; at ['a']: at 1: at ['b']: a complex cannot be a parameter's value"),
        (bytes, b"a", "; this type cannot be a parameter"),
        (collections.OrderedDict, {}, "; this type cannot be a parameter"),
        (PosixPath, Path("a"), "; this type cannot be a parameter"),
        (typing.Callable[[], int], int, "; this type cannot be a parameter"),
        (typing.NewType("Id", int), 1, "; this type cannot be a parameter"),
        ("Nowhere", 1, "the type of 'value' cannot be understood: Nowhere (name 'Nowhere' is not defined)"),
        (List["Nowhere"], [1], "cannot be understood: Nowhere (name 'Nowhere' is not defined)"),
        ("List[", 1, "the type of 'value' cannot be understood: List["),
        (str, 10**99, f"must be str, not 1{'0' * 56}... (int)"),
        pytest.param(str, 10**9999, "must be str, not ... (int)", id="too long for Python to show"),
        (Dict[int, str], {10**9999: 1}, "; at [...]: not 1 (int)"),
        (int, "x" * 9999, f"not '{'x' * 56}... (str)"),
    ],
)  # fmt: skip
def test_refused(wanted, given, message):
    with pytest.raises(ParameterError) as caught:
        holder(wanted)(value=given)
    assert message in str(caught.value)


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def ring(kind: type) -> Any:
    if kind is dict:
        table: dict[str, Any] = {}
        table["a"] = table
        return table
    made: list[Any] = []
    made.append((made,) if kind is tuple else made)
    return made


@pytest.mark.parametrize(
    ("wanted", "value"),
    [(Any, ring(list)), (Any, ring(dict)), (Any, ring(tuple)), (list, ring(list)), (Any, nested(5000))],
)
def test_a_value_without_end(wanted, value):
    with pytest.raises(ParameterError, match=r"the value of Holder\.value holds itself, or is nested too deeply"):
        holder(wanted)(value=value)


def test_where_it_went_wrong_is_the_callers_line():
    with pytest.raises(ParameterError) as caught:
        holder(int)(
            value="1",
        )
    file, line = caught.value.where.rsplit(":", 1)
    assert file == __file__
    assert linecache.getline(file, int(line)).strip() in ("holder(int)(", 'value="1",')


def test_code_beside_the_package_is_the_users(tmp_path):
    """A project whose path starts like ours is not ours."""
    import experimaestro_hpc

    path = Path(experimaestro_hpc.__file__).parent.with_name("experimaestro_hpc_study") / "run.py"
    code = compile("def make(cls): cls(value='1')", str(path), "exec")
    namespace: dict[str, Any] = {}
    types.FunctionType(code, namespace)()
    with pytest.raises(ParameterError) as caught:
        namespace["make"](holder(int))
    assert caught.value.where == f"{path}:1"


def test_a_check_leaves_no_way_back_to_what_was_given():
    given = {"a": [{"b": [1]}], "c": ({1: [2]},)}
    value = checker(Any, Config)(given)
    given["a"][0]["b"].append(2)
    given["c"][0][1].append(3)
    assert value == {"a": [{"b": [1]}], "c": ({1: [2]},)}


# --- annotations ---


def module(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(text, f"{name}.py", "exec"), made.__dict__)  # noqa: S102
    return made


@pytest.mark.parametrize("future", ["from __future__ import annotations", ""])
def test_annotations_as_text_and_as_objects(future, monkeypatch):
    made = module(
        "sample",
        f"""{future}
import experimaestro_hpc as x
from typing import ClassVar, List, Optional
from experimaestro_hpc import Config, Task, Param, Meta, Constant
class Say(Task):
    word: Param[str]
    note: Meta[List[str]] = []
    kind: Constant[int] = 3
    other: x.Param[Optional["Say"]] = None
    more: Param[List["Say"]] = []
    n: int = 3
    params: ClassVar[str] = "Param"
""",
        monkeypatch,
    )
    say = made.Say(word="a", more=[made.Say(word="b")])
    assert [(p.name, p.kind) for p in fields_of(made.Say).values()] == [
        ("word", "param"),
        ("note", "meta"),
        ("kind", "constant"),
        ("other", "param"),
        ("more", "param"),
    ]
    assert say.more[0].word == "b"


@pytest.mark.parametrize("future", ["from __future__ import annotations", ""])
def test_kinds_by_another_name(future, monkeypatch):
    """Otherwise a default would hide that there is no parameter."""
    made = module(
        "aliases",
        f"""{future}
from typing import ClassVar
from experimaestro_hpc import Config, Param as P, Meta as M
class Say(Config):
    word: P[str] = "x"
    note: M[str] = "n"
    shared: ClassVar[dict[str, int]] = {{}}
    other: "numpy_of_tomorrow.Array[int]" = None
""",
        monkeypatch,
    )
    assert list(fields_of(made.Say)) == ["word", "note"]


def test_a_name_means_what_it_means_where_it_is_written(monkeypatch):
    """A class derived elsewhere does not need the names of its base's annotations."""
    base = module(
        "base_module",
        "from experimaestro_hpc import Config, Param\n"
        "from typing import List, Optional\n"
        "class Node(Config):\n"
        "    n: Param[int] = 0\n"
        "class Base(Config):\n"
        "    nodes: Param[List['Node']]\n"
        "    other: Param['Optional[Node]'] = None\n",
        monkeypatch,
    )
    derived = module("derived_module", "import base_module\nclass Derived(base_module.Base): pass\n", monkeypatch)
    made = derived.Derived(nodes=[base.Node(n=1)], other=base.Node(n=2))
    assert (made.nodes[0].n, made.other.n) == (1, 2)
    made.nodes = [base.Node(n=3)]
    assert made.nodes[0].n == 3


class Mixin:
    loose: Param[int] = 3


class Left(Config):
    a: Param[int] = 1
    shared: Param[str] = "left"


class Right2(Config):
    b: Param[int] = 2
    shared: Param[str] = "right"


class Both(Mixin, Left, Right2):
    shared = "both"
    a: Meta[int] = 4


def test_many_bases():
    fields = fields_of(Both)
    assert {name: (field.kind, field.default) for name, field in fields.items()} == {
        "b": ("param", 2),
        "shared": ("param", "both"),
        "a": ("meta", 4),
    }
    assert fields_of(Left)["a"].kind == "param"
    assert isinstance(fields["a"], Parameter)


def test_a_task_in_a_parameter():
    class Say(Task):
        word: Param[str]

    say = Say(word="x")
    assert holder(List[Say])(value=[say]).value[0] is say
    assert holder(Any)(value={say: 1}).value == {say: 1}
