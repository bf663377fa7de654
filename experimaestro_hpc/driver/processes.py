"""How the processes of a task are started. In: its launcher, what it asks for, the task. Out: a part of its record.

Pure.
"""

from __future__ import annotations

from typing import Any

from ..config.objects import ResumableTask, Task
from ..errors import ParameterError
from ..resources import ResourceError, Resources
from ..schedulers import scheduler_class
from .launcher import Launcher

#: what reaches other nodes
_REMOTE = ("srun", "oarsh", "ssh", "mpirun")


def processes_of(launcher: Launcher, resources: Resources, task: Task, where: str) -> dict[str, Any] | None:
    """What the runtime is told of a task of several processes; None if it has one, or starts the others itself.

    :param resources: one alternative
    :param where: the job's id, for messages
    :raises ResourceError: they cannot be started with this launcher
    :raises ParameterError: the task's class says something else than ``"none"``

    >>> from ..config.objects import Task
    >>> asked = Resources.parse("nodes=2 & tasks_per_node=4")
    >>> processes_of(Launcher("there", "slurm"), asked, Task(), "")
    {'start': 'srun', 'options': [], 'nodes': 2, 'per_node': 4, 'resumes': False}
    """
    nodes, per_node = resources.node_count, resources.tasks_per_node or 1
    if nodes * per_node == 1:
        return None
    own = getattr(type(task), "__xpmstart__", None)
    start = own or launcher.processes.start or scheduler_class(launcher.scheduler).starter
    if own not in (None, "none"):
        raise ParameterError(
            f"__xpmstart__ of {type(task).__qualname__} is {own!r}",
            where=where,
            hint="it can be 'none', for a task that starts its processes itself; all else is for the launcher file",
        )
    if launcher.mirror.nodes == "staged" and nodes > 1:
        raise ResourceError(
            f"a task on {nodes} nodes needs nodes that see the workdir",
            where=where,
            hint=f"take nodes = 'shared' in [mirror] of launcher '{launcher.name}', or ask for one node",
        )
    if start == "none":
        return None
    if launcher.environment.manager == "apptainer" and start in _REMOTE:
        if nodes > 1:
            raise ResourceError(
                f"{start}, which starts a task's processes, is not in the container",
                where=where,
                hint="take another manager, or a task with __xpmstart__ = 'none' that runs apptainer itself",
            )
        start = "local"
    if start == "local" and nodes > 1:
        raise ResourceError(
            f"processes on {nodes} nodes cannot be started with start = 'local'",
            where=where,
            hint=f"in [processes] of launcher '{launcher.name}' say which to use: {', '.join(_REMOTE)}",
        )
    return {
        "start": start,
        "options": list(launcher.processes.options),
        "nodes": nodes,
        "per_node": per_node,
        "resumes": isinstance(task, ResumableTask),
    }
