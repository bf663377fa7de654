"""Fixtures of the tests of what can go wrong: `rig`, a cluster of their own, `desk`, `standins` for its commands.

They are about Slurm, unless a test says `sites.only`, or is for both.

The cluster is the one of `tests/cluster`, under another name: daemons of it are stopped and its nodes die here. It
forgets ended jobs after seconds, as large sites do after minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cluster")]

from desk import REPOSITORY, Desk  # noqa: E402
from faults import Standins, oar_is_well, slurm_is_well  # noqa: E402
from rig import Rig  # noqa: E402
from rig_machine import build_wheel  # noqa: E402
from sites import SITES, Site  # noqa: E402

#: seconds for which Slurm remembers an ended job
MIN_JOB_AGE = 5


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("cluster")
            item.add_marker("slow")


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The test cluster, up, with this repository's package on its laptop."""
    rig = Rig(f"{Rig().name}f", min_job_age=MIN_JOB_AGE)
    if reason := rig.available():
        if os.environ.get("XPM_HPC_REQUIRE_CLUSTER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    started = rig.up()
    rig.install_on_laptop(build_wheel(REPOSITORY, tmp_path_factory.mktemp("wheel")))
    yield rig
    if started:
        rig.down()


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    """The cluster with Slurm, or the one that the test names."""
    return SITES[getattr(request, "param", "slurm")]


@pytest.fixture
def desk(rig: Rig, site: Site, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """A place for this test alone, on alice's laptop and on the cluster; the scheduler is well before and after."""
    is_well = slurm_is_well if site.scheduler == "slurm" else oar_is_well
    is_well(rig)
    desk = Desk(rig, request.node.name, site)
    desk.launcher()
    yield desk
    is_well(rig)
    desk.clear()


@pytest.fixture
def standins(desk: Desk) -> Iterator[Standins]:
    """Commands that stand before the scheduler's own on the login node, and note each call."""
    bashrc = desk.rig.home(desk.site.front) / ".bashrc"
    standins = Standins(desk)
    try:
        bashrc.write_text(f"PATH={standins.folder}:$PATH\n")
        yield standins
    finally:
        bashrc.unlink()
        standins.clear()
