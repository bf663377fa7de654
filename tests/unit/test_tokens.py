"""Tokens: at most so many tasks at once, held by real processes."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from experimaestro_hpc import CounterToken, Param, Task
from experimaestro_hpc.errors import ParameterError

SCRIPT = """
import sys, time
from pathlib import Path
from experimaestro_hpc import CounterToken, Param, Task, experiment

class Use(Task):
    number: Param[int]
    def execute(self):
        here = Path(sys.argv[1]) / "inside"
        mine = here / str(self.number)
        mine.touch()
        time.sleep(0.1)
        print(len(list(here.iterdir())))
        mine.unlink()

if __name__ == "__main__":
    work = Path(sys.argv[1])
    (work / "inside").mkdir(parents=True)
    token = CounterToken("seat", 1)
    with experiment(work, "tokens"):
        for number in range(4):
            token(1, Use(number=number)).submit()
"""


class Work(Task):
    number: Param[int]


def test_one_at_a_time(tmp_path: Path) -> None:
    script = tmp_path / "seats.py"
    script.write_text(SCRIPT)
    launcher = tmp_path / "wide.toml"
    launcher.write_text('scheduler = "local"\nslots = 4\n')
    work = tmp_path / "work"
    command = [
        sys.executable,
        "-c",
        "from experimaestro_hpc.cli import main; main()",
        "run",
        "--launcher",
        str(launcher),
    ]
    subprocess.run([*command, str(script), "--", str(work)], check=True, timeout=120)
    seen = [path.read_text() for path in work.glob("jobs/seats.use/*/use.out")]
    assert seen == ["1\n"] * 4


def test_a_task_that_waits_says_so_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "seat.0").touch()
    code = (
        "import sys; from experimaestro_hpc.runtime.tokens import hold\n"
        "hold(sys.argv[1], {'seat': [1, 1]}, lambda text: print(text, flush=True)); print('held', flush=True)"
    )
    with (tmp_path / "seat.0").open("a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waits for a token 'seat'\n"
    assert process.stdout.readline() == "held\n"
    assert process.wait(60) == 0


def test_all_or_none(tmp_path: Path) -> None:
    """Two tasks that need two of three tokens each: the second holds none while it waits."""
    from experimaestro_hpc.runtime.tokens import _take

    assert len(_take(str(tmp_path), "seat", 2, 3)) == 2
    assert _take(str(tmp_path), "seat", 2, 3) == []
    assert len(_take(str(tmp_path), "seat", 1, 3)) == 1


@pytest.mark.parametrize(
    ("name", "count"), [("", 1), ("a/b", 1), ("..", 1), ("a\n", 1), ("a", 0), ("a", True), ("a", 1.5)]
)
def test_bad_tokens(name: str, count: int) -> None:
    with pytest.raises(ParameterError):
        CounterToken(name, count)


@pytest.mark.parametrize("count", [0, 3, True, "1"])
def test_bad_counts(count: int) -> None:
    with pytest.raises(ParameterError, match="there are 2"):
        CounterToken("seat", 2)(count, Work(number=1))


def test_tokens_do_not_count_in_the_identifier() -> None:
    from experimaestro_hpc import identifier

    task = CounterToken("seat", 2)(1, Work(number=1))
    assert identifier(task) == identifier(Work(number=1))
    assert json.loads(json.dumps(task.__dict__["__xpm__"].tokens)) == {"seat": [1, 2]}
