"""After the submission nothing on the laptop is needed: the process, the connection, the network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from desk import GATED, Desk, wait_for
from rig_machine import is_in

DONE = ["concat.done", "say.done", "say.done"]


@pytest.fixture
def gated(desk: Desk) -> Desk:
    desk.write("gated.py", GATED)
    desk.launcher()
    return desk


@pytest.fixture
def link(rig) -> Iterator[Callable[[str], None]]:
    """Pull the laptop's network cable, `link("down")`, and put it back; at the other end: so it keeps its routes."""

    def link(state: str) -> None:
        subprocess.run(["ip", "-netns", f"{rig.name}-hub", "link", "set", "to-laptop", state], check=True)

    yield link
    link("up")
    wait_for(lambda: rig.exec("laptop", ["ssh", "-o", "ConnectTimeout=2", "mycluster", "true"]).returncode == 0, "ssh")


def command(desk: Desk, *options: str, workdir: str = "work") -> tuple[str, ...]:
    """The command that runs GATED."""
    return ("xpm-hpc", "run", "--launcher", desk.cluster, *options, "gated.py", "--", workdir)


def assert_fetched(desk: Desk):
    """Another process finds all done and fetches the results, and the script has nothing left to do."""
    jobs = desk.jobs()
    assert {label: job["state"] for label, job in jobs.items()} == dict.fromkeys(("hello", "world", "concat"), "done")
    assert {job["progress"] for job in jobs.values()} == {1.0}
    assert desk.results("concat.out") == ["HELLO WORLD\n"]
    again = desk.run(*command(desk)).ok()
    assert "3 done before" in again.text
    desk.await_native(*["COMPLETED"] * 3)


def test_detach_returns_while_the_jobs_go_on(gated):
    began = time.monotonic()
    ended = gated.run(*command(gated, "--detach")).ok()
    assert time.monotonic() - began < 20
    assert "3 to run" in ended.out
    assert re.search("^detached: .*xpm-hpc jobs --workdir .*/work$", ended.out, re.MULTILINE)
    assert set(gated.native_jobs().values()) <= {"PENDING", "RUNNING", "CONFIGURING"}
    assert gated.markers() == []

    under_way = gated.run(*command(gated, "--detach")).ok()
    assert "3 under way" in under_way.out
    gated.open("hello", "world", "concat")
    wait_for(lambda: gated.markers() == DONE, "the graph's end")
    assert_fetched(gated)


def test_the_graph_is_finished_while_the_laptop_is_cut_off(gated, link):
    gated.run(*command(gated, "--detach")).ok()
    link("down")
    gated.open("hello", "world", "concat")
    wait_for(lambda: gated.markers() == DONE, "the graph's end")

    cut_off = gated.run("xpm-hpc", "jobs", "--workdir", "work")
    assert cut_off.status == 3, cut_off
    assert "Traceback" not in cut_off.text
    warning = rf"^warning: host {gated.cluster}: .*\n.*ssh {gated.cluster}(.*\n)*  shown as it was last seen$"
    assert re.search(warning, cut_off.err, re.MULTILINE), cut_off
    assert re.findall(rf"^gated\.\w+/\w{{8}} +(\w+) +{gated.cluster} \d", cut_off.out, re.MULTILINE) == [
        *("queued", "queued", "waiting"),  # as they were seen last, at the submission
    ]
    told = gated.run("xpm-hpc", "experiments", "--workdir", "work").ok().out
    assert "2 queued, 1 waiting" in told
    gated.run(*command(gated)).error(3, f"host {gated.cluster}: ", f"ssh {gated.cluster}")

    link("up")
    wait_for(lambda: gated.run("xpm-hpc", "jobs", "--workdir", "work").status == 0, "the cluster to be reached again")
    assert_fetched(gated)


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_the_graph_is_finished_when_the_driver_is_killed(gated, transport):
    gated.launcher(transport=transport)
    with gated.start(*command(gated)) as driver:
        try:
            read_until(driver, "running on ")
            assert agents(gated)
        finally:
            driver.kill()
    gated.open("hello", "world", "concat")
    wait_for(lambda: gated.markers() == DONE, "the graph's end")
    wait_for(lambda: not agents(gated), "the agent to notice that it is alone")
    assert_fetched(gated)


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_run_goes_on_after_its_connection_was_lost(gated, transport):
    gated.launcher(transport=transport)
    with gated.start(*command(gated)) as driver:
        try:
            read_until(driver, "running on ")
            for pid in agents(gated):
                os.kill(pid, signal.SIGKILL)
            read_until(driver, "the jobs go on, and so do the tries to connect")
            read_until(driver, f"connected to {gated.cluster}")
            gated.open("hello", "world", "concat")
            told = driver.communicate(timeout=120)[0]
        finally:
            driver.kill()
    assert driver.returncode == 0, told
    assert told.endswith("experiment gated: 3 done\n")
    assert_fetched(gated)


def test_ctrl_c_leaves_the_jobs_and_the_script_comes_back_to_them(gated):
    with gated.start(*command(gated)) as driver:
        try:
            read_until(driver, "running on ")
            driver.send_signal(signal.SIGINT)
            told = driver.communicate(timeout=60)[0]
        finally:
            driver.kill()
    assert driver.returncode == 130
    assert "detached: the jobs go on" in told
    assert "xpm-hpc jobs kill" in told
    assert "Traceback" not in told

    with gated.start(*command(gated)) as driver:
        try:
            assert "3 under way" in driver.stdout.readline()
            gated.open("hello", "world", "concat")
            told = driver.communicate(timeout=60)[0]
        finally:
            driver.kill()
    assert driver.returncode == 0
    assert told.endswith("experiment gated: 3 done\n")
    assert_fetched(gated)


INTERRUPTED = """
    import threading
    import paramiko
    from experimaestro_hpc.driver.monitor import Monitor

    def interrupted(self, data):  # where a Ctrl-C does the most harm: paramiko holds its lock, and not yet in a `try`
        if is_watching and threading.current_thread() is threading.main_thread():
            self.clear_to_send_lock.acquire()
            is_watching.clear()
            raise KeyboardInterrupt
        send(self, data)

    send, is_watching = paramiko.Transport._send_user_message, []
    paramiko.Transport._send_user_message = interrupted
    wait = Monitor.wait
    Monitor.wait = lambda self, jobs: is_watching.append(True) or wait(self, jobs)
"""


def test_ctrl_c_while_a_request_is_being_sent(gated):
    gated.launcher(transport="paramiko")
    gated.write("gated.py", GATED.replace('if __name__ == "__main__":', 'if __name__ == "__main__":' + INTERRUPTED))
    ended = gated.run(*command(gated), timeout=60)
    assert ended.status == 130, ended
    assert "detached: the jobs go on" in ended.out
    assert "Traceback" not in ended.text


def test_another_laptop_finds_the_jobs_under_way(gated):
    """Another folder on this one stands for it: it has nothing but the script and the launcher file."""
    gated.run(*command(gated, "--detach")).ok()
    other = gated.run(*command(gated, "--detach", workdir="other")).ok()
    assert "3 under way" in other.out
    gated.open("hello", "world", "concat")
    wait_for(lambda: gated.markers() == DONE, "the graph's end")
    found = gated.jobs(workdir="other")
    assert {label: job["state"] for label, job in found.items()} == dict.fromkeys(("hello", "world", "concat"), "done")
    assert gated.results("concat.out", "other") == ["HELLO WORLD\n"]
    assert_fetched(gated)


def test_two_at_once_submit_each_job_once(gated):
    with gated.start(*command(gated)) as one, gated.start(*command(gated)) as other:
        try:
            wait_for(lambda: len(gated.native_jobs()) >= 3, "the submission")
            gated.open("hello", "world", "concat")
            told = [driver.communicate(timeout=120)[0] for driver in (one, other)]
        finally:
            one.kill()
            other.kill()
    assert (one.returncode, other.returncode) == (0, 0), told
    assert all(text.endswith("experiment gated: 3 done\n") for text in told), told
    assert_fetched(gated)


def read_until(process: subprocess.Popen[str], words: str):
    """Read what a process prints up to the line that has these words."""
    assert any(words in line for line in process.stdout), f"it ended without saying {words!r}"


def agents(desk: Desk) -> list[int]:
    """The agents on the login node."""
    found, networks = [], [Path(f"/run/netns/{desk.rig.name}-{desk.site.front}")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(path.parent.name)
        try:
            if b"b64decode" in path.read_bytes() and is_in(pid, networks):
                found.append(pid)
        except OSError:
            continue  # it has ended
    return found
