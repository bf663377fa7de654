"""Cross products of values, with tags."""

from __future__ import annotations

import pytest

from experimaestro_hpc import Config, Param, Task, grid, tags
from experimaestro_hpc.errors import ParameterError


class Model(Config):
    layers: Param[int]


class Train(Task):
    lr: Param[float]
    model: Param[Model]
    epochs: Param[int] = 1


def test_all_combinations_the_last_name_changing_fastest() -> None:
    points = list(grid(a=[1, 2], b=("x", "y")))
    assert points == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    assert list(grid()) == [{}]
    assert len(list(grid(a=range(3), b=(n for n in range(2))))) == 6


def test_points_make_tagged_tasks() -> None:
    models = [Model(layers=2).tag("size", "small"), Model(layers=9)]
    tasks = [point.tag(Train(**point, epochs=3)) for point in grid(lr=[0.1], model=models)]
    assert [(task.lr, task.model.layers, task.epochs) for task in tasks] == [(0.1, 2, 3), (0.1, 9, 3)]
    assert tags(tasks[0]) == {"size": "small", "lr": 0.1, "model": "Model(size=small)"}
    assert tags(tasks[1]) == {"lr": 0.1, "model": "Model()"}


@pytest.mark.parametrize("values", ["abc", b"abc", 3, None, {"a": 1}])
def test_no_list_of_values(values: object) -> None:
    with pytest.raises(ParameterError, match="grid wants a list of values for 'lr'"):
        grid(lr=values)  # type: ignore[arg-type]


def test_an_empty_list() -> None:
    with pytest.raises(ParameterError, match="grid has no value for 'lr'"):
        grid(lr=[])
