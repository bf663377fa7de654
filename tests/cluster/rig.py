#!/usr/bin/env python3
"""Test clusters on one machine: real Slurm, real OAR and real sshd on hosts made of Linux namespaces.

    rig.py install                          the Debian packages that are missing
    rig.py up [--min-job-age S] [--max-array-size N]
    rig.py status | down [--purge]
    rig.py exec HOST [--user U] [--] CMD…   as alice unless told; the exit status is the command's
    rig.py laptop WHEEL_OR_SOURCE_DIR       install a package on the laptop, in /home/alice/venv

Each takes `--name NAME` (or XPM_HPC_RIG; "xpm" otherwise): instances of different names run beside each
other. An instance keeps its files in XPM_HPC_RIG_DIR/NAME (/srv/xpm-rig/NAME), a directory that alice can
traverse and that is not under /home.

A host is a network, a mount and a UTS namespace; one more network namespace has the bridge that joins them:

    laptop    a user's machine: its own /home, no Slurm configuration; see `rig_config.ssh_config`
    gate      a jump host: its own /home, no Slurm commands
    login     slurmctld, slurmdbd, MariaDB, sshd
    c1 c2     slurmd, sshd
    p1 p2     the same, in partition "private": each has its own /home, and shares no files with login
    oarfront  OAR's server, PostgreSQL, sshd
    o1 o2     the sshd through which OAR starts jobs; users cannot log in

login, c1 and c2 share /home, and so do oarfront, o1 and o2; every host has its own /scratch; /tmp and the rest are
the machine's. There are two users, alice and bob, both of Slurm's account lab. One munged, the machine's, serves
all instances: it is started where it does not run, and never ended.

From Python: `Rig(name).up()`, `down`, `exec`, `popen`, `home`, `install_on_laptop`; and for tests of faults
`pid`, `stop`, `start` with the name of a daemon, one of `Rig.daemons`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import rig_config as config
import rig_files
import rig_hosts
import rig_oar
from rig_config import HOSTS, NODES, OAR_NODES, USERS, Daemon, Settings
from rig_machine import (
    STANDARD_PATH,
    RigError,
    build_wheel,
    detach,
    install_packages,
    is_in,
    locked,
    make_directory,
    make_user,
    processes_in,
    run,
    start_munged,
    wait,
    wheel_content,
)

LAPTOP_VENV = "/home/alice/venv"
READY = {"idle", "mixed", "allocated", "completing"}  # the states of a node that takes jobs


class Rig:
    """One instance of the test cluster. A setting that is None is the environment's, or stays as it is."""

    def __init__(
        self,
        name: str | None = None,
        min_job_age: int | None = None,
        max_array_size: int | None = None,
        report: Callable[[str], object] = print,
    ) -> None:
        self.name = name or os.environ.get("XPM_HPC_RIG") or "xpm"
        if not self.name.replace("-", "").isalnum():
            raise RigError(f"an instance's name has letters, digits and '-' only: {self.name!r}")
        self.root = Path(os.environ.get("XPM_HPC_RIG_DIR") or "/srv/xpm-rig").absolute() / self.name
        self.report = report
        self.sshds = {host: (host, 22) for host in ("gate", "login", *NODES, "oarfront")}
        self.sshds |= {node: (node, rig_oar.SSH_PORT) for node in OAR_NODES}
        self.sshds |= {"changed": ("login", config.CHANGED_PORT), "unknown": ("login", config.UNKNOWN_PORT)}
        self.daemons = self._daemons()
        self._asked = {
            "min_job_age": _number(min_job_age, "XPM_HPC_RIG_MIN_JOB_AGE"),
            "max_array_size": _number(max_array_size, "XPM_HPC_RIG_MAX_ARRAY_SIZE"),
        }
        self._began = time.monotonic()

    # ---- the instance as a whole

    def available(self) -> str:
        """Why the test cluster cannot run here, or "" if it can."""
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            return "the test cluster needs root on Linux"
        if not Path("/etc/debian_version").exists() or not shutil.which("apt-get"):
            return "the test cluster needs Debian"
        closed = [path for path in self.root.parents if path.exists() and not path.stat().st_mode & 0o001]
        if closed or self.root.is_relative_to("/home"):
            return f"the test cluster cannot live in {self.root}: its users could not see it there"
        probe = ["unshare", "--mount", "--net", "--uts", "true"]
        if subprocess.run(probe, capture_output=True).returncode:
            return "the test cluster needs a kernel that lets root make namespaces"
        return ""

    def up(self) -> bool:
        """Bring up what is not up; true if the whole instance was started, false if its hosts were there."""
        if reason := self.available():
            raise RigError(reason)
        self._began = time.monotonic()
        with locked(self.root):
            settings = self._settings()
            fresh = self._saved() != settings or not all(self.pid(host) for host in HOSTS)
            if not fresh and all(self.pid(name) for name in self.daemons):
                self.report(f"{self.name} is up")
                return False
            if fresh:
                self._end_everything()
                self._open_hosts(settings)
            self._start_services(fresh)
            self._settings_file.write_text(json.dumps(asdict(settings)))
        self.report(f"{self.name} is up: {self.root}")
        return fresh

    def down(self, purge: bool = False) -> None:
        """End everything of this instance; its files, accounting included, stay unless `purge`."""
        if self.root.exists():
            with locked(self.root):
                self._end_everything()
                if purge:
                    shutil.rmtree(self.root)
        self.report(f"{self.name} is down")

    def status(self) -> dict[str, int | None]:
        """The process id of every host and daemon, None where it does not run."""
        return {name: self.pid(name) for name in (*HOSTS, *self.daemons)}

    # ---- commands and files on the hosts

    def home(self, host: str, user: str = "alice") -> Path:
        """A user's home directory on a host, as seen from outside."""
        return rig_files.home(self.root, host, user)

    def exec(
        self,
        host: str,
        argv: Sequence[str],
        user: str = "alice",
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = 120,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end; after `timeout`, kill its process group: TimeoutExpired."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        options["stdin"] = subprocess.DEVNULL if input is None else subprocess.PIPE
        with self.popen(host, argv, user, env, cwd, **options) as process:
            try:
                output, errors = process.communicate(input, timeout=timeout)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(list(argv), process.returncode, output, errors)

    def popen(
        self,
        host: str,
        argv: Sequence[str],
        user: str = "alice",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        **options,
    ) -> subprocess.Popen:
        """Start a command on a host, in a session of its own and so without a terminal."""
        words, environment = self.command(host, argv, user, env, cwd)
        return subprocess.Popen(words, env=environment, start_new_session=True, **options)

    def command(
        self,
        host: str,
        argv: Sequence[str],
        user: str = "alice",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> tuple[list[str], dict[str, str]]:
        """The words and the whole environment, nothing of the caller's, that run `argv` on a host."""
        account = pwd.getpwnam(user)
        who = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "--"]
        environment = {
            "HOME": account.pw_dir,
            "USER": user,
            "LOGNAME": user,
            "SHELL": account.pw_shell,
            "PATH": STANDARD_PATH,
        }
        words = [*self._enter(host), f"--wdns={cwd or account.pw_dir}", "--", *who, *argv]
        return words, environment | dict(env or {})

    def install_on_laptop(self, source: Path | str) -> str:
        """Install a wheel, or what a source directory builds, in the laptop's environment: its path there.

        Nothing is done if the same content is installed already. The instance need not be up.
        """
        with locked(self.root), tempfile.TemporaryDirectory(dir=self.root) as directory:
            source = Path(source).absolute()
            # A wheel is copied: it may be in the machine's /home, which the installer does not see.
            built = build_wheel(source, Path(directory)) if source.is_dir() else shutil.copy(source, directory)
            wheel = Path(built)
            self._prepare_machine()
            stamp = self.home("laptop") / "venv" / "installed-wheel"
            content = wheel_content(wheel)
            if not stamp.exists() or stamp.read_text() != content:
                stamp.unlink(missing_ok=True)
                self._install_wheel(wheel)
                stamp.write_text(content)
        return LAPTOP_VENV

    # ---- single daemons

    def pid(self, name: str) -> int | None:
        """The process id of a daemon, or of the process that holds a host open; None if it does not run."""
        daemon = self.daemons.get(name)
        host, program = (name, "sleep") if daemon is None else (daemon.host, Path(daemon.argv[0]).name)
        pid = self._recorded_pid(name)
        if pid is not None and is_in(pid, [rig_hosts.network(self.name, host)]):
            with contextlib.suppress(OSError):
                return pid if Path(f"/proc/{pid}/comm").read_text().strip() == program else None
        return None

    def stop(self, name: str, number: int | None = None, deadline: float = 30) -> None:
        """End a daemon with a signal, its own unless told, and wait until it is gone.

        A slurmctld that is killed forgets its last seconds: when it is back it uses job ids again, and may
        hold an allocation that has ended for RUNNING, for two minutes.
        """
        if pid := self.pid(name):
            os.kill(pid, self.daemons[name].ending if number is None else number)
            wait(lambda: self.pid(name) is None, f"{name} to end", deadline)

    def start(self, *names: str) -> None:
        """Start daemons, and wait until they listen."""
        for name in names:
            daemon, pid_file = self.daemons[name], self._run_file(name)
            pid_file.unlink(missing_ok=True)
            remember = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(pid_file)]
            who = ["setpriv", f"--reuid={daemon.user}", f"--regid={daemon.user}", "--init-groups"]
            detach([*self._enter(daemon.host), "--", *remember, *who, *daemon.argv], self._log(name))
        for name in names:
            wait(lambda name=name: self._listens(name), f"{name} to listen", 60)

    def _daemons(self) -> dict[str, Daemon]:
        """Every daemon by name."""
        daemons = {}
        for name, (host, port) in self.sshds.items():
            argv = ("/usr/sbin/sshd", "-D", "-e", "-f", f"{self.root}/etc/sshd-{name}")
            daemons[f"sshd-{name}"] = Daemon(host, argv, port)
        server = ("mariadbd", "--no-defaults", "--user=mysql", *config.mariadb_options(self.root / "mysql"))
        daemons["mariadbd"] = Daemon("login", server, config.DATABASE_PORT)
        daemons["slurmdbd"] = Daemon("login", ("slurmdbd", "-D"), 6819)
        daemons["slurmctld"] = Daemon("login", ("slurmctld", "-D"), 6817)
        daemons |= {f"slurmd-{node}": Daemon(node, ("slurmd", "-D"), 6818) for node in NODES}
        return daemons | rig_oar.daemons(self.root)

    def _listens(self, name: str) -> bool:
        """Whether a daemon that was just started listens on its port; RigError if it has ended instead."""
        daemon = self.daemons[name]
        pid = self._recorded_pid(name)
        if pid is not None and not is_in(pid, [rig_hosts.network(self.name, daemon.host)]):
            raise RigError(f"{name} ended right after its start; its log is {self._log(name)}")
        rows = Path(f"/proc/{self.pid(daemon.host)}/net/tcp").read_text().splitlines()[1:]
        sockets = [row.split() for row in rows]
        return any(words[1].endswith(f":{daemon.port:04X}") and words[3] == "0A" for words in sockets)

    # ---- the parts of `up` and `down`

    def _saved(self) -> Settings | None:
        """The settings of the running instance; None if none runs, or if `up` did not come to its end."""
        try:
            return Settings(**json.loads(self._settings_file.read_text()))
        except FileNotFoundError:
            return None

    def _settings(self) -> Settings:
        """What was asked for; where nothing was, what runs, or the default."""
        asked = {key: value for key, value in self._asked.items() if value is not None}
        return Settings(**(asdict(self._saved() or Settings()) | asked))

    def _prepare_machine(self) -> None:
        """Packages and users; instances that come up at the same time take turns."""
        with locked(self.root.parent):
            install_packages()
            for user in USERS:
                make_user(user)

    def _open_hosts(self, settings: Settings) -> None:
        """Everything before the first daemon: the machine, the files, the network, the hosts."""
        with self._step("packages and users"):
            self._prepare_machine()
        with self._step("munged"), locked(self.root.parent):
            start_munged()
        with self._step("keys and configuration"):
            rig_files.prepare(self.root, settings, self.sshds)
        with self._step("hosts", "hosts"):
            rig_hosts.make_networks(self.name)
            for host in HOSTS:
                detach(rig_hosts.holder(self.root, host), self._log("hosts"))
            wait(lambda: all(self.pid(host) for host in HOSTS), "the hosts", 30)

    def _start_services(self, fresh: bool) -> None:
        """Start the daemons that do not run, each once what it needs is there."""
        self._start_dead("sshd", *(f"sshd-{name}" for name in self.sshds))
        data = self.root / "mysql"
        if not (data / "initialised").exists():
            with self._step("database files"):
                shutil.rmtree(data, ignore_errors=True)
                run(["mariadb-install-db", "--user=mysql", f"--datadir={data}", "--skip-test-db"])
                (data / "initialised").touch()
        self._start_dead("MariaDB", "mariadbd")
        with self._step("database", "mariadbd"):
            client = ["mariadb", "--no-defaults", f"--socket={data}/socket"]
            run(client, input=config.database_setup())
        self._start_dead("slurmdbd", "slurmdbd")
        with self._step("accounts", "slurmdbd"):
            self._make_accounts()
        self._start_dead("slurmctld", "slurmctld")
        if fresh:
            with self._step("no jobs of an earlier life", "slurmctld"):
                if jobs := self._jobs():
                    self._on_login(f"scancel {' '.join(jobs)}")
        self._start_dead("slurmd", *(f"slurmd-{node}" for node in NODES))
        with self._step("nodes ready", "slurmctld"):
            wait(self._nodes_are_ready, "the nodes to take jobs", 60)
            if fresh:
                wait(lambda: not self._jobs(), "the jobs of an earlier life to end", 60)
        self._start_oar(fresh)

    def _start_oar(self, fresh: bool) -> None:
        data = self.root / "oar/postgres"
        if not data.exists():
            with self._step("OAR's database files"):
                make_directory(new := data.with_name("new"), "postgres", 0o700)
                who = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
                run([*who, rig_oar.postgres("initdb"), "--auth=trust", "--username=postgres", "--no-locale", str(new)])
                new.rename(data)
        self._start_dead("PostgreSQL", "postgres")
        with self._step("OAR's database", "postgres"):
            wait(lambda: self.oar_sql("SELECT 1", "postgres", check=False), "PostgreSQL to answer", 30)
            if "oar" not in self.oar_sql("SELECT datname FROM pg_database", "postgres").split():
                self.oar_sql(rig_oar.server_setup(), "postgres")
            if not self.oar_sql("SELECT to_regclass('resources')").strip():
                self.oar_sql(rig_oar.database_setup())
            if fresh:
                self.oar_sql(rig_oar.forget_jobs())
        self._start_dead("OAR", "almighty")

    def oar_sql(self, sql: str, database: str = "oar", check: bool = True) -> str:
        """What SQL gives in OAR's database, a line for each row with `|` between its values."""
        words = rig_oar.psql(database)
        result = self.exec("oarfront", words, user="root", input=sql)
        if check and result.returncode:
            raise RigError(f"{words[0]} ended with {result.returncode}: {result.stderr.strip()}")
        return result.stdout

    def _start_dead(self, title: str, *names: str) -> None:
        if dead := [name for name in names if not self.pid(name)]:
            with self._step(title, dead[0]):
                self.start(*dead)

    def _make_accounts(self) -> None:
        """Account lab with alice and bob, and a quality of service that lets a user have two jobs at once."""
        if self._has_accounts():
            return
        users = ",".join(USERS)
        self._on_login(
            "sacctmgr --immediate add cluster rig",
            "sacctmgr --immediate add qos tiny set MaxSubmitJobsPerUser=2",
            "sacctmgr --immediate add account lab",
            f"sacctmgr --immediate add user {users} account=lab qoslevel=normal,tiny",
            check=False,  # sacctmgr fails where there is nothing to add: what counts is what is there now
        )
        if not self._has_accounts():
            raise RigError("sacctmgr did not make the accounts")

    def _has_accounts(self) -> bool:
        text = self._on_login("sacctmgr --noheader --parsable2 show assoc format=user,account,qos")
        return all(f"{user}|lab|normal,tiny" in text.splitlines() for user in USERS)

    def _jobs(self) -> set[str]:
        return set(self._on_login("squeue --noheader --format=%F").split())

    def _nodes_are_ready(self) -> bool:
        states = self._on_login("sinfo --noheader --Node --partition=cpu,private --format=%T").split()
        return len(states) == len(NODES) and set(states) <= READY

    def _on_login(self, *lines: str, check: bool = True) -> str:
        """What shell lines print on the login host as root."""
        result = self.exec("login", ["sh", "-c", "\n".join(lines)], user="root")
        if check and result.returncode:
            raise RigError(f"{'; '.join(lines)} ended with {result.returncode}: {result.stderr.strip()}")
        return result.stdout

    def _end_everything(self) -> None:
        """End what runs in this instance's namespaces, first those that save something, and remove them."""
        self._settings_file.unlink(missing_ok=True)
        for name in ("almighty", "postgres", "slurmctld", "slurmdbd", "mariadbd"):
            with contextlib.suppress(RigError):  # if it does not end by itself it is killed below
                self.stop(name, deadline=20)
        networks = rig_hosts.networks(self.name)
        for number, deadline in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
            for pid in processes_in(networks):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(RigError):
                wait(lambda: not processes_in(networks), "the processes to end", deadline)
        if left := processes_in(networks):
            raise RigError(f"processes of {self.name} do not end: {sorted(left)}")
        for network in networks:
            run(["ip", "netns", "delete", network.name])

    def _install_wheel(self, wheel: Path) -> None:
        """Put a wheel and what it needs into the laptop's environment, which is made if it is missing.

        It is run by Debian's Python, as alice cannot read root's. Only /home is the laptop's while it is
        made: so the paths in it are right, and the network is the machine's.
        """
        make_directory(self.home("laptop"), "alice")
        bind = 'mount --bind "$0" /home && exec "$@"'
        there = [
            "unshare",
            "--mount",
            "--propagation=private",
            "sh",
            "-c",
            bind,
            str(self.home("laptop").parent),
        ]
        if not (self.home("laptop") / "venv/bin/pip").exists():
            run([*there, "/usr/bin/python3", "-m", "venv", "--clear", LAPTOP_VENV])
        install = [*there, f"{LAPTOP_VENV}/bin/python", "-m", "pip", "install", "--quiet", "--no-input"]
        install += ["--disable-pip-version-check", "--root-user-action=ignore"]
        run([*install, "--force-reinstall", "--no-deps", str(wheel)])
        run([*install, str(wheel)])
        run(["chown", "--recursive", "alice:", str(self.home("laptop") / "venv")])

    # ---- names

    @property
    def _settings_file(self) -> Path:
        return self.root / "run" / "settings.json"

    def _run_file(self, name: str) -> Path:
        return self.root / "run" / f"{name}.pid"

    def _recorded_pid(self, name: str) -> int | None:
        """What a host or daemon wrote down of itself, dead or alive; None while it has not."""
        try:
            return int(self._run_file(name).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _log(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    def _enter(self, host: str) -> list[str]:
        """The words before a command that is to run on a host."""
        if host not in HOSTS:
            raise RigError(f"there is no host {host!r}, only {', '.join(HOSTS)}")
        pid = self.pid(host)
        if pid is None:
            raise RigError(f"host {host} of {self.name} is not up")
        return ["nsenter", f"--target={pid}", "--net", "--mount", "--uts"]

    @contextlib.contextmanager
    def _step(self, title: str, log: str | None = None) -> Iterator[None]:
        """One line for a step that is done; for one that fails, an error with the end of the log."""
        try:
            yield
        except (OSError, subprocess.SubprocessError, RigError) as error:
            message = f"{title} failed: {error}"
            if log is not None and self._log(log).exists():
                lines = self._log(log).read_text(errors="replace").splitlines()[-20:]
                message = "\n".join([message, f"the end of {self._log(log)}:", *lines])
            raise RigError(message) from error
        self.report(f"[{time.monotonic() - self._began:5.1f} s] {title}")


def _number(value: int | None, variable: str) -> int | None:
    """A setting: the caller's, or the environment's, or None."""
    return value if value is not None or not os.environ.get(variable) else int(os.environ[variable])


def _split_command(words: list[str]) -> tuple[str, list[str]]:
    """`[--user U] [--] CMD…` → the user and the command, a login shell if there is none."""
    user = "alice"
    if words[:1] == ["--user"] and len(words) > 1:
        user, words = words[1], words[2:]
    if words[:1] == ["--"]:
        words = words[1:]
    return user, words or ["bash", "-l"]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    name = argparse.ArgumentParser(add_help=False)
    name.add_argument("--name", default=argparse.SUPPRESS, help="the instance")
    parser = argparse.ArgumentParser(description="A test cluster on one machine.", parents=[name])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", parents=[name])
    up.add_argument("--min-job-age", type=int, help="seconds for which Slurm remembers an ended job")
    up.add_argument("--max-array-size", type=int)
    down = commands.add_parser("down", parents=[name])
    down.add_argument("--purge", action="store_true", help="remove the instance's files too")
    commands.add_parser("status", parents=[name])
    commands.add_parser("install", parents=[name])
    execute = commands.add_parser("exec", parents=[name], usage="%(prog)s HOST [--user U] [--] CMD…")
    execute.add_argument("host", choices=HOSTS)
    execute.add_argument("words", nargs=argparse.REMAINDER)
    commands.add_parser("laptop", parents=[name]).add_argument("source", help="a wheel or a source directory")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit status."""
    options = _parse(arguments)
    given = {name: getattr(options, name, None) for name in ("name", "min_job_age", "max_array_size")}
    rig = Rig(**given)
    if options.command == "install":
        install_packages()
    elif options.command == "up":
        rig.up()
    elif options.command == "down":
        rig.down(purge=options.purge)
    elif options.command == "laptop":
        print(rig.install_on_laptop(options.source))
    elif options.command == "exec":
        user, words = _split_command(options.words)
        words, environment = rig.command(options.host, words, user)
        os.execvpe(words[0], words, environment)
    else:
        status = rig.status()
        for name, pid in status.items():
            print(f"{name:16} {pid or '-'}")
        return 0 if all(status.values()) else 1
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    try:
        sys.exit(main(sys.argv[1:]))
    except RigError as error:
        sys.exit(str(error))
