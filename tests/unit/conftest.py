"""What the unit tests share: a home that is nobody's, and waiting for a condition."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's own launchers, templates, git settings and workspaces neither matter nor change."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("XPM_HPC_", "XDG_", "GIT_")) and name != "XPM_HPC_GOLDEN":
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        yield home


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """``wait_until(condition)``: go on as soon as it holds; fail when it does not come to hold."""

    def wait(condition: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def end_runners() -> Callable[[Path], None]:
    """``end_runners(root)``: end the background runners of a workspace, which is the test's own."""

    def end(root: Path) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if b"experimaestro_hpc.schedulers.local_runner" in words and os.fsencode(root) in words:
                os.kill(int(path.parent.name), signal.SIGKILL)

    return end


@pytest.fixture(autouse=True)
def nothing_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in scheduler takes a request at once or never; on a real one tests/faults waits."""
    monkeypatch.setattr("experimaestro_hpc.agent.receipts.LATE", 0.0)
