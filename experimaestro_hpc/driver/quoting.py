"""Words for a shell on the cluster. In: what a launcher file says. Out: shell text that is one word. Pure."""

from __future__ import annotations

import re
import shlex


def path_there(text: str) -> str:
    """A path or a command for a shell on the cluster, where a leading ``~`` or ``$NAME`` is expanded.

    >>> path_there("~/my venv/bin/python")
    '"$HOME"/\'my venv/bin/python\''
    """
    found = re.fullmatch(r"(~|\$[A-Za-z_]\w*|\$\{[A-Za-z_]\w*\})(?:/(.*))?", text, re.DOTALL)
    if not found:
        return shlex.quote(text)
    start = "$HOME" if found.group(1) == "~" else found.group(1)
    return f'"{start}"/{shlex.quote(found.group(2))}' if found.group(2) else f'"{start}"'
