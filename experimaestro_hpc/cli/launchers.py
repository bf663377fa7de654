"""``xpm-hpc launchers``: where jobs can run. The commands are in :mod:`.launchers_commands`."""

from __future__ import annotations

import click

from .lazy import LazyDefaultGroup

_IN = "launchers_commands"


@click.group(
    name="launchers",
    cls=LazyDefaultGroup,
    shown=".+",
    commands_in={
        "list": (f"{_IN}.look:list_", "List launchers: what they use, and where their files are."),
        "show": (f"{_IN}.look:show", "Check a launcher file and print it."),
        "add": (f"{_IN}.add:add", "Look at a cluster and write a launcher file for it."),
        "check": (f"{_IN}.look:check_", "Say, step by step, whether jobs can be run with a launcher."),
        "fit": (f"{_IN}.fit:fit", "Say where a task would go, and what its script would ask for."),
        "edit": (f"{_IN}.own:edit", "Change a launcher file in your editor."),
        "remove": (f"{_IN}.own:remove", "Remove a launcher file of your own."),
    },
)
def command() -> None:
    """Launcher files: the shipped ones and your own. `launchers` alone means `launchers list`.

    \b
    xpm-hpc launchers add mycluster ssh://me@login.cluster.org
    xpm-hpc launchers check mycluster --job
    xpm-hpc launchers fit "gpu(mem=40G) * 2 & duration=4h"
    """
