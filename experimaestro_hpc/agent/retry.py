"""What to do after a failure, by its reason. In: ``{"out_of_memory": {"mem": "x2"}, "node_fail": 3}``. Out: the next
attempt's resources and its delay, or no attempt.

Shipped to clusters: standard library only. Pure. A policy is a plain dictionary, as it stands in ``job.json``:
by reason, ``times`` (``None``: without an end) and the changes of ``memory`` and ``duration`` with their ``max_…``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import XpmError
from ..resources import Resources, format_duration, format_memory, parse_duration, parse_memory

#: reasons after which another attempt may help; ``cancelled`` and ``dependency`` are decisions, not accidents
RETRIED = ("exit", "timeout", "out_of_memory", "preempted", "node_fail", "launch", "lost")
#: attempts after a failure, where a rule does not say how many
TIMES = 3
#: what a ResumableTask does where its submission says nothing else
RESUMABLE: dict[str, Any] = {"timeout": 100, "preempted": "inf", "node_fail": TIMES}
#: seconds before the next attempt, doubled each time, for failures that may hit it again at once
FIRST_DELAY, LONGEST_DELAY = 10.0, 600.0

_AMOUNTS = {"mem": "memory", "memory": "memory", "duration": "duration", "time": "duration"}
_READ = {"memory": parse_memory, "duration": parse_duration}
_SHOW = {"memory": format_memory, "duration": format_duration}

Policy = Mapping[str, Mapping[str, Any]]


class RetryError(XpmError, ValueError):
    """A ``retry=`` that cannot be understood or followed."""


@dataclass(frozen=True)
class Attempt:
    """The next attempt.

    :param resources: what it asks for
    :param delay: seconds to wait before it
    :param avoid: whether the node of the last attempt is to be left out
    :param changes: what is asked for anew, for people: ``memory=2G``
    """

    resources: Resources
    delay: float
    avoid: bool
    changes: str = ""


def parse_retry(wanted: Any) -> dict[str, dict[str, Any]]:
    """A policy from what users write: a number for all reasons, or by reason a number, ``"inf"`` or changes.

    :raises RetryError: it is not understood

    >>> parse_retry({"out_of_memory": {"mem": "x2", "max_mem": "64G"}, "node_fail": 3})["node_fail"]
    {'times': 3}
    """
    if not wanted:
        return {}
    if not isinstance(wanted, Mapping):
        return {reason: {"times": _times(reason, wanted)} for reason in RETRIED}
    policy = {}
    for reason, rule in wanted.items():
        if reason not in RETRIED:
            raise RetryError(f"no retry after {reason!r}", where="retry", hint=f"known: {', '.join(RETRIED)}")
        policy[reason] = _rule(reason, rule) if isinstance(rule, Mapping) else {"times": _times(reason, rule)}
    return policy


def _rule(reason: str, rule: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"times": TIMES}
    for key, value in rule.items():
        name = _AMOUNTS.get(str(key).removeprefix("max_"))
        if key == "times":
            found["times"] = _times(reason, value)
        elif name is None:
            known = "times, mem, duration, max_mem, max_duration"
            raise RetryError(f"unknown {key!r} for {reason!r}", where="retry", hint=f"known: {known}")
        elif str(key).startswith("max_"):
            found[f"max_{name}"] = _READ[name](str(value))
        else:
            found[name] = str(value).strip()
            _changed(name, 1024**3, found[name])  # is it understood?
    return found


def _times(reason: str, value: Any) -> int | None:
    if value == "inf":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1000:
        raise RetryError(f"{value!r} attempts after {reason!r}", where="retry", hint='a number up to 1000, or "inf"')
    return value


def _changed(name: str, amount: int, change: str) -> int:
    """``amount`` (bytes or seconds) after ``x2``, ``+8G`` or ``64G``."""
    if change[:1] in ("x", "*"):
        try:
            factor = float(change[1:])
        except ValueError:
            factor = 0.0
        if not 1.0 <= factor <= 100.0:
            raise RetryError(f"{change!r} is no factor for {name}", where="retry", hint="write it as x2 or x1.5")
        return int(amount * factor)
    if change.startswith("+"):
        return amount + _READ[name](change[1:])
    return _READ[name](change)


def check_retry(policy: Policy, resources: Resources) -> None:
    """Refuse a policy that would change what was never said.

    :param resources: what the task asks for, the launcher's defaults included
    :raises RetryError: ``x2`` of an amount that nobody knows
    """
    for reason, rule in policy.items():
        for name in _READ:
            if str(rule.get(name, ""))[:1] in ("x", "*", "+") and getattr(resources, name) is None:
                raise RetryError(
                    f"after {reason!r} {name} should become {rule[name]!r}, and no {name} is asked for at first",
                    where="retry",
                    hint=f"say it in resources=, such as {'cpu(mem=4G)' if name == 'memory' else 'duration=1h'}",
                )


def next_attempt(policy: Policy, reasons: Sequence[str], resources: Resources) -> Attempt | None:
    """The attempt after those that have failed, or None.

    :param reasons: why each of the attempts so far failed, the latest last
    :param resources: what the latest attempt asked for

    >>> next_attempt({"timeout": {"times": 2, "duration": "x2"}}, ["timeout"], Resources(duration=60)).resources
    Resources.parse('duration=2m')
    """
    reason = reasons[-1]
    rule = policy.get(reason)
    count = sum(one == reason for one in reasons)
    if rule is None or (rule["times"] is not None and count > rule["times"]):
        return None
    changes = {}
    for name in _READ:
        amount = getattr(resources, name)
        if name in rule:
            wanted = _changed(name, amount or 0, rule[name])
            wanted = min(wanted, rule.get(f"max_{name}", wanted))
            if wanted <= (amount or 0):
                return None  # as much as may be asked for was not enough
            changes[name] = wanted
    sudden = reason in ("out_of_memory", "timeout", "preempted")  # another node would not have helped
    delay = 0.0 if sudden else min(FIRST_DELAY * 2 ** min(count - 1, 20), LONGEST_DELAY)
    shown = ", ".join(f"{name}={_SHOW[name](amount)}" for name, amount in changes.items())
    return Attempt(replace(resources, **changes), delay, not sudden and reason != "exit", shown)
