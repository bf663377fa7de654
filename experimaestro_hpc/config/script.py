"""Import a user's script inside a job without running its experiment. In: the script's path. Out: a module.

A script has two parts: tasks, which the job needs, and an experiment with its command line, which is the laptop's.
Without an ``if __name__ == "__main__"`` guard the second part would run as well. So the import ends where
``experiment(...)`` is reached, and packages that xpm-hpc brings to the laptop only (click above all) need not be
installed on the cluster: a stand-in takes their place while the script is imported.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType, TracebackType
    from typing import Any, NoReturn

#: what comes with xpm-hpc on the laptop, and a script may use for its command line without asking the cluster for it
LAPTOP_PACKAGES = ("click", "fabric", "filelock", "jinja2", "paramiko", "tqdm")


class ExperimentReached(BaseException):
    """A script reached ``experiment(...)`` inside a task.

    Not an ``Exception``, so that no ``except Exception`` of the script swallows it.
    """


def experiment(*_args: Any, **_options: Any) -> NoReturn:
    """What ``experiment`` means inside a job: what follows is the laptop's part, not the task's."""
    raise ExperimentReached("an experiment does not start inside a task")


def run_script(name: str, path: str, wanted: str) -> ModuleType:
    """Import the script at ``path`` as module ``name``.

    :param wanted: the name that the module must define
    :raises ImportError: the script ends, or starts its experiment, before it defines ``wanted``
    """
    # this module's own loader and spec are of the wanted classes; importlib.machinery costs a job a millisecond
    loader = type(__spec__.loader)(name, path)  # type: ignore[call-arg,misc]
    module = type(sys)(name)
    module.__file__ = path
    module.__loader__ = loader
    module.__spec__ = type(__spec__)(name, loader, origin=path)
    sys.modules[name] = module
    try:
        with _StandIns(path):
            loader.exec_module(module)
    except (ExperimentReached, SystemExit):
        pass
    except BaseException:
        del sys.modules[name]
        raise
    if not hasattr(module, wanted):
        raise ImportError(f"{path} does not define {wanted} before its experiment starts; move the class up")
    return module


class _StandIns:
    """While open, the script at ``path`` may import a laptop's package that is missing here."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.importing = True
        self.made: list[str] = []

    def __enter__(self) -> None:
        sys.meta_path.append(self)  # last: only what nobody else finds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.meta_path.remove(self)
        self.importing = False
        for name in self.made:
            sys.modules.pop(name, None)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if name.split(".")[0] not in LAPTOP_PACKAGES or not self._asked_by_the_script():
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def _asked_by_the_script(self) -> bool:
        """A library that probes for an optional package must find it missing."""
        frame = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename != self.path and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back  # type: ignore[assignment]
        return frame is not None and frame.f_code.co_filename == self.path

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.made.append(spec.name)
        return _Module(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""

    def use(self, package: str) -> _Thing:
        if self.importing:
            return _Thing(self, package)
        raise ModuleNotFoundError(
            f"No module named {package!r} here: a task uses it, so install it in the cluster's environment",
            name=package,
        )


class _Module(type(sys)):  # type: ignore[misc]
    def __init__(self, name: str, stand_ins: _StandIns) -> None:
        super().__init__(name)
        self.__dict__["_stand_ins"] = stand_ins

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__dict__["_stand_ins"].use(self.__name__)


class _Thing:
    """Anything taken from a stand-in: while the script is imported it can be called, decorate and be a base."""

    def __init__(self, stand_ins: _StandIns, package: str) -> None:
        self._stand_ins = stand_ins
        self._package = package

    def __call__(self, *_args: Any, **_options: Any) -> _Thing:
        return self._stand_ins.use(self._package)

    def __getattr__(self, name: str) -> _Thing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._stand_ins.use(self._package)

    def __mro_entries__(self, _bases: tuple[object, ...]) -> tuple[type, ...]:
        return ()
