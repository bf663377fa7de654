"""Identifiers: what counts, what does not, and that different values never look alike."""

from __future__ import annotations

import enum
import hashlib
import math
import struct
import subprocess
import sys
import time
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experimaestro_hpc import (
    Config,
    Constant,
    LightweightTask,
    Meta,
    Param,
    PathGenerator,
    Task,
    field,
    identifier,
    setmeta,
)
from experimaestro_hpc.config.identifier import _chunk, _encode
from experimaestro_hpc.config.types import set_init_tasks


class Colour(enum.Enum):
    __xpmid__ = "frozen.Colour"
    RED = 1
    BLUE = 2


class Shade(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Box(Config):
    __xpmid__ = "frozen.Box"
    value: Param[Any]


class Other(Config):
    __xpmid__ = "frozen.Other"
    value: Param[Any]


class Choice(Config):
    value: Param[bool | int | float | str | Path | None]


class Link(Task):
    __xpmid__ = "frozen.Link"
    before: Param[Any] = None
    n: Param[int] = 0


class Node(Config):
    left: Param[Node | None] = None
    right: Param[Node | None] = None


def of(value: Any) -> str:
    return identifier(Box(value=value))


# --- the scheme ---


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        (None, "34f9fd73debdc6de"),
        (True, "8340b3d08a175c81"),
        (1, "40104032605fa9af"),
        (-1, "55ff87e2ee47f270"),
        (2**80, "25cd6b5c9a6cbe65"),
        (1.0, "531047ff4b90e942"),
        (0.0, "f07237f7b708b7b9"),
        (math.nan, "1dd3aed86aa4bd9d"),
        (math.inf, "02890d68761813c7"),
        ("", "a07182a4badd0985"),
        ("é\ud800\0", "f3dc8e9787332217"),
        (Path("a/b"), "78561e075757953f"),
        (Colour.RED, "d722201403836ffd"),
        ([1, [2, "x"]], "e200fc6671742102"),
        ((1, 2), "19bc3a68ccd8095f"),
        ({"b", "a"}, "a1f1e2707c6a6cfa"),
        ({"b": 1, "a": None}, "a1d59e0af58de4ff"),
        (Box(value=1), "a47e98186890f43f"),
        (Link(n=3), "82fc5d00407ee8e6"),
        (Link(before=Link()), "468712308c74981e"),
    ],
)
def test_frozen(value, frozen):
    """If this fails, all results that people have are computed again: make it a decision, with a new schema."""
    assert of(value)[:16] == frozen


class First(LightweightTask):
    __xpmid__ = "frozen.First"
    value: Param[Any] = None


def with_init(*init_tasks: LightweightTask) -> Link:
    link = Link(n=3)
    set_init_tasks(link, init_tasks, LightweightTask)
    return link


@pytest.mark.parametrize(
    ("task", "frozen"),
    [
        (with_init(), "721eb92e8ea27cb3"),
        (with_init(First()), "e39b680410afae99"),
        (with_init(First(value="x"), First()), "b2685700b262ed98"),
        (with_init(First(value=Link())), "bbf4d620ac18a74b"),
        (Link(before=with_init(First())), "74ec3926e3e4de1e"),
        (with_init(setmeta(First(), True)), "721eb92e8ea27cb3"),
        (with_init(setmeta(First(value=1), True), First()), "e39b680410afae99"),
    ],
)
def test_frozen_init_tasks(task, frozen):
    assert identifier(task)[:16] == frozen


def chunk(tag: bytes, content: bytes) -> bytes:
    """As the documentation says it."""
    return tag + struct.pack(">Q", len(content)) + content


def test_init_tasks_in_words():
    inner = [bytes.fromhex(identifier(First(value=value))) for value in (2, 1)]
    parts = chunk(b"t", b"frozen.Link") + chunk(b"k", b"n") + chunk(b"i", b"3")
    parts += chunk(b"x", b"".join(chunk(b"c", digest) for digest in inner))
    found = identifier(with_init(First(value=2), First(value=1)))
    assert found == hashlib.sha256(b"xpm-hpc identifier 1" + chunk(b"c", parts)).hexdigest()


def test_the_scheme_in_words():
    """The name of the scheme, then tag, length and content of the object: its type, then name and value of each."""
    parts = chunk(b"t", b"frozen.Box") + chunk(b"k", b"value") + chunk(b"l", chunk(b"s", b"x") + chunk(b"i", b"-ff"))
    assert of(["x", -255]) == hashlib.sha256(b"xpm-hpc identifier 1" + chunk(b"c", parts)).hexdigest()


def test_the_example_of_the_documentation():
    say = type("Say", (Config,), {"__module__": "m", "__annotations__": {"word": Param[str]}})
    page = Path(__file__).parents[2] / "docs" / "identifiers.md"
    assert identifier(say(word="x")) in page.read_text(encoding="utf-8")


def test_form():
    assert len(of(1)) == 64
    assert of(1) == of(1).lower()
    int(of(1), 16)


ALIKE: list[Any] = [
    None, False, True, 0, 1, -1, 2**64, 2**64 + 1, 10**5000, 0.5, 1.0, 1e300, math.inf, -math.inf, math.nan, 5e-324,
    "", "0", "1", "None", "True", "a", "A", "a ", "a\0", "\0a", "a\n", "$(a)", "'", '"', "\ud83d\ude00", "\U0001f600",
    "\ud800", "\udc80", "\u00e9", "e\u0301", "\u212b", "\u00c5", "ﬁ", "fi",
    Path("a"), Path("A"), Path("/a"), Path("a/b"), Path("a\nb"), Path("\udcc3\udca9"), Path("é"), Path("\ud800"),
    Path(), Path("1"), Colour.RED, Colour.BLUE, Shade.RED, Level.LOW,
    [], (), set(), {}, [[]], [()], ([],), ((),), [[], []], [None], (None,), {None}, {None: None}, [{}], [set()], {()},
    ["a\x03b", "c"], ["a", "b\x03c"], ["ab", "c"], ["a", "bc"], ["abc"], ["a", "b", "c"], [["a", "b"], "c"],
    [["a"], "b", "c"], ("a", "b"), ("ab",), (("a",), "b"), {"a", "b"}, {("a", "b")}, {frozenset({"a"}), "b"},
    {frozenset({"a", "b"})},
    {"a": "b"}, {"b": "a"}, {"a": None, "b": None}, {"a": {"b": None}}, {"a": ["b"]}, ["a", {"b": None}], [("a", "b")],
    {1: "x"}, {"1": "x"}, {True: "x"}, {None: "x"}, {1.5: "x"}, {"$path": "a"}, {"$task": "a/1"},
    [1, 2], [2, 1], [12], [1, [2]], [True, 2], [1.0, 2], [True, False], [1, 0],
    Box(value=1), Box(value=2), Box(value=None), Other(value=1), Link(), Link(n=1), Link(before=Link()),
    Link(before=Link(n=1)), [Link()], (Link(),), {Link()}, {"a": Link()}, Box(value=Box(value=1)),
    Box(value=[Box(value=1)]),
    of(1), bytes.fromhex(of(1)).decode("latin-1"),
]  # fmt: skip


def test_no_two_of_these_are_alike():
    found: dict[str, Any] = {}
    for value in ALIKE:
        other = found.setdefault(of(value), value)
        assert other is value, f"{ascii(other)[:80]} and {ascii(value)[:80]}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.0, -0.0),
        (math.nan, -math.nan),
        (Path("a"), PurePath("a/.")),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a", "b", "c"}, {"c", "b", "a"}),
        ({1, 2}, frozenset({2, 1})),
        (Colour.RED, Colour(1)),
        ("e\u0301", "e" + "\u0301"),
        pytest.param(10**5000, (10**100) ** 50, id="huge"),
        (Box(value=1), Box(value=1)),
        ([Link(n=1)] * 2, [Link(n=1), Link(n=1)]),
        (Link(), Link(before=None, n=0)),
    ],
)
def test_alike(one, other):
    assert of(one) == of(other)


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", Path("1"), "True", False, 0, 0.0, None, "", "None"])
def test_alternatives_are_told_apart(value):
    others = [True, 1, 1.0, "1", Path("1"), "True", False, 0, 0.0, None, "", "None"]
    mine = identifier(Choice(value=value))
    assert [type(one) for one in others if identifier(Choice(value=one)) == mine] == [type(value)]


# --- generated values ---

LETTERS = st.sampled_from(["", "a", "b", "ab", "a\x03b", "\0", "1", "é", "e\u0301", "\ud800", "\ud83d\ude00", "😀"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(),
    st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, 0.5]),
    LETTERS,
    st.sampled_from([Path("a"), Path("b"), Path("a/b"), Path("1")]),
    st.sampled_from([*Colour, *Shade, *Level]),
)
KEYS = st.one_of(SCALARS, st.tuples(SCALARS), st.frozensets(SCALARS, max_size=2))


def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.frozensets(KEYS, max_size=3),
        inner.map(lambda value: Box(value=value)),
        inner.map(lambda value: Link(before=value)),
    )


VALUES = st.recursive(SCALARS, grow, max_leaves=8)


def shape(value: Any) -> Any:
    """The value as something that Python compares by type and value: what must count, said in another way."""
    kind = type(value).__name__
    if isinstance(value, Config):
        return kind, tuple(
            (name, shape(value.__dict__[name])) for name in ("before", "n", "value") if name in value.__dict__
        )
    if isinstance(value, dict):
        return kind, frozenset((shape(key), shape(item)) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return "set", frozenset(map(shape, value))
    if isinstance(value, (list, tuple)):
        return kind, tuple(map(shape, value))
    if isinstance(value, float):
        return kind, "nan" if value != value else value
    return kind, value


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=6))
def test_equal_values_and_no_others_have_equal_identifiers(values):
    for one in values:
        for other in values:
            assert (shape(one) == shape(other)) == (of(one) == of(other))


@settings(max_examples=200, deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_order_and_copies_do_not_count(value, random):
    def again(value: Any) -> Any:
        if isinstance(value, dict):
            pairs = [(key, again(item)) for key, item in value.items()]
            random.shuffle(pairs)
            return dict(pairs)
        if isinstance(value, (set, frozenset)):
            items = list(value)
            random.shuffle(items)
            return type(value)(items)
        if isinstance(value, (list, tuple)):
            return type(value)(map(again, value))
        if isinstance(value, Link):
            return Link(before=again(value.before), n=value.n)
        return Box(value=again(value.value)) if isinstance(value, Box) else value

    assert of(again(value)) == of(value)


@settings(max_examples=300, deadline=None)
@given(st.lists(LETTERS, max_size=4), st.lists(LETTERS, max_size=4))
def test_what_is_written_can_be_read_in_one_way_only(one, other):
    assert (_encode(one, {}) == _encode(other, {})) == (one == other)
    assert _encode([*one, *other], {}) == _chunk(b"l", _encode(one, {})[9:] + _encode(other, {})[9:])


# --- what counts ---


class V1(Config):
    __xpmid__ = "versions"
    word: Param[str]


class V2(Config):
    """V1 with more parameters that have defaults."""

    __xpmid__ = "versions"
    word: Param[str]
    times: Param[int] = 3
    rate: Param[float] = field(default=0.0)
    names: Param[list[str]] = field(default_factory=lambda: ["a"])
    table: Param[dict[str, list[int]]] = {"a": [1], "b": []}  # noqa: RUF012
    unique: Param[set[str]] = {"x", "y"}  # noqa: RUF012
    box: Param[Box] = Box(value=[1])
    made: Param[list[Box]] = field(default_factory=lambda: [Box(value=1), Box(value=Box(value=2))])
    nothing: Param[int | None] = None
    colour: Param[Colour] = Colour.RED
    out: Param[Path] = field(default_factory=PathGenerator("out"))
    note: Meta[str] = "n"
    where: Meta[Path] = field(default_factory=PathGenerator("where"))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"times": 3},
        {"rate": 0},
        {"rate": -0.0},
        {"names": ["a"]},
        {"table": {"b": [], "a": [1]}},
        {"unique": {"y", "x"}},
        {"box": Box(value=[1])},
        {"made": [Box(value=1), Box(value=Box(value=2))]},
        {"nothing": None},
        {"colour": Colour.RED},
        {"note": "other"},
        {"where": Path("/elsewhere")},
    ],
)
def test_defaults_and_meta_do_not_count(values):
    assert identifier(V2(word="x", **values)) == identifier(V1(word="x"))


@pytest.mark.parametrize(
    "values",
    [
        {"word": "y"},
        {"times": 4},
        {"rate": math.nan},
        {"names": []},
        {"names": ["a", "a"]},
        {"table": {"a": [1]}},
        {"unique": {"x"}},
        {"box": Box(value=[2])},
        {"made": [Box(value=1), Box(value=Box(value=3))]},
        {"nothing": 0},
        {"colour": Colour.BLUE},
        {"out": Path("out")},  # not in the job directory
    ],
)
def test_everything_else_counts(values):
    assert identifier(V2(**{"word": "x", **values})) != identifier(V1(word="x"))


def test_values_are_of_a_parameter():
    class Two(Config):
        a: Param[int] = 0
        b: Param[int] = 0

    assert len({identifier(Two(a=a, b=b)) for a in (0, 1, 2) for b in (0, 1, 2)}) == 9


def made(**body: Any) -> type[Config]:
    """A class ``frozen.made`` whose body has the parameters ``body``: (annotation, default)."""
    annotations = {name: annotation for name, (annotation, _) in body.items()}
    values = {name: value for name, (_, value) in body.items()}
    return type("Made", (Config,), {"__xpmid__": "frozen.made", "__annotations__": annotations, **values})


def test_a_default_that_counts():
    always = made(n=(Param[int], field(default=1, ignore_default=False)))
    other = made(n=(Param[int], field(default=2, ignore_default=False)))
    ignored = made(n=(Param[int], 1))
    assert identifier(always()) != identifier(ignored())
    assert identifier(always()) != identifier(other())
    assert identifier(always(n=2)) == identifier(other())
    assert identifier(ignored(n=2)) == identifier(other())


def test_a_default_of_a_factory_that_counts():
    always = made(n=(Param[list], field(default_factory=lambda: [1], ignore_default=False)))
    assert identifier(always()) == identifier(made(n=(Param[list], []))(n=[1]))


def test_a_default_belongs_to_its_class():
    """What is worked out once for a class is not another's: not its base's, nor one's of the same name."""
    base = made(n=(Param[int], 1), m=(Param[int], 0))
    seen = identifier(base(n=2))
    derived = type("Derived", (base,), {"__xpmid__": "frozen.made", "n": 2})
    assert identifier(derived()) == identifier(base()) != seen
    assert identifier(derived(n=1)) == identifier(made(n=(Param[int], 5), m=(Param[int], 0))(n=1))
    again = made(n=(Param[int], 2), m=(Param[int], 0))
    assert identifier(again(n=2)) == identifier(base(n=1))


def test_a_default_of_a_factory_is_made_each_time():
    given = iter(range(100))
    counted = made(n=(Param[int], field(default_factory=lambda: next(given) // 2)))
    assert identifier(counted(n=0)) == identifier(made()())
    assert identifier(counted(n=0)) == identifier(made()())
    assert identifier(counted(n=0)) != identifier(made()())
    boxes = made(box=(Param[Box], field(default_factory=lambda: Box(value=[1]))))
    assert identifier(boxes()) == identifier(made()()) != identifier(boxes(box=Box(value=[2])))


def test_a_default_that_is_a_list_cannot_be_changed():
    values = [1]
    cls = made(values=(Param[list], values))
    first = cls()
    values.append(2)
    first.values.append(3)
    assert identifier(cls()) == identifier(made()()) != identifier(first)


def test_constants_count():
    one = identifier(made(version=(Constant[int], 1))())
    assert one != identifier(made(version=(Constant[int], 2))())
    assert one != identifier(made()())
    assert one == identifier(made(version=(Constant[int], 1))())
    assert one == identifier(made(version=(Param[int], field(default=1, ignore_default=False)))())


def test_what_a_meta_parameter_holds_does_not_count():
    cls = made(inner=(Meta[Any], None))
    assert identifier(cls()) == identifier(cls(inner=Box(value=[1]))) == identifier(cls(inner=Link()))


def test_the_order_of_declaration_does_not_count():
    one = made(a=(Param[int], 0), b=(Param[int], 0))
    other = made(b=(Param[int], 0), a=(Param[int], 0))
    assert identifier(one(a=1, b=2)) == identifier(other(a=1, b=2)) != identifier(one(a=2, b=1))


def test_tags_do_not_count():
    assert of(Box(value=1).tag("a", 1)) == of(Box(value=1))
    assert identifier(Link().tag("a", 1)) == identifier(Link())


def test_the_class_counts_by_its_name():
    assert identifier(Box(value=1)) != identifier(Other(value=1))
    renamed = type("Renamed", (Config,), {"__xpmid__": "frozen.Box", "__annotations__": {"value": Param[int]}})
    assert identifier(renamed(value=1)) == identifier(Box(value=1))


def test_the_task_that_makes_an_object_counts():
    def output(source: Task | None) -> Box:
        box = Box(value=1)
        box.__dict__["__xpm__"].source = source
        return box

    found = [identifier(output(source)) for source in (None, Link(), Link(n=1))]
    assert len(set(found)) == 3
    assert identifier(output(Link(n=1))) == found[2]
    assert of(output(Link())) != of(output(None))


# --- changes ---


def test_a_change_changes_it_until_the_object_is_submitted():
    inner, link = Box(value=1), Link(n=1)
    outer = Box(value=[inner, link])
    before = identifier(outer)
    inner.value = 2
    assert identifier(outer) != before
    inner.value = 1
    assert identifier(outer) == before
    for part in (inner, link, outer):
        part.__dict__["__xpm__"].sealed = True
    assert identifier(outer) == before
    assert inner.__dict__["__xpm__"].digest == identifier(Box(value=1))
    assert identifier(outer) == before


def test_a_sealed_part_in_an_open_whole():
    inner = Box(value=1)
    inner.__dict__["__xpm__"].sealed = True
    identifier(inner)
    outer = Box(value=inner)
    assert identifier(outer) == of(Box(value=1))
    outer.value = 3
    assert identifier(outer) == of(3)


# --- cost ---


def diamond(depth: int) -> Node:
    node = Node()
    for _ in range(depth):
        node = Node(left=node, right=node)
    return node


def timed(function: Any, *arguments: Any) -> float:
    began = time.process_time()
    function(*arguments)
    return time.process_time() - began


def test_a_diamond_costs_its_nodes():
    top = diamond(400)
    assert timed(identifier, top) < 1
    assert identifier(top) == identifier(diamond(400)) != identifier(diamond(399))


def test_sharing_does_not_count():
    def tree(depth: int) -> Node:
        return Node(left=tree(depth - 1), right=tree(depth - 1)) if depth else Node()

    assert identifier(tree(6)) == identifier(diamond(6))


def chain(length: int) -> list[Link]:
    links = [Link()]
    for number in range(1, length):
        links.append(Link(before=[links[-1]], n=number))
    return links


def test_a_long_chain_does_not_recurse():
    assert timed(identifier, chain(2000)[-1]) < 2


def test_a_chain_that_is_submitted_step_by_step_costs_its_length():
    """2,000 tasks, each asked for when it is made; n² would take two million visits, about 4 s."""

    def submit(links: list[Link]) -> None:
        for link in links:
            link.__dict__["__xpm__"].sealed = True
            identifier(link)

    links = chain(2000)
    assert timed(submit, links) < 1
    assert links[-1].__dict__["__xpm__"].digest == identifier(chain(2000)[-1])


def test_many_flat_identifiers():
    boxes = [Link(n=number) for number in range(2000)]
    assert timed(lambda: [identifier(box) for box in boxes]) < 2


ELSEWHERE = """
import sys
sys.path[:0] = sys.argv[1:]
from test_identifier import *
print(of({"b", "a", "c", Path("d")}), of({"b": {1, 2}, "a": Colour.RED}), of({Link(n=n) for n in range(9)}))
"""


def test_the_same_in_every_process():
    said = [
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE, str(Path(__file__).parent)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    here = [of({"b", "a", "c", Path("d")}), of({"b": {1, 2}, "a": Colour.RED}), of({Link(n=n) for n in range(9)})]
    assert said == [here, here]
