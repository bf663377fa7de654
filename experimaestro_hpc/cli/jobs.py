"""``xpm-hpc jobs``: what became of the jobs of a workspace. The commands are in :mod:`.jobs_commands`."""

from __future__ import annotations

import click

from .lazy import LazyDefaultGroup

_IN = "jobs_commands"


@click.group(
    name="jobs",
    cls=LazyDefaultGroup,
    shown=r"[0-9a-fA-F]+|\S+[./]\S*",
    commands_in={
        "list": (f"{_IN}.list:list_", "List jobs, and fetch the results of those that have ended."),
        "show": (f"{_IN}.look:show", "Show all that is known of jobs."),
        "logs": (f"{_IN}.look:logs", "Print what a job has printed, live from the cluster."),
        "why": (f"{_IN}.look:why_", "Say why jobs wait, or failed, and what to do."),
        "kill": (f"{_IN}.act:kill", "End jobs that wait or run, and those that need them."),
        "retry": (f"{_IN}.act:retry", "Submit failed jobs again, with those that failed for them."),
        "pull": (f"{_IN}.act:pull_", "Bring back files of jobs."),
        "path": (f"{_IN}.look:path", "Print the directories of jobs on this machine."),
        "diff": (f"{_IN}.look:diff", "Say which parameters make two jobs differ."),
        "usage": (f"{_IN}.look:usage", "Compare what jobs asked for with what they used."),
        "clean": (f"{_IN}.act:clean", "Remove jobs, here and on the cluster."),
    },
)
def command() -> None:
    """Jobs of a workspace. An ID is the beginning of an identifier, or task/identifier.

    `jobs` alone means `jobs list`. Most commands take several IDs, or filters that combine:

    \b
    xpm-hpc jobs --state failed --tag lr=0.1
    xpm-hpc jobs why 3fa2
    xpm-hpc jobs kill --experiment sweep --task 'train*'
    """
