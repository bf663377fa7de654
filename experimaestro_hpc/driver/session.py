"""A launcher in use. In: a launcher file's content and the experiment's workspace. Out: an agent to talk to."""

from __future__ import annotations

import os
from pathlib import Path

from ..agent.layout import Layout
from ..connectors.ssh import SshConnector
from .client import Client, RemoteClient
from .launcher import Launcher
from .ship import Shipment, build


class Session:
    """One launcher, its agent, and the workspace on this machine.

    :ivar layout: the workspace on this machine
    :ivar is_here: the jobs run in that very workspace, so that nothing needs to be mirrored
    """

    def __init__(self, launcher: Launcher, root: Path) -> None:
        self.launcher = launcher
        self.layout = Layout(root)
        self.shipment: Shipment = build()
        self.client: Client
        connector = launcher.connector
        if connector.type == "ssh":
            self.is_here = False
            self.client = RemoteClient(
                SshConnector(connector.host, connector.transport),
                launcher.workdir,
                launcher.scheduler,
                self.shipment,
                launcher.environment.python,
            )
        else:
            from .client_here import LocalClient  # with it, all of the agent is loaded

            there = Path(os.path.expandvars(launcher.workdir)).expanduser() if launcher.workdir else root
            self.is_here = there.resolve() == root.resolve()
            self.client = LocalClient(there.resolve(), launcher.scheduler, self.shipment)

    @property
    def place(self) -> str:
        """For people: where the jobs run."""
        host = self.launcher.connector.host
        return f"{self.launcher.name} ({self.launcher.scheduler} on {host})" if host else self.launcher.name

    def close(self) -> None:
        """Let go of the agent; the jobs go on."""
        self.client.close()
