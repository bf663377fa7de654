"""The driver's end of an agent in the same process. In: an operation and its arguments. Out: its answer, or error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..agent.service import Service
from ..agent.tar import Readable
from ..errors import WorkspaceError
from . import ship
from .client import answer_of


class LocalClient:
    """Operations on a workspace of this machine, in this process."""

    def __init__(self, root: Path, scheduler: str, shipment: ship.Shipment) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            ship.install(shipment, root)
        except OSError as error:
            raise WorkspaceError(f"the workspace cannot be used: {error}", where=str(root)) from error
        self.service = Service(str(root), scheduler)
        self.round_trips = 0

    def call(self, operation: str, *, body: Readable | None = None, size: int = 0, **arguments: Any) -> Any:
        self.round_trips += 1
        document, _ = self.service.handle({"op": operation, "arguments": arguments}, body)
        return answer_of(document)

    def receive(self, operation: str, take: Callable[[Any], Any], **arguments: Any) -> Any:
        self.round_trips += 1
        document, attached = self.service.handle({"op": operation, "arguments": arguments}, None)
        answer = answer_of(document)
        if attached is not None:
            with attached[0] as file:
                take(file)
        return answer

    def begin(self) -> None:
        """There is nothing to connect to."""

    def hello(self) -> dict[str, Any]:
        return self.service.hello()

    def close(self) -> None:
        """Nothing is open."""
