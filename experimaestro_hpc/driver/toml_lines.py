"""Where the keys of a TOML text stand. In: text that ``tomllib`` has accepted. Out: key path → line number.

``tomllib`` gives values without places, and an error that cannot say "line 7" leaves people to search for it.
As the text is known to be valid, a scan that only tells keys, strings, brackets and comments apart is enough.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter

import tomllib

KeyPath = tuple[str | int, ...]
"""The way to a value: names of keys, and places in lists from 0: ``("partitions", 1, "gpus", "count")``."""

_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'  # up to two quotes may stand before the closing three
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]+")  # a number, true, false, a date (which may hold a space)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line of every key, table and element of a list in a valid TOML text, counted from 1.

    A table that is opened several times, or only named by a dotted key, is where it is first named.

    :param text: TOML that ``tomllib.loads`` accepts; for any other text the answer means nothing

    >>> key_lines("[gpus]\\ncount = 4\\n")
    {('gpus',): 1, ('gpus', 'count'): 2}
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


def line_of(text: str, path: KeyPath) -> int | None:
    """The line of a key in a valid TOML text or, where it is missing, of the innermost table it would be in.

    :returns: the line counted from 1, or ``None`` if not even such a table is there

    >>> line_of("[gpus]\\ncount = 4\\n", ("gpus", "memory"))
    1
    """
    lines = key_lines(text)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


class _Scanner:
    """One pass over the text, at ``position``; each method reads one piece of grammar and steps over it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.line_ends = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[KeyPath, int] = {}
        self.table_counts: Counter[KeyPath] = Counter()  # for each [[array of tables]], how many so far

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self.skip()
        while self.position < len(self.text):
            if self.text[self.position] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip()
        return self.lines

    def record(self, path: KeyPath) -> None:
        self.lines.setdefault(path, bisect_left(self.line_ends, self.position) + 1)

    def skip(self, separator: str = "") -> None:
        """Step over spaces and comments, and a separator if one comes next."""
        self.step(_SPACE)
        if separator and self.text.startswith(separator, self.position):
            self.position += len(separator)
            self.step(_SPACE)

    def step(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.position)
        if match is None:  # not valid TOML; going on would never end
            raise ValueError(f"not valid TOML at character {self.position}")
        self.position = match.end()
        return match[0]

    def header(self) -> KeyPath:
        """``[table]`` or ``[[table]]``; gives the path that the lines after it belong to."""
        is_list = self.text.startswith("[[", self.position)
        self.position += 2 if is_list else 1
        path: KeyPath = ()
        names = self.key()
        for place, name in enumerate(names, 1):
            path += (name,)
            self.record(path)
            if is_list and place == len(names):
                self.table_counts[path] += 1
            if path in self.table_counts:  # a name inside an array of tables means its latest table
                path += (self.table_counts[path] - 1,)
                self.record(path)
        self.position += 2 if is_list else 1
        return path

    def pair(self, table: KeyPath) -> None:
        """``dotted.key = value``"""
        start = self.position
        names = self.key()
        after, self.position = self.position, start
        for length in range(1, len(names) + 1):
            self.record((*table, *names[:length]))
        self.position = after
        self.skip("=")
        self.value((*table, *names))

    def key(self) -> list[str]:
        """``bare."quoted".'literal'``, with the space around it."""
        names = []
        while True:
            self.skip()
            if self.text[self.position] in "\"'":
                names.append(str(tomllib.loads("key = " + self.step(_STRING))["key"]))
            else:
                names.append(self.step(_BARE_KEY))
            self.skip()
            if not self.text.startswith(".", self.position):
                return names
            self.position += 1

    def value(self, path: KeyPath) -> None:
        opening = self.text[self.position]
        if opening == "[":
            self.group("]", path)
        elif opening == "{":
            self.group("}", path)
        elif opening in "\"'":
            self.step(_STRING)
        else:
            self.step(_BARE_VALUE)

    def group(self, closing: str, path: KeyPath) -> None:
        """``[value, value]`` or ``{ key = value, key = value }``"""
        self.position += 1
        self.skip()
        count = 0
        while not self.text.startswith(closing, self.position):
            if closing == "]":
                self.record((*path, count))
                self.value((*path, count))
                count += 1
            else:
                self.pair(path)
            self.skip(",")
        self.position += 1
