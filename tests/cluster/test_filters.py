"""Commands that mean jobs by filters, and whole experiments, on a real cluster."""

from __future__ import annotations

import signal

from desk import Desk
from sites import only
from terminal import Terminal

RUNNING = {"hello": "running", "world": "running", "concat": "waiting"}
DONE = dict.fromkeys(RUNNING, "done")


def states(desk: Desk) -> dict[str, str]:
    return {label: job["state"] for label, job in desk.jobs().items()}


def test_kill_and_retry_by_filters(under_way):
    """A filter by state means the state that a job has now, and no other job."""
    refused = under_way.run("xpm-hpc", "jobs", "kill", "--state", "waiting", "--workdir", "work")
    refused.error(2, "end 1 job, and those that need them: nobody is there to be asked", "--yes")
    killed = under_way.run("xpm-hpc", "jobs", "kill", "--state", "waiting", "--yes", "--workdir", "work").ok()
    assert killed.out.count(" is failed (cancelled)") == 1 and killed.out.startswith("gated.concat/")
    assert states(under_way) == RUNNING | {"concat": "failed"}
    nothing = under_way.run("xpm-hpc", "jobs", "kill", "--state", "queued", "--task", "say", "--workdir", "work").ok()
    assert nothing.out == "no job that waits or runs fits\n"

    options = (
        "--state",
        "failed",
        "--tag",
        "y=1",
        "--task",
        "gated.*",
        "--since",
        "1h",
        "--launcher",
        under_way.cluster,
    )
    assert list(under_way.jobs(*options)) == ["concat"]
    again = under_way.run("xpm-hpc", "jobs", "retry", *options, "--yes", "--workdir", "work").ok()
    assert again.out.startswith("gated.concat/") and again.out.endswith(" is submitted again\n")
    assert states(under_way) == RUNNING
    attempts = under_way.run("xpm-hpc", "jobs", "logs", under_way.jobs()["concat"]["id"], "--attempt", "7")
    assert attempts.status == 2 or attempts.out == ""

    under_way.open("hello", "world", "concat")
    attached = under_way.run("xpm-hpc", "experiments", "attach", "--workdir", "work").ok()
    assert attached.out.count(" done ") == 3
    assert states(under_way) == DONE
    assert under_way.results("concat.out") == ["HELLO WORLD\n"]

    usage = {
        one["task"]: one for one in under_way.run("xpm-hpc", "jobs", "usage", "--json", "--workdir", "work").json()
    }
    assert {task: one["jobs"] for task, one in usage.items()} == {"gated.concat": 1, "gated.say": 2}
    for one in usage.values():
        assert one["longest"] > 0 and one["largest"] > 1e6 and one["advice"].startswith("cpu(cores=1, mem=64M) & ")


def test_cancel_an_experiment(under_way):
    cancelled = under_way.run("xpm-hpc", "experiments", "cancel", "gated", "--yes", "--workdir", "work").ok()
    assert cancelled.out == "experiment gated: 3 failed\n"
    assert states(under_way) == dict.fromkeys(RUNNING, "failed")
    again = under_way.run("xpm-hpc", "experiments", "cancel", "gated", "--workdir", "work").ok()
    assert again.out == "no job of experiment gated waits or runs\n"
    assert under_way.run("xpm-hpc", "experiments", "attach", "--workdir", "work").status == 1


@only("slurm", "what is watched is the same wherever it runs")
def test_watch_on_a_terminal(under_way):
    argv = ["xpm-hpc", "jobs", "--watch", "--workdir", str(under_way.command()[2]) + "/work"]
    with Terminal(under_way.rig, argv, {"NO_COLOR": "1", "LINES": "20", "COLUMNS": "70"}) as terminal:
        terminal.expect("2 running, 1 waiting")
        under_way.open("hello")
        terminal.expect("1 done, 1 running, 1 waiting")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    assert "Traceback" not in terminal.shown
    after = terminal.shown.partition("\x1b[?1049l")[2].splitlines()
    assert len(after) == 5 and max(map(len, after)) <= 70
    assert states(under_way)["world"] == "running", "nothing happened to the jobs"
