"""No job is submitted twice, and none is lost, when the answer to a submission does not come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from desk import GATED, Desk

#: what stands in the way of the scheduler's command, always or the first time
FIRST = 'if [ ! -e $once ]; then touch $once; {}; fi; exec $real "$@"'
FAULTS = {
    "every-reply-is-lost": 'touch $once; $real "$@" >/dev/null; kill -9 $$',
    "the-command-is-never-run": FIRST.format("kill -9 $$"),
    "the-agent-dies-before": FIRST.format("kill -9 $PPID $$"),
    "the-agent-dies-after": FIRST.format('$real "$@"; kill -9 $PPID $$'),
}


@pytest.fixture
def gated(desk: Desk) -> Iterator[Desk]:
    """GATED with all gates open."""
    desk.write("gated.py", GATED)
    desk.launcher()
    for gate in ("hello", "world", "concat"):
        desk.write_there(f"open-{gate}", "")
    yield desk
    (desk.rig.home(desk.site.front) / ".bashrc").unlink(missing_ok=True)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_each_job_is_submitted_once(gated, fault):
    command = gated.site.commands[0]
    real = gated.on_login("which", command).strip()
    once = gated.there / "once"
    lines = f"#!/bin/bash\nonce=/home/alice/{gated.folder}/once\nreal={real}\n{FAULTS[fault]}\n"
    wrapper = gated.write_there(f"bin/{command}", lines, 0o755)
    (gated.rig.home(gated.site.front) / ".bashrc").write_text(f"PATH={wrapper.rpartition('/')[0]}:$PATH\n")

    run = ("xpm-hpc", "run", "--launcher", gated.cluster, "gated.py", "--", "work")
    ended = gated.run(*run)
    assert once.exists()
    if "agent" in fault:
        assert ended.status == 3, ended
        ended = gated.run(*run)
    ended.ok()
    assert gated.results("concat.out") == ["HELLO WORLD\n"]
    gated.await_native(*["COMPLETED"] * 3)
