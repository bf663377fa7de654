"""Queries through pyslurm: records as the real one has them, and children that crash, hang or talk nonsense."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experimaestro_hpc.agent.service import Service
from experimaestro_hpc.schedulers import pyslurm_query
from experimaestro_hpc.schedulers.base import Status
from experimaestro_hpc.schedulers.command import Commands
from experimaestro_hpc.schedulers.pyslurm_child import accounting_row, queue_row
from experimaestro_hpc.schedulers.pyslurm_query import Pyslurm, Unusable, check_series, installed, rows_of, series
from experimaestro_hpc.schedulers.slurm import Slurm
from experimaestro_hpc.schedulers.slurm_answers import parse_queue, read_accounting

# --- Records, as pyslurm 25.11 gives them of Slurm 26.05; it has None for zero


def in_queue(id_, state, reason, nodes, array=None, task=None, rest=None):
    return SimpleNamespace(
        id=id_,
        array_id=array,
        array_task_id=task,
        array_tasks_waiting=rest,
        state=state,
        state_reason=reason,
        allocated_nodes=nodes,
        name="",
    )


@pytest.mark.parametrize(
    ("record", "row", "expected"),
    [
        (
            in_queue(1, "COMPLETED", "None", "n1"),
            ["1", "COMPLETED", "None", "n1"],
            {"1": Status("ended", "", "COMPLETED", host="n1")},
        ),
        (
            in_queue(9, "RUNNING", "None", "n1"),
            ["9", "RUNNING", "None", "n1"],
            {"9": Status("running", host="n1")},
        ),
        (
            in_queue(6, "FAILED", "RaisedSignal:9(Killed)", "n1"),
            ["6", "FAILED", "RaisedSignal:9(Killed)", "n1"],
            {"6": Status("ended", "exit", "FAILED", host="n1")},
        ),
        (
            in_queue(11, "PENDING", "JobHeldUser", None),
            ["11", "PENDING", "JobHeldUser", ""],
            {"11": Status("held", detail="JobHeldUser")},
        ),
        (
            in_queue(17, "CANCELLED", "DependencyNeverSatisfied", None),
            ["17", "CANCELLED", "DependencyNeverSatisfied", ""],
            {"17": Status("ended", "dependency", "CANCELLED")},
        ),
        # the elements of array 8: the last one has the array's own id
        (
            in_queue(20, "COMPLETED", "None", "n1", 8),
            ["8_0", "COMPLETED", "None", "n1"],
            {"8_0": Status("ended", "", "COMPLETED", host="n1")},
        ),
        (
            in_queue(21, "FAILED", "NonZeroExitCode", "n1", 8, 1),
            ["8_1", "FAILED", "NonZeroExitCode", "n1"],
            {"8_1": Status("ended", "exit", "FAILED", host="n1")},
        ),
        (
            in_queue(8, "FAILED", "NonZeroExitCode", "n1", 8, 3),
            ["8_3", "FAILED", "NonZeroExitCode", "n1"],
            {"8_3": Status("ended", "exit", "FAILED", host="n1")},
        ),
        (
            in_queue(12, "PENDING", "Dependency", None, 12, None, "0-1,9"),
            ["12_[0-1,9]", "PENDING", "Dependency", ""],
            {one: Status("queued", detail="Dependency") for one in ("12_0", "12_1", "12_9")},
        ),
        (in_queue(3, "PENDING", None, None), ["3", "PENDING", "None", ""], {"3": Status("queued")}),
    ],
)
def test_a_record_of_the_queue(record, row, expected):
    assert queue_row(record) == [*row, ""]
    wanted = ["1", "3", "6", "9", "11", "17", "8", *(f"{array}_{index}" for array in (8, 12) for index in range(10))]
    assert parse_queue("|".join(queue_row(record)), wanted) == expected


def in_accounts(id_, state, nodes, status, signal_, by=None, array=None, task=None, rest=None):
    return SimpleNamespace(
        id=id_,
        array_id=array,
        array_task_id=task,
        array_tasks_waiting=rest,
        state=state,
        state_reason="None",
        nodelist=nodes,
        exit_code=status,
        exit_code_signal=signal_,
        cancelled_by=by,
        name="",
    )


@pytest.mark.parametrize(
    ("record", "row", "expected"),
    [
        (
            in_accounts(1, "COMPLETED", "n1", 0, 0),
            ["1", "COMPLETED", "0:0", "n1", "None"],
            Status("ended", "", "COMPLETED", 0, "n1"),
        ),
        (
            in_accounts(6, "FAILED", "n1", 0, 9),
            ["6", "FAILED", "0:9", "n1", "None"],
            Status("ended", "exit", "killed by signal 9", 137, "n1"),
        ),
        (in_accounts(7, "RUNNING", "n1", 0, 0), ["7", "RUNNING", "0:0", "n1", "None"], None),
        (
            in_accounts(17, "CANCELLED", "None assigned", 0, 0),
            ["17", "CANCELLED", "0:0", "None assigned", "None"],
            Status("ended", "dependency", "CANCELLED", 0),
        ),
        (
            in_accounts(18, "CANCELLED", "None assigned", 0, 0, "root"),
            ["18", "CANCELLED by 0", "0:0", "None assigned", "None"],
            Status("ended", "cancelled", "CANCELLED by 0", 0),
        ),
        (
            in_accounts(18, "CANCELLED", "None assigned", 0, 0, "gone-since"),
            ["18", "CANCELLED by gone-since", "0:0", "None assigned", "None"],
            Status("ended", "cancelled", "CANCELLED by gone-since", 0),
        ),
        (
            in_accounts(20, "COMPLETED", "n1", 0, 0, None, 8),
            ["8_0", "COMPLETED", "0:0", "n1", "None"],
            Status("ended", "", "COMPLETED", 0, "n1"),
        ),
        # which elements wait is written otherwise in the accounts; it is not needed
        (
            in_accounts(12, "PENDING", "None assigned", 0, 0, None, 12, None, "0x23F"),
            ["12_[0x23F]", "PENDING", "0:0", "None assigned", "None"],
            None,
        ),
        # an exit status of 128 and more has 128 less: not told
        (in_accounts(2, "FAILED", "n1", 3, 0), ["2", "FAILED", "", "n1", "None"], None),
        (in_accounts(3, "FAILED", "n1", 127, 0), ["3", "FAILED", "", "n1", "None"], None),
        (in_accounts(4, "FAILED", "n1", 0, 0), ["4", "FAILED", "", "n1", "None"], None),
    ],
)
def test_a_record_of_the_accounts(record, row, expected):
    assert accounting_row(record) == [*row, "", "", "", ""]
    if row[2]:
        assert read_accounting([accounting_row(record)], [row[0]]) == ({} if expected is None else {row[0]: expected})


# --- Versions and answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [("slurm 26.05.5", (26, 5)), ("slurm-wlm 22.05.8\n", (22, 5)), ("25.11.2", (25, 11)), ("26.5.0", (26, 5))],
)
def test_series(text, expected):
    assert series(text) == expected


@pytest.mark.parametrize("text", ["", "slurm", "None", "26"])
def test_no_series(text):
    with pytest.raises(Unusable, match="no version"):
        series(text)


@pytest.mark.parametrize(
    ("version", "built_for", "slurm", "trouble"),
    [
        ("25.11.2", "25.11.4", "slurm 25.11.0", ""),
        ("26.5.0", "26.5.5", "slurm-wlm 26.05.5", ""),
        ("25.11.2", "25.11.2", "slurm 26.05.5", "made for Slurm 25.11, and this is 26.05"),
        ("25.11.2", "26.5.5", "slurm 26.05.5", "made for Slurm 25.11, and this is 26.05"),
        ("26.5.0", "25.11.2", "slurm 26.05.5", "made for Slurm 25.11, and this is 26.05"),
        ("25.11.2", "25.11.2", "slurm 22.05.8", "made for Slurm 25.11, and this is 22.05"),
        ("25.11.2", "25.11.2", "", "no version is understood in ''"),
        (None, "25.11.2", "slurm 25.11.2", "no version is understood in 'None'"),
    ],
)
def test_check_series(version, built_for, slurm, trouble):
    greeting = {"version": version, "built_for": built_for}
    if trouble:
        with pytest.raises(Unusable, match=trouble):
            check_series(greeting, slurm)
    else:
        assert check_series(greeting, slurm) == version


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"rows": None},
        {"rows": "17"},
        {"rows": {}},
        {"rows": ["17"]},
        {"rows": [["17", "x"]]},
        {"rows": [[17, "x", "y"]]},
    ],
)
def test_answers_that_are_not_understood(answer):
    with pytest.raises(Unusable, match="not understood"):
        rows_of(answer, 3)


def test_answers():
    assert rows_of({"rows": []}, 3) == []
    assert rows_of({"rows": [["a", "b", "c"]]}, 3) == [["a", "b", "c"]]
    assert rows_of({"refused": "Unable to contact slurm controller"}, 3) is None


# --- Children that stand in for broken ones

GOOD = {"version": "26.5.5", "built_for": "26.5.5"}
RUNNING = {"17": Status("running", host="n1")}


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """scontrol of 26.05; squeue knows job 17, and sacct 18."""
    folder = tmp_path / "bin"
    folder.mkdir()
    printed = {"scontrol": "slurm-wlm 26.05.5", "squeue": "17|RUNNING|None|n1|", "sacct": "18|FAILED|255:0|n1|None||||"}
    for name, line in printed.items():
        (folder / name).write_text(f"#!/bin/sh\necho '{line}'\n")
        (folder / name).chmod(0o755)
    return Commands({"PATH": str(folder)})


def standing_in(commands: Commands, program: str, greeting: dict[str, str] | None = GOOD) -> Slurm:
    """Our scheduler with a child that greets, unless it has no greeting, and runs ``program`` at each question."""
    lines = [
        "import json, os, signal, sys, time",
        f"print({json.dumps(greeting)!r}, flush=True)" if greeting else "",
        "for line in sys.stdin if sys.argv[1] != 'now' else ['']:",
        *(f"    {line}" for line in program.splitlines()),
    ]
    argv = [sys.executable, "-c", "\n".join(lines), "" if greeting else "now"]
    return Slurm("/nowhere", commands, Pyslurm(commands, argv))


def test_rows_are_taken_from_the_child(commands):
    slurm = standing_in(commands, "print(json.dumps({'rows': [['17', 'PENDING', 'Priority', '', '']]}), flush=True)")
    assert slurm.queries() == "pyslurm 26.5.5"
    for _ in range(2):
        assert slurm.query(["17"]) == {"17": Status("queued", detail="Priority")}
    assert slurm.calls() == {"scontrol": 1, "pyslurm": 2}
    slurm.pyslurm.close()


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("sys.exit('what a pity')", "it ended with exit status 1 (what a pity)"),
        ("sys.exit(0)", "it ended with exit status 0"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "it was ended by signal 11"),
        ("time.sleep(600)", "it has not answered for 1 s"),
        ("os.write(1, b'{'); time.sleep(600)", "it has not answered for 1 s"),
        ("print('slurm_load_jobs', flush=True)", "it says what is not understood: b'slurm_load_jobs'"),
        ("print('[]', flush=True)", "it says what is not understood: b'[]'"),
        ("print('\\x00\\xff', flush=True)", "it says what is not understood: b'\\x00\\xc3\\xbf'"),
    ],
)
@pytest.mark.parametrize("greeting", [GOOD, None], ids=["later", "at once"])
def test_a_child_that_fails_is_given_up_once(commands, capfd, monkeypatch, program, why, greeting):
    if "sleep" in program:
        monkeypatch.setattr(pyslurm_query, "START_TIMEOUT" if greeting is None else "TIMEOUT", 1)
    slurm = standing_in(commands, program, greeting)
    for _ in range(3):
        assert slurm.query(["17"]) == RUNNING
    calls = {"scontrol": 1, "squeue": 3}
    assert slurm.calls() == (calls if greeting is None else {**calls, "pyslurm": 1})
    assert slurm.queries() == f"squeue (pyslurm: {why})"
    said = [line for line in capfd.readouterr().err.splitlines() if "pyslurm" in line]
    assert said == [f"xpm-hpc: pyslurm is not used: {why}; squeue and sacct are asked instead"]


def test_a_child_that_is_killed_between_two_questions(commands):
    slurm = standing_in(commands, "print(json.dumps({'rows': []}), flush=True)")
    slurm.pyslurm.queue()
    assert slurm.pyslurm.pid
    os.kill(slurm.pyslurm.pid, signal.SIGKILL)
    assert slurm.query(["17"]) == RUNNING
    assert slurm.queries() == "squeue (pyslurm: it was ended by signal 9)"


def test_what_hangs_is_ended(commands, monkeypatch):
    monkeypatch.setattr(pyslurm_query, "TIMEOUT", 1)
    slurm = standing_in(commands, "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")
    assert slurm.queries() == "pyslurm 26.5.5"
    pid = slurm.pyslurm.pid
    assert slurm.query(["17"]) == RUNNING
    assert pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    "greeting",
    [{"version": "25.11.2", "built_for": "25.11.2"}, {"version": "25.11.2", "built_for": "26.5.5"}],
)
def test_one_that_is_made_for_another_slurm_is_asked_nothing(commands, capfd, greeting):
    slurm = standing_in(commands, "print(json.dumps({'rows': []}), flush=True)", greeting)
    assert slurm.query(["17"]) == RUNNING
    assert slurm.calls() == {"scontrol": 1, "squeue": 1}
    assert slurm.queries() == "squeue (pyslurm: it is made for Slurm 25.11, and this is 26.05)"
    assert capfd.readouterr().err.count("pyslurm is not used") == 1


def test_without_scontrol_it_cannot_be_compared(commands, tmp_path):
    (tmp_path / "bin" / "scontrol").unlink()
    slurm = standing_in(commands, "print(json.dumps({'rows': []}), flush=True)")
    assert slurm.query(["17"]) == RUNNING
    assert slurm.queries().startswith("squeue (pyslurm: scontrol: ")


def test_one_that_cannot_be_started(commands):
    slurm = Slurm("/nowhere", commands, Pyslurm(commands, ["/no/such/python"]))
    assert slurm.query(["17"]) == RUNNING
    assert "/no/such/python" in slurm.queries()


def test_what_slurm_refuses_is_asked_of_the_commands_and_of_pyslurm_again(commands):
    slurm = standing_in(commands, "print(json.dumps({'refused': 'Unable to contact slurm controller'}), flush=True)")
    for _ in range(2):
        assert slurm.query(["17"]) == RUNNING
    assert slurm.calls() == {"scontrol": 1, "pyslurm": 2, "squeue": 2}
    assert slurm.queries() == "pyslurm 26.5.5"
    slurm.pyslurm.close()


def test_exit_codes_that_pyslurm_does_not_tell_are_asked_of_sacct(commands):
    program = (
        "question = json.loads(line)\n"
        "rows = [['18', 'FAILED', '', 'n1', 'None'], ['19', 'COMPLETED', '0:0', 'n1', 'None']]\n"
        "rows = [[*row, '', '', '', ''] for row in rows]\n"
        "assert question in ({'ask': 'queue'}, {'ask': 'accounting', 'ids': [18, 19, 20]}), question\n"
        "print(json.dumps({'rows': rows if 'ids' in question else []}), flush=True)"
    )
    slurm = standing_in(commands, program)
    assert slurm.query(["19", "18", "20_3", "20_1"]) == {
        "18": Status("ended", "exit", "FAILED", 255, "n1"),
        "19": Status("ended", "", "COMPLETED", 0, "n1"),
    }
    assert slurm.calls() == {"scontrol": 1, "pyslurm": 2, "sacct": 2}, "an array's elements, and then the array"
    slurm.pyslurm.close()


# --- The child itself, with a module that stands in for pyslurm

STAND_IN = """
import os
from types import SimpleNamespace

print("what libslurm prints", flush=True)
__version__ = "26.5.5"

def slurm_api_version():
    return (26, 5, 5)

class RPCError(Exception):
    pass

def job(id_, **changes):
    usual = dict(id=id_, array_id=None, array_task_id=None, array_tasks_waiting=None, state="RUNNING", exit_code=0,
                 state_reason="None", allocated_nodes="n1", nodelist="n1", exit_code_signal=0, cancelled_by=None,
                 name="")
    return SimpleNamespace(**{**usual, "user_id": os.getuid(), **changes})

class Jobs(dict):
    @staticmethod
    def load():
        print("and more of it")
        if os.path.exists("refuse"):
            raise RPCError("Unable to contact slurm controller (connect failure)")
        if os.path.exists("crash"):
            os.abort()
        if os.path.exists("fail"):
            raise TypeError("unsupported operand")
        return Jobs({1: job(17), 2: job(18, user_id=os.getuid() + 1)})

class db:
    class JobFilter:
        def __init__(self, ids):
            self.ids = ids

    class Jobs(dict):
        @staticmethod
        def load(chosen):
            return db.Jobs({id_: job(id_, state="COMPLETED") for id_ in chosen.ids})
"""


@pytest.fixture
def own(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """Our scheduler, in a Python that has a pyslurm."""
    package = tmp_path / "modules" / "pyslurm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.chdir(tmp_path)
    return Slurm("/nowhere", commands)


def test_the_child_answers_for_this_users_jobs(own):
    assert own.queries() == "pyslurm 26.5.5"
    assert own.query(["17", "18", "19"]) == {
        "17": Status("running", host="n1"),
        "18": Status("ended", "", "COMPLETED", 0, "n1"),
        "19": Status("ended", "", "COMPLETED", 0, "n1"),
    }
    assert own.calls() == {"scontrol": 1, "pyslurm": 2}
    own.pyslurm.close()


@pytest.mark.parametrize(
    ("what", "queries"),
    [
        ("refuse", "pyslurm 26.5.5"),
        ("crash", "squeue (pyslurm: it was ended by signal 6"),
        ("fail", "squeue (pyslurm: it ended with exit status 1 (TypeError: unsupported operand))"),
    ],
)
def test_the_child_in_trouble(own, tmp_path, what, queries):
    (tmp_path / what).touch()
    assert own.query(["17"]) == RUNNING
    assert own.queries().startswith(queries)
    own.pyslurm.close()


def test_the_child_ends_with_its_parent(own, wait_until):
    assert own.queries() == "pyslurm 26.5.5"
    process = own.pyslurm._child.process
    process.stdin.close()
    wait_until(lambda: process.poll() is not None)
    assert process.returncode == 0
    own.pyslurm.close()


@pytest.mark.parametrize("what", ["nothing", "a file", "a folder"])
def test_what_is_no_pyslurm(commands, tmp_path, monkeypatch, what):
    place = tmp_path / "modules"
    place.mkdir()
    if what == "a file":
        (place / "pyslurm.py").write_text("raise SystemExit('never imported')\n")
    elif what == "a folder":
        (place / "pyslurm").mkdir()
    monkeypatch.syspath_prepend(place)
    assert not installed()
    slurm = Slurm("/nowhere", commands)
    assert slurm.query(["17"]) == RUNNING
    assert slurm.queries() == "squeue"
    assert slurm.calls() == {"squeue": 1}


def test_the_survey_says_what_is_asked(commands, own, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin" / "sbatch").symlink_to("scontrol")
    service = Service(str(tmp_path / "work"), "slurm")
    assert service.survey([])["queries"] == "pyslurm 26.5.5"
    service.scheduler.pyslurm.close()
    assert Service(str(tmp_path / "work"), "local").survey([])["queries"] == ""
