"""copyconfig, setmeta, init tasks and deprecated names, as far as they are the laptop's: objects and identifiers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experimaestro_hpc import (
    Config,
    Constant,
    LightweightTask,
    Meta,
    Param,
    PathGenerator,
    RunMode,
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
from experimaestro_hpc.config.objects import task_id, type_name
from experimaestro_hpc.config.serialize import job_id, params_text, parents_of
from experimaestro_hpc.errors import ParameterError, XpmError

CODE = Path(__file__).parent


class Model(Config):
    layers: Param[int] = 2
    width: Param[int] = 10
    version: Constant[int] = 1
    path: Meta[Path] = field(default_factory=PathGenerator("model.pt"))


class Learn(Task):
    model: Param[Model]
    rate: Param[float] = 0.1

    def task_outputs(self, dep):
        return dep(self.model)


class Box(Config):
    value: Param[Any]


class Quiet(Config):
    value: Meta[Any] = None


class Use(Task):
    value: Param[Any] = None


class Load(LightweightTask):
    what: Param[Any] = None


class Seed(LightweightTask):
    n: Param[int] = 0


@pytest.fixture
def dry(tmp_path):
    with experiment(tmp_path / "work", "dry", run_mode=RunMode.DRY_RUN, launcher="local") as xp:
        yield xp


def document(task: Task) -> Any:
    return json.loads(params_text(task, CODE))


# --- copyconfig ---


def test_a_copy_has_the_values_and_the_changes():
    model = Model(layers=3).tag("size", "big")
    copy = copyconfig(model, width=11)
    assert (copy.layers, copy.width, copy.version, model.width) == (3, 11, 1, 10)
    assert type(copy) is Model and copy is not model
    assert tags(copy) == {}
    assert identifier(copyconfig(model)) == identifier(model) == identifier(Model(layers=3))
    assert copy.path is model.path  # still below the directory of whatever job holds it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 3}, "Model has no parameter 'layer'\n  did you mean 'layers'?"),
        ({"layers": "3"}, r"Model.layers must be int, not '3' (str)"),
        ({"version": 2}, "Model.version is a constant and cannot be given"),
    ],
)
def test_a_copy_with_wrong_changes(changes, message):
    with pytest.raises(ParameterError) as caught:
        copyconfig(Model(), **changes)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{__file__}:")


@pytest.mark.parametrize("what", [None, "a", Model])
def test_only_objects_can_be_copied_or_flagged(what):
    for function in (copyconfig, lambda one: setmeta(one, True)):
        with pytest.raises(ParameterError, match="has no parameters"):
            function(what)


def test_containers_are_copied_and_objects_shared():
    inner = Model()
    box = Box(value=[inner])
    copy = copyconfig(box)
    copy.value.append(1)
    assert (len(box.value), copy.value[0] is inner) == (1, True)


def test_a_copy_of_a_submitted_task_can_be_changed_and_submitted(dry):
    first = Learn(model=Model())
    first.submit()
    with pytest.raises(ParameterError, match="cannot change"):
        first.rate = 0.2
    copy = copyconfig(first, rate=0.2)
    copy.rate = 0.3
    copy.submit()
    assert sorted(dry.jobs) == sorted({job_id(Learn(model=Model())), job_id(Learn(model=Model(), rate=0.3))})
    assert copy.__xpm_stdout__ != first.__xpm_stdout__


def test_a_copy_of_a_tasks_output_still_depends_on_the_task(dry):
    learn = Learn(model=Model())
    output = learn.submit()
    copy = copyconfig(output, width=12)
    assert copy.__xpmtask__ is learn
    assert identifier(copy) not in {identifier(output), identifier(Model(width=12))}
    use = Use(value=[copy])
    assert parents_of(use) == [learn]
    use.submit()
    assert dry.jobs[job_id(use)].parents == (job_id(learn),)


def test_a_copy_keeps_what_setmeta_said():
    box = Box(value=copyconfig(setmeta(Model(), True), layers=9))
    assert identifier(box) == identifier(Box(value=setmeta(Model(), True)))


# --- setmeta ---


def test_what_does_not_count_in_a_parameter():
    class Some(Config):
        model: Param[Model | None] = None

    assert identifier(Some(model=setmeta(Model(layers=9), True))) == identifier(Some())
    assert identifier(Some(model=setmeta(Model(layers=9), False))) == identifier(Some(model=Model(layers=9)))
    assert identifier(setmeta(Model(layers=9), True)) == identifier(Model(layers=9))  # its own stays


def test_what_counts_in_a_meta_parameter():
    said = [identifier(Quiet(value=setmeta(Model(layers=n), False))) for n in (1, 1, 2)]
    assert said[0] == said[1] != said[2]
    assert identifier(Quiet()) not in said
    assert identifier(Quiet(value=setmeta(setmeta(Model(layers=1), False), None))) == identifier(Quiet())


@pytest.mark.parametrize(
    "hold",
    [
        lambda a, b: [a, b],
        lambda a, b: (a, b),
        lambda a, b: {a, b},
        lambda a, b: frozenset({a, b}),
        lambda a, b: {"a": a, "b": b},
        lambda a, b: {a: "a", b: "b"},
        lambda a, b: [[{"x": (a,)}], b],
    ],
    ids=["list", "tuple", "set", "frozenset", "dict", "keys", "deep"],
)
def test_what_does_not_count_inside_a_container(hold: Callable[[Any, Any], Any]):
    def of(flagged: int | None, kept: int = 1) -> str:
        a = Model(layers=5 if flagged is None else flagged)
        return identifier(Box(value=hold(a if flagged is None else setmeta(a, True), Model(layers=kept))))

    assert of(1) == of(2) != of(None)
    assert of(1, kept=2) != of(1)


def test_a_container_of_what_does_not_count_is_an_empty_one():
    assert identifier(Box(value=[setmeta(Model(), True)])) == identifier(Box(value=[]))


def test_a_submitted_object_is_not_flagged_any_more(dry):
    learn = Learn(model=Model())
    learn.submit()
    for part in (learn, learn.model):
        with pytest.raises(ParameterError, match="was submitted and cannot change"):
            setmeta(part, True)
        assert setmeta(part, None) is part  # as it was


def test_what_does_not_count_is_still_written_down_and_waited_for(dry):
    log = Use(value="log")
    setmeta(log, True).submit()
    use = Use(value=[log, setmeta(Model(layers=7), True)])
    use.submit()
    assert dry.jobs[job_id(use)].parents == (job_id(log),)
    assert [one["params"].get("layers") for one in document(use)["configs"]] == [None, 7]


def test_tag_setmeta_and_copyconfig_give_the_object_back():
    model = Model()
    assert setmeta(tag(model, "a", 1), True) is model


# --- init tasks ---


def submitted(*init_tasks: Any, **values: Any) -> Use:
    use = Use(**values)
    use.submit(init_tasks=init_tasks)
    return use


def test_init_tasks_count_in_their_order(dry):
    found = {
        name: identifier(submitted(*given))
        for name, given in {
            "none": [],
            "load": [Load()],
            "again": [Load()],
            "other": [Load(what=1)],
            "twice": [Load(), Load()],
            "load seed": [Load(), Seed()],
            "seed load": [Seed(), Load()],
        }.items()
    }
    assert found.pop("again") == found["load"]
    assert len(set(found.values())) == 6
    assert found["none"] == identifier(Use())


def test_an_init_task_that_does_not_count(dry):
    assert identifier(submitted(setmeta(Load(what=3), True))) == identifier(Use())
    assert identifier(submitted(setmeta(Load(what=3), True), Seed())) == identifier(submitted(Seed()))


def test_init_tasks_are_written_down(dry):
    shared = Model(layers=8)
    written = document(submitted(Load(what=shared), Seed(n=4), value=shared))
    names = [one["class"]["name"] for one in written["configs"]]
    assert sorted(names) == ["Load", "Model", "Seed", "Use"] and names[0] == "Use"
    assert [names[number] for number in written["init_tasks"]] == ["Load", "Seed"]
    assert "init_tasks" not in document(submitted())


def test_tasks_in_init_tasks_are_dependencies(dry):
    before, learn = Use(value="before"), Learn(model=Model())
    before.submit()
    use = submitted(Load(what=[before]), Load(what=learn.submit()))
    assert set(dry.jobs[job_id(use)].parents) == {job_id(before), job_id(learn)}


@pytest.mark.parametrize("wrong", [Use(), Model(), Load, "load", None, [Load()]])
def test_what_cannot_be_an_init_task(dry, wrong):
    with pytest.raises(ParameterError, match="an init task must be a LightweightTask, not"):
        Use().submit(init_tasks=[wrong])


@pytest.mark.parametrize("wrong", [Load(), 3, None])
def test_init_tasks_are_a_list(dry, wrong):
    with pytest.raises(ParameterError, match="init_tasks is a list, not"):
        Use().submit(init_tasks=wrong)


def test_init_tasks_do_not_change_after_the_submission(dry):
    use, load = Use(), Load(what=1)
    use.submit(init_tasks=[load])
    use.submit(init_tasks=[load])
    with pytest.raises(ParameterError, match="Use was submitted with other init tasks"):
        use.submit()
    with pytest.raises(ParameterError, match=r"Load\.what cannot change"):
        load.what = 2


def test_an_init_task_that_holds_its_task(dry):
    load, use = Load(), Use()
    load.what = use
    with pytest.raises(ParameterError, match="an object holds itself: Use > Load > Use"):
        use.submit(init_tasks=[load])


def test_an_init_task_is_no_task(dry):
    assert not hasattr(Load(), "submit")
    with pytest.raises(XpmError, match="Load is no Task"):
        dry.submit(Load())


# --- deprecated names ---


class New(Task):
    rates: Param[list[float]]
    count: Param[int] = 1

    @deprecate
    def rate(self, value):
        self.rates = [value] * self.count


@deprecate
class Middle(New):
    pass


@deprecate
class Old(Middle):
    pass


class Outer:
    @deprecate
    class Inner(New):
        pass


class Below(New):
    """Not deprecated, though its base replaces something."""


@deprecate
class Wrong(New):
    more: Param[int] = 1


@deprecate
class OtherDefault(New):
    count = 2


@pytest.fixture
def told():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield caught


@pytest.mark.parametrize("old", [Middle, Old, Outer.Inner])
def test_an_old_class_counts_as_the_new_one(told, old):
    made = old(rates=[1])
    assert type(made) is old
    assert identifier(made) == identifier(New(rates=[1]))
    assert type_name(old) == "test_copies.New"
    assert job_id(made) == job_id(New(rates=[1]))
    (warning,) = told
    assert warning.category is FutureWarning  # shown to users, unlike a DeprecationWarning
    assert str(warning.message) == f"{old.__qualname__} is deprecated: use {old.__bases__[0].__qualname__}"
    assert warning.filename == __file__


def test_a_class_below_the_new_one_is_another():
    assert task_id(Below) == "test_copies.below"
    assert identifier(Below(rates=[1])) != identifier(New(rates=[1]))


@pytest.mark.parametrize(("cls", "name"), [(Wrong, "Wrong"), (OtherDefault, "OtherDefault")])
def test_a_deprecated_class_with_parameters_of_its_own_is_refused(cls, name):
    with pytest.raises(ParameterError, match=f"{name} is deprecated and has parameters of its own") as caught:
        cls(rates=[1])
    assert "leave its body empty, and give New deprecated parameters" in str(caught.value)


@pytest.mark.parametrize("base", [object, Config, Task, LightweightTask, dict])
def test_a_deprecated_class_that_nothing_replaces_is_refused(base):
    with pytest.raises(ParameterError, match="Gone is deprecated and replaced by nothing"):
        deprecate(type("Gone", (base,), {}))


def test_an_old_parameter_sets_the_new_ones(told):
    made = New(rate=1, count=2)
    assert made.rates == [1.0, 1.0]
    assert identifier(made) == identifier(New(rates=[1.0, 1.0], count=2))
    (warning,) = told
    assert (str(warning.message), warning.filename) == ("New.rate is deprecated", __file__)


def test_a_copy_by_an_old_parameter(told):
    assert copyconfig(New(rates=[1.0]), rate=2.0).rates == [2.0]


def test_a_warning_is_told_once_for_a_line(told):
    for _ in range(5):
        New(rate=1)
    assert len(told) == 1


def test_an_old_parameter_in_a_class_below(told):
    assert Below(rate=2).rates == [2.0]
    assert Old(rate=2).rates == [2.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: New(), "New needs a value for 'rates'"),
        (lambda: New(rate="1"), r"New\.rates must be"),
        (lambda: New(rate=1, nothing=1), "New has no parameter 'nothing'"),
        (lambda: setattr(New(rates=[]), "rate", 1), r"New\.rate was replaced by other parameters"),
    ],
)
def test_old_parameters_that_are_wrong(told, make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_an_old_parameter_cannot_be_looked_at():
    with pytest.raises(AttributeError, match=r"New\.rate was replaced by other parameters"):
        _ = New(rates=[]).rate


def test_an_old_parameter_that_sets_nothing(told):
    class Lazy(Config):
        new: Param[int]

        @deprecate
        def old(self, value):
            pass

    with pytest.raises(ParameterError, match="Lazy needs a value for 'new'"):
        Lazy(old=1)


def test_an_inherited_parameter_that_a_class_replaces(told):
    class Rates(Box):
        values: Param[list[Any]] = field(default_factory=list)

        @deprecate
        def value(self, value):
            self.values = [value]

    assert Rates(value=3).values == [3]
    assert Box(value=3).value == 3


def test_an_old_parameter_of_a_submitted_object_is_not_set(dry):
    made = New(rates=[1])
    made.submit()
    with pytest.raises(ParameterError, match="was replaced"):
        made.rate = 3
    assert made.rates == [1.0]
