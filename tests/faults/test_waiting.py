"""`jobs why` of jobs that Slurm keeps waiting, for each of its reasons, as Slurm itself gives them."""

from __future__ import annotations

from typing import Any

import pytest
from desk import Desk, wait_for
from faults import COUNTED, on_slurm, runs

SCRIPT = (
    COUNTED
    + """
class Held(Task):
    word: Param[str]

    def execute(self):
        note(self.word)
        while not os.path.exists("../../../open"):
            time.sleep(0.1)

if __name__ == "__main__":
    with experiment(sys.argv[1], "waiting"):
        for word in sys.argv[2:]:
            Held(word=word).submit(launcher=word)
"""
)
#: what Slurm says, what we say, and what we advise
EXPECTED = {
    "user": ("JobHeldUser", "it is held", "scontrol release"),
    "admin": ("JobHeldAdmin", "held by an administrator", "ask the site's support"),
    "time": ("PartitionTimeLimit", "asks for more time than its partition gives", "shorter duration"),
    "begin": ("BeginTime", "it may start only later", ""),
    "resources": ("Resources", "until enough cores, memory or GPUs are free", ""),
    "nodes": ("Nodes required for job are DOWN", "the nodes that it could run on are down", "sinfo -R"),
    "node": ("ReqNodeNotAvail", "nodes that it needs are down", "sinfo -R"),
    "requeued": ("job requeued in held state", "put back into the queue and is held", "scontrol release"),
    "never": ("DependencyNeverSatisfied", "a parent failed, so it can never start", "jobs why"),
}


#: the launcher's [defaults] that bring it about; the others are held, and then more is done to them
DEFAULTS = {
    "time": 'time = "2-00:00:00"',
    "begin": 'begin = "now+1hour"',
    "resources": 'exclusive = true\nnodelist = "c1"',
    "nodes": "exclusive = true",
    "node": 'nodelist = "c2"',
    "never": 'dependency = "afterok:PARENT"',
}


def test_why_slurm_keeps_a_job_waiting(desk: Desk):
    desk.write("waiting.py", SCRIPT)
    parent, blocker = "", ""
    run = ("xpm-hpc", "run", "--detach", "waiting.py", "--", "work")

    def submit(*words: str) -> None:
        for word in words:
            defaults = DEFAULTS.get(word, "hold = true").replace("PARENT", parent)
            desk.launcher(word, host="mycluster", more=f"[defaults]\n{defaults}\n")
        desk.run(*run, *words).ok()

    def control(*words: str) -> None:
        on_slurm(desk.rig, "scontrol", *words)

    def why() -> dict[str, dict[str, Any]]:
        listed = desk.run("xpm-hpc", "jobs", "why", "--json", "--workdir", "work", *ids.values()).json()
        return {word: one for word in ids for one in listed if one["id"] == ids[word]}

    def slurms(one: dict[str, Any]) -> str:
        return str(one["scheduler_says"].get("Reason", "")).replace("_", " ")

    try:
        submit("user", "admin", "requeued")
        native = {word: job["native_id"] for word, job in desk.jobs().items()}
        control("release", native["requeued"])
        wait_for(lambda: runs(desk.there) == ["requeued"], "a job to run")
        control("requeuehold", native["requeued"])
        control("hold", native["admin"])
        wait = f"until [ -e /home/alice/{desk.folder}/fail ]; do sleep 0.1; done; exit 1"
        parent = desk.on_login("sbatch", "--parsable", "-w", "c2", "--wrap", wait).strip()
        blocker = desk.on_login("sbatch", "--parsable", "--exclusive", "-w", "c1", "--wrap", "sleep 600").strip()
        running = ["squeue", "-h", "-t", "running", "-j", f"{parent},{blocker}", "-o", "%i"]
        wait_for(lambda: len(desk.on_login(*running).split()) == 2, "both to run")
        control("update", "nodename=c2", "state=drain", "reason=test")
        submit(*DEFAULTS)
        (desk.there / "fail").touch()
        ids = {word: job["id"] for word, job in desk.jobs().items()}
        assert ids.keys() == EXPECTED.keys()
        last: dict[str, dict[str, Any]] = {}

        def is_said() -> bool:
            last.update(why())
            return all(slurms(one).startswith(EXPECTED[word][0]) for word, one in last.items())

        try:
            wait_for(is_said, "Slurm to give its reasons", 40)
        except AssertionError:
            pytest.fail(str({word: (one["state"], slurms(one)) for word, one in last.items()}))
        for word, (_, sentence, advice) in EXPECTED.items():
            assert sentence in last[word]["sentence"], last[word]
            assert advice in last[word]["advice"], last[word]
            state = "held" if word in ("user", "admin", "requeued") else "queued"
            assert last[word]["state"] == state, last[word]
        text = desk.run("xpm-hpc", "jobs", "why", "--workdir", "work", ids["time"]).ok().out
        assert "PartitionTimeLimit" in text
    finally:
        desk.on_login("scancel", "--quiet", "--user", "alice")
        control("update", "nodename=c2", "state=resume")
