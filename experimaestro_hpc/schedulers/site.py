"""What a look at a cluster finds. In: nothing. Out: the shapes of the facts as they travel from agent to driver.

Plain JSON values. Memory is in bytes, time in seconds; ``None`` is "no limit, or not known", 0 and "" are "not known".
"""

from __future__ import annotations

from typing import TypedDict


class FoundGpus(TypedDict):
    """GPUs of one type in a node.

    ``type`` as the scheduler spells it, ``count`` of them, ``memory`` of each.
    """

    type: str
    count: int
    memory: int


class Kind(TypedDict):
    """Nodes of a partition that are alike: how many, and what each has."""

    nodes: int
    cores: int
    memory: int
    gpus: list[FoundGpus]


class FoundPartition(TypedDict):
    """A partition of Slurm, or a queue of OAR.

    ``default_time`` is what a job gets that asks for none; ``refusal`` says why this user's jobs may not run there, in
    words, and is "" where they may; ``options`` are what they must say to; ``limits`` are those of a job on each node:
    ``cores`` and ``memory``.
    """

    name: str
    is_default: bool
    is_preemptible: bool
    refusal: str
    max_time: int | None
    default_time: int | None
    max_nodes: int | None
    limits: dict[str, int]
    options: dict[str, str]
    kinds: list[Kind]


class SchedulerFacts(TypedDict):
    """A scheduler, and what this user may ask of it.

    ``name`` is "" where there is none; ``elsewhere`` says where its commands are that are not on ``PATH``;
    ``options`` are further ``[defaults]``, with why; ``notes`` say what could not be seen.
    """

    name: str
    version: str
    elsewhere: str
    partitions: list[FoundPartition]
    hosts: list[str]
    accounts: list[str]
    account: str
    qos: list[str]
    default_qos: str
    needs_account: bool
    options: dict[str, list[str]]
    notes: list[str]


class Folder(TypedDict):
    """A folder that a workdir could be in.

    ``spelling`` is how a launcher file would say it (``$SCRATCH``), ``path`` what that is; ``kind`` is the file
    system's type; ``left`` is what may still be written, in bytes, by space and quota.
    """

    spelling: str
    path: str
    kind: str
    is_network: bool
    can_write: bool
    left: int | None
    quota: int | None


class Python(TypedDict):
    """A Python, by the command that starts it."""

    command: str
    version: str


class Software(TypedDict):
    """What there is for environments: Pythons, programs that build some, modules of interest."""

    pythons: list[Python]
    tools: list[str]
    has_modules: bool
    modules: list[str]


def no_scheduler() -> SchedulerFacts:
    """The facts of a host of which nothing is known."""
    return {
        "name": "",
        "version": "",
        "elsewhere": "",
        "partitions": [],
        "hosts": [],
        "accounts": [],
        "account": "",
        "qos": [],
        "default_qos": "",
        "needs_account": False,
        "options": {},
        "notes": [],
    }
