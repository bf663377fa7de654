"""What ``xpm-hpc jobs`` and its neighbours make of a workspace on disk: filters, columns, order, words, completion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cli import XPM_HPC, Ran, call  # noqa: F401
from workspaces import Made

from experimaestro_hpc.cli.select import fits_task, same_value
from experimaestro_hpc.driver.why import why
from experimaestro_hpc.workspace.recent import remember
from experimaestro_hpc.workspace.usage import usage_by_task

USED = {"wall": 3600.0, "cpu": 7200.0, "max_rss": 2 * 1024**3}
ASKED = {"cores": 8, "memory": 16 * 1024**3, "duration": 4 * 3600}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Two experiments: the latest has jobs 3 to 6."""
    made = Made(tmp_path / "work")
    made.job(1, "done", tags={"lr": 0.1}, experiment="old", launcher="gate")
    made.job(2, "failed", tags={"lr": 0.01}, experiment="old", message="out of luck", launcher="gate")
    made.job(3, "done", tags={"lr": 0.1, "seed": 1}, used=USED, resources=ASKED, launcher="gate")
    made.job(4, "failed", task="study.evaluate", tags={"lr": 0.1}, message="diverged\nat once", launcher="far")
    made.job(5, "failed", tags={"lr": 0.2}, reason="dependency", message=f"its parent study.train/{'ab' * 32} failed")
    made.job(6, "unscheduled", tags={"lr": True})
    monkeypatch.setenv("XPM_HPC_WORKDIR", str(made.root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


Call = Callable[..., Ran]


def numbers(ran: Ran) -> list[int]:
    """The jobs that a table shows, in its order."""
    assert (ran.code, ran.err) == (0, "")
    return [int(line.split("/")[1][:4]) for line in ran.out.splitlines() if line.startswith("study.")]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], [4, 5, 6]),
        (["--all"], [1, 2, 3, 4, 5, 6]),
        (["-n", "2"], [5, 6]),
        (["--all", "-n", "2"], [5, 6]),
        (["--all", "-n", "100"], [1, 2, 3, 4, 5, 6]),
        (["--sort", "-submitted", "-n", "2"], [6, 5]),
        (["--all", "--sort", "submitted", "-n", "2"], [1, 2]),
        (["--all", "--sort", "state"], [1, 3, 5, 2, 4, 6]),
        (["--state", "failed"], [2, 4, 5]),
        (["--state", "failed", "-n", "1"], [5]),
        (["--state", "failed", "--experiment", "old"], [2]),
        (["--state", "failed", "--tag", "lr=.10"], [4]),
        (["--state", "failed", "--tag", "lr=.10", "-n", "1"], [4]),
        (["--task", "train"], [1, 2, 3, 5, 6]),
        (["--task", "tr*", "--state", "done"], [1, 3]),
        (["--task", r"(train|nothing)", "--launcher", "gate"], [1, 2, 3]),
        (["--task", "eval.*"], [4]),
        (["--tag", "lr=true"], [6]),
        (["--tag", "lr=0.1", "--tag", "seed=1"], [3]),
        (["--launcher", "far"], [4]),
        (["--since", "1d"], []),
        (
            ["--state", "failed", "--tag", "lr=0.1", "--task", "evaluate.*", "--launcher", "far"],
            [4],
        ),
    ],
)
def test_what_is_listed(made, call, options, found):  # noqa: F811
    assert numbers(call("jobs", *options)) == found
    if "--sort" not in options and options not in ([], ["-n", "2"]):
        listed = json.loads(call("jobs", *options, "--json").out)
        assert [int(one["identifier"][:4]) for one in listed] == found, "programs get the same"
        ids = call("jobs", *options, "--quiet").out.split()
        assert ids == [one["id"] for one in listed]


def test_since(made, call):  # noqa: F811
    made.job(7, created=time.time() - 5 * 3600)
    made.job(8, created=time.time() - 5 * 86400)
    for words, found in (("6h", [7]), ("6 days", [8, 7]), ("30m", [])):
        assert numbers(call("jobs", "--since", words)) == found
    assert call("jobs", "--since", "yesterday").code == 2


def test_what_matters_now(made, call):  # noqa: F811
    ran = call("jobs")
    assert [" ".join(line.split()) for line in ran.out.splitlines()] == [
        "job state where time tags note",
        "-" * 23 + " " + "-" * 19 + " ----- ------------- -------- " + "-" * 37,
    ] or ran.out.splitlines()[-1] == "experiment study: 1 done, 2 failed, 1 unscheduled (all of them: --all)"
    assert "diverged" in ran.out and "at once" not in ran.out, "one line for each"
    assert "its parent study.train/abababab failed" in ran.out, "identifiers are short for people"
    assert "failed (exit)" in ran.out and "failed (dependency)" in ran.out


def test_jobs_of_earlier_runs_matter_until_they_have_ended(made, call):  # noqa: F811
    path = made.root / "experiments" / "study" / "experiment.json"
    record = json.loads(path.read_text())
    states = {one["id"]: one["state"] for one in json.loads(call("jobs", "--experiment", "study", "--json").out)}
    (live,) = (job for job, state in states.items() if state == "unscheduled")
    (done,) = (job for job, state in states.items() if state == "done")
    path.with_suffix(".new").write_text(json.dumps({**record, "latest": [done]}))
    path.with_suffix(".new").replace(path)
    ran = call("jobs")
    assert ran.out.splitlines()[-1] == "experiment study: 1 done, 1 unscheduled (all of them: --all)"
    assert live.split("/")[1][:8] in ran.out and "diverged" not in ran.out
    assert "diverged" in call("jobs", "--experiment", "study").out, "asked for by name it is all of them"
    assert "train  1 done, 1 unscheduled" in call("experiments", "show", "study").out


def test_tags_that_are_numbers_are_sorted_as_numbers(made, call):  # noqa: F811
    for number, value in ((7, 10), (8, 9), (9, 1e-5), (10, "a"), (11, "10")):
        made.job(number, tags={"n": value}, experiment="numbers")
    assert numbers(call("jobs", "--experiment", "numbers", "--sort", "tags")) == [9, 8, 7, 11, 10]
    assert numbers(call("jobs", "--all", "--sort", "-tags"))[:5] == [10, 11, 7, 8, 9]


@pytest.mark.parametrize("text", ["", '{"jobs": {}, "na', '{"something": "else"}'])
def test_an_experiment_that_cannot_be_read(made, call, text):  # noqa: F811
    """Nobody has asked for anything that no job would fit."""
    for name in ("old", "study"):
        (made.root / "experiments" / name / "experiment.json").write_text(text)
    told = [f"warning: {made.root}/experiments/{name}/experiment.json cannot be read" for name in ("old", "study")]
    ran = call("jobs")
    assert [line.partition(";")[0] for line in ran.err.splitlines()] == told
    assert "diverged" in ran.out and ran.code == 0
    shutil.rmtree(made.root / "experiments")
    for number in (2, 4, 5, 6):
        (folder,) = made.root.glob(f"jobs/*/000{number}*")
        shutil.rmtree(folder)
    known = f"no experiment is known in {made.root}; none of its 2 jobs failed or is under way (all of them: --all)\n"
    assert call("jobs") == Ran(0, known, "")


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"state": "done", "host": "o1", "started": 10.0, "ended": 14.1}, "it ran on o1 for 4.1 s"),
        ({"state": "done"}, "it ran on a node"),
        ({"state": "running", "host": "o1", "started": 14.4}, "it has run on o1 for 5.6 s"),
        ({"state": "running"}, "it has run on a node"),
    ],
)
def test_why_of_jobs_with_which_nothing_is_wrong(state, sentence):
    assert why("study.train/ab", {"state": state, "parents": {}, "words": {}}, now=20.0) == (sentence, "")


def test_columns(made, call):  # noqa: F811
    ran = call("jobs", "--all", "-n", "2", "--columns", "id, launcher,attempt")
    assert ran.out.splitlines()[0].split() == ["id", "launcher", "attempt"]
    assert len(ran.out.splitlines()[-1].split()[0]) == len("study.train/") + 64
    for option in ("--columns", "--sort"):
        ran = call("jobs", option, "colour")
        assert (ran.code, "no column 'colour'; there are: job, state" in ran.err) == (2, True)


def test_json_is_an_array_with_a_line_for_each(made, call):  # noqa: F811
    lines = call("jobs", "--json").out.splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("[", "]", 8)
    assert all(json.loads(line.removesuffix(","))["id"] for line in lines[1:-1])


@pytest.mark.parametrize(
    ("pattern", "task", "fits"),
    [
        ("train", "study.train", True),
        ("train*", "study.training", True),
        ("train.*", "study.training", True),
        ("study.*", "study.train", True),
        ("STUDY.Train", "study.train", True),
        ("trai", "study.train", False),
        ("(train", "study.train", False),
        ("*", "study.train", True),
        ("[ab]*", "study.before", True),
        ("", "study.train", False),
    ],
)
def test_patterns_of_tasks(pattern, task, fits):
    assert fits_task(pattern, task) is fits


@pytest.mark.parametrize(
    ("tag", "text", "same"),
    [
        (0.1, "0.1", True),
        (0.1, "0.10", True),
        (1e-5, "0.00001", True),
        (1, "1.0", True),
        (True, "true", True),
        (True, "1", True),
        (False, "no", True),
        (True, "2", False),
        ("a=b", "a=b", True),
        ("1", "1.0", False),
        (0.1, "x", False),
        (None, "None", True),
        ("Kind.SMALL", "SMALL", True),
        ("Kind.SMALL", "small", True),
        ("Kind.SMALL", "kind.small", True),
        ("Kind.SMALL", "Kind", False),
        ("Kind.SMALL", "mall", False),
        ("data.csv", "csv", False),
        ("V.1", "1", False),
    ],
)
def test_values_of_tags(tag, text, same):
    assert same_value(tag, text) is same


def on_terminal(columns: int, *argv: str) -> list[str]:
    """The lines that a command shows on a terminal of so many columns."""
    master, slave = os.openpty()
    with os.fdopen(master, newline="\n") as shown:
        environ = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"}
        subprocess.run([*XPM_HPC, *argv], stdout=slave, env=environ, check=True, timeout=60)
        os.write(slave, b"end\n")
        os.close(slave)
        return [line.rstrip() for line in iter(shown.readline, "end\r\n")]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["jobs"], ["study.train/0005abab", "failed (dependency)", "lr=0.2"]),
        (["jobs", "usage"], ["study.train"]),
        (["jobs", "diff", "0001", "0003"], ["source.files"]),
        (["experiments"], ["study", "old"]),
        (["experiments", "show"], ["study.train"]),
    ],
)
def test_narrow_terminals(made, argv, words):
    for job, word in (("0001", "a"), ("0003", "b")):
        (folder,) = made.root.glob(f"jobs/study.train/{job}*")
        configs = [{"class": {"module": "m", "name": "C"}, "params": {"source.files": word * 200}}]
        (folder / "params.json").write_text(json.dumps({"configs": configs}))
    for columns in (30, 60, 80, 120):
        lines = [line for line in on_terminal(columns, *argv) if not line.startswith("experiment study")]
        assert max(map(len, lines)) <= columns, lines
        assert columns < 60 or all(word in "\n".join(lines) for word in words)


# --- Several ids and filters


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["0001", "0003"], [1, 3]),
        (["0003", "study.train/0001", "0003"], [3, 1]),
        (["--state", "failed"], [2, 4, 5]),
        (["0001", "0002", "0004", "--state", "failed"], [2, 4]),
        (["0001", "--state", "failed"], []),
        (["--experiment", "old", "--tag", "lr=0.1"], [1]),
    ],
)
def test_ids_and_filters(made, call, words, found):  # noqa: F811
    ran = call("jobs", "path", *words)
    assert [int(Path(line).name[:4]) for line in ran.out.splitlines()] == found
    shown = json.loads(call("jobs", "show", *words, "--json").out or "[]")
    assert [int(one["identifier"][:4]) for one in shown] == found


def test_show(made, call):  # noqa: F811
    ran = call("jobs", "show", "0003")
    lines = {line.split()[0]: line.split(None, 1)[1] for line in ran.out.splitlines() if " " in line}
    assert lines["resources"] == "cpu(cores=8, mem=16G) & duration=4h"
    assert lines["tags"] == "lr=0.1, seed=1"
    assert lines["used"] == "wall=1 h 00 min, cpu=2 h 00 min, max_rss=2.0 GB"
    assert lines["progress"] == "100%"


def test_values_are_shown_as_people_write_them(made, call):  # noqa: F811
    enum = {"module": "study", "name": "Kind", "file": "study.py"}
    folders = [next(made.root.glob(f"jobs/study.train/{number}*")) for number in ("0001", "0003")]
    for folder, member, path in zip(folders, ("SMALL", "LARGE"), ("/a", "/b")):
        values = {
            "kind": {"$enum": {**enum, "member": member}},
            "source": {"$path": path},
            "start": None if path == "/a" else True,
        }
        configs = [{"class": {"module": "m", "name": "C"}, "params": {**values, "weights": {"$jobpath": "w.pt"}}}]
        (folder / "params.json").write_text(json.dumps({"configs": configs}))
    shown = call("jobs", "show", "0001").out
    for line in ("kind = Kind.SMALL", "source = /a", "start = None", "weights = w.pt, in its directory"):
        assert f" {line}\n" in shown
    (one,) = json.loads(call("jobs", "show", "0001", "--json").out)
    assert json.loads(one["parameters"]["kind"]) == {"$enum": {**enum, "member": "SMALL"}}
    assert one["parameters"]["start"] == "null" and one["progress"] == 1.0
    rows = [line.split() for line in call("jobs", "diff", "0001", "0003").out.splitlines()[2:]]
    assert rows == [["kind", "Kind.SMALL", "Kind.LARGE"], ["source", "/a", "/b"], ["start", "None", "True"]]


@pytest.mark.parametrize("words", [["0003"], ["--state", "failed"]])
@pytest.mark.parametrize("command", ["clean"])
def test_what_destroys_asks(made, call, command, words):  # noqa: F811
    ran = call("jobs", command, *words)
    assert (ran.code, ran.out) == (2, "")
    assert "nobody is there to be asked" in ran.err and "--yes" in ran.err
    assert len(list(made.root.glob("jobs/*/*"))) == 6


def test_clean(made, call):  # noqa: F811
    ran = call("jobs", "clean", "0005", "0006", "--yes")
    assert (ran.code, ran.out) == (1, "removed 1 job\n")
    assert ran.err == "study.train/0006abab is unscheduled, and left alone\n"
    ran = call("jobs", "clean", "--tag", "lr=0.1", "--here", "--yes")
    assert (ran.code, ran.out, ran.err) == (0, "removed 3 jobs\n", "")
    assert numbers(call("jobs", "--all")) == [2, 6]
    assert call("jobs", "clean", "--tag", "lr=0.1", "--yes").out == "no job that has ended fits\n"


def test_the_workspace_is_told(made, call, tmp_path, monkeypatch):  # noqa: F811
    missing = call("jobs", "show", "ffff")
    assert (missing.code, missing.err.splitlines()[0]) == (2, f"error: {made.root}: no job begins with 'ffff'")
    monkeypatch.delenv("XPM_HPC_WORKDIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    remember(made.root)
    monkeypatch.chdir(tmp_path)
    for argv, told in (
        (["jobs"], False),
        (["jobs", "retry", "--state", "failed", "--task", "nothing"], True),
        (["jobs", "kill", "--state", "queued"], True),
        (["experiments", "cancel", "old", "--yes"], True),
        (["jobs", "clean", "0001", "--here", "--yes"], True),
        (["experiments", "rm", "old", "--yes"], True),
    ):
        assert call(*argv).err == (f"workspace {made.root}\n" if told else ""), argv
        assert call("jobs", "path", "0003").err == ""
    (tmp_path / "another").mkdir()
    remember(tmp_path / "another")
    remember(made.root)
    assert call("jobs").err == f"workspace {made.root}\n", "another one is near"
    assert call("jobs", "--workdir", str(made.root)).err == ""


def test_diff(made, call):  # noqa: F811
    jobs = sorted(made.root.glob("jobs/study.train/000[13]*"))
    parameters = [{"lr": 0.1, "name": "x", "model": {"$config": 1}}, {"lr": None, "model": {"$task": "m.make/77b1"}}]
    for job, values in zip(jobs, parameters, strict=True):
        classes = {"m": values, "n": {}}
        configs = [{"class": {"module": "m", "name": name}, "params": one} for name, one in classes.items()]
        (job / "params.json").write_text(json.dumps({"configs": configs}))
    assert json.loads(call("jobs", "diff", "0001", "0003", "--json").out) == [
        {"place": "lr", "left": 0.1, "right": None},
        {"place": "model", "left": "n(...)", "right": "m.make/77b1"},
        {"place": "name", "left": "x"},
    ]
    table = [line.split() for line in call("jobs", "diff", "0001", "0003").out.splitlines()]
    assert ["name", '"x"', "(not", "there)"] in table
    assert call("jobs", "diff", "0001", "0001").out == "no parameter differs\n"


def test_experiments_rm(made, call):  # noqa: F811
    assert call("experiments", "rm", "old").code == 2
    assert call("experiments", "rm", "old", "--yes").out == "experiment old is forgotten; its jobs are still there\n"
    assert call("experiments", "rm", "old", "--yes").code == 2
    assert [one["name"] for one in json.loads(call("experiments", "--json").out)] == ["study"]
    assert numbers(call("jobs", "--all")) == [1, 2, 3, 4, 5, 6]


def test_graph(made, call):  # noqa: F811
    assert call("experiments", "graph", "old").out.splitlines() == [
        "study.train/0001abab done lr=0.1",
        "study.train/0002abab failed lr=0.01",
    ]
    dot = call("experiments", "graph", "old", "--dot").out
    assert dot.startswith("digraph experiment {\n") and dot.endswith("}\n") and dot.count("label=") == 2


def test_attach_to_what_has_failed(made, call):  # noqa: F811
    ran = call("experiments", "attach", "old")
    assert (ran.code, ran.out) == (1, "experiment old: 1 done, 1 failed\n")


# --- Usage


def test_usage(made, call):  # noqa: F811
    (one,) = json.loads(call("jobs", "usage", "--json").out)
    assert (one["task"], one["jobs"], one["cores"], one["busy"]) == ("study.train", 1, 8, 2.0)
    assert one["advice"] == "cpu(cores=2, mem=2688M) & duration=1h18m"
    assert "GPUs asked" not in call("jobs", "usage").out
    assert call("jobs", "usage", "--experiment", "old").out == "no job that has ended says what it used\n"


@pytest.mark.parametrize(
    ("used", "asked", "cores", "advice"),
    [
        ({"wall": 0.002, "cpu": 0.06}, {}, 0.06, "cpu(cores=1) & duration=1m"),
        ({"wall": 60.0, "cpu": 60.0}, {"gpus": 2}, 1.0, "gpu * 2 & cpu(cores=1) & duration=2m"),
        (
            {"wall": 60.0, "cpu": 60.0, "gpu_memory": 9 * 1024**3 + 1, "gpu_busy": 0.5},
            {"gpus": 1},
            1.0,
            "gpu(mem=10G) & cpu(cores=1) & duration=2m",
        ),
        ({"wall": 100.0}, {}, 0.0, "cpu(cores=1) & duration=3m"),
        ({"wall": 60.0, "cpu": 200.0, "max_rss": 1}, {"cores": 4}, 200 / 60, "cpu(cores=4, mem=64M) & duration=2m"),
    ],
)
def test_advice(used, asked, cores, advice):
    (one,) = usage_by_task([{"task": "t", "used": used, "resources": asked}])
    assert (one.busy, one.advice, one.gpus) == (pytest.approx(cores), advice, asked.get("gpus"))


# --- Completion, in real shells; they get a PATH with our command, and no network is touched

COMMAND = f"""#!{sys.executable}
import socket
def refuse(*_, **__): raise SystemExit("the network is touched")
socket.socket = socket.create_connection = socket.getaddrinfo = refuse
from experimaestro_hpc.cli import main
main()
"""
COMPLETIONS = [
    ("xpm-hpc la", ["launchers"]),
    ("xpm-hpc jobs di", ["diff"]),
    ("xpm-hpc jobs --wa", ["--watch"]),
    ("xpm-hpc experiments gr", ["graph"]),
    ("xpm-hpc jobs show 0004", ["0004abababab"]),
    ("xpm-hpc jobs kill study.ev", ["study.evaluate/0004" + "ab" * 30]),
    ("xpm-hpc jobs --experiment st", ["study"]),
    ("xpm-hpc jobs --state fa", ["failed"]),
    ("xpm-hpc run --launcher slu", ["slurm"]),
    ("xpm-hpc experiments show o", ["old"]),
    ("xpm-hpc jobs diff 0001", ["0001abababab"]),
]
SHELLS = {
    "bash": """
eval "$(xpm-hpc completion bash)"
COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_xpm_hpc_completion xpm-hpc "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
autoload -Uz compinit; compinit -u -d "$HOME/dump"
compadd() { print -l -- ${(P)@[-1]} }
_describe() { local name=$@[-1]; if [[ $1 == -V ]]; then name=$3; fi; print -l -- "${(P)name[@]%%:*}" }
eval "$(xpm-hpc completion zsh)"
words=(${(z)1}); CURRENT=${#words}
_xpm_hpc_completion
""",
    "fish": """
xpm-hpc completion fish | source
complete -C "$argv[1]" | string replace -r '\\t.*' ''
""",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(made, call, tmp_path, shell):  # noqa: F811
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    call("jobs")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "xpm-hpc").write_text(COMMAND)
    (tmp_path / "bin" / "xpm-hpc").chmod(0o755)
    (tmp_path / "script").write_text(SHELLS[shell])
    environ = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path)}
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    for line, expected in COMPLETIONS:
        argv = [program, *options, str(tmp_path / "script"), line]
        ran = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert ran.stdout.split() == expected, (line, ran)


def test_completion_where_nothing_is_known(tmp_path):
    (tmp_path / "xpm-hpc").write_text(COMMAND)
    for words in ("xpm-hpc jobs show a", "xpm-hpc jobs --experiment x", "xpm-hpc jobs --workdir /nowhere show a"):
        asked = {"_XPM_HPC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        environ = {**os.environ, **asked, "XDG_STATE_HOME": str(tmp_path)}
        argv = [sys.executable, str(tmp_path / "xpm-hpc")]
        ran = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert Ran(ran.returncode, ran.stdout, ran.stderr) == Ran(0, "\n", "")
