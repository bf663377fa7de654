"""Launcher files: what is read, what is refused and how, which file a name means, which partition fits."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import tomllib
from hypothesis import given
from hypothesis import strategies as st

from experimaestro_hpc.driver import data as data_module
from experimaestro_hpc.driver.data import shipped_data
from experimaestro_hpc.driver.fit import choose_partition
from experimaestro_hpc.driver.launcher import Connector, Environment, Gpus, Launcher, Mirror, Partition, parse_launcher
from experimaestro_hpc.driver.launchers import find_launcher, known_launchers, shipped_dir, user_dir
from experimaestro_hpc.driver.toml_lines import KeyPath, key_lines, line_of
from experimaestro_hpc.errors import LauncherError, XpmError
from experimaestro_hpc.resources import ResourceError, Resources

G = 1024**3
FILE = Path("mycluster.toml")

COMPLETE = """\
scheduler = "slurm"               # local | slurm | oar
workdir = "~/xpm"                 # on the cluster; ~ and $VARS are expanded there

[connector]
type = "ssh"                      # local | ssh
host = "mycluster"                # looked up in ~/.ssh/config: user, port, keys, ProxyJump
transport = "auto"                # auto | paramiko | openssh

[environment]
python = "python3"                # runs the tasks on the nodes
setup = ["module load cuda/12"]   # shell lines before every task
env = { OMP_NUM_THREADS = "8" }

[defaults]                        # the scheduler's own options, by their own names
partition = "cpu"
time = "10:00"

[[partitions]]                    # what may be asked of each; the first that fits is chosen
name = "gpu"
max_time = "2:00:00"
cores = 16
memory = "64G"
gpus = { type = "h100", count = 4, memory = "80G" }
nodes = 3

[mirror]
pull = ["*.json", "metrics/**"]   # beside logs and records, what comes back by itself
max_pull = "10M"                  # larger files stay on the cluster
nodes = "staged"                  # shared | staged
scratch = "$SCRATCH"              # for "staged"
"""


def parse(text: str, path: Path = FILE) -> Launcher:
    return parse_launcher(text, name=path.stem, path=path)


# --- What is read


def test_a_complete_file() -> None:
    assert parse(COMPLETE) == Launcher(
        name="mycluster",
        scheduler="slurm",
        workdir="~/xpm",
        connector=Connector("ssh", "mycluster", "auto"),
        environment=Environment("python3", ("module load cuda/12",), {"OMP_NUM_THREADS": "8"}),
        defaults={"partition": "cpu", "time": "10:00"},
        partitions=(Partition("gpu", 7200, 16, 64 * G, Gpus("h100", 4, 80 * G), 3),),
        mirror=Mirror(("*.json", "metrics/**"), 10 * 1024**2, "staged", "$SCRATCH"),
        path=FILE,
        slots=None,
    )


def test_the_smallest_file() -> None:
    assert parse('scheduler = "oar"') == Launcher(name="mycluster", scheduler="oar", path=FILE)
    assert Mirror().max_pull == 52428800


@pytest.mark.parametrize(
    ("lines", "get", "expected"),
    [
        ("slots = 3", lambda it: it.slots, 3),
        ('workdir = ""', lambda it: it.workdir, ""),
        ('workdir = "/a b/$(c)\'é"', lambda it: it.workdir, "/a b/$(c)'é"),
        ('connector.type = "local"\nconnector.host = "unused"', lambda it: it.connector.type, "local"),
        ("defaults.n = 1", lambda it: it.defaults, {"n": 1}),
        ("defaults.n = 1.5", lambda it: it.defaults, {"n": 1.5}),
        ("defaults.exclusive = true", lambda it: it.defaults, {"exclusive": True}),
        (
            'defaults.t = ["besteffort", "idempotent"]',
            lambda it: it.defaults,
            {"t": ["besteffort", "idempotent"]},
        ),
        ("defaults.t = []", lambda it: it.defaults, {"t": []}),
        ('defaults.cpus-per-task = "2"', lambda it: it.defaults, {"cpus-per-task": "2"}),
        ('[environment]\nsetup = ["""a\nb"""]', lambda it: it.environment.setup, ("a\nb",)),
        ('[environment.env]\nA = ""\n_b1 = "x\\ny"', lambda it: it.environment.env, {"A": "", "_b1": "x\ny"}),
        ('[[partitions]]\nname = "a"\ngpus = { count = 0 }', lambda it: it.partitions[0].gpus, None),
        ('[[partitions]]\nname = "a"', lambda it: it.partitions, (Partition("a"),)),
        (
            'partitions = [{ name = "a" }, { name = "b" }]',
            lambda it: [p.name for p in it.partitions],
            ["a", "b"],
        ),
        ("[mirror]", lambda it: it.mirror, Mirror()),
        ('template = "site.sh.j2"', lambda it: it.template, "site.sh.j2"),
        (
            '[[partitions]]\nname = "a"\n[partitions.options]\nqos = "long"\npartition = false\nt = ["x"]',
            lambda it: it.partitions[0].options,
            {"qos": "long", "partition": False, "t": ["x"]},
        ),
        ('[[partitions]]\nname = "a"\noptions = { n = 2 }', lambda it: it.partitions[0].options, {"n": 2}),
    ],
)
def test_values(lines: str, get: Any, expected: object) -> None:
    found = get(parse('scheduler = "local"\n' + lines))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "host",
    [
        *("h", "u@h", "h.example.org", "h:22", "u@h:65535", "ssh://h", "ssh://u@h:2222", "ssh://u@h:2222/", "ssh://h/"),
        *("::1", "u@fe80::1", "ssh://u@[::1]:22", "realm@u@h", "müller@höst", "site/login"),
    ],
)
def test_hosts(host: str) -> None:
    assert parse(SSH + f"host = '{host}'").connector.host == host


def test_a_launcher_is_frozen() -> None:
    with pytest.raises(AttributeError):
        parse(COMPLETE).workdir = "elsewhere"  # type: ignore[misc]


# --- What is refused. Each: the text, the line that is named, and all of the message after that

LOCAL = 'scheduler = "local"\n'
SSH = 'scheduler = "slurm"\nworkdir = "w"\n[connector]\ntype = "ssh"\n'
PART = LOCAL + '[[partitions]]\nname = "gpu"\n'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        # unknown keys
        (
            LOCAL + "\n\n\n\n\n[[partitons]]",
            7,
            "unknown key 'partitons' in the launcher; did you mean 'partitions'?",
        ),
        (LOCAL + "WorkDir = 1", 2, "unknown key 'WorkDir' in the launcher; did you mean 'workdir'?"),
        (
            LOCAL + "zzz = 1",
            2,
            "unknown key 'zzz' in the launcher; known: scheduler, workdir, connector, "
            "environment, defaults, partitions, mirror, processes, slots, template",
        ),
        (LOCAL + "host = 1", 2, "unknown key 'host' in the launcher; it belongs in [connector]"),
        (
            "[connector]\nscheduler = 'local'",
            None,
            "key 'scheduler' is missing in the launcher: write one of local, slurm, oar",
        ),
        (
            LOCAL + "[connector]\nworkdir = 'w'",
            3,
            "unknown key 'workdir' in [connector]; it belongs at the top of the file, before the first [table]",
        ),
        (
            LOCAL + "[environment]\npyton = ''",
            3,
            "unknown key 'pyton' in [environment]; did you mean 'python'?",
        ),
        (
            LOCAL + "mirror.node = ''",
            2,
            "unknown key 'node' in [mirror]; did you mean 'nodes'?",
        ),
        (
            PART + "[[partitions]]\nname = 'b'\n\ncore = 3",
            7,
            "unknown key 'core' in [[partitions]]; did you mean 'cores'?",
        ),
        (
            PART + "gpus = { count = 1, modle = '' }",
            4,
            "unknown key 'modle' in gpus of partition 'gpu'; known: type, count, memory",
        ),
        (
            PART + "[partitions.gpus]\ncount = 1\ntyp = ''",
            6,
            "unknown key 'typ' in gpus of partition 'gpu'; did you mean 'type'?",
        ),
        # unknown words
        ("scheduler = 'slrum'", 1, "unknown scheduler 'slrum' in the launcher; did you mean 'slurm'?"),
        ("scheduler = 'SLURM'", 1, "unknown scheduler 'SLURM' in the launcher; did you mean 'slurm'?"),
        (
            "scheduler = 'pbs'",
            1,
            "unknown scheduler 'pbs' in the launcher; known: local, slurm, oar",
        ),
        (
            LOCAL + "connector = { type = 'shs' }",
            2,
            "unknown type 'shs' in [connector]; did you mean 'ssh'?",
        ),
        (
            SSH + "host = 'h'\ntransport = 'paramico'",
            6,
            "unknown transport 'paramico' in [connector]; did you mean 'paramiko'?",
        ),
        (LOCAL + "mirror.nodes = ''", 2, "unknown nodes '' in [mirror]; known: shared, staged"),
        # wrong types
        (
            "scheduler = 1",
            1,
            "'scheduler' in the launcher must be text, not the number 1\n  write it in quotes: scheduler = \"1\"",
        ),
        (LOCAL + "workdir = true", 2, "'workdir' in the launcher must be text, not true"),
        (LOCAL + "workdir = 1979-05-27", 2, "'workdir' in the launcher must be text, not a date or a time"),
        (LOCAL + "slots = true", 2, "'slots' in the launcher must be a whole number, not true"),
        (LOCAL + "slots = 2.0", 2, "'slots' in the launcher must be a whole number, not the number 2.0"),
        (LOCAL + "slots = 0", 2, "'slots' in the launcher must be 1 or more, not the number 0"),
        (
            LOCAL + "slots = '4'",
            2,
            "'slots' in the launcher must be a whole number, not the text '4'\n  write it without quotes: slots = 4",
        ),
        (
            LOCAL + "slots = 0x" + "f" * 5000,
            2,
            "'slots' in the launcher must be a whole number, not such a number",
        ),
        (
            LOCAL + "[[connector]]",
            2,
            "'connector' in the launcher must be a table, not a list\n"
            "  write [connector], with its keys on the next lines",
        ),
        (
            LOCAL + "[partitions]\nname = 'a'",
            2,
            "'partitions' in the launcher must be a list of tables, not a table\n"
            "  write [[partitions]], with two brackets, before each of them",
        ),
        (
            PART + "gpus = 4",
            4,
            "'gpus' in [[partitions]] must be a table, not the number 4\n  write gpus = { KEY = VALUE }",
        ),
        (
            LOCAL + "[environment]\nsetup = 'module load x'",
            3,
            "'setup' in [environment] must be a list of texts, not the text 'module load x'\n"
            '  write it in brackets: setup = ["…"]',
        ),
        (
            LOCAL + "[environment]\nsetup = [\n  'a', # 1\n  2,\n]",
            5,
            "'setup' in [environment] must hold texts only, not the number 2",
        ),
        (
            LOCAL + "[environment]\nenv = { A = '1',  B = 8 }",
            3,
            "'B' in env in [environment] must be text, not the number 8\n  write it in quotes: B = \"8\"",
        ),
        (
            LOCAL + "[environment.env]\nA = '1'\n1B = '2'",
            4,
            "'1B' in env in [environment] is not the name of an environment variable\n"
            "  letters, digits and '_', and no digit first",
        ),
        # the scheduler's options
        (
            LOCAL + "[defaults]\n--partition = 'x'",
            3,
            "'--partition' in [defaults] is not the name of a scheduler's option\n"
            "  letters, digits, '-' and '_'; without the dashes before it: partition, not --partition",
        ),
        (
            LOCAL + "[defaults]\n'a b' = 'x'",
            3,
            "'a b' in [defaults] is not the name of a scheduler's option\n"
            "  letters, digits, '-' and '_'; without the dashes before it: partition, not --partition",
        ),
        (
            LOCAL + "[defaults]\na.b = 'x'",
            3,
            "'a' in [defaults] must be text, a number, true, false or a list of texts, not a table",
        ),
        (
            LOCAL + "[defaults]\nnice = inf",
            3,
            "'nice' in [defaults] must be text, a number, true, false or a list of texts, not such a number",
        ),
        (
            LOCAL + "[defaults]\ncomment = '''a\nb'''",
            3,
            "'comment' in [defaults] holds a line break or another control character",
        ),
        (
            LOCAL + "[defaults]\nt = ['a',\n'''b\nc''']",
            4,
            "'t' in [defaults] holds a line break or another control character",
        ),
        (LOCAL + '[defaults]\nt = "a\\u0000"', 3, "'t' in [defaults] holds a NUL character"),
        (
            LOCAL + '[environment.env]\nA = "\\u0000"',
            3,
            "'A' in env in [environment] holds a NUL character",
        ),
        (
            LOCAL + '[environment]\nsetup = ["\\u0000"]',
            3,
            "'setup' in [environment] holds a NUL character",
        ),
        # missing, and not together
        ("", None, "key 'scheduler' is missing in the launcher: write one of local, slurm, oar"),
        (SSH, 3, "key 'host' is missing in [connector]: ssh needs one"),
        (
            SSH.replace('workdir = "w"', "") + "host = 'h'",
            4,
            "key 'workdir' is missing in the launcher: with an ssh connector it says where on the cluster to work",
        ),
        (
            LOCAL + "[connector]\nhost = 'h'",
            3,
            "'host' is given in [connector] but no 'type'\n  add type = \"ssh\"",
        ),
        *(
            (
                SSH + f"host = '{host}'",
                5,
                "'host' in [connector] must be a host name that ssh knows, user@host, or ssh://user@host:port,"
                f" not the text '{host}'",
            )
            for host in (
                *("-oProxyCommand=x", "a b", "u@h:abc", "h:", "h:0", "ssh://h:65536", "h:-1", "h:" + "1" * 9),
                *("u@", "@h", "u@:22", "ssh://", "ssh:///", "ssh://h/x", "ssh://u@h:2222//"),
            )
        ),
        (
            "scheduler = 'oar'\nslots = 2",
            2,
            "'slots' is for scheduler 'local' only; 'oar' counts by itself",
        ),
        (LOCAL + "[environment]\npython = ''", 3, "'python' in [environment] must not be empty"),
        (LOCAL + "[mirror]\nscratch = ' '", 3, "'scratch' in [mirror] must not be empty"),
        (PART + "[[partitions]]\ncores = 1", 4, "key 'name' is missing in [[partitions]]"),
        (PART + "[[partitions]]\nname = 'gpu'", 5, "there is another partition 'gpu' before"),
        (
            PART + "gpus.type = 'h100'",
            4,
            "key 'count' is missing in gpus of partition 'gpu': how many there are on each node",
        ),
        (
            LOCAL + "mirror.pull = ['a', '../b']",
            2,
            "'../b' in 'pull' of [mirror] is not a pattern inside a job directory",
        ),
        (
            LOCAL + "mirror.pull = ['/etc/*']",
            2,
            "'/etc/*' in 'pull' of [mirror] is not a pattern inside a job directory",
        ),
        # quantities: the end of the message is that of resources.py
        (
            PART + "memory = 64",
            4,
            "'memory' in [[partitions]] must be text, not the number 64\n"
            '  write it with its unit, like memory = "64G"',
        ),
        # not TOML
        ("scheduler = 'local'\nslots = \n", 2, "this is not TOML: invalid value"),
        (
            "[connector]\ntype='local'\n\n[connector]\n",
            4,
            "this is not TOML: cannot declare ('connector',) twice",
        ),
        (
            "scheduler = 'local'\nx = [\n1,\n\n",
            3,
            "this is not TOML: invalid value",
        ),
        ("x = " + "[" * 20000, None, "this is not a launcher: it is nested too deep"),
    ],
)
def test_refused(text: str, line: int | None, message: str) -> None:
    with pytest.raises(LauncherError) as caught:
        parse(text)
    place = f"mycluster.toml, line {line}" if line else "mycluster.toml"
    assert str(caught.value) == f"{place}: {message}"


@pytest.mark.parametrize(
    ("line", "beginning"),
    [
        ("memory = '64Q'", "mycluster.toml, line 4: 'memory' in [[partitions]]: "),
        ("max_time = 'soon'", "mycluster.toml, line 4: 'max_time' in [[partitions]]: "),
        (
            "gpus = { count = 1, memory = '' }",
            "mycluster.toml, line 4: 'memory' in gpus of partition 'gpu': ",
        ),
        ("[mirror]\nmax_pull = 'x'", "mycluster.toml, line 5: 'max_pull' in [mirror]: "),
        ("slots = " + "9" * 5000, "mycluster.toml: this is not TOML: "),
    ],
)
def test_refused_in_the_words_of_others(line: str, beginning: str) -> None:
    with pytest.raises(LauncherError) as caught:
        parse(PART + line)
    assert str(caught.value).startswith(beginning)
    assert len(str(caught.value)) > len(beginning)


JUNK = (
    *("1", "-1", "0", "1.5", "nan", "-inf", "true", "1979-05-27", "07:32:00", "0x" + "f" * 4000),
    *('""', '" "', '"x"', '"\\u0000"', '"\\n"', '"-x"', "'''\n[x]\n'''", "'" + "x" * 5000 + "'"),
    *(
        "[]",
        "[[]]",
        "[1]",
        '[""]',
        '["x", true]',
        "[{}]",
        '[{ name = "x" }]',
        "{}",
        "{ a = 1 }",
        '{ a.b = "x" }',
    ),
)


@pytest.mark.parametrize("value", JUNK)
def test_any_value_anywhere_is_read_or_refused_with_its_line(value: str) -> None:
    lines = COMPLETE.splitlines()
    for number, line in enumerate(lines):
        key, is_pair, _ = line.partition(" = ")
        if is_pair:
            text = "\n".join([*lines[:number], f"{key} = {value}", *lines[number + 1 :]])
            try:
                parse(text)
            except LauncherError as error:
                assert re.match(r"mycluster\.toml, line [0-9]+: ", str(error))


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(LauncherError, match=r"mycluster\.toml"):
        parse(text)


def test_a_scheduler_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found = metadata.EntryPoints([metadata.EntryPoint(name="pbs", value="x:Pbs", group="experimaestro_hpc.schedulers")])
    monkeypatch.setattr(metadata, "entry_points", lambda **which: found.select(**which))
    assert parse("scheduler = 'pbs'").scheduler == "pbs"
    with pytest.raises(LauncherError, match=r"unknown scheduler 'pbss' .* did you mean 'pbs'\?"):
        parse("scheduler = 'pbss'")


def test_built_in_schedulers_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "entry_points", None)
    assert parse("scheduler = 'slurm'").scheduler == "slurm"


def test_import_is_light() -> None:
    """Nothing third-party, and of the standard library not what is slow and needed by few."""
    program = "import sys, experimaestro_hpc.driver.launchers, experimaestro_hpc.driver.fit; print(*sys.modules)"
    # -S: nor what the site-packages of this environment load on their own
    command = [sys.executable, "-S", "-c", program]
    repository = Path(__file__).parents[2]
    answer = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    modules = set(answer.stdout.split())
    assert "importlib.metadata" not in modules
    packages = {module.partition(".")[0] for module in modules} - {"__main__"}
    assert packages - sys.stdlib_module_names == {"experimaestro_hpc"}


# --- The lines of keys


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\nb = 2", ("b",), 2),
        ("\n# a = 0\na = 1", ("a",), 3),
        ("[t] # [u]\n\nk = 1", ("t", "k"), 3),
        ("[ t . 'u' ]\nk = 1", ("t", "u", "k"), 2),
        ("[t]\nu.k = 1\nu . m = 2", ("t", "u", "m"), 3),
        ("[t]\nu.k = 1\nu.m = 2", ("t", "u"), 2),
        ("[t.u]\n[t]", ("t",), 1),
        ("[[l]]\n[[l]]\nk = 1", ("l", 1, "k"), 3),
        ("[[l]]\n[[l]]\nk = 1", ("l",), 1),
        ("[[l]]\n[l.t]\n[[l]]\n[l.t]\nk = 1", ("l", 1, "t", "k"), 5),
        ("[[l]]\n[[l.m]]\n[[l.m]]\nk = 1\n[[l]]\n[[l.m]]\nk = 2", ("l", 1, "m", 0, "k"), 7),
        ("[[l]]\n[[l.m]]\n[[l.m]]\nk = 1\n[[l]]\n[[l.m]]\nk = 2", ("l", 0, "m", 1, "k"), 4),
        ("a = [\n1, # ]\n2,\n]\nb = 1", ("a", 1), 3),
        ("a = [\n1, # ]\n2,\n]\nb = 1", ("b",), 5),
        ("a = [ [1], [\n2] ]", ("a", 1, 0), 2),
        ("a = [{ k = 1 },\n{ k = 1, m.n = [\n3] }]", ("a", 1, "m", "n", 0), 3),
        ("a = '''\nb = 1\n'''\nb = 2", ("b",), 4),
        ('a = """\nb = 1\\"""\n"""\nb = 2', ("b",), 4),
        ('a = """x"""""\nb = 2', ("b",), 2),
        ("a = '''x'''''\nb = 2", ("b",), 2),
        ('a = "\\\\"\nb = 2', ("b",), 2),
        ('a = "#"\nb = 2', ("b",), 2),
        ("a = '\\'\nb = 2", ("b",), 2),
        ("a = ''\nb = \"\"\nc = 2", ("c",), 3),
        ('"\\u0061\\"= x" = 1\nb = 2', ('a"= x',), 1),
        ("a = 1979-05-27 07:32:00\r\nb = 2\r\n", ("b",), 2),
        ("a = {}\nb = []\nc = 1", ("c",), 3),
        # a missing key: the innermost table that it would be in
        ("[t]\na = 1", ("t", "missing"), 1),
        ("\n[[l]]\n[[l]]", ("l", 1, "missing", "deeper"), 3),
        ("a = 1", ("missing",), None),
        ("a = 1", (), None),
    ],
)
def test_line_of(text: str, path: KeyPath, line: int | None) -> None:
    tomllib.loads(text)  # else the case itself is wrong
    assert line_of(text, path) == line


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """All values with their paths, containers included."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in pairs:
        yield (*path, key), child
        yield from leaves(child, (*path, key))


LEAVES = (
    '"@{n}@ # ] }} ,"',
    "'@{n}@ \"\\'",
    '"@{n}@ \\" = \\\\"',
    '"""@{n}@\n[no.table]\n# no = "comment"\n\\""" x"""""',
    "'''@{n}@\n[[no]] = 'x'\n'''''",
)
KEYS = ("k{n}", "1-{n}_", '"k {n} = # ] \\" ."', "'[k{n}]\"'", "d{n} . k", '"".\'d{n}\'. "\\u00e9"', "d.k{n}")


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Valid TOML in which every scalar is a text that begins with a number of its own."""
    numbers = itertools.count()

    def one_of(*forms: str) -> str:
        return draw(st.sampled_from(forms)).format(n=next(numbers))

    def value(depth: int) -> str:
        kind = draw(st.sampled_from(["leaf", "leaf", "list", "table"])) if depth else "leaf"
        if kind == "leaf":
            return one_of(*LEAVES)
        size = draw(st.integers(0, 3))
        if kind == "table":
            return "{ " + ", ".join(f"{one_of(*KEYS)} = {value(depth - 1)}" for _ in range(size)) + "}"
        between = draw(st.sampled_from([" ", "\n", " # ], [\n\n"]))
        return "[" + between + "".join(f"{value(depth - 1)}{between},{between}" for _ in range(size)) + "]"

    def pairs() -> str:
        count = draw(st.integers(0, 3))
        return "".join(f"{one_of(*KEYS)}={value(2)}{draw(st.sampled_from(ENDS))}" for _ in range(count))

    text = pairs() + "[[l]]\n"
    for _ in range(draw(st.integers(0, 6))):
        text += one_of("[t{n}]", "[ 't{n}' . u ]", "[[l]]", "[[l.m]]", "[l.t{n}]", '[[l."t{n}"]]') + "\n" + pairs()
    return text


ENDS = ("\n", " # = '''\n", "\n\n", "\r\n")


@given(documents())
def test_every_key_of_any_document_is_found_on_its_line(text: str) -> None:
    found = key_lines(text)
    values = dict(leaves(tomllib.loads(text)))
    assert set(found) == set(values)
    for path, value in values.items():
        if isinstance(value, str):
            mark = re.match("@[0-9]+@", value)
            assert mark and mark[0] in text.split("\n")[found[path] - 1]


# --- Which file a name means


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    shipped, user = tmp_path / "shipped", tmp_path / "user"
    for path in ("shipped/local", "shipped/slurm", "user/slurm", "user/mycluster", "user/.hidden", "other"):
        file = tmp_path / f"{path}.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text('scheduler = "local"\n')
    (user / "notes.txt").touch()
    return shipped, user


@pytest.mark.parametrize(
    ("selector", "environ", "name", "file"),
    [
        (None, {}, "local", "shipped/local.toml"),
        ("", {"XPM_HPC_LAUNCHER": ""}, "local", "shipped/local.toml"),
        (None, {"XPM_HPC_LAUNCHER": "mycluster"}, "mycluster", "user/mycluster.toml"),
        ("local", {"XPM_HPC_LAUNCHER": "mycluster"}, "local", "shipped/local.toml"),
        ("slurm", {}, "slurm", "user/slurm.toml"),
        ("{tmp}/other.toml", {}, "other", "other.toml"),
        (None, {"XPM_HPC_LAUNCHER": "{tmp}/other.toml"}, "other", "other.toml"),
        ("{tmp}/shipped/slurm.toml", {}, "slurm", "shipped/slurm.toml"),
        ("{tmp}/user/.hidden.toml", {}, ".hidden", "user/.hidden.toml"),
        ("other.toml", {}, "other", "other.toml"),
        ("./other.toml", {}, "other", "other.toml"),
        ("~/other.toml", {}, "other", "other.toml"),
    ],
)
def test_find(
    selector: str | None,
    environ: dict[str, str],
    name: str,
    file: str,
    directories: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shipped, user = directories
    selector = selector and selector.format(tmp=tmp_path)
    environ = {key: value.format(tmp=tmp_path) for key, value in environ.items()}
    found = find_launcher(selector, environ=environ, shipped=shipped, user_dir=user)
    assert (found.name, found.path.resolve()) == (name, tmp_path / file)


KNOWN = "\n  known: local, mycluster, slurm\n  looked in: {tmp}/user, {tmp}/shipped"


@pytest.mark.parametrize(
    ("selector", "environ", "message"),
    [
        ("mycluser", {}, "no launcher 'mycluser'; did you mean 'mycluster'?" + KNOWN),
        ("zzz", {}, "no launcher 'zzz'" + KNOWN),
        (
            None,
            {"XPM_HPC_LAUNCHER": "slrum"},
            "XPM_HPC_LAUNCHER: no launcher 'slrum'; did you mean 'slurm'?" + KNOWN,
        ),
        ("a\0b", {}, "no launcher 'a\\x00b'" + KNOWN),
        (".hidden", {}, "the name of a launcher does not begin with a dot: '.hidden'"),
        ("..", {}, "the name of a launcher does not begin with a dot: '..'"),
        (
            "slurm.toml",
            {},
            "slurm.toml: there is no such file\n  to use the launcher of that name, write 'slurm'",
        ),
        ("./nothing.toml", {}, "nothing.toml: there is no such file"),
        ("~nobody-here/x.toml", {}, "~nobody-here/x.toml: there is no such file"),
        ("{tmp}/", {}, "{tmp}: cannot be read: Is a directory"),
        ("a\0b.toml", {}, "not a path: 'a\\x00b.toml'"),
    ],
)
def test_not_found(
    selector: str | None,
    environ: dict[str, str],
    message: str,
    directories: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped, user = directories
    with pytest.raises(LauncherError) as caught:
        find_launcher(selector and selector.format(tmp=tmp_path), environ=environ, shipped=shipped, user_dir=user)
    assert str(caught.value) == message.format(tmp=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"scheduler = 'local'\n# caf\xe9", "line 2: this is not UTF-8 text"),
        (b"scheduler = 1", "line 1: 'scheduler' in the launcher must be text"),
    ],
)
def test_a_wrong_file_is_named_by_its_path(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(LauncherError) as caught:
        find_launcher("bad", environ={}, shipped=tmp_path / "none", user_dir=tmp_path)
    assert str(caught.value).startswith(f"{file}, {message}")


def test_a_file_from_windows(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_bytes(b'\xef\xbb\xbfscheduler = "local"\r\nslots = 2\r\n')
    assert find_launcher(str(file), environ={}, shipped=tmp_path, user_dir=tmp_path).slots == 2


def test_known_launchers(directories: tuple[Path, Path]) -> None:
    shipped, user = directories
    assert known_launchers(shipped, user) == [
        ("local", shipped / "local.toml", "shipped"),
        ("mycluster", user / "mycluster.toml", "user"),
        ("slurm", user / "slurm.toml", "user"),
    ]
    assert known_launchers(shipped / "none", user / "none") == []


def test_a_directory_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(LauncherError, match="cannot be listed: Not a directory"):
        known_launchers(tmp_path, file)


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"XDG_CONFIG_HOME": "/x y", "HOME": "/home/me"}, "/x y/xpm-hpc/launchers"),
        ({"XDG_CONFIG_HOME": "", "HOME": "/home/me"}, "/home/me/.config/xpm-hpc/launchers"),
        ({"XDG_CONFIG_HOME": "relative", "HOME": "/home/me"}, "/home/me/.config/xpm-hpc/launchers"),
        ({"HOME": "/home/me"}, "/home/me/.config/xpm-hpc/launchers"),
        ({}, "~/.config/xpm-hpc/launchers"),
    ],
)
def test_user_dir(environ: dict[str, str], directory: str) -> None:
    assert user_dir(environ) == Path(directory).expanduser()


# --- The files that ship


def test_shipped_files_are_those_of_the_contract() -> None:
    names = [name for name, _, _ in known_launchers(shipped_dir(), Path("/nonexistent"))]
    assert {"local", "slurm", "oar"} <= set(names)


@pytest.mark.parametrize("path", sorted(shipped_dir().glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_files_are_right_with_and_without_what_is_commented_out(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    everything = re.sub(r"(?m)^#(?=[\[a-z])", "", text)
    assert parse(everything, path).scheduler == parse(text, path).scheduler


@pytest.mark.parametrize(("name", "workdir"), [("local", ""), ("slurm", "~/xpm"), ("oar", "~/xpm")])
def test_templates_run_where_they_are_and_invent_nothing(name: str, workdir: str) -> None:
    found = find_launcher(name, environ={}, shipped=shipped_dir(), user_dir=Path("/nonexistent"))
    assert found == Launcher(name=name, scheduler=name, workdir=workdir, path=shipped_dir() / f"{name}.toml")


def test_shipped_data_of_a_wheel_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "experimaestro_hpc"
    monkeypatch.setattr(data_module, "_PACKAGE", package)
    with pytest.raises(XpmError, match="the templates that ship with xpm-hpc are missing"):
        shipped_data("templates")
    (tmp_path / "templates").mkdir()
    assert shipped_data("templates") == tmp_path / "templates"
    (package / "_data" / "templates").mkdir(parents=True)
    assert shipped_data("templates") == package / "_data" / "templates"


# --- Which partition fits

CPU = Partition("cpu", max_time=86400, cores=32, memory=128 * G, nodes=4)
GPU = Partition("gpu", max_time=7200, cores=16, memory=64 * G, gpus=Gpus("h100", 4, 80 * G), nodes=1)
ANY = Partition("any", gpus=Gpus(count=2))
SXM = Partition("sxm", gpus=Gpus("A100-SXM4-40GB", 4, 40 * G))


@pytest.mark.parametrize(
    ("partitions", "default", "asked", "choice", "partition"),
    [
        ((), None, "gpu * 2 | cpu(cores=2)", "gpu * 2", None),
        ((), "cpu", "any", "any", None),
        ((CPU, GPU), None, "any", "any", "cpu"),
        ((CPU, GPU), None, "gpu", "gpu", "gpu"),
        ((CPU, GPU), None, "gpu(mem=80G, model=H100) * 4 & duration=2h", None, "gpu"),
        ((GPU, CPU), None, "cpu(cores=8)", None, "gpu"),
        ((GPU, CPU), None, "cpu(cores=8) & duration=3h", None, "cpu"),
        ((GPU, CPU), None, "cpu(mem=128G)", None, "cpu"),
        ((GPU, CPU), None, "nodes=2", None, "cpu"),
        ((GPU, CPU), None, "tasks_per_node=32", None, "cpu"),
        ((GPU, CPU), None, "cores=4 & tasks_per_node=8", None, "cpu"),
        ((GPU, CPU), None, "gpu * 8 | cpu(cores=64) | cores=20 | any", "cpu(cores=20)", "cpu"),
        # the order of the alternatives counts before that of the partitions
        ((CPU, GPU), None, "gpu | any", "gpu", "gpu"),
        # what is not said of a partition is not checked
        ((GPU, ANY), None, "gpu(model=a100, mem=40G) & mem=2T & duration=9d & nodes=99", None, "any"),
        # the default partition first, if it fits
        ((GPU, CPU), "cpu", "cpu(cores=8)", None, "cpu"),
        ((GPU, CPU), "cpu", "any", "any", "cpu"),
        ((GPU, CPU), "cpu", "gpu", None, "gpu"),
        # a default partition that is not described: for tasks that ask for nothing
        ((GPU,), "cpu", "any", "any", None),
        ((GPU,), "cpu", "cores=2", None, "gpu"),
        ((GPU,), "cpu", "gpu * 8 | any", "any", None),
        # a model is known by some of its words
        ((CPU, SXM), None, "gpu(model=a100)", None, "sxm"),
        ((CPU, SXM), None, "gpu(model=A100-40GB)", None, "sxm"),
        ((SXM, GPU), None, "gpu(model=h100)", None, "gpu"),
    ],
)
def test_choose_partition(
    partitions: tuple[Partition, ...],
    default: str | None,
    asked: str,
    choice: str | None,
    partition: str | None,
) -> None:
    defaults = {"partition": default} if default else {}
    launcher = Launcher("here", "slurm", defaults=defaults, partitions=partitions)
    chosen, found = choose_partition(launcher, Resources.parse(asked))
    assert (chosen, found and found.name) == (Resources.parse(choice or asked), partition)


@pytest.mark.parametrize("asked", ["gpu(model=a10)", "gpu(model=sxm)", "gpu(model=A100-SXM4-80GB)"])
def test_other_models(asked: str) -> None:
    with pytest.raises(ResourceError, match="has GPUs of type A100-SXM4-40GB"):
        choose_partition(Launcher("here", "slurm", partitions=(CPU, SXM)), Resources.parse(asked))


@pytest.mark.parametrize(
    ("defaults", "options", "asked", "partition"),
    [
        ({"time": "20:00:00"}, {}, "any", "long"),
        ({"time": "20:00:00"}, {}, "duration=1h", "short"),
        ({"time": "20:00:00"}, {"time": "1:00:00"}, "any", "short"),
        ({"mem": "64G"}, {}, "any", "long"),
        ({"mem": "64G"}, {"mem": False}, "any", "short"),
        ({"mem": "64G", "time": "20:00:00"}, {"mem": False}, "any", "long"),
    ],
)
def test_what_the_launcher_asks_for_must_fit_too(
    defaults: dict[str, Any], options: dict[str, Any], asked: str, partition: str
) -> None:
    short = Partition("short", max_time=7200, memory=32 * G, options=options)
    launcher = Launcher("here", "slurm", defaults=defaults, partitions=(short, Partition("long")))
    _, found = choose_partition(launcher, Resources.parse(asked))
    assert found is not None and found.name == partition


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "gpu * 8",
            "no partition of launcher 'here' can give 'gpu * 8'\n"
            "  cpu: has no GPUs, 8 asked\n"
            "  gpu: has 4 GPUs per node, 8 asked",
        ),
        (
            "gpu(model=a100, mem=81G) & cpu(cores=17, mem=65G) & duration=1d & nodes=2",
            "no partition of launcher 'here' can give "
            "'gpu(mem=81G, model=a100) & cpu(cores=17, mem=65G) & duration=1d & nodes=2'\n"
            "  cpu: has no GPUs, 1 asked\n"
            "  gpu: has GPUs of type h100, a100 asked; has GPUs of 80G, 81G asked; "
            "has 16 cores per node, 17 asked; has 64G per node, 65G asked; "
            "allows 02:00:00 for a job, 1-00:00:00 asked; allows 1 node for a job, 2 asked",
        ),
        (
            "gpu & duration=3h | duration=3d",
            "no partition of launcher 'here' can give 'gpu & duration=3h | duration=3d'\n"
            "  for 'gpu & duration=3h':\n"
            "  cpu: has no GPUs, 1 asked\n"
            "  gpu: allows 02:00:00 for a job, 03:00:00 asked\n"
            "  for 'duration=3d':\n"
            "  cpu: allows 1-00:00:00 for a job, 3-00:00:00 asked\n"
            "  gpu: allows 02:00:00 for a job, 3-00:00:00 asked",
        ),
    ],
)
def test_nothing_fits(asked: str, message: str) -> None:
    with pytest.raises(ResourceError) as caught:
        choose_partition(Launcher("here", "slurm", partitions=(CPU, GPU)), Resources.parse(asked))
    assert str(caught.value) == message
