"""What a task asks of a machine. In: ``"gpu(mem=24G) * 2 & duration=4h"``. Out: :class:`Resources`.

Shipped to clusters: standard library only, Python 3.9 and later. Pure: nothing here reads or writes anything.

The language::

    gpu(mem=24G, model=a100) * 2 & cpu(cores=8, mem=64G) & duration=1.5h & nodes=1 | cpu(cores=32)

* ``|`` separates alternatives, tried in order; ``&`` joins; ``(a | b) & c`` is ``a & c | b & c``.
* ``gpu``, ``gpu * 2``, ``2 * gpu``, ``gpu(mem=24G, model=Tesla V100)``; or ``cuda``, as in experimaestro.
* ``cpu(cores=8, mem=64G)``, or ``cores=8`` and ``mem=64G`` on their own.
* ``duration=2h``, ``nodes=2``, ``tasks_per_node=4``; ``any``, as in ``gpu | any``, asks for nothing.
* Within one alternative, everything is said at most once.

GPUs and memory are for each node, cores for each task, and a node has one task unless said otherwise.

Memory has a unit: B, K, M, G, T, also as KB… or KiB…, in any case: all are powers of 1024, as in Slurm.
A bare number is refused, as bytes, MiB and GiB are each somebody's habit.

Durations have units, as ``1h30m`` or ``2 days``: s/sec/second, m/min/minute, h/hr/hour, d/day, w/week and
their plurals. Without, they are read as Slurm does: ``90`` is minutes, ``24:00`` is minutes:seconds,
``24:00:00`` hours:minutes:seconds; ``1-12``, ``1-12:00`` and ``1-12:00:00`` are a day and a half.

Fractions are exact, then rounded up to a whole byte or second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import index
from typing import Any, Callable, NamedTuple, NoReturn

from .errors import XpmError

_MAX_COUNT = 1_000_000
_MAX_BYTES = 1 << 60
_MAX_SECONDS = 10 * 365 * 86400
_MAX_TEXT = 40_000  # characters; str() of 100 alternatives of the longest kind has 27,000
_MAX_CHOICES = 100
_MAX_DEPTH = 50

_BYTES = {"b": 1, **{k + end: 1024**i for i, k in enumerate("kmgt", 1) for end in ("", "b", "ib")}}
_TIMES = {
    1: "s sec secs second seconds",
    60: "m min mins minute minutes",
    3600: "h hr hrs hour hours",
    86400: "d day days",
    7 * 86400: "w week weeks",
}
_SECONDS = {word: seconds for seconds, words in _TIMES.items() for word in words.split()}


class ResourceError(XpmError, ValueError):
    """Resources, memory or a duration that cannot be understood; the hint points at the place."""


class _Span(NamedTuple):
    """A piece of a text that knows where it stands, so that an error can point at it."""

    text: str
    start: int
    end: int
    where: str

    @classmethod
    def of(cls, text: str, where: str) -> _Span:
        if not isinstance(text, str):
            raise ResourceError(f"a value of type {type(text).__name__} is not understood", where=where)
        if len(text) > _MAX_TEXT:
            raise ResourceError(f"the text is longer than {_MAX_TEXT} characters", where=where)
        return cls(text, len(text) - len(text.lstrip()), len(text.rstrip()), where)

    @property
    def word(self) -> str:
        return self.text[self.start : self.end]

    def __str__(self) -> str:
        """The word as messages show it: quoted, shortened, control characters escaped."""
        return repr(self.word if len(self.word) <= 40 else self.word[:37] + "...") if self.word else "nothing"

    def error(self, what: str, hint: str = "", known: Iterable[str] = ()) -> ResourceError:
        """An error that shows the place, and the nearest of the known words, or them all."""
        if known:
            import difflib  # here: a millisecond or two that only an error needs

            near = difflib.get_close_matches(self.word[:40].lower(), list(known), 1)
            what += f"; did you mean '{near[0]}'?" if near else ""
            hint = "" if near else "known here: " + ", ".join(known)
        left, right = max(0, self.start - 60), self.start + 60
        before = ("..." if left else "") + self.text[left : self.start]
        after = self.text[self.start : right] + ("..." if right < len(self.text) else "")
        shown = "".join(c if c.isprintable() else " " for c in before + after)
        lines = [shown, " " * len(before) + "^", hint] if shown.strip() else [hint]
        return ResourceError(what, where=self.where, hint="\n".join(filter(None, lines)))


# --- Values: each reader takes a span and gives a checked value

# patterns are compiled, and kept, by re when first used
_NUMBER = r"([0-9]{1,20})(?:\.([0-9]{1,20}))?\s*"
_SIZE = _NUMBER + r"([^\s0-9.]\S*|)"
_PART = _NUMBER + r"([^\s0-9.:]+)\s*"
_CLOCK = r"(?:([0-9]{1,9})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?"


def _scaled(whole: str, fraction: str | None, unit: int) -> int:
    """``whole.fraction * unit`` in integers, rounded up: as floats, 1.1 hours are more than 3960 seconds."""
    fraction = fraction or ""
    scale: int = 10 ** len(fraction)
    return -(-int(whole + fraction) * unit // scale)


def _read_count(span: _Span) -> int:
    number = int(span.word) if re.fullmatch("[0-9]{1,20}", span.word) else 0
    if not 1 <= number <= _MAX_COUNT:
        raise span.error(f"{span} is not a whole number from 1 to {_MAX_COUNT}", "for none, leave it out")
    return number


def _read_memory(span: _Span) -> int:
    match = re.fullmatch(_SIZE, span.word)
    if not match:
        raise span.error(f"{span} is not an amount of memory", "write it as 24G, 512M or 1.5T")
    unit = span._replace(start=span.end - len(match[3]))
    if not unit.word:
        raise span.error(f"{span} has no unit of memory", f"write {span.word}G or {span.word}M")
    if unit.word.lower() not in _BYTES:
        raise unit.error(f"unknown unit of memory {unit}", known=("K", "M", "G", "T"))
    size = _scaled(match[1], match[2], _BYTES[unit.word.lower()])
    if not 1 <= size <= _MAX_BYTES:
        raise span.error(f"{span} is not from 1B to {format_memory(_MAX_BYTES)}", "for none, leave it out")
    return size


def _read_duration(span: _Span) -> int:
    clock = re.fullmatch(_CLOCK, span.word)
    seconds = _clock_seconds(span, clock) if clock else _unit_seconds(span)
    if not 1 <= seconds <= _MAX_SECONDS:
        raise span.error(f"{span} is not from 1 second to {_short_duration(_MAX_SECONDS)}")
    return seconds


def _clock_seconds(span: _Span, clock: re.Match[str]) -> int:
    days, *parts = clock.groups()
    numbers = [int(part) for part in parts if part]
    units = (3600, 60, 1) if days or len(numbers) == 3 else (60, 1)
    if any(number > 59 for number in numbers[1:]) or (days and numbers[0] > 23):
        raise span.error(f"a part of {span} is over its clock", "write it as days-hours:minutes:seconds")
    return int(days or 0) * 86400 + sum(number * unit for number, unit in zip(numbers, units))


def _unit_seconds(span: _Span) -> int:
    seconds, last, rest = 0, _MAX_SECONDS, span
    while rest.word or rest is span:
        part = re.compile(_PART).match(span.text, rest.start, span.end)
        if not part:
            raise rest.error(f"{rest} is not a duration", "write it as 1h30m, 2 days, 90m or 1-12:00:00")
        unit = rest._replace(start=part.start(3), end=part.end(3))
        size = _SECONDS.get(unit.word.lower(), 0)
        if not size:
            raise unit.error(f"unknown unit of time {unit}", known=_SECONDS)
        if size >= last:
            raise unit.error("the units go from the largest to the smallest, each once")
        seconds, last, rest = seconds + _scaled(part[1], part[2], size), size, rest._replace(start=part.end())
    return seconds


def _read_model(span: _Span) -> str:
    """Of plain characters only, as it ends up in directives; spaces are for OAR's models."""
    model = " ".join(span.word.split())
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}", model):
        raise span.error(f"{span} is not a GPU model", "use letters, digits, spaces, '.', '_', '+', '-'")
    return model


# the fields of Resources, how the text of each is read, and the unit of a plain number
_FIELDS: dict[str, tuple[Callable[[_Span], Any], str]] = {
    "gpus": (_read_count, ""),
    "gpu_memory": (_read_memory, "B"),
    "gpu_model": (_read_model, ""),
    "cores": (_read_count, ""),
    "memory": (_read_memory, "B"),
    "duration": (_read_duration, "s"),
    "nodes": (_read_count, ""),
    "tasks_per_node": (_read_count, ""),
}


def parse_memory(text: str) -> int:
    """The number of bytes in a text such as ``64G``; units are powers of 1024, and there must be one.

    :raises ResourceError: if it is not an amount of memory, is zero, or is over 1 EiB

    >>> parse_memory("1.5 GiB")
    1610612736
    """
    return _read_memory(_Span.of(text, "memory"))


def parse_duration(text: str) -> int:
    """The number of seconds in a text such as ``1h30m``, ``2 days``, ``1-12:00:00`` or, in minutes, ``90``.

    :raises ResourceError: if it is not a duration, is zero, or is over ten years

    >>> parse_duration("1.5h"), parse_duration("24:00"), parse_duration("24:00:00")
    (5400, 1440, 86400)
    """
    return _read_duration(_Span.of(text, "duration"))


def format_memory(size: int) -> str:
    """A number of bytes as a whole number of the largest unit there is; :func:`parse_memory` reads it back.

    >>> format_memory(64 * 1024**3), format_memory(1536 * 1024**2), format_memory(1000)
    ('64G', '1536M', '1000B')
    """
    power = next((i for i in (4, 3, 2, 1) if size and size % 1024**i == 0), 0)
    return f"{size // 1024**power}{'BKMGT'[power]}"


def format_duration(seconds: int) -> str:
    """A number of seconds as schedulers write it: ``HH:MM:SS``, from a day on ``D-HH:MM:SS``.

    >>> format_duration(5400), format_duration(129600)
    ('01:30:00', '1-12:00:00')
    """
    days, rest = divmod(seconds, 86400)
    return (f"{days}-" if days else "") + f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _short_duration(seconds: int) -> str:
    """As people write it: ``1d12h``, ``1h30m``."""
    counts = (seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60, seconds % 60)
    return "".join(f"{count}{unit}" for count, unit in zip(counts, "dhms") if count)


@dataclass(frozen=True, init=False, repr=False)
class Resources:
    """What a task asks for, and what else would do. ``None`` is "not said", and what ``&`` leaves as it was.

    Made by keyword, of numbers or of text with units, or by :meth:`parse`, which reads what ``str()`` gives.
    Every number is at least 1: what is not wanted is left out. Both operators also take text.

    :raises ResourceError: if a value is not understood or is out of bounds

    >>> Resources(gpus=2, gpu_memory="24G", cores=8, duration="1h30m") & Resources(gpus=4)
    Resources.parse('gpu(mem=24G) * 4 & cpu(cores=8) & duration=1h30m')
    """

    gpus: int | None  #: GPUs on each node; 1 if only a GPU memory or model is said
    gpu_memory: int | None  #: the least memory of each GPU, in bytes
    gpu_model: str | None  #: as the cluster spells it
    cores: int | None  #: cores for each task
    memory: int | None  #: memory on each node, in bytes
    duration: int | None  #: the longest run, in seconds; mind that the text "90" is minutes
    nodes: int | None  #: number of nodes
    tasks_per_node: int | None  #: tasks started on each node
    alternatives: tuple[Resources, ...]  #: further choices, in order; they have no alternatives themselves

    def __init__(
        self,
        *,
        gpus: int | None = None,
        gpu_memory: int | str | None = None,
        gpu_model: str | None = None,
        cores: int | None = None,
        memory: int | str | None = None,
        duration: int | str | None = None,
        nodes: int | None = None,
        tasks_per_node: int | None = None,
        alternatives: Iterable[Resources | str] = (),
    ) -> None:
        if gpus is None and (gpu_memory is not None or gpu_model is not None):
            gpus = 1
        given: list[Any] = [gpus, gpu_memory, gpu_model, cores, memory, duration, nodes, tasks_per_node]
        for (name, (read, unit)), value in zip(_FIELDS.items(), given):
            if hasattr(value, "__index__") and not isinstance(value, bool):  # integers of numpy too
                number = index(value)
                value = f"{number}{unit}" if abs(number) < 1 << 64 else "a huge number"
            object.__setattr__(self, name, None if value is None else read(_Span.of(value, name)))
        others = tuple(choice for one in alternatives for choice in Resources.parse(one).choices)
        if len(others) >= _MAX_CHOICES:
            raise ResourceError(f"more than {_MAX_CHOICES} alternatives", where="resources")
        object.__setattr__(self, "alternatives", others)

    @classmethod
    def parse(cls, text: str | Resources) -> Resources:
        """Read the language described at the top of this module; resources are given back as they are.

        :raises ResourceError: if the text is not understood: with its place, and the nearest known word

        >>> Resources.parse("cuda(mem=24GiB) * 2 & duration=4 days | cpu(cores=32)")
        Resources.parse('gpu(mem=24G) * 2 & duration=4d | cpu(cores=32)')
        """
        if isinstance(text, Resources):
            return text
        return _joined(_Parser(_Span.of(text, "resources")).choices())

    @property
    def choices(self) -> tuple[Resources, ...]:
        """All the choices in order, this one first, each without alternatives."""
        return (replace(self, alternatives=()), *self.alternatives) if self.alternatives else (self,)

    @property
    def gpu_count(self) -> int:
        """GPUs on each node, 0 if nothing was said."""
        return self.gpus or 0

    @property
    def node_count(self) -> int:
        """Number of nodes, 1 if nothing was said."""
        return self.nodes or 1

    def __and__(self, other: Resources | str) -> Resources:
        """Both, field by field: what ``other`` says wins. With alternatives, each choice with each."""
        others = Resources.parse(other).choices
        return _joined([{**a._said(), **b._said()} for a in self.choices for b in others])

    def __or__(self, other: Resources | str) -> Resources:
        """This, or else ``other``."""
        return replace(self, alternatives=(*self.alternatives, Resources.parse(other)))

    def __str__(self) -> str:
        return " | ".join(choice._text() for choice in self.choices)

    def __repr__(self) -> str:
        return f"Resources.parse({str(self)!r})"

    def _said(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS if getattr(self, name) is not None}

    def _text(self) -> str:
        texts = {"memory": format_memory, "gpu_memory": format_memory, "duration": _short_duration}
        said = {name: texts.get(name, str)(value) for name, value in self._said().items()}
        tables = (_GPU, _CPU, _OTHER)
        gpu, cpu, terms = ([f"{word}={said[n]}" for word, n in t.items() if n in said] for t in tables)
        if cpu:
            terms.insert(0, f"cpu({', '.join(cpu)})")
        if self.gpus:
            count = f" * {self.gpus}" if self.gpus > 1 else ""
            terms.insert(0, "gpu" + (f"({', '.join(gpu)})" if gpu else "") + count)
        return " & ".join(terms) or "any"

    def to_json(self) -> dict[str, Any]:
        """What was said, as plain values: counts, bytes, seconds; the alternatives as a list of the same.

        >>> Resources(memory="1K", alternatives=[Resources(cores=2)]).to_json()
        {'memory': 1024, 'alternatives': [{'cores': 2}]}
        """
        others = [choice._said() for choice in self.alternatives]
        return {**self._said(), "alternatives": others} if others else self._said()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Resources:
        """The resources that :meth:`to_json` was called on.

        :raises ResourceError: if a key is unknown or a value is not understood
        """
        others = data.get("alternatives", []) if isinstance(data, dict) else None
        if not isinstance(others, list) or not all(isinstance(other, dict) for other in others):
            raise ResourceError("expected an object of plain values", where="resources")
        choices = [{key: value for key, value in data.items() if key != "alternatives"}, *others]
        for key in (key for choice in choices for key in choice if key not in _FIELDS):
            raise _Span.of(key, "resources").error("unknown key", known=_FIELDS)
        return _joined(choices)


def _joined(choices: list[dict[str, Any]]) -> Resources:
    """One ``Resources`` of the fields that each choice says."""
    first, *others = (Resources(**said) for said in choices)
    return replace(first, alternatives=tuple(others))


# --- The parser: recursive descent; a choice is the fields it says

_TOKEN = r"[()&|*,=]|[^\s()&|*,=]+"
_GPU = {"mem": "gpu_memory", "model": "gpu_model"}
_CPU = {"cores": "cores", "mem": "memory"}
_OTHER = {"duration": "duration", "nodes": "nodes", "tasks_per_node": "tasks_per_node"}


class _Parser:
    def __init__(self, whole: _Span) -> None:
        self.whole = whole
        found = re.finditer(_TOKEN, whole.text)
        self.tokens = (whole._replace(start=match.start(), end=match.end()) for match in found)
        self.advance()

    def choices(self, opening: _Span | None = None, depth: int = 0) -> list[dict[str, Any]]:
        """``term & term | term …`` to the end of the text, or of the group that was opened."""
        if depth > _MAX_DEPTH:
            raise self.token.error(f"more than {_MAX_DEPTH} parentheses within each other")
        done: list[dict[str, Any]] = []
        joined: list[dict[str, Any]] = [{}]
        while True:
            start = self.token
            right = self.choices(start, depth + 1) if self.take("(") else [self.term()]
            joined = [self.merged(a, b, start) for a in joined for b in right]
            if len(done) + len(joined) > _MAX_CHOICES:
                raise start.error(f"more than {_MAX_CHOICES} alternatives")
            if not self.take("&"):
                done, joined = [*done, *joined], [{}]
                if not self.take("|"):
                    break
        if opening:
            self.expect(")", opening)
        elif self.token.word:
            self.fail("'&' or '|'")
        return done

    def term(self) -> dict[str, Any]:
        count = None
        if self.token.word and self.token.word[0] in "+-.0123456789":
            count = self.word("")
            self.expect("*")
        if self.take("gpu") or self.take("cuda"):
            return self.gpu(count)
        if count:
            self.fail("'gpu'")
        if self.take("cpu"):
            return self.arguments(_CPU)
        return {} if self.take("any") else self.pair({**_CPU, **_OTHER}, ("gpu", "cuda", "cpu", "any"))

    def gpu(self, count: _Span | None) -> dict[str, Any]:
        said = self.arguments(_GPU) if self.token.word == "(" else {}
        if self.token.word == "=" or (self.token.word == "*" and count):
            raise self.token.error("the number of GPUs is said once, as in 'gpu * 2'")
        if self.take("*"):
            count = self.word("a number")
        return {"gpus": _read_count(count) if count else 1, **said}

    def arguments(self, keys: dict[str, str]) -> dict[str, Any]:
        """``(key=value, …)``, or ``()``"""
        opening = self.token
        self.expect("(")
        said: dict[str, Any] = {}
        while self.token.word != ")":
            start = self.token
            said = self.merged(said, self.pair(keys), start)
            if not self.take(","):
                break
        self.expect(")", opening)
        return said

    def pair(self, keys: dict[str, str], others: tuple[str, ...] = ()) -> dict[str, Any]:
        """``key=value``; the value may be several words, as ``2 days``. Errors tell of the others too."""
        known = (*others, *keys)
        key = self.word("one of " + ", ".join(known))
        if key.word not in keys:
            raise key.error(f"unknown word {key}", known=known)
        self.expect("=")
        value = self.word("a value")
        while self.at_word():
            value = value._replace(end=self.word("").end)
        return {keys[key.word]: _FIELDS[keys[key.word]][0](value)}

    def merged(self, left: dict[str, Any], right: dict[str, Any], start: _Span) -> dict[str, Any]:
        for name in right:
            if name in left:
                raise start.error(f"{name} is said twice")
        return {**left, **right}

    def advance(self) -> None:
        self.token = next(self.tokens, self.whole._replace(start=self.whole.end))

    def at_word(self) -> bool:
        return self.token.word not in "()&|*,="  # nor at the end, which is an empty word

    def word(self, expected: str) -> _Span:
        """Step over a word, and give it."""
        found = self.token
        if not self.at_word():
            self.fail(expected)
        self.advance()
        return found

    def take(self, word: str) -> bool:
        """Step over this word or symbol, if it comes next."""
        found = self.token.word == word
        if found:
            self.advance()
        return found

    def expect(self, symbol: str, opening: _Span | None = None) -> None:
        if opening and not self.token.word:
            raise opening.error("this '(' is never closed")
        if not self.take(symbol):
            self.fail(f"'{symbol}'")

    def fail(self, expected: str) -> NoReturn:
        raise self.token.error(f"expected {expected}, found {self.token}")
