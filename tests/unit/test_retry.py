"""What is done after a failure: what users write, and the attempt that comes of it."""

from __future__ import annotations

import json

import pytest

from experimaestro_hpc.agent.retry import (
    FIRST_DELAY,
    LONGEST_DELAY,
    RESUMABLE,
    RETRIED,
    TIMES,
    check_retry,
    next_attempt,
    parse_retry,
)
from experimaestro_hpc.errors import XpmError
from experimaestro_hpc.resources import Resources

GIGA = 1024**3


@pytest.mark.parametrize("nothing", [None, {}, 0, "", False])
def test_nothing_is_retried_by_itself(nothing):
    assert parse_retry(nothing) == {}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (2, {reason: {"times": 2} for reason in RETRIED}),
        ("inf", {reason: {"times": None} for reason in RETRIED}),
        ({"node_fail": 3}, {"node_fail": {"times": 3}}),
        ({"node_fail": 0}, {"node_fail": {"times": 0}}),
        ({"preempted": "inf"}, {"preempted": {"times": None}}),
        ({"exit": {}}, {"exit": {"times": TIMES}}),
        ({"exit": {"times": "inf"}}, {"exit": {"times": None}}),
        ({"out_of_memory": {"mem": "x2"}}, {"out_of_memory": {"times": TIMES, "memory": "x2"}}),
        ({"out_of_memory": {"memory": "+8G"}}, {"out_of_memory": {"times": TIMES, "memory": "+8G"}}),
        ({"out_of_memory": {"mem": " *1.5 "}}, {"out_of_memory": {"times": TIMES, "memory": "*1.5"}}),
        (
            {"out_of_memory": {"mem": "64G", "max_mem": "64G", "times": 1}},
            {"out_of_memory": {"times": 1, "memory": "64G", "max_memory": 64 * GIGA}},
        ),
        (
            {"timeout": {"duration": "x2", "max_duration": "2d"}},
            {"timeout": {"times": TIMES, "duration": "x2", "max_duration": 172800}},
        ),
        ({"timeout": {"time": "+30m", "max_time": "2h"}}, None),
    ],
)
def test_parse_retry(wanted, expected):
    found = parse_retry(wanted)
    if expected is None:
        expected = {"timeout": {"times": TIMES, "duration": "+30m", "max_duration": 7200}}
    assert found == expected
    assert json.loads(json.dumps(found)) == expected, "it is kept in job.json"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"cancelled": 3}, "no retry after 'cancelled'"),
        ({"dependency": 3}, "no retry after 'dependency'"),
        ({"oom": 3}, "no retry after 'oom'"),
        ({None: 3}, "no retry after None"),
        (-1, "-1 attempts after 'exit'"),
        (1001, "1001 attempts"),
        (True, "True attempts"),
        (1.5, "1.5 attempts"),
        ("x2", "'x2' attempts"),
        ([1], r"\[1\] attempts"),
        ({"exit": None}, "None attempts after 'exit'"),
        ({"exit": {"times": "3"}}, "'3' attempts"),
        ({"exit": {"cores": "x2"}}, "unknown 'cores' for 'exit'"),
        ({"exit": {3: "x2"}}, "unknown 3"),
        ({"exit": {"max_times": 3}}, "unknown 'max_times'"),
        ({"exit": {"mem": "x0.5"}}, "'x0.5' is no factor for memory"),
        ({"exit": {"mem": "x"}}, "'x' is no factor"),
        ({"exit": {"mem": "xnan"}}, "'xnan' is no factor"),
        ({"exit": {"mem": "xinf"}}, "'xinf' is no factor"),
        ({"exit": {"duration": "x1000"}}, "'x1000' is no factor for duration"),
        ({"exit": {"mem": "much"}}, "much"),
        ({"exit": {"mem": "+"}}, r"\S"),
        ({"exit": {"mem": ""}}, r"\S"),
        ({"exit": {"max_mem": "much"}}, "much"),
        ({"exit": {"duration": "$(sleep 9)"}}, "sleep 9"),
    ],
)
def test_what_is_not_understood_is_refused(wanted, words):
    with pytest.raises(XpmError, match=words):
        parse_retry(wanted)


@pytest.mark.parametrize(
    ("wanted", "resources", "words"),
    [
        ({"out_of_memory": {"mem": "x2"}}, "any", "after 'out_of_memory' memory should become 'x2'"),
        ({"out_of_memory": {"mem": "+1G"}}, "duration=1h", "memory should become '\\+1G'"),
        ({"out_of_memory": {"mem": " *2"}}, "any", "memory should become"),
        ({"timeout": {"duration": "x2"}}, "mem=1G", "duration should become 'x2'"),
        ({"out_of_memory": {"mem": "x2"}}, "mem=1G", ""),
        ({"timeout": {"duration": "x2"}}, "duration=1h", ""),
        ({"out_of_memory": {"mem": "64G"}}, "any", ""),
        (3, "any", ""),
        ({}, "any", ""),
    ],
)
def test_what_was_never_said_cannot_be_doubled(wanted, resources, words):
    policy = parse_retry(wanted)
    if not words:
        check_retry(policy, Resources.parse(resources))
        return
    with pytest.raises(XpmError, match=words) as caught:
        check_retry(policy, Resources.parse(resources))
    assert "say it in resources=" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "reasons", "expected"),
    [
        # how often: each reason counts for itself
        ({"exit": 2}, "exit", "any"),
        ({"exit": 2}, "exit exit", "any"),
        ({"exit": 2}, "exit exit exit", None),
        ({"exit": 0}, "exit", None),
        ({"exit": 1, "timeout": 1}, "exit timeout", "any"),
        ({"exit": 1, "timeout": 1}, "exit timeout exit", None),
        ({"exit": 1}, "lost exit", "any"),
        ({"preempted": "inf"}, "preempted " * 5000, "any"),
        # for what: a cancelled job is not tried again, whatever the policy
        ({"exit": 2}, "timeout", None),
        ({}, "exit", None),
        (3, "cancelled", None),
        (3, "dependency", None),
        (3, "lost", "any"),
        ({"exit": 2}, "", None),
        # with what
        ({"out_of_memory": {"mem": "x2"}}, "out_of_memory", "mem=8G & duration=1h"),
        ({"out_of_memory": {"mem": "x1.5"}}, "out_of_memory", "mem=6G & duration=1h"),
        ({"out_of_memory": {"mem": "+2G"}}, "out_of_memory", "mem=6G & duration=1h"),
        ({"out_of_memory": {"mem": "64G"}}, "out_of_memory", "mem=64G & duration=1h"),
        ({"out_of_memory": {"mem": "64G"}}, "out_of_memory out_of_memory", "mem=64G & duration=1h"),
        ({"out_of_memory": {"mem": "x2", "max_mem": "5G"}}, "out_of_memory", "mem=5G & duration=1h"),
        ({"timeout": {"duration": "x2", "mem": "+1G"}}, "timeout", "mem=5G & duration=2h"),
        # as much as may be had was not enough
        ({"out_of_memory": {"mem": "x2", "max_mem": "4G"}}, "out_of_memory", None),
        ({"out_of_memory": {"mem": "4G"}}, "out_of_memory", None),
        ({"out_of_memory": {"mem": "2G"}}, "out_of_memory", None),
    ],
)
def test_next_attempt(wanted, reasons, expected):
    asked = Resources.parse("mem=4G & duration=1h" if expected is None or "=" in expected else "any")
    attempt = next_attempt(parse_retry(wanted), reasons.split() or [""], asked)
    assert (attempt and attempt.resources) == (Resources.parse(expected) if expected else None)


def test_what_is_asked_for_anew_is_told():
    policy = parse_retry({"timeout": {"duration": "x2", "mem": "+1G"}})
    attempt = next_attempt(policy, ["timeout"], Resources.parse("mem=4G & duration=1h & cores=3"))
    assert attempt is not None
    assert attempt.changes == "memory=5G, duration=02:00:00"
    assert attempt.resources.cores == 3
    again = next_attempt(parse_retry(3), ["exit"], Resources())
    assert again is not None
    assert again.changes == ""


@pytest.mark.parametrize(
    ("reason", "waits", "avoids"),
    [
        ("exit", True, False),
        ("node_fail", True, True),
        ("launch", True, True),
        ("lost", True, True),
        ("timeout", False, False),
        ("out_of_memory", False, False),
        ("preempted", False, False),
    ],
)
def test_back_off_and_the_node_to_leave_out(reason, waits, avoids):
    policy = parse_retry("inf")
    delays = []
    for count in range(1, 40):
        attempt = next_attempt(policy, [reason] * count, Resources())
        assert attempt is not None
        assert attempt.avoid == avoids
        delays.append(attempt.delay)
    assert delays[:3] == ([FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY] if waits else [0.0] * 3)
    assert delays[-1] == (LONGEST_DELAY if waits else 0.0)
    assert delays == sorted(delays)


def test_what_a_resumable_task_does_where_nothing_else_is_said():
    policy = parse_retry(RESUMABLE)
    assert next_attempt(policy, ["preempted"] * 1000, Resources()) is not None
    assert next_attempt(policy, ["timeout"] * 100, Resources()) is not None
    assert next_attempt(policy, ["timeout"] * 101, Resources()) is None
    assert next_attempt(policy, ["exit"], Resources()) is None
