"""A folder that an agent is shipped to for one look at a cluster. In: a workspace. Out: nothing is left of it."""

from __future__ import annotations

import os
import shutil

#: how such a folder's name begins; where it goes on is random
TEMPORARY = "xpm-hpc-look-"


def end(root: str) -> None:
    """Remove such a folder; any other is left alone."""
    if os.path.basename(root).startswith(TEMPORARY) and not os.path.islink(root):
        shutil.rmtree(root, ignore_errors=True)
