"""One workspace, one launcher after another: what the first one was given does not run a second time at the next."""

from __future__ import annotations

import pytest
from desk import Desk
from sites import only


@pytest.fixture
def other(under_way: Desk) -> Desk:
    """GATED's jobs under way, and a launcher that works in another folder."""
    under_way.launcher("other", host=under_way.cluster, workdir=f"{under_way.workdir}/other")
    return under_way


def test_jobs_stay_where_they_are_under_way(other):
    other.open("hello", "world", "concat")
    ended = other.run("xpm-hpc", "run", "--launcher", "other", "gated.py", "--", "work").ok()
    assert f"3 of 3 jobs stay with {other.cluster}" in ended.out and "to run" not in ended.out
    assert {one["launcher"] for one in other.jobs().values()} == {other.cluster}
    assert other.results("concat.out") == ["HELLO WORLD\n"]
    assert len(other.native_jobs()) == 3


@only("slurm", "no scheduler is asked: it is the same with all")
def test_what_cannot_be_asked_about_is_not_run_again(other):
    launcher = other.rig.home("laptop") / f".config/xpm-hpc/launchers/{other.cluster}.toml"
    text = launcher.read_text()
    launcher.write_text(text.replace(f'host = "{other.cluster}"', 'host = "no-such-host"'))
    again = ("xpm-hpc", "run", "--launcher", "other", "--detach", "gated.py", "--", "work")
    message = other.run(*again).error(3, "3 jobs went to", "no-such-host", "xpm-hpc jobs clean --here")
    assert len(other.native_jobs()) == 3
    forget = next(line for line in message.splitlines() if "jobs clean" in line)
    assert "removed 3 jobs" in other.run("bash", "-c", f"{forget} --yes").ok().out
    assert "3 to run" in other.run(*again).ok().out
    launcher.write_text(text)
    for folder in (other.there, other.there / "other"):
        for gate in ("hello", "world", "concat"):
            (folder / f"open-{gate}").touch()
    attached = other.run("xpm-hpc", "experiments", "attach", "gated", "--workdir", "work").ok()
    assert "3 done" in attached.out
    assert {one["launcher"] for one in other.jobs().values()} == {"other"}
