"""Tasks in other languages: a program and its arguments. In: a task's parameters. Out: the program's files, checked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from typing import Union

from ..errors import XpmError
from .objects import Task

Word = Union[str, int, float, "os.PathLike[str]"]


class CommandTask(Task):
    """A task that runs a program.

    Give ``command()``, and ``outputs()`` for the files that must be there at the end. The words reach the program as
    they are: there is no shell in between, so a parameter may hold anything. What the program prints is the task's log.

    >>> class Sort(CommandTask):
    ...     text: Param[Path]
    ...     sorted: Meta[Path] = field(default_factory=PathGenerator("sorted.txt"))
    ...     def command(self):
    ...         return ["sort", "--output", self.sorted, "--", self.text]
    ...     def outputs(self):
    ...         return [self.sorted]
    """

    def command(self) -> Iterable[Word]:
        """The program and its arguments; a program without a slash is looked up on the PATH."""
        raise NotImplementedError(f"{type(self).__qualname__} has no command method")

    def outputs(self) -> Iterable[os.PathLike[str] | str]:
        """The files that the program makes; relative names are below the job directory."""
        return ()

    def environment(self) -> Mapping[str, str]:
        """Environment variables for the program, beside those of the job."""
        return {}

    def execute(self) -> None:
        """Run the program and check its outputs.

        :raises SystemExit: with the program's exit status, or 128 and the signal that killed it
        :raises XpmError: it cannot be started, or an output is missing
        """
        words = arguments(self.command())
        try:
            ended = subprocess.run(
                words, env={**os.environ, **self.environment()}, stdin=subprocess.DEVNULL, check=False
            )
        except OSError as error:
            raise XpmError(
                f"the program cannot be started: {error.strerror}",
                where=words[0],
                hint="is it installed on the node? `setup` in the launcher file can load a module",
            ) from error
        if ended.returncode:
            code = ended.returncode if ended.returncode > 0 else 128 - ended.returncode
            print(f"{words[0]} ended with exit status {code}", flush=True)
            raise SystemExit(code)
        missing = [str(path) for path in self.outputs() if not os.path.exists(path)]
        if missing:
            raise XpmError(f"the program ended well and did not make: {', '.join(missing)}", where=words[0])


def arguments(words: Iterable[Word]) -> list[str]:
    """An argument vector; numbers as Python writes them.

    :raises XpmError: no word at all, or something that cannot be a word
    """
    if isinstance(words, (str, bytes)):
        raise XpmError("a command is a list of words, not one text", hint='such as ["sort", "--", self.text]')
    found = []
    for word in words:
        if isinstance(word, bool) or not isinstance(word, (str, int, float, os.PathLike)):
            raise XpmError(f"{word!r} cannot be a word of a command", hint="give a text, a number or a path")
        text = os.fspath(word) if isinstance(word, os.PathLike) else str(word)
        if "\0" in text:
            raise XpmError(f"a word of a command cannot hold a NUL: {text!r}")
        found.append(text)
    if not found:
        raise XpmError("a command needs at least a program")
    return found
