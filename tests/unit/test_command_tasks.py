"""Tasks in other languages: words reach the program as they are, and what it should make is looked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experimaestro_hpc import CommandTask
from experimaestro_hpc.config.commands import arguments
from experimaestro_hpc.errors import XpmError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def task(words: object, outputs: object = ()) -> CommandTask:
    class Run(CommandTask):
        def command(self):
            return words

        def outputs(self):
            return outputs

        def environment(self):
            return {"GREETING": "it's $(x)"}

    return Run()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["a"], ["a"]),
        (("a", 1, 0.5, Path("b c")), ["a", "1", "0.5", "b c"]),
        ((word for word in ["sort", "--", "$(x) 'q' \"\n"]), ["sort", "--", "$(x) 'q' \"\n"]),
    ],
)
def test_words(words: object, found: list[str]) -> None:
    assert arguments(words) == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("sort x", "a list of words, not one text"),
        ([], "at least a program"),
        (["a", None], "None cannot be a word"),
        (["a", True], "True cannot be a word"),
        (["a", ["b"]], "cannot be a word"),
        (["a\0b"], "cannot hold a NUL"),
    ],
)
def test_no_words(words: object, complaint: str) -> None:
    with pytest.raises(XpmError, match=complaint):
        arguments(words)  # type: ignore[arg-type]


def test_hostile_words_and_variables_reach_the_program(tmp_path: Path) -> None:
    result = tmp_path / "a 'result' $(x)"
    words = ["sh", "-c", 'printf "%s|%s" "$1" "$GREETING" > "$2"', "sh", "`w` $(w)\n", result]
    task(words, [result]).execute()
    assert result.read_text() == "`w` $(w)\n|it's $(x)"


@pytest.mark.parametrize(("program", "status"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_exit_status(program: str, status: int) -> None:
    with pytest.raises(SystemExit) as caught:
        task(["sh", "-c", program]).execute()
    assert caught.value.code == status


def test_an_output_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(XpmError, match=f"did not make: {tmp_path}/b"):
        task(["touch", tmp_path / "a"], [tmp_path / "a", tmp_path / "b"]).execute()


def test_a_program_that_is_missing() -> None:
    with pytest.raises(XpmError, match="/no/such: the program cannot be started: No such file"):
        task(["/no/such"]).execute()


def test_the_examples_in_c_and_shell(tmp_path: Path) -> None:
    text = tmp_path / "a text.txt"
    text.write_text("one two\nthree four five six\n")
    work = tmp_path / "work"
    argv = [sys.executable, "commands.py", str(work), str(text)]
    ended = subprocess.run(argv, cwd=EXAMPLES, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("words: 6\n")
    (line,) = work.glob("jobs/commands.longest/*/longest.txt")
    assert line.read_text() == "three four five six\n"
