"""What the shell completes: ids, experiments, launchers; from what is on this machine, never over the network."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem


def _index(ctx: click.Context) -> Any:
    from ..errors import XpmError  # only while completing
    from ..workspace.index import Index
    from ..workspace.recent import find_workspace

    try:
        return Index(find_workspace(ctx.params.get("workdir")))
    except XpmError:
        return None


def complete_jobs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Identifiers, or ``task/identifier`` once a task is typed; as the index last saw them."""
    index = _index(ctx)
    if index is None:
        return []
    jobs = index.beginnings(incomplete.lower())
    index.close()
    by_identifier = [one for one in jobs if one.partition("/")[2].startswith(incomplete.lower())]
    if by_identifier and "/" not in incomplete:
        return [CompletionItem(one.partition("/")[2][:12], help=one.partition("/")[0]) for one in by_identifier]
    return [CompletionItem(one) for one in jobs]


def complete_experiments(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of experiments."""
    index = _index(ctx)
    if index is None:
        return []
    names = [one["name"] for one in index.experiments()]
    index.close()
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_launchers(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of launchers."""
    from ..driver.launchers import all_launchers  # only while completing

    return [CompletionItem(name) for name, _path, _whose in all_launchers() if name.startswith(incomplete)]


def complete_own_launchers(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the user's own launchers, which alone can be removed."""
    from ..driver.launchers import all_launchers  # only while completing

    own = [name for name, _path, whose in all_launchers() if whose == "user"]
    return [CompletionItem(name) for name in own if name.startswith(incomplete)]
