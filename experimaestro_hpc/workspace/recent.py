"""The workspaces that were used last. In: a workspace's folder. Out: the list, kept in the user's state folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import WorkspaceError

_KEPT = 20


def _file(environ: Mapping[str, str]) -> Path:
    state = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "xpm-hpc" / "workspaces"


def remember(root: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Put a workspace at the head of the list; a home that cannot be written to is no error."""
    path = _file(environ)
    text = str(root)
    if "\n" in text:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [text, *(line for line in _lines(path) if line != text)]
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(f"{line}\n" for line in lines[:_KEPT]), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        return


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def is_near(root: Path) -> bool:
    """Whether a workspace is in the current folder, or the other way round."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it has been removed
        return False
    return root.is_relative_to(here) or here.is_relative_to(root)


def find_workspace(given: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The workspace to look at: the given one, ``XPM_HPC_WORKDIR``, or the one that was used last: of those near the
    current folder, or if there is none, of all.

    :raises WorkspaceError: there is none
    """
    chosen = given or environ.get("XPM_HPC_WORKDIR")
    if chosen:
        root = Path(chosen).expanduser().absolute()
        if not root.is_dir():
            raise WorkspaceError("no such folder", where=str(root), hint="name a workspace with --workdir")
        return root
    known = map(Path, _lines(_file(environ)))
    for root in sorted(known, key=is_near, reverse=True):  # which keeps the order of those that are alike
        if root.is_dir():
            return root
    raise WorkspaceError("no workspace is known", hint="run an experiment first, or name a workspace: --workdir DIR")
