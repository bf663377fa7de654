"""200 trivial tasks on this machine, beside ``xargs -P``. ``python benchmarks/local_tasks.py``

With N cores: N tasks at once, and ``xargs -P N python -c pass``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Figures, alternate, show

COUNT = 200
SCRIPT = """
import sys
from experimaestro_hpc import Param, Task, experiment

class Trivial(Task):
    number: Param[int]

    def execute(self):
        pass

if __name__ == "__main__":
    with experiment(sys.argv[1], "trivial"):
        for number in range({count}):
            Trivial(number=number).submit()
"""


def all_cpu() -> float:
    """CPU seconds that this machine has used: the local runner is no child of the experiment's process."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    busy = sum(fields) - fields[3] - fields[4]
    return busy / os.sysconf("SC_CLK_TCK")


def timed(argv: list[str], text: str = "") -> Figures:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    cpu, began = all_cpu(), time.perf_counter()
    subprocess.run(argv, input=text.encode(), check=True, stdout=subprocess.DEVNULL, env=env)
    return Figures(all_cpu() - cpu, time.perf_counter() - began)


def main() -> None:
    python, cores = sys.executable, len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "trivial.py")
        script.write_text(SCRIPT.format(count=COUNT))
        runs = iter(range(1000))
        lines = "".join("pass\n" for _ in range(COUNT))
        first = timed([python, str(script), f"{folder}/again"])
        print(f"first run, with its imports compiled: {first.wall:.2f} s")
        figures = alternate(
            {
                f"xargs -P{cores} -n1 python -c": lambda: timed(["xargs", f"-P{cores}", "-n1", python, "-c"], lines),
                f"{COUNT} tasks": lambda: timed([python, str(script), f"{folder}/{next(runs)}"]),
                f"{COUNT} tasks, all done before": lambda: timed([python, str(script), f"{folder}/again"]),
            },
            5,
        )
        show(f"{COUNT} trivial local tasks on {cores} cores", figures, f"xargs -P{cores} -n1 python -c")


if __name__ == "__main__":
    main()
