"""What may stand in ``Param[...]``, in each Python that is here: its own spellings, and when it evaluates them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from test_shipped import NEW

ROOT = Path(__file__).parents[2]
START = "from experimaestro_hpc import Config, Meta, Param, Task\n"
REFUSED = """
def refused(message, make, **values):
    try:
        make(**values)
    except Exception as error:
        assert message in str(error), error
    else:
        raise AssertionError(f"{values} was taken")
"""


def since(oldest: str) -> pytest.MarkDecorator:
    """All Pythons that are here from a version on."""
    minor = int(oldest.split(".")[1])
    found = {version: path for version, path in NEW.items() if int(version.split(".")[1]) >= minor}
    return pytest.mark.parametrize("python", found.values(), ids=found)


def run(python: str, folder: Path, text: str) -> None:
    """Import ``text`` as a user's module, which must say nothing."""
    future, newline, rest = text.partition("\n")
    first, rest = (future + newline, rest) if future.startswith("from __future__") else ("", text)
    (folder / "sample.py").write_text(first + START + REFUSED + rest)
    ended = subprocess.run(
        [python, "-W", "error", "-c", "import sample"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


FUTURE = ["from __future__ import annotations\n", ""]


@since("3.9")
@pytest.mark.parametrize("future", FUTURE, ids=["text", "objects"])
def test_containers_and_names(python, future, tmp_path):
    text = """
from typing import Dict, List, Optional, Union
class A(Config):
    a: Param[Optional[int]] = None
    b: Param[List[int]] = []
    c: Param[list[int]] = []
    d: "Param[dict[str, Union[int, str]]]" = {}
    e: Param["Optional[A]"] = None
    f: Param[list["A"]] = []
made = A(a=1, b=[2], c=[3], d={"x": "y"}, e=A(), f=[A(a=4)])
assert (made.a, made.b, made.c, made.d, made.f[0].a) == (1, [2], [3], {"x": "y"}, 4)
refused(" must be ", A, a="x")
refused("at 0: not 'x' (str)", A, c=["x"])
refused("at 0: not 1 (int)", A, f=[1])
"""
    run(python, tmp_path, future + text)


@since("3.10")
@pytest.mark.parametrize("future", FUTURE, ids=["text", "objects"])
def test_alternatives_by_a_bar(python, future, tmp_path):
    text = """
class A(Config):
    a: Param[int | None] = None
    b: Param["A | None"] = None
assert A(a=1, b=A()).a == 1
refused("must be int | None, not 'x' (str)", A, a="x")
refused("not 1 (int)", A, b=1)
"""
    run(python, tmp_path, future + text)


@since("3.12")
@pytest.mark.parametrize("future", FUTURE, ids=["text", "objects"])
def test_aliases(python, future, tmp_path):
    text = """
type Number = int
type Pair[T] = tuple[T, T]
type Same[T] = T
type Tree = list[Tree] | int
type Later = list[A]
type Lost = list[Nowhere]
class A(Config):
    a: Param[Number] = 1
    b: Param[Pair[int]] = (1, 2)
    c: Param[Same[str]] = "x"
    d: Param[Tree] = 1
    e: Param[Later] = []
    f: Param[Pair] = (1, "x")
class Never(Config):
    a: Param[Lost]
made = A(a=3, b=(3, 4), c="y", d=[1, [2, []]], e=[A()], f=("x", 1))
assert (made.a, made.b, made.c, made.d, made.e[0].a, made.f) == (3, (3, 4), "y", [1, [2, []]], 1, ("x", 1))
refused("A.a must be Number, not 'x' (str)", A, a="x")
refused("A.b must be Pair[int], not (1, 'x') (tuple); at 1: not 'x' (str)", A, b=(1, "x"))
refused("A.c must be Same[str], not 1 (int)", A, c=1)
refused("A.d must be Tree, not [1, ['x']] (list)", A, d=[1, ["x"]])
refused("A.e must be Later, not [1] (list); at 0: not 1 (int)", A, e=[1])
refused("the type Lost cannot be understood (name 'Nowhere' is not defined)", Never, a=[1])
"""
    run(python, tmp_path, future + text)


@since("3.12")
@pytest.mark.parametrize("future", FUTURE, ids=["text", "objects"])
def test_generic_classes(python, future, tmp_path):
    text = """
class Box[T](Config):
    item: Param[T]
    items: Param[list[T]] = []
    more: Param[list["T"]] = []
class Small(Box[int]):
    pass
class Use(Config):
    box: Param[Box[int]]
assert Use(box=Box(item=1, items=["x"], more=[None])).box.items == ["x"]
assert Use(box=Small(item=1)).box.item == 1
refused("Use.box must be sample.Box[int], not 1 (int)", Use, box=1)
"""
    run(python, tmp_path, future + text)


@since("3.14")
def test_names_that_come_later(python, tmp_path):
    """From 3.14 on annotations are evaluated when somebody asks, so no quotes are needed."""
    text = """
from typing import ClassVar, Optional
class Node(Config):
    before: Param[Optional[Node]] = None
    many: Param[list[Node]] = []
    late: Param[Late | None] = None
class Late(Config):
    pass
assert Node(before=Node(), many=[Node()], late=Late()).before.many == []
refused("at 0: not 1 (int)", Node, many=[1])

class Others(Config):
    a: Param[int] = 1
    array: numpy_of_tomorrow.Array[int]
    shared: ClassVar[Nowhere]
assert vars(Others(a=2))["a"] == 2

class Lost(Config):
    a: Param[Nowhere] = None
refused("class sample.Lost: the type of 'a' cannot be understood: Nowhere", Lost)
class Part(Config):
    a: Param[list[Nowhere] | None] = None
assert Part().a is None
refused("cannot be understood: Nowhere (name 'Nowhere' is not defined)", Part, a=[1])

def inside():
    class Inner(Config):
        many: Param[list[Inner]] = []
        other: Param[Later | None] = None
    class Later(Config):
        pass
    return Inner(many=[Inner()], other=Later())
assert inside().many[0].other is None
"""
    run(python, tmp_path, text)


@since("3.9")
def test_a_class_that_is_made_again(python, tmp_path):
    """As when a cell of a notebook is run again: a name in quotes means what it means now."""
    text = """
from typing import List, Optional
class Part(Config):
    n: Param[int]
class Whole(Config):
    parts: Param[List["Part"]] = []
    other: Param[Optional["Missing"]] = None
old = Part(n=1)
assert Whole(parts=[old]).parts == [old]
class Part(Config):
    n: Param[str]
new = Part(n="x")
assert Whole(parts=[new]).parts == [new]
refused("at 0: not Part(n=1) (Part)", Whole, parts=[old])
refused("cannot be understood: Missing", Whole, other=1)
class Missing(Config):
    pass
assert Whole(other=Missing()).parts == []
"""
    run(python, tmp_path, text)
