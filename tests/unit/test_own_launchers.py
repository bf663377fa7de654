"""``launchers list|add|edit|remove|fit``, as far as no cluster is needed: names, files, editors, what fits."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem

from experimaestro_hpc.cli import main
from experimaestro_hpc.cli.complete import complete_launchers, complete_own_launchers
from experimaestro_hpc.driver.add import parse_host
from experimaestro_hpc.driver.own import checked_name, save
from experimaestro_hpc.errors import LauncherError

MINE = """\
scheduler = "slurm"
workdir = "~/xpm"
[connector]
type = "ssh"
host = "nowhere.invalid"
[[partitions]]
name = "cpu"
cores = 16
[[partitions]]
name = "gpu"
max_time = "2:00:00"
gpus = { type = "h100", count = 4, memory = "80G" }
[[partitions]]
name = "gpu-long"
gpus = { type = "h100", count = 4, memory = "80G" }
options = { partition = "gpu", qos = "long" }
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the user's own launchers, with `mine`."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    folder = tmp_path / "config/xpm-hpc/launchers"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(MINE)
    yield folder
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]  # nothing half-written


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``xpm-hpc launchers ARGV`` in this process, without a terminal: status, output, errors."""
    monkeypatch.setenv("XPM_HPC_DEBUG", "")

    def call(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xpm-hpc", "launchers", *argv])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        assert "Traceback" not in err
        return caught.value.code, out, err

    return call


# --- Names and hosts


@pytest.mark.parametrize("name", ["mycluster", "a", "g5k-nancy", "x.y", "_x", "über", "x" * 64])
def test_names_that_launchers_can_have(name):
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-x", ".x", "..", "a/b", "../x", "a b", "a;b", "$(id)", "a\nb", "a\x00b", "x" * 65, "mine.toml", "a'b", "~"],
)
def test_names_that_launchers_cannot_have(name, own, call):
    with pytest.raises(LauncherError, match="cannot be the name of a launcher"):
        checked_name(name)
    status, _, err = call("add", "--local", "--", name)
    assert (status, "cannot be the name of a launcher" in err) == (2, True)
    assert [path.name for path in own.iterdir()] == ["mine.toml"]


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("mycluster", "mycluster"),
        ("me@cluster.org", "me@cluster.org"),
        ("ssh://me@cluster.org", "me@cluster.org"),
        ("ssh://cluster.org/", "cluster.org"),
        ("ssh://me@cluster.org:22", "me@cluster.org"),
        ("ssh://me@cluster.org:2222", "ssh://me@cluster.org:2222"),
        ("ssh://cluster.org:2222/", "ssh://cluster.org:2222"),
        ("me@there@gateway.org", "me@there@gateway.org"),  # some gateways take such users
        ("10.77.0.1", "10.77.0.1"),
    ],
)
def test_hosts(given, host):
    assert parse_host(given) == host


@pytest.mark.parametrize(
    "given",
    [
        *("", "-oProxyCommand=id", "me@-oProxyCommand=id", "-x@host", "ssh://-x", "ssh://", "ssh://me@", "@host"),
        *("a b", "a;id", "$(id)", "`id`", "a\nb", "a\x00", "http://host", "ssh://host:0", "ssh://host:99999"),
        *("ssh://host:22a", "ssh://host/path", "me:secret@host", "host:22", "[::1]", "a'b", 'a"b', "ssh://ssh://host"),
    ],
)
def test_what_is_no_host(given, own, call):
    with pytest.raises(LauncherError, match="is not a host"):
        parse_host(given)
    if given:
        assert call("add", "x", "--", given)[0] == 2
    assert not (own / "x.toml").exists()


def test_a_port_in_the_wrong_form_is_told():
    with pytest.raises(LauncherError) as caught:
        parse_host("me@host:2222")
    assert caught.value.hint == "with a port: ssh://me@host:2222"


# --- add


def test_add_does_not_replace_unasked(own, call):
    status, _, err = call("add", "mine", "nowhere.invalid")
    assert (status, "nobody is there to be asked" in err) == (2, True)
    assert (own / "mine.toml").read_text() == MINE


def test_add_writes_nothing_when_the_host_cannot_be_reached(own, call):
    status, _, err = call("add", "other", "nowhere.invalid")
    assert (status, "nowhere.invalid" in err, "check the name, and ~/.ssh/config" in err) == (3, True, True), err
    assert call("add", "mine", "nowhere.invalid", "--yes")[0] == 3
    assert (own / "mine.toml").read_text() == MINE
    assert not (own / "other.toml").exists()


def test_add_refuses_what_makes_no_sense(own, call):
    assert "leave one of them out" in call("add", "x", "host", "--local")[2]
    assert "control character" in call("add", "x", "host", "--workdir", "a\nb")[2]


def test_add_for_this_machine(own, call, tmp_path):
    work = tmp_path / "it's my $WORK"
    status, out, err = call("add", "here", "--local", "--scheduler", "local", "--print", "--workdir", str(tmp_path))
    assert (status, out.splitlines()[3]) == (0, 'scheduler = "local"'), err
    assert not (own / "here.toml").exists()
    status, _, err = call("add", "here", "--local", "--scheduler", "local", "--workdir", str(work))
    assert (status, "a variable is not set" in err) == (2, True)
    status, out, err = call("add", "here", "--local", "--scheduler", "local", "--workdir", str(tmp_path / "it's mine"))
    assert status == 0, err
    assert f"written: {own}/here.toml" in out
    assert "xpm-hpc launchers check here --job" in out
    assert not (tmp_path / "it's mine").exists()
    shown = json.loads(call("show", "here", "--json")[1])
    assert (shown["workdir"], shown["connector"]["type"]) == (str(tmp_path / "it's mine"), "local")
    assert "in place of the launcher" not in out
    status, out, _ = call("add", "slurm", "--local", "--scheduler", "local")
    assert (status, "in place of the launcher 'slurm'" in out) == (0, True)


# --- save


def test_save_is_all_or_nothing(own):
    with pytest.raises(LauncherError, match="schedular"):
        save(own / "new.toml", 'schedular = "local"', former=None)
    save(own / "new.toml", 'scheduler = "local"', former=None)
    with pytest.raises(LauncherError, match="changed meanwhile"):
        save(own / "new.toml", 'scheduler = "oar"', former=None)  # somebody else was faster
    with pytest.raises(LauncherError, match="changed meanwhile"):
        save(own / "new.toml", 'scheduler = "oar"', former=b"")
    assert (own / "new.toml").read_text() == 'scheduler = "local"'
    (own / "new.toml").chmod(0o600)
    save(own / "new.toml", 'scheduler = "oar"', former=b'scheduler = "local"')
    assert (own / "new.toml").read_text() == 'scheduler = "oar"'
    assert (own / "new.toml").stat().st_mode & 0o777 == 0o600


def test_save_keeps_a_link_a_link(own, tmp_path):
    real = tmp_path / "dotfiles.toml"
    real.write_text(MINE)
    (own / "linked.toml").symlink_to(real)
    save(own / "linked.toml", 'scheduler = "local"', former=MINE.encode())
    assert (own / "linked.toml").is_symlink()
    assert real.read_text() == 'scheduler = "local"'


# --- edit


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``editor(code)``: an editor with a blank in its path, which runs Python with the file's path as ``path``."""

    def editor(code: str) -> Path:
        program = tmp_path / "my editor"
        program.write_text(
            f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\npath = Path(sys.argv[-1])\n{code}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("VISUAL", f"{shlex.quote(str(program))} --wait")
        return program

    return editor


REPLACE = "path.write_text(path.read_text().replace('~/xpm', '~/other'))"


def test_edit(own, call, editor):
    editor(REPLACE)
    status, out, _ = call("edit", "mine")
    assert (status, f"written: {own}/mine.toml" in out) == (0, True)
    assert (own / "mine.toml").read_text() == MINE.replace("~/xpm", "~/other")


def test_edit_nothing(own, call, editor, tmp_path):
    editor("pass")
    assert call("edit", "mine")[:2] == (0, "nothing was changed\n")
    assert call("edit", "oar")[:2] == (0, "nothing was changed\n")
    assert not (own / "oar.toml").exists()
    assert not list((tmp_path / "tmp").iterdir())


def test_edit_a_shipped_one_makes_it_ones_own(own, call, editor):
    editor(REPLACE)
    status, out, _ = call("edit", "oar")
    assert (status, f"written: {own}/oar.toml" in out) == (0, True)
    assert 'workdir = "~/other"' in (own / "oar.toml").read_text()
    assert json.loads(call("show", "oar", "--json")[1])["path"] == f"{own}/oar.toml"


def test_edit_wrongly(own, call, editor):
    editor("path.write_text('schedular = 1')")
    status, _, err = call("edit", "mine")
    assert (status, "schedular" in err) == (1, True)
    kept = Path(err.split("what you wrote is in ")[1].strip())
    assert kept.read_text() == "schedular = 1"
    assert (own / "mine.toml").read_text() == MINE


def test_edit_wrongly_and_then_right(own, call, editor, monkeypatch):
    editor("wrong = 'wrong = 1'\npath.write_text('scheduler = \"local\"' if path.read_text() == wrong else wrong)")
    asked = []
    monkeypatch.setattr(click, "confirm", lambda what, **_: asked.append(what) or True)
    monkeypatch.setattr("experimaestro_hpc.cli.launchers_commands.own.has_terminal", lambda: True)
    status, _, err = call("edit", "mine")
    assert (status, asked, "unknown key 'wrong'" in err) == (0, ["edit it again?"], True)
    assert (own / "mine.toml").read_text() == 'scheduler = "local"'


def test_edit_a_broken_one_to_mend_it(own, call, editor):
    (own / "mine.toml").write_text("schedular = 1")
    editor("path.write_text('scheduler = \"local\"')")
    assert call("edit", "mine")[0] == 0


def test_edit_while_somebody_else_does(own, call, editor):
    editor(f"{REPLACE}\nPath({str(own / 'mine.toml')!r}).write_text('scheduler = \"oar\"')")
    status, _, err = call("edit", "mine")
    assert (status, "changed meanwhile" in err, "what you wrote is in" in err) == (2, True, True)
    assert (own / "mine.toml").read_text() == 'scheduler = "oar"'


def test_edit_in_vain(own, call, editor, monkeypatch):
    editor("sys.exit(3)")
    assert "ended with 3" in call("edit", "mine")[2]
    for wrong in ("/no/such/editor", "'", " "):
        monkeypatch.setenv("VISUAL", wrong)
        status, _, err = call("edit", "mine")
        assert (status, "set VISUAL or EDITOR" in err) == (2, True)
    assert "did you mean 'mine'?" in call("edit", "mien")[2]
    assert "cannot be the name" in call("edit", "../mine")[2]
    assert (own / "mine.toml").read_text() == MINE


# --- remove


def test_remove(own, call):
    status, _, err = call("remove", "mine")
    assert (status, "nobody is there to be asked" in err) == (2, True)
    assert (own / "mine.toml").exists()
    assert call("remove", "mine", "--yes")[:2] == (0, f"removed: {own}/mine.toml\n")
    assert not (own / "mine.toml").exists()
    assert "no launcher 'mine'" in call("remove", "mine", "--yes")[2]


def test_remove_a_shipped_one(own, call):
    status, _, err = call("remove", "slurm", "--yes")
    assert (status, "comes with xpm-hpc and cannot be removed" in err) == (2, True)
    (own / "slurm.toml").write_text(MINE)
    status, out, _ = call("remove", "slurm", "--yes")
    assert (status, "that comes with xpm-hpc is used again" in out) == (0, True)


# --- list, completion


def test_list(own, call):
    (own / "bad.toml").write_text("schedular = 1")
    status, out, err = call("list")
    lines = {line.split()[0]: line.split() for line in out.splitlines()}
    assert lines["mine"][1:] == ["slurm", "nowhere.invalid", "user", f"{own}/mine.toml"]
    assert lines["local"][1:5] == ["local", "this", "machine", "shipped"]
    assert (status, lines["bad"][1], "schedular" in err) == (2, "BROKEN", True)
    found = {one["name"]: one for one in json.loads(call("list", "--json")[1])}
    assert (found["mine"]["scheduler"], found["mine"]["host"]) == ("slurm", "nowhere.invalid")
    assert "schedular" in found["bad"]["error"]


def test_completion(own):
    context = click.Context(click.Command("x"))

    def names(found: list[CompletionItem]) -> list[str]:
        return [one.value for one in found]

    assert names(complete_own_launchers(context, None, "")) == ["mine"]  # type: ignore[arg-type]
    assert names(complete_own_launchers(context, None, "x")) == []  # type: ignore[arg-type]
    assert {"mine", "local", "slurm"} <= set(names(complete_launchers(context, None, "")))  # type: ignore[arg-type]


# --- fit


def fit(call, resources: str, *more: str) -> dict:
    [found] = json.loads(call("fit", resources, "--launcher", "mine", "--json", *more)[1])
    return found


@pytest.mark.parametrize(
    ("resources", "choice", "partition", "line"),
    [
        ("gpu(mem=40G)*2", "gpu(mem=40G) * 2", "gpu", "--gres=gpu:h100:2"),
        ("gpu & duration=3h", "gpu & duration=3h", "gpu-long", "--qos=long"),
        ("gpu * 9 | cpu(cores=2)", "cpu(cores=2)", "cpu", "--cpus-per-task=2"),
        ("any", "any", "cpu", "--partition=cpu"),
    ],
)
def test_what_fits(own, call, resources, choice, partition, line):
    found = fit(call, resources)
    assert (found["fits"], found["choice"], found["partition"]) == (True, choice, partition)
    assert f"#SBATCH {line}" in found["directives"]
    assert line in call("fit", resources, "--launcher", "mine")[1]


def test_what_does_not_fit(own, call):
    status, out, _ = call("fit", "gpu(mem=100G) & duration=3h", "--launcher", "mine")
    assert status == 1
    assert "no    mine (slurm): no partition of launcher 'mine' can give" in out
    assert "in cpu: has no GPUs, 1 asked" in out
    assert "in gpu: has GPUs of 80G, 100G asked; allows 02:00:00 for a job, 03:00:00 asked" in out
    assert fit(call, "gpu * 9")["directives"] == []
    assert "[" not in call("fit", "gpu * ", "--launcher", "mine")[1]
    assert call("fit", "gpuu", "--launcher", "mine")[0] == 2


def test_fit_says_why_not_elsewhere(own, call):
    out = call("fit", "gpu * 9 | gpu | cpu(cores=2)", "--launcher", "mine")[1]
    assert "not 'gpu * 9' in gpu: has 4 GPUs per node, 9 asked" in out
    assert "not 'gpu' in cpu: has no GPUs, 1 asked" in out
    assert "not 'gpu' in gpu-long: fits too, and comes later" in out
    assert "cores=2" not in out  # the alternatives after the chosen one do not matter


def test_fit_looks_at_ones_own_launchers_or_else_at_those_that_ship(own, call):
    (own / "bad.toml").write_text("schedular = 1")
    status, out, _ = call("fit", "gpu(mem=40G)*2")
    titles = [line.split()[1] for line in out.splitlines() if line[:2] in ("ok", "no")]
    assert (status, titles) == (0, ["bad:", "mine"])
    for path in own.iterdir():
        path.unlink()
    status, out, _ = call("fit", "gpu(mem=40G)*2")
    titles = [line.split()[1] for line in out.splitlines()[:-1]]  # a line for each
    assert {"local", "slurm", "oar"} <= set(titles)
    assert out.splitlines()[-1] == "more of one of them: --launcher NAME"


@pytest.mark.parametrize(("there", "choice"), [(0, "cpu(cores=2)"), (1, "gpu"), (4, "gpu * 2")])
def test_fit_on_this_machine_counts_its_gpus(own, call, monkeypatch, there, choice):
    monkeypatch.setattr("experimaestro_hpc.schedulers.local.gpus_here", lambda: there)
    [found] = json.loads(call("fit", "gpu * 2 | gpu | cpu(cores=2)", "--launcher", "local", "--json")[1])
    assert (found["fits"], found["choice"]) == (True, choice)
    status, out, _ = call("fit", "gpu * 5", "--launcher", "local")
    assert (status, f"no    local (local): this machine has {there} GPUs" in out) == (1, True)
