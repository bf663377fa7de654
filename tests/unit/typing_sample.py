"""What type checkers make of tasks; test_typing.py reads it, nobody runs it.

A line that ends with ``# wrong`` must be an error to mypy and to pyright, and no other may be; what follows
``is:`` in the comment of a line must be the type that they reveal there.
"""

from enum import Enum
from pathlib import Path
from typing import Any, Literal, Optional

from typing_extensions import reveal_type

from experimaestro_hpc import (
    CommandTask,
    Config,
    Constant,
    CounterToken,
    GracefulTimeout,
    LightweightTask,
    Meta,
    Param,
    PathGenerator,
    ResumableTask,
    Task,
    copyconfig,
    deprecate,
    experiment,
    field,
    identifier,
    setmeta,
    tag,
    tags,
)


class Kind(Enum):
    SMALL = 1


class Model(Config):
    layers: Param[int]
    kind: Param[Kind] = Kind.SMALL
    names: Param[list[str]] = field(default_factory=list)
    table: Param[dict[str, float]] = field(default_factory=dict)
    mode: Param[Literal["a", "b"]] = "a"
    anything: Param[Any] = None
    version: Constant[int] = 1
    path: Meta[Path] = field(default_factory=PathGenerator("model.pt"))


class Train(Task):
    model: Param[Model]
    rate: Param[float] = 0.1
    start: Param[Optional["Train"]] = None
    epochs: Param[int] = field(default=3, ignore_default=False)

    @deprecate
    def speed(self, value: float) -> None:
        self.rate = value

    def execute(self) -> None:
        reveal_type(self.model.layers)  # is: int
        reveal_type(self.rate)  # is: float


@deprecate
class OldTrain(Train):
    pass


class More(Train):
    more: Param[int]


class Load(LightweightTask):
    path: Param[Path]

    def execute(self) -> None: ...


class Long(ResumableTask):
    def execute(self) -> None:
        reveal_type(self.remaining_time())  # is: float | None
        raise GracefulTimeout("saved")


class Sort(CommandTask):
    text: Param[Path]

    def command(self) -> list[Path]:
        return [self.text]


# what is right
model = Model(layers=2)
model = Model(layers=2, kind=Kind.SMALL, names=["a"], table={"a": 1}, mode="b", anything=object(), path=Path("a"))
train = Train(model=model)
train = Train(model=model, rate=1, start=train, epochs=4)
more = More(model=model, more=1)
old: OldTrain = OldTrain(model=model)
Sort(text=Path("a"))
with experiment("work", "sample", launcher="local") as xp:
    train.submit(resources="gpu", init_tasks=[Load(path=Path("a"))])
    train.result()
train.rate = 0.3

reveal_type(model)  # is: Model
reveal_type(model.kind)  # is: Kind
reveal_type(model.names)  # is: list[str]
reveal_type(model.table)  # is: dict[str, float]
reveal_type(model.path)  # is: Path
reveal_type(train.start)  # is: Train | None
reveal_type(more.more)  # is: int
reveal_type(train.tag("a", 1))  # is: Train
reveal_type(tag(train, "a", 1))  # is: Train
reveal_type(tags(train))  # is: dict[str, object]
reveal_type(setmeta(model, True))  # is: Model
reveal_type(copyconfig(more, rate=2))  # is: More
reveal_type(copyconfig(more).more)  # is: int
reveal_type(old.rate)  # is: float
reveal_type(identifier(train))  # is: str
reveal_type(CounterToken("a", 1)(1, more))  # is: More

# what is wrong
Model()  # wrong
Model(layers="2")  # wrong
Model(layers=None)  # wrong
Model(2)  # wrong
Model(layers=2, layer=3)  # wrong
Model(layers=2, kind="small")  # wrong
Model(layers=2, names=[1])  # wrong
Model(layers=2, mode="c")  # wrong
Model(layers=2, path="a")  # wrong
Train(model=Model)  # wrong
Train(model=train)  # wrong
More(model=model)  # wrong
OldTrain(rate=0.1)  # wrong
Sort(text="a")  # wrong
copyconfig(3)  # wrong
setmeta(model, "yes")  # wrong
train.rate = "fast"  # wrong
train.submit(init_tasks=[train])  # wrong
train.submit(resource="gpu")  # wrong
Load(path=Path("a")).submit()  # wrong
Long().remaining_time() + 1  # wrong
