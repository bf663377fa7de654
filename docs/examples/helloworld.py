"""Two tasks say a word each, a third one joins what they said.

python helloworld.py DIR                            on this machine
XPM_HPC_LAUNCHER=mycluster python helloworld.py DIR on a cluster
"""

import logging
import time
from pathlib import Path
from typing import List

import click

from experimaestro_hpc import Param, Task, experiment, progress

logging.basicConfig(level=logging.DEBUG)


def slowdown(sleeptime: float, steps: int):
    """Take some time, so that there is something to watch."""
    logging.info("%d steps of %g s", steps, sleeptime)
    for step in range(steps):
        time.sleep(sleeptime)
        progress((step + 1) / steps)


class Say(Task):
    word: Param[str]
    sleeptime: Param[float]

    def execute(self):
        slowdown(self.sleeptime, len(self.word))
        print(self.word.upper())


class Concat(Task):
    strings: Param[List[Say]]
    sleeptime: Param[float]

    def execute(self):
        slowdown(self.sleeptime, len(self.strings))
        print(" ".join(string.__xpm_stdout__.read_text().strip() for string in self.strings))


@click.option("--port", type=int, default=12345, help="Port of the web page, 0 for none")
@click.option("--sleeptime", type=float, default=2, help="Seconds that each step takes")
@click.argument("workdir", type=Path)
@click.command()
def cli(port, workdir, sleeptime):
    """Say hello to the world, from the workspace WORKDIR."""
    with experiment(workdir, "helloworld", port=port):
        hello = Say(word="hello", sleeptime=sleeptime).submit()
        world = Say(word="world", sleeptime=sleeptime).submit()
        Concat(strings=[hello, world], sleeptime=sleeptime).tag("y", 1).submit()


if __name__ == "__main__":
    cli()
