"""The family of errors that people see. In: what happened, where, what to do next. Out: one readable text.

Every error that xpm-hpc raises on purpose is an :class:`XpmError`; the commands print it without a traceback and
end with its ``exit_status``. Shipped to clusters: standard library only.
"""

from __future__ import annotations


class XpmError(Exception):
    """Base of all errors of xpm-hpc.

    :param what: what happened, a full sentence without a final stop
    :param where: the file, host, task or command concerned
    :param hint: what to do next

    >>> print(XpmError("no launcher 'clutser'", where="--launcher", hint="did you mean 'cluster'?"))
    --launcher: no launcher 'clutser'
      did you mean 'cluster'?
    """

    exit_status = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.hint:
            text += "".join(f"\n  {line}" for line in self.hint.splitlines())
        return text


class ParameterError(XpmError, TypeError):
    """A task or configuration class is declared wrongly, or a parameter has a wrong value."""


class LauncherError(XpmError):
    """A launcher file cannot be found or read, or says something that is not understood."""


class TemplateError(XpmError):
    """A job script template is missing or broken."""


class WorkspaceError(XpmError):
    """A workspace, a job or an experiment is not where it was looked for, or cannot be read."""


class SubmissionError(XpmError):
    """The scheduler refuses a job for good: it would refuse it again."""

    exit_status = 1


class BuildFailed(XpmError):
    """The environment that tasks are to run in cannot be built."""


class ConnectionFailed(XpmError):
    """The cluster could not be reached, or the agent there could not be started."""

    exit_status = 3


class JobsFailed(XpmError):
    """At least one job of an experiment failed."""

    exit_status = 1
