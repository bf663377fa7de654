"""Fixtures of the tests that need a cluster: `rig`, the test clusters, `laptop`, their user's machine, and `desk`.

A test that has a `desk` runs once on each of the two clusters, unless it says `sites.only` and why.
Where the cluster cannot run the tests are skipped, or fail if XPM_HPC_REQUIRE_CLUSTER is 1. One that runs
already is used and left running; one that the tests had to bring up is taken down at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from desk import GATED, UNDER_WAY, Desk, wait_for  # noqa: E402
from rig import LAPTOP_VENV, Rig  # noqa: E402
from rig_machine import STANDARD_PATH, build_wheel  # noqa: E402
from sites import SITES, Site  # noqa: E402

REPOSITORY = HERE.parent.parent


@dataclass(frozen=True)
class Laptop:
    """alice's laptop, with this repository's package installed in a virtual environment."""

    rig: Rig
    home: Path  # alice's home directory, as seen from outside

    def run(
        self,
        argv: Sequence[str],
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = 120,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as alice on the laptop; the environment's commands come first."""
        environment = {"PATH": f"{LAPTOP_VENV}/bin:{STANDARD_PATH}"} | dict(env or {})
        return self.rig.exec("laptop", argv, cwd=cwd, env=environment, timeout=timeout, input=input)

    def write(self, relative: str, text: str) -> Path:
        """Write a file below alice's home directory, which belongs to her; its path as seen from outside."""
        account = self.home.stat()
        path = self.home / relative
        missing = [parent for parent in path.parents if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for made in (*missing, path):
            os.chown(made, account.st_uid, account.st_gid)
        return path


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    """The test cluster, up."""
    rig = Rig()
    if reason := rig.available():
        if os.environ.get("XPM_HPC_REQUIRE_CLUSTER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    started = rig.up()
    yield rig
    if started:
        rig.down()


@pytest.fixture(scope="session")
def laptop(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """alice's laptop with this repository's package."""
    rig.install_on_laptop(build_wheel(REPOSITORY, tmp_path_factory.mktemp("wheel")))
    return Laptop(rig, rig.home("laptop"))


@pytest.fixture(params=list(SITES))
def site(request: pytest.FixtureRequest) -> Site:
    """Each of the two clusters."""
    return SITES[request.param]


@pytest.fixture
def desk(laptop: Laptop, site: Site, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """A place for this test alone, on alice's laptop and on the cluster."""
    desk = Desk(laptop.rig, request.node.name, site)
    yield desk
    desk.clear()


@pytest.fixture
def under_way(desk: Desk) -> Desk:
    """GATED's jobs: hello and world run, and wait at their gates; concat waits for them."""
    desk.write("gated.py", GATED)
    desk.launcher()
    desk.run("xpm-hpc", "run", "--launcher", desk.cluster, "--detach", "gated.py", "--", "work").ok()

    def states() -> dict[str, tuple[str, str | None]]:
        return {label: (job["state"], job["reason"]) for label, job in desk.jobs().items()}

    wait_for(lambda: states() == UNDER_WAY, "both says to run")
    return desk
