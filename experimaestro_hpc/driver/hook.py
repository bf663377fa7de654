"""How a script ends that raised one of our errors. In: the error. Out: a message without traceback, an exit status."""

from __future__ import annotations

import os
import sys
from types import TracebackType

from ..errors import XpmError
from ..workspace.words import with_short_ids


def show(error: XpmError) -> None:
    """Print an error for people."""
    sys.stdout.flush()
    print(f"error: {with_short_ids(str(error))}", file=sys.stderr, flush=True)


def is_debugging() -> bool:
    """Whether tracebacks are wanted."""
    return bool(os.environ.get("XPM_HPC_DEBUG"))


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, XpmError) or is_debugging():
        sys.__excepthook__(kind, error, trace)
    else:
        show(error)
    if isinstance(error, XpmError):
        raise SystemExit(error.exit_status)


def install() -> None:
    """Make a plain ``python script.py`` end like ``xpm-hpc run`` does; a hook of somebody else's is left alone."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _excepthook
