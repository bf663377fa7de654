"""How the benchmarks measure. In: command lines. Out: CPU and wall seconds, as medians of alternating runs."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Figures(NamedTuple):
    """Seconds."""

    cpu: float
    wall: float


def once(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> Figures:
    """Run a command to its end; its CPU time and that of its children, and the wall time.

    :raises CalledProcessError: it failed
    """
    before, began = cpu_of_children(), time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=env, cwd=cwd)
    return Figures(cpu_of_children() - before, time.perf_counter() - began)


def cpu_of_children() -> float:
    """CPU seconds of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def alternate(runs: Mapping[str, Callable[[], Figures]], times: int) -> dict[str, Figures]:
    """The medians of several runs of each, taken in turns, so that a noisy moment hits all alike."""
    taken: dict[str, list[Figures]] = {name: [] for name in runs}
    for _ in range(times):
        for name, run in runs.items():
            taken[name].append(run())
    return {
        name: Figures(statistics.median(one.cpu for one in all_), statistics.median(one.wall for one in all_))
        for name, all_ in taken.items()
    }


def show(title: str, figures: Mapping[str, Figures], base: str) -> None:
    """Print a table, each line with its ratio to ``base`` in CPU time and in wall time."""
    print(f"\n{title}\n{'':44}{'CPU':>10}{'wall':>10}{'CPU ratio':>11}{'wall ratio':>11}")
    for name, one in figures.items():
        ratios = f"{one.cpu / figures[base].cpu:>10.2f}x{one.wall / figures[base].wall:>10.2f}x"
        print(f"{name:<44}{one.cpu * 1000:>7.1f} ms{one.wall * 1000:>7.1f} ms{ratios}")
