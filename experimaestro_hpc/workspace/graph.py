"""Which job needs which, drawn. In: views of jobs. Out: text for people, or for Graphviz. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .jobs import View

_COLOURS = {"done": "palegreen", "failed": "salmon", "running": "lightblue"}


def as_text(views: Sequence[View]) -> str:
    """A line for each job, below a job that it needs; one that needs several is drawn below the first, and named again
    below the others with an arrow.

    >>> print(as_text([{"id": "t/aaaaaaaaaa", "task": "t", "state": "done", "parents": [], "tags": {}}]), end="")
    t/aaaaaaaa done
    """
    known = {one["id"]: one for one in views}
    children: dict[str, list[str]] = {job: [] for job in known}
    for one in views:
        for parent in one["parents"]:
            if parent in children:
                children[parent].append(one["id"])
    lines: list[str] = []
    drawn: set[str] = set()
    roots = [one["id"] for one in views if not any(parent in known for parent in one["parents"])]
    stack = [(job, 0) for job in reversed(roots)]
    while stack:
        job, depth = stack.pop()
        again = job in drawn
        lines.append("  " * depth + _label(known[job]) + (" ↑" if again else ""))
        if not again:
            drawn.add(job)
            stack.extend((child, depth + 1) for child in reversed(children[job]))
    return "".join(f"{line}\n" for line in lines)


def _label(one: View) -> str:
    tags = " ".join(f"{key}={value}" for key, value in one["tags"].items())
    name = f"{one['task']}/{one['id'].partition('/')[2][:8]}"
    return " ".join(filter(None, (name, one["state"], tags)))


def as_dot(views: Sequence[View]) -> str:
    """A graph for Graphviz; the arrows go from what is needed to what needs it."""
    lines = ["digraph experiment {", "  node [shape=box, style=filled, fillcolor=white];"]
    known = {one["id"] for one in views}
    for one in views:
        colour = _COLOURS.get(one["state"], "white")
        lines.append(f"  {_quoted(one['id'])} [label={_quoted(_label(one))}, fillcolor={colour}];")
    for one in views:
        lines += [f"  {_quoted(parent)} -> {_quoted(one['id'])};" for parent in one["parents"] if parent in known]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
