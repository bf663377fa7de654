"""What sbatch refuses, for now or for good; what surrounds it; and Slurm gone while jobs are submitted and watched."""

from __future__ import annotations

import os
import re
import time

from desk import wait_for
from faults import COUNTED, TWENTY, WORDS, finish, runs, stopped, submitted

RUN = ("xpm-hpc", "run", "--launcher", "mycluster")
#: seconds that slurmctld is away
AWAY = float(os.environ.get("XPM_HPC_SLURM_AWAY") or 8)
ROOTS = (
    COUNTED
    + """
if __name__ == "__main__":
    with experiment(sys.argv[1], "roots"):
        for n in range(int(sys.argv[2])):
            Root(word=f"root-{n}").submit()
"""
)
REFUSED = """
import sys
from experimaestro_hpc import Param, Task, experiment
from experimaestro_hpc.resources import Resources

class Say(Task):
    word: Param[str]

    def execute(self):
        print(self.word)

class Child(Task):
    word: Param[str]
    parent: Param[Say]

    def execute(self):
        print(self.word)

if __name__ == "__main__":
    with experiment(sys.argv[1], "refused"):
        Say(word="good").submit()
        Child(word="child of partition", parent=Say(word="partition").submit(launcher="nopartition")).submit(
            launcher="nopartition")
        Say(word="account").submit(launcher="noaccount")
        Say(word="gpu").submit(launcher="nogpu")
        Say(word="memory").submit(resources="cpu(mem=900G)")
"""
#: roots that end when the file `open` is there, not while slurmctld is away: Slurm would hear of it minutes later
WAITING = TWENTY.replace(
    "        note(self.word)",
    """        note(self.word)
        while not os.path.exists("../../../open"):
            time.sleep(0.1)""",
    1,
)
NOISE = """
echo "*** welcome to the site's own sbatch ***"; echo "warning: your project has used 80%" >&2
id=$($real "$@") || exit $?
echo "$id;rig"; echo "have a nice day"
exit 0
"""
ENVIRONMENT = """
import os, sys
from experimaestro_hpc import Param, Task, experiment

class Show(Task):
    word: Param[str]

    def execute(self):
        for name, value in sorted(os.environ.items()):
            print(f"{name}={value}")

if __name__ == "__main__":
    with experiment(sys.argv[1], "environment"):
        Show(word="hello").submit()
"""
LEAKS = {
    "SQUEUE_FORMAT": "%i",
    "SQUEUE_FORMAT2": "JobID",
    "SQUEUE_STATES": "SUSPENDED",
    "SQUEUE_PARTITION": "gpu",
    "SACCT_FORMAT": "JobID",
    "SLURM_TIME_FORMAT": "%s",
    "SBATCH_PARTITION": "nowhere",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_HOLD": "1",
    "SBATCH_ARRAY_INX": "0-3",
    "SLURM_JOB_ID": "4711",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    "SLURM_EXPORT_ENV": "NONE",
    "PMIX_RANK": "3",
    "XDG_RUNTIME_DIR": "/run/user/1001",
    "XDG_SESSION_ID": "7",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1001/bus",
    "LC_TIME": "de_DE.UTF-8",
}


def test_more_jobs_than_the_qos_lets_a_user_submit(desk):
    """Two may be submitted at once: the others wait for a slot, and are told to."""
    desk.write("roots.py", ROOTS)
    desk.launcher(more='[defaults]\nqos = "tiny"\n')
    ended = desk.run(*RUN, "roots.py", "--", "work", "7").ok()
    assert "experiment roots: 7 done\n" in ended.out
    assert "waiting for a slot: " in ended.out, ended
    assert "QOSMaxSubmitJobPerUserLimit" in ended.out, ended
    assert runs(desk.there) == sorted(f"root-{n}" for n in range(7))
    wait_for(lambda: sum(submitted(desk).values()) == 7, "sacct to know all jobs")


def test_what_is_held_goes_on_with_nobody_watching(desk):
    """The jobs that end see to it, and leave no note when nothing is held any more."""
    desk.write("roots.py", ROOTS)
    desk.launcher(more='[defaults]\nqos = "tiny"\n')
    detached = desk.run(*RUN, "--detach", "roots.py", "--", "work", "7").ok()
    assert "waiting for a slot: " in detached.out, detached
    wait_for(lambda: runs(desk.there) == sorted(f"root-{n}" for n in range(7)), "all to run", 300)
    wait_for(lambda: sum(submitted(desk).values()) == 7, "sacct to know all jobs")
    wait_for(lambda: not list((desk.there / ".xpm/held").iterdir()), "the last job to end")


def test_a_job_that_ends_beside_the_note_of_another_user(desk):
    """Which it cannot read: for Slurm it has ended well all the same, so that what waits for it runs."""
    desk.write("roots.py", ROOTS)
    desk.launcher()
    desk.run(*RUN, "roots.py", "--", "work", "1").ok()
    note = desk.there / ".xpm" / "held" / "0"
    note.parent.mkdir(exist_ok=True)
    note.touch(0o600)
    assert note.stat().st_uid != desk.there.stat().st_uid
    desk.run(*RUN, "roots.py", "--", "work", "2").ok()
    natives = [one["native_id"] for one in desk.jobs().values()]
    asked = ("sacct", "-nXP", "-o", "State", "-j", ",".join(natives))
    ends: list[str] = []

    def are_known() -> bool:
        ends[:] = desk.on_login(*asked).split()
        return len(ends) == 2 and set(ends) <= {"COMPLETED", "FAILED"}

    wait_for(are_known, "sacct to know their ends")
    assert ends == ["COMPLETED"] * 2


def test_more_tasks_than_an_array_may_have(desk, standins):
    path = desk.rig.root / "etc/slurm/slurm.conf"
    text = path.read_text()
    desk.write("twenty.py", TWENTY)
    try:
        path.write_text(re.sub(r"(?m)^MaxArraySize=.*$", "MaxArraySize=4", text))
        desk.rig.stop("slurmctld")
        desk.rig.start("slurmctld")
        ended = desk.run(*RUN, "twenty.py", "--", "work").ok()
    finally:
        path.write_text(text)
        desk.rig.stop("slurmctld")
        desk.rig.start("slurmctld")
    assert "experiment twenty: 20 done\n" in ended.out
    assert runs(desk.there) == WORDS
    assert standins.calls()["sbatch"] == 3 + 3 + 1


def test_what_slurm_refuses_for_good_fails_that_task_only(desk):
    desk.write("refused.py", REFUSED)
    desk.launcher("nopartition", host="mycluster", more='[defaults]\npartition = "nowhere"\n')
    desk.launcher("noaccount", host="mycluster", more='[defaults]\naccount = "nobody"\n')
    desk.launcher("nogpu", host="mycluster", more='[defaults]\ngres = "gpu:a100:1"\n')
    ended = desk.run(*RUN, "refused.py", "--", "work")
    assert ended.status == 1, ended
    jobs = desk.jobs()
    found = {word: (job["state"], job["reason"]) for word, job in jobs.items()}
    launch = ("failed", "launch")
    assert found == {
        "good": ("done", None),
        "partition": launch,
        "child of partition": ("failed", "dependency"),
        "account": launch,
        "gpu": launch,
        "memory": launch,
    }, ended
    assert "Invalid partition name specified" in jobs["partition"]["message"]
    assert "Invalid account" in jobs["account"]["message"]
    assert "Requested node configuration is not available" in jobs["gpu"]["message"]
    assert "Memory specification can not be satisfied" in jobs["memory"]["message"]
    assert "refused" in jobs["child of partition"]["message"]
    assert "refused.say" in jobs["child of partition"]["message"]


def test_a_wrapper_that_prints_noise_and_the_name_of_a_cluster(desk, standins):
    desk.write("twenty.py", TWENTY)
    standins.set("sbatch", NOISE)
    assert "experiment twenty: 20 done\n" in desk.run(*RUN, "twenty.py", "--", "work").ok().out
    assert runs(desk.there) == WORDS


def test_the_users_settings_and_session_reach_neither_slurms_commands_nor_the_job(desk, standins):
    bashrc = desk.rig.home("login") / ".bashrc"
    exports = "".join(f"export {name}='{value}'\n" for name, value in LEAKS.items())
    bashrc.write_text(f"{bashrc.read_text()}{exports}export MINE=kept\n")
    desk.write("environment.py", ENVIRONMENT)
    assert "1 done" in desk.run(*RUN, "environment.py", "--", "work").ok().out
    (text,) = desk.results("show.out")
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert found["MINE"] == "kept"
    leaked = {name for name, value in LEAKS.items() if found.get(name) == value}
    assert leaked == {"LC_TIME"}
    assert found["SLURM_JOB_ID"] != "4711"


def test_slurmctld_is_away_while_jobs_are_submitted_and_watched(desk, standins):
    desk.write("twenty.py", WAITING)
    standins.set("sbatch", "if once; then until [ -e $here/go ]; do sleep 0.1; done; fi")
    with desk.start(*RUN, "twenty.py", "--", "work") as driver:
        try:
            wait_for(standins.fired, "the first sbatch")
            with stopped(desk.rig, "slurmctld"):
                (desk.there / "go").touch()
                time.sleep(AWAY)
            wait_for(lambda: len(runs(desk.there)) == 10, "the roots to run")
            with stopped(desk.rig, "slurmctld"):
                time.sleep(AWAY)
            (desk.there / "open").touch()
            text = finish(driver, 100)
        finally:
            driver.kill()
    assert driver.returncode == 0, text
    assert "experiment twenty: 20 done\n" in text
    assert runs(desk.there) == WORDS
    wait_for(lambda: sum(submitted(desk).values()) == 20, "sacct to know all jobs")


def test_what_was_never_submitted_is_looked_for_and_submitted_by_the_next_run(desk, standins):
    """Nobody watches any more when the controller comes back. (The real commands take two minutes to say this.)"""
    desk.write("roots.py", ROOTS)
    for command, whose in (("sbatch", "Batch job submission failed"), ("squeue", "slurm_load_jobs error")):
        words = f"{command}: error: {whose}: Unable to contact slurm controller (connect failure)"
        standins.set(command, f'echo "{words}" >&2; exit 1')
    ended = desk.run(*RUN, "--detach", "roots.py", "--", "work", "3").ok()
    assert "3 jobs without an answer: sbatch: " in ended.out, ended
    states = {job["state"] for job in desk.jobs().values()}
    assert states == {"unscheduled"}
    standins.clear()
    again = desk.run(*RUN, "roots.py", "--", "work", "3").ok()
    assert "experiment roots: 3 done\n" in again.out
    assert runs(desk.there) == ["root-0", "root-1", "root-2"]
    wait_for(lambda: sum(submitted(desk).values()) == 3, "sacct to know all jobs")
