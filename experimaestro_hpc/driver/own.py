"""A user's own launcher files. In: names and texts. Out: files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from ..errors import LauncherError
from .launcher import parse_launcher
from .launchers import user_dir

_NAME = re.compile(r"\w[\w.-]{0,63}")


def checked_name(name: str) -> str:
    """``name``, if a launcher can have it.

    :raises LauncherError: it has other characters than a file's name on any machine, or means a file already

    >>> checked_name("my-cluster")
    'my-cluster'
    """
    hint = "use letters, digits, '-', '_' and '.', 64 at most, and neither '-' nor '.' first"
    if not _NAME.fullmatch(name) or name.endswith(".toml"):
        hint = "leave .toml out" if name.endswith(".toml") and _NAME.fullmatch(name) else hint
        raise LauncherError(f"{name!r:.80} cannot be the name of a launcher", hint=hint)
    return name


def own_path(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The file of a user's own launcher, which need not be there.

    :raises LauncherError: see :func:`checked_name`
    """
    return user_dir(environ) / f"{checked_name(name)}.toml"


def save(path: Path, content: str, *, former: bytes | None) -> None:
    """Put a launcher file in place, whole or not at all; it is checked before.

    :param former: what was there when somebody looked; ``None``: nothing
    :raises LauncherError: the content is not a launcher file; something else is there by now; it cannot be written
    """
    parse_launcher(content, name=path.stem, path=path)
    try:
        target = path.resolve()  # a link stays one
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if former is not None else 0o666
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())
            if former is None:
                os.link(temporary, target)  # fails where there is one by now
            elif target.read_bytes() != former:
                raise FileExistsError
            else:
                temporary.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    except FileExistsError:
        raise LauncherError("the file was changed meanwhile, and stays as it is", where=str(path)) from None
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "a character that UTF-8 does not have"
        raise LauncherError(f"cannot be written: {why}", where=str(path)) from None


def read_own(path: Path) -> bytes | None:
    """What is in a user's own launcher file, ``None`` if there is none.

    :raises LauncherError: it cannot be read
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LauncherError(f"cannot be read: {error.strerror}", where=str(path)) from None
