"""``xpm-hpc launchers add``: look at a cluster and write its launcher file."""

from __future__ import annotations

import sys
import time

import click

from ...driver.launcher import Connector, Transport, parse_launcher
from ...driver.launchers import known_launchers, shipped_dir
from ...driver.own import own_path, read_own, save
from ...errors import LauncherError
from ..options import printable
from ..select import agreed


@click.command(name="add")
@click.argument("name")
@click.argument("host", required=False, metavar="[ssh://USER@HOST]")
@click.option("--local", is_flag=True, help="The scheduler's commands are on this machine.")
@click.option("--workdir", metavar="DIR", default="", help="Where to work there, in place of the best place found.")
@click.option(
    "--transport",
    type=click.Choice(["auto", "paramiko", "openssh"]),
    default="auto",
    help="Which SSH to use; auto chooses.",
)
@click.option("--scheduler", type=click.Choice(["slurm", "oar", "local"]), help="Look for this one only.")
@click.option("--print", "is_shown", is_flag=True, help="Print the file, write nothing.")
@click.option("-y", "--yes", "--force", is_flag=True, help="Replace a file of your own without asking.")
def add(
    name: str,
    host: str | None,
    local: bool,
    workdir: str,
    transport: Transport,
    scheduler: str | None,
    is_shown: bool,
    yes: bool,
) -> int:
    """Look at a cluster and write the launcher file NAME for it.

    The host is as ssh takes it: ssh://USER@HOST, USER@HOST, or a Host of ~/.ssh/config; without one, NAME is.
    It is connected to once, asked for its partitions, GPUs, accounts, Pythons, disks and modules; nothing is left
    there. What cannot be seen is guessed, with a comment in the file that says so.

    \b
    xpm-hpc launchers add mycluster ssh://me@login.cluster.org
    xpm-hpc launchers add mycluster --workdir '$SCRATCH/xpm'
    xpm-hpc launchers add here --local --print
    """
    from ...driver.add import find, parse_host  # for this command only
    from ...driver.found import GUESSED, guesses, launcher_text

    path = own_path(name)
    if local and host:
        raise LauncherError("--local is for this machine, and a host is given too", hint="leave one of them out")
    connector = Connector() if local else Connector("ssh", parse_host(host or name), transport)
    if any(not one.isprintable() for one in workdir):
        raise LauncherError(f"{workdir!r:.80} cannot be a workdir: it holds a control character", where="--workdir")
    former = None if is_shown else read_own(path)
    if former is not None and not agreed(f"replace {path}", yes):
        return 1

    def report(step: str, words: str, seconds: float) -> None:
        print(f"ok    {step}: {printable(words)}  [{seconds:.1f} s]", file=sys.stderr, flush=True)

    print(f"looking at {connector.host or 'this machine'} …", file=sys.stderr, flush=True)
    found = find(name, connector, workdir, scheduler or "", report)
    content = launcher_text(name, connector, found, time.strftime("%Y-%m-%d"))
    if is_shown:
        parse_launcher(content, name=name, path=path)
        print(content, end="")
        return 0
    save(path, content, former=former)
    print(f"written: {path}")
    count = guesses(content)
    if count:
        print(f"{count} of its settings {'is a guess' if count == 1 else 'are guesses'}, marked with {GUESSED}")
    if any(one == name for one, _, _ in known_launchers(shipped_dir(), path.parent / "none")):
        print(f"it is used in place of the launcher '{name}' that comes with xpm-hpc")
    print(f"next: xpm-hpc launchers check {name} --job")
    print(f"then: xpm-hpc run --launcher {name} SCRIPT")
    return 0
