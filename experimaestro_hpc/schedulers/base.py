"""What a scheduler is: the words that the four verbs exchange. In and out: small immutable records."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..resources import Resources

#: a job's states, in the order of its life
STATES = ("unscheduled", "waiting", "queued", "held", "running", "done", "failed")
#: why a job failed
REASONS = (
    "exit",
    "timeout",
    "out_of_memory",
    "preempted",
    "node_fail",
    "cancelled",
    "dependency",
    "launch",
    "lost",
)


@dataclass(frozen=True)
class Request:
    """What the directives of one job, or of an array of equal jobs, are made from.

    :param name: a short name for the scheduler's listings
    :param resources: what the job asks for; one alternative
    :param partition: the partition (or queue) chosen for it, if the launcher describes them
    :param gpu_type: the chosen partition's name for its GPUs, if one must be said
    :param options: the launcher's ``[defaults]``, by the scheduler's own names
    :param log: file for what the scheduler itself has to say, relative to where the job starts
    :param array: the directives are for an array, whose elements' logs must differ
    """

    name: str
    resources: Resources = field(default_factory=Resources)
    partition: str | None = None
    gpu_type: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    log: str = "job.log"
    array: bool = False


@dataclass(frozen=True)
class Submission:
    """One call of the scheduler's submission command.

    :param token: unique; it comes back in the scheduler's listings, so that a lost reply can be looked up
    :param name: job name, which holds the token
    :param script: absolute path of the script
    :param directory: absolute path where the job starts
    :param dependencies: native ids that must end well before it starts
    :param indexes: for an array, the elements to run; empty for a single job
    :param directories: absolute job directories, one for each element, or one
    """

    token: str
    name: str
    script: str
    directory: str
    dependencies: Sequence[str] = ()
    indexes: Sequence[int] = ()
    directories: Sequence[str] = ()


@dataclass(frozen=True)
class Status:
    """What a scheduler says of one job.

    :param state: ``queued``, ``held``, ``running``, or ``ended``
    :param reason: for ``ended``, one of :data:`REASONS`, or "" when it ended well
    :param detail: the scheduler's own words: why it waits, how it ended
    :param exit_code: as the scheduler saw it, if it did
    :param host: where it runs or ran
    """

    state: str
    reason: str = ""
    detail: str = ""
    exit_code: int | None = None
    host: str = ""


class Scheduler(abc.ABC):
    """The four verbs, and how to find a job whose submission was not answered.

    :param workspace: absolute path of the workspace on this machine
    """

    name: ClassVar[str]
    #: the command whose presence shows that this machine has the scheduler; "" when it needs none
    command: ClassVar[str] = ""
    #: whether many equal jobs can be one submission
    arrays: ClassVar[bool] = False
    #: whether it ends by itself what waits for a job that failed; otherwise whoever watches the jobs does
    ends_orphans: ClassVar[bool] = True

    def __init__(self, workspace: str) -> None:
        self.workspace = workspace

    @classmethod
    @abc.abstractmethod
    def directives(cls, request: Request) -> list[str]:
        """The lines at the head of a job script that ask for ``request``. Pure.

        :raises SubmissionError: the scheduler has no way to ask for it
        """

    @abc.abstractmethod
    def submit(self, submission: Submission) -> list[str]:
        """Submit once; the native ids, one for each element of ``indexes`` or one.

        :raises SubmissionError: refused for good, with the scheduler's words
        :raises NoInformation: no clear answer; the job may or may not exist
        """

    @abc.abstractmethod
    def query(self, native_ids: Sequence[str]) -> dict[str, Status]:
        """What is known of these jobs. One that is not in the answer is unknown, which says nothing about it.

        :raises NoInformation: the scheduler did not answer
        """

    @abc.abstractmethod
    def cancel(self, native_ids: Sequence[str]) -> None:
        """End these jobs, waiting or running; those that have ended are passed over.

        :raises NoInformation: the scheduler did not answer
        """

    def calls(self) -> dict[str, int]:
        """How often each of its commands has been run; none for a scheduler without commands."""
        return {}

    @abc.abstractmethod
    def find(self, submission: Submission) -> list[str] | None:
        """The native ids of a submission whose reply was lost, or None when the scheduler knows no such job.

        :raises NoInformation: the scheduler did not answer
        """


class NoInformation(Exception):
    """A scheduler's command failed or was not understood: nothing may be concluded from it."""
