"""What programs outside of this repository rely on."""

from __future__ import annotations

#: the contract: fields that programs may rely on
FIELDS = {
    "id",
    "task",
    "identifier",
    "state",
    "reason",
    "launcher",
    "native_id",
    "experiments",
    "tags",
    "submitted",
    "started",
    "ended",
    "exit_code",
    "progress",
    "path",
    "resources",
}
