"""Schedulers: what each calls things, and how it is asked. Shipped to clusters, so standard library only.

A scheduler is a class with four verbs (see :mod:`.base`): ``directives`` is pure and used on the laptop to render
scripts; ``submit``, ``query`` and ``cancel`` run on the login node. A new one is one file here, one template and one
launcher file, or an entry point in group ``experimaestro_hpc.schedulers`` of another package.
"""

from __future__ import annotations

from ..errors import LauncherError
from .base import Scheduler

BUILT_IN = ("local", "slurm", "oar")


def scheduler_class(name: str) -> type[Scheduler]:
    """The class of a scheduler, by the name that launcher files use.

    :raises LauncherError: there is none of that name
    """
    # only the one that is asked for is loaded
    if name == "local":
        from .local import Local

        return Local
    if name == "slurm":
        from .slurm import Slurm

        return Slurm
    if name == "oar":
        from .oar import Oar

        return Oar
    from importlib.metadata import entry_points

    found = [point for point in entry_points(group="experimaestro_hpc.schedulers") if point.name == name]
    if not found:
        raise LauncherError(f"no scheduler {name!r}", hint=f"there are: {', '.join(BUILT_IN)}")
    loaded: type[Scheduler] = found[0].load()
    return loaded
