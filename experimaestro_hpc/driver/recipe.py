"""How an environment is built. In: what the launcher file says, and the project. Out: a :class:`Recipe`.

The recipe's digest names the environment: the same files, manager, Python, modules, ``setup`` and options give the same
one, in every experiment. The variables in ``env`` are set while it is built, and do not count.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..agent.environments import folder_of
from ..config.declare import Param
from ..config.objects import Task
from ..errors import LauncherError
from ..runtime.parents import BUILDER
from .environment import Environment
from .script import Scripts

#: digits of the hash that name an environment: paths in it should stay short
_DIGITS = 16
#: read by uv where they lie beside its lock file
_BESIDE_UV_LOCK = ("pyproject.toml", "uv.toml", ".python-version")
#: lines of pip's requirements, and of the part for pip in conda's files, that name another file
_REQUIREMENT = re.compile(r"^[ \t]*(?:-[ \t]+)?(?:-r|-c|--requirement|--constraint)[ \t=]*([^\s#;]+)", re.MULTILINE)


class BuildEnvironment(Task):
    """The building of an environment, as a task that others need. Its job is a shell script: see ``build.sh.j2``.

    The launcher is a parameter, since an experiment may use the same environment in several places.
    """

    __xpmid__ = BUILDER

    launcher: Param[str]
    manager: Param[str]
    environment: Param[str]

    def execute(self) -> None:
        """Never called."""
        raise NotImplementedError


@dataclass(frozen=True)
class Recipe:
    """How to build an environment.

    :ivar digest: names its folder, ``.xpm/env/<digest>``
    :ivar environment: what the launcher file says
    :ivar script: builds it, in its folder
    :ivar files: text by name, put into ``source`` there
    """

    digest: str
    environment: Environment
    script: str
    files: Mapping[str, str]

    def task(self, launcher: str) -> BuildEnvironment:
        """The task of building it with a launcher."""
        return BuildEnvironment(launcher=launcher, manager=self.environment.manager, environment=self.digest)

    @property
    def folder(self) -> str:
        """Where it is, below a workspace."""
        return folder_of(self.digest)

    @property
    def title(self) -> str:
        """For people."""
        one = self.environment
        what = one.file or one.image or " ".join(one.modules)
        return f"{self.digest[:8]} ({one.manager}: {what})"

    def sent(self) -> dict[str, str]:
        """What the cluster needs to build it: text by name."""
        sources = {f"env/{self.digest}/source/{name}": text for name, text in self.files.items()}
        return {f"env/{self.digest}/build.sh": self.script, **sources}


def make_recipe(environment: Environment, root: Path, start: Path, names: Sequence[str], scripts: Scripts) -> Recipe:
    """The recipe of an environment that has a manager.

    :param root: the project's folder
    :param start: the folder of the experiment's script; ``file`` is looked for in it, and in those above it
    :param names: the project's files, below the root
    :raises LauncherError: a file that is needed is not there
    :raises TemplateError: the template is missing or broken
    """
    files: dict[str, str] = {}
    file = ""
    if environment.file:
        file = _find(environment, root, start)
        files = dict(sorted(_needed(environment, root, file, names)))
    script = scripts.render_build(replace(environment, env={}), file)
    digest = hashlib.sha256()
    for name, text in {"": script, **files}.items():
        for part in (name, text):
            encoded = part.encode("utf-8", "surrogateescape")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return Recipe(digest.hexdigest()[:_DIGITS], environment, scripts.render_build(environment, file), files)


def _find(environment: Environment, root: Path, start: Path) -> str:
    """The name below ``root`` of the file that says what is in the environment: the nearest to the script."""
    for folder in (start, *start.parents):
        if not folder.is_relative_to(root):
            break
        if (folder / environment.file).is_file():
            return (folder / environment.file).relative_to(root).as_posix()
    hints = {"uv": "make it with: uv lock", "venv": "make it with: pip freeze > requirements.txt", "conda": ""}
    raise LauncherError(
        f'there is no {environment.file}, and manager = "{environment.manager}" builds the environment from it',
        where=str(start),
        hint=hints[environment.manager] or "name it with `file` in [environment] of the launcher file",
    )


def _needed(environment: Environment, root: Path, file: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What the manager reads, by name below ``root``."""
    yield file, _text(root / file)
    folder = PurePosixPath(file).parent
    if environment.manager == "uv":
        if not (root / folder / "pyproject.toml").is_file():
            raise LauncherError("there is no pyproject.toml beside it, and uv needs it", where=str(root / file))
        found = [(folder / name).as_posix() for name in _BESIDE_UV_LOCK]
        members = [
            one for one in names if one.endswith("/pyproject.toml") and PurePosixPath(one).is_relative_to(folder)
        ]
        for name in dict.fromkeys([*found, *members]):
            if (root / name).is_file():
                yield name, _text(root / name)
        return
    seen, todo = {file}, [file]
    while todo:
        name = todo.pop()
        for other in _REQUIREMENT.findall(_text(root / name)):
            named = os.path.normpath(PurePosixPath(name).parent / other)
            if "://" in other or named in seen:
                continue
            if named.startswith(("..", "/")) or not (root / named).is_file():
                raise LauncherError(f"it names {other!r:.80}, which is not in the project", where=str(root / name))
            seen.add(named)
            todo.append(named)
            yield named, _text(root / named)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise LauncherError(f"cannot be read: {error.strerror}", where=str(path)) from error
