"""Identifiers, beside experimaestro's. ``python benchmarks/identifiers.py [--peer PYTHON]``

``--peer`` is a Python with ``experimaestro`` 2.7 installed, in an environment of its own; both run the same programs in
turns. Without it only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = {
    "10,000 flat configs of 5 parameters": (
        "class Flat(Config):\n    a: Param[int]\n    b: Param[int]\n    c: Param[str]\n    d: Param[float]\n"
        "    e: Param[bool]\n",
        "for n in range(10000):\n    digest(Flat.C(a=n, b=2, c='word', d=0.5, e=True))",
    ),
    "a list of 1,000 sub-configs": (
        "class Part(Config):\n    a: Param[int]\nclass Whole(Config):\n    parts: Param[List[Part]]\n",
        "digest(Whole.C(parts=[Part.C(a=n) for n in range(1000)]))",
    ),
    "a diamond of depth 16": (
        "class Node(Config):\n    n: Param[int]\n    left: Param[Optional['Node']] = None\n"
        "    right: Param[Optional['Node']] = None\n",
        "node = Node.C(n=0)\nfor n in range(1, 16):\n    node = Node.C(n=n, left=node, right=node)\ndigest(node)",
    ),
}
OURS_ONLY = {
    "a diamond of depth 1,000": (
        PROGRAMS["a diamond of depth 16"][0],
        PROGRAMS["a diamond of depth 16"][1].replace("16", "1000"),
    ),
    "a chain of 10,000 tasks": (
        "class Link(Task):\n    n: Param[int]\n    before: Param[Optional['Link']] = None\n",
        "link = None\nfor n in range(10000):\n    link = Link.C(n=n, before=link)\ndigest(link)",
    ),
}
OURS = "from experimaestro_hpc import Config, Param, Task, identifier as digest\n"
THEIRS = (
    "from experimaestro import Config, Param, Task, field\n"
    "def digest(config):\n    return config.__xpm__.identifier.all.hex()\n"
)
FRAME = """\
import json, time
from typing import List, Optional
{imports}
{classes}
def run():
{body}
began = time.perf_counter()
run()
print(json.dumps(time.perf_counter() - began))
"""


def seconds(python: str, imports: str, program: tuple[str, str]) -> float | str:
    """Wall seconds of a program in its own process, or the last line of its complaint."""
    classes, body = program
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "program.py")  # experimaestro reads the source of its classes
        script.write_text(FRAME.format(imports=imports, classes=classes, body=indented))
        ended = subprocess.run([python, str(script)], capture_output=True, text=True, check=False)
    if ended.returncode:
        return ended.stderr.strip().splitlines()[-1][:70]
    return float(json.loads(ended.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    for name, program in {**PROGRAMS, **OURS_ONLY}.items():
        ours, theirs = [], []
        for _ in range(options.times):
            ours.append(seconds(sys.executable, OURS, program))
            if options.peer and name in PROGRAMS:
                theirs.append(seconds(options.peer, THEIRS, program))
        line = f"{name:<40} {_median(ours)}"
        print(f"{line}   experimaestro {_median(theirs)}" if theirs else line, flush=True)


def _median(values: list[float | str]) -> str:
    numbers = [one for one in values if isinstance(one, float)]
    return f"{statistics.median(numbers) * 1000:9.1f} ms" if numbers else str(values[0])


if __name__ == "__main__":
    main()
