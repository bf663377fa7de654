"""Tasks in other languages: a C program that is compiled first, and a shell script.

python commands.py DIR FILE
"""

import sys
from pathlib import Path

from experimaestro_hpc import CommandTask, Meta, Param, PathGenerator, experiment, field

HERE = Path(__file__).parent  # on the cluster: the snapshot of this folder


class Compile(CommandTask):
    source: Param[str]
    program: Meta[Path] = field(default_factory=PathGenerator("program"))

    def command(self):
        return ["cc", "-O2", "-o", self.program, HERE / self.source]

    def outputs(self):
        return [self.program]


class Words(CommandTask):
    counter: Param[Compile]
    text: Param[Path]

    def command(self):
        return [self.counter.program, self.text]


class Longest(CommandTask):
    text: Param[Path]
    line: Meta[Path] = field(default_factory=PathGenerator("longest.txt"))

    def command(self):
        return [HERE / "longest.sh", self.text, self.line]

    def outputs(self):
        return [self.line]


if __name__ == "__main__":
    text = Path(sys.argv[2]).absolute()
    with experiment(sys.argv[1], "commands"):
        words = Words(counter=Compile(source="words.c").submit(), text=text).submit()
        Longest(text=text).submit()
    print("words:", words.__xpm_stdout__.read_text().strip())
