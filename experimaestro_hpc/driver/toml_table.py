"""Reading a TOML file strictly. In: its text. Out: checked values, or an error with file, line, nearest key.

A :class:`Table` is asked for one key after the other, by the kind of value expected. A key that it was not
told of when it was made is refused at once, so that a misspelt key is never silently without effect.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tomllib

from ..errors import LauncherError
from ..resources import ResourceError, parse_duration, parse_memory
from .toml_lines import KeyPath, line_of

_Choice = TypeVar("_Choice", bound=str)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")  # all that some program takes for the end of a line, too


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or nothing if none is near.

    >>> did_you_mean("slrum", ["local", "slurm"]), did_you_mean("pbs", ["local", "slurm"])
    ("; did you mean 'slurm'?", '')
    """
    near = difflib.get_close_matches(word[:80].lower(), list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _nearest_or_all(word: str, known: Iterable[str]) -> str:
    return did_you_mean(word, known) or f"; known: {', '.join(known)}"


def is_number(value: object) -> bool:
    """Whether a value of a TOML file is a number of 64 bits: no bool, not infinite, not of 1000 digits."""
    if type(value) is int:  # an exact type: True is an int as well
        return -(2**63) <= value < 2**63
    return type(value) is float and math.isfinite(value)


@dataclass(frozen=True)
class Source:
    """A TOML file being read.

    :ivar text: what it holds
    :ivar path: where it is, for messages
    :ivar belongs: for keys that people put into the wrong table, where they belong, in words
    """

    text: str
    path: Path
    belongs: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> dict[str, Any]:
        """The content as ``tomllib`` gives it.

        :raises LauncherError: if the text is not TOML
        """
        try:
            return tomllib.loads(self.text)
        except ValueError as error:  # also other than TOMLDecodeError: for a number of 5000 digits
            what, _, place = str(error).partition(" (at ")
            match = re.match(r"line (\d+)", place)
            last_line = len(self.text.rstrip().split("\n"))
            line = match[1] if match else str(last_line) if place == "end of document)" else ""
            where = f"{self.path}, line {line}" if line else str(self.path)
            raise LauncherError(f"this is not TOML: {what[:1].lower()}{what[1:]}", where=where) from None

    def error(self, what: str, at: KeyPath = (), *, hint: str = "") -> LauncherError:
        """An error at a key or, if that is missing, at the table it is missing from."""
        line = line_of(self.text, at)
        return LauncherError(what, where=f"{self.path}, line {line}" if line else str(self.path), hint=hint)


class Table:
    """One table of a TOML file, whose values are asked for by key and checked. Absent keys give the default.

    :param source: the file
    :param data: the table, as ``tomllib`` gives it
    :param known: the keys that may be in it; ``None`` if any may
    :param at: the way to the table
    :param title: what messages call it
    :raises LauncherError: if there is any other key

    >>> Table(Source("cores = 4", Path("x.toml")), {"cores": 4}, ["cores"], title="the file").count("cores")
    4
    """

    def __init__(
        self,
        source: Source,
        data: Mapping[str, Any],
        known: Iterable[str] | None,
        *,
        at: KeyPath = (),
        title: str,
    ) -> None:
        self.source, self.data, self.at, self.title = source, data, at, title
        names = data if known is None else list(known)
        for key in data:
            if key in names:
                continue
            elsewhere = source.belongs.get(key)
            ending = f"; it belongs {elsewhere}" if elsewhere else _nearest_or_all(key, names)
            raise self.error(f"unknown key {_shown(key)} in {title}{ending}", key)

    def error(self, what: str, *keys: str | int, hint: str = "") -> LauncherError:
        """An error at a key of this table; the key of a list can be followed by the place of an element."""
        return self.source.error(what, (*self.at, *keys), hint=hint)

    def missing(self, key: str, why: str = "") -> LauncherError:
        """The error for a key that must be there."""
        return self.error(f"key '{key}' is missing in {self.title}{why}", key)

    def invalid(self, key: str, expected: str, hint: str = "") -> LauncherError:
        """The error for a value that is not what it must be."""
        value = self.data[key]
        return self.error(f"{_shown(key)} in {self.title} must be {expected}, not {_described(value)}", key, hint=hint)

    def text(self, key: str, default: str = "", *, can_be_empty: bool = True, many_lines: bool = False) -> str:
        """A text, of one line unless said otherwise."""
        if key not in self.data:
            return default
        value = self.data[key]
        if type(value) is not str:
            hint = f'write it in quotes: {key} = "{value}"' if is_number(value) else ""
            raise self.invalid(key, "text", hint)
        self._check_characters(value, many_lines, key)
        if not value.strip() and not can_be_empty:
            raise self.error(f"{_shown(key)} in {self.title} must not be empty", key)
        return value

    def choice(self, key: str, choices: tuple[_Choice, ...], default: _Choice) -> _Choice:
        """One of a few words."""
        value = self.text(key, default)
        for choice in choices:
            if choice == value:
                return choice
        raise self.error(f"unknown {key} {_shown(value)} in {self.title}{_nearest_or_all(value, choices)}", key)

    def count(self, key: str, *, least: int = 1) -> int | None:
        """A whole number."""
        if key not in self.data:
            return None
        value = self.data[key]
        if type(value) is not int or not is_number(value):
            is_quoted = isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value)
            hint = f"write it without quotes: {key} = {value}" if is_quoted else ""
            raise self.invalid(key, "a whole number", hint)
        if value < least:
            raise self.invalid(key, f"{least} or more")
        return value

    def texts(self, key: str, *, many_lines: bool = False) -> tuple[str, ...]:
        """A list of texts, each of one line unless said otherwise."""
        if key not in self.data:
            return ()
        values = self.data[key]
        if type(values) is not list:
            hint = f'write it in brackets: {key} = ["…"]' if isinstance(values, str) else ""
            raise self.invalid(key, "a list of texts", hint)
        for place, value in enumerate(values):
            if type(value) is not str:
                raise self.error(
                    f"{_shown(key)} in {self.title} must hold texts only, not {_described(value)}", key, place
                )
            self._check_characters(value, many_lines, key, place)
        return tuple(values)

    def _check_characters(self, value: str, many_lines: bool, *keys: str | int) -> None:
        if "\x00" in value:  # no command and no variable can hold one
            raise self.error(f"{_shown(str(keys[0]))} in {self.title} holds a NUL character", *keys)
        if not many_lines and _CONTROL.search(value):
            what = "holds a line break or another control character"
            raise self.error(f"{_shown(str(keys[0]))} in {self.title} {what}", *keys)

    def memory(self, key: str) -> int | None:
        """An amount such as ``64G``, in bytes."""
        return self._quantity(key, parse_memory, "64G")

    def duration(self, key: str) -> int | None:
        """A time such as ``2:00:00``, in seconds."""
        return self._quantity(key, parse_duration, "2:00:00")

    def _quantity(self, key: str, parse: Callable[[str], int], example: str) -> int | None:
        if key not in self.data:
            return None
        if type(self.data[key]) is not str:
            raise self.invalid(key, "text", f'write it with its unit, like {key} = "{example}"')
        try:
            return parse(self.data[key])
        except ResourceError as error:
            raise self.error(f"{_shown(key)} in {self.title}: {error.what}", key, hint=error.hint) from None

    def table(self, key: str, known: Iterable[str] | None, title: str = "") -> Table:
        """A table in this one; empty if it is absent."""
        data = self.data.get(key, {})
        if type(data) is not dict:
            hint = f"{key} = {{ KEY = VALUE }}" if self.at else f"[{key}], with its keys on the next lines"
            raise self.invalid(key, "a table", f"write {hint}")
        return Table(self.source, data, known, at=(*self.at, key), title=title or f"[{key}]")

    def tables(self, key: str, known: Iterable[str]) -> list[Table]:
        """The tables of an array of tables."""
        values = self.data.get(key, [])
        if type(values) is not list or any(type(value) is not dict for value in values):
            hint = f"write [[{key}]], with two brackets, before each of them"
            raise self.invalid(key, "a list of tables", hint)
        names = list(known)
        return [
            Table(self.source, value, names, at=(*self.at, key, place), title=f"[[{key}]]")
            for place, value in enumerate(values)
        ]


def _shown(text: str) -> str:
    """A text as messages show it: quoted, shortened, without control characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _described(value: object) -> str:
    """A value of a TOML file as messages show it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {_shown(value)}"
    if isinstance(value, (int, float)):
        return f"the number {value!r}" if is_number(value) else "such a number"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a table"
    return "a date or a time"
