"""The hosts of one instance of the test cluster: network, mount and UTS namespaces on this machine.

The network namespaces have names, NAME-HOST; the others live as long as a process in them, the host's holder,
which sleeps, and whose id is in `run/HOST.pid` once the host is complete.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import rig_oar
from rig_config import ADDRESSES, HOSTS, NODES, OAR_COMMANDS, SILENT_ADDRESS, SLURM_COMMANDS
from rig_files import home
from rig_machine import run


def network(name: str, host: str) -> Path:
    """The file that stands for a host's network namespace; "hub" is the one that has the bridge."""
    return Path("/run/netns") / f"{name}-{host}"


def networks(name: str) -> list[Path]:
    """The network namespaces of an instance that exist."""
    return [path for host in ("hub", *HOSTS) if (path := network(name, host)).exists()]


def make_networks(name: str) -> None:
    """The network namespaces, the bridge, and a link to it from every host.

    Interfaces are made inside the namespaces, so their names need not differ between instances.
    """
    namespaces = [f"netns add {network(name, host).name}" for host in ("hub", *HOSTS)]
    run(["ip", "-batch", "-"], input="\n".join(namespaces))
    links = ["link add bridge type bridge", "link set bridge up"]
    for host in HOSTS:
        links.append(f"link add to-{host} type veth peer name eth0 netns {network(name, host).name}")
        links.append(f"link set to-{host} master bridge up")
    _in_network(name, "hub", links)
    for host, address in ADDRESSES.items():
        _in_network(name, host, [f"addr add {address}/24 dev eth0", "link set lo up", "link set eth0 up"])
    # The laptop believes that the silent address exists: nothing tells it that it does not.
    silent = f"neigh replace {SILENT_ADDRESS} lladdr 02:00:00:00:00:63 dev eth0 nud permanent"
    _in_network(name, "laptop", [silent])


def holder(root: Path, host: str) -> list[str]:
    """The command that makes a host in its network namespace, and then sleeps to keep it.

    The files of the network namespaces are unmounted in it, or it would keep other instances' alive.
    """
    binds = {
        "/scratch": root / "scratch" / host,
        "/etc/hosts": root / "etc/hosts",
        "/etc/slurm": root / ("etc/slurm" if host in ("login", *NODES) else "etc/empty"),
        "/home": home(root, host, "alice").parent,
        **rig_oar.mounts(root, host),
    }
    lines = ["set -e", f"hostname {host}", "umount --recursive --lazy /run/netns"]
    if host == "gate":
        lines += _hide_commands(root / "hidden", "/usr/bin", (*SLURM_COMMANDS, *OAR_COMMANDS))
    lines += [f"mount --bind {shlex.quote(str(source))} {target}" for target, source in binds.items()]
    lines += [f"echo $$ >{shlex.quote(f'{root}/run/{host}.pid')}", "exec sleep infinity"]
    unshare = ["unshare", "--mount", "--uts", "--propagation=private", "sh", "-c", "\n".join(lines)]
    return ["nsenter", f"--net={network(root.name, host)}", "--", *unshare]


def _in_network(name: str, host: str, commands: Sequence[str]) -> None:
    run(["ip", "-netns", network(name, host).name, "-batch", "-"], input="\n".join(commands))


def _hide_commands(directory: Path, where: str, commands: Sequence[str]) -> list[str]:
    """Shell lines that lay over the directory `where` a file system in which the commands do not exist."""
    base = shlex.quote(str(directory))
    overlay = f"lowerdir={where},upperdir={directory}/upper,workdir={directory}/work"
    return [
        f"mount -t tmpfs tmpfs {base}",
        f"mkdir {base}/upper {base}/work",
        *(f"mknod {base}/upper/{command} c 0 0" for command in commands),  # an overlay's "removed"
        f"mount -t overlay overlay -o {shlex.quote(overlay)} {where}",
    ]
