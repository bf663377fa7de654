"""``xpm-hpc doctor``: whether this machine is fit, and what is wrong with what lies on it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from .. import __version__
from ..driver.launchers import all_launchers, launcher_named, template_folders
from ..errors import XpmError
from .options import json_option, print_json, print_look


@click.command(name="doctor")
@json_option
def command(as_json: bool) -> int:
    """Look for what is wrong on this machine: Python, programs, launcher files, templates, workspaces.

    \b
    xpm-hpc doctor
    xpm-hpc launchers check mycluster --job     the same for a cluster
    """
    found = []
    for name, look in _looks():
        try:
            ok, words = True, look()
        except (XpmError, OSError, ImportError) as error:
            ok, words = False, str(error)
        found.append({"what": name, "ok": ok, "words": words})
        if not as_json:
            print_look(ok, name, words)
    if as_json:
        print_json(found)
    return 0 if all(one["ok"] for one in found) else 2


def _looks() -> Iterator[tuple[str, Callable[[], str]]]:
    yield "xpm-hpc", lambda: f"{__version__}, Python {sys.version.split()[0]} ({sys.executable})"
    for package in ("click", "fabric", "paramiko", "jinja2", "filelock", "tqdm"):
        yield package, lambda package=package: importlib.metadata.version(package)  # type: ignore[misc]
    yield "ssh", lambda: shutil.which("ssh") or 'not there: transport = "paramiko" works without'
    yield "git", lambda: shutil.which("git") or "not there: code is taken from the script's folder, without its commit"
    yield "cache", _cache
    for name, path, whose in all_launchers():
        yield f"launcher {name}", lambda name=name, path=path, whose=whose: _launcher(name, path, whose)  # type: ignore[misc]
    yield "templates", _templates
    yield "workspace", _workspace


def _cache() -> str:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "xpm-hpc"
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f"doctor.{os.getpid()}"
    probe.touch()
    probe.unlink()
    return f"{folder} can be written"


def _launcher(name: str, path: Path, whose: str) -> str:
    launcher_named(name)
    return f"{path} ({whose})"


def _templates() -> str:
    import jinja2  # for this command only

    from ..driver.script import Scripts

    environment = Scripts(template_folders()).environment
    names = environment.list_templates(extensions=["j2"])
    for name in names:
        try:
            environment.get_template(name)
        except jinja2.TemplateSyntaxError as error:
            where = f"{error.filename or name}, line {error.lineno}"
            raise XpmError(f"the template is broken: {error.message}", where=where) from error
    return f"{len(names)} can be read"


def _workspace() -> str:
    from ..workspace.index import Index  # for this command only
    from ..workspace.recent import find_workspace

    try:
        root = find_workspace(None)
    except XpmError as error:
        return f"{error.what}: nothing to look at"
    index = Index(root)
    index.update()
    count = index.count()
    index.close()
    free = shutil.disk_usage(root).free
    return f"{root}: {count} jobs, {free / 1e9:.0f} GB free"
