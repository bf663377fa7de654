"""Inside the chroot: start a small Slurm, run the tests as alice, end Slurm. See `chroot.py`.

One node, n1, which is also where slurmctld, slurmdbd, MariaDB and munged run. All that they write is in memory. The
exit status is pytest's (or the shell's); it is 3 when Slurm did not come up.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
STATE = Path("/srv/slurm")
LOGS = STATE / "log"
GPUS = 2

SLURM_CONF = f"""\
ClusterName=newer
SlurmctldHost=n1
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=cred_expire=20
StateSaveLocation={STATE}/state
SlurmctldPidFile={STATE}/state/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdSpoolDir=/run/slurmd
SlurmdLogFile={LOGS}/slurmstepd.log
ReturnToService=2
KillWait=2
MinJobAge=300
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStorageEnforce=associations,limits
AccountingStorageTRES=gres/gpu,gres/gpu:h100
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
GresTypes=gpu
NodeName=n1 CPUs=8 CoresPerSocket=8 RealMemory=8000 Gres=gpu:h100:{GPUS} State=UNKNOWN
PartitionName=cpu Nodes=n1 Default=YES MaxTime=1-00:00:00
PartitionName=short Nodes=n1 MaxTime=00:10:00
"""

SLURMDBD_CONF = f"""\
AuthType=auth/munge
DbdHost=n1
DbdAddr=127.0.0.1
SlurmUser=slurm
PidFile={STATE}/state/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""

DATABASE = """\
CREATE DATABASE slurm_acct_db;
CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';
"""


class NotUp(Exception):
    """A daemon did not come up."""


def main(arguments: list[str]) -> int:
    daemons: list[subprocess.Popen[bytes]] = []
    began = time.monotonic()
    try:
        start(daemons)
        print(f"{output('scontrol', '--version')} is up after {time.monotonic() - began:.0f} s", flush=True)
        if arguments == ["--shell"]:
            return subprocess.run(["bash"], check=False, cwd="/").returncode
        return as_alice(arguments)
    except (NotUp, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        for log in sorted(LOGS.glob("*.log")):
            print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n", file=sys.stderr)
        return 3
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


def as_alice(arguments: list[str]) -> int:
    """pytest's exit status; it gets the arguments, and alice's environment and no other."""
    account = pwd.getpwnam("alice")
    home = Path(account.pw_dir)
    home.mkdir()
    os.chown(home, account.pw_uid, account.pw_gid)
    environ = {
        "HOME": str(home),
        "USER": "alice",
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XPM_HPC_NEWER_SLURM": "1",
        "XPM_HPC_REQUIRE_CLUSTER": "1",
    }
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir=/repository",
        "/repository/tests/newer_slurm",
    ]
    return subprocess.run(
        [*argv, *arguments],
        check=False,
        cwd=home,
        env=environ,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        umask=0o022,
    ).returncode


def start(daemons: list[subprocess.Popen[bytes]]) -> None:
    """Start all daemons, each once what it needs is there; those that were started are in ``daemons``."""
    prepare()

    def run(user: str, *argv: str) -> None:
        account = pwd.getpwnam(user)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}
        with (LOGS / f"{Path(argv[0]).name}.log").open("ab") as log:
            daemons.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=STATE, **who))

    def until(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            ended = [daemon for daemon in daemons if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise NotUp(f"{what} in vain" + (f": {ended[0].args[0]} has ended" if ended else ""))  # type: ignore
            time.sleep(0.05)

    run("munge", "/usr/sbin/munged", "--foreground")
    data = STATE / "mysql"
    output("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db")
    # "snapshot isolation" makes slurmdbd's own conversions fail
    run(
        "mysql",
        "/usr/sbin/mariadbd",
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={data}/socket",
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--innodb-snapshot-isolation=OFF",
        "--innodb-flush-log-at-trx-commit=0",
    )
    until(lambda: listens(3306), "waited for MariaDB")
    subprocess.run(["mariadb", "--no-defaults", f"--socket={data}/socket"], check=True, input=DATABASE.encode())
    until(lambda: quiet("munge", "--no-input"), "waited for munged")
    run("slurm", "/usr/sbin/slurmdbd", "-D")
    until(lambda: listens(6819), "waited for slurmdbd")
    sacctmgr = ["sacctmgr", "--immediate", "--quiet"]
    output(*sacctmgr, "add", "cluster", "newer")
    output(*sacctmgr, "add", "account", "lab")
    output(*sacctmgr, "add", "user", "alice", "account=lab")
    run("slurm", "/usr/sbin/slurmctld", "-D")
    until(lambda: listens(6817), "waited for slurmctld")
    run("root", "/usr/sbin/slurmd", "-D", "-N", "n1")
    until(lambda: quiet("sinfo", "-h", "-o", "%T", expect="idle"), "waited for the node")


def prepare() -> None:
    """Directories and configuration files; the GPUs are devices that nobody opens."""

    def directory(path: Path, user: str = "root") -> None:
        path.mkdir(parents=True, exist_ok=True)
        shutil.chown(path, user, pwd.getpwnam(user).pw_gid)

    directory(STATE)
    directory(LOGS, "slurm")
    directory(STATE / "state", "slurm")
    directory(STATE / "mysql", "mysql")
    directory(Path("/run/munge"), "munge")
    directory(Path("/run/slurmd"))
    directory(STATE / "etc")
    for number in range(GPUS):
        os.mknod(STATE / f"gpu{number}", 0o20666, os.makedev(195, number))
    # the configuration is where the commands look for it, and in memory: nothing is left in the chroot
    (STATE / "hosts").write_text("127.0.0.1 localhost\n10.78.0.1 n1\n")
    output("mount", "--bind", str(STATE / "hosts"), "/etc/hosts")
    output("mount", "--bind", str(STATE / "etc"), "/etc/slurm")
    etc = Path("/etc/slurm")
    (etc / "slurm.conf").write_text(SLURM_CONF)
    (etc / "gres.conf").write_text(f"NodeName=n1 Name=gpu Type=h100 File={STATE}/gpu[0-{GPUS - 1}]\n")
    (etc / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    dbd = etc / "slurmdbd.conf"
    dbd.touch(mode=0o600)
    dbd.write_text(SLURMDBD_CONF)
    shutil.chown(dbd, "slurm", "slurm")


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def quiet(*argv: str, expect: str | None = None) -> bool:
    """Whether a command ends well, and prints what is expected."""
    ended = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return ended.returncode == 0 and (expect is None or ended.stdout.strip() == expect)


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
