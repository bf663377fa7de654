"""The language of resources: what it reads, what it writes, and what it says when it does not understand."""

import json
import pickle
import subprocess
import sys
import time
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experimaestro_hpc.errors import XpmError
from experimaestro_hpc.resources import (
    ResourceError,
    Resources,
    format_duration,
    format_memory,
    parse_duration,
    parse_memory,
)

K, M, G, T = 1024, 1024**2, 1024**3, 1024**4
MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("1K", K),
        ("64G", 64 * G),
        ("64g", 64 * G),
        ("64GB", 64 * G),
        ("64gb", 64 * G),
        ("64GiB", 64 * G),
        ("64 GiB", 64 * G),
        (" 512M\n", 512 * M),
        ("1.5T", 1536 * G),
        ("0.5K", 512),
        ("0.3K", 308),  # 307.2, rounded up
        ("00064M", 64 * M),
        ("1048576T", 1 << 60),
    ],
)
def test_parse_memory(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "nothing is not an amount of memory"),
        ("64", "'64' has no unit of memory"),
        ("0", "'0' has no unit of memory"),
        ("0G", "'0G' is not from 1B to 1048576T"),
        ("1048577T", "'1048577T' is not from 1B to 1048576T"),
        ("99999999999999999999T", "'99999999999999999999T' is not from 1B to 1048576T"),
        ("9" * 5000 + "G", "'9999999999999999999999999999999999999...' is not an amount of memory"),
        ("-4G", "'-4G' is not an amount of memory"),
        ("G", "'G' is not an amount of memory"),
        ("nan", "'nan' is not an amount of memory"),
        ("4X", "unknown unit of memory 'X'"),
        ("1e9", "unknown unit of memory 'e9'"),
        ("4G 2M", "'4G 2M' is not an amount of memory"),
        ("\N{ARABIC-INDIC DIGIT FOUR}G", "'\N{ARABIC-INDIC DIGIT FOUR}G' is not an amount of memory"),
        (64, "a value of type int is not understood"),
        (None, "a value of type NoneType is not understood"),
    ],
)
def test_parse_memory_refuses(text, what):
    with pytest.raises(ResourceError) as caught:
        parse_memory(text)
    assert caught.value.what == what
    assert caught.value.where == "memory"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("90m", 90 * MINUTE),
        ("1.5h", 90 * MINUTE),
        ("1.1h", 3960),
        ("0.1s", 1),
        ("2d", 2 * DAY),
        ("2 days", 2 * DAY),
        ("4\N{NO-BREAK SPACE}days", 4 * DAY),
        ("1 Week", 7 * DAY),
        ("1h30m", 90 * MINUTE),
        ("1 hour 30 mins", 90 * MINUTE),
        ("1d12h", 36 * HOUR),
        ("1w2d3h4m5s", 9 * DAY + 3 * HOUR + 4 * MINUTE + 5),
        ("90M", 90 * MINUTE),
        # as Slurm reads them
        ("90", 90 * MINUTE),
        ("24:00", 24 * MINUTE),
        ("90:00", 90 * MINUTE),
        ("24:00:00", 24 * HOUR),
        ("100:00:00", 100 * HOUR),
        ("2:00:00", 2 * HOUR),
        ("1-12", 36 * HOUR),
        ("1-12:00", 36 * HOUR),
        ("1-12:00:00", 36 * HOUR),
        ("0-00:00:01", 1),
        ("3650d", 3650 * DAY),
        *((f"2 {unit}", 2) for unit in ("s", "sec", "secs", "second", "seconds")),
        *((f"2 {unit}", 2 * MINUTE) for unit in ("m", "min", "mins", "minute", "minutes")),
        *((f"2 {unit}", 2 * HOUR) for unit in ("h", "hr", "hrs", "hour", "hours")),
        *((f"2 {unit}", 2 * DAY) for unit in ("d", "day", "days")),
        *((f"2 {unit}", 14 * DAY) for unit in ("w", "week", "weeks")),
    ],
)
def test_parse_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "nothing is not a duration"),
        ("0", "'0' is not from 1 second to 3650d"),
        ("0h", "'0h' is not from 1 second to 3650d"),
        ("00:00:00", "'00:00:00' is not from 1 second to 3650d"),
        ("3651d", "'3651d' is not from 1 second to 3650d"),
        ("999999999", "'999999999' is not from 1 second to 3650d"),
        ("-1h", "'-1h' is not a duration"),
        ("-5", "'-5' is not a duration"),
        ("nan", "'nan' is not a duration"),
        ("inf", "'inf' is not a duration"),
        ("1.5", "'1.5' is not a duration"),
        ("1h30", "'30' is not a duration"),
        ("1h and 30m", "'and 30m' is not a duration"),
        ("2 dayz", "unknown unit of time 'dayz'; did you mean 'day'?"),
        ("3 fortnights", "unknown unit of time 'fortnights'"),
        ("1e9", "unknown unit of time 'e'"),
        ("1h1h", "the units go from the largest to the smallest, each once"),
        ("30m1h", "the units go from the largest to the smallest, each once"),
        ("00:75", "a part of '00:75' is over its clock"),
        ("1-24:00:00", "a part of '1-24:00:00' is over its clock"),
        ("1:2:3:4", "'1:2:3:4' is not a duration"),
        (90, "a value of type int is not understood"),
    ],
)
def test_parse_duration_refuses(text, what):
    with pytest.raises(ResourceError) as caught:
        parse_duration(text)
    assert caught.value.what == what


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1, "1B"),
        (K, "1K"),
        (1536, "1536B"),
        (1536 * M, "1536M"),
        (64 * G, "64G"),
        (2048 * T, "2048T"),
    ],
)
def test_format_memory(size, text):
    assert format_memory(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00:00"),
        (5400, "01:30:00"),
        (DAY - 1, "23:59:59"),
        (DAY, "1-00:00:00"),
        (36 * HOUR, "1-12:00:00"),
        (100 * DAY + 1, "100-00:00:01"),
    ],
)
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu", Resources(gpus=1)),
        ("gpu()", Resources(gpus=1)),
        ("gpu * 2", Resources(gpus=2)),
        ("2 * gpu", Resources(gpus=2)),
        ("gpu*2", Resources(gpus=2)),
        ("cuda(mem=24GiB) * 2", Resources(gpus=2, gpu_memory=24 * G)),
        ("2*cuda(mem=24 G)", Resources(gpus=2, gpu_memory=24 * G)),
        ("gpu(model=a100)", Resources(gpus=1, gpu_model="a100")),
        ("gpu(model=any)", Resources(gpus=1, gpu_model="any")),
        (
            "gpu(model=Tesla  V100-SXM2-32GB, mem=32G)",
            Resources(gpu_model="Tesla V100-SXM2-32GB", gpu_memory="32G"),
        ),
        ("cpu(cores=8)", Resources(cores=8)),
        ("cpu(cores=8, mem=64G)", Resources(cores=8, memory=64 * G)),
        ("cpu(mem=64G,cores=8,)", Resources(cores=8, memory=64 * G)),
        ("cores=8 & mem=64G", Resources(cores=8, memory=64 * G)),
        ("cpu(cores=8) & mem=64G", Resources(cores=8, memory=64 * G)),
        ("duration=2 days", Resources(duration=2 * DAY)),
        ("duration = 24:00", Resources(duration=24 * MINUTE)),
        ("nodes=2 & tasks_per_node=4", Resources(nodes=2, tasks_per_node=4)),
        ("nodes=1", Resources(nodes=1)),
        ("any", Resources()),
        ("any & cores=2", Resources(cores=2)),
        ("gpu | any", Resources(gpus=1, alternatives=[Resources()])),
        ("\n  gpu\n  & cores=2\t", Resources(gpus=1, cores=2)),
        (
            "gpu(mem=24G, model=a100) * 2 & cpu(cores=8, mem=64G) & duration=1.5h & nodes=1"
            " | cpu(cores=32) & duration=2h",
            Resources(
                gpus=2,
                gpu_memory=24 * G,
                gpu_model="a100",
                cores=8,
                memory=64 * G,
                duration=5400,
                nodes=1,
                alternatives=[Resources(cores=32, duration=7200)],
            ),
        ),
        # from the requirements of published experimaestro experiments
        ("duration=4 days & cuda(mem=24G) * 2", Resources(duration=4 * DAY, gpus=2, gpu_memory=24 * G)),
        ("duration=1h & cuda(mem=4G)*1 & cpu(cores=4)", Resources(duration=3600, gpu_memory="4G", cores=4)),
    ],
)
def test_parse(text, expected):
    assert Resources.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("gpu | cores=2 | any", ["gpu", "cpu(cores=2)", "any"]),
        ("gpu & cores=1 | cores=2", ["gpu & cpu(cores=1)", "cpu(cores=2)"]),
        (
            "(cpu(cores=4) | cpu(cores=2)) & duration=1h",
            ["cpu(cores=4) & duration=1h", "cpu(cores=2) & duration=1h"],
        ),
        ("duration=1h & (gpu | cores=2)", ["gpu & duration=1h", "cpu(cores=2) & duration=1h"]),
        (
            "(gpu | gpu * 2) & (cores=1 | cores=2)",
            ["gpu & cpu(cores=1)", "gpu & cpu(cores=2)", "gpu * 2 & cpu(cores=1)", "gpu * 2 & cpu(cores=2)"],
        ),
        ("((gpu))", ["gpu"]),
        ("(gpu | (cores=2 | nodes=2)) | nodes=3", ["gpu", "cpu(cores=2)", "nodes=2", "nodes=3"]),
        ("(" * 50 + "gpu" + ")" * 50, ["gpu"]),
    ],
)
def test_choices(text, choices):
    parsed = Resources.parse(text)
    assert [str(choice) for choice in parsed.choices] == choices
    assert all(choice.alternatives == () for choice in parsed.choices)
    assert str(parsed) == " | ".join(choices)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gpus * 2 & duration=10m",
            """
            resources: unknown word 'gpus'; did you mean 'gpu'?
              gpus * 2 & duration=10m
              ^
            """,
        ),
        (
            "gpu(memory=24G)",
            """
            resources: unknown word 'memory'; did you mean 'mem'?
              gpu(memory=24G)
                  ^
            """,
        ),
        (
            "gpu & walltime=2h",
            """
            resources: unknown word 'walltime'
              gpu & walltime=2h
                    ^
              known here: gpu, cuda, cpu, any, cores, mem, duration, nodes, tasks_per_node
            """,
        ),
        (
            "GPU * 2",
            """
            resources: unknown word 'GPU'; did you mean 'gpu'?
              GPU * 2
              ^
            """,
        ),
        (
            "",
            """
            resources: expected one of gpu, cuda, cpu, any, cores, mem, duration, nodes, tasks_per_node, found nothing
            """,
        ),
        (
            "gpu & duration=2 dayz",
            """
            resources: unknown unit of time 'dayz'; did you mean 'day'?
              gpu & duration=2 dayz
                               ^
            """,
        ),
        (
            "gpu &\n\t\x1b[31m",
            """
            resources: unknown word '\\x1b[31m'
              gpu &   [31m
                     ^
              known here: gpu, cuda, cpu, any, cores, mem, duration, nodes, tasks_per_node
            """,
        ),
        (
            "nodes=1 & " * 20 + "gpu",
            """
            resources: nodes is said twice
              nodes=1 & nodes=1 & nodes=1 & nodes=1 & nodes=1 & nodes=1 & nodes=1 & ...
                        ^
            """,
        ),
        (
            "any & " * 50 + "oops" + " & any" * 50,
            """
            resources: unknown word 'oops'
              ...any & any & any & any & any & any & any & any & any & any & oops & any & any & any & any & any & any & any & any & any &...
                                                                             ^
              known here: gpu, cuda, cpu, any, cores, mem, duration, nodes, tasks_per_node
            """,  # noqa: E501
        ),
    ],
)
def test_message(text, message):
    lines = message.strip("\n").splitlines()[:-1]
    with pytest.raises(ResourceError) as caught:
        Resources.parse(text)
    assert str(caught.value).splitlines() == [line[12:] for line in lines]


@pytest.mark.parametrize(
    ("text", "column", "what"),
    [
        ("  ", 2, "found nothing"),
        ("&&", 0, "found '&'"),
        ("|", 0, "found '|'"),
        ("gpu &", 5, "found nothing"),
        ("gpu | & cores=1", 6, "found '&'"),
        ("gpu cores=1", 4, "expected '&' or '|', found 'cores'"),
        ("(gpu", 0, "this '(' is never closed"),
        ("gpu & ((cores=2) | any", 6, "this '(' is never closed"),
        ("gpu(mem=2G", 3, "this '(' is never closed"),
        ("gpu)", 3, "expected '&' or '|', found ')'"),
        ("()", 1, "found ')'"),
        ("(gpu) * 2", 6, "expected '&' or '|', found '*'"),
        ("2 * (gpu)", 4, "expected 'gpu', found '('"),
        ("2 * cpu(cores=1)", 4, "expected 'gpu', found 'cpu'"),
        ("2 gpu", 2, "expected '*', found 'gpu'"),
        ("gpu *", 5, "expected a number, found nothing"),
        ("gpu * -1", 6, "'-1' is not a whole number from 1 to 1000000"),
        ("gpu * 0", 6, "'0' is not a whole number from 1 to 1000000"),
        ("0 * gpu", 0, "'0' is not a whole number from 1 to 1000000"),
        ("-1 * gpu", 0, "'-1' is not a whole number from 1 to 1000000"),
        ("gpu * 1e9", 6, "'1e9' is not a whole number from 1 to 1000000"),
        ("gpu * 1.5", 6, "'1.5' is not a whole number from 1 to 1000000"),
        ("gpu * nan", 6, "'nan' is not a whole number from 1 to 1000000"),
        ("gpu * 1000001", 6, "'1000001' is not a whole number from 1 to 1000000"),
        ("gpu * " + "9" * 10_000, 6, "is not a whole number from 1 to 1000000"),
        ("gpu * ²", 6, "'²' is not a whole number from 1 to 1000000"),
        ("2 * gpu * 2", 8, "the number of GPUs is said once, as in 'gpu * 2'"),
        ("gpu * 2 * 2", 8, "expected '&' or '|', found '*'"),
        ("gpu = 2", 4, "the number of GPUs is said once, as in 'gpu * 2'"),
        ("cpu", 3, "expected '(', found nothing"),
        ("cpu(cores)", 9, "expected '=', found ')'"),
        ("cpu(cores=)", 10, "expected a value, found ')'"),
        ("cpu(cores=2 mem=4G)", 10, "'2 mem' is not a whole number from 1 to 1000000"),
        ("cpu(,)", 4, "expected one of cores, mem, found ','"),
        ("cpu(model=a100)", 4, "unknown word 'model'"),
        ("cores==2", 6, "expected a value, found '='"),
        ("mem=64", 4, "'64' has no unit of memory"),
        ("gpu(mem=24Q)", 10, "unknown unit of memory 'Q'"),
        ("duration=0", 9, "'0' is not from 1 second to 3650d"),
        ("duration=-1h", 9, "'-1h' is not a duration"),
        ("duration=nan", 9, "'nan' is not a duration"),
        ("duration=1h gpu", 12, "'gpu' is not a duration"),
        ("nodes=0", 6, "'0' is not a whole number from 1 to 1000000"),
        ("gpu & gpu", 6, "gpus is said twice"),
        ("gpu * 2 & cuda", 10, "gpus is said twice"),
        ("cpu(cores=2, cores=2)", 13, "cores is said twice"),
        ("cpu(cores=2) & cores=2", 15, "cores is said twice"),
        ("mem=2G & cpu(mem=2G)", 9, "memory is said twice"),
        ("(gpu | cores=2) & cores=4", 18, "cores is said twice"),
        ("duration=1h & duration=1h", 14, "duration is said twice"),
        ('gpu(model="a100")', 10, "'\"a100\"' is not a GPU model"),
        ("gpu(model=$USER)", 10, "'$USER' is not a GPU model"),
        ("gpu(model=-x)", 10, "'-x' is not a GPU model"),
        ("gpu(model=a:100)", 10, "'a:100' is not a GPU model"),
        ("gpu(model=" + "a" * 65 + ")", 10, "is not a GPU model"),
        ("élan", 0, "unknown word 'élan'"),
        ("gpu\x00", 0, "unknown word 'gpu\\x00'; did you mean 'gpu'?"),
        ("(" * 51 + "gpu" + ")" * 51, 51, "more than 50 parentheses within each other"),
        (" | ".join(["gpu"] * 101), 600, "more than 100 alternatives"),
        ("(gpu|any)&" + "&".join(["(any|any)"] * 6), 60, "more than 100 alternatives"),
    ],
)
def test_parse_refuses(text, column, what):
    with pytest.raises(ResourceError) as caught:
        Resources.parse(text)
    assert caught.value.what.endswith(what)
    if text.strip():
        shown, caret = caught.value.hint.splitlines()[:2]
        dots = shown.startswith("...") and 3
        assert caret.index("^") == (min(column, 60) + dots)


@pytest.mark.parametrize(
    "unit", ["(", "&", "gpu|", "any&", "x", "9", " ", "\n", "gpu*", "duration=1h ", "=", "é", "(any|any)&"]
)
@pytest.mark.parametrize("size", [39_998, 1_000_000])
def test_hostile_length(unit, size):
    text = (unit * (size // len(unit) + 1))[:size]
    start = time.process_time()
    for parse in (Resources.parse, parse_memory, parse_duration):
        with pytest.raises(ResourceError) as caught:
            parse(text)
        assert len(str(caught.value)) < 500
    assert time.process_time() - start < 2


def test_joining_many_alternatives_many_times():
    start = time.process_time()
    assert len(Resources.parse("(" + "|".join(["gpu"] * 100) + ")" + "&any" * 9_800).choices) == 100
    assert time.process_time() - start < 4


def test_longest_text_is_read_back():
    one = Resources(
        gpus=10**6,
        gpu_memory=2**60 - 1,
        gpu_model="x" * 64,
        cores=10**6,
        memory=2**60 - 1,
        duration=3650 * DAY - 1,
        nodes=10**6,
        tasks_per_node=10**6,
    )
    most = replace(one, alternatives=(one,) * 99)
    assert len(str(most)) < 30_000
    assert Resources.parse(str(most)) == most


@pytest.mark.parametrize("value", [3, None, b"gpu", ["gpu"], {"gpus": 1}, 1.5])
def test_parse_refuses_types(value):
    with pytest.raises(ResourceError, match="is not understood"):
        Resources.parse(value)


def test_parse_gives_resources_back():
    resources = Resources(gpus=2)
    assert Resources.parse(resources) is resources


def test_keywords():
    by_text = Resources(gpus=2, gpu_memory="24G", gpu_model="a100", cores=8, memory="64G", duration="1h30m", nodes=1)
    by_number = Resources(gpus=2, gpu_memory=24 * G, gpu_model="a100", cores=8, memory=64 * G, duration=5400, nodes=1)
    assert by_text == by_number
    assert hash(by_text) == hash(by_number)
    assert by_text.memory == 64 * G
    assert by_text.duration == 5400
    assert by_text.tasks_per_node is None


@pytest.mark.parametrize(
    ("keywords", "what"),
    [
        ({"gpus": 0}, "gpus: '0' is not a whole number from 1 to 1000000"),
        ({"gpus": -1}, "gpus: '-1' is not a whole number from 1 to 1000000"),
        ({"nodes": 0}, "nodes: '0' is not a whole number from 1 to 1000000"),
        ({"cores": 10**5000}, "cores: 'a huge number' is not a whole number from 1 to 1000000"),
        ({"cores": True}, "cores: a value of type bool is not understood"),
        ({"cores": 1.5}, "cores: a value of type float is not understood"),
        ({"cores": [1]}, "cores: a value of type list is not understood"),
        ({"cores": "many"}, "cores: 'many' is not a whole number from 1 to 1000000"),
        ({"memory": "64"}, "memory: '64' has no unit of memory"),
        ({"memory": 0}, "memory: '0B' is not from 1B to 1048576T"),
        ({"memory": 2**60 + 1}, "memory: '1152921504606846977B' is not from 1B to 1048576T"),
        ({"gpu_memory": float("nan")}, "gpu_memory: a value of type float is not understood"),
        ({"gpu_model": ""}, "gpu_model: nothing is not a GPU model"),
        ({"gpu_model": "a\nb;"}, "gpu_model: 'a\\nb;' is not a GPU model"),
        ({"duration": -5}, "duration: '-5s' is not a duration"),
        ({"duration": 0}, "duration: '0s' is not from 1 second to 3650d"),
        ({"alternatives": [3]}, "resources: a value of type int is not understood"),
        ({"alternatives": [Resources()] * 100}, "resources: more than 100 alternatives"),
    ],
)
def test_keywords_refused(keywords, what):
    with pytest.raises(ResourceError) as caught:
        Resources(**keywords)
    assert str(caught.value).splitlines()[0] == what


def test_integers_of_other_libraries():
    class Integer:
        def __index__(self):
            return 4

    assert Resources(cores=Integer(), duration=Integer()) == Resources(cores=4, duration=4)


@pytest.mark.parametrize("keywords", [{"gpu_memory": "24G"}, {"gpu_model": "a100"}])
def test_kind_of_gpu_without_number_is_one_gpu(keywords):
    assert Resources(**keywords) == Resources(gpus=1, **keywords)


@pytest.mark.parametrize(
    ("resources", "gpus", "nodes"),
    [(Resources(), 0, 1), (Resources(gpus=2), 2, 1), (Resources(nodes=3), 0, 3)],
)
def test_effective_counts(resources, gpus, nodes):
    assert (resources.gpu_count, resources.node_count) == (gpus, nodes)


@pytest.mark.parametrize(
    ("left", "right", "both"),
    [
        ("gpu * 2", "cores=4", "gpu * 2 & cpu(cores=4)"),
        ("cores=2 & mem=4G", "cores=4", "cpu(cores=4, mem=4G)"),
        ("nodes=2", "nodes=1", "nodes=1"),
        ("nodes=2", "any", "nodes=2"),
        ("any", "nodes=2", "nodes=2"),
        ("gpu(mem=24G) * 2", "gpu * 4", "gpu(mem=24G) * 4"),
        ("gpu | cores=2", "duration=1h", "gpu & duration=1h | cpu(cores=2) & duration=1h"),
        ("duration=1h", "gpu | cores=2", "gpu & duration=1h | cpu(cores=2) & duration=1h"),
        ("gpu | any", "cores=1 | cores=2", "gpu & cores=1 | gpu & cores=2 | cores=1 | cores=2"),
    ],
)
def test_and(left, right, both):
    a, b = Resources.parse(left), Resources.parse(right)
    assert a & b == Resources.parse(both)
    assert a & right == a & b
    assert (a, b) == (Resources.parse(left), Resources.parse(right))


@pytest.mark.parametrize(
    ("left", "right", "either"),
    [
        ("gpu", "any", "gpu | any"),
        ("gpu | cores=2", "nodes=2 | nodes=3", "gpu | cores=2 | nodes=2 | nodes=3"),
        ("gpu", "gpu", "gpu | gpu"),
    ],
)
def test_or(left, right, either):
    a, b = Resources.parse(left), Resources.parse(right)
    assert a | b == Resources.parse(either)
    assert a | right == a | b
    assert (a, b) == (Resources.parse(left), Resources.parse(right))


def test_operators_refuse():
    ten = Resources(alternatives=[Resources()] * 10)
    with pytest.raises(ResourceError, match="more than 100 alternatives"):
        ten & ten
    with pytest.raises(ResourceError, match="is not understood"):
        ten | 3


def test_never_changes():
    with pytest.raises(FrozenInstanceError):
        Resources().gpus = 2


@pytest.mark.parametrize("text", ["any", "gpu", "gpu(mem=24G) * 2 & cpu(cores=8) & duration=1h30m | any | nodes=2"])
def test_json(text):
    resources = Resources.parse(text)
    assert Resources.from_json(json.loads(json.dumps(resources.to_json()))) == resources


def test_json_holds_what_was_said():
    data = Resources.parse("gpu(mem=24G) & duration=1h | nodes=2").to_json()
    assert data == {"gpus": 1, "gpu_memory": 24 * G, "duration": 3600, "alternatives": [{"nodes": 2}]}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ([], "expected an object of plain values"),
        (None, "expected an object of plain values"),
        ({"alternatives": None}, "expected an object of plain values"),
        ({"alternatives": ["gpu"]}, "expected an object of plain values"),
        ({"alternatives": [{"alternatives": []}]}, "unknown key"),
        ({"gpu": 2}, "unknown key; did you mean 'gpus'?"),
        ({3: 4}, "a value of type int is not understood"),
        ({"gpus": 0}, "'0' is not a whole number from 1 to 1000000"),
        ({"gpus": 2.0}, "a value of type float is not understood"),
    ],
)
def test_from_json_refuses(data, what):
    with pytest.raises(ResourceError) as caught:
        Resources.from_json(data)
    assert caught.value.what == what


def test_error_is_of_the_family():
    with pytest.raises(XpmError) as caught:
        parse_memory("4X")
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


relaxed = settings(deadline=None)  # a busy machine is not a failure
counts = st.none() | st.integers(1, 1_000_000)
sizes = st.none() | st.integers(1, 1 << 60)
models = st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}( [A-Za-z0-9._+-]{1,20})?", fullmatch=True)
singles = st.builds(
    Resources,
    gpus=counts,
    gpu_memory=sizes,
    gpu_model=models,
    cores=counts,
    memory=sizes,
    duration=st.none() | st.integers(1, 3650 * DAY),
    nodes=counts,
    tasks_per_node=counts,
)
several = st.builds(
    lambda one, others: replace(one, alternatives=others), singles, st.lists(singles, max_size=3).map(tuple)
)


@relaxed
@given(several)
def test_text_is_read_back(resources):
    assert Resources.parse(str(resources)) == resources
    assert eval(repr(resources), {"Resources": Resources}) == resources  # noqa: S307
    assert pickle.loads(pickle.dumps(resources)) == resources  # noqa: S301


@relaxed
@given(several)
def test_json_is_read_back(resources):
    assert Resources.from_json(json.loads(json.dumps(resources.to_json()))) == resources


@relaxed
@given(several, several, several)
def test_and_is_associative(a, b, c):
    assert (a & b) & c == a & (b & c)
    assert a & Resources() == a == Resources() & a


@relaxed
@given(st.integers(1, 1 << 60))
def test_memory_is_read_back(size):
    assert parse_memory(format_memory(size)) == size


@relaxed
@given(st.integers(1, 3650 * DAY))
def test_duration_is_read_back(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


pieces = [
    "gpu",
    "cuda",
    "cpu",
    "any",
    "cores",
    "mem",
    "duration",
    "nodes",
    "model",
    "2",
    "4G",
    "1h",
    *"()&|*,=",
    " ",
    "é",
]


@relaxed
@given(st.lists(st.sampled_from(pieces), max_size=30).map("".join) | st.text(max_size=50))
def test_any_text_is_read_or_refused(text):
    for parse in (Resources.parse, parse_memory, parse_duration):
        try:
            found = parse(text)
        except ResourceError as error:
            assert str(error)
        else:
            assert parse is not Resources.parse or Resources.parse(str(found)) == found


def test_import_is_light():
    """Nothing but the standard library, and no difflib before there is an error."""
    code = "import sys, experimaestro_hpc.resources; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "difflib" not in loaded
    ours = {name for name in loaded if name.startswith("experimaestro_hpc")}
    assert ours == {"experimaestro_hpc", "experimaestro_hpc.errors", "experimaestro_hpc.resources"}
