"""The part of this package that runs on clusters, as one zip. In: the installed package. Out: bytes and their hash."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from ..agent.clean import touch
from ..agent.main import compile_hot

_PACKAGE = Path(__file__).resolve().parent.parent
#: what is shipped: standard library only, Python 3.9 and newer
SHIPPED = ("__init__.py", "errors.py", "resources.py", "config", "agent", "runtime", "schedulers")
#: Started by path: ``python -m`` would import ``runpy`` in each job, which takes longer than our own start.
_RUN_TASK = """\
import sys

if sys.version_info < (3, 9):
    sys.exit(
        "xpm-hpc: tasks need Python 3.9 or newer, and %s is %d.%d; set `python` in [environment] of the launcher"
        " file" % ((sys.executable,) + sys.version_info[:2])
    )
from experimaestro_hpc.runtime.run import main

sys.exit(main(sys.argv))
"""


class Shipment(NamedTuple):
    """The shipped package.

    :ivar digest: names its folder, ``.xpm/lib/<digest>``
    :ivar data: the zip
    """

    digest: str
    data: bytes

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
    """Pack the shipped package; the same files give the same bytes."""
    contents = shipped_files()
    digest = hashlib.sha256()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return Shipment(digest.hexdigest()[:16], buffer.getvalue())


def install(shipment: Shipment, root: Path) -> None:
    """Put the package into a workspace on this machine; nobody ever sees half of it.

    :raises OSError: no permission, or the disk is full
    """
    target = root / shipment.folder
    if target.is_dir():
        touch(target)  # or `xpm-hpc clean` might remove it before the first job needs it
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        zipfile.ZipFile(io.BytesIO(shipment.data)).extractall(temporary)
        temporary.chmod(0o755)
        temporary.rename(target)
        compile_hot(target)
    except OSError:
        if not target.is_dir():  # else another driver was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
