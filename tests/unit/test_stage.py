"""Nodes that do not see the workspace: what the login node does for them, and what a job's script does on one."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import experimaestro_hpc
from experimaestro_hpc.agent import stage as module
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.stage import ENDS, Stage, explain, move_tree
from experimaestro_hpc.driver.data import shipped_data
from experimaestro_hpc.driver.launcher import parse_launcher
from experimaestro_hpc.driver.script import ScriptJob, Scripts
from experimaestro_hpc.driver.stage import stage_of
from experimaestro_hpc.errors import LauncherError, WorkspaceError
from experimaestro_hpc.schedulers.base import Request

JOB, PARENT, ABOVE = "it's a.task/aa", "b.parent/bb", "c.above/cc"
NONCE = "12345"


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr("experimaestro_hpc.runtime.task.MARKER_PATIENCE", 0.0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A workspace with a chain of three jobs, of which the first two are done."""
    layout = Layout(tmp_path / "work space")
    for job, parents in ((ABOVE, []), (PARENT, [ABOVE]), (JOB, [PARENT])):
        folder = layout.job(job)
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps({"parents": parents, "code": ".xpm/code/c"}))
        (folder / "data").write_text(job)
        if job != JOB:
            Path(f"{layout.stem(job)}.done").write_text("{}")
    for name in (".xpm/lib/l/code.py", ".xpm/code/c/script.py"):
        (layout.root / name).parent.mkdir(parents=True)
        (layout.root / name).write_text("pass")
    return layout


def given(layout: Layout, have: tuple[str, ...] = ()) -> tuple[str, str, list[str]]:
    """Token, name, and the names of the files."""
    stream = io.BytesIO()
    lines: list[str] = []

    def answer(*said: str) -> io.BytesIO:
        lines.extend(said)
        return stream

    Stage(layout, JOB, ".xpm/lib/l").give(have, answer)
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        return lines[0], lines[1], [one.name for one in tar if not one.isdir()]


def test_all_that_a_task_may_look_at_is_given_and_its_lock_last(layout):
    token, name, names = given(layout)
    assert name == "task"
    assert names[-1] == f"jobs/{JOB}/.lock"
    assert set(names) == {
        ".xpm/lib/l/code.py",
        ".xpm/code/c/script.py",
        *(f"jobs/{job}/{file}" for job in (JOB, PARENT, ABOVE) for file in ("job.json", "data")),
        f"jobs/{PARENT}/parent.done",
        f"jobs/{ABOVE}/above.done",
        f"jobs/{JOB}/.lock",
    }
    assert (layout.job(JOB) / ".lock").read_text() == token


def test_what_the_node_has_is_not_given_again(layout):
    names = given(layout, (".xpm/lib/l", ".xpm/code/c"))[2]
    assert not [name for name in names if name.startswith(".xpm")]


def test_of_a_link_that_leaves_its_folder_the_node_gets_what_it_leads_to(layout, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/away").write_text("far")
    (layout.job(PARENT) / "wide").symlink_to(tmp_path / "far")
    (layout.job(PARENT) / "near").symlink_to("data")
    (layout.job(PARENT) / "broken").symlink_to("/no/such")
    os.mkfifo(layout.job(PARENT) / "pipe")
    names = given(layout)[2]
    assert f"jobs/{PARENT}/wide/away" in names
    assert f"jobs/{PARENT}/near" in names
    assert f"jobs/{PARENT}/broken" in names
    assert f"jobs/{PARENT}/pipe" not in names


def test_a_job_that_is_not_there(layout):
    with pytest.raises(WorkspaceError, match="there is no "):
        Stage(layout, "x.y/zz", ".xpm/lib/l").give((), lambda *_lines: io.BytesIO())


@pytest.mark.parametrize(
    ("before", "pieces", "after"),
    [
        (None, b"0 5 task.out\nhello", b"hello"),
        (b"hello", b"5 6 task.out\n world", b"hello world"),
        (b"longer than that", b"0 3 task.out\nnew", b"new"),  # the log of a new start
        (b"ab", b"1 2 task.out\n\0\n0 0 task.err\n", b"a\0\n"),
        (b"{}", b"-1 7 task.out\n{1: 2}\n", b"{1: 2}\n"),
    ],
)
def test_pieces_of_logs(layout, before, pieces, after):
    token = given(layout)[0]
    log = layout.job(JOB) / "task.out"
    if before is not None:
        log.write_bytes(before)
    assert Stage(layout, JOB, "").note(token, io.BytesIO(pieces))
    assert log.read_bytes() == after
    assert not list(log.parent.glob("*.tmp"))


@pytest.mark.parametrize("pieces", [b"0 9 task.out\nshort", b"-1 9 task.out\nx", b"0 9 .out\nshort", b"x"])
def test_pieces_that_are_wrong_or_cut_off(layout, pieces):
    token = given(layout)[0]
    with pytest.raises((WorkspaceError, ValueError)):
        Stage(layout, JOB, "").note(token, io.BytesIO(pieces))
    assert not list(layout.job(JOB).glob("*.tmp"))


@pytest.mark.parametrize("name", ["../task.out", ".hidden.out", ".lock", "folder.out", "link.out", "away.out", ""])
def test_what_cannot_be_a_log_is_passed_over(layout, name):
    token = given(layout)[0]
    folder = layout.job(JOB)
    (folder / "folder.out").mkdir()
    (folder / "link.out").symlink_to("data")
    (folder / "away.out").symlink_to("../../away")
    before = tree(layout.root)
    pieces = b"0 2 %s\nx\n0 5 task.out\nhello-1 2 progress.json\n{}" % name.encode()
    assert Stage(layout, JOB, "").note(token, io.BytesIO(pieces))
    assert (folder / ".lock").read_text() == token
    below = f"jobs/{JOB}"
    assert tree(layout.root) == {**before, f"{below}/task.out": "hello", f"{below}/progress.json": "{}"}


def test_whoever_was_given_the_files_before_can_write_no_more(layout):
    first = given(layout)[0]
    second = given(layout)[0]
    stage = Stage(layout, JOB, "")
    assert not stage.note(first, io.BytesIO(b"0 1 task.out\nx"))
    assert not stage.fail(first, "launch", "of the first")
    assert not (layout.job(JOB) / "task.out").exists()
    assert stage.fail(second, "launch", "of the second")
    assert layout.marker(JOB)["message"] == "of the second"
    assert layout.record(JOB)["reason"] == "launch"
    assert layout.record(JOB)["parents"] == [PARENT]


def asked(layout: Layout, lines: list[str], body: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A request, to a process of its own."""
    source = Path(experimaestro_hpc.__file__).parent.parent
    code = "import sys; from experimaestro_hpc.agent.stage import main; sys.exit(main(sys.argv[1], '.xpm/lib/l'))"
    return subprocess.run(
        [sys.executable, "-c", code, str(layout.root)],
        input="".join(f"{line}\n" for line in lines).encode() + body,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )


def packed(files: dict[str, bytes]) -> bytes:
    """A tar stream."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def test_what_a_task_has_left_is_taken_in(layout):
    token = given(layout)[0]
    folder = layout.job(JOB)
    (folder / "old").write_text("of the start before")
    Path(f"{layout.stem(JOB)}.failed").write_text("{}")
    gone = "b2xkAC4uLy4uL2IucGFyZW50L2JiL2RhdGEA"  # old, and another job's data
    body = packed({"data": b"new", "out/-n": b"n", "two\nlines": b"", "task.done": b"{}", ".lock": token.encode()})
    ended = asked(layout, ["take", NONCE, JOB, token, gone], body)
    assert ended.stdout.decode() == f"xpm-hpc {NONCE}\nok\n", ended
    assert (folder / "data").read_text() == "new"
    assert (folder / "out/-n").read_text() == "n"
    assert (folder / "two\nlines").exists()
    assert not (folder / "old").exists()
    assert (layout.job(PARENT) / "data").exists()
    assert layout.marker(JOB)["state"] == "done"
    assert not Path(f"{layout.stem(JOB)}.failed").exists()
    assert list((layout.internal / "incoming").iterdir()) == []


def test_the_old_goes_after_the_new_has_come_and_before_the_marker(layout, tmp_path, monkeypatch):
    token = given(layout)[0]
    (tmp_path / "stream").write_bytes(packed({"new": b"", "task.done": b"{}", ".lock": token.encode()}))
    then, run = [], subprocess.run
    monkeypatch.setattr(
        module, "_remove", lambda folder, _: then.append(((folder / "new").exists(), layout.marker(JOB)))
    )
    with (tmp_path / "stream").open("rb") as stream:
        monkeypatch.setattr(subprocess, "run", lambda *words, **more: run(*words, stdin=stream, **more))
        assert Stage(layout, JOB, "").take(token, ["data"])
    assert then == [(True, None)]
    assert layout.marker(JOB) == {"state": "done"}


def test_a_stream_that_was_cut_leaves_nothing(layout):
    token = given(layout)[0]
    whole = packed({"data": b"new", "task.done": b"{}", ".lock": token.encode()})
    for length in (0, 700, 1024, len(whole) - 10240 + 1024):  # inside a file, and between two
        ended = asked(layout, ["take", NONCE, JOB, token, ""], whole[:length])
        assert ended.returncode == 1, length
        assert b"ok" not in ended.stdout
    assert (layout.job(JOB) / "data").read_text() == JOB
    assert layout.marker(JOB) is None
    assert list((layout.internal / "incoming").iterdir()) == []


def test_a_request_from_an_older_start(layout):
    older = given(layout)[0]
    given(layout)
    ended = asked(layout, ["take", NONCE, JOB, older, ""], packed({"data": b"new", ".lock": older.encode()}))
    assert ended.stdout.decode() == f"xpm-hpc {NONCE}\nother\n"
    assert (layout.job(JOB) / "data").read_text() == JOB


def test_requests_over_standard_input(layout):
    gave = asked(layout, ["give", NONCE, JOB, ".xpm/lib/l", ""])
    first, token, name, _ = gave.stdout.split(b"\n", 3)
    assert (first.decode(), name) == (f"xpm-hpc {NONCE}", b"task")
    failed = asked(layout, ["fail", NONCE, JOB, token.decode(), "launch"], b"words\nof two lines")
    assert failed.stdout.decode() == f"xpm-hpc {NONCE}\nok\n"
    assert layout.marker(JOB)["message"] == "words\nof two lines"
    wrong = asked(layout, ["give", NONCE, "../../etc", ""])
    assert wrong.returncode != 0
    assert b"xpm-hpc" not in wrong.stdout


def test_files_that_were_folders_and_folders_that_were_files(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "was folder").mkdir(parents=True)
    (old / "was folder/x").touch()
    (old / "was file").touch()
    (old / "was link").symlink_to(tmp_path)
    (new / "was file").mkdir(parents=True)
    (new / "was file/y").touch()
    (new / "was folder").touch()
    (new / "was link").mkdir()
    (new / "was link/z").touch()
    move_tree(new, old)
    assert (old / "was folder").is_file()
    assert (old / "was file/y").is_file()
    assert (old / "was link/z").is_file()
    assert not (tmp_path / "z").exists()


def test_markers_come_last(tmp_path, monkeypatch):
    moved = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (moved.append(self.name), replace(self, target))[1])
    new = tmp_path / "new"
    new.mkdir()
    for name in ("a.done", "z", "b"):
        (new / name).touch()
    move_tree(new, tmp_path / "old")
    assert moved[-1] == "a.done"


@pytest.mark.parametrize("status", [*ENDS, None, 0, 1, 126])
def test_what_the_end_of_a_script_means(status):
    words = explain(status, "login", "p1")
    assert bool(words) == (status in ENDS)
    if status in (117, 118):
        assert "ssh -o BatchMode=yes login true" in words
    assert module.ENDS[117] in explain(117, "login", "")


HELLO = {"host": "login", "root": "/home/it's a/xpm", "executable": "/usr/bin/python3"}


def launcher(text: str):
    return parse_launcher(text, name="one", path=Path("one.toml"))


def test_how_a_node_gets_the_files():
    made = stage_of(launcher('scheduler = "slurm"\n[mirror]\nnodes = "staged"\nscratch = "/x"\n'), HELLO, "l", "c")
    assert (made.login, made.scratch, made.code) == ("login", "/x", "c")
    assert made.remote.startswith("exec sh -c ")
    other = launcher('scheduler = "slurm"\n[mirror]\nnodes = "staged"\nlogin = "front"\n')
    assert stage_of(other, HELLO, "l", "c").login == "front"


@pytest.mark.parametrize(
    ("scheduler", "root", "words"),
    [("oar", "/x", "not possible with oar"), ("local", "/x", "not possible with local"), ("slurm", "/x%j", "a %")],
)
def test_where_it_cannot_be_done(scheduler, root, words):
    text = f'scheduler = "{scheduler}"\n[mirror]\nnodes = "staged"\n'
    with pytest.raises(LauncherError, match=words):
        stage_of(launcher(text), {**HELLO, "root": root}, "l", "c")


# --- The script of a job, on a node

#: answers in the place of the login node: the last of ssh's words is the command
SSH = "#!/bin/bash\n" + r'exec /bin/sh -c "${!#}"' + "\n"
#: what the lines of a task may use: wait for a condition; have all copied back, as before a new start; and let what
#: there is have come long ago
WORDS = r"""
set -e
fail() { echo "$*" >complaint; exit 1; }
until_() { for _ in {1..600}; do "$@" && return; sleep 0.1; done; fail "in vain: $*"; }
flush() { touch -- "$XPM_HPC_FLUSH"; until_ test ! -e "$XPM_HPC_FLUSH"; }
settle() { touch -- "$stamp"; until_ newer; rm -- "$stamp.probe"; }
newer() { touch -- "$stamp.probe"; test "$stamp.probe" -nt "$stamp"; }
stamp=${XPM_HPC_STAGED%/jobs/*/*}/stamp
there=$JOB_ON_THE_LOGIN_NODE
settle
"""


@pytest.fixture
def on_a_node(layout, tmp_path):
    """Have a job's script run the lines of a task on a node; the job's directory on the login node."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(SSH)
    (tmp_path / "bin/ssh").chmod(0o755)
    (tmp_path / "scratch").mkdir()
    folder = layout.job(JOB)

    def run(lines: str) -> Path:
        text = f'scheduler = "slurm"\n[mirror]\nnodes = "staged"\nscratch = "{tmp_path}/scratch"\n'
        hello = {"host": "login", "root": str(layout.root), "executable": sys.executable}
        stage = stage_of(launcher(text), hello, ".xpm/lib/l", ".xpm/code/c")
        job = ScriptJob("slurm", Request("x"), "task", "python3", ".xpm/lib/l", directory=f"jobs/{JOB}", stage=stage)
        (tmp_path / "script").write_text(Scripts([shipped_data("templates")]).render(job))
        (folder / "job.sh").write_text(WORDS + lines)
        ended = subprocess.run(
            ["bash", str(tmp_path / "script")],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
            env={
                **os.environ,
                "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
                "PYTHONPATH": str(Path(experimaestro_hpc.__file__).parent.parent),
                "JOB_ON_THE_LOGIN_NODE": str(folder),
            },
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert not list((tmp_path / "scratch").glob("*/job.*"))
        return folder

    return run


def tree(folder: Path) -> dict[str, str]:
    """The files below a folder and what is in them; empty folders end with a slash."""
    found = {}
    for here, folders, names in os.walk(folder):
        for name in (*names, *folders):
            path = Path(here, name)
            below = str(path.relative_to(folder))
            if path.is_symlink():
                found[below] = f"-> {path.readlink()}"
            elif path.is_file():
                found[below] = path.read_text()
            elif not list(path.iterdir()):
                found[f"{below}/"] = ""
    return {name: text for name, text in found.items() if name not in (".lock", "job.json", "job.sh", "data")}


def test_a_folder_that_was_given_gets_another_name(on_a_node):
    on_a_node(r"""
        mkdir -p last/deep 'last/is empty'; ln -s deep last/link; echo 1 >last/deep/x
        echo 1 >$'last/two\nlines'; echo 1 >'last/-n $(touch pwned) ] " \n'; echo 1 >last/$'\xff'
    """)
    folder = on_a_node("mv last previous; mkdir last; echo 2 >last/x")
    assert tree(folder) == {
        "previous/deep/x": "1\n",
        "previous/two\nlines": "1\n",
        'previous/-n $(touch pwned) ] " \\n': "1\n",
        "previous/\udcff": "1\n",
        "previous/link": "-> deep",
        "previous/is empty/": "",
        "last/x": "2\n",
    }


def test_folders_that_were_given_change_places(on_a_node):
    """Each name was given, and is now that of another file that has not changed."""
    on_a_node("mkdir a b; echo 1 >a/x; echo 2 >b/x; echo 3 >b/y")
    assert tree(on_a_node("mv a c; mv b a; mv c b")) == {"a/x": "2\n", "a/y": "3\n", "b/x": "1\n"}
    folder = on_a_node("rm -r b; mv a b; mkdir a; echo 4 >a/x")
    assert tree(folder) == {"a/x": "4\n", "b/x": "2\n", "b/y": "3\n"}


def test_files_and_links_that_were_given_get_other_names(on_a_node):
    on_a_node("mkdir d; echo 1 >d/a; echo 2 >d/b; ln d/a d/hard; ln -s a d/soft; mkdir e; echo 3 >e/x")
    folder = on_a_node(
        "mv d/a d/c; mv d/soft d/softer; rm d/b; mv d/hard d/b; ln d/b more; mv e f; ln -s f e; mv f/x f/y"
    )
    assert tree(folder) == {
        "d/b": "1\n",
        "d/c": "1\n",
        "d/softer": "-> a",
        "more": "1\n",
        "e": "-> f",
        "f/y": "3\n",
    }
    assert (folder / "d/b").samefile(folder / "more")


def test_a_folder_becomes_a_link_to_where_its_files_are_now(on_a_node):
    on_a_node("mkdir last; echo 1 >last/x; echo 1 >last/y")
    assert tree(on_a_node("mv last kept; ln -s kept last; rm kept/y")) == {"kept/x": "1\n", "last": "-> kept"}


def test_what_cannot_be_looked_at_is_not_taken_for_removed(on_a_node, tmp_path):
    on_a_node("echo 1 >a; echo 1 >b")
    find, broken = tmp_path / "bin/find", shlex.quote(f"{tmp_path}/broken")
    find.write_text(f'#!/bin/sh\n{shutil.which("find")} "$@"\n[ ! -e {broken} ]\n')
    find.chmod(0o755)
    folder = on_a_node(f'touch {broken}; rm a; mv b c; flush; cp "$there/a" seen; settle; rm {broken}')
    assert tree(folder) == {"c": "1\n", "seen": "1\n"}


def test_a_folder_is_removed_with_all_that_is_in_it(on_a_node):
    on_a_node(
        "mkdir -p ckpt/1/a ckpt/1/b 'ckpt/1 b' ckpt/2; echo 1 >ckpt/1/a/x; echo 1 >'ckpt/1 b/x'; ln -s ../1 ckpt/2/link"
    )
    assert tree(on_a_node("rm -r ckpt/1; echo 1 >ckpt/2/x")) == {
        "ckpt/1 b/x": "1\n",
        "ckpt/2/link": "-> ../1",
        "ckpt/2/x": "1\n",
    }
    folder = on_a_node("rm -r ckpt")
    assert not (folder / "ckpt").exists()


def test_what_was_copied_back_before_the_end_gets_another_name(on_a_node):
    folder = on_a_node("""
        mkdir a; echo 1 >a/x; flush; settle
        test "$(<"$there/a/x")" = 1; mv a b; flush; settle
        test "$(<"$there/b/x")" = 1; test ! -e "$there/a"; mv b c
    """)
    assert tree(folder) == {"c/x": "1\n"}


def test_logs_of_any_name_do_not_hold_up_the_others(on_a_node):
    folder = on_a_node(r"""
        echo 1 >.hidden.out; echo 1 >$'two\nlines.out'; echo 1 >$'0 1 x\ny.err'; echo 1 >'-n  $(touch pwned) ].out '
        echo 1 >'-n  $(touch pwned) ].out'; echo '{}' >progress.json; echo hello >task.out
        until_ test -s "$there/task.out" -a -s "$there/-n  \$(touch pwned) ].out" -a -s "$there/progress.json"
        cp "$there/task.out" seen; ls -A "$there" >listed
        echo again >>task.out; until_ cmp task.out "$there/task.out" 2>/dev/null
    """)
    listed = (folder / "listed").read_text().split("\n")
    assert sorted(listed) == sorted(
        ["", ".lock", "job.json", "job.sh", "data", "task.out", "-n  $(touch pwned) ].out", "progress.json"]
    )
    assert (folder / "seen").read_text() == "hello\n"
    assert (folder / "task.out").read_text() == "hello\nagain\n"
    assert (folder / "two\nlines.out").read_text() == (folder / ".hidden.out").read_text() == "1\n"


def test_a_log_that_was_seen_before_the_end_is_removed_or_gets_another_name(on_a_node):
    folder = on_a_node("""
        echo 1 >a.out; echo 2 >b.err; until_ test -s "$there/a.out" -a -s "$there/b.err"
        settle; mv a.out c.out; rm b.err
    """)
    assert tree(folder) == {"c.out": "1\n"}


def test_a_log_that_is_cut_while_it_is_sent_does_not_take_from_the_next_one(on_a_node, tmp_path):
    tail = tmp_path / "bin/tail"
    tail.write_text(f'#!/bin/sh\ncase $4 in cut.*) exit 1; esac\nexec {shutil.which("tail")} "$@"\n')
    tail.chmod(0o755)
    folder = on_a_node("""
        for name in a cut.1 m cut.2 z; do echo "of $name" >$name.out; done
        for name in *.out; do until_ test -s "$there/$name"; done
        mkdir seen; cp "$there/"*.out seen
    """)
    for name in ("a", "m", "z"):
        assert (folder / f"seen/{name}.out").read_text() == f"of {name}\n"
    for name in ("cut.1", "cut.2"):
        assert (folder / f"seen/{name}.out").read_bytes() == bytes(9)
        assert (folder / f"{name}.out").read_text() == f"of {name}\n"
