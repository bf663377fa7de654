"""Where the files that ship are. In: their kind. Out: the directory, in a wheel and in a checkout alike."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..errors import XpmError

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_data(kind: Literal["launchers", "templates"]) -> Path:
    """The directory of the launcher files, or of the job script templates, that come with xpm-hpc.

    A wheel has them inside the package, in ``_data``; a checkout has them at its top, beside the package.

    :raises XpmError: if there is none: the installation is broken

    >>> (shipped_data("launchers") / "slurm.toml").is_file()
    True
    """
    candidates = (_PACKAGE / "_data" / kind, _PACKAGE.parent / kind)
    for directory in candidates:
        if directory.is_dir():
            return directory
    raise XpmError(
        f"the {kind} that ship with xpm-hpc are missing",
        where=str(_PACKAGE),
        hint="looked in " + " and ".join(map(str, candidates)) + "; install xpm-hpc again",
    )
