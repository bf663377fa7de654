"""The OAR scheduler: directives and arguments, what OAR's commands print, and the calls that are made of them.

The outputs were recorded from OAR 2.5.9, shortened; those marked "source" are written after its Perl.
Golden scripts are made anew with ``XPM_HPC_GOLDEN=new pytest tests/unit/test_oar.py``: look at the difference.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experimaestro_hpc.driver.script import ScriptJob, Scripts
from experimaestro_hpc.driver.why_oar import why_waiting
from experimaestro_hpc.errors import LauncherError, SubmissionError
from experimaestro_hpc.resources import Resources
from experimaestro_hpc.schedulers import scheduler_class
from experimaestro_hpc.schedulers.base import NoInformation, Request, Status, Submission, job_name
from experimaestro_hpc.schedulers.command import Answer, Commands
from experimaestro_hpc.schedulers.oar import Oar, job_status, parse_jobs, parse_submitted, successor
from experimaestro_hpc.schedulers.oar_request import arguments, coded, directive, parse_directives

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
HOSTILE = """it's $(touch pwned) `touch pwned` "q" ; é \u732b \\ %d"""


def request(text: str = "any", **changes: Any) -> Request:
    options = changes.pop("options", {})
    return replace(Request("say", Resources.parse(text), options=options), **changes)


def asked(text: str = "any", **changes: Any) -> list[str]:
    """The directives without name and logs."""
    return [line for line in Oar.directives(request(text, **changes)) if not re.match("#OAR --(name|std)", line)]


# --- Directives


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("any", {}, "/resource_id=1"),
        ("duration=90s", {}, "/resource_id=1,walltime=0:1:30"),
        ("duration=30h", {}, "/resource_id=1,walltime=30:0:0"),
        ("cores=4", {}, "/nodes=1/core=4"),
        ("cores=4 & duration=2h", {}, "/nodes=1/core=4,walltime=2:0:0"),
        ("cores=4 & tasks_per_node=2 & nodes=3", {}, "/nodes=3/core=8"),
        ("tasks_per_node=2", {}, "/nodes=1/core=2"),
        ("nodes=2", {}, "/nodes=2"),
        ("gpu * 2", {}, "/nodes=1/gpu=2"),
        ("gpu * 2 & nodes=2", {"gpu_property": "gpu_device", "host_property": "host"}, "/host=2/gpu_device=2"),
        ("cores=2", {"core_property": "thread"}, "/nodes=1/thread=2"),
        # the launcher's own resources, and what a task's wishes take the place of
        ("any", {"resource": "/nodes=1/core=2,walltime=3:00"}, "/nodes=1/core=2,walltime=3:00"),
        ("any", {"l": "core=2, walltime = 3"}, "core=2,walltime=3"),
        ("any", {"resource": "walltime=0:30"}, "/resource_id=1,walltime=0:30"),
        ("any", {"walltime": "0:30"}, "/resource_id=1,walltime=0:30"),
        ("any", {"resource": "core=2,walltime=1", "walltime": "5"}, "core=2,walltime=1"),
        ("duration=1m", {"resource": "core=2,walltime=3"}, "core=2,walltime=0:1:0"),
        ("cores=8", {"resource": ["core=2,walltime=3", "core=4"]}, "/nodes=1/core=8,walltime=3"),
        ("any", {"resource": "{mem>=512 AND host='a'}/core=2"}, "{mem>=512 AND host='a'}/core=2"),
    ],
)
def test_resources(text: str, options: dict[str, Any], expected: str) -> None:
    assert asked(text, options=options) == [f"#OAR --resource {expected}"]


def test_alternatives_of_the_launcher_are_kept() -> None:
    assert asked("duration=1m", options={"resource": ["core=2,walltime=3", "core=4"]}) == [
        "#OAR --resource core=2,walltime=0:1:0",
        "#OAR --resource core=4,walltime=0:1:0",
    ]


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("gpu(model=Tesla V100)", {}, ["#OAR --property gpu_model = 'Tesla V100'"]),
        ("gpu", {"gpu_type": "o'A100"}, ["#OAR --property gpu_model = 'o''A100'"]),
        ("any", {"gpu_type": "A100"}, []),
        (
            "gpu(mem=24G) & mem=1G",
            {
                "options": {
                    "gpu_memory_property": "gpu_mem",
                    "memory_property": "mem",
                    "p": "cluster = 'x' OR drain='N'",
                }
            },
            [
                "#OAR --property (cluster = 'x' OR drain='N') AND (gpu_mem >= 24576) AND (mem >= 1024)",
                "# memory is asked for as mem, counted in M",
            ],
        ),
        (
            "mem=1.5G",
            {"options": {"memory_property": "mem", "memory_unit": "G"}},
            ["#OAR --property mem >= 2", "# memory is asked for as mem, counted in G"],
        ),
        ("any", {"options": {"property": ["a=1", "b=2"]}}, ["#OAR --property (a=1) AND (b=2)"]),
        (
            "gpu(mem=24G) & cores=4 & mem=64G",
            {},
            [
                "# gpu_memory is not asked for, as the launcher's [defaults] have no gpu_memory_property",
                "# memory is not asked for, as the launcher's [defaults] have no memory_property",
                "# the number of cores is not asked for: they go with the GPUs",
            ],
        ),
    ],
)
def test_properties(text: str, changes: dict[str, Any], expected: list[str]) -> None:
    assert asked(text, **changes)[1:] == expected


def test_other_options() -> None:
    options = {
        "queue": "default",
        "t": ["besteffort", "idempotent"],
        "project": "my project",
        "notify": "mail:me@x.org",
        "checkpoint": 60,
        "signal": 10,
        "hold": True,
    }
    assert asked(options=options, partition="production")[1:] == [
        "#OAR --queue production",
        "#OAR --type besteffort",
        "#OAR --type idempotent",
        "#OAR --project my project",
        "#OAR --notify mail:me@x.org",
        "#OAR --checkpoint 60",
        "#OAR --signal 10",
        "#OAR --hold",
    ]
    assert asked(options={"hold": False, "partition": "q"})[1:] == ["#OAR --queue q"]


@pytest.mark.parametrize(
    ("options", "types", "checkpoint", "signal"),
    [
        ({}, ["idempotent"], "60", "12"),
        ({"t": "besteffort"}, ["besteffort", "idempotent"], "60", "12"),
        ({"type": ["idempotent", "allowed=x"]}, ["idempotent", "allowed=x"], "60", "12"),
        ({"checkpoint": 300, "signal": 10}, ["idempotent"], "300", "10"),
    ],
)
def test_a_task_that_goes_on_is_warned_and_idempotent(
    options: dict[str, Any], types: list[str], checkpoint: str, signal: str
) -> None:
    found = parse_directives("#!\n" + "\n".join(Oar.directives(request(options=options, warning=60))))
    assert [value for option, value in found if option == "type"] == types
    assert (dict(found)["checkpoint"], dict(found)["signal"]) == (checkpoint, signal)


@pytest.mark.parametrize(
    ("options", "duration"),
    [
        ({}, None),
        ({"walltime": "2"}, 7200),
        ({"walltime": "0:30"}, 1800),
        ({"walltime": "0:1:30"}, 90),
        ({"l": "/nodes=1/core=2,walltime=3"}, 10800),
        ({"resource": "core=2", "walltime": "1"}, 3600),
        ({"resource": ["core=2,walltime=3", "core=4,walltime=2:30"]}, 9000),
        ({"resource": ["core=2,walltime=3", "core=4"]}, None),
        ({"walltime": "soon"}, None),
        ({"walltime": 0}, None),
        ({"bogus": 1}, None),
    ],
)
def test_default_amounts(options: dict[str, Any], duration: int | None) -> None:
    assert Oar.default_amounts(options) == Resources(duration=duration)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "mine"},  # xpm-hpc's own business
        {"directory": "/tmp"},
        {"stdout": "x"},
        {"array": 3},
        {"bogus": 1},
        {"queue": "a'b"},  # would end up in OAR's SQL as it is
        {"project": "a\\"},
        {"type": ["besteffort", "x'"]},
        {"queue": "a\n#OAR --hold"},
        {"property": "a\x85b"},
        {"queue": ""},
        {"queue": " a"},
        {"queue": ["a", "b"]},
        {"queue": True},
        {"hold": "yes"},
        {"checkpoint": "1m"},
        {"signal": "USR1"},
    ],
)
def test_options_that_oar_would_not_take(options: dict[str, Any]) -> None:
    with pytest.raises(LauncherError):
        Oar.directives(request(options=options))


def test_name_and_logs() -> None:
    assert Oar.directives(request(name=HOSTILE, log="job.log"))[0] == (
        "#OAR --name it-s---touch-pwned---touch-pwned---q-----------d"
    )
    assert Oar.directives(request())[-2:] == ["#OAR --stdout job.log", "#OAR --stderr job.log"]
    for changes in ({"log": "a=b.log"}, {"log": "%a.log"}, {"log": "é.log"}, {"array": True}):
        assert Oar.directives(request(**changes))[-1] == "#OAR --stderr oar.%jobid%.log"


#: how OAR's own scanner reads a line (source: OAR/Sub.pm)
SCANNED = re.compile(
    r"#OAR\s+(?:(?:--hold)\s*|(?:--checkpoint|--signal)\s*(\d+)"
    r"|(?:--resource|--queue|--property|--notify|--type|--name|--project|--stdout|--stderr)\s*(.+))"
)


def test_oar_would_scan_the_directives_too() -> None:
    options = {
        "hold": True,
        "signal": 10,
        "project": "=a b",
        "property": "-x='1' # no",
        "type": "deadline=2030-01-01 10:00",
    }
    for line in Oar.directives(request("gpu & cores=4", options=options)):
        if line.startswith("#OAR"):
            found = SCANNED.fullmatch(line)
            assert found, line
            assert parse_directives(f"#!\n{line}")[0][1] == (found[1] or found[2] or "")


def test_only_the_head_of_a_script_is_read() -> None:
    script = "#!/bin/bash\n#OAR --queue a b\n# remark\n#OAR --hold\n\n#OAR --queue c\necho\n#OAR --queue d\n"
    assert parse_directives(script) == [("queue", "a b"), ("hold", "")]
    assert parse_directives("#OAR --queue a\n") == []  # the first line is never one
    assert directive("queue", "x") == "#OAR --queue x"


# --- Arguments of oarsub

SCRIPT = "#!/bin/bash\n#OAR --name say\n#OAR --resource core=2,walltime=0:1:0\n#OAR --hold\n#OAR --stdout job.log\n"


def submission(**changes: Any) -> Submission:
    return replace(Submission("t0ken", job_name("say", "t0ken"), "/w/jobs/say/1/job.sh", "/w/jobs/say/1"), **changes)


def test_arguments_of_a_job() -> None:
    assert arguments(submission(dependencies=["7", "8"]), SCRIPT) == [
        "oarsub",
        "--name=say-t0ken",
        "--directory=/w/jobs/say/1",
        "--hold",
        "--stdout=job.log",
        "--resource=core=2,walltime=0:1:0",
        "--anterior=7",
        "--anterior=8",
        "exec /w/jobs/say/1/job.sh",
    ]


@pytest.mark.parametrize(
    ("indexes", "dependencies", "array", "resources", "call"),
    [
        ([0], [], None, 1, "0"),
        ([4], ["7"], None, 1, "4"),
        ([0, 1, 2, 5], [], "--array=4", 1, "0-2,5"),
        ([0, 2], ["7"], "--array=2", 2, "0,2"),  # OAR forgets the dependency unless there are alternatives
        ([0, 2], ["7", "8"], "--array=2", 1, "0,2"),
    ],
)
def test_arguments_of_an_array(
    indexes: list[int], dependencies: list[str], array: str | None, resources: int, call: str
) -> None:
    one = submission(indexes=indexes, dependencies=dependencies, script="/w/a b/array.sh", directory="/w/a b")
    argv = arguments(one, SCRIPT)
    assert [word for word in argv if word.startswith("--array")] == ([array] if array else [])
    assert argv.count("--resource=core=2,walltime=0:1:0") == resources
    assert argv[-1] == f"exec '/w/a b/array.sh' {call}"


ASKED = SCRIPT + "#OAR --property (a=1) AND (mem >= 1024)\n# memory is asked for as mem, counted in M\n"


@pytest.mark.parametrize(
    ("changes", "script", "expected"),
    [
        ({"resources": Resources(duration=5400)}, SCRIPT, ["--resource=core=2,walltime=1:30:0"]),
        ({"resources": Resources(memory="2G")}, ASKED, ["--property=(a=1) AND (mem >= 2048)"]),
        (
            {"resources": Resources(memory="2G")},
            ASKED.replace("mem >= 1024", "omem >= 1"),
            ["--property=((a=1) AND (omem >= 1)) AND (mem >= 2048)"],
        ),
        (
            {"resources": Resources(memory="1G")},
            SCRIPT + "# memory is asked for as m, counted in G\n",
            ["--property=m >= 1"],
        ),
        (
            {"avoid": ["o1", "o-2.site.org", "o'3"]},
            SCRIPT,
            [
                "--property=(NOT (network_address = 'o1' OR network_address LIKE 'o1.%')) AND "
                "(NOT (network_address = 'o-2' OR network_address LIKE 'o-2.%'))"
            ],
        ),
        ({"resources": Resources()}, ASKED, ["--property=(a=1) AND (mem >= 1024)", "--resource=core=2,walltime=0:1:0"]),
    ],
)
def test_arguments_of_a_later_attempt(changes: dict[str, Any], script: str, expected: list[str]) -> None:
    argv = arguments(submission(**changes), script)
    assert [word for word in argv if word in expected or word.startswith("--property")] == expected


def test_a_later_attempt_may_begin_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1795401206.0)
    monkeypatch.setattr("time.localtime", time.gmtime)
    argv = arguments(submission(delay=60.0), SCRIPT)
    assert "--type=postpone=2026-11-23 02:34:26" in argv


def test_more_memory_that_nobody_can_be_asked_for_is_refused() -> None:
    with pytest.raises(SubmissionError, match="memory_property"):
        arguments(submission(resources=Resources(memory="2G")), SCRIPT)


def test_an_array_keeps_its_only_dependency_even_without_directives() -> None:
    argv = arguments(submission(indexes=[0, 1], dependencies=["7"]), "#!/bin/bash\n")
    assert argv.count("--resource=/resource_id=1") == 2


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
@pytest.mark.parametrize("name", [HOSTILE, "a\nb\n", "ends with \\", "a\udce9b", "~x", "-n", "a b%=+@,:"])
def test_a_hostile_directory_is_reached_and_nothing_in_its_name_runs(tmp_path: Path, name: str, shell: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    script = folder / "job.sh"
    script.write_text('#!/bin/bash\nprintf %s "$PWD" >where\nprintf %s "$*" >arguments\n')
    script.chmod(0o755)
    argv = arguments(submission(script=str(script), directory=str(folder), indexes=[3, 4]), SCRIPT)
    start = next(word for word in argv if word.startswith("--directory=")).partition("=")[2]
    assert re.fullmatch(r"/[A-Za-z0-9_./ @%+=:,~-]*", start)  # without what Perl and shells interpret
    assert argv[-1].isascii()
    assert "\n" not in argv[-1]
    if start == "/":
        assert "--stdout=/dev/null" in argv
    subprocess.run([shell, "-c", argv[-1]], cwd=start, check=True)
    assert os.fsencode(folder) == (folder / "where").read_bytes()
    assert (folder / "arguments").read_text() == "3-4"
    assert not list(tmp_path.rglob("pwned"))


def test_coded() -> None:
    assert coded("/a b/é%d") == "\"$(printf %b '/a\\0040b/\\0303\\0251\\0045d')\""


# --- What oarsub prints

SUBMITTED = "[ADMISSION RULE] Modify resource description with type constraints\nOAR_JOB_ID=1\n"
ARRAY = (
    "[ADMISSION RULE] Modify resource description with type constraints\n"
    "OAR_JOB_ID=73\nOAR_JOB_ID=74\nOAR_JOB_ID=75\nOAR_ARRAY_ID=73\n"
)
REFUSED = "[ADMISSION RULE] Modify resource description with type constraints\nOAR_JOB_ID=-5\n"
REFUSED_ERR = (
    "There are not enough resources for your request\n[ERROR] Oarsub failed, please verify your request syntax.\n"
)


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        (SUBMITTED, ["1"]),
        (ARRAY, ["73", "74", "75"]),
        (REFUSED, []),
        ("", []),
        ("OAR_JOB_ID=\n", []),
        ("motd OAR_JOB_ID=3 x\n", []),
        ('OAR_JOB_ID=81\r\n\n##########\n{\n   "job_id" : 81\n}\n', ["81"]),
    ],
)
def test_submitted(out: str, expected: list[str]) -> None:
    assert parse_submitted(out) == expected


class Fake(Commands):
    """Answers with what it is given, in order, and notes what it was asked."""

    def __init__(self, *answers: Answer | str) -> None:
        super().__init__({})
        self.answers = [one if isinstance(one, Answer) else Answer(0, one, "") for one in answers]
        self.asked: list[list[str]] = []

    def run(self, argv: Sequence[str], *, extra: Any = None) -> Answer:
        self.asked.append(list(argv))
        return self.answers.pop(0)


def oar(*answers: Answer | str) -> tuple[Oar, Fake]:
    fake = Fake(*answers)
    return Oar("/w", fake), fake


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "job.sh"
    path.write_text(SCRIPT)
    return str(path)


def test_submit_makes_the_script_executable_and_calls_once(script: str) -> None:
    scheduler, fake = oar(SUBMITTED)
    assert scheduler.submit(submission(script=script)) == ["1"]
    assert os.access(script, os.X_OK)
    assert [argv[0] for argv in fake.asked] == ["oarsub"]


def test_submit_of_an_array(script: str) -> None:
    scheduler, _ = oar(Answer(0, ARRAY, "Simple array job submission is used\n"))
    assert scheduler.submit(submission(script=script, indexes=[0, 4, 5])) == ["73", "74", "75"]


def test_a_server_that_was_not_told_runs_the_job_all_the_same(script: str) -> None:
    words = "[ERROR] Cannot connect to executor localhost:6666. Job is killed.\n"
    scheduler, _ = oar(Answer(9, SUBMITTED, words))
    assert scheduler.submit(submission(script=script)) == ["1"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(8, REFUSED, REFUSED_ERR), "oarsub: There are not enough resources for your request"),
        (Answer(1, "", "Unknown option: bogus\n"), "oarsub: Unknown option: bogus"),
        (Answer(5, "Usage: oarsub [options]", ""), "oarsub: Usage: oarsub [options]"),
        (Answer(248, "", "ERROR : The queue x does not exist\n"), "oarsub: ERROR : The queue x does not exist"),
        (Answer(254, "", "[ADMISSION RULE] root and oar users are not allowed.\n"), "oarsub: [ADMISSION RULE] root"),
        (Answer(255, "", "/!\\ Cannot recognize the resource description : x\n"), "oarsub: /!\\ Cannot recognize"),
    ],
)
def test_refusals(script: str, answer: Answer, words: str) -> None:
    scheduler, _ = oar(answer)
    with pytest.raises(SubmissionError) as caught:
        scheduler.submit(submission(script=script))
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(0, "", ""),
        Answer(0, ARRAY, ""),  # three, for one
        Answer(1, "", ""),
        Answer(8, "OAR_JOB_ID=\n", REFUSED_ERR),  # source: the database failed
        Answer(8, "OAR_JOB_ID=3\nOAR_JOB_ID=-5\n", REFUSED_ERR),
        Answer(25, "", "no database\n"),
        Answer(-15, "", ""),
        Answer(2, SUBMITTED, ""),
    ],
)
def test_answers_that_are_none(script: str, answer: Answer) -> None:
    scheduler, _ = oar(answer)
    with pytest.raises(NoInformation):
        scheduler.submit(submission(script=script))


def test_a_script_that_is_gone_is_refused(tmp_path: Path) -> None:
    scheduler, fake = oar()
    with pytest.raises(SubmissionError, match="cannot be used"):
        scheduler.submit(submission(script=str(tmp_path / "no.sh")))
    assert not fake.asked


# --- What oarstat prints


def event(type_: str, description: str = "", to_check: str = "NO", event_id: int = 1) -> dict[str, Any]:
    return {"type": type_, "description": description, "to_check": to_check, "event_id": event_id, "date": 1795401442}


def shown(native: int = 3, **fields: Any) -> dict[str, Any]:
    """A job as ``oarstat -f -J`` shows it."""
    return {
        "Job_Id": native,
        "array_id": native,
        "array_index": 1,
        "name": "say-t0ken",
        "state": "Waiting",
        "assigned_network_address": [],
        "message": "R=1,W=0:1:0,J=B,N=waiter (Karma=0.000,quota_ok)",
        "events": [],
        "dependencies": [],
        "resubmit_job_id": 0,
        "exit_code": None,
        **fields,
    }


def listing(*jobs: dict[str, Any]) -> str:
    return json.dumps({str(job["Job_Id"]): job for job in jobs}, indent=3)


TERMINATE = event("SWITCH_INTO_TERMINATE_STATE", "[bipbip 3] Ask to change the job state")
ERROR = event("SWITCH_INTO_ERROR_STATE", "[bipbip 3] Ask to change the job state", event_id=13)
FRAG = event("FRAG_JOB_REQUEST", "User alice requested to frag the job 16", event_id=12)
SARKO = event("CHECKPOINT", "User oar (sarko) requested a checkpoint on the job 3 on localhost")
DIRECTORY = "[bipbip 13] Cannot go into the working directory /no/such/dir of the job on node localhost"
SUSPECTED = "[bipbip 1] OAR suspects nodes for the job 1 : node1"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Status("queued")),
        ({"state": "Hold", "message": None}, Status("held")),
        ({"state": "toLaunch", "message": ""}, Status("queued")),
        ({"state": "Launching", "message": ""}, Status("queued")),
        ({"state": "Running", "assigned_network_address": ["a", "b"]}, Status("running", host="a,b")),
        ({"state": "Finishing"}, Status("running", detail="Finishing")),
        ({"state": "Suspended"}, Status("running", detail="Suspended")),
        ({"state": "Novel"}, Status("running", detail="Novel")),
        ({"state": None}, None),
    ],
)
def test_live_jobs(fields: dict[str, Any], expected: Status | None) -> None:
    assert job_status(shown(**fields)) == expected


@pytest.mark.parametrize(
    ("raw", "events", "reason", "code", "detail"),
    [
        (0, [TERMINATE], "", 0, "exit status 0"),
        (0, [], "", 0, "exit status 0"),
        (256, [TERMINATE], "exit", 1, "exit status 1"),
        (768, [TERMINATE, FRAG], "exit", 3, "exit status 3"),  # a deletion that came too late
        (65280, [TERMINATE], "exit", 255, "exit status 255"),
        (32512, [TERMINATE], "launch", 127, "exit status 127"),
        (32256, [TERMINATE], "launch", 126, "exit status 126"),
        (9, [TERMINATE], "exit", 137, "killed by signal 9"),
        (35072, [TERMINATE], "exit", 137, "exit status 137"),
        (134, [TERMINATE], "exit", 134, "killed by signal 6"),
        (12, [TERMINATE, SARKO], "timeout", 140, "killed by signal 12"),
        (12, [TERMINATE, event("CHECKPOINT", "User oar (metasched) requested a checkpoint")], "preempted", 140, "kill"),
        (12, [TERMINATE, event("CHECKPOINT", "User alice requested a checkpoint")], "exit", 140, "killed by signal 12"),
        (25344, [TERMINATE, SARKO], "timeout", 99, "exit status 99"),  # it wanted to go on, and OAR did not
        (25344, [TERMINATE], "exit", 99, "exit status 99"),
        (None, [TERMINATE], "lost", None, "OAR does not know how it ended"),
    ],
)
def test_terminated(raw: int | None, events: list[Any], reason: str, code: int | None, detail: str) -> None:
    status = job_status(shown(state="Terminated", exit_code=raw, events=events, assigned_network_address=["n1"]))
    assert status
    assert (status.state, status.reason, status.exit_code, status.host) == ("ended", reason, code, "n1")
    assert status.detail.startswith(detail)


@pytest.mark.parametrize(
    ("events", "reason", "detail"),
    [
        ([FRAG], "cancelled", "User alice requested to frag the job 16"),
        ([ERROR, FRAG, event("SEND_KILL_JOB")], "cancelled", "User alice requested to frag the job 16"),
        (
            [event("FRAG_JOB_REQUEST", "User root"), event("WALLTIME", "[sarko] Job [3] from 1 with 60"), ERROR],
            "timeout",
            "Job [3] from 1 with 60",
        ),
        (
            [event("BESTEFFORT_KILL", "[MetaSched] kill the besteffort job 3"), FRAG, ERROR],
            "preempted",
            "kill the besteffort job 3",
        ),
        ([ERROR, event("WORKING_DIRECTORY", DIRECTORY, event_id=14)], "launch", DIRECTORY[12:]),
        ([ERROR, event("OUTPUT_FILES", "[bipbip 1] Cannot create")], "launch", "Cannot create"),
        ([event("LAUNCHING_OAREXEC_TIMEOUT", "[bipbip 3] launching")], "node_fail", "launching"),
        ([FRAG, event("EXTERMINATE_JOB", "[Leon] I exterminate")], "cancelled", "User alice requested"),
        ([event("EXTERMINATE_JOB", "[Leon] I exterminate"), event("LOG", "x")], "node_fail", "I exterminate"),
        ([event("NOVEL", "never heard of"), event("OLDER", "x", event_id=0)], "lost", "never heard of"),
    ],
)
def test_error(events: list[Any], reason: str, detail: str) -> None:
    status = job_status(shown(state="Error", events=events))
    assert status
    assert (status.state, status.reason, status.exit_code) == ("ended", reason, None)
    assert status.detail.startswith(detail)


def test_what_oar_has_not_settled_has_not_ended() -> None:
    status = job_status(shown(state="Error", events=[event("PING_CHECKER_NODE_SUSPECTED", SUSPECTED, "YES")]))
    assert status
    assert status.state == "running"
    # each job in Error has events; none are a failed query, of which oarstat says nothing
    assert job_status(shown(state="Error")) is None


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("[NodeChangeState] Resubmiting job 1 => 2) (due to event PING_CHECKER_NODE_SUSPECTED)", "2"),
        ("[NodeChangeState] Resubmiting job 1 => 2 (type idempotent & exit code = 99 & duration > 60s)", "2"),
        ("[bipbip 1] the job 1 is a besteffort and idempotent job so we resubmit it (new id = 12)", "12"),
        ("[bipbip 1] the job 1 is a besteffort and idempotent job so we resubmit it (new id = -4)", None),
        ("something else", None),
    ],
)
def test_successor(description: str, expected: str | None) -> None:
    assert successor(shown(1, events=[event("RESUBMIT_JOB_AUTOMATICALLY", description)])) == expected
    assert successor(shown(1)) is None


@pytest.mark.parametrize("out", ["", "\n", "null\n", "{}\n"])
def test_no_jobs(out: str) -> None:
    assert parse_jobs(out) == {}


@pytest.mark.parametrize("out", ["DB connection error, exiting.\n", '{"1": {', "[1]"])
def test_what_is_no_listing(out: str) -> None:
    with pytest.raises(NoInformation):
        parse_jobs(out)


def test_a_listing_after_noise() -> None:
    assert parse_jobs(f"Welcome\n{listing(shown(3, message='tab' + chr(9)))}\nbye\n").keys() == {"3"}
    assert parse_jobs('{"3": {"message": "a\tb"}}')["3"]["message"] == "a\tb"


# --- Calls


def test_query_is_one_call_for_all() -> None:
    scheduler, fake = oar(listing(shown(4, state="Running"), shown(3)))
    assert {native: status.state for native, status in scheduler.query(["3", "4", "5"]).items()} == {
        "3": "queued",
        "4": "running",
    }
    assert fake.asked == [["oarstat", "-J", "-f", "--sql", "job_id IN (3,4,5)"]]


def test_query_of_many_is_cut_and_of_none_is_no_call() -> None:
    scheduler, fake = oar("", "", "")
    assert scheduler.query([]) == {}
    assert scheduler.query([str(number) for number in range(1, 1202)]) == {}
    assert [argv[-1].count(",") + 1 for argv in fake.asked] == [500, 500, 201]


def test_query_of_what_is_no_id_is_no_sql() -> None:
    scheduler, fake = oar("")
    assert scheduler.query(["3", "1) OR (1=1"]) == {}
    assert fake.asked[0][-1] == "job_id IN (3)"


def test_query_that_fails_says_nothing() -> None:
    scheduler, _ = oar(Answer(25, "", "DB connection error, exiting."))
    with pytest.raises(NoInformation, match="oarstat: DB connection error"):
        scheduler.query(["3"])


RESUBMITTED = shown(
    1,
    state="Error",
    events=[
        event("PING_CHECKER_NODE_SUSPECTED", SUSPECTED),
        event("RESUBMIT_JOB_AUTOMATICALLY", "[NodeChangeState] Resubmiting job 1 => 6) (due to event X)", event_id=2),
    ],
)


def test_query_follows_a_job_that_oar_submitted_again() -> None:
    again = shown(6, state="Running", resubmit_job_id=1)
    scheduler, fake = oar(listing(RESUBMITTED, shown(3)), listing(again))
    found = scheduler.query(["1", "3"])
    assert {native: (status.state, status.native) for native, status in found.items()} == {
        "1": ("running", "6"),
        "3": ("queued", ""),
    }
    assert fake.asked[1:] == [["oarstat", "-J", "-f", "--sql", "job_id IN (6)"]]
    scheduler, _ = oar(listing(RESUBMITTED), "")
    assert scheduler.query(["1"]) == {}  # not the end of the first


def test_cancel_spares_the_ended_and_meets_the_resubmitted() -> None:
    ended = shown(2, state="Terminated", exit_code=0)
    deleted = (
        "Deleting the job = 9 ...ERROR.\nDeleting the job = 6 ...REGISTERED.\nDeleting the job = 3 ...REGISTERED.\n"
        "The job(s) [ 6 3 ] will be deleted in the near future.\n"
    )
    scheduler, fake = oar(
        listing(RESUBMITTED, ended, shown(3)),
        listing(shown(6, state="Running", resubmit_job_id=1)),
        Answer(1, deleted, "Cannot frag 9 ; You are not the right user.\n"),
    )
    scheduler.cancel(["1", "2", "3", "9"])
    assert fake.asked[2][0] == "oardel"
    assert sorted(fake.asked[2][1:]) == ["3", "6", "9"]


def test_cancel_of_the_ended_is_no_oardel() -> None:
    scheduler, fake = oar(listing(shown(2, state="Error", events=[FRAG])))
    scheduler.cancel(["2"])
    assert len(fake.asked) == 1


@pytest.mark.parametrize("answer", [Answer(0, "", ""), Answer(25, "", "no database"), Answer(255, "", "")])
def test_cancel_without_an_answer(answer: Answer) -> None:
    scheduler, _ = oar(listing(shown(3)), answer)
    with pytest.raises(NoInformation):
        scheduler.cancel(["3"])


def test_cancel_of_a_job_that_was_already_killed() -> None:
    text = "Deleting the job = 15 ...ERROR.\n"
    scheduler, _ = oar(listing(shown(15)), Answer(6, text, "Cannot frag 15 ; This job was already killed.\n"))
    scheduler.cancel(["15"])


NEWEST = shown(99, name="of somebody else")


def test_find() -> None:
    scheduler, fake = oar(listing(NEWEST, shown(7)))
    assert scheduler.find(submission()) == ["7"]
    (argv,) = fake.asked
    where = "job_name = 'say-t0ken' OR job_id = (SELECT MAX(job_id) FROM jobs)"
    assert argv == ["oarstat", "-J", "-f", "--sql", where]
    scheduler, fake = oar(listing(NEWEST))
    scheduler.find(submission(name="it's"))
    assert fake.asked[0][-1].startswith("job_name = 'it''s' OR")


def test_find_of_an_array_is_in_the_order_of_its_elements() -> None:
    jobs = [shown(12, array_index=2), shown(13, array_index=3), shown(11), NEWEST]
    again = shown(20, array_index=2, resubmit_job_id=12)
    scheduler, _ = oar(listing(*jobs, again))
    assert scheduler.find(submission(indexes=[0, 4, 5])) == ["11", "12", "13"]


def test_find_nothing_needs_the_newest_job_as_a_proof() -> None:
    scheduler, _ = oar(listing(NEWEST))
    assert scheduler.find(submission()) is None
    scheduler, _ = oar("")
    with pytest.raises(NoInformation, match="newest"):
        scheduler.find(submission())
    scheduler, _ = oar(Answer(25, "", "no database"))
    with pytest.raises(NoInformation):
        scheduler.find(submission())


def test_find_waits_for_an_oarsub_that_is_still_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    first, second = shown(11), shown(12, array_index=2)
    scheduler, _ = oar(
        listing(first, NEWEST), listing({**first, "state": "Hold"}, {**second, "state": "Hold"}), listing(first, second)
    )
    assert scheduler.find(submission(indexes=[0, 1])) == ["11", "12"]


@pytest.mark.parametrize(
    ("jobs", "found", "deleted"),
    [
        ([shown(11)], ["11", "", ""], []),
        ([shown(12, array_index=2, state="Error")], ["", "12", ""], []),
        ([shown(11), shown(12, array_index=2, state="Hold")], ["11", "", ""], ["12"]),
        ([shown(11, state="Hold"), shown(12, array_index=2, state="Hold")], ["", "", ""], ["11", "12"]),
        # somebody holds it
        ([shown(11, state="Hold", events=[event("HOLD_WAITING_JOB")])], ["11", "", ""], []),
    ],
)
def test_find_what_an_oarsub_has_left_that_was_killed(
    monkeypatch: pytest.MonkeyPatch, jobs: list[Any], found: list[str], deleted: list[str]
) -> None:
    monkeypatch.setattr("experimaestro_hpc.schedulers.oar._LATE", -1.0)
    said = "".join(f"Deleting the job = {native} ...REGISTERED.\n" for native in deleted)
    scheduler, fake = oar(listing(*jobs, NEWEST), said)
    assert scheduler.find(submission(indexes=[0, 1, 2])) == found
    assert fake.asked[1:] == ([["oardel", *deleted]] if deleted else [])


def test_find_spares_what_was_to_be_held(tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/bash\n#OAR --hold\n")
    scheduler, fake = oar(listing(shown(11, state="Hold"), NEWEST))
    assert scheduler.find(submission(script=str(tmp_path / "job.sh"))) == ["11"]
    assert len(fake.asked) == 1


# --- Why a job waits


def test_explain() -> None:
    job = shown(
        8,
        message="Cannot determine scheduling time due to dependency with the job 7",
        dependencies=[7, 9],
        types=["besteffort"],
        queue="default",
        scheduledStart=1795401267,
    )
    scheduler, _ = oar(listing(job), listing(shown(7, state="Running")))
    words = scheduler.explain("8")
    assert words.pop("scheduledStart").startswith("2026-11-23 ")
    assert words == {
        "state": "Waiting",
        "message": "Cannot determine scheduling time due to dependency with the job 7",
        "queue": "default",
        "types": "besteffort",
        "dependencies": "7 Running, 9 unknown",
    }
    scheduler, _ = oar("")
    with pytest.raises(NoInformation):
        scheduler.explain("8")


KARMA = "R=1,W=0:1:0,J=B,N=quota (Karma=0.000,quota_ok)"


@pytest.mark.parametrize(
    ("words", "sentence", "advice"),
    [
        ({"state": "Hold"}, "it is held", "oarresume 17"),
        ({"state": "Launching"}, "it is being started", ""),
        ({"state": "Waiting"}, "has not looked at it yet", ""),
        ({"state": "Waiting", "message": "R=1,W=2:0:0,J=B"}, "has not looked at it yet", ""),
        ({"dependencies": "7 Running"}, "it waits for other jobs (7 Running)", ""),
        ({"dependencies": "7 unknown"}, "can never start", "kill it"),
        (
            {"message": "No enough matching resources (no_matching_slot)", "properties": "gpu_mem > 9"},
            "none of the resources that are up now can give what it asks for (No enough",
            'oarnodes --sql "gpu_mem > 9"',
        ),
        ({"message": "Cannot find enough resources for job 17"}, "none of the resources", "oarnodes"),
        ({"message": KARMA, "scheduledStart": "2026-11-23 02:34:26"}, "other jobs have the resources", ""),
        ({"message": KARMA, "scheduledStart": "2026-11-23 02:34:26"}, "start at 2026-11-23 02:34:26", ""),
        (
            {"types": "postpone=2026-11-23 02:34:26", "message": KARMA, "scheduledStart": "2026-11-23 02:34:27"},
            "may start only later",
            "",
        ),
        (
            {"types": "postpone=2026-11-23 02:34:26", "message": KARMA, "scheduledStart": "2026-11-23 04:00:00"},
            "other jobs have",
            "",
        ),
        ({"message": "no enough Tokens: x (1 < 2)"}, "it waits for a licence (no enough", ""),
        ({"message": "something new", "queue": "q"}, "(something new); asked for queue=q", ""),
    ],
)
def test_why(words: dict[str, str], sentence: str, advice: str) -> None:
    found = why_waiting(words, "17")
    assert sentence in found[0]
    assert advice in found[1] and bool(advice) == bool(found[1])


# --- Scripts


def rendered(name: str) -> str:
    asked_for = request("gpu(model=Tesla V100) * 2 & duration=90m", options={"q": "default", "type": ["besteffort"]})
    jobs: dict[str, tuple[ScriptJob, list[str] | None]] = {
        "plain": (ScriptJob("oar", request("cores=2"), "say", "python3", ".xpm/lib/0", [".xpm/code/1"]), None),
        "hostile": (
            ScriptJob(
                "oar",
                replace(asked_for, name=HOSTILE),
                HOSTILE.replace("%d", ""),
                "/opt/my python",
                f".xpm/lib/{HOSTILE}",
                [f".xpm/code/{HOSTILE}", "b"],
                ["module load cuda/12"],
                {"A": HOSTILE, "B": "two\nlines"},
            ),
            None,
        ),
        "resumable": (
            ScriptJob("oar", request("gpu * 1 & duration=1h", warning=120), "say", "python3", ".xpm/lib/0"),
            None,
        ),
        "array": (
            ScriptJob("oar", request("cores=2", array=True), "say", "python3", ".xpm/lib/0"),
            {**{number: f"jobs/say/{number}" for number in range(6)}, 6: f"jobs/{HOSTILE}/6"},
        ),
    }
    job, array = jobs[name]
    return Scripts([ROOT / "templates"]).render(job, array)


@pytest.mark.parametrize("name", ["plain", "hostile", "array", "resumable"])
def test_golden_scripts(name: str) -> None:
    path, text = GOLDEN / f"oar-{name}.sh", rendered(name)
    if os.environ.get("XPM_HPC_GOLDEN") == "new":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)
    head = text[: text.index("\n\n")].split("\n")
    assert head[0] == "#!/bin/bash"
    assert all(line.startswith("#") for line in head)
    assert "--directory" not in "".join(head)  # it would beat the command line's


def test_the_class_is_found_by_name() -> None:
    assert scheduler_class("oar") is Oar


@pytest.mark.parametrize(
    ("indexes", "oars", "expected"),
    [("0-2,5", 1, "0"), ("0-2,5", 3, "2"), ("0-2,5", 4, "5"), ("4", 1, "4"), ("1,3,6", 3, "6"), ("0-6", 7, "6")],
)
def test_an_element_goes_on_in_its_own_directory(tmp_path: Path, indexes: str, oars: int, expected: str) -> None:
    batch = tmp_path / ".xpm/batches/t0ken"
    batch.mkdir(parents=True)
    (batch / "array.sh").write_text(rendered("array"))
    for directory in [*(f"jobs/say/{number}" for number in range(6)), f"jobs/{HOSTILE}/6"]:
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / "job.sh").write_text('basename "$PWD"\n')
    environ = {**os.environ, "OAR_ARRAY_INDEX": str(oars)}
    ran = subprocess.run(["bash", "array.sh", indexes], cwd=batch, env=environ, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr, ran.returncode) == (f"{expected}\n", "", 0)


def gpu_lines() -> str:
    text = rendered("plain")
    start = text.index("properties=${OAR_RESOURCE")
    return text[start : text.index("\nfi\n", start) + 4]


HOST = os.uname().nodename.split(".")[0]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (None, "unset"),
        ([], "unset"),
        ([" cpu = '1' , host = 'n1' , gpu = '' , gpudevice = '' "], "unset"),
        ([" gpu = '1' , gpudevice = '0' , host = 'n1' ", " host = 'n1' , gpudevice = '0' , gpu = '1' "], "0"),
        ([" gpudevice = '3' ", " gpudevice = '10' ", " gpudevice = '3' "], "3,10"),
        # several nodes: only this one's
        ([f" gpudevice = '1' , host = '{HOST}' ", " host = 'elsewhere' , gpudevice = '0' "], "1"),
        ([f" gpudevice = '1' , host = '{HOST}.site.org' ", " host = 'elsewhere' , gpudevice = '0' "], "1"),
        ([" gpudevice = '1$(touch pwned)' "], "unset"),
    ],
)
def test_gpus(tmp_path: Path, lines: list[str] | None, expected: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    if lines is not None:
        file = tmp_path / "91 resources"
        file.write_text("".join(f"{line}\n" for line in lines))
        environ["OAR_RESOURCE_PROPERTIES_FILE"] = str(file)
    probe = "\nbash -c 'echo ${CUDA_VISIBLE_DEVICES-unset}'\n"
    ran = subprocess.run(
        ["bash", "-uc", gpu_lines() + probe], env=environ, cwd=tmp_path, capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == (f"{expected}\n", "")
    assert not (tmp_path / "pwned").exists()


def test_a_vanished_properties_file_is_no_trouble() -> None:
    environ = {**os.environ, "OAR_RESOURCE_PROPERTIES_FILE": "/no/such/file"}
    ran = subprocess.run(["bash", "-euc", gpu_lines()], env=environ, capture_output=True, text=True)
    assert (ran.stderr, ran.returncode) == ("", 0)
