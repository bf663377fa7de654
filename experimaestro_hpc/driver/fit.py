"""Which partition a task goes to. In: a launcher, what the task asks. Out: one alternative, a partition, a request."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from ..resources import ResourceError, Resources, format_duration, format_memory
from ..schedulers import scheduler_class
from ..schedulers.base import Request
from .launcher import Launcher, Partition


class Verdict(NamedTuple):
    """Whether one partition can give one alternative.

    :ivar lacks: why not; empty: it can
    """

    choice: Resources
    partition: str
    lacks: list[str]


def verdicts(launcher: Launcher, resources: Resources) -> list[Verdict]:
    """Each alternative beside each partition, in the order in which :func:`choose_partition` tries them.

    >>> small = Partition("small", cores=4)
    >>> verdicts(Launcher("here", "slurm", partitions=(small,)), Resources(cores=8))[0].lacks
    ['has 4 cores per node, 8 asked']
    """
    return [
        Verdict(choice, partition.name, shortcomings(partition, with_defaults(launcher, choice, partition)))
        for choice in resources.choices
        for partition in _in_order(launcher)
    ]


def request_for(launcher: Launcher, name: str, choice: Resources, partition: Partition | None) -> Request:
    """What is asked of the scheduler for one alternative in one partition.

    :param name: a short name for the scheduler's listings
    :param choice: resources without alternatives
    """
    return Request(
        name=name,
        resources=choice,
        partition=partition.name if partition else None,
        gpu_type=partition.gpus.type or None if partition and partition.gpus else None,
        options=launcher.defaults,
        partition_options=partition.options if partition else {},
    )


def with_defaults(launcher: Launcher, choice: Resources, partition: Partition | None) -> Resources:
    """One alternative, with the amounts that the launcher and the partition ask for where the task says nothing.

    :param choice: resources without alternatives

    >>> launcher = Launcher("here", "slurm", defaults={"time": "20:00:00"})
    >>> str(with_defaults(launcher, Resources(cores=4), None))
    'cpu(cores=4) & duration=20h'
    """
    options = request_for(launcher, "", choice, partition).merged()
    return scheduler_class(launcher.scheduler).default_amounts(options) & replace(choice, alternatives=())


def _in_order(launcher: Launcher) -> list[Partition]:
    """The partitions as they are tried: the default first, if the launcher names one."""
    default = launcher.defaults.get("partition")
    return sorted(launcher.partitions, key=lambda partition: partition.name != default)  # stable


def choose_partition(launcher: Launcher, resources: Resources) -> tuple[Resources, Partition | None]:
    """The first alternative that some partition can give, and the first partition that can.

    The partition named in the launcher's ``[defaults]`` comes before the others. If it is not described,
    nothing is known of what it can give: tasks that ask for nothing are left to it, and get ``None``.

    :param launcher: with its partitions in order of preference; without any, the first alternative is taken
    :param resources: what the task asks, with alternatives
    :returns: one of ``resources.choices``, and the partition, or ``None`` if there is none to choose
    :raises ResourceError: if no partition can give any alternative; says why, for each

    >>> from .launcher import Gpus
    >>> small, large = Partition("small", cores=4), Partition("large", cores=64, gpus=Gpus(count=8))
    >>> asked = Resources.parse("gpu * 9 | cpu(cores=32)")
    >>> choice, partition = choose_partition(Launcher("here", "slurm", partitions=(small, large)), asked)
    >>> str(choice), partition.name
    ('cpu(cores=32)', 'large')
    """
    partitions, default = launcher.partitions, launcher.defaults.get("partition")
    if not partitions:
        return resources.choices[0], None
    is_default_unknown = default is not None and all(partition.name != default for partition in partitions)
    in_order = _in_order(launcher)
    refusals = []
    for choice in resources.choices:
        if is_default_unknown and choice == Resources():
            return choice, None
        refusals.append(f"for '{choice}':")
        for partition in in_order:
            lacks = shortcomings(partition, with_defaults(launcher, choice, partition))
            if not lacks:
                return choice, partition
            refusals.append(f"{partition.name}: {'; '.join(lacks)}")
    if len(resources.choices) == 1:
        del refusals[0]  # the message itself names it
    raise ResourceError(f"no partition of launcher '{launcher.name}' can give '{resources}'", hint="\n".join(refusals))


def shortcomings(partition: Partition, choice: Resources) -> list[str]:
    """Why a partition cannot give what is asked, one reason each; empty if it can.

    What the launcher file does not say of a partition is taken to be enough, except that no GPUs means none.

    :param choice: resources without alternatives

    >>> from .launcher import Gpus
    >>> shortcomings(Partition("gpu", gpus=Gpus(count=4)), Resources(gpus=8))
    ['has 4 GPUs per node, 8 asked']
    """
    lacks = []
    if choice.gpus:
        lacks += _gpu_shortcomings(partition, choice)
    # cores are asked for each task, all else for each node
    cores = (choice.cores or 1) * (choice.tasks_per_node or 1)
    if partition.cores is not None and cores > partition.cores:
        lacks.append(f"has {_counted(partition.cores, 'core')} per node, {cores} asked")
    if partition.memory is not None and choice.memory is not None and choice.memory > partition.memory:
        lacks.append(f"has {format_memory(partition.memory)} per node, {format_memory(choice.memory)} asked")
    if partition.max_time is not None and choice.duration is not None and choice.duration > partition.max_time:
        allowed, asked = format_duration(partition.max_time), format_duration(choice.duration)
        lacks.append(f"allows {allowed} for a job, {asked} asked")
    if partition.nodes is not None and choice.node_count > partition.nodes:
        lacks.append(f"allows {_counted(partition.nodes, 'node')} for a job, {choice.node_count} asked")
    return lacks


def _gpu_shortcomings(partition: Partition, choice: Resources) -> list[str]:
    gpus = partition.gpus
    if gpus is None or not gpus.count:
        return [f"has no GPUs, {choice.gpu_count} asked"]
    lacks = []
    if choice.gpu_count > gpus.count:
        lacks.append(f"has {_counted(gpus.count, 'GPU')} per node, {choice.gpu_count} asked")
    if choice.gpu_model and gpus.type and not _words(choice.gpu_model) <= _words(gpus.type):
        lacks.append(f"has GPUs of type {gpus.type}, {choice.gpu_model} asked")
    if choice.gpu_memory is not None and gpus.memory is not None and choice.gpu_memory > gpus.memory:
        lacks.append(f"has GPUs of {format_memory(gpus.memory)}, {format_memory(choice.gpu_memory)} asked")
    return lacks


def _words(model: str) -> set[str]:
    """Of ``A100-SXM4-40GB`` people say ``a100``, or ``a100-40gb``."""
    return set(re.findall(r"\w+", model.lower().replace("_", " ")))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
