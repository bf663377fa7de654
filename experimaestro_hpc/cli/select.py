"""Which jobs a command means: beginnings of their ids, or filters. In: the command line. Out: views of jobs."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import click

from ..driver.refresh import Refresher
from ..errors import WorkspaceError
from ..resources import ResourceError, parse_duration
from ..schedulers.base import STATES
from ..workspace.index import Index
from ..workspace.jobs import View, resolve
from ..workspace.query import Query
from ..workspace.recent import find_workspace, is_obvious
from ..workspace.words import short, tags_in_words
from .complete import complete_experiments, complete_jobs, complete_launchers
from .options import report

#: a member of an enumeration, as a tag has it
_MEMBER = re.compile(r"[A-Z]\w*\.[^\W\d]\w*")
#: jobs that are shown before somebody is asked about them
SHOWN = 20


@dataclass(frozen=True)
class Filters:
    """What the options of :func:`filter_options` say."""

    state: tuple[str, ...] = ()
    task: str | None = None
    tag: tuple[tuple[str, str], ...] = ()
    experiment: str | None = None
    launcher: str | None = None
    since: float | None = None

    def __bool__(self) -> bool:
        return self != Filters()

    def query(self) -> Query:
        """What the index can answer of it."""
        test = None if self.task is None else partial(fits_task, self.task)
        return Query(self.state, self.experiment, self.launcher, self.since, fits_task=test)

    def fits(self, one: View) -> bool:
        """Whether a job fits in what the index does not look at: its tags."""
        return all(key in one["tags"] and same_value(one["tags"][key], value) for key, value in self.tag)


def fits_task(pattern: str, task: str) -> bool:
    """Whether a task's name, or the end of it, fits a pattern: ``train*``, or the regular expression ``train.*``."""
    text = pattern.lower()
    if any(fnmatchcase(task, glob) for glob in (text, f"*.{text}")):
        return True
    try:
        return re.fullmatch(rf"(.*\.)?({text})", task) is not None
    except re.error:
        return False


def same_value(tag: Any, text: str) -> bool:
    """Whether a tag has the value that somebody typed: ``0.1`` is 0.10, ``true`` is True, ``small`` is Kind.SMALL."""
    if str(tag) == text:
        return True
    if isinstance(tag, str) and _MEMBER.fullmatch(tag):
        return text.lower() in (tag.lower(), tag.partition(".")[2].lower())
    if isinstance(tag, bool):
        return text.lower() in (("true", "yes", "1") if tag else ("false", "no", "0"))
    if isinstance(tag, (int, float)):
        try:
            return float(text) == float(tag)
        except ValueError:
            return False
    return False


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose jobs; the command gets ``filters``."""

    def with_filters(
        state: tuple[str, ...],
        task: str | None,
        tag: tuple[str, ...],
        experiment: str | None,
        launcher: str | None,
        since: str | None,
        **others: Any,
    ) -> Any:
        tags = tuple(_pair(one) for one in tag)
        return command(filters=Filters(state, task, tags, experiment, launcher, _since(since)), **others)

    with_filters.__name__, with_filters.__doc__ = command.__name__, command.__doc__
    with_filters.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(
        (
            click.option("--state", type=click.Choice(STATES), multiple=True, help="Only jobs in this state."),
            click.option("--task", help="Only tasks whose name, or its end, fits this pattern, such as 'train*'."),
            click.option("--tag", multiple=True, metavar="K=V", help="Only jobs with this tag."),
            click.option("--experiment", shell_complete=complete_experiments, help="Only jobs of this experiment."),
            click.option("--launcher", shell_complete=complete_launchers, help="Only jobs of this launcher."),
            click.option("--since", metavar="TIME", help="Only jobs submitted in the last 2d, 3h, 30m …"),
        )
    ):
        with_filters = option(with_filters)
    return with_filters


ids_argument = click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=complete_jobs)
id_argument = click.argument("id", metavar="ID", shell_complete=complete_jobs)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--tag")
    return key, value


def _since(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return time.time() - parse_duration(text)
    except ResourceError as error:
        raise click.BadParameter(f"{error.what}", param_hint="--since") from error


@contextmanager
def opened(workdir: str | None, is_change: bool = False) -> Iterator[Index]:
    """The up-to-date index of the workspace that is meant.

    One that nobody named is told, unless no other one could be meant.

    :param is_change: something will be changed there: then it is told in any case
    """
    root = find_workspace(workdir)
    if not (workdir or os.environ.get("XPM_HPC_WORKDIR")) and (is_change or not is_obvious(root)):
        print(f"workspace {root}", file=sys.stderr)
    index = Index(root)
    try:
        index.update()
        for path in index.unread:
            print(f"warning: {path} cannot be read; its script run again makes it anew", file=sys.stderr)
        yield index
    finally:
        index.close()


def chosen(index: Index, ids: Sequence[str], filters: Filters, refresher: Refresher | None = None) -> list[View]:
    """The jobs that are meant: those that the ids begin and that fit the filters.

    Filters by state ask the cluster about jobs that have not ended: nothing is done to a job for a state that it has
    left.

    :param refresher: asks; without one states are as last seen
    :raises WorkspaceError: an id fits no job, or several; or no job is named at all
    """
    if not (ids or filters):
        raise WorkspaceError("no job is named", hint="give IDs, or filters such as --state failed; see: xpm-hpc jobs")
    found = []
    if ids:
        wanted = [one.strip().lower() for one in ids]
        found = resolve(index.views(Query(ids=[one for one in wanted if one])), ids, where=str(index.root))
    if filters:
        fit = [one for one in index.views(filters.query()) if filters.fits(one)]
        if filters.state:
            if refresher is not None:
                report(refresher.refresh(fit))
            fit = [one for one in fit if one["state"] in filters.state]
        named = {one["id"] for one in found}
        found = [one for one in fit if not ids or one["id"] in named]
    return found


def none_fits(index: Index) -> str:
    """What there is to say when filters leave no job."""
    return f"no job of the {index.count()} in {index.root} fits"


def agreed(what: str, yes: bool, views: Sequence[View] = ()) -> bool:
    """Whether the user wants it: says so on a terminal, or by ``--yes``.

    :param views: the jobs that it is about, which are shown first
    :raises WorkspaceError: there is nobody to ask
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise WorkspaceError(f"{what}: nobody is there to be asked", hint="add --yes")
    for one in views[:SHOWN]:
        print(f"  {short(one['id'])} {one['state']} {tags_in_words(one['tags'])}".rstrip())
    if len(views) > SHOWN:
        print(f"  … and {len(views) - SHOWN} more")
    return click.confirm(f"{what}?", default=False)
