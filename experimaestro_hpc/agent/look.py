"""A look at the cluster for a launcher file. In: nothing. Out: facts, see :mod:`..schedulers.site`.

Each part is asked for on its own, so that whoever waits sees how far it is. Nothing is changed here; what does not
answer is passed over, with a note.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import threading
from typing import Any, Callable, TypeVar

from ..errors import XpmError
from ..schedulers import oar_site, slurm_site
from ..schedulers.base import NoInformation
from ..schedulers.command import Commands
from ..schedulers.site import Folder, Python, SchedulerFacts, Software, no_scheduler
from .surroundings import (
    Mount,
    Quota,
    mount_of,
    parse_lustre_quota,
    parse_modules,
    parse_mounts,
    parse_quota,
    parse_version,
)

#: seconds for what may hang: a file system whose server is away, a module system that builds its cache
PATIENCE = 20.0
#: the command by which each scheduler is known
COMMANDS = {"slurm": "sbatch", "oar": "oarsub"}
#: where sites put them that do not put them on PATH
USUAL = ("/opt/*/bin", "/opt/*/*/bin", "/usr/local/*/bin", "/cm/shared/apps/slurm/*/bin", "/usr/lib/oar/bin")
#: what sites call folders for data
VARIABLES = ("WORK", "SCRATCH", "PSCRATCH", "WORKDIR", "SCRATCHDIR", "PROJECT", "STORE")
PLACES = ("/scratch", "/work", "/data", "/lustre", "/gpfs")
PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 8, -1)), "python")
TOOLS = ("uv", "mamba", "conda", "micromamba", "apptainer", "singularity")

_T = TypeVar("_T")


def look(part: str, **arguments: Any) -> Any:
    """Look at one part: ``scheduler``, ``folders`` or ``software``.

    :raises XpmError: there is no such part, or a folder that was asked for cannot be
    """
    parts: dict[str, Callable[..., Any]] = {"scheduler": scheduler, "folders": folders, "software": software}
    if part not in parts:
        raise XpmError(f"the agent cannot look at {part!r}")
    return parts[part](**arguments)


# --- The scheduler


def scheduler(name: str = "") -> SchedulerFacts:
    """Which scheduler there is, and what it says. Of several, the first that answers.

    :param name: look for this one only; "" for any
    """
    commands = Commands()
    if name == "local":
        return {**no_scheduler(), "name": "local"}
    kinds = {"slurm": _slurm, "oar": _oar}
    silent: list[SchedulerFacts] = []
    for one in kinds:
        if name in ("", one) and shutil.which(COMMANDS[one]) is not None:
            facts = kinds[one](commands)
            if facts["partitions"]:
                return facts
            silent.append(facts)
    if silent:
        return silent[0]
    return {**no_scheduler(), "elsewhere": _elsewhere(commands, name)}


def _elsewhere(commands: Commands, name: str) -> str:
    """Where a scheduler's command is that is not on PATH here: a login shell's PATH, or the usual places."""
    wanted = [COMMANDS[name]] if name in COMMANDS else list(COMMANDS.values())
    for command in wanted:
        out = _said(commands, ["bash", "-lc", f"command -v {command}"]).strip()
        if out.startswith("/"):
            return out.splitlines()[-1]
        for place in USUAL:
            for path in sorted(glob.glob(f"{place}/{command}")):
                if os.access(path, os.X_OK):
                    return path
    return ""


def _slurm(commands: Commands) -> SchedulerFacts:
    facts = no_scheduler()
    facts["name"], notes = "slurm", facts["notes"]
    facts["version"] = _said(commands, ["sinfo", "--version"]).strip()
    sinfo = _asked(commands, slurm_site.SINFO, notes)
    if notes:
        return facts  # the others would fail as well
    shown = _asked(commands, slurm_site.SCONTROL_PARTITIONS, notes)
    config = slurm_site.parse_config(_asked(commands, slurm_site.SCONTROL_CONFIG, notes))
    facts["hosts"] = list(slurm_site.hosts(_asked(commands, slurm_site.SINFO_HOSTS, notes)))
    rights, user = slurm_site.Rights([], [], [], ""), _user()
    if "slurmdbd" in config.get("AccountingStorageType", "slurmdbd"):
        associations = _asked(commands, slurm_site.accounting(user, config.get("ClusterName", "")), notes)
        rights = slurm_site.parse_rights(associations)
        facts["account"] = _asked(commands, slurm_site.default_account(user), notes).strip().partition("\n")[0]
        rights = rights._replace(account=facts["account"])
    facts["accounts"], facts["qos"], facts["default_qos"] = rights.accounts, rights.qos, rights.default_qos
    facts["needs_account"] = "associations" in config.get("AccountingStorageEnforce", "")
    facts["partitions"] = slurm_site.partitions(sinfo, shown, rights)
    return facts


def _oar(commands: Commands) -> SchedulerFacts:
    facts = no_scheduler()
    facts["name"] = "oar"
    facts["version"] = oar_site.parse_version(_said(commands, ["oarstat", "--version"]))
    out = _asked(commands, oar_site.OARNODES, facts["notes"])
    try:
        shown = json.loads(out) if out.strip() else {}
    except ValueError as error:
        facts["notes"].append(f"oarnodes -J: its answer is not understood: {error}")
        shown = {}
    found = oar_site.resources(shown)
    names = oar_site.property_names(found)
    unit = oar_site.memory_unit(found, names)
    facts["options"] = oar_site.defaults(names, unit) if found else {}
    facts["hosts"] = sorted({str(one.get("network_address")).partition(".")[0] for one in found})
    facts["partitions"] = [oar_site.default_queue(found, names, unit)] if found else []
    return facts


def _asked(commands: Commands, argv: list[str], notes: list[str]) -> str:
    """What a command printed; "", and a note, if it failed."""
    try:
        answer = commands.run(argv)
    except NoInformation as error:
        notes.append(str(error))
        return ""
    if answer.code:
        notes.append(f"{' '.join(argv[:3])}: {answer.words[:200] or f'exit status {answer.code}'}")
        return ""
    return answer.out


def _said(commands: Commands, argv: list[str]) -> str:
    return _asked(commands, argv, [])


def _user() -> str:
    import pwd  # not on Windows, where the driver takes names from this module

    return pwd.getpwuid(os.getuid()).pw_name


# --- Folders


def folders(wanted: str = "") -> list[Folder]:
    """The folders that a workdir could be in; the home directory first.

    :param wanted: the workdir that was asked for: only this one
    :raises XpmError: it is no absolute path here, or cannot be made or written
    """
    mounts = _mounts()
    quotas = parse_quota(_within(PATIENCE, lambda: _said(Commands(), ["quota", "-w"]), ""))
    if wanted:
        path = os.path.expandvars(os.path.expanduser(wanted))
        if "$" in path or not os.path.isabs(path):
            what = f"the workdir {wanted!r} is {path!r} there: a variable is not set, or it is not absolute"
            raise XpmError(what, where=f"host {os.uname().nodename}", hint="name another one with --workdir")
        folder = _folder(wanted, path, mounts, quotas)
        if not folder["can_write"]:
            what = f"the workdir {path} cannot be made or written there"
            raise XpmError(what, where=f"host {os.uname().nodename}", hint="name another one with --workdir")
        return [folder]
    user, home = _user(), os.path.expanduser("~")
    named = [(f"${name}", os.environ.get(name, "")) for name in VARIABLES]
    placed = [(f"{place}/{user}", f"{place}/{user}") for place in PLACES]
    found, seen = [_folder("~", home, mounts, quotas)], {os.path.realpath(home)}
    for spelling, path in named + placed:
        if os.path.isabs(path) and _within(PATIENCE, lambda path=path: os.path.isdir(path), False):  # type: ignore[misc]
            folder = _folder(spelling, path, mounts, quotas)
            real = os.path.realpath(path)
            if real not in seen and folder["can_write"]:
                found.append(folder)
            seen.add(real)
    return found


def _folder(spelling: str, path: str, mounts: list[Mount], quotas: dict[str, Quota]) -> Folder:
    """What is known of a folder, or of the nearest one above it that is there."""
    real = os.path.realpath(path)
    mount = mount_of(real, mounts)
    unknown: tuple[bool, int | None] = (False, None)
    can_write, free = _within(PATIENCE, lambda: _space(real), unknown)
    quota = quotas.get(mount.source) or quotas.get(mount.path)
    if mount.kind == "lustre" and quota is None:
        argv = ["lfs", "quota", "-q", "-u", _user(), mount.path]
        quota = parse_lustre_quota(_within(PATIENCE, lambda: _said(Commands(), argv), ""))
    left = [one for one in (free, quota.left if quota else None) if one is not None]
    return {
        "spelling": spelling,
        "path": path,
        "kind": mount.kind,
        "is_network": mount.is_network,
        "can_write": can_write,
        "left": min(left) if left else None,
        "quota": quota.limit if quota else None,
    }


def _space(path: str) -> tuple[bool, int | None]:
    """Whether something can be put there, and how many bytes are free."""
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    can_write = os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)
    return can_write, shutil.disk_usage(path).free


def _mounts() -> list[Mount]:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            return parse_mounts(file.read())
    except OSError:
        return []  # no Linux


def _within(seconds: float, take: Callable[[], _T], otherwise: _T) -> _T:
    """What ``take`` gives, if it comes in time and without an error."""
    found: list[_T] = []

    def run() -> None:
        try:
            found.append(take())
        except (OSError, NoInformation):
            pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else otherwise


# --- Software


def software() -> Software:
    """Pythons, what builds environments, modules."""
    commands = Commands()
    pythons: list[Python] = []
    for name in PYTHONS:
        if shutil.which(name) is None:
            continue
        version = parse_version(_said(commands, [name, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]))
        if version:
            pythons.append({"command": name, "version": version})
    # in a login shell, where sites define `module`
    listing = "type module >/dev/null 2>&1 || exit 9; module -t avail 2>&1"
    found: list[Any] = _within(PATIENCE, lambda: [commands.run(["bash", "-lc", listing])], [])
    has_modules = bool(found) and found[0].code != 9
    return {
        "pythons": pythons,
        "tools": [tool for tool in TOOLS if shutil.which(tool) is not None],
        "has_modules": has_modules,
        "modules": parse_modules(found[0].out) if has_modules else [],
    }
