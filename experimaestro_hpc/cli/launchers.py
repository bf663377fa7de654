"""``xpm-hpc launchers``: where jobs can run."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from ..driver.launcher import find_launcher, known_launchers, shipped_dir, user_dir
from .lazy import DefaultGroup
from .options import json_option, print_json, print_table


@click.group(name="launchers", cls=DefaultGroup)
def command() -> None:
    """Launcher files: the shipped ones and your own."""


@command.command(name="list")
@json_option
def list_(as_json: bool) -> int:
    """List launchers by name."""
    found = known_launchers(shipped_dir(), user_dir(os.environ))
    if as_json:
        print_json([{"name": name, "path": str(path), "whose": whose} for name, path, whose in found])
    else:
        print_table(found, ["launcher", "file", "whose"])
    return 0


@command.command(name="show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> int:
    """Check a launcher file and print it."""
    launcher = find_launcher(name, environ=os.environ, shipped=shipped_dir(), user_dir=user_dir(os.environ))
    if as_json:
        print_json({**asdict(launcher), "path": str(launcher.path), "python": launcher.python})
        return 0
    print(f"# {launcher.path}")
    print(launcher.path.read_text(encoding="utf-8"), end="")
    return 0
