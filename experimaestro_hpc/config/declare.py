"""How parameters are declared, and what is known of an object beside them. In: annotations. Out: small plain objects.

Every job imports this module, so it imports nothing itself: ``typing`` alone would double the start of a small task.
To type checkers ``Param[int]`` is ``Annotated[int, ...]``; at run time it is a :class:`Declared`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated, Any, Callable, TypeVar

    T = TypeVar("T")
    Param = Annotated[T, "param"]
    Meta = Annotated[T, "meta"]
    Constant = Annotated[T, "constant"]
else:

    class Declared:
        """A parameter's annotation: its kind (``param``, ``meta`` or ``constant``) and its type."""

        __slots__ = ("kind", "type")

        def __init__(self, kind, type_):
            self.kind = kind
            self.type = type_

        def __repr__(self):
            return f"{self.kind.capitalize()}[{self.type!r}]"

        def __call__(self):  # typing on Python 3.9 and 3.10 takes only callables for types
            raise TypeError("an annotation cannot be called")

    class _Kind:
        __slots__ = ("kind",)

        def __init__(self, kind):
            self.kind = kind

        def __getitem__(self, type_):
            return Declared(self.kind, type_)

    Param = _Kind("param")
    Meta = _Kind("meta")
    Constant = _Kind("constant")


class Missing:
    """Says that there is no default."""

    def __repr__(self) -> str:
        return "<no default>"


MISSING = Missing()


class Field:
    """What :func:`field` says of a parameter."""

    def __init__(self, default: object, default_factory: Any, ignore_default: bool) -> None:
        self.default = default
        self.default_factory = default_factory
        self.ignore_default = ignore_default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> object:
        # Reached only when a job reads a parameter that did not exist yet when the object was written.
        if instance is None:
            return self
        value = self.default_factory() if self.default_factory is not None else self.default
        if value is MISSING:
            raise AttributeError(f"{owner.__qualname__} has no value for {self.name!r}")
        if isinstance(value, JobPath):
            from pathlib import Path

            value = Path(instance.__dict__["__xpm__"].directory, value.name)
        instance.__dict__[self.name] = value
        return value


if TYPE_CHECKING:

    def field(*, default: Any = ..., default_factory: Callable[[], Any] = ..., ignore_default: bool = True) -> Any: ...

else:

    def field(*, default=MISSING, default_factory=None, ignore_default=True):
        """Declare a parameter's default.

        :param default: the value when none is given
        :param default_factory: called without arguments to make the default; or a :class:`PathGenerator`
        :param ignore_default: a value equal to the default does not count in the identifier, so that a new
            parameter with a default keeps old results. ``False`` makes it count always.

        >>> class Train(Task):
        ...     epochs: Param[int] = field(default=10)
        ...     model: Meta[Path] = field(default_factory=PathGenerator("model.pt"))
        """
        return Field(default, default_factory, ignore_default)


class PathGenerator:
    """A path inside the job directory, as a default: ``field(default_factory=PathGenerator("model.pt"))``.

    :param name: path below the job directory
    :raises ParameterError: it is elsewhere
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = str(name)
        if self.name in ("", ".") or self.name[:1] == "/" or "\0" in self.name or ".." in self.name.split("/"):
            from ..errors import ParameterError  # for a mistake that ends the script

            raise ParameterError(f"{self.name!r} is no path below the job directory", hint='such as "model.pt"')

    def __call__(self) -> Any:
        return JobPath(self.name)


class JobPath:
    """A path inside the job directory of the task that holds it, until the job directory is known."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name} in the job directory>"


class Deprecated:
    """A parameter of earlier versions of a class: a method that sets what replaces it.

    :param replace: called with the object and the old parameter's value
    """

    __slots__ = ("name", "replace")

    def __init__(self, replace: Callable[[Any, Any], None]) -> None:
        self.replace = replace

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        raise AttributeError(f"{owner.__qualname__}.{self.name} was replaced by other parameters")


class State:
    """What xpm-hpc knows of one object, beside its parameters."""

    __slots__ = (
        "digest",
        "directory",
        "init_tasks",
        "is_meta",
        "job",
        "loaded",
        "sealed",
        "source",
        "tags",
        "tokens",
    )

    def __init__(self) -> None:
        self.tags: dict[str, object] = {}
        #: by name, how many tokens the task holds while it executes, and how many there are
        self.tokens: dict[str, tuple[int, int]] = {}
        self.sealed = False
        #: whether the object counts in others' identifiers: None leaves it to the parameter that holds it
        self.is_meta: bool | None = None
        #: objects whose ``execute`` runs before the task's own, in the same job
        self.init_tasks: tuple[Any, ...] = ()
        #: read from params.json inside a job: values are taken as they are
        self.loaded = False
        #: the task that makes this object, when it is a task's output (inside a job: how to read it)
        self.source: Any = None
        #: identifier (hex), kept once the object is sealed
        self.digest: str | None = None
        #: the submitted job (laptop)
        self.job: Any = None
        #: the job directory (absolute path), once known
        self.directory: str | None = None


class Configured:
    """Base of all objects with parameters: each has a :class:`State` from its birth."""

    def __new__(cls, /, *_args: Any, **_values: Any) -> Any:
        self = object.__new__(cls)
        self.__dict__["__xpm__"] = State()
        return self


class Later:
    """A value that has not been looked at yet.

    :param read: makes the value
    """

    __slots__ = ("read",)

    def __init__(self, read: Callable[[], Any]) -> None:
        self.read = read


class Deferred:
    """Stands for a parameter in its class and reads a :class:`Later` when it is looked at.

    :ivar declared: what the class's body says of the parameter, ``MISSING`` for nothing
    """

    def __init__(self, cls: type, name: str) -> None:
        self.cls = cls
        self.name = name
        self.declared: Any = cls.__dict__.get(name, MISSING)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        try:
            value = instance.__dict__[self.name]
        except KeyError:  # written before there was such a parameter
            if self.declared is MISSING:
                return getattr(super(self.cls, instance), self.name)
            return self.declared.__get__(instance, owner) if isinstance(self.declared, Field) else self.declared
        if isinstance(value, Later):
            value = instance.__dict__[self.name] = value.read()
        return value

    def __set__(self, instance: Any, value: object) -> None:
        instance.__dict__[self.name] = value
