"""Tell somebody that an experiment has ended. In: a command or an address, what came of it. Out: the command run, or a
POST of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from typing import Any

#: seconds that a command or a server may take
PATIENCE = 30.0


def notify(target: str, news: dict[str, Any]) -> str:
    """Tell ``target`` the news; returns what went wrong, or "".

    :param target: an address that begins with http:// or https://, which gets a POST of JSON; or a shell command of the
        user's, which gets JSON on its input and ``XPM_HPC_EXPERIMENT``, ``XPM_HPC_STATE`` and ``XPM_HPC_MESSAGE``
    :param news: ``experiment``, ``state`` (``done`` or ``failed``), ``message``, ``jobs`` (how many by state)
    """
    body = json.dumps(news).encode()
    try:
        if target.startswith(("http://", "https://")):
            request = urllib.request.Request(target, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=PATIENCE):
                return ""
        environ = {f"XPM_HPC_{name.upper()}": str(news[name]) for name in ("experiment", "state", "message")}
        ended = subprocess.run(
            ["/bin/sh", "-c", target],
            input=body,
            env={**os.environ, **environ},
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired, urllib.error.URLError) as error:
        return f"{target}: {error}"
    return f"{target}: exit status {ended.returncode}" if ended.returncode else ""
