"""The local scheduler, with real processes: how many run at once, what waits, and what happens when somebody dies."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experimaestro_hpc.errors import SubmissionError
from experimaestro_hpc.resources import Resources
from experimaestro_hpc.schedulers import local as local_module
from experimaestro_hpc.schedulers import local_runner
from experimaestro_hpc.schedulers.base import NoInformation, Request, Status, Submission
from experimaestro_hpc.schedulers.local import (
    Local,
    ended_status,
    local_folder,
    parse_directives,
    parse_journal,
    read_journal,
)
from experimaestro_hpc.schedulers.local_runner import Runner, is_alive

#: a job that goes on until the file `go` is there
UNTIL_GO = "touch started; while [ ! -e go ]; do sleep 0.02; done"
ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "LANG": "C.UTF-8"}


class Machine:
    """A workspace, its scheduler, and jobs that are shell scripts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = local_folder(str(root))
        self.folder.make()
        self.scheduler = Local(str(root), ENVIRON)
        self.runner: Runner | None = None

    def directory(self, name: str) -> Path:
        return self.root / "jobs" / "test.job" / name

    def write(self, name: str, script: str, **wishes: object) -> Path:
        folder = self.directory(name)
        folder.mkdir(parents=True, exist_ok=True)
        head = "".join(f"#XPM {key}={value}\n" for key, value in wishes.items())
        (folder / "job.sh").write_text(f"#!/bin/bash\n{head}\n{script}\n")
        return folder

    def submission(self, name: str, dependencies: Sequence[str] = ()) -> Submission:
        folder = str(self.directory(name))
        return Submission(name, f"job-{name}", f"{folder}/job.sh", folder, dependencies, (), [folder])

    def submit(self, name: str, script: str = "true", after: Sequence[str] = (), **wishes: object) -> str:
        self.write(name, script, **wishes)
        (native,) = self.scheduler.submit(self.submission(name, after))
        return native

    def go(self, *names: str) -> None:
        for name in names:
            (self.directory(name) / "go").touch()

    def has(self, name: str, file: str = "started") -> bool:
        return (self.directory(name) / file).exists()

    def text(self, name: str, file: str) -> str:
        return (self.directory(name) / file).read_text()

    def status(self, name: str) -> Status | None:
        return self.scheduler.query([name]).get(name)

    def state(self, name: str) -> str:
        """The state as the journal and the queue have it; without waking a runner."""
        event = read_journal(self.folder).get(name)
        return event[0] if event else "queued" if list(self.folder.queue.glob("*.json")) else "unknown"

    def running(self) -> set[str]:
        assert self.runner is not None
        return set(self.runner.running)

    def pid(self, name: str) -> int:
        return int(read_journal(self.folder)[name][1])


def lives(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The runners that the scheduler starts, so that the test can end them."""
    runners: list[subprocess.Popen[bytes]] = []

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        runners.append(subprocess.Popen(*arguments, **options))
        return runners[-1]

    monkeypatch.setattr(local_module, "subprocess", SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL))
    yield runners
    for runner in runners:
        runner.kill()
        runner.wait()


@pytest.fixture
def machine(tmp_path: Path, started: list[Any]) -> Iterator[Machine]:
    made = Machine(tmp_path / "work space")
    yield made
    for runner in started:
        runner.kill()
        runner.wait()
    if made.runner is not None:
        for job in made.runner.running.values():
            made.runner._signal(job, signal.SIGKILL)
    for native, event in read_journal(made.folder).items():
        if event[0] == "running" and is_alive(int(event[1]), native):
            os.killpg(int(event[1]), signal.SIGKILL)


Steps = Callable[[Callable[[], object]], None]


@pytest.fixture
def inside(machine: Machine, started: list[Any]) -> Iterator[Steps]:
    """The runner in this process, step by step; ``inside(condition)`` steps until the condition holds."""
    with (machine.folder.root / "runner.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it lives, for those who look
        machine.runner = runner = Runner(machine.folder)
        runner.recover()

        def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
            deadline = time.monotonic() + seconds
            while True:
                runner.step()
                if condition():
                    return
                assert time.monotonic() < deadline, f"in vain: {runner.waiting}, {runner.running}, {runner.ended}"
                time.sleep(0.005)

        yield until
        assert started == [], "nobody starts a second one"


# --- The pure parts


@pytest.mark.parametrize(
    ("text", "options", "lines"),
    [
        ("any", {}, []),
        ("cpu(cores=4, mem=8G) & duration=1h", {}, ["cores=4", "seconds=3600"]),
        ("gpu * 2", {"slots": 4, "gpu_slots": 2}, ["gpus=2", "slots=4", "gpu_slots=2"]),
    ],
)
def test_directives(text, options, lines):
    found = Local.directives(Request("x", Resources.parse(text), options=options))
    assert found == [f"#XPM {line}" for line in lines]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", {}),
        ("#!/bin/bash\n#XPM cores=4\n# words\n#XPM seconds = 60 \n\n#XPM gpus=1\n", {"cores": "4", "seconds": "60"}),
        ("echo\n#XPM cores=4\n", {}),
        ("#XPM x=a=b\n#XPMcores=4\n", {"x": "a=b"}),
    ],
)
def test_parse_directives(script, expected):
    assert parse_directives(script) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a running 5 1\nb running 6 2\na ended 0 -\n", {"a": ("ended", "0", "-"), "b": ("running", "6", "2")}),
        ("a running 5 1\na ended\n\nnonsense\n", {"a": ("running", "5", "1")}),
    ],
)
def test_parse_journal(text, expected):
    assert parse_journal(text) == expected


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (0, "-", ("", "exit status 0", 0)),
        (3, "-", ("exit", "exit status 3", 3)),
        (126, "-", ("launch", "exit status 126", 126)),
        (127, "-", ("launch", "exit status 127", 127)),
        (-9, "-", ("exit", "killed by signal 9", 137)),
        (-11, "-", ("exit", "killed by signal 11", 139)),
        (-15, "-", ("cancelled", "killed by signal 15", 143)),
        (-15, "cancelled", ("cancelled", "killed by signal 15", 143)),
        (-15, "timeout", ("timeout", "killed by signal 15", 143)),
        (0, "timeout", ("timeout", "exit status 0", 0)),
        (1, "dependency", ("dependency", "exit status 1", 1)),
        (127, "launch", ("launch", "exit status 127", 127)),
    ],
)
def test_ended_status(code, reason, expected):
    ours, detail, number = expected
    assert ended_status(code, reason) == Status("ended", ours, detail, number)


# --- Submission


def test_a_submission_is_one_file_for_the_user_alone(machine, inside):
    machine.submit("a", cores=2)
    (path,) = machine.folder.queue.iterdir()
    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == ("a.json", 0o600)
    assert json.loads(path.read_text())["jobs"] == {"a": str(machine.directory("a"))}
    assert machine.state("a") == "queued"
    inside(lambda: machine.state("a") == "ended")
    assert list(machine.folder.queue.iterdir()) == []


def test_an_array(machine, inside):
    folders = [str(machine.write(name, f"echo {name} >out; exit {name}")) for name in "012"]
    submission = Submission("t", "t", "array.sh", "/nowhere", (), [0, 2], [folders[0], folders[2]])
    assert machine.scheduler.submit(submission) == ["t_0", "t_2"]
    assert machine.scheduler.find(submission) == ["t_0", "t_2"]
    inside(lambda: machine.state("t_0") == machine.state("t_2") == "ended")
    assert (machine.text("0", "out"), machine.has("1", "out"), machine.text("2", "out")) == ("0\n", False, "2\n")
    assert {native: status.exit_code for native, status in machine.scheduler.query(["t_0", "t_2"]).items()} == {
        "t_0": 0,
        "t_2": 2,
    }
    assert list(machine.folder.queue.iterdir()) == []


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"gpus": 3, "gpu_slots": 2}, "3 GPUs asked for, and this machine has 2"),
        ({"gpus": 1, "gpu_slots": 0}, "1 GPU asked for, and this machine has 0"),
        ({"cores": "four"}, "four"),
        ({"seconds": "10:00"}, "10:00"),
        ({"slots": ""}, "slots"),
        ({"gpus": "1.5"}, "1.5"),
    ],
)
def test_refused(machine, inside, wishes, words):
    """What the runner could not read must not get to it."""
    with pytest.raises(SubmissionError, match=words):
        machine.submit("a", **wishes)
    assert list(machine.folder.queue.iterdir()) == []


def test_refused_without_a_script(machine, inside):
    with pytest.raises(SubmissionError, match="the script cannot be read"):
        machine.scheduler.submit(machine.submission("nowhere"))


def test_a_runner_that_cannot_be_started(machine, monkeypatch):
    monkeypatch.setattr(local_module.sys, "executable", "/nowhere/python")
    with pytest.raises(NoInformation, match="runner cannot be started"):
        machine.submit("a")
    # it is in the queue all the same, so it is found and not submitted again
    assert machine.scheduler.find(machine.submission("a")) == ["a"]


def test_find(machine, inside):
    assert machine.scheduler.find(machine.submission("a")) is None
    machine.submit("a")
    assert machine.scheduler.find(machine.submission("a")) == ["a"]
    inside(lambda: machine.state("a") == "ended")
    assert machine.scheduler.find(machine.submission("a")) == ["a"]
    assert machine.scheduler.find(machine.submission("b")) is None


def test_what_is_not_known_is_not_in_the_answer(machine, inside):
    assert machine.scheduler.query([]) == {}
    assert machine.scheduler.query(["a", "b"]) == {}
    machine.submit("a")
    assert machine.scheduler.query(["a", "b"]).keys() == {"a"}


def test_the_environment_of_a_job(tmp_path, started):
    environ = {
        **ENVIRON,
        "WORDS": "it's $(x)\n\u732b",
        "BYTES": os.fsdecode(b"\xff\xfe"),
        "SLURM_JOB_ID": "3",
        "XPM_HPC_JOB": "a/b",
        "PYTHONPATH": "/ours",
    }
    machine = Machine(tmp_path)
    machine.scheduler = Local(str(tmp_path), environ)
    with (machine.folder.root / "runner.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        machine.submit("a", "env -0 >env; pwd >pwd; readlink /proc/self/fd/0 >stdin")
        runner = Runner(machine.folder)
        while runner.look() or runner.busy:
            runner.step()
            time.sleep(0.005)
    pairs = (machine.directory("a") / "env").read_bytes().split(b"\0")[:-1]
    seen = {os.fsdecode(name): os.fsdecode(value) for name, _, value in (pair.partition(b"=") for pair in pairs)}
    shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert {name: value for name, value in seen.items() if name not in shell} == {
        **ENVIRON,
        "WORDS": environ["WORDS"],
        "BYTES": environ["BYTES"],
        "XPM_HPC_NATIVE_ID": "a",
    }
    assert machine.text("a", "pwd").strip() == str(machine.directory("a"))
    assert machine.text("a", "stdin").strip() == "/dev/null"


@pytest.mark.parametrize(("given", "expected"), [({}, None), ({"LC_ALL": "fr_FR.UTF-8"}, "C")])
def test_the_users_language(tmp_path, given, expected):
    assert Local(str(tmp_path), {**ENVIRON, **given}).environ.get("LC_ALL") in (expected, given.get("LC_ALL"))


# --- How many at once


def test_as_many_at_once_as_there_are_slots(machine, inside):
    names = [str(number) for number in range(7)]
    for name in names:
        machine.submit(name, UNTIL_GO, slots=3)
    seen = []

    def is_over() -> bool:
        seen.append(len(machine.running()))
        started = [name for name in names if machine.has(name)]
        if len(started) % 3 == 0 or len(started) == len(names):
            machine.go(*started)
        return all(machine.state(name) == "ended" for name in names)

    inside(is_over)
    assert max(seen) == 3


@pytest.mark.parametrize(
    ("slots", "cores", "first"),
    [
        (4, [1, 1, 1], "012"),
        (2, [1, 1, 1], "01"),
        (4, [2, 2, 1], "01"),
        (4, [3, 2, 1], "02"),
        (1, [1, 1], "0"),
        (2, [8, 1], "0"),
        (2, [1, 8, 1], "02"),
    ],
)
def test_cores(machine, inside, slots, cores, first):
    for number, count in enumerate(cores):
        machine.submit(str(number), UNTIL_GO, slots=slots, cores=count)
    inside(lambda: machine.running())
    assert machine.running() == set(first)
    machine.go(*map(str, range(len(cores))))
    inside(lambda: not machine.runner.busy)
    assert all(machine.runner.ended[str(number)] == 0 for number in range(len(cores)))


def test_without_slots_the_machines_cores_count(machine, inside):
    machine.runner.machine_cores = 2
    for name in "abc":
        machine.submit(name, UNTIL_GO)
    inside(lambda: machine.running())
    assert machine.running() == {"a", "b"}
    machine.go(*"abc")


def test_gpus(machine, inside):
    for name, count in (("a", 1), ("b", 2), ("c", 1), ("d", 0)):
        script = f"echo $CUDA_VISIBLE_DEVICES >devices; {UNTIL_GO}"
        machine.submit(name, script, gpus=count, gpu_slots=2, slots=9)
    inside(lambda: machine.has("a") and machine.has("c") and machine.has("d"))
    assert machine.running() == {"a", "c", "d"}
    assert [machine.text(name, "devices") for name in "acd"] == ["0\n", "1\n", "\n"]
    machine.go("a")
    inside(lambda: machine.state("a") == "ended")
    assert machine.running() == {"c", "d"}
    machine.go("c")
    inside(lambda: machine.has("b"))
    assert machine.text("b", "devices") == "0,1\n"
    machine.go("b", "d")


# --- Parents


def test_a_child_waits_for_its_parents(machine, inside):
    machine.submit("p", UNTIL_GO, slots=9)
    machine.submit("q", UNTIL_GO, slots=9)
    machine.submit("c", "touch started", after=["p", "q"], slots=9)
    inside(lambda: machine.has("p") and machine.has("q"))
    assert machine.running() == {"p", "q"}
    machine.go("p")
    inside(lambda: machine.state("p") == "ended")
    assert machine.running() == {"q"}
    assert machine.status("c") == Status("queued", detail="waits for a free core or for its parents")
    machine.go("q")
    inside(lambda: machine.state("c") == "ended")
    assert machine.has("c")


@pytest.mark.parametrize("code", [1, 3, 75])
def test_a_failed_parent_ends_its_descendants(machine, inside, code):
    machine.submit("p", f"exit {code}")
    machine.submit("c", "touch started", after=["p"])
    machine.submit("g", "touch started", after=["c"])
    machine.submit("other", "touch started")
    inside(lambda: not machine.runner.busy)
    assert {name: machine.status(name).reason for name in ("p", "c", "g", "other")} == {
        "p": "exit",
        "c": "dependency",
        "g": "dependency",
        "other": "",
    }
    assert [machine.has(name) for name in ("c", "g", "other")] == [False, False, True]


def test_a_parent_that_is_submitted_later_than_its_child_is_not_waited_for_for_ever(machine, inside):
    """Its parent is not known here at all: it ended long ago, and the runtime looks at its marker."""
    machine.submit("c", "touch started", after=["unknown"])
    inside(lambda: machine.state("c") == "ended")
    assert machine.has("c")


# --- How jobs end


@pytest.mark.parametrize(
    ("script", "reason", "code"),
    [
        ("exit 0", "", 0),
        ("exit 3", "exit", 3),
        ("kill -9 $$", "exit", 137),
        ("kill -15 $$", "cancelled", 143),
        ("exec /nowhere/python", "launch", 127),
        ("exec /", "launch", 126),
    ],
)
def test_ends(machine, inside, script, reason, code):
    machine.submit("a", script)
    inside(lambda: machine.state("a") == "ended")
    assert (machine.status("a").reason, machine.status("a").exit_code) == (reason, code)


def test_a_job_whose_directory_is_gone(machine, inside):
    machine.submit("a")
    machine.directory("a").rename(machine.root / "elsewhere")
    machine.submit("b", "touch started")
    inside(lambda: not machine.runner.busy)
    assert (machine.status("a").reason, machine.status("b").reason) == ("launch", "")


def test_what_a_job_leaves_behind_is_ended_with_it(machine, inside):
    machine.submit("a", "sleep 300 & echo $! >child")
    inside(lambda: machine.state("a") == "ended")
    child = int(machine.text("a", "child"))
    inside(lambda: not lives(child))


def test_time_limit(machine, inside, monkeypatch):
    machine.submit("a", f"trap 'echo asked >asked; exit 1' TERM; {UNTIL_GO}", seconds=0.4, slots=9)
    machine.submit("b", UNTIL_GO, seconds=3600, slots=9)
    inside(lambda: machine.state("a") == "ended")
    assert (machine.status("a").reason, machine.status("b").state) == ("timeout", "running")
    assert machine.has("a", "asked")
    machine.go("b")


def test_a_job_that_does_not_listen_is_killed(machine, inside, monkeypatch):
    monkeypatch.setattr(local_runner, "GRACE", 0.2)
    machine.submit("a", f"trap '' TERM; {UNTIL_GO}", seconds=0.2)
    inside(lambda: machine.state("a") == "ended")
    assert (machine.status("a").reason, machine.status("a").exit_code) == ("timeout", 137)


#: notes a warning, and goes on
WARNED = f"trap 'echo warned >>warned' USR2; {UNTIL_GO}"


def test_a_warning_before_the_time_limit(machine, inside):
    """Once, to those who want one; and nobody is ended for it."""
    machine.submit("a", WARNED, seconds=3600, warning=3600, slots=9)
    machine.submit("b", WARNED, seconds=3600, warning=60, slots=9)
    machine.submit("c", WARNED, seconds=3600, slots=9)
    machine.submit("d", WARNED, warning=60, slots=9)
    names = {"a", "b", "c", "d"}
    inside(lambda: all(machine.has(name) for name in names))
    inside(lambda: machine.has("a", "warned"))
    machine.runner.running["b"].started -= 3541
    inside(lambda: machine.has("b", "warned"))
    for _ in range(20):
        machine.runner.step()
    assert machine.running() == names
    machine.go(*names)
    inside(lambda: not machine.running())
    assert {machine.status(name).exit_code for name in names} == {0}
    assert [name for name in sorted(names) if machine.has(name, "warned")] == ["a", "b"]
    assert machine.text("a", "warned") == machine.text("b", "warned") == "warned\n"


def test_a_warning_is_for_the_task_alone(machine, inside):
    """Not for the processes that it has started: they would end."""
    machine.submit("a", f"sleep 60 & echo $! >child; {WARNED}; kill $!; wait", seconds=3600, warning=3600)
    inside(lambda: machine.has("a", "warned"))
    assert lives(int(machine.text("a", "child")))
    machine.go("a")
    inside(lambda: machine.state("a") == "ended")


def test_an_adopted_job_is_warned(machine, inside):
    adopted(machine, inside, WARNED, seconds=3600, warning=3600, slots=9)
    inside(lambda: machine.has("a", "warned"))
    machine.go("a")
    inside(lambda: machine.state("a") == "ended")


# --- Another attempt


def test_what_must_not_start_yet_waits(machine, inside):
    """It waits for its time, whatever is free; others go past it."""
    machine.write("a", "touch started", slots=1)
    machine.scheduler.submit(replace(machine.submission("a"), delay=3600.0))
    machine.submit("b", "touch started", slots=1)
    inside(lambda: machine.state("b") == "ended")
    assert (machine.has("a"), machine.status("a").state) == (False, "queued")
    assert 3500 < machine.runner.waiting["a"].begin - time.time() <= 3600
    machine.runner.waiting["a"].begin = time.time() - 1
    inside(lambda: machine.state("a") == "ended")
    assert machine.has("a")


def test_the_child_of_what_must_not_start_yet(machine, inside):
    machine.write("a", "touch started")
    machine.scheduler.submit(replace(machine.submission("a"), delay=3600.0))
    machine.submit("b", "touch started", after=["a"])
    for _ in range(5):
        machine.runner.step()
    assert not machine.has("b")
    machine.runner.waiting["a"].begin = 0.0
    inside(lambda: machine.state("b") == "ended")
    assert machine.has("a")


@pytest.mark.parametrize(("asked", "seconds"), [("duration=2h", 7200.0), ("mem=4G", 60.0), ("any", 60.0)])
def test_another_attempt_may_have_another_time_limit(machine, inside, asked, seconds):
    machine.write("a", "true", seconds=60)
    machine.scheduler.submit(replace(machine.submission("a"), resources=Resources.parse(asked), avoid=["node7"]))
    machine.runner.look()
    assert machine.runner.waiting["a"].seconds == seconds
    inside(lambda: machine.state("a") == "ended")


# --- Cancel


def test_cancel_what_waits(machine, inside):
    machine.submit("p", UNTIL_GO, slots=1)
    machine.submit("a", "touch started", slots=1)
    machine.submit("c", "touch started", after=["a"], slots=1)
    inside(lambda: machine.has("p"))
    machine.scheduler.cancel(["a"])
    inside(lambda: machine.state("a") == machine.state("c") == "ended")
    assert [machine.status(name).reason for name in "ac"] == ["cancelled", "dependency"]
    machine.go("p")
    inside(lambda: not machine.runner.busy)
    assert not machine.has("a")
    assert list(machine.folder.cancel.iterdir()) == []


def test_cancel_what_runs_with_its_children(machine, inside):
    machine.submit("a", "sleep 300 & echo $! >child; touch started; wait")
    inside(lambda: machine.has("a"))
    machine.scheduler.cancel(["a"])
    inside(lambda: machine.state("a") == "ended")
    assert machine.status("a").reason == "cancelled"
    child = int(machine.text("a", "child"))
    inside(lambda: not lives(child))


def test_cancel_what_has_ended_or_never_was(machine, inside):
    machine.submit("a")
    inside(lambda: machine.state("a") == "ended")
    machine.scheduler.cancel(["a", "never-was"])
    inside(lambda: not list(machine.folder.cancel.iterdir()))
    assert machine.status("a").reason == ""


# --- The background runner


def start_runner(machine: Machine) -> subprocess.Popen[bytes]:
    log = (machine.folder.root / "runner.log").open("ab")
    with log:
        argv = [sys.executable, "-m", "experimaestro_hpc.schedulers.local_runner", str(machine.root)]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def test_a_submission_starts_a_runner_once(machine, started, wait_until):
    machine.submit("a", UNTIL_GO, slots=9)
    wait_until(lambda: machine.has("a"))
    machine.submit("b", "touch started", slots=9)
    wait_until(lambda: machine.has("b"))
    assert len(started) == 1
    machine.go("a")
    wait_until(lambda: machine.status("a").state == "ended")
    assert (machine.folder.root / "runner.log").read_text() == ""


def test_a_second_runner_gives_way(machine, started, wait_until):
    first = start_runner(machine)
    started.append(first)
    wait_until(machine.scheduler._alive)
    assert start_runner(machine).wait(30) == 0
    assert first.poll() is None


@pytest.mark.parametrize("who", ["the test", "the next query"])
def test_a_killed_runner_has_a_successor_that_adopts_its_jobs(machine, started, wait_until, who):
    started.append(start_runner(machine))
    wait_until(machine.scheduler._alive)
    script = f"echo x >>starts; {UNTIL_GO}; touch ended"
    for name in "ab":
        machine.submit(name, script, slots=2)
    machine.submit("c", script, after=["a"], slots=2)
    machine.submit("d", script, slots=2)
    wait_until(lambda: machine.has("a") and machine.has("b"))
    pids = [machine.pid(name) for name in "ab"]
    started[0].kill()
    started[0].wait()
    assert all(lives(pid) for pid in pids)
    machine.go("c", "d")
    if who == "the test":
        started.append(start_runner(machine))
    else:
        assert machine.status("a") == Status("running", host=os.uname().nodename)
    wait_until(machine.scheduler._alive)
    assert len(started) == 2
    assert [machine.status(name).state for name in "abcd"] == ["running", "running", "queued", "queued"]
    machine.go("a")
    wait_until(lambda: machine.has("c", "ended") and machine.has("d", "ended"))
    assert lives(pids[1])
    machine.go("b")
    wait_until(lambda: all(machine.status(name).state == "ended" for name in "abcd"))
    assert {machine.text(name, "starts") for name in "abcd"} == {"x\n"}
    wait_until(lambda: not list(machine.folder.queue.iterdir()))


def adopted(machine: Machine, inside: Steps, script: str, **wishes: object) -> int:
    """A job that runs, and of which a new runner knows only what is in the files; its pid."""
    machine.submit("a", script, **wishes)
    inside(lambda: machine.has("a"))
    process = machine.runner.running["a"].process
    machine.runner.running.clear()
    machine.runner.__init__(machine.folder)
    machine.runner.recover()
    assert machine.running() == {"a"}
    machine.reap = process.poll
    return process.pid


def test_adopted_jobs_keep_their_time_limit(machine, inside):
    adopted(machine, inside, UNTIL_GO, seconds=30, slots=9)
    machine.submit("b", slots=9)
    inside(lambda: machine.state("b") == "ended")
    assert machine.state("a") == "running", "30 s have not passed"
    machine.runner.running["a"].started -= 31
    inside(lambda: machine.reap() is not None and machine.state("a") == "ended")
    assert machine.status("a").reason == "timeout"


def test_adopted_jobs_have_run_since_they_were_started(machine, inside):
    adopted(machine, inside, UNTIL_GO, seconds=1, slots=9)
    began = time.monotonic()
    machine.runner.running["a"].started -= 0.5
    inside(lambda: machine.reap() is not None and machine.state("a") == "ended")
    assert machine.status("a").reason == "timeout"
    assert time.monotonic() - began < 0.9


def test_adopted_jobs_can_be_cancelled(machine, inside):
    pid = adopted(machine, inside, UNTIL_GO)
    machine.scheduler.cancel(["a"])
    inside(lambda: machine.reap() is not None and machine.state("a") == "ended")
    assert (machine.status("a").reason, lives(pid)) == ("cancelled", False)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_jobs_that_ended_while_nobody_watched(tmp_path, started, wait_until, is_cancelled):
    """The machine was switched off: pids in the journal are of nobody, or of somebody else."""
    machine = Machine(tmp_path)
    bystander = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        with (machine.folder.root / "runner.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            machine.submit("a", "touch again")
            machine.submit("b", "touch again")
            machine.submit("c", "touch started", after=["a"])
        pids = {"a": bystander.pid, "b": 2**22 + 5}
        machine.folder.journal.write_text("".join(f"{name} running {pid} 5\n" for name, pid in pids.items()))
        if is_cancelled:
            for name in "abc":
                (machine.folder.cancel / name).touch()
        started.append(start_runner(machine))
        wait_until(lambda: all(machine.state(name) == "ended" for name in "abc"))
        assert started[0].poll() is None, (machine.folder.root / "runner.log").read_text()
        assert bystander.poll() is None
        assert [machine.has(name, "again") for name in "ab"] == [False, False]
        assert machine.has("c") != is_cancelled
    finally:
        bystander.kill()
        bystander.wait()


def test_jobs_go_on_when_the_process_that_submitted_them_ends(machine, wait_until, end_runners):
    """It ends in the worst way: its whole process group is killed, as when a terminal is closed."""
    machine.write("a", f"{UNTIL_GO}; touch ended")
    machine.write("b", "touch ended")
    code = """
import os, signal, sys
from experimaestro_hpc.schedulers.base import Submission
from experimaestro_hpc.schedulers.local import Local
root, folder = sys.argv[1:]
local = Local(root)
for name, after in (("a", []), ("b", ["a"])):
    local.submit(Submission(name, name, f"{folder}/{name}/job.sh", f"{folder}/{name}", after, (), [f"{folder}/{name}"]))
os.killpg(0, signal.SIGKILL)
"""
    argv = [sys.executable, "-c", code, str(machine.root), str(machine.directory("a").parent)]
    submitter = subprocess.Popen(argv, start_new_session=True)
    assert submitter.wait(30) == -signal.SIGKILL
    try:
        wait_until(lambda: machine.has("a"))
        machine.go("a")
        wait_until(lambda: machine.has("b", "ended"))
    finally:
        end_runners(machine.root)


def test_a_runner_ends_when_nothing_is_left(machine, started, monkeypatch, wait_until):
    impatient(monkeypatch, started)
    machine.submit("a")
    assert started[0].wait(30) == 0
    assert machine.status("a").state == "ended"
    assert len(started) == 1
    assert not machine.scheduler._alive()


def impatient(monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]) -> None:
    """Runners that the scheduler starts end as soon as they are idle, and take their time between last look and end."""
    code = """
import fcntl, sys, time
from experimaestro_hpc.schedulers import local_runner
flock = fcntl.flock
def hesitate(file, what):
    if what == fcntl.LOCK_UN:
        time.sleep(0.03)
    flock(file, what)
fcntl.flock, local_runner.IDLE = hesitate, 0
local_runner.run(local_runner.local_folder(sys.argv[1]))
"""

    def popen(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([argv[0], "-c", code, argv[-1]], **options))
        return started[-1]

    monkeypatch.setattr(local_module.subprocess, "Popen", popen)


def test_no_job_is_stuck_when_it_comes_while_the_runner_ends(machine, started, monkeypatch, wait_until):
    impatient(monkeypatch, started)
    for number in range(12):
        machine.submit(str(number), "true")
        wait_until(lambda: machine.state(str(number)) == "ended")  # noqa: B023 - it is called in this round
        time.sleep(number * 0.003)  # a bit later each time: before, in and after the runner's last moments
    assert len(started) > 1, "the runner never ended in between: the test says nothing"


def test_a_queue_file_that_is_not_understood_is_passed_over(machine, inside, capfd):
    (machine.folder.queue / "broken.json").write_text("{")
    machine.submit("a")
    inside(lambda: machine.state("a") == "ended")
    assert "broken.json: not understood" in capfd.readouterr().err


def test_a_long_journal_is_shortened_and_running_jobs_stay_in_it(machine, inside, monkeypatch):
    monkeypatch.setattr(local_runner, "_JOURNAL_LINES", 100)
    pid = adopted(machine, inside, UNTIL_GO)
    with machine.folder.journal.open("a") as file:
        file.writelines(f"old{number} ended 0 -\n" for number in range(150))
    for _ in range(2):  # the second one sees only what the first one kept
        machine.runner.running.clear()
        machine.runner.__init__(machine.folder)
        machine.runner.recover()
        assert machine.running() == {"a"}
        assert machine.runner.running["a"].pid == pid
    assert len(machine.folder.journal.read_text().splitlines()) < 100
    assert machine.status("old149").state == "ended"
    machine.go("a")
    inside(lambda: machine.reap() is not None and machine.state("a") == "ended")
