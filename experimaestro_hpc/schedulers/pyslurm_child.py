"""A child process that asks libslurm. In: questions, one line of JSON each. Out: answers, one line of JSON each.

A mistake in libslurm, or a pyslurm made for another one, ends the process that it is in; so that is not the agent. The
first answer, given unasked, has ``version`` (pyslurm's own) and ``built_for`` (the version of Slurm that it was
compiled for). A question is ``{"ask": "queue"}`` or ``{"ask": "accounting", "ids": [17, …]}`` with
job ids without elements; its answer is ``{"rows": …}``, or ``{"refused": words}`` when Slurm does not answer. Any
other error ends the process, with a traceback on standard error.

The rows are what squeue prints with ``-o '%i|%T|%r|%N|%j'`` and sacct with ``-o ACCOUNTING`` (:mod:`.slurm`), so
that both are read by the same functions.
"""

from __future__ import annotations

import importlib
import json
import os
import pwd
import sys
from typing import Any


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    # what libslurm and pyslurm print must not get between the answers
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def say(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    pyslurm = importlib.import_module("pyslurm")
    say({"version": pyslurm.__version__, "built_for": ".".join(map(str, pyslurm.slurm_api_version()))})
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if question["ask"] == "queue":
                mine = os.getuid()
                rows = [queue_row(job) for job in pyslurm.Jobs.load().values() if job.user_id == mine]
            else:
                chosen = pyslurm.db.JobFilter(ids=question["ids"])
                rows = [accounting_row(job) for job in pyslurm.db.Jobs.load(chosen).values()]
        except pyslurm.RPCError as error:
            say({"refused": str(error)})
        else:
            say({"rows": rows})


def queue_row(job: Any) -> list[str]:
    """A ``pyslurm.Job`` as squeue writes it."""
    return [native_id(job), job.state, job.state_reason or "None", job.allocated_nodes or "", job.name or ""]


def accounting_row(job: Any) -> list[str]:
    """A ``pyslurm.db.Job`` as sacct writes it; the exit code is "" where pyslurm does not tell it truly.

    pyslurm takes 128 off an exit status of 128 and more: its 9 may be 9 or 137.
    """
    status, signal = job.exit_code, job.exit_code_signal
    told = signal or (not status and job.state != "FAILED")
    somebody = f" by {number_of(job.cancelled_by)}" if job.state == "CANCELLED" and job.cancelled_by else ""
    return [
        native_id(job),
        job.state + somebody,
        f"{status}:{signal}" if told else "",
        job.nodelist or "",
        job.state_reason or "None",
        *("", "", ""),  # memory, CPU time and GPUs: pyslurm has them for steps, which would be more queries
        job.name or "",
    ]


def number_of(user: str) -> str:
    """A user's number, by which sacct names who has cancelled a job."""
    try:
        return str(pwd.getpwnam(user).pw_uid)
    except KeyError:
        return user


def native_id(job: Any) -> str:
    """``17``, ``17_3``, or ``17_[0-3,7]`` for the elements that have not been started."""
    if not job.array_id:
        return str(job.id)
    if job.array_tasks_waiting:
        return f"{job.array_id}_[{job.array_tasks_waiting}]"
    return f"{job.array_id}_{job.array_task_id or 0}"  # pyslurm has no zeros


if __name__ == "__main__":
    main()
