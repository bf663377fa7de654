"""Launcher files: where and how tasks run. In: their text. Out: a checked :class:`Launcher`.

A launcher file is TOML; ``launchers/slurm.toml`` shows all of it. Everything in it is checked here, once, so
that no other module needs to: what is unknown or of a wrong type is an error with the file and the line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from ..errors import LauncherError
from ..schedulers import BUILT_IN
from .environment import Environment, parse_environment
from .toml_table import Source, Table, is_number

ConnectorType = Literal["local", "ssh"]
Transport = Literal["auto", "paramiko", "openssh"]
NodeFiles = Literal["shared", "staged"]
Starter = Literal["", "srun", "oarsh", "ssh", "mpirun", "local", "none"]
DefaultValue = str | int | float | bool | list[str]

SCHEDULER_ENTRY_POINTS = "experimaestro_hpc.schedulers"

_CONNECTOR_TYPES: tuple[ConnectorType, ...] = ("local", "ssh")
_TRANSPORTS: tuple[Transport, ...] = ("auto", "paramiko", "openssh")
_NODE_FILES: tuple[NodeFiles, ...] = ("shared", "staged")
_STARTERS: tuple[Starter, ...] = ("srun", "oarsh", "ssh", "mpirun", "local", "none")
_OPTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Connector:
    """How the login node is reached.

    :ivar type: ``local``: the commands of the scheduler are on this machine; ``ssh``: they are on ``host``
    :ivar host: a name that ``ssh`` knows, ``user@host``, or ``ssh://user@host:port``
    :ivar transport: which SSH implementation; ``auto`` chooses
    """

    type: ConnectorType = "local"
    host: str = ""
    transport: Transport = "auto"


@dataclass(frozen=True)
class Gpus:
    """The GPUs of each node of a partition.

    :ivar type: the model, as the scheduler spells it; empty if it is not said
    :ivar count: how many
    :ivar memory: memory of each in bytes, ``None`` if it is not said
    """

    type: str = ""
    count: int = 0
    memory: int | None = None


@dataclass(frozen=True)
class Partition:
    """What may be asked of a partition. ``None``: not said, so not checked; but for GPUs it means none.

    :ivar name: as the scheduler spells it
    :ivar max_time: the longest run, in seconds
    :ivar cores: cores of each node
    :ivar memory: memory of each node, in bytes
    :ivar gpus: GPUs of each node, ``None`` if they have none
    :ivar nodes: the most nodes that one job may have
    :ivar options: options of the scheduler, by their own names, in place of those of ``defaults``; with one for the
        partition itself, ``name`` is for people only
    """

    name: str
    max_time: int | None = None
    cores: int | None = None
    memory: int | None = None
    gpus: Gpus | None = None
    nodes: int | None = None
    options: Mapping[str, DefaultValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Mirror:
    """What is copied to the laptop, and to the nodes.

    :ivar pull: patterns, relative to a job directory, of what comes back by itself besides logs and records
    :ivar max_pull: larger files stay on the cluster; in bytes
    :ivar nodes: ``shared``: the nodes see the workdir; ``staged``: what a task needs is copied to and fro
    :ivar scratch: where to, for ``staged``; expanded on the node, where an unset ``$TMPDIR`` is ``/tmp``
    :ivar login: the login node as the nodes reach it with ssh, for ``staged``; empty: by the name that it gives itself
    """

    pull: tuple[str, ...] = ("*.json",)
    max_pull: int = 50 * 1024**2
    nodes: NodeFiles = "shared"
    scratch: str = "$TMPDIR"
    login: str = ""


@dataclass(frozen=True)
class Processes:
    """How the processes of a task are started that asks for several nodes, or tasks per node.

    :ivar start: by what; ``local``: without help, on one node only; ``none``: not at all, the task does it itself;
        empty: as the scheduler does it
    :ivar options: more words for its command; ``$NAME`` in them is replaced in the job
    """

    start: Starter = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Launcher:
    """The content of a launcher file.

    :ivar name: the file's name without ``.toml``
    :ivar scheduler: ``local``, ``slurm``, ``oar``, or one that another package provides
    :ivar workdir: on the cluster, not expanded; empty, and only with a local connector: the experiment's own
    :ivar defaults: options of the scheduler, by their own names; the values are on one line
    :ivar partitions: in order of preference
    :ivar path: the file
    :ivar slots: scheduler ``local`` only: how many cores' worth of tasks run at once; ``None``: the machine's
    :ivar template: of the job scripts, in the user's folder or among the shipped ones; empty: the scheduler's
    """

    name: str
    scheduler: str
    workdir: str = ""
    connector: Connector = field(default_factory=Connector)
    environment: Environment = field(default_factory=Environment)
    defaults: Mapping[str, DefaultValue] = field(default_factory=dict)
    partitions: tuple[Partition, ...] = ()
    mirror: Mirror = field(default_factory=Mirror)
    processes: Processes = field(default_factory=Processes)
    path: Path = Path()
    slots: int | None = None
    template: str = ""

    @property
    def python(self) -> str:
        """The interpreter that runs the tasks: if the file names none, the experiment's own on this machine,
        and ``python3`` elsewhere."""
        if self.environment.python:
            return self.environment.python
        return sys.executable if self.scheduler == self.connector.type == "local" else "python3"


def _keys(kind: type) -> list[str]:
    return [f.name for f in fields(kind)]


_TOP_KEYS = [key for key in _keys(Launcher) if key not in ("name", "path")]
_BELONGS = {
    **{key: "in [[partitions]]" for key in _keys(Partition) if key not in ("name", "nodes")},
    **{key: "in [connector]" for key in _keys(Connector) if key != "type"},
    **dict.fromkeys(_keys(Environment), "in [environment]"),
    **{key: "in [mirror]" for key in _keys(Mirror) if key != "nodes"},
    **dict.fromkeys(_keys(Processes), "in [processes]"),
    "options": "in [[partitions]] or in [processes]",
    **dict.fromkeys(("scheduler", "workdir", "slots", "template"), "at the top of the file, before the first [table]"),
}


# --- From text to Launcher


def parse_launcher(text: str, *, name: str, path: Path) -> Launcher:
    """Read the text of a launcher file.

    :param text: TOML
    :param name: the launcher's name
    :param path: the file, for messages and for ``Launcher.path``
    :raises LauncherError: with file, line and the nearest known word, for anything that is not understood

    >>> parse_launcher('scheduler = "local"', name="here", path=Path("here.toml")).workdir
    ''
    """
    source = Source(text, path, _BELONGS)
    try:
        top = Table(source, source.load(), _TOP_KEYS, title="the launcher")
        scheduler = _scheduler(top)
        connector = _connector(top.table("connector", _keys(Connector)))
        workdir = top.text("workdir")
        if connector.type == "ssh" and not workdir.strip():
            why = ": with an ssh connector it says where on the cluster to work"
            raise top.source.error(f"key 'workdir' is missing in the launcher{why}", ("connector", "type"))
        slots = top.count("slots")
        if slots is not None and scheduler != "local":
            raise top.error(f"'slots' is for scheduler 'local' only; '{scheduler}' counts by itself", "slots")
        environment = parse_environment(top.table("environment", _keys(Environment)))
        mirror = _mirror(top.table("mirror", _keys(Mirror)))
        if environment.manager and mirror.nodes == "staged":
            why = "with a manager the nodes must see the workdir, where the environment is"
            raise top.source.error(f"'nodes' in [mirror] cannot be 'staged' here: {why}", ("mirror", "nodes"))
        return Launcher(
            name=name,
            scheduler=scheduler,
            workdir=workdir,
            connector=connector,
            environment=environment,
            defaults=_options(top.table("defaults", None)),
            partitions=_partitions(top.tables("partitions", _keys(Partition))),
            mirror=mirror,
            processes=_processes(top.table("processes", _keys(Processes))),
            path=path,
            slots=slots,
            template=_template(top),
        )
    except RecursionError:
        raise LauncherError("this is not a launcher: it is nested too deep", where=str(path)) from None


def _scheduler(top: Table) -> str:
    name = top.text("scheduler")
    if name in BUILT_IN:
        return name
    from importlib.metadata import entry_points  # slow, and needed by few

    known = (*BUILT_IN, *sorted(entry_points(group=SCHEDULER_ENTRY_POINTS).names))
    if "scheduler" not in top.data:
        raise top.missing("scheduler", ": write one of " + ", ".join(known))
    return top.choice("scheduler", known, "local")


def _connector(table: Table) -> Connector:
    connector = Connector(
        type=table.choice("type", _CONNECTOR_TYPES, "local"),
        host=table.text("host"),
        transport=table.choice("transport", _TRANSPORTS, "auto"),
    )
    # whoever names a host and forgets the type must not find the tasks running on the laptop
    if connector.host and "type" not in table.data:
        raise table.error("'host' is given in [connector] but no 'type'", "host", hint='add type = "ssh"')
    if connector.type == "ssh" and not connector.host.strip():
        raise table.missing("host", ": ssh needs one")
    if connector.host and not _is_host(connector.host):
        raise table.invalid("host", "a host name that ssh knows, user@host, or ssh://user@host:port")
    return connector


def _is_host(host: str) -> bool:
    """Whether ``ssh`` would take this for one host and its port: not for an option, or for a host and a command."""
    if host.startswith("-") or re.search(r"\s", host):
        return False
    is_address = host.startswith("ssh://")
    user, at, name = (host[6:].removesuffix("/") if is_address else host).rpartition("@")
    if name.count(":") == 1:  # else it is of IPv6
        name, _, port = name.partition(":")
        if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
            return False
    return bool(name and (user or not at)) and not (is_address and "/" in name)


def _template(top: Table) -> str:
    name = top.text("template", can_be_empty=False)
    if name.startswith(("/", "~")) or ".." in name.split("/"):
        raise top.invalid("template", "the name of a file in the folder of templates")
    return name


def _options(table: Table) -> dict[str, DefaultValue]:
    return {name: _option(table, name) for name in table.data}


def _option(table: Table, name: str) -> DefaultValue:
    if not _OPTION_NAME.fullmatch(name):
        raise table.error(
            f"{name!r:.60} in {table.title} is not the name of a scheduler's option",
            name,
            hint="letters, digits, '-' and '_'; without the dashes before it: partition, not --partition",
        )
    value: DefaultValue = table.data[name]  # or anything else, until the end of these checks
    if isinstance(value, str):
        return table.text(name)
    if isinstance(value, list):
        return list(table.texts(name))
    if isinstance(value, bool) or is_number(value):
        return value
    raise table.invalid(name, "text, a number, true, false or a list of texts")


def _partitions(tables: list[Table]) -> tuple[Partition, ...]:
    partitions: dict[str, Partition] = {}
    for table in tables:
        name = table.text("name", can_be_empty=False)
        if not name:
            raise table.missing("name")
        if name in partitions:
            raise table.error(f"there is another partition '{name}' before", "name")
        partitions[name] = Partition(
            name=name,
            max_time=table.duration("max_time"),
            cores=table.count("cores"),
            memory=table.memory("memory"),
            gpus=_gpus(table.table("gpus", _keys(Gpus), f"gpus of partition '{name}'")),
            nodes=table.count("nodes"),
            options=_options(table.table("options", None, f"options of partition '{name}'")),
        )
    return tuple(partitions.values())


def _gpus(table: Table) -> Gpus | None:
    count = table.count("count", least=0)
    if table.data and count is None:
        raise table.missing("count", ": how many there are on each node")
    gpus = Gpus(type=table.text("type"), count=count or 0, memory=table.memory("memory"))
    return gpus if count else None


def _mirror(table: Table) -> Mirror:
    pull = table.texts("pull") if "pull" in table.data else Mirror.pull
    for place, pattern in enumerate(pull):
        if not pattern or pattern.startswith(("/", "~")) or ".." in pattern.split("/"):
            raise table.error(
                f"{pattern!r:.60} in 'pull' of [mirror] is not a pattern inside a job directory",
                "pull",
                place,
            )
    max_pull = table.memory("max_pull")
    return Mirror(
        pull=pull,
        max_pull=Mirror.max_pull if max_pull is None else max_pull,
        nodes=table.choice("nodes", _NODE_FILES, "shared"),
        scratch=table.text("scratch", Mirror.scratch, can_be_empty=False),
        login=table.text("login"),
    )


def _processes(table: Table) -> Processes:
    start: Starter = table.choice("start", _STARTERS, "") if "start" in table.data else ""
    return Processes(start=start, options=tuple(table.texts("options")))
