"""A job from its start to its marker: real processes on real job directories."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from job_directory import LONG, Job, Workspace, lib

from experimaestro_hpc import __version__
from experimaestro_hpc.runtime import resume
from experimaestro_hpc.runtime.gpus import measured

TASKS = """
import os, sys, time
from experimaestro_hpc import Config, Param, Task, field, progress, PathGenerator

class Act(Task):
    what: Param[str]
    def execute(self):
        exec(self.what, {"self": self, **globals()})

class Step(Task):
    previous: Param["Step"]
    word: Param[str] = "plain"
    def execute(self):
        print(eval(self.word, {"self": self}))

class Model(Config):
    size: Param[int]
    encoder: Param["Model"] = None
    path: Param[str] = None
    late: Param[str] = field(default_factory=PathGenerator("late.bin"))
    def __post_init__(self):
        print("made", self.size)

class Broken(Config):
    def __post_init__(self):
        raise ValueError("no such data set")
"""


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path)
    made.script(TASKS)
    return made


def act(workspace: Workspace, what: str, **record: object) -> Job:
    """A job that does ``what``."""
    return workspace.job("Act", {"what": what}, **record)


# --- ends ---


@pytest.mark.parametrize(
    "what", ["pass", "sys.exit()", "sys.exit(0)", "sys.exit(None)", "sys.exit(False)", "return_ = 3"]
)
def test_done(workspace, what):
    job = act(workspace, what)
    ended = job.run()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert job.markers == [".done"]
    assert job.marker["state"] == job.record["state"] == "done"
    assert job.marker["exit_code"] == 0
    assert not {"reason", "message"} & job.marker.keys()


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        ("sys.exit(3)", 3, "the task ended with exit status 3"),
        ("sys.exit(True)", 1, "the task ended with exit status 1"),
        ("sys.exit(-1)", 255, "the task ended with exit status 255"),
        ("sys.exit(256)", 1, "the task ended with exit status 1"),  # its last byte says success
        ("sys.exit('gone')", 1, "the task ended with exit status 1"),
        ("raise ValueError('odd')", 1, "ValueError: odd"),
        ("raise ValueError('two\\nlines')", 1, "ValueError: two\nlines"),
        ("raise ValueError('\\ud800 \\0')", 1, "ValueError: \ud800 \0"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
        ("raise ImportError('no cuda')", 1, "ImportError: no cuda"),
        ("def f(): f()\nf()", 1, "RecursionError: maximum recursion depth exceeded"),
        ("raise ValueError('x' * 9999)", 1, "x" * 2000),
        ("import nowhere", 1, "ModuleNotFoundError: No module named 'nowhere'"),
        ("1 +", 1, "SyntaxError: invalid syntax"),
    ],
)
def test_failed(workspace, what, status, message):
    job = act(workspace, what)
    ended = job.run()
    assert ended.returncode == status
    assert job.markers == [".failed"]
    marker = job.marker
    assert (marker["state"], marker["reason"], marker["exit_code"]) == ("failed", "exit", status)
    assert message in marker["message"]
    assert len(marker["message"]) <= 2000
    assert {"state": "failed", "reason": "exit", "message": marker["message"]}.items() <= job.record.items()


def test_the_traceback_is_the_users(workspace):
    ended = act(workspace, "raise ValueError('odd')").run()
    lines = ended.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith(f'  File "{workspace.code}/tasks.py", line ')
    assert lines[-1] == "ValueError: odd"
    assert "experimaestro_hpc" not in ended.stderr


def test_words_of_sys_exit_are_printed(workspace):
    assert act(workspace, "sys.exit('gone')").run().stderr == "gone\n"


@pytest.mark.parametrize(
    ("what", "endings"),
    [
        ("sys.stdout.close()", [".done"]),
        ("sys.stdout = None", [".done"]),
        ("sys.stderr.close()", [".done"]),
        ("sys.stderr.close()\nraise ValueError('x')", [".failed"]),
        ("sys.stderr = None\nsys.exit('gone')", [".failed"]),
        ("sys.stdout = open('/dev/full', 'w')\nprint('lost')", [".failed"]),
        ("sys.stderr = open('/dev/full', 'w', buffering=1)\nraise ValueError('x')", [".failed"]),
        ("os.chdir('/')", [".done"]),
        ("sys.modules['odd'] = type('M', (), {'__dict__': property(lambda self: 1 / 0)})()", [".done"]),
        ("sys.modules['none'] = None", [".done"]),
        ("os.environ.clear()", [".done"]),
        ("sys.argv[:] = []", [".done"]),
        # what is killed writes no marker: the scheduler knows why
        ("os._exit(5)", []),
        ("os.kill(os.getpid(), 9)", []),
    ],
)
def test_whatever_the_task_does_to_its_process(workspace, what, endings):
    job = act(workspace, what)
    ended = job.run()
    assert job.markers == endings
    assert (ended.returncode == 0) == (endings == [".done"])


@pytest.mark.parametrize("child", ["sys.exit(0)", "raise ValueError('x')", "pass"])
def test_a_forked_child_writes_no_marker(workspace, child):
    job = act(
        workspace, f"if os.fork() == 0:\n    {child}\nelse:\n    os.wait()\n    print(os.listdir())\n    sys.exit(3)"
    )
    ended = job.run()
    assert ended.returncode == 3
    assert job.markers == [".failed"]
    assert ".done" not in ended.stdout


def test_the_output_is_written_before_the_marker(workspace):
    """A marker says that all is there: stdout to a file is only flushed at the end."""
    job = act(workspace, "print('x' * 100)")
    look = "import os\nreal = os.replace\n" + (
        "def replace(a, b):\n"
        "    if b.endswith('.done'): assert os.path.getsize(1) > 100\n"
        "    real(a, b)\n"
        "os.replace = replace\n"
    )
    workspace.script(look, "sitecustomize.py")
    with (job.directory / "out").open("wb") as out:
        command = [sys.executable, *job.command()[2:]]  # with site, which reads sitecustomize
        subprocess.run(command, env=job.environment(), cwd=job.directory, stdout=out, check=True, timeout=LONG)
    assert job.markers == [".done"]


# --- records ---


def test_the_marker(workspace):
    workspace.script("__version__ = '1.2'", "versioned.py")
    workspace.script("__version__ = 7", "odd.py")
    job = act(workspace, "import versioned, odd, os.path", attempt=4)
    process = job.start()
    assert process.wait(LONG) == 0
    marker = job.marker
    used = marker.pop("used")
    assert sorted(used) == ["cpu", "max_rss", "wall"]
    assert 0 < used["cpu"] < LONG
    assert 0 <= used["wall"] < LONG
    assert 1 << 20 < used["max_rss"] < 1 << 33
    assert 0 <= marker.pop("ended") - marker.pop("started") < LONG
    assert marker == {
        "state": "done",
        "exit_code": 0,
        "host": os.uname().nodename,
        "pid": process.pid,
        "native_id": None,
        "attempt": 4,
        "python": platform.python_version(),
        "packages": {"experimaestro_hpc": __version__, "versioned": "1.2"},
    }


def test_cpu_time_of_children_counts(workspace):
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    job = act(workspace, f"import subprocess\nsubprocess.run([sys.executable, '-S', '-c', {burn!r}])")
    assert job.run().returncode == 0
    assert job.marker["used"]["cpu"] >= 0.3


#: waits for children that it does not have, as some tasks do; then until its GPUs are looked at a second time
BUSY_WITH_GPUS = """
try:
    os.wait()
except ChildProcessError:
    pass
end = time.monotonic() + 20
while time.monotonic() < end and not (os.path.exists(os.environ["CALLS"]) and len(list(open(os.environ["CALLS"]))) > 1):
    time.sleep(0.1)
"""


def test_what_its_gpus_did(workspace, tmp_path):
    """With an nvidia-smi that says what a real one says, on any machine."""
    command, calls = tmp_path / "nvidia-smi", tmp_path / "calls"
    command.write_text(f"""#!/bin/sh\necho "$@" >> {calls}\necho "1000, 50"\necho "3000, [N/A]"\n""")
    command.chmod(0o755)
    job = act(workspace, BUSY_WITH_GPUS)
    ran = job.run(PATH=f"{tmp_path}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="0,3", CALLS=str(calls))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert calls.read_text().split()[:2] == ["-i", "0,3"]
    assert (job.marker["used"]["gpu_memory"], job.marker["used"]["gpu_busy"]) == (3000 * 1024**2, 0.5)


def test_nobody_is_left_behind_to_look_at_gpus(workspace, tmp_path, wait_until):
    """Also not by a task that is killed."""
    command, looks = tmp_path / "nvidia-smi", tmp_path / "looks"
    command.write_text(f"""#!/bin/sh\necho $PPID >> {looks}\n""")
    command.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    running = act(workspace, "time.sleep(60)").start(PATH=path, CUDA_VISIBLE_DEVICES="0")
    wait_until(lambda: looks.exists() and looks.read_text())
    running.kill()
    running.wait()
    watcher = int(looks.read_text().split()[0])
    wait_until(lambda: not Path(f"/proc/{watcher}").exists())


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", {}),
        ("No devices were found\n", {}),
        ("2, 1024, 50\n4, 2048, 80\n", {"gpu_memory": 2048 * 1024**2, "gpu_busy": 0.7}),
        ("2, 1024, [N/A]\n", {"gpu_memory": 1024**3}),
        ("2, [Unknown Error], 7\n", {"gpu_busy": 0.07}),
        ("2, 1024", {}),
    ],
)
def test_what_nvidia_smi_says(said, found):
    assert measured(said) == found


@pytest.mark.parametrize(
    ("env", "native_id"),
    [
        ({}, "from job.json"),
        ({"SLURM_JOB_ID": "17"}, "17"),
        ({"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "0"}, "17_0"),
        ({"OAR_JOB_ID": "5"}, "5"),
        ({"XPM_HPC_NATIVE_ID": "local-3"}, "local-3"),
    ],
)
def test_native_id(workspace, env, native_id):
    job = act(workspace, "pass", native_id="from job.json")
    job.run(**env)
    assert job.marker["native_id"] == job.record["native_id"] == job.read("progress.json")["native_id"] == native_id


def test_the_record_keeps_what_it_said(workspace):
    job = act(workspace, "pass", tags={"é": "\ud800"}, git={"commit": "c"}, attempt=2)
    before = job.record
    job.run()
    after = job.record
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == job.marker.keys() - {"attempt"}
    assert job.marker.items() <= after.items()


def test_the_end_of_an_earlier_attempt_is_forgotten(workspace):
    job = act(workspace, "pass", state="failed", reason="timeout", message="too slow", exit_code=9).mark("failed")
    assert job.run().returncode == 0
    assert job.markers == [".done"]
    assert not {"reason", "message"} & job.record.keys()
    assert (job.record["state"], job.record["exit_code"]) == ("done", 0)


def test_no_temporary_file_stays(workspace):
    job = act(workspace, "progress(1)")
    job.run()
    names = sorted(path.name for path in job.directory.iterdir())
    assert names == [".lock", "act.done", "job.json", "params.json", "progress.json"]


def test_progress(workspace):
    job = act(workspace, "progress(0.5, desc='epoch')\nprogress(1.0, level=1, desc='batch')", attempt=2)
    job.run()
    report = job.read("progress.json")
    marker = job.marker
    assert marker["started"] <= report.pop("updated") <= marker["ended"]
    assert report == {
        **{name: marker[name] for name in ("started", "host", "pid", "native_id", "attempt")},
        "progress": [{"value": 0.5, "desc": "epoch"}, {"value": 1.0, "desc": "batch"}],
    }


def test_progress_is_there_when_the_task_starts(workspace):
    job = act(workspace, "print(open('progress.json').read())")
    assert '"progress": []' in job.run().stdout


def test_what_a_task_sees(workspace):
    job = act(workspace, "print([os.getcwd(), os.environ['XPM_HPC_JOB'], sys.argv])", argv=["a.py", "--b", "é $(c)"])
    assert job.run().stdout == f"{[str(job.directory), job.id, ['a.py', '--b', 'é $(c)']]}\n"


# --- what stops a start ---


def test_a_second_run_is_refused(workspace, wait_until):
    job = act(workspace, "open('started', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)")
    first = job.start()
    wait_until((job.directory / "started").exists)
    before = job.text("progress.json")
    second = job.run()
    assert second.returncode == 75
    assert second.stderr == f"xpm-hpc: {job.id} is being run by another process; this one ends\n"
    assert job.markers == []
    assert job.text("progress.json") == before
    assert "state" not in job.record
    (job.directory / "go").touch()
    assert first.wait(LONG) == 0
    assert job.marker["pid"] == first.pid


def test_a_lock_does_not_outlive_its_process(workspace):
    job = act(workspace, "os.kill(os.getpid(), 9)")
    assert job.run().returncode == -9
    assert (job.directory / ".lock").exists()
    assert job.run().returncode == -9


def test_done_is_not_run_again(workspace):
    job = act(workspace, "open('ran', 'a').write('x')")
    assert job.run().returncode == 0
    marker = job.text("act.done")
    assert job.run().returncode == 0
    assert job.text("ran") == "x"
    assert job.text("act.done") == marker


def test_failed_is_run_again(workspace):
    job = act(workspace, "open('ran', 'a').write('x')\nsys.exit(len(open('ran').read()) == 1)")
    assert job.run().returncode == 1
    assert job.run().returncode == 0
    assert job.markers == [".done"]


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_usage(arguments):
    ended = subprocess.run(
        [sys.executable, "-S", lib() / "run_task.py", *arguments], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "usage: python -m experimaestro_hpc.runtime JOBDIR\n"


def test_as_a_module(workspace):
    job = act(workspace, "print('here')")
    path = f"{lib()}:{workspace.code}"
    ended = job.run(entry=["-m", "experimaestro_hpc.runtime"], PYTHONPATH=path)
    assert (ended.returncode, ended.stdout) == (0, "here\n")
    assert act(workspace, "sys.exit(3)", identifier="2").run(entry=["-m", "experimaestro_hpc.runtime"], PYTHONPATH=path)


def test_a_relative_directory_with_hostile_names(tmp_path):
    workspace = Workspace(tmp_path / 'it\'s a "work" $(touch x)\n é')
    workspace.script(TASKS)
    job = act(workspace, "print(os.getcwd())")
    command = [*job.command()[:-1], f"jobs/../jobs/{job.id}/"]
    ended = subprocess.run(command, cwd=workspace.root, env=job.environment(), capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert os.fsdecode(ended.stdout) == f"{job.directory}\n"


# --- parents ---


@pytest.mark.parametrize(
    ("markers", "message"),
    [
        (["done", "failed"], "its parent tasks.act/p1 failed"),
        (["failed", "done"], "its parent tasks.act/p0 failed"),
        (["done", None], "its parent tasks.act/p1 has not ended"),
        ([None, "failed"], "its parent tasks.act/p0 has not ended"),
    ],
)
def test_a_parent_that_did_not_end_well(workspace, markers, message):
    parents = []
    for number, state in enumerate(markers):
        parents.append(workspace.job("Act", {"what": "pass"}, identifier=f"p{number}"))
        if state:
            parents[-1].mark(state)
    job = act(workspace, "open('ran', 'w')", parents=[parent.id for parent in parents])
    ended = job.run()
    assert (ended.returncode, ended.stderr) == (1, f"xpm-hpc: {message}\n")
    marker = job.marker
    assert (marker["state"], marker["reason"], marker["message"]) == ("failed", "dependency", message)
    assert not (job.directory / "ran").exists()
    assert parents[0].markers == [f".{state}" for state in markers[:1] if state]


def test_a_parent_of_which_nothing_is_there(workspace):
    job = act(workspace, "pass", parents=["tasks.gone/0"])
    assert job.run().returncode == 1
    assert job.marker["message"] == "its parent tasks.gone/0 has not ended"


def test_a_parent_that_is_done_whatever_else_it_left(workspace):
    parent = workspace.job("Act", {"what": "pass"}, identifier="p").mark("failed").mark("done")
    assert act(workspace, "pass", parents=[parent.id]).run().returncode == 0


def test_a_marker_that_comes_late_is_waited_for(workspace, wait_until):
    parent = workspace.job("Act", {"what": "pass"}, identifier="p")
    look = f"open('seen', 'w').write(str(os.path.exists({str(parent.directory / 'act.done')!r})))"
    job = act(workspace, look, parents=[parent.id])
    process = job.start(XPM_HPC_MARKER_PATIENCE=str(LONG))
    wait_until((job.directory / "progress.json").exists)
    assert process.poll() is None
    parent.mark()
    assert process.wait(LONG) == 0
    assert job.text("seen") == "True"


def test_a_failure_that_comes_late_is_seen(workspace, wait_until):
    parent = workspace.job("Act", {"what": "pass"}, identifier="p")
    job = act(workspace, "pass", parents=[parent.id])
    process = job.start(XPM_HPC_MARKER_PATIENCE=str(LONG))
    wait_until((job.directory / "progress.json").exists)
    parent.mark("failed")
    assert process.wait(LONG) == 1
    assert job.marker["reason"] == "dependency"


# --- what cannot be loaded ---


@pytest.mark.parametrize(
    ("files", "reference", "message"),
    [
        ({"tasks.py": "import torch_of_tomorrow"}, {}, "No module named 'torch_of_tomorrow'; install it in the env"),
        ({"tasks.py": "import torch_of_tomorrow"}, {"file": None}, "No module named 'torch_of_tomorrow'; install it"),
        ({"tasks.py": "x = ("}, {}, "SyntaxError: "),
        ({"tasks.py": "1 / 0"}, {}, "ZeroDivisionError: division by zero"),
        ({"tasks.py": ""}, {}, "tasks.py does not define Act before its experiment starts; move the class up"),
        ({"tasks.py": ""}, {"file": None}, "AttributeError: module 'tasks' has no attribute 'Act'"),
        ({}, {"file": None, "module": "nowhere"}, "No module named 'nowhere'; install it"),
        ({}, {"file": "gone/tasks.py"}, "FileNotFoundError: "),
    ],
)
def test_launch(workspace, files, reference, message):
    for name, text in files.items():
        workspace.script(text, name)
    job = workspace.job("Act", {"what": "pass"}, **reference)
    ended = job.run()
    assert ended.returncode == 1
    marker = job.marker
    assert (marker["state"], marker["reason"]) == ("failed", "launch")
    assert message in marker["message"]
    assert sys.executable in marker["message"]
    assert "Traceback (most recent call last):" in ended.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("params.json", None, "the parameters of a task cannot be read"),
        ("params.json", "", "the parameters of a task cannot be read"),
        ("params.json", '{"schema": 1, "configs": [', "the parameters of a task cannot be read"),
        ("params.json", '{"schema": 2}', "written by another version of xpm-hpc (schema 2, known: 1)"),
        ("params.json", "{}", "written by another version of xpm-hpc (schema None, known: 1)"),
        # its parents are named there: running without would be running too early
        ("job.json", None, "its job.json is missing or cannot be read, so its parents are not known"),
        ("job.json", '{"parents": ["tasks.a', "its job.json is missing or cannot be read"),
    ],
)
def test_a_file_that_is_not_whole(workspace, name, text, message):
    job = act(workspace, "open('ran', 'w')")
    if text is None:
        (job.directory / name).unlink()
    else:
        (job.directory / name).write_text(text)
    assert job.run().returncode == 1
    assert job.marker["reason"] == "launch"
    assert message in job.marker["message"]
    assert not (job.directory / "ran").exists()


def test_an_object_that_refuses_its_values(workspace):
    job = workspace.job("Act", {"what": "pass", "data": {"$config": 1}}, configs=[{"class": "Broken", "params": {}}])
    assert job.run().returncode == 1
    assert job.marker["reason"] == "launch"
    assert "ValueError: no such data set" in job.marker["message"]


# --- what the task is made of ---


def step(workspace: Workspace, word: str, previous: Job | None = None, **options: object) -> Job:
    params = {"word": word, "previous": {"$task": previous.id} if previous else None}
    return workspace.job("Step", params, **options)


def test_parents_and_their_logs(workspace):
    parent = step(workspace, "'it is ' + 'here'", identifier="p")
    (parent.directory / "step.out").write_text("it was here")
    job = step(workspace, "self.previous.word + self.previous.__xpm_stdout__.read_text()", parent)
    assert job.run().stdout == "'it is ' + 'here'it was here\n"


def test_grandparents_are_read_when_they_are_looked_at(workspace):
    lost = step(workspace, "1", identifier="a")
    middle = step(workspace, "2", lost, identifier="b")
    (lost.directory / "params.json").unlink()
    careful = step(workspace, "self.previous.word", middle, identifier="c")
    assert careful.run().stdout == "2\n"
    curious = step(workspace, "self.previous.previous", middle, identifier="d")
    assert curious.run().returncode == 1
    assert f"{lost.directory}/params.json: the parameters of a task cannot be read" in curious.marker["message"]


def test_a_failed_look_is_not_remembered_as_nothing(workspace):
    lost = step(workspace, "1", identifier="a")
    middle = step(workspace, "2", lost, identifier="b")
    (lost.directory / "params.json").unlink()
    workspace.script(
        TASKS
        + "class Twice(Step):\n"
        + "    def execute(self):\n"
        + "        for _ in range(2):\n"
        + "            try: print(self.previous.previous)\n"
        + "            except Exception as error: print(type(error).__name__)\n"
    )
    job = workspace.job("Twice", {"previous": {"$task": middle.id}, "word": ""})
    assert job.run().stdout == "WorkspaceError\nWorkspaceError\n"


def test_the_last_of_a_long_chain_reads_what_it_looks_at(workspace):
    """2,000 ancestors, and all are found by who asks, without recursion."""
    last = None
    for number in range(2000):
        last = step(workspace, str(number), last, identifier=f"s{number}")
    workspace.script(
        TASKS
        + "class Count(Step):\n"
        + "    def execute(self):\n"
        + "        n, one = 0, self.previous\n"
        + "        while one is not None: n, one = n + 1, one.previous\n"
        + "        print(n)\n"
    )
    assert workspace.job("Count", {"previous": {"$task": last.id}, "word": ""}).run().stdout == "2000\n"


def test_a_shared_parent_is_one_object(workspace):
    parent = step(workspace, "1", identifier="p")
    job = workspace.job(
        "Step",
        {"previous": {"$task": parent.id}, "word": "self.previous is self.other[0]", "other": [{"$task": parent.id}]},
    )
    assert job.run().stdout == "True\n"


def test_a_task_may_make_objects_of_a_class_that_was_read_late(workspace):
    first = step(workspace, "1", identifier="a")
    middle = step(workspace, "2", first, identifier="b")
    job = step(workspace, "type(self)(previous=self.previous.previous).word", middle)
    ended = job.run()
    assert (ended.stdout, ended.stderr) == ("plain\n", "")


def test_parameters_younger_than_the_result(workspace):
    """The class has got parameters since its parent ran: their defaults hold, and paths are the parent's."""
    old = workspace.job("Step", {"previous": None}, identifier="old")
    job = step(workspace, "self.previous.word", old)
    assert job.run().stdout == "plain\n"
    made = {"class": "Model", "params": {"size": 3}, "source": old.id}
    model = workspace.job(
        "Step",
        {"previous": None, "word": "[self.model.encoder, str(self.model.late)]", "model": {"$config": 1}},
        identifier="2",
        configs=[made],
    )
    assert model.run().stdout.splitlines()[-1] == f"[None, '{old.directory}/late.bin']"


def test_outputs_of_another_task(workspace):
    """Objects with a source know their task, and their paths are in its directory."""
    source = step(workspace, "'source'", identifier="s")
    model = {
        "class": "Model",
        "params": {"size": 3, "path": {"$jobpath": "m.pt"}, "encoder": None},
        "source": source.id,
    }
    own = {"class": "Model", "params": {"size": 4, "path": {"$jobpath": "m.pt"}, "encoder": {"$config": 1}}}
    look = "[str(self.own.encoder.path), self.own.encoder.__xpmtask__.word, str(self.own.path), self.own.__xpmtask__]"
    job = workspace.job(
        "Step",
        {"previous": None, "word": look, "own": {"$config": 2}},
        configs=[model, own],
    )
    ended = job.run()
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "made 4",
        "made 3",
        f"['{source.directory}/m.pt', \"'source'\", '{job.directory}/m.pt', None]",
    ]


def test_files_are_copied_back_before_a_job_is_started_again(tmp_path, monkeypatch):
    """On a node that does not see the workspace the job's script does that, when a file asks for it."""
    monkeypatch.setattr(resume, "FLUSH_PATIENCE", 30.0)
    asked = tmp_path / "flush"
    monkeypatch.setattr(resume.time, "sleep", lambda _seconds: asked.unlink())
    assert resume._flush(str(asked))
    assert resume._flush("")
    assert not resume._flush(str(tmp_path / "no/such/folder"))
    monkeypatch.setattr(resume.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(resume, "FLUSH_PATIENCE", 0.01)
    assert not resume._flush(str(asked))
