"""``xpm-hpc launchers fit``: where a task would go, without asking a cluster."""

from __future__ import annotations

import sys
from typing import Any

import click

from ...driver.fit import choose_partition, request_for, verdicts
from ...driver.launcher import Launcher
from ...driver.launchers import all_launchers, launcher_named, read_launcher
from ...errors import XpmError
from ...resources import Resources
from ..complete import complete_launchers
from ..options import json_option, print_json, printable


@click.command(name="fit")
@click.argument("resources")
@click.option(
    "--launcher", metavar="L", shell_complete=complete_launchers, help="This launcher only; otherwise all your own."
)
@json_option
def fit(resources: str, launcher: str | None, as_json: bool) -> int:
    """Say where a task that asks for RESOURCES would go, why not elsewhere, and what its script would ask for.

    The launcher files tell; no cluster is asked. Without --launcher: your own, or those that come with xpm-hpc, in
    brief, if you have none. The exit status is 1 if nothing fits.

    \b
    xpm-hpc launchers fit "gpu(mem=40G) * 2"
    xpm-hpc launchers fit "gpu(model=h100) & duration=4h | cpu(cores=32)" --launcher mycluster
    """
    asked = Resources.parse(resources)
    known = all_launchers()
    own = [one for one in known if one[2] == "user"]
    found = []
    if launcher:
        found.append(fitted(launcher_named(launcher), asked))
    else:
        for name, path, _ in own or known:
            try:
                found.append(fitted(read_launcher(path), asked))
            except XpmError as error:
                found.append({"launcher": name, "fits": False, "error": str(error)})
    is_brief = not launcher and not own  # there are many of those that ship
    if as_json:
        print_json(found)
    else:
        for one in found:
            _print(one, is_brief)
        if is_brief:
            print("more of one of them: --launcher NAME")
    return 0 if any(one["fits"] for one in found) else 1


def fitted(launcher: Launcher, asked: Resources) -> dict[str, Any]:
    """Where a task would go with one launcher.

    :returns: plain values: ``fits``, ``choice``, ``partition``, ``directives``, ``considered`` (each alternative with
        each partition, and ``lacks``), and ``error`` where the scheduler has no way to ask
    """
    from ...schedulers import scheduler_class  # for this command only
    from ...schedulers.local import gpus_here

    considered = [
        {"choice": str(one.choice), "partition": one.partition, "lacks": one.lacks} for one in verdicts(launcher, asked)
    ]
    found: dict[str, Any] = {
        "launcher": launcher.name,
        "scheduler": launcher.scheduler,
        "fits": False,
        "choice": None,
        "partition": None,
        "directives": [],
        "considered": considered,
        "error": "",
    }
    if launcher.scheduler == launcher.connector.type == "local" and not launcher.partitions:
        there = gpus_here()
        fit_here = [one for one in asked.choices if one.gpu_count <= there]
        if not fit_here:
            return found | {"error": f"this machine has {there} GPUs"}
        asked = fit_here[0]
    try:
        choice, partition = choose_partition(launcher, asked)
        request = request_for(launcher, "task", choice, partition)
        directives = scheduler_class(launcher.scheduler).directives(request)
    except XpmError as error:
        return found | {"error": error.what}
    name = partition.name if partition else None
    return found | {"fits": True, "choice": str(choice), "partition": name, "directives": directives}


def _print(found: dict[str, Any], is_brief: bool) -> None:
    """Print where a task would go; if it is to be brief, on one line."""
    title = f"{found['launcher']} ({found['scheduler']})" if "scheduler" in found else found["launcher"]
    if not found["fits"]:
        _line(f"no    {title}: {found['error']}")
    elif found["partition"] is None:
        _line(f"ok    {title}: '{found['choice']}'; no partition is described, so nothing is checked")
    else:
        _line(f"ok    {title}: '{found['choice']}' in {found['partition']}")
    if is_brief:
        return
    has_choice = False
    for one in found.get("considered", ()):
        if has_choice and one["choice"] != found["choice"]:
            break  # later alternatives do not matter any more
        if not has_choice and not one["lacks"]:
            has_choice = True
            continue
        why = "; ".join(one["lacks"]) or "fits too, and comes later"
        _line(f"      not '{one['choice']}' in {one['partition']}: {why}")
    for directive in found.get("directives", ()):
        _line(f"      {directive}")
    sys.stdout.flush()


def _line(words: str) -> None:
    print("\n      ".join(printable(line) for line in words.splitlines()))
