"""Which launcher file is meant. In: a name or a path, and the folders where such files are. Out: the launcher."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ..errors import LauncherError
from .data import shipped_data
from .launcher import Launcher, parse_launcher
from .toml_table import did_you_mean


def shipped_dir() -> Path:
    """Where the launcher files that come with xpm-hpc are."""
    return shipped_data("launchers")


def user_dir(environ: Mapping[str, str]) -> Path:
    """Where a user's own launcher files are; it need not exist.

    >>> user_dir({"XDG_CONFIG_HOME": "/home/me/.config"}).as_posix()
    '/home/me/.config/xpm-hpc/launchers'
    """
    config = environ.get("XDG_CONFIG_HOME", "")
    if not config.startswith("/"):  # the XDG specification: a relative path is to be ignored
        config = str(Path(environ.get("HOME") or Path.home()) / ".config")
    return Path(config) / "xpm-hpc" / "launchers"


def known_launchers(shipped: Path, user_dir: Path) -> list[tuple[str, Path, Literal["user", "shipped"]]]:
    """All launchers that can be named, by name; a user's own hides a shipped one of the same name.

    :raises LauncherError: if a directory is there but cannot be listed
    """
    found: dict[str, tuple[str, Path, Literal["user", "shipped"]]] = {}
    origins: tuple[tuple[Path, Literal["user", "shipped"]], ...] = ((shipped, "shipped"), (user_dir, "user"))
    for directory, origin in origins:
        try:
            paths = sorted(directory.iterdir())
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LauncherError(f"cannot be listed: {error.strerror}", where=str(directory)) from None
        for path in paths:
            if path.suffix == ".toml" and not path.name.startswith("."):
                found[path.stem] = (path.stem, path, origin)
    return [found[name] for name in sorted(found)]


def all_launchers() -> list[tuple[str, Path, Literal["user", "shipped"]]]:
    """:func:`known_launchers` for whoever runs this process."""
    return known_launchers(shipped_dir(), user_dir(os.environ))


def launcher_named(selector: str | None) -> Launcher:
    """:func:`find_launcher` for whoever runs this process."""
    return find_launcher(selector, environ=os.environ, shipped=shipped_dir(), user_dir=user_dir(os.environ))


def template_folders() -> list[Path]:
    """Where templates of scripts are looked for: the user's own folder, then what ships."""
    return [user_dir(os.environ).parent / "templates", shipped_data("templates")]


def find_launcher(selector: str | None, *, environ: Mapping[str, str], shipped: Path, user_dir: Path) -> Launcher:
    """The launcher that was asked for.

    :param selector: a name, or a path (with a separator, or ending in ``.toml``); if ``None`` or empty,
        what the variable ``XPM_HPC_LAUNCHER`` says, and else ``local``
    :param environ: the environment variables
    :param shipped: the directory of the launcher files that ship, see :func:`shipped_dir`
    :param user_dir: the directory of the user's own, see :func:`user_dir`; these win
    :raises LauncherError: if there is no such launcher, or its file is wrong
    """
    from_environ = environ.get("XPM_HPC_LAUNCHER", "")
    where = "XPM_HPC_LAUNCHER" if from_environ and not selector else ""
    selector = selector or from_environ or "local"
    known = {name: path for name, path, _ in known_launchers(shipped, user_dir)}
    if selector.endswith(".toml") or os.sep in selector:
        path = _expanded(selector)
        hint = f"to use the launcher of that name, write '{path.stem}'" if path.stem in known else ""
        return read_launcher(path, hint)
    if selector in known:
        return read_launcher(known[selector])
    if selector.startswith("."):
        raise LauncherError(f"the name of a launcher does not begin with a dot: '{selector}'", where=where)
    raise LauncherError(
        f"no launcher {selector!r:.80}{did_you_mean(selector, known)}",
        where=where,
        hint=f"known: {', '.join(known) or 'none'}\nlooked in: {user_dir}, {shipped}",
    )


def _expanded(selector: str) -> Path:
    try:
        return Path(selector).expanduser()
    except RuntimeError:  # no such user: reading the file will say that it is not there
        return Path(selector)


def read_launcher(path: Path, hint_if_missing: str = "") -> Launcher:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors on Windows put a mark at the beginning
    except FileNotFoundError:
        raise LauncherError("there is no such file", where=str(path), hint=hint_if_missing) from None
    except OSError as error:
        raise LauncherError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise LauncherError("this is not UTF-8 text", where=f"{path}, line {line}") from None
    except ValueError:  # a NUL in the path
        raise LauncherError(f"not a path: {str(path)!r:.80}") from None
    return parse_launcher(text, name=path.stem, path=path)
