"""``xpm-hpc clean``: remove what no live job needs, on the clusters and here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..agent.service import Service
from ..driver.client import answer_of
from ..driver.refresh import refresh, session_of
from ..errors import XpmError
from ..workspace.jobs import by_launcher
from .options import json_option, print_json, print_table, report, workdir_option
from .select import opened

_HERE = "here"


@click.command(name="clean")
@click.option("--launcher", "launchers", multiple=True, metavar="NAME", help="Clean there too, without any job of it.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@workdir_option
@json_option
def command(launchers: tuple[str, ...], dry_run: bool, yes: bool, workdir: str | None, as_json: bool) -> int:
    """Remove what no live job needs, on the clusters and here.

    That is code, shipped packages, environments, batches, notes of what was held (with the environment of whoever
    submitted it), and what broken uploads have left; what was used in the last hour stays. Jobs and their results are
    not touched. A job whose code is gone cannot be tried again with `jobs retry`; its script can be run again.

    \b
    xpm-hpc clean --dry-run
    """
    with opened(workdir) as index:
        root, views = index.root, index.views()
    problems = refresh(root, views)  # those that have ended get their markers
    found: list[dict[str, Any]] = []
    with_something = []
    for place in [_HERE, *dict.fromkeys([*by_launcher(views), *launchers])]:
        try:
            with _cleaner(root, place) as clean:
                mine = clean(True) if clean is not None else []
        except XpmError as error:
            problems.append(error)
            continue
        found += [{"place": place, **one} for one in mine]
        with_something += [place] if mine else []
    if not as_json:
        _print(found)
    if found and not dry_run:
        if not (yes or as_json):
            if not sys.stdin.isatty():
                raise click.UsageError("nothing was removed: say --yes where nobody can be asked")
            click.confirm("remove all of this?", abort=True)
        elif as_json and not yes:
            raise click.UsageError("--json asks nothing: say --yes, or --dry-run")
        found = []
        for place in with_something:
            with _cleaner(root, place) as clean:
                found += [{"place": place, **one} for one in (clean(False) if clean is not None else [])]
        if not as_json:
            print(f"freed {_megabytes(found)}")
    if as_json:
        print_json({"removed": [] if dry_run else found, "would_remove": found if dry_run else []})
    return report(problems)


@contextmanager
def _cleaner(root: Path, place: str) -> Iterator[Any]:
    """What cleans a place, or None where that is the workspace here, which is cleaned anyway."""
    if place == _HERE:
        service = Service(str(root), "local")
        request = {"op": "clean"}
        yield lambda dry_run: answer_of(service.handle({**request, "arguments": {"dry_run": dry_run}}, None)[0])[
            "found"
        ]
        return
    with session_of(root, place) as session:
        if session.is_here:
            yield None
        else:
            yield lambda dry_run: session.client.call("clean", dry_run=dry_run)["found"]


def _print(found: list[dict[str, Any]]) -> None:
    if not found:
        print("nothing to remove")
        return
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in found:
        groups.setdefault((Path(one["place"]).name.removesuffix(".toml"), one["kind"]), []).append(one)
    rows = [(place, kind, len(ones), _megabytes(ones)) for (place, kind), ones in groups.items()]
    print_table([*rows, ("", "in all", len(found), _megabytes(found))], ["where", "what", "number", "size"])


def _megabytes(found: list[dict[str, Any]]) -> str:
    return f"{sum(one['bytes'] for one in found) / 1e6:.1f} MB"
