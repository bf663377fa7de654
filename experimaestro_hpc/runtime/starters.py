"""How the processes of a task are started on its nodes. In: what is asked, and the job's environment. Out: commands.

Pure, but for the files with the job's nodes, which :func:`find_hosts` reads. Loaded for tasks of several processes.
"""

from __future__ import annotations

import os
import re
import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

#: variables that tell of the machine or the session that they are on, or that the other node sets itself
_OF_THE_NODE = re.compile(r"PWD|OLDPWD|SHLVL|_|HOSTNAME|SSH_.*|XDG_.*|DISPLAY|XAUTHORITY|BASH_ENV|OARDO.*|SUDO_.*")
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
#: what starts one script on each node, in place of each process
REMOTE = ("ssh", "oarsh")


def commands(
    start: str,
    hosts: Sequence[str],
    asked: Mapping[str, Any],
    environ: Mapping[str, str],
    script: str,
    process: Sequence[str],
) -> list[list[str]]:
    """The commands that start all processes of a task, each with its words.

    :param hosts: the nodes, this one first, for those of :data:`REMOTE`
    :param asked: ``nodes``, ``per_node``, and ``options`` of the launcher file
    :param script: that of :func:`node_script`
    :param process: a process's words; some add its node and its rank there

    >>> commands("local", [], {"nodes": 1, "per_node": 2}, {}, "", ["run"])
    [['run', '0', '0'], ['run', '0', '1']]
    """
    nodes, per_node, options = asked["nodes"], asked["per_node"], asked.get("options") or ()
    if start == "local":
        return [[*process, "0", str(local)] for local in range(per_node)]
    if start in REMOTE:
        others = [remote(start, host, options, environ, script, node) for node, host in enumerate(hosts) if node]
        return [["/bin/sh", script, "0"], *others]
    words = srun if start == "srun" else mpirun
    return [[*words(nodes, per_node, options, environ), *process]]


def srun(nodes: int, per_node: int, options: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """srun's words, up to the program's. It is told what the job has: since 22.05 it no longer takes the cores of a
    task from sbatch, and what a site or a user has set for steps must not change how many there are.
    """
    words = ["srun", f"--nodes={nodes}", f"--ntasks={nodes * per_node}", f"--ntasks-per-node={per_node}"]
    if environ.get("SLURM_CPUS_PER_TASK"):
        words.append(f"--cpus-per-task={environ['SLURM_CPUS_PER_TASK']}")
    return [*words, "--export=ALL", "--input=none", "--kill-on-bad-exit=1", *expand(options, environ)]


def mpirun(nodes: int, per_node: int, options: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """mpirun's words, up to the program's. Where they go it learns from the scheduler, or from ``options``."""
    return ["mpirun", "-n", str(nodes * per_node), *expand(options, environ)]


def remote(
    start: str, host: str, options: Sequence[str], environ: Mapping[str, str], script: str, node: int
) -> list[str]:
    """The words that run ``script`` for a node, on that node.

    :param start: ``ssh`` or ``oarsh``, which takes no ``-o``
    """
    words = ["oarsh", "-T"]
    if start == "ssh":
        words = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"]
    return [*words, *expand(options, environ), host, f"exec /bin/sh {shlex.quote(script)} {node}"]


def expand(words: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Words of the launcher file with ``$NAME`` and ``${NAME}`` replaced; what is not set stays as it is.

    >>> expand(["--hostfile", "$OAR_NODEFILE"], {"OAR_NODEFILE": "/var/lib/oar/7"})
    ['--hostfile', '/var/lib/oar/7']
    """
    return [
        re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda found: environ.get(found[1] or found[2], found[0]), word)
        for word in words
    ]


def node_script(
    environ: Mapping[str, str], directory: str, command: Sequence[str], per_node: int, gpus: Sequence[str]
) -> str:
    """The text of a script that starts one node's processes, with the job's environment; ``$1`` is the node.

    ssh takes no environment along, and on a command line all users of the node could read it.

    :param command: a process's words, without its node and its rank there
    :param gpus: ``CUDA_VISIBLE_DEVICES`` of each node; "" for those that have the job's own
    """
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in sorted(environ.items())
        if _NAME.fullmatch(name) and not _OF_THE_NODE.fullmatch(name)
    ]
    cases = [f"{node}) export CUDA_VISIBLE_DEVICES={shlex.quote(value)} ;;" for node, value in enumerate(gpus) if value]
    if cases:
        lines += ["case $1 in", *cases, "esac"]
    lines.append(f"cd {shlex.quote(directory)} || exit 1")
    started = " ".join(shlex.quote(word) for word in command)
    lines += [f'{started} "$1" {local} </dev/null &' for local in range(per_node)]
    return "\n".join([*lines, "wait", ""])


def gpus_of(properties: str, host: str) -> str:
    """The GPUs of one node in what OAR writes of a job's resources, as for ``CUDA_VISIBLE_DEVICES``; "" for none.

    >>> gpus_of(" host = 'o1' , gpudevice = '1' ,\\n host = 'o2' , gpudevice = '0' ,", "o1")
    '1'
    """
    mine = re.compile(rf" = '{re.escape(host.split('.')[0])}['.]")
    found = {
        int(device)
        for line in properties.splitlines()
        if mine.search(line)
        for device in re.findall(r"\bgpudevice = '(\d+)'", line)
    }
    return ",".join(map(str, sorted(found)))


def find_hosts(environ: Mapping[str, str], ask: Callable[[list[str]], str]) -> list[str]:
    """The job's nodes, this one first, as its scheduler calls them.

    :param ask: runs a command and returns what it prints, "" if it fails
    """
    hosts: list[str] = []
    if environ.get("OAR_NODEFILE"):
        try:
            with open(environ["OAR_NODEFILE"], encoding="utf-8") as file:
                hosts = file.read().split()
        except OSError:
            pass  # said by whoever needs them
    elif environ.get("SLURM_JOB_NODELIST"):
        hosts = ask(["scontrol", "show", "hostnames", environ["SLURM_JOB_NODELIST"]]).split()
    here = os.uname().nodename.split(".")[0]
    return sorted(dict.fromkeys(hosts), key=lambda host: host.split(".")[0] != here)
