"""A task on its way into an experiment. In: a task, and what was said when it was submitted. Out: its job, unsent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..agent.retry import RESUMABLE, check_retry, parse_retry
from ..config.declare import Configured
from ..config.objects import Config, ResumableTask, Task, tags
from ..config.serialize import job_id, own_parts, parents_of
from ..config.types import caller, walk
from ..errors import XpmError
from ..resources import ResourceError, Resources
from .jobs import Job, plain
from .launcher import Launcher


def seal(task: Task) -> None:
    """Check a task as a whole; from now on its parameters stay as they are, and so does its identifier.

    :raises XpmError: it is no task, or its own ``__validate__`` refuses it
    """
    if not isinstance(task, Task):
        raise XpmError(f"{type(task).__qualname__} is no Task", hint="only tasks can be submitted")
    for part in own_parts(task):
        _validate(part)
    for inner in walk(task, leave_out=_is_sealed):
        inner.__dict__["__xpm__"].sealed = True


def make_job(task: Task, launcher: Launcher, resources: Any, retry: Any, jobs: Mapping[str, Job]) -> Job:
    """The job of a sealed task.

    :param resources: what is wanted in place of what its class says
    :param retry: as :meth:`Task.submit` takes it
    :param jobs: those of the experiment so far, whose tags it has too where it needs them
    :raises XpmError: resources or retry are wrong
    """
    policy = parse_retry(RESUMABLE if retry is None and isinstance(task, ResumableTask) else retry)
    job = Job(
        id=job_id(task),
        task=task,
        parents=tuple(job_id(parent) for parent in parents_of(task)),
        launcher=launcher,
        resources=_resources(task, resources),
        tags=tags_of(task, jobs),
        retry=policy,
    )
    if policy:
        check_retry(policy, job.asked)
    return job


def outputs_of(task: Task) -> Any:
    """What ``submit`` gives back: the task, or what its class says that it makes."""
    outputs = getattr(task, "task_outputs", None)
    return outputs(lambda config: _made_by(task, config)) if outputs is not None else task


def _validate(part: Config) -> None:
    try:
        part.__validate__()
    except ValueError as error:
        raise XpmError(f"{error}", where=f"{type(part).__qualname__}.__validate__") from error


def _is_sealed(config: Configured) -> bool:
    return bool(config.__dict__["__xpm__"].sealed)


def tags_of(task: Task, jobs: Mapping[str, Job]) -> dict[str, Any]:
    """The task's tags, and under them those of the tasks that it needs."""
    found: dict[str, Any] = {}
    unclear: set[str] = set()
    for parent in parents_of(task):
        known = jobs.get(job_id(parent))
        for key, value in (plain(tags(parent)) if known is None else known.tags).items():
            if found.setdefault(key, value) != value:
                unclear.add(key)  # of two parents that differ: neither is this task's
    found = {key: value for key, value in found.items() if key not in unclear}
    for part in reversed(own_parts(task)):
        found.update(plain(part.__dict__["__xpm__"].tags))
    return found


def _resources(task: Task, given: Any) -> Resources:
    """What a task needs: what its class says, and in place of it what was given."""
    own = getattr(task, "__xpmresources__", None)
    try:
        said = Resources.parse(own) if own else Resources()
    except ResourceError as error:
        where = f"{type(task).__qualname__}.__xpmresources__"
        raise ResourceError(error.what, where=where, hint=error.hint) from None
    try:
        return said & given if given else said
    except ResourceError as error:
        raise ResourceError(error.what, where=error.where or caller(), hint=error.hint) from None


def _made_by(task: Task, config: Config) -> Config:
    """A copy of ``config`` that says that ``task`` makes it, so that whoever uses it depends on the task."""
    copy: Config = type(config).__new__(type(config))
    for name, value in config.__dict__.items():
        if name != "__xpm__":
            copy.__dict__[name] = value
    copy.__dict__["__xpm__"].source = task
    copy.__dict__["__xpm__"].tags.update(config.__dict__["__xpm__"].tags)
    return copy
