"""A submitted task on its way to a job. In: a task, its launcher and resources, the code. Out: its files as text.

:class:`JobMaker` renders; it touches no file.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import __version__
from ..config.configure import VARIABLE
from ..config.objects import ResumableTask, Task, job_name
from ..config.serialize import job_id, params_text
from ..errors import SubmissionError
from ..resources import ResourceError, Resources
from ..schedulers import scheduler_class
from ..schedulers.base import Request
from ..schedulers.local import gpus_here
from .data import shipped_data
from .fit import choose_partition, request_for, with_defaults
from .launcher import Launcher, Partition
from .launchers import template_folders, user_dir
from .plan import PlannedJob
from .processes import processes_of
from .recipe import BuildEnvironment, Recipe, make_recipe
from .script import ScriptJob, Scripts, Stage
from .snapshot import Snapshot, take_snapshot

#: seconds before its time limit at which a resumable task is told of it, at most
WARNING = 120


@dataclass
class Job:
    """A task that was submitted.

    :ivar id: ``task/identifier``
    :ivar parents: ids of the tasks that it needs
    :ivar tags: its own and those of the tasks that it needs, as JSON values
    :ivar retry: what to do after a failure; see :mod:`..agent.retry`
    """

    id: str
    task: Task
    parents: tuple[str, ...]
    launcher: Launcher
    resources: Resources
    tags: dict[str, Any] = field(default_factory=dict)
    retry: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Stem of the log files."""
        return job_name(self.id.split("/")[0])

    @cached_property
    def request(self) -> Request:
        """What is asked of the scheduler.

        :raises ResourceError: no partition of the launcher can give it
        """
        choice, partition = self._choice
        is_here = self.launcher.scheduler == self.launcher.connector.type == "local" and not self.launcher.partitions
        if is_here and len(self.resources.choices) > 1:
            there = gpus_here()  # of alternatives, the first that this machine has the GPUs for
            choice = next((one for one in self.resources.choices if one.gpu_count <= there), choice)
        request = request_for(self.launcher, self.name, choice, partition)
        options: dict[str, Any] = dict(request.options)
        if self.launcher.scheduler == "local":
            described = [one.gpus.count for one in self.launcher.partitions if one.gpus]
            local = {"slots": self.launcher.slots, "gpu_slots": described[0] if described else None}
            options.update({name: value for name, value in local.items() if value is not None})
        return replace(
            request,
            options=options,
            log="/dev/null" if self.launcher.mirror.nodes == "staged" else f"{self.name}.err",
            warning=_warning(self.asked.duration) if isinstance(self.task, ResumableTask) else None,
        )

    @cached_property
    def _choice(self) -> tuple[Resources, Partition | None]:
        try:
            return choose_partition(self.launcher, self.resources)
        except ResourceError as error:
            raise ResourceError(error.what, where=self.id, hint=error.hint) from None

    @cached_property
    def asked(self) -> Resources:
        """What is asked for, with the amounts of the launcher's defaults."""
        return with_defaults(self.launcher, *self._choice)

    @cached_property
    def _likeness(self) -> tuple[str, ...]:
        return tuple(scheduler_class(self.launcher.scheduler).directives(replace(self.request, array=True)))

    @cached_property
    def processes(self) -> dict[str, Any] | None:
        """How its processes are started, if it has several.

        :raises ResourceError: they cannot be with this launcher
        """
        return processes_of(self.launcher, self.request.resources, self.task, self.id)

    def planned(self) -> PlannedJob:
        """The job as the plan sees it."""
        _ = self.processes  # what cannot be started is refused before anything is sent
        return PlannedJob(self.id, self.parents, self._likeness, isinstance(self.task, BuildEnvironment))

    def summary(self) -> dict[str, Any]:
        """What an experiment keeps of the job."""
        return {"launcher": place_of(self.launcher), "tags": self.tags}


class JobMaker:
    """Makes the files of jobs.

    :param root: the workspace on this machine, which is no code
    :param script: the experiment's script
    """

    def __init__(self, root: Path, script: Path | None) -> None:
        self.root = root
        self.script = script
        self.argv = list(sys.argv)
        self.recipes: dict[str, Recipe] = {}
        self.scripts = Scripts(template_folders())

    @cached_property
    def snapshot(self) -> Snapshot:
        """The code as it is when it is first needed."""
        script = (self.script or Path.cwd() / "script.py").resolve()
        inside = script.is_relative_to(self.root.resolve())  # python script.py .
        own = [self.root / name for name in ("jobs", "experiments", ".xpm")] if inside else [self.root]
        return take_snapshot(script, own)

    def use_code_of(self, task: Task) -> None:
        """Where an installed command runs the experiment, the code is that of its first task, not the command's."""
        if self.script is None or not self.script.is_relative_to(Path(sys.prefix).resolve()):
            return
        name = type(task).__module__
        file = getattr(sys.modules.get(name), "__file__", None)
        if file:  # beside the top package, whose folder is the one to import from
            self.script = Path(file).resolve().parents[name.count(".")] / "script.py"

    def recipe(self, launcher: Launcher) -> Recipe | None:
        """How the environment of a launcher's tasks is built; None if it has no manager."""
        if not launcher.environment.manager:
            return None
        if launcher.name not in self.recipes:
            root = self.snapshot.root
            start = (self.script or root / "script.py").resolve().parent
            self.recipes[launcher.name] = make_recipe(
                launcher.environment, root, start, self.snapshot.files, self.scripts
            )
        return self.recipes[launcher.name]

    def builder(self, launcher: Launcher) -> Job | None:
        """The job that builds the environment of a launcher's tasks; None if no job does."""
        recipe = self.recipe(launcher)
        if recipe is None or recipe.environment.build != "job":
            return None
        task, resources = recipe.task(launcher.name), recipe.environment.build_resources
        return Job(job_id(task), task, (), launcher, Resources.parse(resources) if resources else Resources())

    def sent_with(self, job: Job) -> dict[str, str]:
        """What goes to the cluster beside a job's files: for one that builds an environment, what it builds it from."""
        recipe = self.recipe(job.launcher)
        return recipe.sent() if recipe is not None and isinstance(job.task, BuildEnvironment) else {}

    @property
    def code(self) -> str:
        """The folder of the code below a workspace."""
        return f".xpm/code/{self.snapshot.digest}"

    def files(self, job: Job, lib: str, stage: Stage | None = None) -> dict[str, str]:
        """The texts of a job's files, by name below the workspace.

        :param lib: folder of the shipped package below the workspace
        :param stage: how its node gets them, if it does not see the workspace
        """
        folder = f"jobs/{job.id}"
        return {
            f"{folder}/params.json": params_text(job.task, self.snapshot.root),
            f"{folder}/job.json": json.dumps(self.record(job, stage), indent=1) + "\n",
            f"{folder}/job.sh": self.scripts.render(self._script(job, job.request, lib, stage)),
        }

    def array_script(self, job: Job, elements: Mapping[int, str], lib: str, stage: Stage | None = None) -> str:
        """The script of an array of jobs, given by index, that are all like ``job``."""
        array = {index: f"jobs/{one}" for index, one in elements.items()}
        return self.scripts.render(self._script(job, replace(job.request, array=True), lib, stage), array)

    def _script(self, job: Job, request: Request, lib: str, stage: Stage | None) -> ScriptJob:
        recipe = self.recipe(job.launcher)
        folders = [self.code if path == "." else f"{self.code}/{path}" for path in self.snapshot.import_paths]
        return ScriptJob(
            scheduler=job.launcher.scheduler,
            template=job.launcher.template,
            request=request,
            name=job.name,
            python=job.launcher.python,
            lib=lib,
            code=folders,
            setup=job.launcher.environment.setup,
            env=job.launcher.environment.env,
            environment=job.launcher.environment,
            folder=recipe.folder if recipe else "",
            is_build=isinstance(job.task, BuildEnvironment),
            directory=f"jobs/{job.id}",
            stage=stage,
        )

    def record(self, job: Job, stage: Stage | None = None) -> dict[str, Any]:
        """``job.json`` as it is before the submission."""
        tokens = job.task.__dict__["__xpm__"].tokens
        if stage is not None and tokens:
            raise SubmissionError(
                "tasks on nodes that do not see the workspace cannot share tokens",
                where=job.id,
                hint="limit them otherwise, or take nodes = 'shared' in [mirror] of the launcher file",
            )
        task, identifier = job.id.split("/")
        recipe = self.recipe(job.launcher)
        return {
            "schema": 1,
            "id": job.id,
            "task": task,
            "identifier": identifier,
            "name": job.name,
            "parents": list(job.parents),
            "tags": job.tags,
            "tokens": tokens,
            **({"staged": stage.login} if stage else {}),
            **({"processes": job.processes} if job.processes else {}),
            "launcher": place_of(job.launcher),
            "scheduler": job.launcher.scheduler,
            "partition": job.request.partition,
            "resources": job.request.resources.to_json(),
            "asked": job.asked.to_json(),
            "retry": job.retry,
            "code": self.code,
            "environment": recipe.digest if recipe else "",
            "argv": self.argv,
            "settings": os.environ.get(VARIABLE, ""),
            "git": {"commit": self.snapshot.commit, "dirty": self.snapshot.is_dirty},
            "driver": {
                "xpm_hpc": __version__,
                "python": sys.version.split()[0],
                "host": socket.gethostname(),
            },
            "created": time.time(),
        }


def _warning(duration: int | None) -> int:
    """Seconds before the time limit at which a resumable task is told of it."""
    return WARNING if duration is None else max(1, min(WARNING, duration // 4))


def place_of(launcher: Launcher) -> str:
    """How the launcher is found again: by name, or by file if it lies elsewhere."""
    known = (user_dir(os.environ), shipped_data("launchers"))
    return launcher.name if launcher.path.parent in known else str(launcher.path.absolute())


def plain(tags: Mapping[str, object]) -> dict[str, Any]:
    """Tags as JSON values."""
    return {key: one if isinstance(one, (str, int, float, bool)) else str(one) for key, one in tags.items()}
