"""What a scheduler is: the words that the four verbs exchange. In and out: small immutable records."""

from __future__ import annotations

import abc
import re
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
_UNSAFE = re.compile(r"[^A-Za-z0-9._\[\]-]")


def listed_name(name: str) -> str:
    """A name with ``-`` for characters that a scheduler's listings or file patterns would stumble over."""
    return _UNSAFE.sub("-", name)


def job_name(name: str, token: str) -> str:
    """A job name for a scheduler: for people, and with the token for us."""
    return f"{listed_name(name)[:40]}-{token}"


@dataclass(frozen=True)
class Request:
    """What the directives of one job, or of an array of equal jobs, are made from.

    :param name: a short name for the scheduler's listings
    :param resources: what the job asks for; one alternative
    :param partition: the partition (or queue) chosen for it, if the launcher describes them
    :param gpu_type: the chosen partition's name for its GPUs, if one must be said
    :param options: the launcher's ``[defaults]``, by the scheduler's own names
    :param partition_options: what the chosen partition says in their place
    :param log: file for what the scheduler itself has to say, relative to where the job starts
    :param array: the directives are for an array, whose elements' logs must differ
    :param warning: seconds before the time limit at which the task is signalled (SIGUSR2); None: not at all
    """

    name: str
    resources: Resources = field(default_factory=Resources)
    partition: str | None = None
    gpu_type: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    log: str = "job.log"
    array: bool = False
    warning: int | None = None
    partition_options: Mapping[str, Any] = field(default_factory=dict)

    def merged(self, partition: str = "partition", aliases: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The options of both, those of the partition over the launcher's, and its name before its own.

        :param partition: what the scheduler calls a partition
        :param aliases: other names of options, and the name that counts

        >>> request = Request("job", partition="gpu", options={"q": "all"}, partition_options={"type": "besteffort"})
        >>> request.merged("queue", {"q": "queue"})
        {'queue': 'gpu', 'type': 'besteffort'}
        """
        name = {partition: self.partition} if self.partition else {}
        layers = (self.options, name, self.partition_options)
        return {(aliases or {}).get(key, key): value for layer in layers for key, value in layer.items()}


@dataclass(frozen=True)
class Submission:
    """One call of the scheduler's submission command.

    :param token: unique; it comes back in the scheduler's listings, so that a lost reply can be looked up
    :param name: job name, which holds the token
    :param script: absolute path of the script
    :param directory: absolute path where the job starts
    :param dependencies: native ids that must end well before it starts
    :param corresponding: for an array, ids of arrays of which the element with the same index must end well before an
        element starts; only for schedulers that say so by ``corresponds``
    :param indexes: for an array, the elements to run; empty for a single job
    :param directories: absolute job directories, one for each element, or one
    :param resources: asked for in place of what the script says, where they differ (memory and duration)
    :param delay: seconds before which it must not start
    :param avoid: nodes to leave out
    """

    token: str
    name: str
    script: str
    directory: str
    dependencies: Sequence[str] = ()
    indexes: Sequence[int] = ()
    directories: Sequence[str] = ()
    corresponding: Sequence[str] = ()
    resources: Resources | None = None
    delay: float = 0.0
    avoid: Sequence[str] = ()


@dataclass(frozen=True)
class Status:
    """What a scheduler says of one job.

    :param state: ``queued``, ``held``, ``running``, or ``ended``
    :param reason: for ``ended``, one of :data:`REASONS`, or "" when it ended well
    :param detail: the scheduler's own words: why it waits, how it ended
    :param exit_code: as the scheduler saw it, if it did
    :param host: where it runs or ran
    :param name: the job name, so that another job with a used id is not taken for it; "" when it was not said
    :param used: what an ended job used, as far as the scheduler says: ``max_rss`` (bytes), ``cpu`` (seconds), ``gpus``
    :param native: the id under which the scheduler has it now, if that is not the one that was asked for
    """

    state: str
    reason: str = ""
    detail: str = ""
    exit_code: int | None = None
    host: str = ""
    name: str = ""
    used: Mapping[str, Any] = field(default_factory=dict)
    native: str = ""


class Scheduler(abc.ABC):
    """The four verbs, and how to find a job whose submission was not answered.

    :param workspace: absolute path of the workspace on this machine
    """

    name: ClassVar[str]
    #: the command whose presence shows that this machine has the scheduler; "" when it needs none
    command: ClassVar[str] = ""
    #: whether many equal jobs can be one submission
    arrays: ClassVar[bool] = False
    #: whether it copies a job's script to the node, so that one that does not see the workspace can run it
    copies_script: ClassVar[bool] = False
    #: whether elements of an array can depend on the elements of another array with the same index
    corresponds: ClassVar[bool] = False
    #: what starts the processes of a task that asks for several, unless the launcher file says something else
    starter: ClassVar[str] = "none"
    #: whether it ends by itself what waits for a job that failed; otherwise whoever watches the jobs does
    ends_orphans: ClassVar[bool] = True

    def __init__(self, workspace: str) -> None:
        self.workspace = workspace
        #: what people should know of this cluster; each is told once
        self.notes: list[str] = []

    def largest_array(self) -> int:
        """How many elements an array may have; the largest index is one less."""
        return 1000 if self.arrays else 1

    @classmethod
    @abc.abstractmethod
    def directives(cls, request: Request) -> list[str]:
        """The lines at the head of a job script that ask for ``request``. Pure.

        :raises SubmissionError: the scheduler has no way to ask for it
        """

    @classmethod
    def default_amounts(cls, options: Mapping[str, Any]) -> Resources:
        """The memory and duration that the launcher's ``[defaults]`` ask for, as far as they are understood. Pure."""
        return Resources()

    @abc.abstractmethod
    def submit(self, submission: Submission) -> list[str]:
        """Submit once; the native ids, one for each element of ``indexes`` or one.

        :raises SubmissionError: refused for good, with the scheduler's words
        :raises NoRoom: refused for now: as many jobs as may be are submitted already
        :raises NoInformation: no clear answer; the job may or may not exist
        """

    @abc.abstractmethod
    def query(self, native_ids: Sequence[str], max_age: float = 0.0) -> dict[str, Status]:
        """What is known of these jobs. One that is not in the answer is unknown, which says nothing about it.

        :param max_age: seconds that the answer may be old, if another process has asked meanwhile
        :raises NoInformation: the scheduler did not answer
        """

    @abc.abstractmethod
    def cancel(self, native_ids: Sequence[str]) -> None:
        """End these jobs, waiting or running; those that have ended are passed over.

        :raises NoInformation: the scheduler did not answer
        """

    def explain(self, native_id: str) -> dict[str, str]:
        """More of a job that waits than a query tells, for people: the scheduler's own words by its own names.

        :raises NoInformation: the scheduler did not answer
        """
        return {}

    def queries(self) -> str:
        """What answers :meth:`query`, for people: a command, or a library with its version; "" without a choice."""
        return ""

    def calls(self) -> dict[str, int]:
        """How often each of its commands has been run; none for a scheduler without commands."""
        return {}

    @abc.abstractmethod
    def find(self, submission: Submission) -> list[str] | None:
        """The native ids of a submission whose reply was lost, or None when the scheduler knows no such job.

        Where it has only some elements of an array, and will not have more, the id of the others is "".

        :raises NoInformation: the scheduler did not answer
        """


class NoRoom(Exception):
    """A limit on the number of jobs is reached: nothing was submitted, and it can be later."""


class NoInformation(Exception):
    """A scheduler's command failed or was not understood: nothing may be concluded from it."""


class Unclear(NoInformation):
    """The scheduler's command failed in words of its own: a refusal, if the scheduler says again and again that it has
    no such job."""


class NotReached(NoInformation):
    """The scheduler's command could not reach it: what was asked for has not been done, nor will be."""
