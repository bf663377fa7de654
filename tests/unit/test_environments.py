"""Environments: what the launcher file may say, the scripts that build them, and builders that fail or are killed.

Golden scripts are made anew with ``XPM_HPC_GOLDEN=new pytest tests/unit/test_environments.py``: look at the difference.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from experimaestro_hpc.agent.environments import Environments, is_builder
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.driver.data import shipped_data
from experimaestro_hpc.driver.environment import Environment
from experimaestro_hpc.driver.launcher import parse_launcher
from experimaestro_hpc.driver.plan import PlannedJob, make_plan
from experimaestro_hpc.driver.recipe import Recipe, make_recipe
from experimaestro_hpc.driver.script import ScriptJob, Scripts
from experimaestro_hpc.errors import LauncherError, WorkspaceError
from experimaestro_hpc.resources import Resources
from experimaestro_hpc.runtime.files import read_json
from experimaestro_hpc.runtime.parents import BUILDER, words_of_failure
from experimaestro_hpc.schedulers.base import Request

GOLDEN = Path(__file__).parent / "golden"
SCRIPTS = Scripts([shipped_data("templates")])
HOSTILE = """it's $(touch pwned) `touch pwned` "q" ; \\ ${HOME} * & > pwned"""
FOLDER = ".xpm/env/0123456789abcdef"


# --- The launcher file


def parsed(text: str) -> Environment:
    return parse_launcher(f'scheduler = "slurm"\n[environment]\n{text}', name="x", path=Path("x.toml")).environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Environment()),
        ('manager = "uv"', Environment(manager="uv", file="uv.lock")),
        (
            'manager = "uv"\npython = "3.12"\noptions = ["--extra", "gpu"]\nbuild = "job"\nbuild_resources = "mem=8G"',
            Environment("3.12", (), {}, "uv", "job", "cpu(mem=8G)", "uv.lock", (), "", ("--extra", "gpu")),
        ),
        ('manager = "venv"', Environment(manager="venv", file="requirements.txt")),
        ('manager = "venv"\nfile = "a/b.txt"', Environment(manager="venv", file="a/b.txt")),
        (
            'manager = "venv"\nmodules = ["python/3.11"]',
            Environment(manager="venv", file="requirements.txt", modules=("python/3.11",)),
        ),
        ('manager = "conda"', Environment(manager="conda", file="environment.yml")),
        ('manager = "module"\nmodules = ["cuda/12"]', Environment(manager="module", modules=("cuda/12",))),
        ('manager = "apptainer"\nimage = "~/a.sif"', Environment(manager="apptainer", image="~/a.sif")),
    ],
)
def test_what_it_may_say(text, expected):
    assert parsed(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('manager = "vnv"', "unknown manager 'vnv' in [environment]; did you mean 'venv'?"),
        ('manager = ""', "unknown manager '' in [environment]"),
        ('build = "job"', "'build' in [environment] goes with manager = "),
        ('manager = "uv"\nbuild = "node"', "unknown build 'node' in [environment]; known: login, job"),
        ('modules = ["cuda/12"]', "'modules' in [environment] goes with manager = "),
        (
            'manager = "uv"\nimage = "a.sif"',
            "'image' in [environment] goes with manager = \"apptainer\", not with 'uv'",
        ),
        ('manager = "module"\nmodules = ["a"]\nfile = "x"', "'file' in [environment] goes with manager = "),
        ('manager = "module"', "key 'modules' is missing in [environment]"),
        ('manager = "module"\nmodules = [" "]', "'modules' in [environment] holds an empty text"),
        ('manager = "module"\nmodules = "cuda"', "'modules' in [environment] must be a list of texts"),
        ('manager = "apptainer"', "key 'image' is missing in [environment]"),
        ('manager = "conda"\npython = "3.12"', "'python' in [environment] is for other managers than 'conda'"),
        ('manager = "venv"\nfile = "/etc/passwd"', "must be a name inside the project"),
        ('manager = "venv"\nfile = "../x.txt"', "must be a name inside the project"),
        ('manager = "uv"\nfile = "poetry.lock"', "must be a uv.lock"),
        ('manager = "uv"\nbuild_resources = "gpus=1"', "'build_resources' in [environment]: "),
        ('manager = "uv"\n[mirror]\nnodes = "staged"', "'nodes' in [mirror] cannot be 'staged' here"),
    ],
)
def test_what_it_may_not_say(text, words):
    with pytest.raises(LauncherError) as caught:
        parsed(text)
    assert words in caught.value.what
    assert caught.value.where.startswith("x.toml, line ")


# --- Scripts

CASES: dict[str, tuple[Environment, str]] = {
    "uv": (Environment("3.12", manager="uv", options=("--extra", "gpu")), "study/uv.lock"),
    "venv": (Environment(manager="venv", modules=("python/3.11",)), "requirements.txt"),
    "conda": (Environment(manager="conda"), "environment.yml"),
    "module": (Environment(manager="module", modules=("cuda/12", "python/3.11")), ""),
    "apptainer": (Environment(manager="apptainer", image="docker://python:3.12", options=("--bind", "/data")), ""),
    "apptainer-sif": (Environment(manager="apptainer", image="~/images/torch.sif"), ""),
    "hostile": (
        Environment(
            HOSTILE,
            env={"WORDS": HOSTILE},
            manager="venv",
            modules=(HOSTILE,),
            options=(HOSTILE, ""),
        ),
        f"{HOSTILE}/{HOSTILE}.txt",
    ),
}


def golden(name: str, text: str) -> None:
    path = GOLDEN / f"environment-{name}.sh"
    if os.environ.get("XPM_HPC_GOLDEN") == "new":
        path.write_text(text)
    assert text == path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)


def job(environment: Environment, is_build: bool = False) -> ScriptJob:
    request = Request("train", Resources.parse("gpu & duration=1h"), log="train.err")
    name = "environment" if is_build else "train"
    code = [".xpm/code/fedc"]
    return ScriptJob(
        "slurm", request, name, "", ".xpm/lib/0123", code, environment=environment, folder=FOLDER, is_build=is_build
    )


@pytest.mark.parametrize("name", CASES)
def test_the_script_that_builds(name):
    golden(f"{name}-build", SCRIPTS.render_build(*CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_the_job_that_runs_in_it(name):
    golden(f"{name}-job", SCRIPTS.render(job(CASES[name][0])))


@pytest.mark.parametrize("scheduler", ["slurm", "local", "oar"])
def test_the_job_that_builds_it(scheduler):
    made = replace(job(CASES["uv"][0], is_build=True), scheduler=scheduler)
    made = replace(made, request=Request("environment", Resources.parse("duration=1h"), log="environment.err"))
    golden(f"by-{scheduler}", SCRIPTS.render(made))


TOOLS = {
    # what each writes is what it is asked for, each word on a line of its own
    "conda": 'printf "%s\\n" "$@" >>"$ASKED"; mkdir -p "$4/bin"; ln -s "$PYTHON" "$4/bin/python"',
    "apptainer": 'printf "%s\\n" "$@" >>"$ASKED"; [ "$1" != pull ] || touch "$2"',
}


def run_build(
    folder: Path, environment: Environment, file: str, tools: Mapping[str, str]
) -> tuple[int, str, list[str]]:
    """Run a build script with stand-ins for what this machine lacks: exit status, output, and what they were asked."""
    bin_ = folder / "bin"
    bin_.mkdir(parents=True)
    for name, text in tools.items():
        (bin_ / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin_ / name).chmod(0o755)
    place = folder / "env"
    (place / "source" / file).parent.mkdir(parents=True)
    (place / "source" / file).touch()
    (place / "build.sh").write_text(SCRIPTS.render_build(environment, file))
    asked = folder / "asked"
    python = subprocess.run(["which", "python3"], capture_output=True, text=True, check=True).stdout.strip()
    environ = {"PATH": f"{bin_}:/usr/bin:/bin", "HOME": str(folder), "ASKED": str(asked), "PYTHON": python}
    ran = subprocess.run(["bash", "build.sh"], cwd=place, env=environ, capture_output=True, text=True, check=False)
    assert not list(folder.rglob("pwned*"))
    return ran.returncode, ran.stdout + ran.stderr, asked.read_text().splitlines() if asked.exists() else []


def test_conda_is_asked_in_words_that_stay_words(tmp_path):
    environment = Environment(manager="conda", options=(HOSTILE,))
    status, said, asked = run_build(tmp_path, environment, f"{HOSTILE}.yml", {"conda": TOOLS["conda"]})
    assert (status, (tmp_path / "env/.complete").exists()) == (0, True), said
    prefix = str(tmp_path / "env/env")
    assert asked == ["env", "create", "--prefix", prefix, "--file", f"{HOSTILE}.yml", HOSTILE]


def test_an_image_is_pulled_and_tried(tmp_path):
    environment = Environment(manager="apptainer", image=f"docker://{HOSTILE}")
    status, said, asked = run_build(tmp_path, environment, "", TOOLS)
    assert status == 0, said
    image = str(tmp_path / "env/image.sif")
    assert asked[:6] == ["pull", image, f"docker://{HOSTILE}", "exec", image, "python3"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (Environment(manager="conda"), "there is no mamba, conda or micromamba here"),
        (Environment(manager="apptainer", image="a.sif"), "there is no apptainer here"),
        (Environment(manager="module", modules=("cuda/12",)), "module: command not found"),
        (Environment("/no/such/python", manager="venv"), "/no/such/python ended with exit status 127"),
    ],
)
def test_what_is_not_there_is_told(tmp_path, environment, words):
    if environment.manager == "module" and Path("/usr/share/modules/init/bash").exists():
        words = "cuda/12"
    status, said, _ = run_build(tmp_path, environment, "x.yml", {})
    assert status == 1
    assert words in said
    assert not (tmp_path / "env/.complete").exists()


def test_a_job_that_cannot_build_says_the_end_of_its_log(tmp_path):
    """Whatever the log holds, the marker is JSON that can be read."""
    folder = tmp_path / "jobs/xpm.environment/0a"
    folder.mkdir(parents=True)
    place = tmp_path / FOLDER
    place.mkdir(parents=True)
    made = replace(job(CASES["uv"][0], is_build=True), scheduler="local", request=Request("x", log="x.err"))
    (folder / "job.sh").write_text(SCRIPTS.render(made))
    hostile = r"""printf 'many\nlines\n"quoted" \\ back\n\033[31mred\t\377\n'; exit 3"""
    (place / "build.sh").write_text(hostile)
    ran = subprocess.run(["bash", "job.sh"], cwd=folder, check=False)
    assert ran.returncode == 3
    marker = read_json(str(folder / "environment.failed"))
    assert marker and (marker["state"], marker["reason"], marker["exit_code"]) == ("failed", "exit", 3)
    assert marker["message"] == 'many\nlines\n"quoted" \\ back\n[31mred'
    assert words_of_failure(f"{BUILDER}/0a", marker).endswith('"quoted" \\ back\n[31mred')
    (place / "build.sh").write_text("exit 0")
    subprocess.run(["bash", "job.sh"], cwd=folder, check=True)
    assert (read_json(str(folder / "environment.done")) or {})["state"] == "done"
    assert not (folder / "environment.failed").exists()


# --- Recipes


def recipe(root: Path, environment: Environment, start: Path | None = None) -> Recipe:
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return make_recipe(environment, root, start or root, names, SCRIPTS)


VENV = Environment(manager="venv", file="requirements.txt")


def test_the_hash_is_of_what_matters(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("numpy==1\n")
    first = recipe(tmp_path, VENV).digest
    assert recipe(tmp_path, replace(VENV, env={"OMP_NUM_THREADS": "8"})).digest == first
    assert recipe(tmp_path, replace(VENV, build="job", build_resources="mem=8G")).digest == first
    (tmp_path / "other.py").write_text("changed")
    assert recipe(tmp_path, VENV).digest == first
    others = [
        replace(VENV, python="python3.12"),
        replace(VENV, options=("--pre",)),
        replace(VENV, setup=("module load python",)),
        replace(VENV, modules=("python",)),
        replace(VENV, manager="conda"),
    ]
    found = {recipe(tmp_path, one).digest for one in others}
    file.write_text("numpy==2\n")
    found.add(recipe(tmp_path, VENV).digest)
    assert len(found - {first}) == len(others) + 1


def test_files_that_are_named_by_others_go_along(tmp_path):
    (tmp_path / "study/more").mkdir(parents=True)
    (tmp_path / "study/requirements.txt").write_text("-r more/a.txt\nnumpy  # -r not.txt\n-r https://host/x.txt\n")
    (tmp_path / "study/more/a.txt").write_text("--constraint=../../c.txt\n-r a.txt\n")
    (tmp_path / "c.txt").write_text("numpy<2\n")
    assert list(recipe(tmp_path, VENV, tmp_path / "study").files) == [
        "c.txt",
        "study/more/a.txt",
        "study/requirements.txt",
    ]
    (tmp_path / "c.txt").unlink()
    with pytest.raises(LauncherError, match=r"it names '\.\./\.\./c\.txt', which is not in the project"):
        recipe(tmp_path, VENV, tmp_path / "study")


def test_the_nearest_lock_file_and_what_lies_beside_it(tmp_path):
    uv = Environment(manager="uv", file="uv.lock")
    (tmp_path / "member/deep").mkdir(parents=True)
    for name in ("uv.lock", "pyproject.toml", ".python-version", "member/pyproject.toml"):
        (tmp_path / name).write_text(name)
    made = recipe(tmp_path, uv, tmp_path / "member/deep")
    assert sorted(made.files) == [".python-version", "member/pyproject.toml", "pyproject.toml", "uv.lock"]
    (tmp_path / "member/uv.lock").write_text("its own")
    assert sorted(recipe(tmp_path, uv, tmp_path / "member/deep").files) == ["member/pyproject.toml", "member/uv.lock"]
    (tmp_path / "pyproject.toml").unlink()
    with pytest.raises(LauncherError, match=r"there is no pyproject\.toml beside it"):
        recipe(tmp_path, uv)


# --- The agent's part


class Builds:
    """A workspace with an environment, built by a script of the test's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER
        self.digest = self.folder.name
        self.folder.mkdir(parents=True)
        self.environments = self.agent()

    def agent(self) -> Environments:
        return Environments(Layout(self.root))

    def write(self, setup: str) -> None:
        environment = Environment(manager="module", setup=(setup,))
        (self.folder / "build.sh").write_text(SCRIPTS.render_build(environment, ""))

    def end(self, agent: Environments | None = None) -> tuple[str, list[str]]:
        """How a build ends."""
        size, state, lines = -1, "building", []
        while state == "building":
            news = (agent or self.environments).watch(self.digest, size, 30)
            size, state, lines = news["size"], news["state"], news["lines"]
        return state, lines


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    return Builds(tmp_path)


def test_it_is_built_once(builds):
    builds.write("echo once >>ran")
    builds.environments.start(builds.digest)
    assert builds.end()[0] == "complete"
    other = builds.agent()
    other.start(builds.digest)
    assert builds.end(other)[0] == "complete"
    assert (builds.folder / "ran").read_text() == "once\n"


def test_a_failed_build_shows_its_last_lines_and_the_next_begins_anew(builds):
    builds.write("mkdir env; touch env/half; echo cannot go on; exit 7")
    builds.environments.start(builds.digest)
    state, lines = builds.end()
    assert (state, lines[-1]) == ("failed", "cannot go on")
    builds.write("[ ! -e env/half ] || exit 1")
    builds.environments.start(builds.digest)
    assert builds.end()[0] == "complete"


def test_nothing_to_build_with_is_a_failure(builds):
    builds.environments.start(builds.digest)
    assert builds.end() == ("failed", [])


def test_a_builder_that_was_killed(builds, wait_until):
    """Whoever waits for it builds anew."""
    builds.write("echo $$ >pid.new; mv pid.new pid; until [ -e go ]; do sleep 0.05; done")
    builds.environments.start(builds.digest)
    wait_until((builds.folder / "pid").exists)
    other = builds.agent()
    other.start(builds.digest)
    assert other.watch(builds.digest, 0, 0)["state"] == "building"
    pid = int((builds.folder / "pid").read_text())
    (builds.folder / "pid").unlink()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: other.watch(builds.digest, 0, 0) and (builds.folder / "pid").exists())
    (builds.folder / "go").touch()
    assert builds.end(other)[0] == "complete"


def test_the_signal_that_ended_a_build_is_told(builds):
    builds.write("kill -KILL $$")
    builds.environments.start(builds.digest)
    state, lines = builds.end()
    assert (state, lines[-1]) == ("failed", "the build was ended by signal 9")


def test_two_builders_at_once(builds):
    builds.write("echo once >>ran")
    scripts = [subprocess.Popen(["bash", "build.sh"], cwd=builds.folder) for _ in range(5)]
    assert [one.wait(60) for one in scripts] == [0] * 5
    assert (builds.folder / "ran").read_text() == "once\n"


@pytest.mark.parametrize("name", ["..", "", "a/b", "../../etc"])
def test_names_that_are_no_environments(builds, name):
    with pytest.raises(WorkspaceError):
        builds.environments.watch(name, 0, 0)


def test_a_job_whose_environment_was_removed_runs_again(builds):
    name = f"{BUILDER}/0a"
    layout = Layout(builds.root)
    folder = layout.job(name)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(f'{{"environment": "{builds.digest}"}}')
    (folder / "environment.done").write_text("{}")
    (builds.folder / ".complete").touch()
    assert builds.environments.forget_removed([name, "test.say/0a"]) == []
    (builds.folder / ".complete").unlink()
    assert builds.environments.forget_removed([name]) == [name]
    assert (layout.marker(name) or {})["message"] == "the environment was removed"
    assert is_builder(name) and not is_builder("test.say/0a")


# --- The plan


def test_it_is_built_only_for_jobs_that_are_submitted():
    jobs = [PlannedJob("e", (), "", True), PlannedJob("a", ("e",), ""), PlannedJob("b", ("e",), "")]
    done = {"state": "done"}
    plan = make_plan(jobs, {"a": done, "b": done})
    assert (plan.submit, plan.reuse) == ((), ("e", "a", "b"))
    plan = make_plan(jobs, {"a": done})
    assert plan.submitted == ["e", "b"]
    assert plan.submit[1].parents == {"b": ("e",)}
