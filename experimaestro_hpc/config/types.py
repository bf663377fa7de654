"""Parameter types: from annotations to checks. In: a class, a value. Out: its fields, the checked value.

Works on the laptop only (it needs ``typing``); checks are strict: a bool is not an int, ``"1"`` is not 1, but an
int stands for a float.
"""

from __future__ import annotations

import os
import sys
import types
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ..errors import ParameterError
from . import declare
from .checks import LEAVES, Check, Mismatch, checker, evaluate, short, shown_class
from .declare import MISSING, Configured, Deferred, Deprecated, Field, State

_OURS = __name__.split(".")[0] + "."
_PACKAGE = str(Path(__file__).parent.parent) + os.sep


class Parameter(NamedTuple):
    """One declared parameter of a class."""

    name: str
    kind: str  # param, meta or constant
    type: Any
    default: Any  # MISSING when there is none
    default_factory: Callable[[], Any] | None
    ignore_default: bool
    owner: type  # the class that declares it
    check: Check  # gives a value as it is stored

    def make_default(self) -> Any:
        """The default value, or ``MISSING``."""
        return self.default_factory() if self.default_factory is not None else self.default


def fields_of(cls: type) -> dict[str, Parameter]:
    """The parameters of ``cls`` by name, inherited ones first.

    :raises ParameterError: an annotation cannot be understood
    """
    known: dict[str, Parameter] | None = cls.__dict__.get("__xpm_fields__")
    if known is not None:
        return known
    found: dict[str, Parameter] = {}
    for base in reversed(cls.__mro__):
        if base is Configured or not issubclass(base, Configured):
            continue
        for name, annotation in _annotations(base).items():
            declared = _declared(base, name, annotation)
            if declared is not None:
                found[name] = _parameter(base, name, declared)
        for name in found.keys() & base.__dict__.keys():  # word = "x" below an inherited word: Param[str]
            value = _given(base, name)
            if isinstance(value, Deprecated):
                del found[name]
                continue
            if value is not MISSING and not isinstance(value, Field) and found[name].default is not value:
                found[name] = found[name]._replace(default=value, default_factory=None)
    for parameter in found.values():
        for base in cls.__mro__:
            if base.__module__.startswith(_OURS) and isinstance(vars(base).get(parameter.name), types.FunctionType):
                raise ParameterError(
                    f"{cls.__qualname__}.{parameter.name} cannot be a parameter: it is a method of {base.__qualname__}",
                    where=shown_class(cls),
                    hint="choose another name",
                )
        if parameter.kind == "constant" and parameter.make_default() is MISSING:
            raise ParameterError(f"constant {parameter.name!r} has no value", where=shown_class(cls))
        if parameter.default is not MISSING:
            default = _check(cls, parameter, parameter.default, where=shown_class(cls))
            found[parameter.name] = parameter._replace(default=default)
            for shared in configs_in(default):  # by all objects of the class: a change of one would change all
                for part in walk(shared):
                    part.__dict__["__xpm__"].sealed = True
    cls.__xpm_fields__ = found  # type: ignore[attr-defined]
    return found


def initialise(config: Configured, values: dict[str, Any]) -> None:
    """Set the parameters of a new object.

    :raises ParameterError: an unknown, missing or wrong parameter
    """
    cls = type(config)
    parameters = fields_of(cls)
    if "__xpm_replacement__" in cls.__dict__:
        _warn_of(cls, parameters)
    old: list[tuple[Deprecated, Any]] = []
    for name in values:
        if name not in parameters:
            replaced = getattr(cls, name, None)
            if isinstance(replaced, Deprecated):
                old.append((replaced, values[name]))
                continue
            import difflib  # takes longer to load than a thousand objects to make

            near = difflib.get_close_matches(name, parameters, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(parameters) or 'none'}"
            if any(name in getattr(base, "__annotations__", ()) for base in cls.__mro__):
                hint = f"write its type as Param[…]: `{name}: Param[…]`"
            raise ParameterError(f"{cls.__qualname__} has no parameter {name!r}", where=caller(), hint=hint)
    for name, parameter in parameters.items():
        if name in values:
            if parameter.kind == "constant":
                raise ParameterError(f"{cls.__qualname__}.{name} is a constant and cannot be given", where=caller())
            value = values[name]
        else:
            value = parameter.make_default()
            if value is MISSING:
                if old:  # what replaced an old parameter is set below
                    continue
                raise _missing(cls, parameter)
        config.__dict__[name] = _check(cls, parameter, value)
    for replaced, value in sorted(old, key=lambda one: one[0].name):  # as inside a job
        _warn(f"{cls.__qualname__}.{replaced.name} is deprecated")
        replaced.replace(config, value)
    if old:
        for name, parameter in parameters.items():
            if name not in config.__dict__:
                raise _missing(cls, parameter)


def _missing(cls: type, parameter: Parameter) -> ParameterError:
    return ParameterError(
        f"{cls.__qualname__} needs a value for {parameter.name!r} ({_text(parameter.type)})", where=caller()
    )


def _warn_of(cls: type, parameters: dict[str, Parameter]) -> None:
    """Tell of the use of a deprecated class, which must be its replacement in all but its name."""
    replacement = cls.__dict__["__xpm_replacement__"]
    if _declared_alike(parameters) != _declared_alike(fields_of(replacement)):
        raise ParameterError(
            f"{cls.__qualname__} is deprecated and has parameters of its own",
            where=shown_class(cls),
            hint=f"leave its body empty, and give {replacement.__qualname__} deprecated parameters where they differ",
        )
    _warn(f"{cls.__qualname__} is deprecated: use {replacement.__qualname__}")


def _declared_alike(parameters: dict[str, Parameter]) -> dict[str, Any]:
    """Parameters without their checks, which are made anew for each class."""
    return {name: parameter._replace(check=_unchecked) for name, parameter in parameters.items()}


def _unchecked(value: Any) -> Any:
    return value


def _warn(words: str) -> None:
    """A warning that people see, at the line of theirs that is to be changed."""
    frame = _caller_frame()
    told = frame.f_globals.setdefault("__warningregistry__", {})  # once for each line, not for each object
    warnings.warn_explicit(words, FutureWarning, frame.f_code.co_filename, frame.f_lineno, registry=told)


def set_init_tasks(task: Configured, init_tasks: Any, kind: type) -> None:
    """Note what is to be executed before ``task``.

    :param kind: LightweightTask, which builds on this module
    :raises ParameterError: one is a task, or has no ``execute``; or the task was submitted with others
    """
    state: State = task.__dict__["__xpm__"]
    try:
        wanted = tuple(init_tasks)
    except TypeError:
        raise ParameterError(
            f"init_tasks is a list, not {short(init_tasks)} ({type(init_tasks).__name__})", where=caller()
        ) from None
    for one in wanted:
        if not isinstance(one, kind):
            raise ParameterError(
                f"an init task must be a {kind.__name__}, not {short(one)} ({type(one).__name__})", where=caller()
            )
    if state.sealed and [id(one) for one in wanted] != [id(one) for one in state.init_tasks]:
        raise ParameterError(f"{type(task).__qualname__} was submitted with other init tasks", where=caller())
    state.init_tasks = wanted


def set_meta(config: Configured, flag: bool | None) -> None:
    """Say whether an object counts in others' identifiers.

    :raises ParameterError: the object was submitted, or what is given is none
    """
    if not isinstance(config, Configured):
        raise ParameterError(f"{short(config)} has no parameters", where=caller())
    state: State = config.__dict__["__xpm__"]
    if state.sealed and flag is not state.is_meta:
        raise ParameterError(f"{type(config).__qualname__} was submitted and cannot change", where=caller())
    state.is_meta = flag


def copied(config: Any, changes: dict[str, Any]) -> Any:
    """A new object like ``config`` with ``changes``.

    :raises ParameterError: an unknown or wrong parameter, or ``config`` has none
    """
    if not isinstance(config, Configured):
        raise ParameterError(f"{short(config)} has no parameters", where=caller())
    kept = {
        name: getattr(config, name)  # inside a job some values are read, or made, when they are looked at
        for name, parameter in fields_of(type(config)).items()
        if parameter.kind != "constant"
    }
    copy = type(config)(**{**kept, **changes})
    state, original = copy.__dict__["__xpm__"], config.__dict__["__xpm__"]
    state.source, state.is_meta = original.source, original.is_meta
    return copy


def checked(config: Configured, name: str, value: Any) -> Any:
    """The value to store for ``config.name = value``; what is no parameter is taken as it is.

    :raises ParameterError: the object was submitted, the parameter is a constant, or the value is wrong
    """
    parameter = fields_of(type(config)).get(name)
    owner = type(config).__qualname__
    if parameter is None:
        if isinstance(getattr(type(config), name, None), Deprecated):
            raise ParameterError(f"{owner}.{name} was replaced by other parameters", where=caller())
        return value
    state: State = config.__dict__["__xpm__"]
    if state.sealed:
        raise ParameterError(
            f"{owner}.{name} cannot change: the object was submitted, or is a default that others share",
            where=caller(),
            hint="make a new object",
        )
    if parameter.kind == "constant":
        raise ParameterError(f"{owner}.{name} is a constant and cannot change", where=caller())
    return _check(type(config), parameter, value)


def walk(config: Configured, leave_out: Callable[[Configured], object] = lambda _part: False) -> Iterator[Configured]:
    """``config`` and all objects that it is made of, each once, parts before wholes.

    :param leave_out: says which objects to pass by, with all that they are made of
    :raises ParameterError: an object holds itself
    """
    done: set[int] = set()
    on_path: dict[int, Configured] = {}
    stack: list[tuple[Configured, bool]] = [(config, False)]
    while stack:
        node, left = stack.pop()
        key = id(node)
        if left:
            del on_path[key]
            done.add(key)
            yield node
        elif key in on_path:
            loop = [type(part).__qualname__ for part in on_path.values()]
            raise ParameterError("an object holds itself: " + " > ".join([*loop, type(node).__qualname__]))
        elif key not in done and not leave_out(node):
            on_path[key] = node
            stack.append((node, True))
            stack.extend((part, False) for part in parts_of(node) if id(part) not in done)


def values_of(config: Configured) -> dict[str, Any]:
    """The parameters' values by name."""
    return {name: config.__dict__[name] for name in fields_of(type(config))}


def parts_of(config: Configured) -> list[Configured]:
    """The objects directly inside ``config``: in its parameters, and the task that makes it."""
    found: list[Configured] = []
    own = config.__dict__
    todo = [value for name in fields_of(type(config)) if type(value := own[name]) not in LEAVES]
    while todo:
        value = todo.pop()
        if isinstance(value, Configured):
            found.append(value)
        elif isinstance(value, (list, tuple, set, frozenset)):
            todo.extend(value)
        elif isinstance(value, dict):
            todo.extend(value.keys())
            todo.extend(value.values())
    state: State = config.__dict__["__xpm__"]
    if state.source is not None:
        found.append(state.source)
    found.extend(state.init_tasks)
    return found


def configs_in(value: Any) -> list[Configured]:
    """The objects in a value."""
    if isinstance(value, Configured):
        return [value]
    if isinstance(value, dict):
        return [part for pair in value.items() for item in pair for part in configs_in(item)]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [part for item in value for part in configs_in(item)]
    return []


def _annotations(cls: type) -> dict[str, Any]:
    """The annotations of the class itself, as written."""
    if sys.version_info >= (3, 14):  # evaluated only now; a name that is unknown still becomes a ForwardRef
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return dict(vars(cls).get("__annotations__", {}))


def _declared(cls: type, name: str, annotation: Any) -> Any:
    """The ``Declared`` of an annotation, or None for one that is no parameter."""
    if isinstance(annotation, str):
        if "[" not in annotation:
            return None
        try:
            annotation = evaluate(cls, name, annotation)
        except ParameterError:  # somebody else's, unless it looks like ours: Param may be imported by another name
            if any(kind in annotation for kind in ("Param", "Meta", "Constant")):
                raise
            return None
        if isinstance(annotation, str):  # in quotes, below from __future__ import annotations
            return _declared(cls, name, annotation)
    return annotation if isinstance(annotation, declare.Declared) else None  # type: ignore[attr-defined]


def _given(cls: type, name: str) -> Any:
    """What the class's body says of a parameter; inside a job something may stand before it."""
    given = cls.__dict__.get(name, MISSING)
    return given.declared if isinstance(given, Deferred) else given


def _parameter(cls: type, name: str, declared: Any) -> Parameter:
    given = _given(cls, name)
    wanted = declared.type
    if isinstance(wanted, (str, typing.ForwardRef)):
        wanted = evaluate(cls, name, wanted)
    if not isinstance(given, Field):
        given = Field(given, None, True)
    made = (given.default, given.default_factory, given.ignore_default)
    return Parameter(name, declared.kind, wanted, *made, cls, checker(wanted, cls))


def _check(cls: type, parameter: Parameter, value: Any, where: str = "") -> Any:
    try:
        return parameter.check(value)
    except RecursionError:
        raise ParameterError(
            f"the value of {cls.__qualname__}.{parameter.name} holds itself, or is nested too deeply",
            where=where or caller(),
        ) from None
    except Mismatch as mismatch:
        inner = f"; {mismatch}" if str(mismatch) else ""
        raise ParameterError(
            f"{cls.__qualname__}.{parameter.name} must be {_text(parameter.type)},"
            f" not {short(value)} ({type(value).__name__}){inner}",
            where=where or caller(),
        ) from None


def caller() -> str:
    """File and line of the user's code that led here."""
    frame = _caller_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _caller_frame() -> types.FrameType:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame


def _text(wanted: Any) -> str:
    if isinstance(wanted, type) and not typing.get_args(wanted):
        return wanted.__name__
    return str(wanted).replace("typing.", "")
