"""``xpm-hpc completion``: what a shell needs to complete commands, ids and launchers."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_WHERE = {
    "bash": 'put into ~/.bashrc:  eval "$(xpm-hpc completion bash)"',
    "zsh": 'put into ~/.zshrc:  eval "$(xpm-hpc completion zsh)"',
    "fish": "xpm-hpc completion fish > ~/.config/fish/completions/xpm-hpc.fish",
}


@click.command(name="completion", epilog="\b\n" + "\n".join(_WHERE.values()))
@click.argument("shell", type=click.Choice(list(_WHERE)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the lines that make a SHELL complete xpm-hpc's commands, ids and launchers."""
    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(ctx.find_root().command, {}, "xpm-hpc", "_XPM_HPC_COMPLETE").source())
    return 0
