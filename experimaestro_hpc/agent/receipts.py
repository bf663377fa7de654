"""Receipts of submissions. In: what is about to be submitted, and what came of it. Out: files that survive a crash.

A receipt is written before the scheduler is called (``submitting``, on the disk before the call) and again after it
(``submitted`` or ``refused``). One that says ``submitting`` while nobody submits is a lost reply: the scheduler is
asked for the token, never for another submission. ``held``: it is to be submitted later, when there is room.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..resources import Resources
from ..runtime.files import read_json, write_json
from ..schedulers.base import Scheduler, Submission
from . import held
from .layout import Layout

#: seconds after which a request without a clear answer, which the scheduler does not know, counts as never made: a
#: busy controller may accept one after it has told others that it has no such job
LATE = 20.0


@dataclass
class Receipt:
    """One call of the scheduler's submission command.

    :param token: unique; also the name of its folder in ``.xpm/batches``
    :param scheduler: the scheduler's name
    :param name: the job name given to the scheduler
    :param jobs: job id by element (``"0"``, ``"1"``, …)
    :param script: the folder in ``.xpm/batches`` with the array's script; "" when it is no array
    :param parents: by job id, the jobs that it needs
    :param state: ``held``, ``submitting``, ``submitted`` or ``refused``
    :param natives: native id by job id, once known
    :param words: the scheduler's complaint, or why the submission is held; while ``submitting``, that it was
        unclear whether the request had reached the scheduler
    :param time: seconds since 1970
    :param resources: what is asked for in place of what the script says
    :param delay: seconds before which it must not start
    :param avoid: nodes to leave out
    """

    token: str
    scheduler: str
    name: str
    jobs: dict[str, str]
    script: str = ""
    parents: dict[str, list[str]] = field(default_factory=dict)
    state: str = "submitting"
    natives: dict[str, str] = field(default_factory=dict)
    words: str = ""
    time: float = 0.0
    resources: dict[str, Any] | None = None
    delay: float = 0.0
    avoid: list[str] = field(default_factory=list)

    def submission(
        self, layout: Layout, dependencies: Sequence[str] = (), corresponding: Sequence[str] = ()
    ) -> Submission:
        """What the scheduler is asked for."""
        directories = [str(layout.job(job)) for job in self.jobs.values()]
        folder = layout.batch(self.script)
        return Submission(
            token=self.token,
            name=self.name,
            script=str(folder / "array.sh") if self.script else os.path.join(directories[0], "job.sh"),
            directory=str(folder) if self.script else directories[0],
            dependencies=dependencies,
            corresponding=corresponding,
            indexes=[int(index) for index in self.jobs] if self.script else (),
            directories=directories,
            resources=None if self.resources is None else Resources.from_json(self.resources),
            delay=self.delay,
            avoid=self.avoid,
        )

    def may_come(self) -> float:
        """Seconds for which the scheduler may still accept a request that it does not know yet."""
        return max(0.0, self.time + LATE - time.time()) if self.state == "submitting" and self.words else 0.0

    def write(self, layout: Layout) -> None:
        """Put the receipt on the disk before returning.

        :raises OSError: it cannot be written; then nothing may be submitted
        """
        folder = layout.batch(self.token)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(str(folder / "receipt.json"), asdict(self), durable=True)
        if self.state == "held":
            held.note(layout, self.token)
        else:
            held.forget(layout, self.token)

    def remove(self, layout: Layout) -> None:
        """Nothing was submitted with it, and no job refers to it any more; what else is in its folder stays."""
        folder = layout.batch(self.token)
        held.forget(layout, self.token)
        with contextlib.suppress(OSError):
            (folder / "receipt.json").unlink()
            folder.rmdir()

    def settle(self, layout: Layout, native_ids: list[str]) -> None:
        """Note the native ids, in the order of the jobs; those of which it is "" have not been submitted with it."""
        self.state = "submitted"
        self.words = ""
        self.jobs = {index: job for (index, job), native in zip(self.jobs.items(), native_ids) if native}
        self.natives = dict(zip(self.jobs.values(), filter(None, native_ids)))
        self.write(layout)


def read_receipt(layout: Layout, token: str) -> Receipt | None:
    """The receipt of a submission, or None when there is none."""
    document: dict[str, Any] | None = read_json(str(layout.batch(token) / "receipt.json"))
    if document is None:
        return None
    known = {one.name for one in fields(Receipt)}  # another version may have written more
    return Receipt(**{name: value for name, value in document.items() if name in known})


def look_up(layout: Layout, scheduler: Scheduler, receipt: Receipt) -> list[str] | None:
    """The native ids of a submission whose reply was lost, "" for elements that the scheduler does not have; None when
    it was not made at all and cannot come any more.

    :raises NoInformation: the scheduler does not answer
    """
    pause = 1.0
    while True:
        left = receipt.may_come()
        found = scheduler.find(receipt.submission(layout))
        if found is not None or not left:
            return found
        time.sleep(min(pause, left))
        pause *= 2
