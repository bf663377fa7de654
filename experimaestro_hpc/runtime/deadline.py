"""How much time a job has left. In: the job's environment, or its scheduler's word. Out: seconds.

Loaded only for tasks that ask.
"""

from __future__ import annotations

import os
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def find_end(environ: Mapping[str, str], ask: Callable[[list[str]], str]) -> float | None:
    """When the job that this process runs will be ended, in seconds since 1970; None when nobody says.

    :param ask: runs a command and returns what it prints, "" if it fails
    """
    for name in ("XPM_HPC_END_TIME", "SLURM_JOB_END_TIME"):
        end = _number(environ.get(name, ""))
        if end is not None:
            return end
    native = environ.get("SLURM_JOB_ID")
    left = parse_left(ask(["squeue", "-h", "-j", native, "-o", "%L"])) if native else None
    return None if left is None else time.time() + left


def parse_left(text: str) -> float | None:
    """Seconds in what squeue says of the time left: ``1-02:03:04``, ``02:03:04``, ``03:04``; None for ``UNLIMITED``."""
    days, dash, clock = text.strip().rpartition("-")
    parts = [days if dash else "0", *clock.split(":")]
    if len(parts) > 4 or not all(part.isdecimal() for part in parts):
        return None
    seconds = 0
    for part in parts[1:]:
        seconds = seconds * 60 + int(part)
    return float(int(parts[0]) * 86400 + seconds)


def remaining_time() -> float | None:
    """Seconds until the job's time limit, never below 0; None without a limit, or outside of a job."""
    if "XPM_HPC_JOB" not in os.environ:
        return None
    end = find_end(os.environ, output_of)
    if end is None:
        return None
    os.environ["XPM_HPC_END_TIME"] = str(end)  # asked for once
    return max(0.0, end - time.time())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def output_of(argv: list[str], errors: int | None = subprocess.DEVNULL) -> str:
    """What a command prints; "" if it cannot be run, or takes longer than a minute.

    :param errors: where its standard error goes; None: to ours
    """
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, timeout=60, check=False
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""
