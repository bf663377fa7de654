"""``xpm-hpc jobs --watch`` on a terminal and in a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from test_cli import XPM_HPC
from test_interrupt import Terminal
from workspaces import Made

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(tmp_path / "work")
    for number in range(30):
        made.job(number, "unscheduled" if number < 20 else "done", tags={"n": number})
    return made


@pytest.fixture
def start(made: Made, tmp_path: Path) -> Callable[..., Terminal]:
    """``xpm-hpc jobs --watch`` in a terminal of its own."""

    def start(*options: str, lines: int = 50, columns: int = 100, **environ: str) -> Terminal:
        argv = [sys.executable, "-c", *XPM_HPC[2:], "jobs", "--workdir", str(made.root), "--watch", *options]
        inherited = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
        # the size is there before the command looks
        code = f"import sys, fcntl; fcntl.ioctl(0, {termios.TIOCSWINSZ}, {pack('HHHH', lines, columns, 0, 0)!r}); "
        argv[2] = code + argv[2]
        return Terminal(argv, tmp_path, {**inherited, **environ})

    return start


def frames(said: str) -> list[str]:
    """What was shown, one after the other, between entering the screen and leaving it."""
    return said.partition(ENTER)[2].partition(LEAVE)[0].split("\x1b[H")[1:]


def shown(text: str) -> list[str]:
    """The lines of a text without what steers the terminal."""
    for code in ("^C", "\x1b[K", "\x1b[J", "\x1b[?25h", "\x1b[?25l", "\x1b[?7l", "\x1b[?7h"):
        text = text.replace(code, "")
    return text.splitlines()


def test_it_is_drawn_in_place_and_ctrl_c_leaves_a_clean_terminal(start, made):
    terminal = start(NO_COLOR="1")
    terminal.read_until("20 unscheduled")
    made.end(made.job(0, "unscheduled"), "failed", message="diverged")
    terminal.read_until("1 failed, 19 unscheduled")
    terminal.press()
    assert terminal.status() == 0
    assert "Traceback" not in terminal.said and "interrupted" not in terminal.said
    for frame in frames(terminal.said):
        text, _, after = frame.partition("\x1b[J")
        assert text.count("\x1b[K") == text.count("\n") + 1 and "\n" not in after, "nothing stays of before"
    screens = [shown(frame) for frame in frames(terminal.said)]
    assert screens[0][-1].startswith("experiment study: 10 done, 20 unscheduled")
    assert screens[-1][-1].startswith("experiment study: 10 done, 1 failed, 19 unscheduled")
    before, _, after = terminal.said.partition(LEAVE)
    assert before.startswith(ENTER) and before.endswith("\x1b[?25h"), "cursor and lines as they were"
    assert shown(after) == screens[-1], "the last one stays"


def test_it_ends_when_all_have_ended(start, made):
    terminal = start()
    terminal.read_until("20 unscheduled")
    for number in range(20):
        made.end(made.job(number, "unscheduled"), "done")
    assert terminal.status() == 0
    assert shown(terminal.said.partition(LEAVE)[2]) == ["experiment study: 30 done (all of them: --all)"]


def test_more_jobs_than_lines(start):
    terminal = start(lines=10, columns=60)
    terminal.read_until("20 unscheduled")
    terminal.press()
    assert terminal.status() == 0
    first = shown(frames(terminal.said)[0])
    assert len(first) == 10
    assert first[-2] == "… 14 lines more" and first[-1].startswith("experiment study: ")
    assert len(shown(terminal.said.partition(LEAVE)[2])) == 23, "all of them afterwards"


def test_colours(start):
    terminal = start()
    terminal.read_until("20 unscheduled")
    terminal.press()
    terminal.status()
    assert "\x1b[33munscheduled\x1b[0m" in terminal.said
    terminal = start(NO_COLOR="1")
    terminal.read_until("20 unscheduled")
    terminal.press()
    terminal.status()
    assert "\x1b[3" not in terminal.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_by_a_signal_the_terminal_is_clean(start, number):
    terminal = start()
    terminal.read_until("20 unscheduled")
    os.kill(terminal.pid, number)
    assert terminal.status() == 128 + number
    assert terminal.said.rstrip().endswith(LEAVE)


def piped(made: Made, *options: str) -> subprocess.Popen[str]:
    argv = [*XPM_HPC, "jobs", "--workdir", str(made.root), "--watch", *options]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, **streams)


def test_in_a_pipe_each_change_is_a_table(made):
    with piped(made) as process:
        assert process.stdout
        said = read_until(process, "experiment study: 10 done, 20 unscheduled (all of them: --all)\n")
        made.end(made.job(0, "unscheduled"), "failed")
        said += read_until(process, "experiment study: 10 done, 1 failed, 19 unscheduled (all of them: --all)\n")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert "\x1b" not in said
    assert [text.split()[0] for text in said.split("\n\n")] == ["job", "job"], "two tables"


def test_the_reader_of_the_pipe_goes_away(made):
    with piped(made, "--json") as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        made.end(made.job(0, "unscheduled"), "failed")
        assert process.stderr
        assert (process.stderr.read(), process.wait(30)) == ("", 0)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    said = ""
    assert process.stdout
    while not said.endswith(words):
        line = process.stdout.readline()
        assert line, f"no {words!r} in {said!r}"
        said += line
    return said
