"""Job scripts: the same text for the same job, and names that stay names whatever is in them.

Golden scripts are made anew with ``XPM_HPC_GOLDEN=new pytest tests/unit/test_script.py``: look at the difference.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experimaestro_hpc.driver.data import shipped_data
from experimaestro_hpc.driver.environment import Environment
from experimaestro_hpc.driver.script import ScriptJob, Scripts, Stage, quoted
from experimaestro_hpc.errors import LauncherError, TemplateError
from experimaestro_hpc.resources import Resources
from experimaestro_hpc.schedulers.base import Request

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = """it's $(touch pwned) `touch pwned` "q" ; é \u732b \\ %d ${HOME} * ~ & > pwned | #!"""
SCRIPTS = Scripts([shipped_data("templates")])

PLAIN = ScriptJob(
    scheduler="slurm",
    request=Request(
        "concat",
        Resources.parse("gpu * 2 & cpu(cores=8, mem=64G) & duration=90m"),
        partition="gpu",
        gpu_type="h100",
        options={"account": "project", "exclude": ["node7", "node12"], "requeue": True},
        log="concat.err",
    ),
    name="concat",
    python="python3",
    lib=".xpm/lib/0123456789abcdef",
    code=[".xpm/code/fedcba9876543210"],
    setup=["module load cuda/12", 'source "$HOME/venv/bin/activate"'],
    env={"OMP_NUM_THREADS": "8", "MODE": "fast"},
)
PLAIN_LOCAL = replace(
    PLAIN,
    scheduler="local",
    request=Request("concat", Resources.parse("cores=2 & duration=1h"), options={"slots": 4}, log="concat.err"),
)
STRANGE = replace(
    PLAIN,
    request=Request(HOSTILE, options={"comment": HOSTILE, "constraint": "a&b|c"}, log=f"{HOSTILE}.err"),
    name=HOSTILE,
    python=f"/opt/{HOSTILE}/python",
    lib=f".xpm/lib/{HOSTILE}",
    code=[f".xpm/code/{HOSTILE}", ".xpm/code/b"],
    setup=[],
    env={"WORDS": HOSTILE, "LINES_": "two\nlines\n\n", "EMPTY": "", "QUOTE": "'", "DASH": "-n"},
)
STAGED = replace(
    STRANGE,
    directory=f"jobs/{HOSTILE}/aa",
    stage=Stage(HOSTILE, f"exec sh -c {shlex.quote(HOSTILE)}", f"$TMPDIR/{HOSTILE}", f".xpm/code/{HOSTILE}"),
)
ARRAY = replace(PLAIN, request=replace(PLAIN.request, array=True))
GOLDENS: dict[str, tuple[ScriptJob, dict[int, str] | None]] = {
    "slurm-plain": (PLAIN, None),
    "slurm-hostile": (STRANGE, None),
    "slurm-array": (ARRAY, {0: "jobs/test.concat/aa", 2: "jobs/test.concat/bb", 17: f"jobs/{HOSTILE}/cc"}),
    "slurm-staged": (STAGED, None),
    "slurm-staged-array": (
        replace(STAGED, request=replace(STAGED.request, array=True, log="/dev/null")),
        {0: "jobs/test.concat/aa", 17: f"jobs/{HOSTILE}/cc"},
    ),
    "local-plain": (PLAIN_LOCAL, None),
    "local-hostile": (replace(STRANGE, scheduler="local", request=Request("x", log="x.err")), None),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name):
    path, text = GOLDEN / f"{name}.sh", SCRIPTS.render(*GOLDENS[name])
    if os.environ.get("XPM_HPC_GOLDEN") == "new":
        path.write_text(text)
    assert text == path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("name", GOLDENS)
def test_the_scheduler_reads_the_directives(name):
    """They are the first lines, each on one line, and nothing is before them but the shell's name."""
    lines = SCRIPTS.render(*GOLDENS[name]).split("\n")
    assert lines[0] == "#!/bin/bash"
    word = "#SBATCH --" if name.startswith("slurm") else "#XPM "
    head = lines[1 : lines.index("")]
    assert all(line.startswith(word) for line in head)
    assert not any(line.startswith(word) for line in lines[1 + len(head) :])


def test_the_same_job_gives_the_same_text():
    turned = replace(PLAIN, env=dict(reversed(PLAIN.env.items())))
    assert Scripts([shipped_data("templates")]).render(turned) == SCRIPTS.render(PLAIN)


def test_a_script_holds_no_path_of_the_machine():
    text = SCRIPTS.render(PLAIN)
    assert str(Path.home()) not in text and str(Path.cwd()) not in text


# --- Names stay names


@pytest.mark.parametrize(
    ("value", "word"),
    [("x", "x"), ("", "''"), ("a b", "'a b'"), ("it's", "'it'\"'\"'s'"), (4, "4"), (Path("/a b"), "'/a b'")],
)
def test_quoted(value, word):
    assert str(quoted(value)) == word


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_bash_sees_one_word_for_each_value(values):
    code = "printf '%s\\0' " + " ".join(str(quoted(value)) for value in values)
    ran = subprocess.run(["bash", "-c", code], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert ran.stdout == b"".join(value.encode() + b"\0" for value in values)


class Place:
    """A workspace with a strange name, and an interpreter that notes how it was called."""

    def __init__(self, root: Path, job: ScriptJob) -> None:
        self.around = root
        self.workspace = root / f"work\n{HOSTILE.replace('/', '')}"
        self.python = root / "bin" / HOSTILE.replace("/", "")
        self.python.parent.mkdir(parents=True)
        self.python.write_text(
            f"#!/bin/sh\nout={shlex.quote(str(root))}\n"
            'printf "%s\\0" "$PWD" "$@" >>"$out/calls"\nenv -0 >"$out/env"\necho to-out\necho to-err >&2\nexit 7\n'
        )
        self.python.chmod(0o755)
        self.job = replace(job, python=str(self.python))

    def directory(self, task: str, identifier: str) -> Path:
        folder = self.workspace / "jobs" / task / identifier
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(self, folder: Path) -> Path:
        (folder / "job.sh").write_text(SCRIPTS.render(self.job))
        return folder

    def run(self, script: Path, folder: Path, **environ: str) -> subprocess.CompletedProcess[bytes]:
        given = {"PATH": "/usr/bin:/bin", "HOME": str(self.around), "LC_ALL": "C.UTF-8", **environ}
        ran = subprocess.run(["/bin/bash", script], cwd=folder, env=given, capture_output=True, check=False)
        assert not list(self.around.rglob("*pwned"))
        return ran

    @property
    def calls(self) -> list[str]:
        return (self.around / "calls").read_text().split("\0")[:-1]

    @property
    def environ(self) -> Mapping[str, str]:
        pairs = (self.around / "env").read_text().split("\0")[:-1]
        return dict(pair.split("=", 1) for pair in pairs)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "around", STRANGE)


@pytest.mark.parametrize("scheduler", ["slurm", "local"])
@pytest.mark.parametrize("task", ["test.say", "it's $(touch pwned)", "-rf", "jobs", "*", "a\\b", "~", "$HOME"])
def test_hostile_names_stay_names(place, scheduler, task):
    name = task.rpartition(".")[2]
    request = Request("x", log="x.err")
    place.job = replace(place.job, scheduler=scheduler, name=name, request=request)
    folder = place.write(place.directory(task, "abc"))
    ran = place.run(folder / "job.sh", folder, PYTHONPATH="/the user's")
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"", b"")
    assert place.calls == [str(folder), f"{place.workspace}/{STRANGE.lib}/run_task.py", str(folder)]
    seen = place.environ
    assert {key: seen[key] for key in STRANGE.env} == STRANGE.env
    code = [f"{place.workspace}/{one}" for one in STRANGE.code]
    assert seen["PYTHONPATH"] == ":".join([*code, "/the user's"])
    names = {path.name for path in folder.iterdir()}
    assert names == {"job.sh", f"{name}.out", f"{name}.err"}
    assert (folder / f"{name}.out").read_text() == "to-out\n"
    assert (folder / f"{name}.err").read_text() == "to-err\n"


def test_without_a_pythonpath_of_the_user_there_is_no_empty_part(place):
    """An empty part means the current directory, which is full of files that tasks have written."""
    folder = place.write(place.directory("test.say", "abc"))
    place.run(folder / "job.sh", folder)
    assert "" not in place.environ["PYTHONPATH"].split(":")


@pytest.mark.parametrize("index", [0, 7, 12])
def test_an_element_of_an_array_goes_on_in_its_own_directory(place, index):
    tasks = {0: "test.say", 12: "it's $(touch pwned)", 7: "-rf *"}
    folders = {one: place.write(place.directory(task, "abc")) for one, task in tasks.items()}
    batch = place.workspace / ".xpm" / "batches" / "t0ken"
    batch.mkdir(parents=True)
    (batch / "array.sh").write_text(SCRIPTS.render(place.job, {one: f"jobs/{task}/abc" for one, task in tasks.items()}))
    ran = place.run(batch / "array.sh", batch, SLURM_ARRAY_TASK_ID=str(index))
    assert ran.returncode == 7
    assert place.calls[0] == place.calls[2] == str(folders[index])


def test_an_element_whose_directory_is_gone_runs_nothing(place):
    batch = place.workspace / ".xpm" / "batches" / "t0ken"
    batch.mkdir(parents=True)
    (batch / "job.sh").write_text("touch ran")
    (batch / "array.sh").write_text(SCRIPTS.render(place.job, {0: "jobs/gone/abc"}))
    assert place.run(batch / "array.sh", batch, SLURM_ARRAY_TASK_ID="0").returncode == 1
    assert not (batch / "ran").exists()


def test_a_log_for_each_attempt(place):
    """The latest has the plain name; empty ones are not kept."""
    place.job = replace(place.job, name="say")
    folder = place.write(place.directory("test.say", "abc"))
    (folder / "say.out").write_text("first\n")
    (folder / "say.err").touch()
    for _ in range(2):
        place.run(folder / "job.sh", folder)
    logs = {path.name: path.read_text() for path in folder.iterdir() if path.name != "job.sh"}
    assert logs == {
        "say.1.out": "first\n",
        "say.2.out": "to-out\n",
        "say.out": "to-out\n",
        "say.1.err": "to-err\n",
        "say.err": "to-err\n",
    }


def test_setup_comes_before_the_task_and_its_words_go_to_the_log(place):
    lines = ["echo loading; FROM_SETUP='a b'; export FROM_SETUP", "false", "export OMP_NUM_THREADS=1"]
    place.job = replace(place.job, name="say", setup=lines, env={"OMP_NUM_THREADS": "8"})
    folder = place.write(place.directory("test.say", "abc"))
    place.run(folder / "job.sh", folder)
    assert (folder / "say.out").read_text() == "loading\nto-out\n"
    assert (place.environ["FROM_SETUP"], place.environ["OMP_NUM_THREADS"]) == ("a b", "8")


def test_a_directive_that_does_not_fit_on_a_line_is_refused():
    job = replace(PLAIN, request=Request("x", options={"comment": "a\n#SBATCH --uid=root"}))
    with pytest.raises(LauncherError, match="control character"):
        SCRIPTS.render(job)


# --- The user's own templates


def own(folder: Path, **texts: str) -> Scripts:
    for name, text in texts.items():
        (folder / f"{name}.sh.j2").write_text(text)
    return Scripts([folder, shipped_data("templates")])


def test_the_users_templates_win_and_may_build_on_the_shipped_ones(tmp_path):
    text = '{% extends "job.sh.j2" %}{% block setup %}ulimit -c 0\necho {{ name }}\n{{ super() }}{% endblock %}'
    rendered = own(tmp_path, slurm=text).render(STRANGE)
    assert f"ulimit -c 0\necho {shlex.quote(HOSTILE)}\n" in rendered
    assert f"export WORDS={shlex.quote(HOSTILE)}\n" in rendered
    assert own(tmp_path).render(PLAIN_LOCAL) == SCRIPTS.render(PLAIN_LOCAL)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("#!/bin/bash\n\n{% if %}", "slurm.sh.j2, line 3", "the template is broken"),
        ("{{ name", "slurm.sh.j2, line 1", "the template is broken"),
        ("#\n{{ nmae }}", "slurm.sh.j2, line 2", "'nmae' is undefined"),
        ("{{ request.nmae }}", "slurm.sh.j2, line 1", "has no attribute 'nmae'"),
        ('\n{% extends "jbo.sh.j2" %}', "slurm.sh.j2, line 2", "no template 'jbo.sh.j2'"),
        ("{{ name | nofilter }}", "slurm.sh.j2, line 1", "No filter named 'nofilter'"),
        ("{% block setup %}\n{{ 1 / 0 }}{% endblock %}", "slurm.sh.j2, line 2", "ZeroDivisionError: division by zero"),
        (
            '{% extends "slurm.sh.j2" %}\n{% block setup %}\n\n{{ setup + 1 }}{% endblock %}',
            "slurm.sh.j2, line 4",
            "TypeError: can only concatenate list",
        ),
        ('{% include "slurm.sh.j2" %}\n{{ nmae }}', "slurm.sh.j2, line 2", "'nmae' is undefined"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "slurm.sh.j2, line 1", "the template goes round and round"),
    ],
)
def test_a_broken_template_is_told_with_its_place(tmp_path, text, where, what):
    with pytest.raises(TemplateError) as caught:
        own(tmp_path, slurm=text).render(PLAIN)
    assert caught.value.where.endswith(where)
    assert what in caught.value.what


@pytest.mark.parametrize("base", ["slurm.sh.j2", "shipped/slurm.sh.j2"])
def test_a_template_builds_on_the_shipped_one_of_its_own_name(tmp_path, base):
    text = '{% extends "' + base + '" %}{% block setup %}\nulimit -c 0\n{{ super() }}{% endblock %}'
    mine = own(tmp_path, slurm=text)
    before, _, after = mine.render(PLAIN).partition("ulimit -c 0\n")
    assert before + after == SCRIPTS.render(PLAIN)
    array = GOLDENS["slurm-array"]
    assert mine.render(*array) == SCRIPTS.render(*array)


def test_a_launcher_names_its_template(tmp_path):
    text = '{% extends "shipped/slurm.sh.j2" %}{% block setup %}\nulimit -c 0\n{{ super() }}{% endblock %}'
    mine = own(tmp_path, site=text)
    rendered = mine.render(replace(PLAIN, template="site.sh.j2"))
    assert "ulimit -c 0\n" in rendered and mine.render(PLAIN) == SCRIPTS.render(PLAIN)
    # the job that builds an environment asks for the same, but needs no Python
    build = replace(PLAIN, template="site.sh.j2", environment=Environment(manager="uv"), folder="f", is_build=True)
    assert "#SBATCH --account=project\n" in mine.render(build)


def test_a_template_that_is_not_there_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(TemplateError, match=r"no template 'site\.sh\.j2'") as caught:
        own(tmp_path).render(replace(PLAIN, template="site.sh.j2"))
    assert str(tmp_path) in caught.value.hint


def test_what_a_users_template_inserts_is_quoted(tmp_path):
    text = '{% extends "slurm.sh.j2" %}{% block setup %}\necho {{ name }} {{ env.WORDS | upper }}\n{% endblock %}'
    rendered = own(tmp_path, slurm=text).render(STRANGE)
    assert f"echo {shlex.quote(HOSTILE)} {shlex.quote(HOSTILE.upper())}\n" in rendered


def test_a_scheduler_without_a_template(tmp_path):
    scripts: Any = Scripts([tmp_path])
    with pytest.raises(TemplateError, match=r"no template 'slurm\.sh\.j2'"):
        scripts.render(PLAIN)
