"""Slurm: directives, what sbatch, squeue and sacct print, and the calls that are made of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experimaestro_hpc.errors import LauncherError, SubmissionError
from experimaestro_hpc.resources import Resources
from experimaestro_hpc.schedulers import command as command_module
from experimaestro_hpc.schedulers.base import NoInformation, NoRoom, Request, Status, Submission, job_name
from experimaestro_hpc.schedulers.command import Commands, SharedText, clean_environment
from experimaestro_hpc.schedulers.slurm import Slurm
from experimaestro_hpc.schedulers.slurm_answers import (
    ended_status,
    expand,
    parse_accounting,
    parse_queue,
    parse_shown,
    parse_size,
    parse_submitted,
    queue_status,
    used_of,
)
from experimaestro_hpc.schedulers.slurm_request import directive, options_of, ranges

BAD_FLAGS = [
    "",
    "gpus=2",
    "--gpus",
    "--gpus=all",
    "--mem={count}",
    "--gpus={n}",
    "--gpus={count",
    "--gpus={count!r}",
    4,
]

#: what sbatch says of each limit, after the line that names it
POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


def request(text: str = "any", **changes: Any) -> Request:
    return replace(Request("say", Resources.parse(text), log="say.err"), **changes)


# --- Directives


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("cpu", "--x=cpu"),
        ("1-00:00:00", "--x=1-00:00:00"),
        ("gpu:h100:2", "--x=gpu:h100:2"),
        ("a@b.example", "--x=a@b.example"),
        ("node[1-3],node7", "--x=node[1-3],node7"),
        (4, "--x=4"),
        (1.5, "--x=1.5"),
        (True, "--x"),
        (["a", "b"], "--x=a,b"),
        ((1, 2), "--x=1,2"),
        ("", '--x=""'),
        ("two words", '--x="two words"'),
        ("it's", '--x="it\'s"'),
        ('say "x"', '--x="say \\"x\\""'),
        ("back\\slash", '--x="back\\\\slash"'),
        ("$(touch pwned)", '--x="$(touch pwned)"'),
        ("a#b", '--x="a#b"'),
        ("h100&a100|v100", '--x="h100&a100|v100"'),
        ("猫", '--x="猫"'),
    ],
)
def test_directive(value, line):
    assert directive("x", value) == f"#SBATCH {line}"


@pytest.mark.parametrize("flag", BAD_FLAGS)
def test_a_gpu_flag_that_is_none(flag):
    with pytest.raises(LauncherError, match="gpu_flag cannot be") as caught:
        options_of(request("gpu", options={"gpu_flag": flag}))
    assert "--gpus-per-node={count}" in caught.value.hint


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\0", "\t", ["a", "b\n#SBATCH --uid=0"]])
def test_a_directive_stays_on_its_line(value):
    with pytest.raises(LauncherError, match="control character"):
        directive("x", value)


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("any", {}, {}),
        ("cpu(cores=8, mem=64G)", {}, {"cpus-per-task": 8, "mem": "65536M"}),
        ("mem=1B", {}, {"mem": "1M"}),
        ("mem=1M", {}, {"mem": "1M"}),
        ("mem=1048577B", {}, {"mem": "2M"}),
        ("mem=1.5K", {}, {"mem": "1M"}),
        ("duration=90s", {}, {"time": "00:01:30"}),
        ("duration=36h", {}, {"time": "1-12:00:00"}),
        ("nodes=1", {}, {}),
        ("nodes=2", {}, {"nodes": 2}),
        ("nodes=2 & tasks_per_node=4", {}, {"nodes": 2, "ntasks-per-node": 4}),
        ("gpu", {}, {"gres": "gpu:1"}),
        ("gpu * 4", {}, {"gres": "gpu:4"}),
        ("gpu * 2", {"gpu_type": "h100"}, {"gres": "gpu:h100:2"}),
        ("gpu(model=a100) * 2", {}, {"gres": "gpu:a100:2"}),
        ("gpu(model=a100)", {"gpu_type": "A100"}, {"gres": "gpu:A100:1"}),  # as the partition spells it
        ("gpu(mem=24G)", {}, {"gres": "gpu:1"}),
        ("any", {"gpu_type": "h100"}, {}),
        ("any", {"partition": "gpu"}, {"partition": "gpu"}),
        # the launcher's own options, and the task's wishes over them
        ("any", {"options": {"time": "10:00", "account": "me"}}, {"time": "10:00", "account": "me"}),
        ("duration=1h", {"options": {"time": "10:00"}}, {"time": "01:00:00"}),
        ("any", {"partition": "gpu", "options": {"partition": "cpu"}}, {"partition": "gpu"}),
        ("gpu", {"options": {"gpus": 1, "gpus-per-node": 2, "gres": "tmp:1G"}}, {"gres": "gpu:1"}),
        ("any", {"options": {"gpus-per-node": 2}}, {"gpus-per-node": 2}),
        ("any", {"options": {"mem-per-cpu": "2G"}}, {"mem-per-cpu": "2G"}),
        # Slurm refuses these together
        ("mem=4G", {"options": {"mem-per-cpu": "2G"}}, {"mem": "4096M"}),
        ("mem=4G", {"options": {"mem-per-gpu": "2G"}}, {"mem": "4096M"}),
        # what the partition says, over the launcher
        ("any", {"partition": "big", "partition_options": {"partition": "gpu"}}, {"partition": "gpu"}),
        ("any", {"partition": "big", "partition_options": {"partition": False}}, {}),
        (
            "any",
            {"options": {"account": "a", "qos": "q"}, "partition_options": {"account": "b", "constraint": "x&y"}},
            {"account": "b", "qos": "q", "constraint": "x&y"},
        ),
        # false leaves an option out, whoever asks for it
        ("any", {"options": {"requeue": False}}, {}),
        ("any", {"options": {"account": "a"}, "partition_options": {"account": False}}, {}),
        ("any", {"options": {"mem": False}, "partition_options": {"mem": "4G"}}, {"mem": "4G"}),
        ("mem=4G & cores=2", {"options": {"mem": False}}, {"cpus-per-task": 2}),
        # forms of the GPU flag
        ("gpu * 2", {"options": {"gpu_flag": "--gpus-per-node={count}"}}, {"gpus-per-node": "2"}),
        ("gpu * 2", {"options": {"gpu_flag": "--gres=gpu:{count}"}, "gpu_type": "h100"}, {"gres": "gpu:2"}),
        ("gpu * 2 & nodes=3", {"options": {"gpu_flag": "--gpus={total}"}}, {"nodes": 3, "gpus": "6"}),
        (
            "gpu * 2",
            {"options": {"gpu_flag": "--gpus={total}", "gpus-per-node": 1}, "gpu_type": "h100"},
            {"gpus": "2"},
        ),
        ("gpu", {"options": {"gpu_flag": "--gpus-per-node={type}:{count}"}}, {"gpus-per-node": "1"}),
        ("gpu(model=a100)", {"options": {"gpu_flag": "--gpus={type}:{total}"}}, {"gpus": "a100:1"}),
        (
            "gpu",
            {"options": {"gpu_flag": "--gpus=1{total}"}, "partition_options": {"gpu_flag": "--gres=gpu:{count}"}},
            {"gres": "gpu:1"},
        ),
        ("any", {"options": {"gpu_flag": "--gpus={total}"}}, {}),
        # what comes of the log
        ("any", {"log": "100%.err"}, {"output": "100%%.err", "error": "100%%.err"}),
        ("any", {"array": True}, {"output": "%a.log", "error": "%a.log"}),
        ("any", {"options": {"output": "/elsewhere"}}, {}),
        ("any", {"name": "it's $(x) a/b\n"}, {"job-name": "it-s---x--a-b-"}),
        ("any", {"name": "n" * 99}, {"job-name": "n" * 60}),
        # a resumable task is told of its end
        ("any", {"warning": 120}, {"signal": "B:USR2@120"}),
        ("any", {"warning": 120, "options": {"signal": "B:TERM@30"}}, {"signal": "B:TERM@30"}),
    ],
)
def test_options(text, changes, expected):
    usual = {"job-name": "say", "output": "say.err", "error": "say.err", "open-mode": "append"}
    assert options_of(request(text, **changes)) == {**usual, **expected}


def test_directives_of_flags():
    lines = Slurm.directives(request(options={"exclusive": True, "requeue": False, "exclude": ["node7", "node12"]}))
    assert lines == [
        "#SBATCH --job-name=say",
        "#SBATCH --exclusive",
        "#SBATCH --exclude=node7,node12",
        "#SBATCH --output=say.err",
        "#SBATCH --error=say.err",
        "#SBATCH --open-mode=append",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("concat", "concat-0123"),
        ("my task|%j\n$(x)", "my-task--j---x--0123"),
        ("x" * 100, "x" * 40 + "-0123"),
        ("猫", "--0123"),
    ],
)
def test_job_name(name, expected):
    assert job_name(name, "0123") == expected


@pytest.mark.parametrize(
    ("indexes", "text"),
    [([0], "0"), ([0, 1, 2], "0-2"), ([5, 0, 2, 1], "0-2,5"), ([7, 9, 11], "7,9,11"), (range(1000), "0-999"), ([], "")],
)
def test_ranges(indexes, text):
    assert ranges(indexes) == text


# --- sbatch


@pytest.mark.parametrize(
    ("out", "native"),
    [
        ("17\n", "17"),
        ("17", "17"),
        ("17;cluster\n", "17"),
        ("  17;my-cluster.1  \r\n", "17"),
        ("Welcome!\n\n17\n", "17"),
        ("sbatch: Setting account to 99\n17;c\n\nThank you.\n", "17"),
        ("", None),
        ("Submitted batch job seventeen\n", None),
        ("17 18\n", None),
        ("-17\n", None),
        ("17;\n", None),
        ("error 17\n", None),
    ],
)
def test_parse_submitted(out, native):
    assert parse_submitted(out) == native


# --- squeue

ELEMENTS = [f"123_{index}" for index in range(10)]


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        ("17", ["17"]),
        ("123_4", ["123_4"]),
        ("123_[0-3]", ["123_0", "123_1", "123_2", "123_3"]),
        ("123_[0-3,7%2]", ["123_0", "123_1", "123_2", "123_3", "123_7"]),
        ("123_[7]", ["123_7"]),
        ("123_[7%1]", ["123_7"]),
        ("123_[0-9:3]", ["123_0", "123_3", "123_6", "123_9"]),
        ("123_[2,4,12-20]", ["123_2", "123_4"]),
        ("123_[0-1,3,4...]", ["123_0", "123_1", "123_3"]),
        ("123_[0-1,3,4...%5]", ["123_0", "123_1", "123_3"]),
        ("123_[0-1,3,...]", ["123_0", "123_1", "123_3"]),
        ("123_[0...]", []),
        ("123_[]", []),
        ("124_[0-3]", []),
        ("12_[0-3]", []),
    ],
)
def test_expand(native, expected):
    assert expand(native, [*ELEMENTS, "17", "1234_0"]) == expected


@pytest.mark.parametrize(
    ("state", "reason", "host", "expected"),
    [
        ("PENDING", "Priority", "", Status("queued", detail="Priority")),
        ("PENDING", "None", "n/a", Status("queued")),
        ("PENDING", "(null)", "", Status("queued")),
        ("PENDING", "Dependency", "", Status("queued", detail="Dependency")),
        ("PENDING", "JobHeldUser", "", Status("held", detail="JobHeldUser")),
        ("PENDING", "JobHeldAdmin", "", Status("held", detail="JobHeldAdmin")),
        (
            "PENDING",
            "launch failed requeued held",
            "",
            Status("held", detail="launch failed requeued held"),
        ),
        ("CONFIGURING", "None", "node1", Status("queued", host="node1")),
        ("REQUEUE_HOLD", "None", "", Status("held")),
        ("SPECIAL_EXIT", "None", "", Status("held")),
        ("RUNNING", "None", "node[1-2]", Status("running", host="node[1-2]")),
        ("COMPLETING", "None", "node1", Status("running", host="node1")),
        ("SUSPENDED", "None", "node1", Status("running", host="node1")),
        ("COMPLETED", "None", "node1", Status("ended", "", "COMPLETED", host="node1")),
        ("FAILED", "NonZeroExitCode", "node1", Status("ended", "exit", "FAILED", host="node1")),
        ("TIMEOUT", "TimeLimit", "node1", Status("ended", "timeout", "TIMEOUT", host="node1")),
        ("DEADLINE", "None", "", Status("ended", "timeout", "DEADLINE")),
        ("OUT_OF_MEMORY", "OutOfMemory", "", Status("ended", "out_of_memory", "OUT_OF_MEMORY")),
        ("PREEMPTED", "None", "", Status("ended", "preempted", "PREEMPTED")),
        ("NODE_FAIL", "None", "", Status("ended", "node_fail", "NODE_FAIL")),
        ("BOOT_FAIL", "None", "", Status("ended", "node_fail", "BOOT_FAIL")),
        ("CANCELLED", "None", "", Status("ended", "cancelled", "CANCELLED")),
        ("CANCELLED", "DependencyNeverSatisfied", "", Status("ended", "dependency", "CANCELLED")),
        ("CANCELLED by 1001", "None", "", Status("ended", "cancelled", "CANCELLED")),
        ("CANCELLED+", "None", "", Status("ended", "cancelled", "CANCELLED")),
        # a state of a Slurm to come: watched on
        ("EXPEDITING", "None", "", Status("running")),
        ("", "", "", Status("running")),
    ],
)
def test_queue_status(state, reason, host, expected):
    assert queue_status(state, reason, host) == expected


def test_parse_queue():
    out = """\
Welcome | to | the | cluster | !
17|RUNNING|None|node1|say|loud-0f0f
123_[4-6%2]|PENDING|JobArrayTaskLimit||many-0f0e
123_0|RUNNING|None|node2|many-0f0e
  123_1|COMPLETED|None|node2|many-0f0e
99|RUNNING|None|node3|theirs
slurm_load_jobs: something
18|RUNNING|None
19|RUNNING|None|node1
"""
    found = parse_queue(out, ["17", "18", "19", *ELEMENTS])
    waits = Status("queued", detail="JobArrayTaskLimit", name="many-0f0e")
    assert found == {
        "17": Status("running", host="node1", name="say|loud-0f0f"),
        "123_0": Status("running", host="node2", name="many-0f0e"),
        "123_1": Status("ended", "", "COMPLETED", host="node2", name="many-0f0e"),
        "123_4": waits,
        "123_5": waits,
        "123_6": waits,
    }


# --- sacct


@pytest.mark.parametrize(
    ("state", "exit_code", "reason", "expected"),
    [
        ("COMPLETED", "0:0", "None", Status("ended", "", "COMPLETED", 0, "node1")),
        ("COMPLETED", "0:0", "", Status("ended", "", "COMPLETED", 0, "node1")),
        ("FAILED", "3:0", "None", Status("ended", "exit", "FAILED", 3, "node1")),
        ("FAILED", "3:0", "NonZeroExitCode", Status("ended", "exit", "FAILED (NonZeroExitCode)", 3, "node1")),
        ("FAILED", "0:9", "None", Status("ended", "exit", "killed by signal 9", 137, "node1")),
        ("FAILED", "127:0", "None", Status("ended", "launch", "FAILED", 127, "node1")),
        ("FAILED", "126:0", "None", Status("ended", "launch", "FAILED", 126, "node1")),
        ("TIMEOUT", "0:0", "None", Status("ended", "timeout", "TIMEOUT", 0, "node1")),
        ("OUT_OF_MEMORY", "0:125", "None", Status("ended", "out_of_memory", "OUT_OF_MEMORY", 253, "node1")),
        ("CANCELLED by 1001", "0:15", "None", Status("ended", "cancelled", "CANCELLED by 1001", 143, "node1")),
        ("CANCELLED+", "0:0", "None", Status("ended", "cancelled", "CANCELLED+", 0, "node1")),
        ("CANCELLED", "0:0", "Dependency", Status("ended", "dependency", "CANCELLED (Dependency)", 0, "node1")),
        ("CANCELLED", "0:0", "None", Status("ended", "cancelled", "CANCELLED", 0, "node1")),
        ("PREEMPTED", "0:0", "None", Status("ended", "preempted", "PREEMPTED", 0, "node1")),
        ("NODE_FAIL", "1:0", "None", Status("ended", "node_fail", "NODE_FAIL", 1, "node1")),
        ("REVOKED", "", "None", Status("ended", "cancelled", "REVOKED", None, "node1")),
        # it lags, or it says what nobody knows: no information
        ("RUNNING", "0:0", "None", None),
        ("PENDING", "0:0", "None", None),
        ("REQUEUED", "0:0", "None", None),
        ("EXPEDITED", "0:0", "None", None),
        ("", "0:0", "None", None),
    ],
)
def test_ended_status(state, exit_code, reason, expected):
    assert ended_status(state, exit_code, "node1", reason) == expected


def test_a_job_whose_node_does_not_see_the_workdir():
    found = ended_status("FAILED", "0:53", "node1", "None")
    assert found is not None and (found.reason, found.exit_code) == ("launch", 181)
    assert "nodes = 'staged'" in found.detail


def test_what_26_05_says_otherwise():
    """22.05 takes 128 off an exit status, and gives a reason with a job whose parent has failed."""
    out = """\
3|FAILED|255:0|n1|None||||
4|FAILED|127:0|n1|None||||
5|FAILED|137:0|n1|None||||
17|CANCELLED|0:0|None assigned|None||||
18|CANCELLED by 1000|0:0|None assigned|None||||
12_[0-5,9%2]|PENDING|0:0|None assigned|None||||
"""
    assert parse_accounting(out, ["3", "4", "5", "17", "18", "12_0"]) == {
        "3": Status("ended", "exit", "FAILED", 255, "n1"),
        "4": Status("ended", "launch", "FAILED", 127, "n1"),
        "5": Status("ended", "exit", "killed by signal 9", 137, "n1"),
        "17": Status("ended", "dependency", "CANCELLED", 0),
        "18": Status("ended", "cancelled", "CANCELLED by 1000", 0),
    }


def test_parse_accounting():
    """Memory is that of the steps; a step's own end is not the job's."""
    out = """\
Welcome to sacct
17|COMPLETED|0:0|node1|None||00:01:02|billing=1,cpu=1,mem=1G,node=1|say-0f0f
17.batch|FAILED|1:0|node1|||00:01:02|cpu=1,mem=1G,node=1|batch
17.extern|COMPLETED|0:0|node1||12K|00:00:00|cpu=1|extern
17.0|COMPLETED|0:0|node1||1.5M|00:00:10|cpu=1|python
18|RUNNING|0:0|node1|None||00:00:00|cpu=1|x
18.batch|COMPLETED|0:0|node1||9999K|00:00:10|cpu=1|batch
123_0|FAILED|1:0|node2|None||1-00:00:01.500|cpu=4,gres/gpu=2,gres/gpu:h100=2,mem=1G|a|b
123_0.batch|FAILED|1:0|node2||2048K|1-00:00:01.500|cpu=4|batch
123_[4-6]|PENDING|0:0|None assigned|Dependency||00:00:00||x
19|CANCELLED by 1001|0:0|None assigned|None|||cpu=1|x
99|COMPLETED|0:0|node1|None|77|00:00:00||theirs
20|COMPLETED
21.batch|COMPLETED|0:0|node1||9999K|00:00:10|cpu=1|batch
"""
    assert parse_accounting(out, ["17", "18", "19", "20", "21", *ELEMENTS]) == {
        "17": Status("ended", "", "COMPLETED", 0, "node1", "say-0f0f", used={"cpu": 62.0, "max_rss": 1536 * 1024}),
        "123_0": Status(
            "ended", "exit", "FAILED", 1, "node2", "a|b", used={"cpu": 86401.5, "gpus": "2", "max_rss": 2048 * 1024}
        ),
        "19": Status("ended", "cancelled", "CANCELLED by 1001", 0, "", "x"),
    }


def test_elements_that_were_cancelled_before_they_started_are_one_row():
    rows = "17_0|COMPLETED|0:0|c1|None||00:00:01||x\n17_[2-3,7]|CANCELLED by 1001|0:0|None assigned|None||00:00:00||x\n"
    found = parse_accounting(rows, ["17_0", "17_2", "17_7", "17_8", "18_2"])
    assert {one: (status.state, status.reason) for one, status in found.items()} == {
        "17_0": ("ended", ""),
        "17_2": ("ended", "cancelled"),
        "17_7": ("ended", "cancelled"),
    }
    found = parse_accounting("17|CANCELLED by 1001|0:0|None assigned|JobHeldUser||00:00:00||x\n", ["17_0", "18", "1_7"])
    assert list(found) == ["17_0"]


def test_a_step_without_memory_explains_why_its_job_failed():
    """The processes of a task on several nodes are a step."""
    rows = """\
17|FAILED|9:0|node1|None||00:00:01||x
17.batch|FAILED|9:0|node1|||00:00:01||batch
17.0|OUT_OF_MEMORY|0:125|node[1-2]||9K|00:00:01||python3
18|COMPLETED|0:0|node1|None||00:00:01||x
18.0|OUT_OF_MEMORY|0:125|node[1-2]||9K|00:00:01||python3
"""
    found = parse_accounting(rows, ["17", "18"])
    assert (found["17"].reason, found["18"].reason) == ("out_of_memory", "")


@pytest.mark.parametrize(
    ("cpu", "tres", "expected"),
    [
        ("", "", {}),
        ("00:00:00", "", {"cpu": 0.0}),
        ("03:04.567", "", {"cpu": 184.567}),
        ("01:03:04", "", {"cpu": 3784.0}),
        ("2-01:03:04", "", {"cpu": 176584.0}),
        ("INVALID", "billing=4,cpu=4,mem=8G,node=1", {}),
        ("00:00:01", "cpu=4,gres/gpu=2,gres/gpu:h100=2", {"cpu": 1.0, "gpus": "2"}),
        ("00:00:01", "gres/gpu:h100=2,gres/gpu=1", {"cpu": 1.0, "gpus": "1"}),
    ],
)
def test_used_of(cpu, tres, expected):
    assert used_of(cpu, tres) == expected


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("0", 0), ("77", 77), ("123K", 125952), ("1.5M", 1572864), ("2G", 2**31), ("1T", 2**40), ("16?", 0)],
)
def test_parse_size(text, size):
    assert parse_size(text) == size


def test_parse_shown():
    out = (
        "JobId=17 JobName=say-0f0f JobState=PENDING Reason=QOSMaxCpuPerUserLimit Dependency=(null) StartTime=Unknown "
        "Account=lab QOS=normal NumCPUs=4 ReqTRES=cpu=4,mem=8G,node=1 Restarts=1 Command=/w/a b/JobState=DONE\n"
        "JobId=18 JobState=RUNNING\n"
    )
    assert parse_shown(out) == {
        "JobState": "PENDING",
        "Reason": "QOSMaxCpuPerUserLimit",
        "Account": "lab",
        "QOS": "normal",
        "NumCPUs": "4",
        "ReqTRES": "cpu=4,mem=8G,node=1",
        "Restarts": "1",
    }
    assert parse_shown("") == {}


# --- The commands


class Fake:
    """Commands of Slurm that print what they are told to, and note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol"):
            self.says(name)
            path = folder / name
            path.write_text(
                f"#!/bin/sh\ncd '{folder}'\n"
                '{ printf "%s\\0" "${0##*/}" "$@"; printf "\\001"; } >>calls\n'
                'env -0 >"${0##*/}.env"\ncat "${0##*/}.out"\ncat "${0##*/}.err" >&2\nexit "$(cat "${0##*/}.code")"\n'
            )
            path.chmod(0o755)

    def says(self, name: str, out: str = "", err: str = "", code: int = 0) -> None:
        for ending, text in (("out", out), ("err", err), ("code", str(code))):
            (self.folder / f"{name}.{ending}").write_text(text)

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        records = path.read_text().split("\1")[:-1] if path.exists() else []
        return [record.split("\0")[:-1] for record in records]

    def environ(self, name: str) -> dict[str, str]:
        pairs = (self.folder / f"{name}.env").read_text().split("\0")[:-1]
        return dict(pair.split("=", 1) for pair in pairs)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    (tmp_path / "bin").mkdir()
    return Fake(tmp_path / "bin")


@pytest.fixture
def slurm(fake: Fake) -> Slurm:
    return scheduler(fake)


def scheduler(fake: Fake) -> Slurm:
    """Another process's, on the same workspace."""
    workspace = str(fake.folder.parent / "work")
    return Slurm(workspace, Commands({"PATH": f"{fake.folder}:/usr/bin:/bin", "HOME": "/root"}))


def submission(indexes: Sequence[int] = (), dependencies: Sequence[str] = (), **more: Any) -> Submission:
    return Submission("0f0f", "say-0f0f", "/w/it's $(x)/job.sh", "/w/it's $(x)", dependencies, indexes, **more)


@pytest.mark.parametrize(
    ("indexes", "dependencies", "natives", "more"),
    [
        ((), (), ["17"], []),
        ((0, 1, 3), (), ["17_0", "17_1", "17_3"], ["--array=0-1,3"]),
        ((), ("5", "6_1"), ["17"], ["--dependency=afterok:5:6_1", "--kill-on-invalid-dep=yes"]),
        ((2,), ("5",), ["17_2"], ["--array=2", "--dependency=afterok:5", "--kill-on-invalid-dep=yes"]),
    ],
)
def test_submit(slurm, fake, indexes, dependencies, natives, more):
    fake.says("sbatch", "Hello!\n17;cluster\n", "sbatch: lua: welcome")
    assert slurm.submit(submission(indexes, dependencies)) == natives
    usual = ["sbatch", "--parsable", "--job-name=say-0f0f", "--comment=xpm-hpc:0f0f", "--chdir=/w/it's $(x)"]
    assert fake.calls == [[*usual, *more, "/w/it's $(x)/job.sh"]]
    assert dict(slurm.commands.calls) == {"sbatch": 1}


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        (
            {"indexes": [0, 1], "dependencies": ["5"], "corresponding": ["7", "8"]},
            ["--array=0-1", "--dependency=afterok:5,aftercorr:7:8", "--kill-on-invalid-dep=yes"],
        ),
        (
            {"indexes": [3], "corresponding": ["7"]},
            ["--array=3", "--dependency=aftercorr:7", "--kill-on-invalid-dep=yes"],
        ),
        ({"resources": Resources.parse("mem=4G & duration=2h")}, ["--time=02:00:00", "--mem=4096M"]),
        ({"resources": Resources.parse("mem=1B")}, ["--mem=1M"]),
        ({"resources": Resources.parse("gpu * 2 & cores=4")}, []),
        ({"resources": Resources()}, []),
        ({"delay": 10.0}, ["--begin=now+10"]),
        ({"delay": 0.0, "avoid": []}, []),
        ({"avoid": ["node7", "node12"]}, ["--exclude=node7,node12"]),
        (
            {"dependencies": ["5"], "resources": Resources.parse("duration=90s"), "delay": 20.4, "avoid": ["node7"]},
            [
                "--dependency=afterok:5",
                "--kill-on-invalid-dep=yes",
                "--time=00:01:30",
                "--begin=now+20",
                "--exclude=node7",
            ],
        ),
    ],
)
def test_submit_of_another_attempt_or_after_another_array(slurm, fake, changes, more):
    fake.says("sbatch", "17\n")
    one = submission(**changes)
    assert slurm.submit(one) == ([f"17_{index}" for index in one.indexes] or ["17"])
    (call,) = fake.calls
    assert call[5:-1] == more


@pytest.mark.parametrize(
    ("words", "for_good"),
    [
        ("Batch job submission failed: Requested node configuration is not available", True),
        ("invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name", True),
        ("Batch job submission failed: Invalid job array specification", True),
        ("Memory specification can not be satisfied", True),
        ("Batch job submission failed: Invalid account or account/partition combination specified", True),
        ("Batch job submission failed: Invalid generic resource (gres) specification", True),
        ("unrecognized option '--nonsense'", True),
        ("Batch job submission failed: Job dependency problem", True),  # 26.05, of a job that it does not know
        ("Unable to open file /w/job.sh", True),
        # busy, or full: they say nothing about the job
        ("Batch job submission failed: Socket timed out on send/recv operation", False),
        ("Batch job submission failed: Unable to contact slurm controller (connect failure)", False),
        ("Batch job submission failed: Unexpected message received", False),
        ("Batch job submission failed: Zero Bytes were transmitted or received", False),
        ("Batch job submission failed: Protocol authentication error", False),
        # a limit on its size or its time: it will not get smaller
        (f"Batch job submission failed: {POLICY}", True),
        (f"QOSMaxCpuPerJobLimit\nsbatch: error: Batch job submission failed: {POLICY}", True),
        (f"AssocMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: {POLICY}", True),
        ("", False),
    ],
)
def test_refusals(slurm, fake, words, for_good):
    fake.says("sbatch", "", f"sbatch: error: {words}\n" if words else "", 1)
    with pytest.raises(SubmissionError if for_good else NoInformation) as caught:
        slurm.submit(submission())
    assert (words.rpartition(": ")[2] or "ended with exit status 1") in str(caught.value)
    assert "sbatch: error" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        f"QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: {POLICY}",
        f"AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: {POLICY}",
        f"QOSGrpSubmitJobsLimit\nsbatch: error: Batch job submission failed: {POLICY}",
        f"AssocGrpSubmitJobsLimit\nsbatch: error: Batch job submission failed: {POLICY}",
        f"QOSMaxSubmitJobPerAccountLimit\nsbatch: error: Batch job submission failed: {POLICY}",
        "Slurm temporarily unable to accept job, sleeping and retrying",
        "Batch job submission failed: Slurm temporarily unable to accept job, sleeping and retrying",
        "Batch job submission failed: Job count exceeds MaxJobCount",
    ],
)
def test_there_is_no_room(slurm, fake, words):
    fake.says("sbatch", "", f"sbatch: error: {words}\n", 1)
    with pytest.raises(NoRoom) as caught:
        slurm.submit(submission())
    assert str(caught.value) == words.splitlines()[0]


@pytest.mark.parametrize("out", ["", "Submitted batch job\n", "17 is the number\n"])
def test_an_answer_that_is_not_understood_says_nothing(slurm, fake, out):
    fake.says("sbatch", out)
    with pytest.raises(NoInformation):
        slurm.submit(submission())


def test_a_command_that_is_not_there_says_nothing(tmp_path):
    slurm = Slurm("/nowhere", Commands({"PATH": str(tmp_path)}))
    for ask in (lambda: slurm.submit(submission()), lambda: slurm.query(["17"]), lambda: slurm.find(submission())):
        with pytest.raises(NoInformation):
            ask()


def test_a_command_that_hangs_says_nothing(slurm, fake, monkeypatch):
    monkeypatch.setattr(command_module, "TIMEOUT", 0.2)
    (fake.folder / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(NoInformation, match="squeue"):
        slurm.query(["17"])


def test_query_asks_sacct_only_about_those_that_vanished(slurm, fake):
    fake.says("squeue", "17|RUNNING|None|node1|\n18|COMPLETED|None|node1|\n123_[0-2]|PENDING|Priority||\n")
    fake.says("sacct", "18|COMPLETED|0:0|node1|None||||\n19|TIMEOUT|0:0|node2|None||||\n")
    assert slurm.query(["17", "18", "19", "20", "123_1"]) == {
        "17": Status("running", host="node1"),
        "18": Status("ended", "", "COMPLETED", 0, "node1"),
        "19": Status("ended", "timeout", "TIMEOUT", 0, "node2"),
        "123_1": Status("queued", detail="Priority"),
    }
    assert [call[0] for call in fake.calls] == ["squeue", "sacct"]
    assert fake.calls[1][-2:] == ["-j", "18,19,20"]
    fake.says("squeue", "17|RUNNING|None|node1|\n")
    slurm.query(["17"])
    assert [call[0] for call in fake.calls] == ["squeue", "sacct", "squeue"]


def test_query_of_nothing_asks_nobody(slurm, fake):
    assert (slurm.query([]), fake.calls) == ({}, [])


def test_the_number_of_calls_does_not_grow_with_the_number_of_jobs(slurm, fake):
    many = [str(number) for number in range(1000, 2500)]
    fake.says("squeue", "".join(f"{one}|RUNNING|None|node1|x\n" for one in many))
    assert len(slurm.query(many)) == 1500
    assert len(fake.calls) == 1
    fake.says("squeue", "")
    fake.says("sacct", "".join(f"{one}|COMPLETED|0:0|node1|None||||x\n" for one in many))
    assert len(slurm.query(many)) == 1500
    assert [len(call[-1].split(",")) for call in fake.calls[2:]] == [500, 500, 500]


@pytest.mark.parametrize("out", ["", "17|RUNNING|None|node1\n"])
def test_squeue_that_fails_says_nothing_whatever_it_prints(slurm, fake, out):
    fake.says("squeue", out, "slurm_load_jobs error: Unable to contact slurm controller", 1)
    with pytest.raises(NoInformation, match="Unable to contact slurm controller"):
        slurm.query(["17"])
    assert [call[0] for call in fake.calls] == ["squeue"]


def test_without_accounting_what_vanished_is_unknown_and_that_is_told_once(slurm, fake):
    fake.says("squeue", "17|RUNNING|None|node1|x\n")
    fake.says("sacct", "18|FAILED|1:0|node1|None||||\n", "Slurm accounting storage is disabled", 1)
    for _ in range(3):
        assert slurm.query(["17", "18"]) == {"17": Status("running", host="node1", name="x")}
    assert len(slurm.notes) == 1
    assert "no accounting here" in slurm.notes[0]
    assert [call[0] for call in fake.calls] == ["squeue", "sacct", "squeue", "squeue"]


def test_a_site_without_the_command_has_no_accounting(slurm, fake):
    (fake.folder / "sacct").unlink()
    slurm.commands.environ["PATH"] = str(fake.folder) + ":/nowhere"
    fake_needs = {name: shutil.which(name) for name in ("env", "cat", "sh")}
    for name, path in fake_needs.items():
        (fake.folder / name).symlink_to(str(path))
    fake.says("squeue", "")
    assert slurm.query(["17"]) == slurm.query(["17"]) == {}
    assert (len(slurm.notes), slurm.find(submission())) == (1, None)


def test_accounting_that_does_not_answer_once_is_asked_again(slurm, fake):
    fake.says("squeue", "17|COMPLETED|None|node1|x\n")
    fake.says("sacct", "", "sacct: error: Problem talking to the database", 1)
    assert slurm.query(["17"]) == {"17": Status("ended", "", "COMPLETED", host="node1", name="x")}
    assert slurm.notes == []
    fake.says("sacct", "17|COMPLETED|0:0|node1|None||00:00:01||x\n")
    assert slurm.query(["17"])["17"].used == {"cpu": 1.0}


def test_an_element_that_sacct_does_not_know_alone_is_looked_for_in_its_array(slurm, fake):
    fake.says("squeue", "")
    assert slurm.query(["17_2"]) == {}
    assert [call[-1] for call in fake.calls if call[0] == "sacct"] == ["17_2", "17"]


def test_what_sacct_learns_late_does_not_hide_what_squeue_has_said(slurm, fake):
    fake.says("squeue", "17|CANCELLED|DependencyNeverSatisfied||x\n")
    fake.says("sacct", "17|CANCELLED by 0|0:0|None assigned|None||||x\n")
    assert slurm.query(["17"])["17"].reason == "dependency"


def test_a_state_that_nobody_knows_is_told_once(slurm, fake):
    fake.says("squeue", "Welcome | to | the | cluster | !\n17|EXPEDITING|None|node1|x\n99|EXPEDITING|None|n|y\n")
    assert slurm.query(["17"])["17"].state == "running"
    slurm.query(["17"])
    assert len(slurm.notes) == 1
    assert "'EXPEDITING'" in slurm.notes[0]


# --- One question for all who watch


def test_one_question_for_all_who_watch(slurm, fake):
    fake.says("squeue", "17|RUNNING|None|node1|x\n18|PENDING|Priority||y\n")
    assert slurm.query(["17"], 5.0)["17"].state == "running"
    other = scheduler(fake)
    assert other.query(["18"], 5.0)["18"].state == "queued"
    assert len(fake.calls) == 1
    other.query(["18"])
    assert len(fake.calls) == 2, "nothing old is wanted"


def test_after_a_submission_everybody_asks_anew(slurm, fake):
    fake.says("squeue", "17|RUNNING|None|node1|x\n")
    fake.says("sbatch", "18\n")
    slurm.query(["17"], 60.0)
    scheduler(fake).submit(submission())
    slurm.query(["17"], 60.0)
    scheduler(fake).cancel(["17"])
    slurm.query(["17"], 60.0)
    assert [call[0] for call in fake.calls] == ["squeue", "sbatch", "squeue", "scancel", "squeue"]


def test_shared_text(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(command_module.time, "time", lambda: now[0])
    text = SharedText(tmp_path / "not" / "yet" / "queue.json")
    assert text.read(10.0) is None
    text.forget()
    text.write("17|RUNNING \udcff")
    assert text.read(0.0) is None
    assert text.read(0.1) == text.read(10.0) == "17|RUNNING \udcff"
    now[0] += 10.0
    assert (text.read(10.0), text.read(9.9)) == ("17|RUNNING \udcff", None)
    now[0] = 900.0  # the clock was set back: nobody knows how old it is
    assert text.read(10.0) is None
    text.write("new")
    assert text.read(10.0) == "new"
    text.forget()
    assert text.read(10.0) is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"time": "now", "text": "x"}', '{"time": 1000, "text": 17}', '{"time": 1000}', "\0"],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path, monkeypatch, content):
    monkeypatch.setattr(command_module.time, "time", lambda: 1000.0)
    path = tmp_path / "queue.json"
    path.write_text(content)
    assert SharedText(path).read(10.0) is None
    SharedText(path).write("new")
    assert SharedText(path).read(10.0) == "new"


def test_a_text_that_cannot_be_kept_is_asked_for_again(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "queue.json", tmp_path):
        text = SharedText(path)
        text.write("x")
        text.forget()
        assert text.read(10.0) is None


# --- What the cluster is like, and why a job waits


@pytest.mark.parametrize(
    ("out", "code", "expected"),
    [
        ("MaxArraySize            = 1001\n", 0, 1001),
        ("JobId = 3\nMaxArraySize = 20\nMaxJobCount = 10000\n", 0, 20),
        ("MaxArraySize = 0\n", 0, 1),
        ("", 0, 1000),
        ("MaxArraySize = 20\n", 1, 1000),
    ],
)
def test_largest_array(slurm, fake, out, code, expected):
    fake.says("scontrol", out, "", code)
    assert slurm.largest_array() == expected


def test_largest_array_when_nobody_answers(slurm, fake):
    (fake.folder / "scontrol").write_text("#!/nowhere/sh\n")
    assert slurm.largest_array() == 1000


def test_explain(slurm, fake):
    fake.says("scontrol", "JobId=17 JobState=PENDING Reason=Priority\n")
    assert slurm.explain("17") == {"JobState": "PENDING", "Reason": "Priority"}
    assert fake.calls == [["scontrol", "show", "job", "-o", "17"]]
    fake.says("scontrol", "", "slurm_load_jobs error: Invalid job id specified", 1)
    with pytest.raises(NoInformation, match="Invalid job id"):
        slurm.explain("17")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "any"),
        ({"time": "02:00:00", "mem": "4G"}, "mem=4G & duration=2h"),
        ({"mem": 4096}, "mem=4G"),
        ({"mem": "512"}, "mem=512M"),
        ({"time": "what?", "mem": "4G"}, "any"),
    ],
)
def test_default_amounts(options, expected):
    assert Slurm.default_amounts(options) == Resources.parse(expected)


def test_no_job_is_filtered_out_by_partition_and_no_list_is_cut_short(slurm, fake):
    slurm.query(["17"])
    (squeue, _) = fake.calls
    assert {"--me", "-a", "-h"} <= set(squeue)
    assert squeue[squeue.index("-t") + 1] == "all"
    assert not {"-p", "--partition"} & set(squeue)
    assert fake.environ("squeue").get("SLURM_BITSTR_LEN") == "0" or "-r" in squeue


def test_a_surrounding_job_and_the_users_settings_do_not_leak(fake, slurm):
    outer = {
        "PATH": f"{fake.folder}:/usr/bin:/bin",
        "HOME": "/root",
        "LANG": "de_DE.UTF-8",
        "SLURM_CONF": "/etc/my.conf",
        "SLURM_JOB_ID": "3",
        "SLURM_CPU_BIND": "x",
        "SBATCH_PARTITION": "gpu",
        "SQUEUE_FORMAT": "%i",
        "SQUEUE_STATES": "PD",
        "SACCT_FORMAT": "jobid",
        "SLURM_TIME_FORMAT": "relative",
        "SCANCEL_STATE": "PENDING",
        "PMIX_RANK": "0",
        "XPM_HPC_JOB": "a/b",
        "PYTHONPATH": "/ours",
        "SLURMISH": "kept",
    }
    fake.says("sbatch", "17\n")
    Slurm("/nowhere", Commands(outer)).submit(submission())
    shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    seen = {name: value for name, value in fake.environ("sbatch").items() if name not in shell}
    kept = ("PATH", "HOME", "LANG", "SLURM_CONF", "SLURMISH")
    assert seen == {**{name: outer[name] for name in kept}, "LC_ALL": "C"}
    assert clean_environment(outer)["LC_ALL"] == "C"


# --- Looking for a submission whose reply was lost


@pytest.mark.parametrize(
    ("squeue", "sacct", "found"),
    [
        ("17|xpm-hpc:0f0f|say-0f0f\n", "", "17"),
        ("17|xpm-hpc:0f0f|renamed\n", "", "17"),
        ("17|(null)|say-0f0f\n", "", "17"),
        ("17||say-0f0f\n", "", "17"),
        ("16|xpm-hpc:0f0f0|say-0f0f0\n17|xpm-hpc:0f0f|say-0f0f\n", "", "17"),
        ("hello\n\n16|a|b|c\n17|xpm-hpc:0f0f|say-0f0f\n", "", "17"),
        ("", "17\n", "17"),
        ("", "17_0\n17_1\n17_2\n", "17"),
        ("", "17_[0-2%4]\n", "17"),
        ("16|xpm-hpc:0f0e|say-0f0e\n", "17\n", "17"),
        ("", "Welcome to sacct!\n17\n", "17"),
        ("", "", None),
        ("16|xpm-hpc:0f0e|say-0f0e\n", "", None),
        ("", "No jobs here.\n", None),
    ],
)
def test_find(slurm, fake, squeue, sacct, found):
    fake.says("squeue", squeue)
    fake.says("sacct", sacct)
    assert slurm.find(submission()) == (found and [found])
    assert slurm.find(submission([0, 2])) == (found and [f"{found}_0", f"{found}_2"])


@pytest.mark.parametrize(
    ("silent", "code"), [("squeue", 1), ("squeue", 255), ("sacct", 1)], ids=["squeue", "squeue killed", "sacct"]
)
def test_a_job_is_not_unknown_because_nobody_answers(slurm, fake, silent, code):
    fake.says(silent, "", "error: munge: cannot connect", code)
    with pytest.raises(NoInformation, match="munge"):
        slurm.find(submission())


def test_sacct_is_asked_for_the_name_and_not_only_for_today(slurm, fake):
    slurm.find(submission())
    sacct = fake.calls[-1]
    assert "--name=say-0f0f" in sacct
    assert sacct[sacct.index("-S") + 1] < "2100"


# --- Cancel


def test_cancel(slurm, fake):
    slurm.cancel([])
    assert fake.calls == []
    slurm.cancel(["17", "18_3"])
    assert fake.calls == [["scancel", "--quiet", "17", "18_3"]]
    slurm.cancel([str(number) for number in range(1200)])
    assert [len(call) - 2 for call in fake.calls[1:]] == [500, 500, 200]


def test_cancelling_what_has_ended_is_no_error(slurm, fake):
    fake.says("scancel", "", "scancel: error: Kill job error on job id 17: Invalid job id specified", 1)
    slurm.cancel(["17"])


def test_cancelling_that_fails_is_told(slurm, fake):
    fake.says("scancel", "", "scancel: error: Unable to contact slurm controller", 1)
    with pytest.raises(NoInformation, match="Unable to contact"):
        slurm.cancel(["17"])
