"""What Slurm is asked. In: requests, submissions. Out: ``#SBATCH`` lines, sbatch's options. Pure.

Options in a launcher's ``[defaults]``, and in the ``options`` of a partition, are sbatch's, by their long names. What a
task asks for takes their place; ``false`` leaves an option out, whoever asks for it. One more is ours:

* ``gpu_flag`` (default ``--gres=gpu:{type}:{count}``): how GPUs are asked for here. ``{count}`` stands for their number
  on each node, ``{total}`` for that on all, ``{type}`` for the partition's name for them or, if it says none, for the
  model that the task names; without either, ``{type}:`` is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import LauncherError
from ..resources import Resources, format_duration
from .base import Request, listed_name

#: how GPUs are asked for, where the launcher does not say
GPU_FLAG = "--gres=gpu:{type}:{count}"
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]-]+")


def directive(option: str, value: object) -> str:
    """One ``#SBATCH`` line; ``True`` gives a flag.

    :raises LauncherError: a value that does not fit on one line
    """
    if value is True:
        return f"#SBATCH --{option}"
    text = ",".join(str(one) for one in value) if isinstance(value, (list, tuple)) else str(value)
    if any(ord(character) < 32 for character in text):
        raise LauncherError(f"option {option!r} has a control character in its value: {text!r}")
    if not _PLAIN.fullmatch(text):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"#SBATCH --{option}={text}"


def gpu_request(request: Request, flag: object = GPU_FLAG) -> tuple[str, str] | None:
    """sbatch's option for the GPUs asked for, and its value.

    :param flag: how GPUs are asked for here
    :raises LauncherError: that is no option with a value that says how many

    >>> gpu_request(Request("job", Resources(gpus=2, nodes=3), gpu_type="a100"), "--gpus={type}:{total}")
    ('gpus', 'a100:6')
    """
    count = request.resources.gpus
    if not count:
        return None
    found = re.fullmatch(r"--(gres|gpus|gpus-per-node)=([^{}]*(?:\{(?:type|count|total)\}[^{}]*)*)", str(flag))
    if not found or ("{count}" not in found[2] and "{total}" not in found[2]):
        hint = f"write it as one of these: {GPU_FLAG}, --gpus-per-node={{count}}, --gpus={{total}}"
        raise LauncherError(f"gpu_flag cannot be {flag!r:.80}", hint=hint)
    model = request.gpu_type or request.resources.gpu_model or ""
    text = found[2] if model else found[2].replace("{type}:", "").replace("{type}", "")
    return found[1], text.format(type=model, count=count, total=count * request.resources.node_count)


def options_of(request: Request) -> dict[str, object]:
    """All of sbatch's options for a request, the launcher's defaults first and the task's own wishes over them.

    :raises LauncherError: the ``gpu_flag`` is not understood
    """
    resources, given = request.resources, request.merged()
    flag = given.pop("gpu_flag", GPU_FLAG)
    options: dict[str, object] = {"job-name": listed_name(request.name)[:60], **given}
    if resources.cores:
        options["cpus-per-task"] = resources.cores
    if resources.memory:
        for other in ("mem-per-cpu", "mem-per-gpu"):  # sbatch refuses them together
            options.pop(other, None)
    options.update(amounts(resources))
    if resources.nodes and resources.nodes > 1:
        options["nodes"] = resources.nodes
    if resources.tasks_per_node:
        options.setdefault("nodes", 1)  # or they might be spread over several
        options["ntasks-per-node"] = resources.tasks_per_node
    gpus = gpu_request(request, flag)
    if gpus:
        for other in ("gpus", "gpus-per-node", "gpus-per-task", "gres"):
            options.pop(other, None)
        options[gpus[0]] = gpus[1]
    if request.warning and "signal" not in options:
        options["signal"] = f"B:USR2@{request.warning}"
    log = request.log.replace("%", "%%")
    if request.array and not log.startswith("/"):
        log = "%a.log"
    options.update(output=log, error=log, **{"open-mode": "append"})
    return {name: value for name, value in options.items() if given.get(name) is not False and value is not False}


def amounts(resources: Resources) -> dict[str, str]:
    """sbatch's options for the amounts that a later attempt may ask for anew."""
    options = {}
    if resources.duration:
        options["time"] = format_duration(resources.duration)
    if resources.memory:
        options["mem"] = f"{-(-resources.memory // 1024**2)}M"
    return options


def exclude(avoid: Sequence[str], script: str) -> str:
    """The value of ``--exclude`` for nodes to leave out; "" if there is nothing to say.

    What is said on the command line takes the place of what the script says, so that is said again. Where the script
    names a file of nodes, nothing can be added to it.

    :param avoid: nodes by the name that they have themselves, which may be longer than Slurm's
    :param script: the text of the submission's script

    >>> exclude(["node1.cluster.org"], "#SBATCH --exclude=node[7-9]")
    'node[7-9],node1'
    """
    found = re.findall(r'(?m)^#SBATCH[ \t](?:.*[ \t])?(?:--exclude[= \t]|-x)[ \t]*("[^"\n]*"|\S+)', script)
    said = [found[-1].strip('"')] if found else []
    if "/" in "".join(said):
        return ""
    return ",".join([*said, *dict.fromkeys(one.partition(".")[0] for one in avoid)])


def ranges(indexes: Sequence[int]) -> str:
    """``[0, 1, 2, 5]`` as Slurm writes it: ``0-2,5``."""
    spans: list[list[int]] = []
    for index in sorted(indexes):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
