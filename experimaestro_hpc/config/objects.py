"""Configurations and tasks: the classes that users derive from.

In: a class with annotated parameters, and values. Out: objects whose values are checked when they are made (on the
laptop), or taken as they were written (inside a job). Types and checks are in :mod:`.types`, which needs ``typing``
and is loaded on the laptop when the first object is made.
"""

from __future__ import annotations

import os
import sys

from .declare import Configured, Deprecated, State, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, ClassVar, TypeVar, dataclass_transform

    Some = TypeVar("Some", bound="Config")
    Anything = TypeVar("Anything")
else:

    def dataclass_transform(**_options):
        return lambda cls: cls


class _ItsClass:
    """``Say.C(...)`` is ``Say(...)``: experimaestro's spelling."""

    def __get__(self, instance: object, owner: type) -> Any:
        return owner


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Config(Configured):
    """Base of everything that has typed parameters.

    :raises ParameterError: a value of the wrong type, an unknown parameter or a missing one

    >>> class Model(Config):
    ...     layers: Param[int] = 2
    >>> Model(layers=3).layers
    3
    """

    if TYPE_CHECKING:
        C: ClassVar[Any]
        __xpmid__: ClassVar[str]
    else:
        C = _ItsClass()

    def __init__(self, /, **values: Any) -> None:
        from .types import initialise  # typing is not for jobs: see the module's docstring

        initialise(self, values)

    def __setattr__(self, name: str, value: object) -> None:
        state: State = self.__dict__["__xpm__"]
        if not state.loaded:
            from .types import checked

            value = checked(self, name, value)
        self.__dict__[name] = value

    def tag(self: Some, key: str, value: object) -> Some:
        """Label the object for people; tags never count in the identifier. Returns the object itself."""
        state: State = self.__dict__["__xpm__"]
        if state.job is not None:
            from ..errors import XpmError

            raise XpmError(
                f"{type(self).__qualname__} was submitted, and its tags were noted", hint="first tag(), then submit()"
            )
        state.tags[str(key)] = value
        return self

    def __post_init__(self) -> None:
        """Called inside the job, when all parameters are set."""

    def __validate__(self) -> None:
        """Called on the laptop before a task is submitted; raise ``ValueError`` to refuse the values."""

    @property
    def __xpmtask__(self) -> Any:
        """The task that makes this object: itself for a task, its source for a task's output."""
        state: State = self.__dict__["__xpm__"]
        return state.source.read() if state.loaded and state.source is not None else state.source

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={_brief(value)}" for name, value in self.__dict__.items() if name != "__xpm__")
        return f"{type(self).__qualname__}({values})"


def _brief(value: object) -> str:
    """A value as text; objects inside it by their class only, since they may be deep and shared."""
    if isinstance(value, Configured):
        return f"{type(value).__qualname__}(...)"
    if isinstance(value, list):
        return f"[{', '.join(_brief(item) for item in value)}]"
    if isinstance(value, tuple):
        return f"({', '.join(_brief(item) for item in value)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_brief(key)}: {_brief(item)}' for key, item in value.items())}}}"
    return repr(value)


class Task(Config):
    """Something to run: parameters and an ``execute`` method. It gets a job directory of its own.

    >>> class Say(Task):
    ...     word: Param[str]
    ...     def execute(self):
    ...         print(self.word.upper())

    ``__xpmresources__`` of a class is what its tasks need unless :meth:`submit` says otherwise; it never counts in the
    identifier.
    """

    if TYPE_CHECKING:
        __xpmresources__: ClassVar[Any]
        #: ``"none"``: on several nodes it starts its processes itself, so ``execute`` is called once, on the first
        __xpmstart__: ClassVar[str]

    def execute(self) -> None:
        """What the task does; called inside the job, in the job directory."""
        raise NotImplementedError(f"{type(self).__qualname__} has no execute method")

    def submit(
        self,
        *,
        launcher: Any = None,
        resources: Any = None,
        retry: Any = None,
        init_tasks: Sequence[LightweightTask] = (),
    ) -> Any:
        """Hand the task to the open experiment and return its output: itself, or what ``task_outputs`` gives.

        :param launcher: a launcher's name, when it is not the experiment's
        :param resources: what the task needs, as text (``"gpu * 2 & duration=10m"``) or ``Resources``; each part of it
            takes the place of the same part of the class's ``__xpmresources__``
        :param retry: new attempts after a failure: a number, or by reason a number, ``"inf"`` or changes, such as
            ``{"out_of_memory": {"mem": "x2", "max_mem": "64G"}, "timeout": {"duration": "x2"}, "node_fail": 3}``
        :param init_tasks: executed before the task, in the same job
        :raises XpmError: no experiment is open, or a value is wrong
        """
        from .context import current  # the laptop's business only
        from .types import set_init_tasks

        set_init_tasks(self, init_tasks, LightweightTask)
        return current().submit(self, launcher=launcher, resources=resources, retry=retry)

    def result(self) -> Any:
        """Wait for the end of the submitted task and return the task.

        :raises JobsFailed: with the task, the reason and the last lines of its log
        """
        job = self.__dict__["__xpm__"].job
        if job is None:
            from ..errors import XpmError

            raise XpmError(f"{type(self).__qualname__} was not submitted", hint="call submit() first")
        job.result()
        return self

    @property
    def __xpmtask__(self) -> Any:
        return self

    @property
    def __xpm_stdout__(self) -> Path:
        """The file with what the task printed."""
        return self._log("out")

    @property
    def __xpm_stderr__(self) -> Path:
        """The file with what the task wrote to its standard error."""
        return self._log("err")

    def _log(self, ending: str) -> Path:
        from pathlib import Path

        directory = self.__dict__["__xpm__"].directory
        if directory is None:
            from ..errors import XpmError

            raise XpmError(f"{type(self).__qualname__} has no log yet", hint="call submit() first")
        return Path(directory, f"{job_name(task_id(type(self)))}.{ending}")


class ResumableTask(Task):
    """A task that goes on in the same directory when it is started again.

    Shortly before its time limit it is warned; it should save its state when little time remains, and may end itself
    with :class:`GracefulTimeout`. Then it runs again, in a new attempt.

    >>> class Train(ResumableTask):
    ...     def execute(self):
    ...         for epoch in range(load_checkpoint(), 100):
    ...             train(epoch)
    ...             save_checkpoint(epoch)
    ...             if (self.remaining_time() or 3600) < 600:
    ...                 raise GracefulTimeout("saved")
    """

    def remaining_time(self) -> float | None:
        """Seconds until the job's time limit; None without a limit, or outside of a job."""
        from ..runtime.deadline import remaining_time  # inside jobs, for the tasks that ask

        return remaining_time()


class GracefulTimeout(Exception):
    """Raised by a :class:`ResumableTask` that has saved its state and wants to go on in a new attempt."""


class LightweightTask(Config):
    """Something to do before a task's own ``execute``, in the same job: ``task.submit(init_tasks=[Load(path=p)])``.

    It counts in the task's identifier.
    """

    def execute(self) -> None:
        """What it does; called inside the job, before the task's own ``execute``."""
        raise NotImplementedError(f"{type(self).__qualname__} has no execute method")


def setmeta(config: Some, flag: bool | None) -> Some:
    """Say whether ``config`` counts in the identifiers of what it is given to; returns ``config``.

    :param flag: ``True``: it does not count, whatever the parameter; ``False``: it does, even as a ``Meta`` parameter;
        ``None``: as the parameter says
    :raises ParameterError: the object was submitted

    >>> Train(logger=setmeta(Logger(level=3), True))
    """
    from .types import set_meta

    set_meta(config, flag)
    return config


def copyconfig(config: Some, **changes: Any) -> Some:
    """A new object with the parameters of ``config``, some of them changed. It can be changed and submitted.

    Objects inside are shared with the original. Tags are not taken along: they say what the original was. A copy of a
    task's output is still that task's output.

    :raises ParameterError: an unknown or wrong parameter

    >>> copyconfig(Model(layers=3, width=10), layers=4)
    Model(layers=4, width=10)
    """
    from .types import copied

    copy: Some = copied(config, changes)
    return copy


def deprecate(replaced: Anything) -> Anything:
    """Decorator for a class or parameter that was replaced: what was made with it keeps counting as the replacement.

    A class: derive the old from the new one, and leave its body empty. A parameter: a method with the old parameter's
    name that sets the new ones; several are called in the order of their names. Results of the old class or parameter
    are found and reused. Leave both in place as long as such results are of use.

    :raises ParameterError: the class replaces nothing, since it is not derived from a class of yours

    >>> @deprecate
    ... class OldName(NewName):
    ...     pass
    >>> class Train(Task):
    ...     rates: Param[list[float]]
    ...     @deprecate
    ...     def rate(self, value):
    ...         self.rates = [value]
    """
    if not isinstance(replaced, type):
        return Deprecated(replaced)  # type: ignore[arg-type,return-value]
    replacement: Any = replaced.__bases__[0]
    if not issubclass(replacement, Config) or replacement.__module__.split(".")[0] == __name__.split(".")[0]:
        from ..errors import ParameterError  # for a mistake that ends the script

        raise ParameterError(
            f"{replaced.__qualname__} is deprecated and replaced by nothing",
            where=f"class {replaced.__module__}.{replaced.__qualname__}",
            hint=f"derive it from the class that replaces it: class {replaced.__name__}(NewName)",
        )
    replaced.__xpm_replacement__ = replacement  # type: ignore[attr-defined]
    replacement.__xpm_former__ = [*replacement.__dict__.get("__xpm_former__", ()), replaced]
    return replaced


def tag(config: Some, key: str, value: object) -> Some:
    """Label ``config`` for people; the same as ``config.tag(key, value)``."""
    config.tag(key, value)
    return config


def tags(config: Config) -> dict[str, object]:
    """All tags of ``config`` and of what it is made of, its own last."""
    from .types import walk

    found: dict[str, object] = {}
    for part in walk(config):
        found.update(part.__dict__["__xpm__"].tags)
    return found


def type_name(cls: type) -> str:
    """The name a class is known by: its ``__xpmid__``, or ``module.qualname`` with ``__main__`` replaced.

    A deprecated class is known by its replacement's.
    """
    return own_name(current_class(cls))


def current_class(cls: type) -> type:
    """The class that replaces a deprecated one; another class itself."""
    while "__xpm_replacement__" in cls.__dict__:
        cls = cls.__dict__["__xpm_replacement__"]
    return cls


def own_name(cls: type) -> str:
    """The name of a class, deprecated or not."""
    explicit = cls.__dict__.get("__xpmid__")
    if isinstance(explicit, str) and explicit:
        return explicit
    return f"{module_name(cls.__module__)}.{cls.__qualname__}"


def module_name(module: str) -> str:
    """The importable name of a module; ``__main__`` becomes the script's file name without its ending."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":  # python -m package.script
        name: str = spec.name
        return name[: -len(".__main__")] if name.endswith(".__main__") else name
    file = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(file))[0] if file else "__main__"


def task_id(cls: type) -> str:
    """The task id: the type's name in lower case, as in ``jobs/<task id>/<identifier>``."""
    return type_name(cls).lower()


def job_name(task: str) -> str:
    """The last part of a task id: the stem of the job's log files and markers."""
    return task.rpartition(".")[2]
