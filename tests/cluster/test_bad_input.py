"""What can be wrong with a call, a file, a host: one clear message, the right exit status, and nothing half done."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from desk import HELLOWORLD, Desk, Ended
from sites import SITES, only

QUICK = ("--port", "0", "--sleeptime", "0", "work")
ONCE = only("slurm", "no scheduler is reached: it is the same with all")
TRANSPORTS = pytest.mark.parametrize("transport", ["paramiko", "openssh"])


@pytest.fixture
def hello(desk: Desk) -> Desk:
    desk.write("helloworld.py", HELLOWORLD)
    return desk


def run(desk: Desk, launcher: str = "", script: str = "helloworld.py", arguments=QUICK) -> Ended:
    return desk.run("xpm-hpc", "run", "--launcher", launcher or desk.cluster, script, "--", *arguments)


def assert_refused(desk: Desk, ended: Ended, status: int, *words: str):
    """One message with these words, and no job."""
    ended.error(status, *words)
    assert desk.native_jobs() == {}


# ---- launcher files


@ONCE
def test_unknown_launcher(hello):
    hello.launcher("mycluster")
    folder = "/home/alice/.config/xpm-hpc/launchers"
    message = run(hello, "mycluter").error(2, "no launcher 'mycluter'", "did you mean 'mycluster'?", folder)
    assert "known: " in message
    script = hello.run("python", "helloworld.py", *QUICK, env={"XPM_HPC_LAUNCHER": "mycluter"})
    script.error(2, "XPM_HPC_LAUNCHER: no launcher 'mycluter'")


@ONCE
def test_unknown_key_in_a_launcher_file(hello):
    hello.launcher("broken", more='\n[enviroment]\npython = "python3"\n')
    words = ("launchers/broken.toml, line 9", "unknown key 'enviroment'", "did you mean 'environment'?")
    assert_refused(hello, run(hello, "broken"), 2, *words)


# ---- hosts


@ONCE
def test_a_host_that_does_not_answer(hello):
    """Both at once: each waits for a while."""
    began = time.monotonic()
    running = {}
    for transport in ("paramiko", "openssh"):
        name = hello.launcher(f"dead-{transport}", host="deadcluster", transport=transport)
        running[transport] = hello.start("xpm-hpc", "run", "--launcher", name, "helloworld.py", "--", *QUICK)
    for process in running.values():
        try:
            told = process.communicate(timeout=60)[0]
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 3, told
        assert "Traceback" not in told
        assert re.search("^error: host deadcluster: .*timed out", told, re.MULTILINE), told
        assert "`ssh deadcluster`" in told
    assert time.monotonic() - began < 60


@ONCE
@TRANSPORTS
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("refusedcluster", {"paramiko": "the login was refused", "openssh": "Permission denied (publickey)"}),
        ("changedcluster", {"paramiko": "key of 10.77.0.1 has CHANGED", "openssh": "key has CHANGED"}),
        ("unknowncluster", {"paramiko": "is not known: ssh-ed25519", "openssh": "the host's key is not known"}),
        ("nosuchhost", {"paramiko": "the host's name is not known", "openssh": "Could not resolve hostname"}),
    ],
)
def test_a_host_that_cannot_be_entered(hello, host, words, transport):
    hello.launcher("broken", host=host, transport=transport)
    known_hosts = hello.rig.home("laptop") / ".ssh/known_hosts"
    before = known_hosts.read_text()
    assert_refused(hello, run(hello, "broken"), 3, f"host {host}: ", words[transport])
    assert f"ssh {host}" in run(hello, "broken").err or host == "nosuchhost"
    assert known_hosts.read_text() == before
    assert not hello.there.exists()


@TRANSPORTS
def test_a_host_without_the_scheduler(hello, transport):
    hello.launcher("plaincluster", transport=transport)
    ended = run(hello, "plaincluster")
    assert_refused(
        hello,
        ended,
        2,
        f"there is no {hello.site.commands[0]} on gate",
        "check host and scheduler in the launcher file",
    )


# ---- Python


OLD_PYTHON = """#!/bin/sh
# A stand-in for Python 3.6, which Debian no longer has.
case "$1 $2" in
--version*) echo "Python 3.6.8" ;;
*print*) echo "3.6" ;;
*) exit 97 ;;
esac
"""


@pytest.fixture
def gate_python(rig) -> Iterator[str]:
    """The file of the only Python on gate: it is moved out of the way, and back at the end."""
    for left in rig.exec("gate", ["sh", "-c", "ls /usr/bin/python3*.away"]).stdout.split():  # by a run that was killed
        as_root(rig, "mv", left, left.removesuffix(".away"))
    path = rig.exec("gate", ["sh", "-c", "readlink -f $(command -v python3)"]).stdout.strip()
    assert path.startswith("/usr/bin/python3."), path
    as_root(rig, "mv", path, f"{path}.away")
    yield path
    as_root(rig, "mv", f"{path}.away", path)


def as_root(rig, *argv: str):
    """Run a command on gate, whose /usr/bin is its own."""
    ended = rig.exec("gate", argv, user="root")
    assert ended.returncode == 0, ended


@ONCE
def test_no_python_at_all_where_the_agent_must_run(hello, gate_python):
    hello.launcher("plaincluster")
    message = run(hello, "plaincluster").error(2, "`python` in [environment]")
    assert message.startswith("error: host plaincluster: no Python 3.9 or newer was found for the agent\n")


@ONCE
@pytest.mark.parametrize(("mode", "complaint"), [("755", "Python 3.6.8"), ("644", "Permission denied")])
def test_only_a_useless_python_where_the_agent_must_run(hello, rig, gate_python, mode, complaint):
    hello.launcher("plaincluster")
    (rig.root / "scratch/gate/python3.6").write_text(OLD_PYTHON)  # /scratch on gate
    as_root(rig, "install", "-m", mode, "/scratch/python3.6", gate_python)
    words = ("host plaincluster: no Python 3.9 or newer was found", complaint, "`python` in [environment]")
    run(hello, "plaincluster").error(2, *words)


def test_the_tasks_python_is_too_old(hello):
    python = hello.write_there("python3.6", OLD_PYTHON, 0o755)
    hello.launcher(more=f'[environment]\npython = "{python}"\n')
    words = ("tasks need Python 3.9 or newer", f"{python} on {hello.site.front} is 3.6", "`python` in [environment]")
    assert_refused(hello, run(hello), 2, *words)


def test_the_tasks_python_is_nowhere(hello):
    """Only the nodes can tell: it may be there and not on the login node."""
    hello.launcher(more='[environment]\npython = "python4"\n')
    ended = run(hello)
    assert ended.status == 1, ended
    assert "Traceback" not in ended.text
    assert len(re.findall(r"^  helloworld.say/\w{8} +failed \(launch\) on ", ended.out, re.MULTILINE)) == 2, ended
    assert len(re.findall(r"^    \| .*python4: not found$", ended.out, re.MULTILINE)) == 2, ended
    assert re.search(r"^  helloworld.concat/\w{8} y=1 +failed \(dependency\)", ended.out, re.MULTILINE), ended


def test_a_package_that_only_the_laptop_has(desk):
    absent = desk.rig.exec(desk.site.front, ["python3", "-c", "import markupsafe"])
    assert "ModuleNotFoundError" in absent.stderr, absent
    desk.write("packages.py", "import markupsafe\n" + SAY.replace("{value}", "'x'"))
    desk.launcher()
    ended = run(desk, script="packages.py", arguments=["work"])
    assert ended.status == 1, ended
    nodes = desk.site.nodes
    where = rf"on {nodes} with /usr/bin/python3 3\.\d+\.\d+"
    what = rf"the task cannot be loaded {where}: No module named 'markupsafe'; install it in the environment"
    assert re.search(rf"^  packages.say/\w{{8}} +failed \(launch\) on {nodes} .*{what}", ended.out, re.MULTILINE), ended


# ---- what a task asks for


SAY = """
import sys
from experimaestro_hpc import Param, Task, experiment

class Say(Task):
    word: Param[str]

    def execute(self):
        print(self.word)

with experiment(sys.argv[1], "say"):
    Say(word="first").submit()
    Say(word={value}).submit()
"""


@ONCE
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("5", ("say.py:13", "Say.word must be str, not 5 (int)")),
        ("'x', wrod='y'", ("say.py:13", "Say has no parameter 'wrod'", "did you mean 'word'?")),
        ("'x').submit(resources='gpu ** 2'", ("gpu ** 2",)),
        ("'x').submit(launcher='nowhere'", ("no launcher 'nowhere'",)),
    ],
)
def test_a_task_that_cannot_be(desk, value, words):
    """The first task is right, and is not submitted either."""
    desk.write("say.py", SAY.replace("{value}", value))
    desk.launcher()
    assert_refused(desk, run(desk, script="say.py", arguments=["work"]), 2, *words)


REFUSED = {
    "a-partition": ("slurm", 'partition = "nope"', "invalid partition", "nope"),
    "a-queue": ("oar", 'queue = "nope"', "The queue nope does not exist"),
    "a-property": ("oar", """property = "nope = 'x'\"""", "Bad resource request", "nope"),
    "a-resource": ("oar", 'resource = "/nope=1"', "nope"),
    "a-type": ("oar", 'type = "nope"', "unknown job type: nope"),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_does_not_exist_is_told_in_the_schedulers_words(laptop, request, what):
    scheduler, default, *told = REFUSED[what]
    hello = Desk(laptop.rig, request.node.name, SITES[scheduler])
    hello.write("helloworld.py", HELLOWORLD)
    hello.launcher(more=f"[defaults]\n{default}\n")
    try:
        words = (f"launcher {hello.cluster}", "nothing was submitted", f"launchers/{hello.cluster}.toml", *told)
        assert_refused(hello, run(hello), 2, *words)

        if what in ("a-partition", "a-queue"):
            hello.launcher()  # corrected
            assert "3 to run" in run(hello).ok().out
            assert hello.results("concat.out") == ["HELLO WORLD\n"]
    finally:
        hello.clear()


# ---- workdirs


@ONCE
@pytest.mark.parametrize(
    ("workdir", "words"),
    [
        ("/proc/x/y", ("'/proc/x",)),
        ("/etc/xpm", ("Permission denied", "/etc/xpm")),
        ("$NOWHERE/xpm", ("$NOWHERE/xpm", "a variable is not set")),
        ("xpm", ("'xpm'", "not absolute")),
        ("/home/alice/$(touch pwned)", ("$(touch pwned)",)),
    ],
)
def test_a_workdir_that_cannot_be(hello, workdir, words):
    hello.launcher(workdir=workdir)
    assert_refused(hello, run(hello), 2, "host mycluster", "check `workdir` in the launcher file", *words)
    assert_unharmed(hello)


# ---- noise and names

NOISE = r"""
echo "Welcome to the cluster! $(date)"
printf 'xpm-hpc 0 0\n\036xpm-hpc 0123456789abcdef 2 0\n{}'
printf 'no end of line, \377\000 and no text'
echo "module: loading cuda/12" >&2
"""


@TRANSPORTS
def test_a_noisy_login(hello, transport):
    home = hello.rig.home(hello.site.front)
    files = [home / ".bashrc", home / ".ssh/rc"]
    hello.launcher(transport=transport)
    try:
        for file in files:
            file.write_text(NOISE)
        heard = hello.run("sh", "-c", f"ssh {hello.cluster} true | tr -cd '[:print:]\n'").ok()
        assert heard.out.count("Welcome") >= 2
        ended = run(hello).ok()
        identifier = next(iter(hello.jobs("--task", "helloworld.concat").values()))["identifier"]
        assert hello.run("xpm-hpc", "jobs", "logs", identifier, "--workdir", "work").ok().out == "HELLO WORLD\n"
    finally:
        for file in files:
            file.unlink(missing_ok=True)
    assert "Welcome" not in ended.text
    assert ended.out.endswith("experiment helloworld: 3 done\n")
    assert hello.results("concat.out") == ["HELLO WORLD\n"]


HOSTILE = """
import os, sys
from experimaestro_hpc import Param, Task, experiment

class Say(Task):
    word: Param[str]

    def execute(self):
        print(self.word, os.environ["HOSTILE"], sep="|", end="")

class Join(Task):
    parts: Param[list[Say]]

    def execute(self):
        print(*(one.__xpm_stdout__.read_text() for one in self.parts), sep="+", end="")

with experiment(sys.argv[1], sys.argv[2]):
    says = [Say(word=word).tag(sys.argv[3], word).submit() for word in (sys.argv[4], sys.argv[4] * 2)]
    Join(parts=says).submit()
"""
NASTY = """it's "q" $(touch pwned) `touch pwned` ; touch pwned & | \\ %j * é"""


def test_nasty_names_stay_names(desk):
    script = """my.v2 'it"s $(touch pwned) `touch pwned` %j é.py"""
    workdir = """w 'it"s $(touch pwned) é"""
    launcher = """my 'cluster $(touch pwned)"""
    word = NASTY + "\nsecond line\t$(touch pwned)"
    desk.write(script, HOSTILE)
    nasty_place = f"{desk.workdir}/a b'c\"d `touch pwned` ; %j é"
    variable = json.dumps(NASTY, ensure_ascii=False)
    desk.launcher(
        launcher, desk.cluster, workdir=nasty_place, more=f"[environment]\nenv = {{ HOSTILE = {variable} }}\n"
    )
    arguments = [workdir, "ex 'p $(touch pwned) é", "k 'e\"y $(touch pwned)", word]

    ended = run(desk, launcher, script, arguments).ok()
    assert ended.out.count(" done on ") == 3
    texts = [f"{word}|{NASTY}", f"{word * 2}|{NASTY}"]
    assert sorted(desk.results("say.out", workdir)) == sorted(texts)
    assert desk.results("join.out", workdir) == ["+".join(texts)]
    assert "3 done before" in run(desk, launcher, script, arguments).ok().out

    listed = desk.run("xpm-hpc", "jobs", "--json", "--workdir", workdir).json()
    says = [one for one in listed if one["task"].endswith(".say")]
    assert {one["tags"][arguments[2]] for one in says} == {word, word * 2}
    assert {one["experiments"][0] for one in listed} == {arguments[1]}
    table = desk.run("xpm-hpc", "jobs", "--all", "--workdir", workdir).ok().out
    assert len(table.splitlines()) == 2 + 3
    shown = desk.run("xpm-hpc", "jobs", "logs", says[0]["identifier"], "--workdir", workdir).ok().out
    assert shown in texts
    desk.await_native(*["COMPLETED"] * 3)
    assert_unharmed(desk)


def assert_unharmed(desk: Desk):
    """No command hidden in a name has run."""
    homes = [desk.rig.home("laptop"), desk.rig.home(desk.site.front)]
    found = [path for home in homes for path in home.glob("pwned")]
    found += [path for folder in (desk.here, desk.there) for path in folder.rglob("*") if path.name == "pwned"]
    assert found == []
