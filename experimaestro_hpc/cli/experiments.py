"""``xpm-hpc experiments``: the experiments of a workspace."""

from __future__ import annotations

import time
from typing import Any

import click

from ..driver.monitor import count
from ..workspace.experiments import experiments
from ..workspace.jobs import load_jobs
from ..workspace.recent import find_workspace
from .lazy import DefaultGroup
from .options import json_option, print_json, print_table, workdir_option


@click.group(name="experiments", cls=DefaultGroup)
def command() -> None:
    """Experiments of a workspace."""


@command.command(name="list")
@workdir_option
@json_option
def list_(workdir: str | None, as_json: bool) -> int:
    """List experiments, the latest first."""
    root = find_workspace(workdir)
    views = {one["id"]: one for one in load_jobs(root)}
    found: list[dict[str, Any]] = [
        {
            "name": record.name,
            "script": record.script,
            "updated": record.updated,
            "jobs": len(record.jobs),
            "states": count({job: views[job] for job in record.jobs if job in views}),
        }
        for record in experiments(root)
    ]
    if as_json:
        print_json(found)
    elif not found:
        print(f"no experiments in {root}")
    else:
        rows = [
            (
                one["name"],
                one["states"],
                time.strftime("%Y-%m-%d %H:%M", time.localtime(one["updated"])),
                one["script"],
            )
            for one in found
        ]
        print_table(rows, ["experiment", "jobs as last seen", "last run", "script"])
    return 0
