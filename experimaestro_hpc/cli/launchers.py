"""``xpm-hpc launchers``: where jobs can run."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from ..driver.launcher import all_launchers, launcher_named
from .lazy import DefaultGroup
from .options import json_option, print_json, print_look, print_table


@click.group(name="launchers", cls=DefaultGroup)
def command() -> None:
    """Launcher files: the shipped ones and your own."""


@command.command(name="list")
@json_option
def list_(as_json: bool) -> int:
    """List launchers by name."""
    found = all_launchers()
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
    launcher = launcher_named(name)
    if as_json:
        print_json({**asdict(launcher), "path": str(launcher.path), "python": launcher.python})
        return 0
    print(f"# {launcher.path}")
    print(launcher.path.read_text(encoding="utf-8"), end="")
    return 0


@command.command(name="check")
@click.argument("name")
@click.option("--job", is_flag=True, help="Also run a tiny job, to see the workdir and Python from a node.")
@json_option
def check_(name: str, job: bool, as_json: bool) -> int:
    """Say, step by step, whether jobs can be run with a launcher."""
    from ..driver.check import check  # for this command only

    launcher = launcher_named(name)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for step in check(launcher, Path(folder), job):
            found.append(step)
            if not as_json:
                print_look(step.ok, step.step, f"{step.words}  [{step.seconds:.2f} s]")
    if as_json:
        print_json([step._asdict() for step in found])
    failed = [step for step in found if not step.ok]
    return 0 if not failed else 3 if failed[0].step in ("name", "connection") else 1
