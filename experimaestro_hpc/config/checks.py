"""What a parameter's type asks of a value. In: a type as it is annotated. Out: a function that checks values.

Types are looked at once for each parameter, values often: so each type becomes a function (closures, no tree to
walk), and values of exactly the type wanted are let through first.
"""

from __future__ import annotations

import collections.abc
import enum
import sys
import types
import typing
from pathlib import Path, PurePath
from typing import Any, Callable, NoReturn

from ..errors import ParameterError
from .declare import MISSING, Configured, JobPath

Check = Callable[[Any], Any]

_UNION_TYPES = (typing.Union, getattr(types, "UnionType", typing.Union))
_ALIAS: Any = getattr(typing, "TypeAliasType", ())  # type X = int, from Python 3.12 on
_PATH = type(Path())
#: of exactly these types, values hold nothing
LEAVES = frozenset((type(None), bool, int, float, str, _PATH))


class Mismatch(Exception):
    """A value is not of a type; the text says where inside it."""


def checker(wanted: Any, cls: type) -> Check:
    """What gives a value as it is stored for a ``wanted``, or raises ``Mismatch``.

    Containers are copied, so that later changes to them do not reach the object.

    :param cls: the class whose names are meant by types that are given as text
    """
    if isinstance(wanted, (str, typing.ForwardRef)):
        return _later(lambda: evaluate(cls, "a part", wanted), cls)
    if wanted is Any or isinstance(wanted, typing.TypeVar):
        return _plain
    if wanted is None:
        return _instance(type(None))
    origin = typing.get_origin(wanted)
    arguments = typing.get_args(wanted)
    if isinstance(origin or wanted, _ALIAS):
        return _later(lambda: _meant(origin or wanted, arguments, cls), cls)
    if origin in _UNION_TYPES:
        return _union(arguments, cls)
    if origin is typing.Literal:
        return lambda value: _require(any(type(one) is type(value) and one == value for one in arguments), value)
    if origin is not None:
        if isinstance(origin, type) and issubclass(origin, Configured):
            return _instance(origin)
        return _container(origin, arguments, cls)
    if isinstance(wanted, type):
        if wanted in _SIMPLE:
            return _SIMPLE[wanted]
        if issubclass(wanted, enum.Enum):
            return lambda value: _member(_require(isinstance(value, wanted), value))
        if wanted in (bool, type(None)) or issubclass(wanted, Configured):
            return _instance(wanted)
    return _container(wanted, (), cls) if wanted in (list, set, dict, tuple, frozenset) else _no_parameter


def _later(resolve: Callable[[], Any], cls: type) -> Check:
    """For a type that may not exist yet, or hold itself, or be another one later, when its class is made again."""
    last: Any = MISSING
    check: Check = _no_parameter

    def look(value: Any) -> Any:
        nonlocal last, check
        wanted = resolve()
        if wanted != last:
            last, check = wanted, checker(wanted, cls)
        return check(value)

    return look


def _meant(alias: Any, arguments: tuple[Any, ...], cls: type) -> Any:
    """What ``type X = ...`` stands for; ``arguments`` are those of ``X[...]``."""
    try:
        value = alias.__value__
        given = dict(zip(alias.__type_params__, arguments))
        if value in given:
            return given[value]
        return value[tuple(given.get(one, Any) for one in value.__parameters__)] if given else value
    except Exception as error:
        raise ParameterError(f"the type {alias} cannot be understood ({error})", where=shown_class(cls)) from error


def _no_parameter(_value: Any) -> NoReturn:
    raise Mismatch("this type cannot be a parameter")


def _require(ok: bool, value: Any) -> Any:
    if not ok:
        raise Mismatch
    return value


def _instance(kind: type) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Mismatch
        return value

    return check


def _int(value: Any) -> int:
    if type(value) is int:
        return value
    return int(_require(isinstance(value, int) and not isinstance(value, (bool, enum.Enum)), value))


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    try:
        return float(_require(isinstance(value, (int, float)) and not isinstance(value, bool), value))
    except OverflowError:
        raise Mismatch("the number is too large for a float") from None


def _str(value: Any) -> str:
    if type(value) is str:
        return value
    return str(_require(isinstance(value, str) and not isinstance(value, enum.Enum), value))


def _path(value: Any) -> Path | JobPath:
    if type(value) is _PATH or isinstance(value, JobPath):
        return value
    return Path(_require(isinstance(value, PurePath), value))


_SIMPLE: dict[type, Check] = {int: _int, float: _float, str: _str, Path: _path, PurePath: _path}


def _union(arguments: tuple[Any, ...], cls: type) -> Check:
    checks = [(one, checker(one, cls)) for one in arguments]

    def check(value: Any) -> Any:
        kind = type(value)
        exact = [one for one in checks if one[0] is kind]
        for _, take in [*exact, *checks]:
            try:
                return take(value)
            except Mismatch:
                continue
        raise Mismatch

    return check


def _inside(check: Check, item: Any, place: str, position: Any) -> Any:
    """``item`` of a container, checked; ``place`` says where it is, ``{}`` in it stands for ``position``."""
    try:
        return check(item)
    except Mismatch as mismatch:
        deeper = f"{mismatch}" if str(mismatch) else f"not {short(item)} ({type(item).__name__})"
        raise Mismatch(f"at {place.format(short(position))}: {deeper}") from None


def _container(origin: Any, arguments: tuple[Any, ...], cls: type) -> Check:
    if origin is tuple:
        return _tuple(arguments or (Any, ...), cls)
    checks = [checker(one, cls) for one in arguments] or [_plain, _plain]
    if origin in (list, collections.abc.Sequence):
        return _list(list if origin is list else (list, tuple), checks[0])
    if origin in (set, frozenset, collections.abc.Set):
        return _set(origin, checks[0])
    if origin in (dict, collections.abc.Mapping):
        return _dict(*checks)
    return _no_parameter


def _list(kinds: Any, inner: Check) -> Check:
    def check(value: Any) -> Any:
        _require(isinstance(value, kinds), value)
        return [_inside(inner, item, "{}", position) for position, item in enumerate(value)]

    return check


def _set(origin: Any, inner: Check) -> Check:
    def check(value: Any) -> Any:
        _require(isinstance(value, (set, frozenset)), value)
        found = {_inside(inner, item, "an element", None) for item in value}
        return found if origin is set or (origin is not frozenset and isinstance(value, set)) else frozenset(found)

    return check


def _dict(key_check: Check, value_check: Check) -> Check:
    def check(value: Any) -> Any:
        _require(isinstance(value, dict), value)
        return {
            _inside(key_check, key, "key {}", key): _inside(value_check, item, "[{}]", key)
            for key, item in value.items()
        }

    return check


def _tuple(arguments: tuple[Any, ...], cls: type) -> Check:
    if arguments[1:] == (...,):
        take = _list(tuple, checker(arguments[0], cls))
        return lambda value: tuple(take(value))
    checks = [checker(one, cls) for one in arguments if one != ()]  # tuple[()] on old Pythons

    def check(value: Any) -> Any:
        _require(isinstance(value, tuple), value)
        if len(checks) != len(value):
            raise Mismatch(f"it has {len(value)} elements, not {len(checks)}")
        return tuple(_inside(take, item, "{}", place) for place, (take, item) in enumerate(zip(checks, value)))

    return check


def _plain(value: Any) -> Any:
    """Any value that can be written down and hashed."""
    if type(value) in LEAVES:
        return value
    if isinstance(value, enum.Enum):
        return _member(value)
    if isinstance(value, (str, int, float, PurePath, Configured, JobPath)):
        return value
    for kind, check in _PLAIN_CONTAINERS.items():
        if isinstance(value, kind):
            return check(value)
    raise Mismatch(f"a {type(value).__name__} cannot be a parameter's value")


_PLAIN_CONTAINERS = {kind: _container(kind, (), Configured) for kind in (list, tuple, set, frozenset, dict)}


def _member(value: enum.Enum) -> enum.Enum:
    if value.name not in type(value).__members__:
        raise Mismatch("a combination of flags cannot be a parameter's value")
    return value


def evaluate(cls: type, name: str, reference: str | typing.ForwardRef) -> Any:
    """The object that a name in an annotation, or one as text, stands for."""
    text = reference if isinstance(reference, str) else reference.__forward_arg__
    module = sys.modules.get(cls.__module__)
    names = vars(module) if module is not None else {}
    around = {one.__name__: one for one in getattr(cls, "__type_params__", ())}  # class Box[T]
    inner: Any = {**around, **vars(cls)} if around else vars(cls)
    try:
        if sys.version_info >= (3, 14) and not isinstance(reference, str):
            return reference.evaluate(owner=cls)  # it may know names that are those of a function
        return eval(text, names, inner)  # noqa: S307 - the user's own source code
    except Exception:
        try:  # the class itself may have its name in a function only
            return eval(text, {cls.__name__: cls, **names}, dict(inner))  # noqa: S307 - as above
        except Exception as error:
            raise ParameterError(
                f"the type of {name!r} cannot be understood: {text} ({error})",
                where=shown_class(cls),
                hint="the names in it must exist in the class's module",
            ) from error


def shown_class(cls: type) -> str:
    return f"class {cls.__module__}.{cls.__qualname__}"


def short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return "..."  # an integer of thousands of digits, or a class of the user's
    return text if len(text) <= 60 else text[:57] + "..."
