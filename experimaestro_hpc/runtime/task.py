"""A task in a process of its own. In: its files. Out: the task, executed; what it raised, in words.

What a job's only process does, and each of several. Their order, and what becomes of the job, is :mod:`.run`'s.
"""

from __future__ import annotations

import os
import sys
import time

from ..config.load import Loader
from ..config.objects import ResumableTask, job_name
from ..errors import XpmError
from .files import read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: seconds to wait for a parent's marker that another machine has just written (network file systems lag)
MARKER_PATIENCE = float(os.environ.get("XPM_HPC_MARKER_PATIENCE", "60"))


class Failure(Exception):
    """The task cannot be run, or has failed in another process.

    :param reason: one of the reasons of a failed job
    :param code: the job's exit status
    """

    def __init__(self, reason: str, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code


class Unexplained(Exception):
    """The task's process was killed: no marker, the scheduler knows why.

    :param code: the job's exit status
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def load(workspace: str, job: str, record: dict[str, Any]) -> Any:
    """The task of a job, in a process that looks as the task expects it.

    :param record: what ``job.json`` says of its ``code``, ``argv`` and ``settings``
    :raises Failure: ``launch``: it cannot be loaded here
    """
    loader = Loader(os.path.join(workspace, "jobs"), os.path.join(workspace, record.get("code") or ""))
    sys.argv = list(record.get("argv") or sys.argv[:1])
    if record.get("settings"):
        os.environ["XPM_HPC_SETTINGS"] = record["settings"]  # for configure(); its module is not for every job
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # `jobs logs` shows it as it is printed
    try:
        return loader.task(job)
    except Exception as error:
        show(error)
        raise Failure("launch", _advice(error)) from error


def execute(task: Any) -> int:
    """Execute a task; returns the exit status that it asks for."""
    resumes = isinstance(task, ResumableTask)
    if resumes:
        from .resume import listen  # its signals are not for other tasks

        listen()
    one = None
    try:
        for one in (*task.__dict__["__xpm__"].init_tasks, task):
            one.execute()
    except SystemExit as wanted:
        if one is not task and not wanted.code:
            raise Failure("exit", f"{type(one).__qualname__} ended the process before the task was executed") from None
        if wanted.code is None or isinstance(wanted.code, int):
            code = int(wanted.code or 0)
            return code & 0xFF or int(code != 0)  # no failure becomes a success by its last byte
        say(f"{wanted.code}\n")
        return 1
    finally:
        if resumes:
            from .resume import stop_listening

            stop_listening()
    return 0


def _advice(error: Exception) -> str:
    where = f"on {os.uname().nodename} with {sys.executable} {sys.version.split()[0]}"
    if isinstance(error, ModuleNotFoundError):
        return f"the task cannot be loaded {where}: {error}; install it in the environment of the launcher file"
    return f"the task cannot be loaded {where}: {type(error).__name__}: {error}"


def check_parents(workspace: str, parents: list[str]) -> None:
    """All parents must have ended well, whatever the scheduler says.

    :raises Failure: ``dependency``, with the parent's name
    """
    deadline = time.monotonic() + MARKER_PATIENCE
    for parent in parents:
        stem = os.path.join(workspace, "jobs", parent, job_name(parent.split("/")[0]))
        while not os.path.exists(stem + ".done"):
            if os.path.exists(stem + ".failed"):
                from .parents import words_of_failure  # only for jobs that fail

                raise Failure("dependency", words_of_failure(parent, read_json(stem + ".failed")))
            if time.monotonic() > deadline:
                raise Failure("dependency", f"its parent {parent} has not ended")
            time.sleep(0.2)
            list_again(os.path.dirname(stem))


def list_again(directory: str) -> None:
    """Listing a directory makes NFS forget what it remembers of it."""
    try:
        os.listdir(directory)
    except OSError:
        pass  # not there yet


def flush() -> str:
    """Write out what the task has printed; why that cannot be, or ""."""
    lost = ""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            pass  # the task closed it
        except OSError as error:
            lost = f"output lost: {error}"
    return lost


def split(directory: str) -> tuple[str, str]:
    """Workspace and job id of a job directory."""
    rest, identifier = os.path.split(directory)
    rest, task = os.path.split(rest)
    return os.path.dirname(rest), f"{task}/{identifier}"


def show(error: BaseException) -> str:
    """Print an error; returns what it says."""
    words, message = describe(error)
    say(words)
    return message


def describe(error: BaseException) -> tuple[str, str]:
    """An error as it is printed, one of the user's with a traceback without our own frames; and what it says."""
    if isinstance(error, XpmError):
        return f"error: {error}\n", str(error)[-2000:]
    import traceback  # only for tasks that fail

    trace = error.__traceback__
    here = os.path.dirname(os.path.dirname(__file__))
    while trace is not None and trace.tb_next and trace.tb_frame.f_code.co_filename.startswith(here):
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    return "".join(lines), "".join(traceback.format_exception_only(type(error), error)).strip()[-2000:]


def say(text: str) -> None:
    """Write to the task's standard error, if there still is one: the marker matters more."""
    try:
        sys.stderr.write(text)
    except (AttributeError, OSError, ValueError):
        pass  # the task closed it, or the disk is full


def packages() -> dict[str, str]:
    """The versions of the packages that the task imported, as far as they say them."""
    of_python = getattr(sys, "stdlib_module_names", ())
    found = {}
    for name, module in sorted(sys.modules.items()):
        try:
            version = None if "." in name or name[0] == "_" else getattr(module, "__dict__", {}).get("__version__")
        except Exception:
            continue  # a module that loads itself now, and cannot
        if isinstance(version, str) and name not in of_python:
            found[name] = version
    return found
