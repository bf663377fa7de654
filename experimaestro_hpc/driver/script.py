"""Job scripts from templates. In: a job, what it asks for, its launcher. Out: the script's text, always the same.

Every value in a template is quoted for the shell unless it says ``| raw``, so that a name with a quote or a
``$( )`` in it stays a name.
"""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..errors import TemplateError
from ..schedulers import scheduler_class
from ..schedulers.base import Request
from .environment import Environment
from .quoting import path_there

#: what the name of a template begins with that is the shipped one, whatever the user has
SHIPPED = "shipped/"


def quoted(value: object) -> object:
    """``value`` for the shell, one word whatever is in it; what is marked as shell text already stays as it is."""
    if isinstance(value, (Markup, jinja2.Undefined)):
        return value
    return Markup(shlex.quote(str(value)))


@dataclass(frozen=True)
class Stage:
    """How a node that does not see the workspace gets what a task needs: from the login node, over SSH.

    :param login: the login node, as the nodes know it
    :param remote: the command that answers there
    :param scratch: where to put it on the node; ``~`` and ``$NAME`` at its start are expanded there
    :param code: folder with the code snapshot, below the workspace
    """

    login: str
    remote: str
    scratch: str
    code: str


@dataclass(frozen=True)
class ScriptJob:
    """What a script is made from, beside what the scheduler is asked for.

    :param scheduler: its name, which is its template's too
    :param request: what is asked of the scheduler
    :param name: stem of the log files
    :param python: runs the task, unless its environment has a manager; ``~`` and ``$NAME`` at its start are expanded
        there
    :param lib: folder with the shipped package, below the workspace
    :param code: folders to import the user's code from, below the workspace
    :param setup: shell lines before the task
    :param env: environment variables
    :param environment: the rest of what surrounds it
    :param folder: where it is built, below the workspace; "" if it has no manager
    :param is_build: whether this is the job that builds it
    :param directory: the job's, below the workspace
    :param stage: for nodes that do not see the workspace
    :param template: its file; "" for the scheduler's
    """

    scheduler: str
    request: Request
    name: str
    python: str
    lib: str
    code: Sequence[str] = ()
    setup: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)
    folder: str = ""
    is_build: bool = False
    directory: str = ""
    stage: Stage | None = None
    template: str = ""


class Templates(jinja2.Environment):
    """Templates by the names of their files; ``shipped/NAME`` is the one that ships, whatever the user has."""

    def join_path(self, template: str, parent: str) -> str:
        """The name of ``template``, as ``parent`` says it: one that builds on its own name means the shipped one."""
        return f"{SHIPPED}{template}" if template == parent else template


class Scripts:
    """Renders job scripts.

    :param folders: where templates are looked for, the user's before the shipped ones, which are the last
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [str(folder) for folder in folders]
        shipped = jinja2.PrefixLoader({SHIPPED[:-1]: jinja2.FileSystemLoader(self.folders[-1])})
        self.environment = Templates(
            loader=jinja2.ChoiceLoader([shipped, jinja2.FileSystemLoader(self.folders)]),
            undefined=jinja2.StrictUndefined,
            finalize=quoted,
            autoescape=True,  # what is quoted is marked, so that {{ super() }} is not quoted again
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self.environment.filters["raw"] = Markup

    def render(self, job: ScriptJob, array: Mapping[int, str] | None = None) -> str:
        """The text of a job script, or of the script of an array of jobs.

        :param array: the job directories of an array's elements by index, below the workspace
        :raises TemplateError: the template is missing or broken, with its file and line
        :raises SubmissionError: the scheduler has no way to ask for the request
        """
        template = job.template or f"{job.scheduler}.sh.j2"
        values: dict[str, Any] = {
            "name": job.name,
            "scheduler": job.scheduler,
            "template": template,
            "directives": scheduler_class(job.scheduler).directives(job.request),
            "setup": list(job.setup),
            "env": dict(sorted(job.env.items())),
            "environment": job.environment,
            "folder": job.folder,
            "image": _image(job.environment, f"$workspace/{job.folder}"),
            "python": Markup(path_there(python_of(job.environment, job.folder) or job.python)),
            "lib": job.lib,
            "code": list(job.code),
            "array": array,
            "directory": job.directory,
            "stage": job.stage and replace(job.stage, scratch=Markup(path_there(job.stage.scratch))),
            "request": job.request,
        }
        return self._render("build.sh.j2" if job.is_build else template, values)

    def render_build(self, environment: Environment, file: str) -> str:
        """The text of the script that builds an environment.

        :param file: what says what is in it, below the project's folder; "" if nothing needs to
        :raises TemplateError: the template is missing or broken
        """
        folder, _, name = f"source/{file}".rpartition("/")
        python = environment.python or "python3"
        values = {
            "environment": environment,
            "source": folder,
            "file": name,
            "python": python if python[0].isdigit() else Markup(path_there(python)),  # uv knows versions
            "image": _image(environment, "$here"),
        }
        return self._render("environment.sh.j2", values)

    def _render(self, name: str, values: Mapping[str, Any]) -> str:
        try:
            return self.environment.get_template(name).render(values)
        except jinja2.TemplateSyntaxError as error:
            where = f"{error.filename or error.name}, line {error.lineno}"
            raise TemplateError(f"the template is broken: {error.message}", where=where) from error
        except jinja2.TemplateNotFound as error:
            where = self._place(error) or "templates"
            hint = f"looked in: {', '.join(self.folders)}"
            raise TemplateError(f"no template {error.name!r}", where=where, hint=hint) from error
        except RecursionError as error:
            where = self._place(error) or name
            hint = f'{{% extends "{SHIPPED}NAME" %}} builds on the template that ships'
            raise TemplateError("the template goes round and round", where=where, hint=hint) from error
        except Exception as error:  # whatever the expressions in it may raise
            words = str(error) if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
            where = self._place(error) or name
            raise TemplateError(f"the template cannot be rendered: {words}", where=where) from error

    def _place(self, error: Exception) -> str:
        """The file and the line of the template that an error is from; "" if it is from none."""
        frames = reversed(traceback.extract_tb(error.__traceback__))
        found = (one for one in frames if any(Path(one.filename).is_relative_to(folder) for folder in self.folders))
        return next((f"{one.filename}, line {one.lineno}" for one in found), "")


def python_of(environment: Environment, folder: str) -> str:
    """The interpreter in an environment that was built; "" if it has no manager.

    :param folder: the environment's, below the workspace

    >>> python_of(Environment(manager="uv"), ".xpm/env/0a")
    '$workspace/.xpm/env/0a/env/bin/python'
    """
    if environment.manager in ("uv", "venv", "conda"):
        return f"$workspace/{folder}/env/bin/python"
    return environment.python or "python3" if environment.manager else ""


def _image(environment: Environment, folder: str) -> Markup:
    """The image for apptainer, for a shell on the cluster."""
    return Markup(path_there(f"{folder}/image.sif" if environment.pulls_image else environment.image))
