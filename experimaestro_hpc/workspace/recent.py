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


def _is_near(root: Path, here: Path) -> bool:
    """Whether a workspace is in a folder, or the other way round."""
    return root.is_relative_to(here) or here.is_relative_to(root)


def is_obvious(root: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether no other workspace than this one could be meant in the current folder."""
    here = _here()
    return _around(here) == root or (_is_near(root, here) and len(_candidates(environ)) == 1)


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # it has been removed
        return Path("/nowhere")


def _around(here: Path) -> Path | None:
    """The workspace that a folder is in, if it is in one."""
    return next((one for one in (here, *here.parents) if (one / ".xpm").is_dir() and (one / "jobs").is_dir()), None)


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    """The workspaces that may be meant, the likeliest first: those near the current folder, or else all known ones."""
    here = _here()
    around = _around(here)
    known = [Path(line) for line in _lines(_file(environ))]
    near = [*([around] if around else ()), *(root for root in known if root != around and _is_near(root, here))]
    return [root for root in near if root.is_dir()] or [root for root in known if root.is_dir()]


def find_workspace(given: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The workspace to look at: the given one, ``XPM_HPC_WORKDIR``, the one that the current folder is in, or the one
    that was used last: of those near the current folder, or if there is none, of all.

    :raises WorkspaceError: there is none
    """
    chosen = given or environ.get("XPM_HPC_WORKDIR")
    if chosen:
        root = Path(chosen).expanduser().absolute()
        if not root.is_dir():
            raise WorkspaceError("no such folder", where=str(root), hint="name a workspace with --workdir")
        return root
    for root in _candidates(environ):
        return root
    raise WorkspaceError("no workspace is known", hint="run an experiment first, or name a workspace: --workdir DIR")
