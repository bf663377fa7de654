"""What a task needs, said on its class: where submit says more, that counts."""

from __future__ import annotations

import pytest

from experimaestro_hpc import Param, Resources, RunMode, Task, experiment, identifier
from experimaestro_hpc.resources import ResourceError


class Train(Task):
    __xpmresources__ = "gpu * 2 & duration=4h"
    n: Param[int] = 0


class Small(Train):
    __xpmresources__ = Resources(cores=1) | "any"


class Plain(Task):
    pass


class Wrong(Task):
    __xpmresources__ = "gpu * 2 & duration=4 parsecs"


@pytest.fixture
def dry(tmp_path):
    with experiment(tmp_path / "work", "dry", run_mode=RunMode.DRY_RUN, launcher="local") as xp:
        yield xp


@pytest.mark.parametrize(
    ("task", "given", "asked"),
    [
        (Train, None, "gpu * 2 & duration=4h"),
        (Train, "duration=8h", "gpu * 2 & duration=8h"),
        (Train, Resources(cores=4), "gpu * 2 & cpu(cores=4) & duration=4h"),
        (Train, "gpu(model=a100) | gpu * 4", "gpu(model=a100) & duration=4h | gpu * 4 & duration=4h"),
        (Small, None, "cpu(cores=1) | any"),
        (Plain, None, "any"),
        (Plain, "cores=3", "cpu(cores=3)"),
    ],
)
def test_submit_over_class(dry, task, given, asked):
    task().submit(resources=given)
    (taken,) = dry.jobs.values()
    assert str(taken.resources) == asked


def test_a_class_that_is_wrong_is_named(dry):
    with pytest.raises(ResourceError, match="unknown unit of time 'parsecs'") as caught:
        Wrong().submit()
    assert caught.value.where == "Wrong.__xpmresources__"
    assert dry.jobs == {}


def test_it_does_not_count():
    before = identifier(Train(n=1))
    Train.__xpmresources__ = "any"
    try:
        assert identifier(Train(n=1)) == before
    finally:
        Train.__xpmresources__ = "gpu * 2 & duration=4h"
