"""The code that travels with the jobs. In: the experiment's script. Out: the files of its project, and their hash.

In a git repository: what git tracks, and what it neither tracks nor ignores. Elsewhere: the small files and the
packages beside the script (only Python's where that is the home directory itself), and what it imported from below its
folder.
A file ``.xpmignore`` at the project's root (one pattern a line) leaves more out.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..agent.unpack import stays_inside
from ..errors import WorkspaceError, XpmError

#: bytes; more is data, not code
MAX_SIZE = 100 << 20
#: bytes; larger files beside a script outside of git are taken for data
SMALL = 1 << 20
#: never code, whatever git says
_LEFT_OUT = (
    "__pycache__",
    ".git",
    ".hg",
    ".venv",
    "node_modules",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
)


@dataclass(frozen=True)
class Snapshot:
    """Code as it is now.

    :ivar digest: hash of names, modes and contents
    :ivar root: the project's folder
    :ivar files: below the root, sorted
    :ivar import_paths: folders that the code is imported from, below the root; "." is the root
    :ivar commit: git's commit, "" outside of git
    :ivar is_dirty: whether files differ from that commit
    :ivar data: files beside the script that were left out for their size; outside of git only
    """

    digest: str
    root: Path
    files: tuple[str, ...]
    import_paths: tuple[str, ...]
    commit: str = ""
    is_dirty: bool = False
    data: tuple[str, ...] = ()


def take_snapshot(script: Path, leave_out: Iterable[Path] = ()) -> Snapshot:
    """Read the code of the project that ``script`` belongs to.

    :param leave_out: folders that are no code, such as the workspace
    :raises XpmError: the project is too large to be code
    :raises WorkspaceError: a file of it has vanished, or cannot be read
    """
    try:
        return _take(script.resolve(), leave_out)
    except OSError as error:
        raise WorkspaceError(
            f"the project's code cannot be read: {error.strerror or error}",
            where=str(error.filename or script),
            hint="files that are no code can be listed in .xpmignore",
        ) from error


def _take(script: Path, leave_out: Iterable[Path]) -> Snapshot:
    top = _git(script.parent, "rev-parse", "--show-toplevel").removesuffix("\n")
    root = Path(top) if top else script.parent
    names: set[str] = set()
    data: list[str] = []
    if "site-packages" not in root.parts:  # installed code is the environment's business
        names.update(_git_files(root) if top else _files_beside(script, data))
    if script.is_file():
        names.add(script.relative_to(root).as_posix())
    files = tuple(sorted(_wanted(root, names, [path.resolve() for path in leave_out])))
    _check_size(root, files)
    return Snapshot(
        digest=_digest(root, files),
        root=root,
        files=files,
        import_paths=_import_paths(root, script.parent),
        commit=_git(root, "rev-parse", "HEAD").strip() if top else "",
        is_dirty=bool(top and _git(root, "status", "--porcelain", "--untracked-files=no")),
        data=tuple(sorted(data)),
    )


def source(root: Path, name: str) -> Path:
    """Where a file of the project is read: a link that leads out of it stands for what it points to."""
    path = root / name
    leaves = path.is_symlink() and not stays_inside(str(path.readlink()), name.count("/"))
    return path.resolve() if leaves else path


def _git(folder: Path, *arguments: str) -> str:
    """What git prints, or "" where there is no git or no repository."""
    try:
        ended = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
    except OSError:
        return ""
    return os.fsdecode(ended.stdout) if ended.returncode == 0 else ""


def _git_files(root: Path) -> Iterator[str]:
    for name in _git(root, "ls-files", "-co", "--exclude-standard", "-z").split("\0"):
        path = root / name
        if name and path.is_dir() and not path.is_symlink():  # a submodule; empty if it was not fetched
            if (path / ".git").exists():
                yield from (f"{name.rstrip('/')}/{inner}" for inner in _git_files(path))
        elif name:
            yield name


def _files_beside(script: Path, data: list[str]) -> Iterator[str]:
    """
    :param data: gets the names of files that are left out for their size
    """
    folder = script.parent
    is_home = folder == Path.home().resolve()  # whose other files are nobody's business
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.suffix == ".py":
            yield path.name
        elif not is_home and path.is_file():
            if path.stat().st_size <= SMALL:
                yield path.name
            else:
                data.append(path.name)
        elif _is_package(path):
            yield from _below(path, folder)
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(".py") and Path(file).is_relative_to(folder):
            yield Path(file).relative_to(folder).as_posix()


def _is_package(folder: Path) -> bool:
    """Whether a folder is a package; one that this user may not enter is none of theirs."""
    try:
        return (folder / "__init__.py").is_file()
    except PermissionError:
        return False


def _below(package: Path, folder: Path) -> Iterator[str]:
    for inner, folders, names in os.walk(package):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for name in names:
            yield Path(inner, name).relative_to(folder).as_posix()


def _wanted(root: Path, names: Iterable[str], leave_out: list[Path]) -> Iterator[str]:
    patterns = _ignored(root)
    environments: dict[Path, bool] = {}

    def in_environment(path: Path) -> bool:
        """Whether a folder is, or is in, a virtual environment."""
        if path == root or not path.is_relative_to(root):
            return False
        if path not in environments:
            environments[path] = (path / "pyvenv.cfg").is_file() or in_environment(path.parent)
        return environments[path]

    for name in names:
        path = root / name
        parts = name.split("/")
        if any(part in _LEFT_OUT for part in parts) or name.endswith(".pyc"):
            continue
        if any(path.is_relative_to(folder) for folder in leave_out) or in_environment(path.parent):
            continue
        if any(fnmatch.fnmatchcase(f"{name}/", f"{one}/*") or one in parts for one in patterns):
            continue
        path = source(root, name)
        if path.is_symlink() or path.is_file():  # tracked, and deleted: neither
            yield name


def _ignored(root: Path) -> list[str]:
    try:
        lines = (root / ".xpmignore").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    return [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]


def _check_size(root: Path, files: tuple[str, ...]) -> None:
    sizes = {name: source(root, name).lstat().st_size for name in files}
    total = sum(sizes.values())
    if total > MAX_SIZE:
        largest = sorted(files, key=lambda name: -sizes[name])[:5]
        listed = "\n".join(f"{sizes[name] >> 20:6} MB  {name}" for name in largest)
        raise XpmError(
            f"the project has {total >> 20} MB of files, more than the {MAX_SIZE >> 20} MB that travel with jobs",
            where=str(root),
            hint=f"list what is data in .gitignore or .xpmignore; the largest:\n{listed}",
        )


def _digest(root: Path, files: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in files:
        path = source(root, name)
        encoded = os.fsencode(name)
        if path.is_symlink():
            kind, content = b"l", os.fsencode(path.readlink())
        else:
            kind = b"x" if path.stat().st_mode & stat.S_IXUSR else b"f"
            content = path.read_bytes()
        digest.update(kind + len(encoded).to_bytes(8, "big") + encoded + len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:32]


def _import_paths(root: Path, script_folder: Path) -> tuple[str, ...]:
    """The script's folder, and what else of the project is on ``sys.path``."""
    found = {script_folder.relative_to(root).as_posix(): None}
    for entry in sys.path:
        path = Path(entry or ".").resolve()
        if path.is_relative_to(root) and "site-packages" not in path.parts and path.is_dir():
            found[path.relative_to(root).as_posix()] = None
    return tuple(found)
