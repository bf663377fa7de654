"""Tokens: at most so many at once. In: a name, a count, tasks. Out: the tasks, which hold tokens while they run."""

from __future__ import annotations

from typing import TypeVar

from ..errors import ParameterError
from .declare import State
from .objects import Task

T = TypeVar("T", bound=Task)


class CounterToken:
    """A number of tokens that tasks hold while they execute, whatever experiment they belong to.

    :param name: the same name in the same workspace means the same tokens
    :param count: how many there are
    :raises ParameterError: a name that cannot be a file's, or no tokens

    A task that finds none free waits inside its job, so it occupies its resources meanwhile.

    >>> database = CounterToken("database", 2)
    >>> database(1, Import(table="people")).submit()
    """

    def __init__(self, name: str, count: int) -> None:
        fits = name and "/" not in name and name not in (".", "..") and name.isprintable() and len(name) <= 100
        if not fits:
            raise ParameterError(f"{name!r} cannot be the name of a token", hint="use letters, digits, - and _")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ParameterError(f"token {name!r} needs a count of 1 or more, not {count!r}")
        self.name = name
        self.count = count

    def __call__(self, count: int, task: T) -> T:
        """Make ``task`` hold ``count`` tokens while it executes; returns the task.

        :raises ParameterError: more than there are
        """
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= self.count:
            raise ParameterError(f"{count!r} tokens {self.name!r} were asked for, and there are {self.count}")
        state: State = task.__dict__["__xpm__"]
        state.tokens[self.name] = (count, self.count)
        return task
