"""What a task's submission says of its ends: the policy for new attempts, and the warning before its time limit."""

from __future__ import annotations

from typing import Any

import pytest

from experimaestro_hpc import Param, ResumableTask, RunMode, Task, experiment
from experimaestro_hpc.agent.retry import RESUMABLE, parse_retry
from experimaestro_hpc.driver.jobs import WARNING, Job
from experimaestro_hpc.driver.launcher import Launcher
from experimaestro_hpc.errors import XpmError
from experimaestro_hpc.resources import Resources


class Plain(Task):
    n: Param[int] = 0


class Resume(ResumableTask):
    n: Param[int] = 0


@pytest.fixture
def dry(tmp_path):
    with experiment(tmp_path / "work", "dry", run_mode=RunMode.DRY_RUN, launcher="local") as xp:
        yield xp


def job(task: Task, resources: str, defaults: dict[str, Any], scheduler: str = "slurm") -> Job:
    launcher = Launcher("cluster", scheduler, "/w", defaults=defaults)
    return Job("test.task/0f", task, (), launcher, Resources.parse(resources))


@pytest.mark.parametrize(
    ("task", "retry", "expected"),
    [
        (Plain, None, {}),
        (Plain, 2, parse_retry(2)),
        (Plain, {"node_fail": 3}, {"node_fail": {"times": 3}}),
        (Resume, None, parse_retry(RESUMABLE)),
        (Resume, {}, {}),
        (Resume, 0, {}),
        (Resume, {"timeout": 5}, {"timeout": {"times": 5}}),
    ],
)
def test_the_policy_of_a_task(dry, task, retry, expected):
    task().submit(retry=retry)
    (taken,) = dry.jobs.values()
    assert taken.retry == expected


def test_a_policy_that_cannot_be_followed_is_refused_and_can_be_corrected(dry):
    with pytest.raises(XpmError, match="no memory is asked for at first"):
        Plain().submit(retry={"out_of_memory": {"mem": "x2"}})
    assert dry.jobs == {}
    Plain().submit(retry={"out_of_memory": {"mem": "x2"}}, resources="mem=1G")
    (taken,) = dry.jobs.values()
    assert taken.retry == parse_retry({"out_of_memory": {"mem": "x2"}})


@pytest.mark.parametrize(
    ("resources", "defaults", "expected"),
    [
        ("any", {}, "any"),
        ("mem=1G & cores=2", {}, "mem=1G & cores=2"),
        ("any", {"time": "02:00:00", "mem": "4G"}, "mem=4G & duration=2h"),
        # the task's wishes count for more than the launcher's, whichever is larger
        ("duration=10m & mem=8G", {"time": "02:00:00", "mem": "4G"}, "mem=8G & duration=10m"),
    ],
)
def test_what_is_asked_for_with_the_launchers_defaults(resources, defaults, expected):
    assert job(Plain(), resources, defaults).asked == Resources.parse(expected)


@pytest.mark.parametrize(
    ("resources", "defaults", "seconds"),
    [
        ("any", {}, WARNING),
        ("duration=10h", {}, WARNING),
        ("duration=8m", {}, WARNING),
        ("duration=4m", {}, 60),
        ("duration=4s", {}, 1),
        ("duration=1s", {}, 1),
        ("any", {"time": "00:01:00"}, 15),
        ("duration=4m", {"time": "00:01:00"}, 60),
    ],
)
def test_a_resumable_task_is_told_of_its_time_limit(resources, defaults, seconds):
    assert job(Resume(), resources, defaults).request.warning == seconds
    assert job(Plain(), resources, defaults).request.warning is None


@pytest.mark.parametrize("scheduler", ["local", "slurm"])
def test_what_is_told_is_in_the_script(scheduler):
    lines = {True: "#XPM warning=15", False: "#SBATCH --signal=B:USR2@15"}
    of_task = job(Resume(), "duration=1m", {}, scheduler).planned().likeness
    assert lines[scheduler == "local"] in of_task
    assert not any(
        "USR2" in line or "warning" in line for line in job(Plain(), "any", {}, scheduler).planned().likeness
    )
