"""The part of this package that runs on clusters, as one zip. In: the installed package. Out: its files, their hash."""

from __future__ import annotations

import hashlib
import io
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..agent.clean import touch
from ..agent.start import compile_hot

_PACKAGE = Path(__file__).resolve().parent.parent
#: what is shipped: standard library only, Python 3.9 and newer
SHIPPED = ("__init__.py", "errors.py", "resources.py", "config", "agent", "runtime", "schedulers")
#: Started by path: ``python -m`` would import ``runpy`` in each job, which takes longer than our own start.
#: Afterwards it sees to what is held, without loading anything where nothing is.
_RUN_TASK = """\
import sys

if sys.version_info < (3, 9):
    sys.exit(
        "xpm-hpc: tasks need Python 3.9 or newer, and %s is %d.%d; set `python` in [environment] of the launcher"
        " file" % ((sys.executable,) + sys.version_info[:2])
    )
import os

from experimaestro_hpc.runtime.run import main

pid, words = os.getpid(), len(sys.argv)
code = main(sys.argv)
try:
    workspace = os.path.abspath(__file__).rpartition("/.xpm/")[0]
    held = workspace + "/.xpm/held"
    # not what the task forked, nor one of its several processes
    if os.getpid() == pid and words == 2 and os.path.isdir(held) and os.listdir(held):
        from experimaestro_hpc.agent.after import go_on

        go_on(workspace)
finally:  # whatever comes of that: the task has ended as its marker says
    sys.exit(code)
"""


class Shipment(NamedTuple):
    """The shipped package.

    :ivar digest: names its folder, ``.xpm/lib/<digest>``
    :ivar files: content by name
    """

    digest: str
    files: Mapping[str, bytes]

    def zip(self) -> bytes:
        """All of it as a zip; the same files give the same bytes."""
        import zipfile  # for what is done once for each version

        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in self.files.items():
                archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    @property
    def folder(self) -> str:
        """Where it is installed, below a workspace."""
        return f".xpm/lib/{self.digest}"


def shipped_files() -> dict[str, bytes]:
    """The content of the shipped files by their name in the zip."""
    found = {"run_task.py": _RUN_TASK.encode()}
    for part in SHIPPED:
        path = _PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found[f"{_PACKAGE.name}/{file.relative_to(_PACKAGE).as_posix()}"] = file.read_bytes()
    return found


def build() -> Shipment:
    """The package as it is installed here."""
    files = shipped_files()
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return Shipment(digest.hexdigest()[:16], files)


def install(shipment: Shipment, root: Path) -> None:
    """Put the package into a workspace on this machine; nobody ever sees half of it.

    :raises OSError: no permission, or the disk is full
    """
    target = root / shipment.folder
    if target.is_dir():
        touch(target)  # or `xpm-hpc clean` might remove it before the first job needs it
        return
    temporary = target.parent / f"{secrets.token_hex(6)}.tmp"
    try:
        temporary.mkdir(parents=True)
        for name, data in shipment.files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        temporary.rename(target)
        compile_hot(target)
    except OSError:
        if not target.is_dir():  # else another driver was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
