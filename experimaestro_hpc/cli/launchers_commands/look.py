"""``xpm-hpc launchers list|show|check``: what changes nothing."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from ...driver.launchers import all_launchers, launcher_named, read_launcher
from ...errors import XpmError
from ..complete import complete_launchers
from ..options import json_option, print_json, print_look, print_table
from ..table import Fit

#: what becomes narrower, or is left out, where a terminal is
FIT = Fit(
    texts=(("file",), ("host", "launcher")),
    dear=("launcher",),
    ends=("file",),
    spare=("file", "whose"),
)


@click.command(name="list")
@json_option
def list_(as_json: bool) -> int:
    """List launchers: the scheduler, the host, and where the file is. Your own come first.

    A launcher of your own hides a shipped one of the same name.

    \b
    xpm-hpc launchers list --json
    """
    found = []
    for name, path, whose in sorted(all_launchers(), key=lambda one: one[2] != "user"):
        row = {"name": name, "scheduler": "", "host": "", "path": str(path), "whose": whose, "error": ""}
        try:
            launcher = read_launcher(path)
            row.update(scheduler=launcher.scheduler, host=launcher.connector.host)
        except XpmError as error:
            row["error"] = str(error)
        found.append(row)
    if as_json:
        print_json(found)
    else:
        rows = [
            (
                one["name"],
                one["scheduler"] or "BROKEN",
                "" if one["error"] else one["host"] or "this machine",
                one["whose"],
                one["path"],
            )
            for one in found
        ]
        print_table(rows, ["launcher", "scheduler", "host", "whose", "file"], FIT)
        for one in found:
            if one["error"]:
                click.echo(f"error: {one['error']}", err=True)
    return 2 if any(one["error"] for one in found) else 0


@click.command(name="show")
@click.argument("name", shell_complete=complete_launchers)
@json_option
def show(name: str, as_json: bool) -> int:
    """Check a launcher file and print it.

    \b
    xpm-hpc launchers show mycluster
    """
    launcher = launcher_named(name)
    if as_json:
        print_json({**asdict(launcher), "path": str(launcher.path), "python": launcher.python})
        return 0
    print(f"# {launcher.path}")
    print(launcher.path.read_text(encoding="utf-8"), end="")
    return 0


@click.command(name="check")
@click.argument("name", shell_complete=complete_launchers)
@click.option("--job", is_flag=True, help="Also run a tiny job, to see the workdir and Python from a node.")
@json_option
def check_(name: str, job: bool, as_json: bool) -> int:
    """Say, step by step, whether jobs can be run with a launcher.

    \b
    xpm-hpc launchers check mycluster
    xpm-hpc launchers check mycluster --job
    """
    from ...driver.check import check  # for this command only

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
