"""A user's desk: what the end-to-end tests do again and again, in a user's words.

A `Desk` is a folder on the laptop, where the scripts are started, and one on the cluster, the workdir of the
launchers that it writes. Both have a name of their own, so that the scheduler can be asked for this desk's jobs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rig import LAPTOP_VENV, Rig
from rig_machine import STANDARD_PATH
from sites import Site

REPOSITORY = Path(__file__).resolve().parent.parent.parent
HELLOWORLD = (REPOSITORY / "docs/examples/helloworld.py").read_text()
#: seconds; a test that waits longer has found something
DEADLINE = 90.0

#: helloworld's graph, each task of which goes on when the test says so: see `Desk.open`
GATED = """
import os, sys, time
from experimaestro_hpc import Param, Task, experiment, progress

def wait_for(gate):
    for _ in range(1200):
        if os.path.exists("../../../open-" + gate):
            return
        time.sleep(0.1)
    raise TimeoutError(gate)

class Say(Task):
    word: Param[str]

    def execute(self):
        print("thinking of", self.word)  # not flushed: nobody thinks of that
        progress(0.5)
        wait_for(self.word)
        print(self.word.upper())

class Concat(Task):
    strings: Param[list[Say]]

    def execute(self):
        wait_for("concat")
        print(" ".join(one.__xpm_stdout__.read_text().split()[-1] for one in self.strings))

if __name__ == "__main__":
    with experiment(sys.argv[1], "gated"):
        words = [Say(word=word).submit() for word in ("hello", "world")]
        Concat(strings=words).tag("y", 1).submit()
"""
#: state and reason of its jobs once both says have started
UNDER_WAY = {"hello": ("running", None), "world": ("running", None), "concat": ("waiting", None)}

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, deadline: float = DEADLINE) -> T:
    """What a condition gives, once that is true; the test fails when it does not come in time."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {deadline:.0f} s in vain for {what}"
        time.sleep(0.2)
    return found


class Ended:
    """A command that has ended, as its user sees it."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.argv = process.args
        self.status = process.returncode
        self.out = process.stdout
        self.err = process.stderr
        self.text = self.out + self.err

    def __repr__(self) -> str:
        return f"{self.argv} ended with {self.status}:\n{self.text}"

    def ok(self) -> Ended:
        """Itself, if it went well."""
        assert self.status == 0, self
        return self

    def json(self) -> Any:
        """The document that it printed."""
        assert self.status == 0, self
        return json.loads(self.out)

    def error(self, status: int, *words: str) -> str:
        """Its only error message, which must hold all `words`, at the end of a run without a traceback."""
        assert self.status == status, self
        assert "\nTraceback" not in f"\n{self.text}", self
        assert len(re.findall("^error: ", self.text, re.MULTILINE)) == 1, self
        message = self.err[self.err.index("error: ") :]
        for word in words:
            assert word in message, f"{word!r} is not in: {message}"
        return message


class Desk:
    """A folder on the laptop and one on the cluster.

    :ivar site: the cluster
    :ivar cluster: its name for the user, and of the launcher
    :ivar here: the folder on the laptop, as seen from outside
    :ivar there: the launchers' workdir on the cluster, as seen from outside
    """

    def __init__(self, rig: Rig, name: str, site: Site, user: str = "alice") -> None:
        self.rig = rig
        self.site = site
        self.cluster = site.cluster
        self.user = user
        base = "e2e/" + re.sub(r"[^A-Za-z0-9]+", "-", name)[:60]
        for host in ("laptop", site.front):
            for old in rig.home(host, user).glob(f"{base}-*"):
                shutil.rmtree(old, ignore_errors=True)
        self.folder = f"{base}-{secrets.token_hex(3)}"
        self.here = rig.home("laptop", user) / self.folder
        self.there = rig.home(site.front, user) / self.folder
        self.workdir = f"~/{self.folder}"
        self.replaced: dict[Path, str | None] = {}
        self.write("", None)

    def write(self, name: str, text: str | None) -> Path:
        """Write a file into the folder on the laptop; without a text, make a folder."""
        return self._write(self.rig.home("laptop", self.user), self.here / name, text)

    def _write(self, home: Path, path: Path, text: str | None) -> Path:
        owner = home.stat()
        missing = [one for one in (path, *path.parents) if not one.exists()]
        (path if text is None else path.parent).mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
        for made in missing:
            os.chown(made, owner.st_uid, owner.st_gid)
        return path

    def write_there(self, name: str, text: str, mode: int = 0o644) -> str:
        """Write a file into the workdir on the cluster; its path there."""
        self._write(self.rig.home(self.site.front, self.user), self.there / name, text).chmod(mode)
        return f"/home/{self.user}/{self.folder}/{name}"

    def launcher(
        self,
        name: str = "",
        host: str = "",
        transport: str = "auto",
        workdir: str | None = None,
        more: str = "",
        top: str = "",
    ) -> str:
        """Write a launcher file for the cluster into the user's configuration; its name."""
        name = name or self.cluster
        text = f"""\
scheduler = "{self.site.scheduler}"
workdir = {json.dumps(self.workdir if workdir is None else workdir, ensure_ascii=False)}
{top}
[connector]
type = "ssh"
host = "{host or name}"
transport = "{transport}"
{more}"""
        home = self.rig.home("laptop", self.user)
        path = home / f".config/xpm-hpc/launchers/{name}.toml"
        self.replaced.setdefault(path, path.read_text() if path.exists() else None)
        self._write(home, path, text)
        return name

    def command(self, *argv: str) -> tuple[list[str], dict[str, str], str]:
        """A command of the user's on the laptop: words, environment and folder."""
        return list(argv), {"PATH": f"{LAPTOP_VENV}/bin:{STANDARD_PATH}"}, f"/home/{self.user}/{self.folder}"

    def run(self, *argv: str, env: Mapping[str, str] | None = None, timeout: float = 180) -> Ended:
        """Run a command of the user's to its end, in the folder on the laptop."""
        words, environment, folder = self.command(*argv)
        environment |= dict(env or {})
        return Ended(self.rig.exec("laptop", words, self.user, env=environment, timeout=timeout, cwd=folder, input=""))

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command of the user's; its output goes to one pipe. Whoever starts it ends it."""
        words, environment, folder = self.command(*argv)
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return self.rig.popen("laptop", words, self.user, environment, folder, **streams)

    def on_login(self, *argv: str) -> str:
        """What a command of the user's prints on the login node."""
        ended = self.rig.exec(self.site.front, argv, self.user)
        assert ended.returncode == 0, ended
        return ended.stdout

    def open(self, *gates: str) -> None:
        """Let the tasks of GATED that wait at these gates go on."""
        for gate in gates:
            (self.there / f"open-{gate}").touch()

    def native_jobs(self) -> dict[str, str]:
        """The scheduler's jobs of this desk: state in Slurm's words by native id, array elements each on its own."""
        return self.site.jobs(self.rig, self.user, self.folder)

    def await_native(self, *states: str) -> dict[str, str]:
        """Wait until the scheduler's jobs are in these states and there are no others: it is later than a marker."""
        wanted, jobs = sorted(states), self.native_jobs
        return wait_for(lambda: sorted((found := jobs()).values()) == wanted and found, f"{wanted}, not {jobs()}", 30)

    def jobs(self, *options: str, workdir: str = "work") -> dict[str, dict[str, Any]]:
        """What `xpm-hpc jobs --json` says: jobs by the last part of their task and their first parameter's text."""
        listed = self.run("xpm-hpc", "jobs", "--json", "--workdir", workdir, *options).json()
        return {self.label(one): one for one in listed}

    def label(self, job: Mapping[str, Any]) -> str:
        """A job's name for people: `hello` for a task that has that word, `concat` for one without."""
        params = json.loads((self.outside(job["path"]) / "params.json").read_text())["configs"][0]["params"]
        word = params.get("word")
        return word if isinstance(word, str) else job["task"].rpartition(".")[2]

    def outside(self, path: str) -> Path:
        """A path in the user's home on the laptop, as seen from outside."""
        return self.rig.home("laptop", self.user) / Path(path).relative_to(f"/home/{self.user}")

    def results(self, name: str, workdir: str = "work") -> list[str]:
        """The texts of the files of this name in the job directories on the laptop."""
        return [path.read_text() for path in sorted((self.here / workdir / "jobs").glob(f"*/*/{name}"))]

    def markers(self, ending: str = "*") -> list[str]:
        """The names of the markers in the job directories on the cluster, sorted."""
        endings: Iterable[str] = ("done", "failed") if ending == "*" else (ending,)
        return sorted(path.name for end in endings for path in self.there.glob(f"jobs/*/*/*.{end}"))

    def clear(self) -> None:
        """Leave no job behind, and the user's launcher files as they were."""
        alive = {native for native, state in self.native_jobs().items() if state in ("PENDING", "RUNNING")}
        if alive:
            self.site.cancel(self.rig, self.user, alive)
        for path, text in self.replaced.items():
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
