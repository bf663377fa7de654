"""Round trips and scheduler calls do not grow with the number of jobs."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from desk import Desk, Ended

MANY = 200
#: an experiment that tells at its end what went over the connection
COUNTED = """
import collections, sys
from experimaestro_hpc import Param, Task, experiment

class Say(Task):
    word: Param[str]

    def execute(self):
        print(self.word)

class Concat(Task):
    strings: Param[list[Say]]

    def execute(self):
        print(*(string.__xpm_stdout__.read_text().strip() for string in self.strings))

def counted(ask):
    def counting(self, operation, *arguments, **options):
        answer = ask(self, operation, *arguments, **options)
        operations[operation] += 1
        if operation == "submit":
            print("calls", answer["calls"])
        return answer
    return counting

if __name__ == "__main__":
    from experimaestro_hpc.driver.client import RemoteClient
    RemoteClient.call, RemoteClient.receive = counted(RemoteClient.call), counted(RemoteClient.receive)
    operations = collections.Counter()
    kind, count = sys.argv[2], int(sys.argv[3])
    xp = experiment(sys.argv[1], "counted")
    try:
        with xp:
            says = [Say(word=f"{number} of {count}").submit() for number in range(count)]
            if kind == "graph":
                Concat(strings=says).submit()
    finally:
        print("operations", dict(operations))
        print("round trips", sum(session.client.round_trips for session in xp.sessions.values()))
"""


@pytest.fixture
def counted(desk: Desk) -> Iterator[Desk]:
    """A desk whose cluster notes each call of a scheduler's command in the file `calls` of its workdir."""
    desk.write("counted.py", COUNTED)
    desk.launcher()
    notes = desk.write_there("calls", "", 0o666)
    for command in desk.site.commands:
        real = desk.on_login("which", command).strip()
        desk.write_there(f"bin/{command}", f'#!/bin/sh\necho {command} >>{notes}\nexec {real} "$@"\n', 0o755)
    bashrc = desk.rig.home(desk.site.front) / ".bashrc"
    try:
        bashrc.write_text(f"PATH={notes.removesuffix('/calls')}/bin:$PATH\n")
        yield desk
    finally:
        bashrc.unlink(missing_ok=True)


def scheduler_calls(desk: Desk) -> Counter[str]:
    """What was called on the cluster since the last look."""
    notes = desk.there / "calls"
    found = Counter(notes.read_text().split())
    notes.write_text("")
    return found


def run(desk: Desk, *options: str, kind: str, count: int, workdir: str = "work") -> Ended:
    words = ("xpm-hpc", "run", "--launcher", desk.cluster, *options, "counted.py", "--", workdir, kind, str(count))
    return desk.run(*words).ok()


def told(ended: Ended, what: str) -> str:
    """What the script says at its end."""
    (found,) = re.findall(rf"^{what} (.*)$", ended.out, re.MULTILINE)
    return found


@pytest.mark.parametrize(("kind", "submissions"), [("graph", 2), ("independent", 1)])
def test_a_submission_costs_the_same_for_many(counted, kind, submissions):
    """Held, so that no result comes back meanwhile."""
    submit = counted.site.commands[0]
    counted.launcher(more="[defaults]\nhold = true\n")
    trips = {}
    for count in (2, MANY):
        detached = run(counted, "--detach", kind=kind, count=count, workdir=f"work-{count}")
        assert f"{count + (kind == 'graph')} to run" in detached.out
        assert told(detached, "operations") == "{'survey': 1, 'submit': 1}"
        assert told(detached, "calls") == str({**asked_once(submit), submit: submissions})
        assert scheduler_calls(counted) == {**asked_once(submit), submit: submissions}
        trips[count] = int(told(detached, "round trips"))
    assert trips == {2: 4, MANY: 3}  # start, survey, submit; and the first time the package

    began = time.monotonic()
    assert len(counted.jobs(workdir=f"work-{MANY}")) == MANY + (kind == "graph")
    assert_calls(counted, time.monotonic() - began)


def test_many_tasks_from_beginning_to_end(counted):
    submit = counted.site.commands[0]
    many = MANY if submit == "sbatch" else 40  # OAR starts two jobs a second here
    began = time.monotonic()
    ended = run(counted, kind="independent", count=many)
    seconds = time.monotonic() - began
    assert f"experiment counted: {many} done\n" in ended.out
    assert sorted(counted.results("say.out")) == sorted(f"{number} of {many}\n" for number in range(many))
    native_ids = counted.native_jobs()
    assert len(native_ids) == many
    if submit == "sbatch":  # an element of OAR's has a whole id of its own
        assert len({native.partition("_")[0] for native in native_ids}) == 1
    assert told(ended, "calls") == str({**asked_once(submit), submit: 1})
    assert_calls(counted, seconds, {**asked_once(submit), submit: 1})
    assert int(told(ended, "round trips")) < 10 + 10 * seconds  # it depends on how long it takes, not on how many

    again = run(counted, kind="independent", count=many).ok()
    assert f"{many} done before" in again.out
    assert scheduler_calls(counted) == {}
    assert int(told(again, "round trips")) == 0  # all is done, and here
    assert len(counted.native_jobs()) == many


def asked_once(submit: str) -> dict[str, int]:
    """Of Slurm's configuration, how large an array may be: one call, whatever the number of jobs."""
    return {"scontrol": 1} if submit == "sbatch" else {}


def assert_calls(desk: Desk, seconds: float, others: dict[str, int] | None = None):
    """What lists jobs was called once every two seconds at most, and the others as told."""
    calls = scheduler_calls(desk)
    for command in ("squeue", "sacct", "oarstat"):
        assert calls.pop(command, 0) <= 2 + seconds / 2
    assert calls == (others or {})
