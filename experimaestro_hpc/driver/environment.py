"""The ``[environment]`` of a launcher file. In: its table. Out: a checked :class:`Environment`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..resources import ResourceError, Resources
from .toml_table import Table

Manager = Literal["", "uv", "venv", "conda", "module", "apptainer"]
Build = Literal["login", "job"]

_MANAGERS: tuple[Manager, ...] = ("uv", "venv", "conda", "module", "apptainer")
_BUILDS: tuple[Build, ...] = ("login", "job")
#: what says what is in an environment, where the launcher file does not name it
_FILES: Mapping[str, str] = {"uv": "uv.lock", "venv": "requirements.txt", "conda": "environment.yml"}
#: the keys that go with some managers only
_GO_WITH: Mapping[str, tuple[Manager, ...]] = {
    "build": _MANAGERS,
    "build_resources": _MANAGERS,
    "file": ("uv", "venv", "conda"),
    "modules": _MANAGERS,
    "image": ("apptainer",),
    "options": ("uv", "venv", "conda", "apptainer"),
}
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Environment:
    """What surrounds each task.

    :ivar python: the interpreter that runs the tasks; empty: see :attr:`.launcher.Launcher.python`. With a manager:
        the one that the environment is made with, or the one in the image
    :ivar setup: lines of shell before each task
    :ivar env: environment variables of each task; the names are valid ones
    :ivar manager: what builds the environment; empty: nothing is built
    :ivar build: where it is built: on the login node, or by a job that the others wait for
    :ivar build_resources: what that job asks for; empty: nothing
    :ivar file: what says what is in the environment, a name inside the project; empty where nothing needs to
    :ivar modules: loaded before ``setup``
    :ivar image: for ``apptainer``: a path on the cluster, or an address such as ``docker://python:3.12``
    :ivar options: more options for the command that builds, or for ``apptainer exec``
    """

    python: str = ""
    setup: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    manager: Manager = ""
    build: Build = "login"
    build_resources: str = ""
    file: str = ""
    modules: tuple[str, ...] = ()
    image: str = ""
    options: tuple[str, ...] = ()

    @property
    def pulls_image(self) -> bool:
        """Whether the image comes from a registry."""
        return "://" in self.image


def parse_environment(table: Table) -> Environment:
    """Read ``[environment]``.

    :raises LauncherError: with file and line, for anything that is not understood
    """
    variables = table.table("env", None, "env in [environment]")
    for name in variables.data:
        if not _VARIABLE_NAME.fullmatch(name):
            raise variables.error(
                f"{name!r:.60} in {variables.title} is not the name of an environment variable",
                name,
                hint="letters, digits and '_', and no digit first",
            )
    manager = table.choice("manager", _MANAGERS, "uv") if "manager" in table.data else ""
    _check_keys(table, manager)
    return Environment(
        python=table.text("python", Environment.python, can_be_empty=False),
        setup=table.texts("setup", many_lines=True),
        env={name: variables.text(name, many_lines=True) for name in variables.data},
        manager=manager,
        build=table.choice("build", _BUILDS, "login"),
        build_resources=_build_resources(table),
        file=_file(table, manager),
        modules=_words(table, "modules"),
        image=table.text("image", can_be_empty=False),
        options=_words(table, "options"),
    )


def _check_keys(table: Table, manager: Manager) -> None:
    """What a manager needs must be there, and what it has no use for must not."""
    for key, managers in _GO_WITH.items():
        if key in table.data and manager not in managers:
            listed = " or ".join(f'"{one}"' for one in managers)
            but = f", not with '{manager}'" if manager else ""
            raise table.error(f"'{key}' in [environment] goes with manager = {listed}{but}", key)
    if manager == "conda" and "python" in table.data:
        what = "'python' in [environment] is for other managers than 'conda'"
        raise table.error(what, "python", hint="name its version in the file of the environment: python=3.12")
    if manager == "module" and not table.data.get("modules"):
        raise table.missing("modules", ', which manager = "module" loads')
    if manager == "apptainer" and "image" not in table.data:
        raise table.missing("image", ": a path on the cluster, or an address such as docker://python:3.12")


def _words(table: Table, key: str) -> tuple[str, ...]:
    words = table.texts(key)
    for place, word in enumerate(words):
        if not word.strip():
            raise table.error(f"'{key}' in [environment] holds an empty text", key, place)
    return words


def _file(table: Table, manager: Manager) -> str:
    file = table.text("file", _FILES.get(manager, ""), can_be_empty=False)
    if file.startswith(("/", "~")) or ".." in file.split("/"):
        raise table.error(f"'file' in [environment] must be a name inside the project, not {file!r:.60}", "file")
    if manager == "uv" and file and file.rpartition("/")[2] != "uv.lock":
        raise table.error(f"'file' in [environment] must be a uv.lock with manager = 'uv', not {file!r:.60}", "file")
    return file


def _build_resources(table: Table) -> str:
    text = table.text("build_resources", can_be_empty=False)
    try:
        return str(Resources.parse(text)) if text else ""
    except ResourceError as error:
        what = f"'build_resources' in [environment]: {error.what}"
        raise table.error(what, "build_resources", hint=error.hint) from None
