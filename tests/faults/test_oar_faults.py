"""What can go wrong on OAR alone, with a real one: an oarsub that ends midway, and jobs that it keeps waiting."""

from __future__ import annotations

from typing import Any

import pytest
from desk import Desk, wait_for
from faults import COUNTED, agents, finish, kill, processes, runs
from sites import only

pytestmark = only("oar", "this is about OAR's database and OAR's words")

ARRAY = (
    COUNTED
    + """
if __name__ == "__main__":
    with experiment(sys.argv[1], "array"):
        if sys.argv[2] == "children":  # OAR makes those one by one that wait for one job
            root = Root(word="root").submit()
            for number in range(4):
                Twin(word=f"twin-{number}", root=root).submit()
        else:
            for number in range(5):
                Root(word=f"root-{number}").submit()
"""
)
#: where its database stops answering oarsub: before a row of a table, once there are that many jobs
STOPS = {
    "between two elements": ("children", "jobs", 3),
    "in an element": ("children", "moldable_job_descriptions", 3),
    "in the first element": ("children", "moldable_job_descriptions", 2),
    "in an array made at once": ("roots", "moldable_job_descriptions", 5),
    "in a single job": ("children", "moldable_job_descriptions", 1),
}
SLOW = """
CREATE OR REPLACE FUNCTION slow() RETURNS trigger AS $$
BEGIN
  IF (SELECT count(*) FROM jobs WHERE launching_directory LIKE '%{folder}%') >= {count} THEN
    PERFORM pg_sleep(600);
  END IF;
  RETURN NEW;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER slow BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION slow();
"""
SLEEPS = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@pytest.mark.parametrize("victims", ["oarsub", "oarsub and agent"])
@pytest.mark.parametrize("stop", STOPS)
def test_an_oarsub_that_is_killed_in_the_middle(desk: Desk, stop: str, victims: str):
    """What it has made is found, and runs once; what it has half made is deleted; only the rest is submitted."""
    what, table, count = STOPS[stop]
    desk.write("array.py", ARRAY)
    run = ("xpm-hpc", "run", "--launcher", desk.cluster, "array.py", "--", "work", what)
    desk.rig.oar_sql(SLOW.format(folder=desk.folder, count=count, table=table))
    try:
        with desk.start(*run) as driver:
            try:
                wait_for(lambda: desk.rig.oar_sql(f"SELECT pid {SLEEPS}"), "oarsub to wait for its database")
                if "agent" in victims:
                    driver.kill()
                    kill(agents(desk.rig, desk.site.front))
                kill(processes(desk.rig, desk.site.front, "/oarsub"))
                desk.rig.oar_sql(f"SELECT pg_terminate_backend(pid) {SLEEPS}")
                desk.rig.oar_sql(f"DROP TRIGGER slow ON {table}")
                text = finish(driver)
            finally:
                driver.kill()
        if "agent" in victims:
            desk.run(*run).ok()
        else:
            assert driver.returncode == 0, text
    finally:
        desk.rig.oar_sql(f"DROP TRIGGER IF EXISTS slow ON {table}")
    words = [f"root-{n}" for n in range(5)] if what == "roots" else ["root", *(f"twin-{n}" for n in range(4))]
    assert runs(desk.there) == words
    half_made = {"between two elements": 0, "in an array made at once": 5}.get(stop, 1)
    desk.await_native(*["COMPLETED"] * 5, *["CANCELLED"] * half_made)


WAITING = (
    COUNTED
    + """
if __name__ == "__main__":
    with experiment(sys.argv[1], "waiting"):
        for word in sys.argv[2:]:
            root = Root(word=word).submit(launcher=word)
            if word == "busy":
                Twin(word="child", root=root).submit(launcher=word)
"""
)
#: the launcher's [defaults], the state, what we say and advise
EXPECTED = {
    "held": ("hold = true", "held", "it is held", "oarresume"),
    "busy": ('resource = "/nodes=2"', "queued", "other jobs have the resources that it needs; expected to start", ""),
    "absent": ("""property = "network_address = 'o2'" """, "queued", "none of the resources that are up", "oarnodes"),
    "later": ('type = "postpone=2036-01-01 00:00:00"', "queued", "it may start only later", ""),
}


def test_why_oar_keeps_a_job_waiting(desk: Desk):
    desk.write("waiting.py", WAITING)
    for word, (defaults, *_) in EXPECTED.items():
        desk.launcher(word, host=desk.cluster, more=f"[defaults]\n{defaults}\n")
    blocker = desk.on_login("oarsub", "-d", "/tmp", "-O/dev/null", "-E/dev/null", "-l", "/nodes=1", "sleep 300")
    native = blocker.rpartition("OAR_JOB_ID=")[2].strip()
    setting = ("/usr/sbin/oarnodesetting", "-n", "-h", "o2", "-s")
    last: dict[str, dict[str, Any]] = {}

    def is_said(words: list[str]) -> bool:
        listed = desk.run("xpm-hpc", "jobs", "why", "--json", "--workdir", "work", *(ids[word] for word in words))
        last.update({word: one for word in words for one in listed.json() if one["id"] == ids[word]})
        return all(EXPECTED[word][2] in last[word]["sentence"] for word in words)

    def run(*words: str) -> None:
        desk.run("xpm-hpc", "run", "--detach", "waiting.py", "--", "work", *words).ok()

    try:
        run("held", "busy", "later")
        ids = {word: job["id"] for word, job in desk.jobs().items()}
        wait_for(lambda: is_said(["held", "busy", "later"]), "OAR's reasons", 60)
        run("absent")
        assert desk.rig.exec(desk.site.front, [*setting, "Absent"], "root").returncode == 0
        ids = {word: job["id"] for word, job in desk.jobs().items()}
        wait_for(lambda: is_said(["absent"]), "OAR's reasons", 60)
        for word, (_, state, sentence, advice) in EXPECTED.items():
            assert (last[word]["state"], sentence in last[word]["sentence"]) == (state, True), last[word]
            assert advice in last[word]["advice"], last[word]
        assert last["absent"]["scheduler_says"]["message"] == "No enough matching resources (no_matching_slot)"
        assert "network_address = 'o2'" in last["absent"]["advice"]
        text = desk.run("xpm-hpc", "jobs", "why", "--workdir", "work", ids["child"]).ok().out
        assert "it waits for " in text and "(queued)" in text
    except AssertionError as error:
        raise AssertionError(str(last)) from error
    finally:
        desk.rig.exec(desk.site.front, [*setting, "Alive"], "root")
        desk.on_login("oardel", native)
