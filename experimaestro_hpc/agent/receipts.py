"""Receipts of submissions. In: what is about to be submitted, and what came of it. Out: files that survive a crash.

A receipt is written before the scheduler is called (``submitting``, on the disk before the call) and again after it
(``submitted`` or ``refused``). One that says ``submitting`` while nobody submits is a lost reply: the scheduler is
asked for the token, never for another submission.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from ..runtime.files import read_json, write_json
from ..schedulers.base import Submission
from .layout import Layout


@dataclass
class Receipt:
    """One call of the scheduler's submission command.

    :param token: unique; also the name of its folder in ``.xpm/batches``
    :param scheduler: the scheduler's name
    :param name: the job name given to the scheduler
    :param array: whether the jobs are elements of an array
    :param jobs: job id by element (``"0"``, ``"1"``, …)
    :param state: ``submitting``, ``submitted`` or ``refused``
    :param natives: native id by job id, once known
    :param words: the scheduler's complaint
    :param time: seconds since 1970
    """

    token: str
    scheduler: str
    name: str
    array: bool
    jobs: dict[str, str]
    state: str = "submitting"
    natives: dict[str, str] = field(default_factory=dict)
    words: str = ""
    time: float = 0.0

    def submission(self, layout: Layout, dependencies: list[str] | None = None) -> Submission:
        """What the scheduler is asked for."""
        directories = [str(layout.job(job)) for job in self.jobs.values()]
        folder = layout.batch(self.token)
        return Submission(
            token=self.token,
            name=self.name,
            script=str(folder / "array.sh") if self.array else os.path.join(directories[0], "job.sh"),
            directory=str(folder) if self.array else directories[0],
            dependencies=dependencies or (),
            indexes=[int(index) for index in self.jobs] if self.array else (),
            directories=directories,
        )

    def write(self, layout: Layout) -> None:
        """Put the receipt on the disk before returning.

        :raises OSError: it cannot be written; then nothing may be submitted
        """
        folder = layout.batch(self.token)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(str(folder / "receipt.json"), asdict(self), durable=True)

    def settle(self, layout: Layout, native_ids: list[str]) -> None:
        """Note the native ids, in the order of the jobs."""
        self.state = "submitted"
        self.natives = dict(zip(self.jobs.values(), native_ids))
        self.write(layout)


def read_receipt(layout: Layout, token: str) -> Receipt | None:
    """The receipt of a submission, or None when there is none."""
    document: dict[str, Any] | None = read_json(str(layout.batch(token) / "receipt.json"))
    return Receipt(**document) if document is not None else None
