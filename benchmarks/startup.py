"""What starting costs: the import, the command, and the Python of a trivial job. ``python benchmarks/startup.py``"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from measure import Figures, alternate, once, show

TASK = """
from experimaestro_hpc import Param, Task, experiment

class Trivial(Task):
    number: Param[int]

    def execute(self):
        pass

if __name__ == "__main__":
    with experiment("{workdir}", "trivial"):
        Trivial(number=1).submit()
"""
TIMES = 25


def main() -> None:
    python = sys.executable
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = str(Path(python).parent / "xpm-hpc")

    def run(*argv: str) -> Figures:
        return once(argv, env)

    started = alternate(
        {
            "python -c 'import click'": lambda: run(python, "-c", "import click"),
            "python -c 'import experimaestro_hpc'": lambda: run(python, "-c", "import experimaestro_hpc"),
            "xpm-hpc --help": lambda: run(command, "--help"),
        },
        TIMES,
    )
    show("start-up", started, "python -c 'import click'")

    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "trivial.py")
        script.write_text(TASK.format(workdir=f"{folder}/work"))
        once([python, str(script)], env)
        (job,) = Path(folder, "work", "jobs", "trivial.trivial").iterdir()
        (start,) = Path(folder, "work", ".xpm", "lib").glob("*/run_task.py")
        (code,) = Path(folder, "work", ".xpm", "code").iterdir()
        in_job = {**env, "PYTHONPATH": str(code)}

        def task() -> Figures:
            (job / "trivial.done").unlink()
            return once([python, str(start), str(job)], in_job)

        figures = alternate(
            {"python -c pass": lambda: run(python, "-c", "pass"), "a trivial job's Python": task}, 2 * TIMES
        )
        show("a job", figures, "python -c pass")


if __name__ == "__main__":
    main()
