"""Why a job cannot run whose parent failed. In: the parent and its marker. Out: a sentence. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: the task of the jobs that build environments
BUILDER = "xpm.environment"


def words_of_failure(parent: str, marker: dict[str, Any] | None) -> str:
    """What to say of a failed parent; if that was to build the job's environment, with the end of the build."""
    said = (marker or {}).get("message") if parent.startswith(f"{BUILDER}/") else ""
    return f"its environment was not built: {said}" if said else f"its parent {parent} failed"
