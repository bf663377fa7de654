"""``xpm-hpc launchers edit|remove``: what changes a user's own launcher files."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from ...connectors.base import has_terminal
from ...driver.launcher import parse_launcher
from ...driver.launchers import all_launchers
from ...driver.own import checked_name, own_path, read_own, save
from ...driver.toml_table import did_you_mean
from ...errors import LauncherError, XpmError
from ..complete import complete_launchers, complete_own_launchers
from ..select import agreed


@click.command(name="edit")
@click.argument("name", shell_complete=complete_launchers)
def edit(name: str) -> int:
    """Change the launcher file NAME in your editor: $VISUAL, or $EDITOR.

    You edit a copy, which is checked before it takes the place of the file. A launcher that comes with xpm-hpc
    becomes your own.

    \b
    EDITOR='code --wait' xpm-hpc launchers edit mycluster
    """
    known = {one: (path, whose) for one, path, whose in all_launchers()}
    if name not in known:
        checked_name(name)
        hint = f"for a new one: xpm-hpc launchers add {name}\nknown: {', '.join(known)}"
        raise LauncherError(f"no launcher {name!r:.80}{did_you_mean(name, known)}", hint=hint)
    source, whose = known[name]
    target = source if whose == "user" else own_path(name)
    former = read_own(target)
    try:
        before = source.read_bytes()
    except OSError as error:
        raise LauncherError(f"cannot be read: {error.strerror}", where=str(source)) from None
    copy = Path(tempfile.mkdtemp(prefix="xpm-hpc-")) / f"{name}.toml"
    copy.write_bytes(before)
    if not _edited(copy, name):
        return 1
    after = copy.read_bytes()
    if after == before:
        _discard(copy)
        print("nothing was changed")
        return 0
    try:
        save(target, _decoded(after, copy), former=former)
    except XpmError as error:
        print(f"what you wrote is in {copy}", file=sys.stderr)
        raise error
    _discard(copy)
    print(f"written: {target}")
    print(f"next: xpm-hpc launchers check {name}")
    return 0


def _edited(copy: Path, name: str) -> bool:
    """Have a copy edited until it is right; False if it is given up, and then it stays."""
    while True:
        _run_editor(copy)
        try:
            parse_launcher(_decoded(copy.read_bytes(), copy), name=name, path=copy)
            return True
        except XpmError as error:
            print(f"error: {error}", file=sys.stderr)
        if not has_terminal() or not click.confirm("edit it again?", default=True):
            print(f"the launcher stays as it was; what you wrote is in {copy}", file=sys.stderr)
            return False


def _run_editor(path: Path) -> None:
    """Run the user's editor.

    :raises XpmError: there is none, or it failed
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        argv = shlex.split(editor)
        status = subprocess.run([*argv, str(path)], check=False).returncode
    except (OSError, ValueError, IndexError) as error:
        _discard(path)
        hint = "set VISUAL or EDITOR to the command of an editor"
        raise XpmError(f"the editor {editor!r:.80} cannot be run: {error}", hint=hint) from None
    if status:
        raise XpmError(
            f"the editor {editor!r:.80} ended with {status}; the launcher stays as it was",
            hint=f"what you wrote is in {path}",
        )


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LauncherError("this is not UTF-8 text", where=str(path)) from None


def _discard(copy: Path) -> None:
    copy.unlink(missing_ok=True)
    copy.parent.rmdir()


@click.command(name="remove")
@click.argument("name", shell_complete=complete_own_launchers)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove(name: str, yes: bool) -> int:
    """Remove the launcher file NAME of your own. Jobs that it started go on, but can no longer be looked at.

    \b
    xpm-hpc launchers remove mycluster --yes
    """
    known = {one: (path, whose) for one, path, whose in all_launchers()}
    path, whose = known.get(name, (None, ""))
    if path is None:
        hint = f"your own: {', '.join(one for one, (_, whose) in known.items() if whose == 'user') or 'none'}"
        raise LauncherError(f"no launcher {name!r:.80}{did_you_mean(name, known)}", hint=hint)
    if whose != "user":
        hint = "a launcher of your own with the same name is used in its place: xpm-hpc launchers edit " + name
        raise LauncherError(f"{name!r} comes with xpm-hpc and cannot be removed", where=str(path), hint=hint)
    if not agreed(f"remove {path}", yes):
        return 1
    try:
        path.unlink()
    except OSError as error:
        raise LauncherError(f"cannot be removed: {error.strerror}", where=str(path)) from None
    print(f"removed: {path}")
    if any(one == name for one, _, _ in all_launchers()):
        print(f"the launcher '{name}' that comes with xpm-hpc is used again")
    return 0
