"""Nodes that do not see the workspace. In: a launcher, and what its agent says. Out: how such a node gets the files.

See ``templates/staged.sh.j2`` for what happens on the node, and :mod:`..agent.stage` for what answers it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ..errors import LauncherError
from ..schedulers import scheduler_class
from .launcher import Launcher
from .script import Stage

_ANSWER = (
    "import sys; sys.path.insert(0, sys.argv[1] + '/' + sys.argv[2]); "
    "from experimaestro_hpc.agent.stage import main; sys.exit(main(sys.argv[1], sys.argv[2]))"
)


def stage_of(launcher: Launcher, hello: Mapping[str, Any], lib: str, code: str) -> Stage:
    """What a script needs to know to bring a task's files to a node that does not see the workspace, and back.

    :param hello: the agent's answer to ``hello``
    :param lib: folder of the shipped package, below the workspace
    :param code: folder of the code snapshot, below the workspace
    :raises LauncherError: that cannot be done with this launcher
    """
    where = str(launcher.path)
    if not scheduler_class(launcher.scheduler).copies_script:
        raise LauncherError(
            f"nodes = 'staged' is not possible with {launcher.scheduler}: it does not copy a job's script to its node",
            where=where,
            hint="take nodes = 'shared', with a workdir that the nodes see",
        )
    if "%" in hello["root"]:
        raise LauncherError(
            f"with nodes = 'staged' the workdir must not have a % in its name: {hello['root']}", where=where
        )
    script = shlex.join(["exec", hello["executable"], "-c", _ANSWER, hello["root"], lib])
    return Stage(
        login=launcher.mirror.login or hello["host"],
        remote=f"exec sh -c {shlex.quote(script)}",
        scratch=launcher.mirror.scratch,
        code=code,
    )
