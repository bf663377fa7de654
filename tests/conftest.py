"""What holds for all tests: in CI nothing is skipped."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test for each of the things that are here, of which none is: there is no such test."""
    empty = [item for item in items if "NOTSET" in item.name]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``XPM_HPC_REQUIRE_CLUSTER=1`` a test that is skipped has failed: what it needs must be there."""
    report = yield
    if report.skipped and os.environ.get("XPM_HPC_REQUIRE_CLUSTER") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, and XPM_HPC_REQUIRE_CLUSTER=1 allows no skip: {report.longrepr}"
    return report
