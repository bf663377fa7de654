"""Commands that are loaded when they are used, so that help and completion are quick."""

from __future__ import annotations

import os
import re
import shlex
import sys
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem


class HelpfulGroup(click.Group):
    """A group that names the command that may be meant.

    :param shown: what its command ``show`` takes, as a regular expression; "" if it has none
    """

    def __init__(self, *arguments: Any, shown: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.shown = shown

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # for mistakes only

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if near:
                meant = repr(near[0])
            elif self.shown and re.fullmatch(self.shown, args[0]):
                meant = f"xpm-hpc {self.name} show {shlex.quote(args[0])}"
            else:
                raise
            raise click.UsageError(f"{error.message} Did you mean {meant}?", ctx) from None


class LazyGroup(HelpfulGroup):
    """A group that knows its commands by name and loads their modules on use.

    :param commands_in: by command, where it is, as ``module`` or ``module:name`` below this package, and a line of help
    """

    def __init__(self, *arguments: Any, commands_in: dict[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.commands_in = commands_in

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands_in)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands_in:
            return None
        module, _, name = self.commands_in[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f".{module}", __package__), name or "command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:  # xpm-hpc jobs | head; click would end with 1, which says that a job failed
            if ctx.invoked_subcommand == "run":
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.commands_in.items()])


class DefaultGroup(HelpfulGroup):
    """A group whose first command is meant when none is named: ``jobs --json`` is ``jobs list --json``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as they were defined

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = self.list_commands(ctx)
        if args[:1] == ["--workdir"] and len(args) > 2 and args[2] in known:  # jobs --workdir DIR show …
            args = [args[2], *args[:2], *args[3:]]
        elif args and args[0].startswith("--workdir=") and len(args) > 1 and args[1] in known:
            args = [args[1], args[0], *args[2:]]
        if args and not args[0].startswith("-") and args[0] not in known:
            return super().parse_args(ctx, args)  # a mistyped command, and no argument of the first one's
        is_typing = ctx.resilient_parsing and not args  # the name of a command, perhaps
        if not is_typing and (not args or args[0] not in (*known, "-h", "--help")):
            args = [known[0], *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Its commands; the options of the one that is meant when none is named."""
        if not incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        first = self.get_command(ctx, self.list_commands(ctx)[0])
        assert first is not None
        with first.make_context(first.name, [], parent=ctx, resilient_parsing=True) as inner:
            return first.shell_complete(inner, incomplete)


class LazyDefaultGroup(LazyGroup, DefaultGroup):
    """Both of them."""
