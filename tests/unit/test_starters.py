"""How a task's processes are started, and which each of them is: tables, and commands as they are run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from experimaestro_hpc import ResumableTask, Task
from experimaestro_hpc.driver.environment import Environment
from experimaestro_hpc.driver.launcher import Launcher, Mirror, Processes, parse_launcher
from experimaestro_hpc.driver.processes import processes_of
from experimaestro_hpc.errors import LauncherError, ParameterError, SubmissionError
from experimaestro_hpc.resources import ResourceError, Resources
from experimaestro_hpc.runtime.ranks import variables_of
from experimaestro_hpc.runtime.starters import expand, find_hosts, gpus_of, mpirun, node_script, remote, srun
from experimaestro_hpc.schedulers import scheduler_class
from experimaestro_hpc.schedulers.base import Request

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = 'it\'s $(touch pwned) `touch pwned` "q"\nexport X=1 \\ é ${HOME} * ~ &'

# --- Which process this is


@pytest.mark.parametrize(
    ("start", "environ", "given", "found"),
    [
        ("srun", {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}, [], "0 0 0"),
        ("srun", {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}, [], "5 1 1"),
        # dealt out one by one
        ("srun", {"SLURM_PROCID": "5", "SLURM_LOCALID": "2", "SLURM_NODEID": "1"}, [], "5 2 1"),
        ("srun", {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "PMI_RANK": "9"}, [], "5 1 1"),
        # Open MPI starts one helper on each node with srun: its variables are not the process's
        ("mpirun", {"OMPI_COMM_WORLD_RANK": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "SLURM_PROCID": "1"}, [], "4 0 1"),
        ("mpirun", {"PMI_RANK": "7", "MPI_LOCALRANKID": "3", "PMI_SIZE": "8"}, [], "7 3 1"),
        ("mpirun", {"PMI_RANK": "7"}, [], "7 3 1"),
        ("mpirun", {"PMIX_RANK": "2"}, [], "2 2 0"),
        ("oarsh", {"RANK": "9"}, ["1", "3"], "7 3 1"),
        ("ssh", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, ["1", "0"], "4 0 1"),
        ("local", {}, ["0", "2"], "2 2 0"),
    ],
)
def test_ranks(start, environ, given, found):
    made = variables_of(start, environ, 2, 4, given)
    assert " ".join(made[name] for name in ("RANK", "LOCAL_RANK", "NODE_RANK")) == found
    assert (made["WORLD_SIZE"], made["LOCAL_WORLD_SIZE"]) == ("8", "4")


@pytest.mark.parametrize(
    ("start", "environ", "words"),
    [
        ("srun", {}, "SLURM_PROCID is not set"),
        ("mpirun", {"SLURM_PROCID": "1"}, "OMPI_COMM_WORLD_RANK or PMI_RANK or PMIX_RANK is not set"),
        ("mpirun", {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}, "process 0 of 4; the task asked for 2 "),
        ("srun", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "process 0 of 2"),
        ("mpirun", {"PMIX_RANK": "8"}, "process 8 of 8"),
    ],
)
def test_started_as_something_else(start, environ, words):
    with pytest.raises(ValueError, match=words):
        variables_of(start, environ, 2, 4)


# --- What starts them


def test_srun():
    assert srun(2, 4, ["--mpi=pmix"], {"SLURM_CPUS_PER_TASK": "8"}) == [
        *("srun", "--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=8"),
        *("--export=ALL", "--input=none", "--kill-on-bad-exit=1", "--mpi=pmix"),
    ]
    assert not [word for word in srun(2, 1, [], {}) if word.startswith("--cpus-per-task")]


def test_mpirun_finds_the_nodes_where_it_is_told():
    options = ["--hostfile", "$OAR_NODEFILE", "--mca", "plm_rsh_agent", "${AGENT}"]
    assert mpirun(2, 4, options, {"OAR_NODEFILE": "/a b", "AGENT": "oarsh"}) == [
        *("mpirun", "-n", "8", "--hostfile", "/a b", "--mca", "plm_rsh_agent", "oarsh"),
    ]
    assert expand(["$NONE", "a$", "$$X"], {"X": "1"}) == ["$NONE", "a$", "$1"]


def test_remote():
    assert remote("oarsh", "o2", [], {}, "/it's/.node", 1) == [
        "oarsh",
        "-T",
        "o2",
        "exec /bin/sh '/it'\"'\"'s/.node' 1",
    ]
    words = remote("ssh", "c2", ["-p", "$PORT"], {"PORT": "22"}, "/n", 3)
    assert words[-4:] == ["-p", "22", "c2", "exec /bin/sh /n 3"]
    assert "BatchMode=yes" in words


ENVIRON = {
    "PATH": "/opt/bin:/bin",
    "WORDS": HOSTILE,
    "EMPTY": "",
    "PWD": "/here",
    "SHLVL": "2",
    "SSH_CONNECTION": "x",
    "BASH_FUNC_module%%": "() { :; }",
    "a-b": "c",
    "HOSTNAME": "o1",
    "CUDA_VISIBLE_DEVICES": "0",
}


def test_the_script_of_a_node_is_golden():
    text = node_script(ENVIRON, "/work/it's", ["/usr/bin/python3", "/lib/$x.py"], 2, ["0", "1,3", ""])
    path = GOLDEN / "node.sh"
    if os.environ.get("XPM_HPC_GOLDEN") == "new":
        path.write_text(text)
    assert text == path.read_text()


def test_the_script_of_a_node_brings_the_environment_and_starts_all(tmp_path):
    (folder := tmp_path / "it's $(touch pwned)").mkdir()
    (note := tmp_path / "no te").write_text('#!/bin/sh\nenv -0 >"env-$3"\necho "$@" >"args-$3"\n')
    note.chmod(0o755)
    (tmp_path / "n.sh").write_text(node_script(ENVIRON, str(folder), [str(note), "x"], 2, ["0", "1,3"]))
    ran = subprocess.run(["/bin/sh", tmp_path / "n.sh", "1"], capture_output=True, cwd="/", env={"HOSTNAME": "o2"})
    assert (ran.returncode, ran.stderr) == (0, b"")
    for local in ("0", "1"):
        assert (folder / f"args-{local}").read_text() == f"x 1 {local}\n"
        seen = dict(pair.split("=", 1) for pair in (folder / f"env-{local}").read_text().split("\0")[:-1])
        assert (seen["WORDS"], seen["EMPTY"], seen["PATH"]) == (HOSTILE, "", ENVIRON["PATH"])
        assert (seen["CUDA_VISIBLE_DEVICES"], seen["HOSTNAME"]) == ("1,3", "o2")
        assert not {"SSH_CONNECTION", "a-b", "BASH_FUNC_module%%", "X"} & seen.keys()
    assert not list(tmp_path.rglob("pwned"))


def test_gpus_of_a_node():
    lines = [
        f" gpu = '{2 * node + device}' , network_address = 'o{node}.site' , gpudevice = '{device}' , mem = '1' ,"
        for node in (1, 11)
        for device in (1, 0, 1)
    ]
    assert gpus_of("\n".join(lines), "o1.site") == gpus_of("\n".join(lines), "o11") == "0,1"
    assert gpus_of("\n".join(lines), "o2") == gpus_of("", "o1") == ""


def test_hosts(tmp_path):
    here = os.uname().nodename
    (tmp_path / "nodes").write_text(f"o1\no1\n{here}\n{here}\no2\n")
    assert find_hosts({"OAR_NODEFILE": str(tmp_path / "nodes")}, lambda _: "") == [here, "o1", "o2"]
    assert find_hosts({"OAR_NODEFILE": str(tmp_path / "gone")}, lambda _: "") == []
    asked = []
    assert find_hosts({"SLURM_JOB_NODELIST": "c[1-2]"}, lambda argv: asked.append(argv) or "c1\nc2\n") == ["c1", "c2"]
    assert asked == [["scontrol", "show", "hostnames", "c[1-2]"]]


# --- What the launcher says


class Plain(Task):
    pass


class Goes(ResumableTask):
    pass


class Own(Task):
    __xpmstart__ = "none"


class Odd(Task):
    __xpmstart__ = "mpirun"


def launcher(scheduler: str = "slurm", start: str = "", manager: str = "", nodes: str = "shared") -> Launcher:
    return Launcher(
        "there",
        scheduler,
        processes=Processes(start=start, options=("-v",)),
        environment=Environment(manager=manager),
        mirror=Mirror(nodes=nodes),
    )


TWO = "nodes=2 & tasks_per_node=4"


@pytest.mark.parametrize(
    ("there", "asked", "task", "start"),
    [
        (launcher(), "nodes=1", Plain(), None),
        (launcher(), "cores=8 & tasks_per_node=1", Plain(), None),
        (launcher(), TWO, Plain(), "srun"),
        (launcher(), "tasks_per_node=4", Plain(), "srun"),
        (launcher("oar"), TWO, Plain(), "oarsh"),
        (launcher("oar", "ssh"), TWO, Plain(), "ssh"),
        (launcher("local"), "tasks_per_node=4", Plain(), "local"),
        (launcher("slurm", "mpirun"), TWO, Goes(), "mpirun"),
        (launcher("slurm", "none"), TWO, Plain(), None),
        (launcher("slurm", "mpirun"), TWO, Own(), None),
        (launcher("slurm", manager="uv"), TWO, Plain(), "srun"),
        (launcher("slurm", manager="apptainer"), "tasks_per_node=4", Plain(), "local"),
        (launcher("slurm", manager="apptainer"), TWO, Own(), None),
        (launcher("slurm", nodes="staged"), "tasks_per_node=4", Plain(), "srun"),
    ],
)
def test_what_the_runtime_is_told(there, asked, task, start):
    told = processes_of(there, Resources.parse(asked), task, "task/1")
    if start is None:
        assert told is None
        return
    resources = Resources.parse(asked)
    assert told == {
        "start": start,
        "options": ["-v"],
        "nodes": resources.node_count,
        "per_node": resources.tasks_per_node,
        "resumes": isinstance(task, Goes),
    }


@pytest.mark.parametrize(
    ("there", "task", "error", "words"),
    [
        (launcher(nodes="staged"), Plain(), ResourceError, "a task on 2 nodes needs nodes that see the workdir"),
        (launcher(nodes="staged"), Own(), ResourceError, "needs nodes that see the workdir"),
        (launcher(manager="apptainer"), Plain(), ResourceError, "srun, which starts a task's processes, is not in the"),
        (launcher(start="local"), Plain(), ResourceError, "on 2 nodes cannot be started with start = 'local'"),
        (launcher(), Odd(), ParameterError, "__xpmstart__ of Odd is 'mpirun'"),
    ],
)
def test_what_cannot_be_is_refused(there, task, error, words):
    with pytest.raises(error, match=words) as caught:
        processes_of(there, Resources.parse(TWO), task, "task/1")
    assert (caught.value.where, bool(caught.value.hint)) == ("task/1", True)


def parsed(text: str) -> Launcher:
    return parse_launcher(f'scheduler = "slurm"\n{text}', name="there", path=Path("there.toml"))


def test_the_table_in_the_launcher_file():
    assert parsed("").processes == Processes()
    assert parsed('[processes]\nstart = "mpirun"\noptions = ["-v"]').processes == Processes("mpirun", ("-v",))
    with pytest.raises(LauncherError, match="unknown start 'srnu' in \\[processes\\]; did you mean 'srun'"):
        parsed('[processes]\nstart = "srnu"')
    with pytest.raises(LauncherError, match="start"):
        parsed('start = "srun"')


def test_this_machine_is_one_node():
    directives = scheduler_class("local").directives
    with pytest.raises(SubmissionError, match="this machine is one node, 2 asked"):
        directives(Request("x", Resources(nodes=2)))
    assert directives(Request("x", Resources(cores=2, tasks_per_node=3))) == ["#XPM cores=6"]


def test_slurm_is_told_that_the_processes_are_on_one_node():
    lines = scheduler_class("slurm").directives(Request("x", Resources(cores=2, tasks_per_node=3)))
    assert {"#SBATCH --nodes=1", "#SBATCH --ntasks-per-node=3", "#SBATCH --cpus-per-task=2"} <= set(lines)
    lines = scheduler_class("slurm").directives(Request("x", Resources(tasks_per_node=3), options={"nodes": 4}))
    assert "#SBATCH --nodes=4" in lines
