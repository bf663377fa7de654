"""The texts of the test cluster's configuration files.

Pure functions: names, paths and numbers come in, the text of one file comes out. `rig.py` writes them.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ADDRESSES = {
    "laptop": "10.77.0.10",
    "gate": "10.77.0.5",
    "login": "10.77.0.1",
    "c1": "10.77.0.11",
    "c2": "10.77.0.12",
    "oarfront": "10.77.0.2",
    "o1": "10.77.0.21",
    "o2": "10.77.0.22",
    "p1": "10.77.0.31",
    "p2": "10.77.0.32",
}
SILENT_ADDRESS = "10.77.0.99"  # packets go there and nothing ever comes back
HOSTS = tuple(ADDRESSES)
PRIVATE_NODES = ("p1", "p2")  # they share no files with the login node
NODES = ("c1", "c2", *PRIVATE_NODES)
OAR_NODES = ("o1", "o2")
OAR_HOSTS = ("oarfront", *OAR_NODES)
USERS = ("alice", "bob")
GPUS_PER_NODE = 4
CHANGED_PORT = 2222  # an sshd on login whose host key is not the one the laptop remembers
UNKNOWN_PORT = 2223  # an sshd on login whose host key the laptop has never seen
DATABASE_PORT = 3306
DATABASE = "slurm_acct_db"
DATABASE_PASSWORD = "slurm"  # of a server that listens inside the login host only
SLURM_COMMANDS = (
    "sacct",
    "sacctmgr",
    "salloc",
    "sattach",
    "sbatch",
    "sbcast",
    "scancel",
    "scontrol",
    "sdiag",
    "sinfo",
    "sprio",
    "squeue",
    "sreport",
    "srun",
    "sshare",
    "sstat",
    "strigger",
)
OAR_COMMANDS = ("oarcp", "oardel", "oarhold", "oarnodes", "oarprint", "oarresume", "oarsh", "oarstat", "oarsub")


@dataclass(frozen=True)
class Daemon:
    """A server: where it runs, what starts it, and the TCP port that shows that it is ready.

    :ivar user: who runs it
    :ivar ending: the signal that ends it in good order
    """

    host: str
    argv: tuple[str, ...]
    port: int
    user: str = "root"
    ending: int = signal.SIGTERM


@dataclass(frozen=True)
class Settings:
    """What a caller may choose about the scheduler."""

    min_job_age: int = 300
    max_array_size: int = 1001


def hosts_file() -> str:
    """/etc/hosts, the same on every host."""
    return "127.0.0.1 localhost\n" + "".join(f"{address} {host}\n" for host, address in ADDRESSES.items())


def slurm_conf(root: Path, settings: Settings) -> str:
    """slurm.conf: two nodes that claim 16 processors and 4 GPUs each, two private ones, and a quick scheduler."""
    return f"""\
ClusterName=rig
SlurmctldHost=login({ADDRESSES["login"]})
SlurmUser=slurm
AuthType=auth/munge
# A requeued job waits until its credential has expired, which by default takes two minutes.
AuthInfo=cred_expire=20
StateSaveLocation={root}/state
SlurmctldPidFile={root}/state/slurmctld.pid
SlurmdPidFile={root}/state/slurmd-%n.pid
SlurmdSpoolDir={root}/spool/%n
# The daemons write to their standard error, which goes to the log directory; a job's slurmstepd has none.
SlurmdLogFile={root}/log/slurmstepd-%n.log
ReturnToService=2
SlurmctldTimeout=60
SlurmdTimeout=60
MessageTimeout=30
InactiveLimit=60
KillWait=3

MinJobAge={settings.min_job_age}
MaxArraySize={settings.max_array_size}
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu,gres/gpu:h100
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1

GresTypes=gpu
NodeName=c1 CPUs=16 CoresPerSocket=16 RealMemory=16000 Gres=gpu:h100:{GPUS_PER_NODE} Feature=rack1 State=UNKNOWN
NodeName=c2 CPUs=16 CoresPerSocket=16 RealMemory=16000 Gres=gpu:h100:{GPUS_PER_NODE} Feature=rack2 State=UNKNOWN
{private_nodes()}PartitionName=cpu Nodes=c[1-2] Default=YES MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF
PartitionName=gpu Nodes=c[1-2] MaxTime=02:00:00 PriorityTier=10 PreemptMode=OFF
PartitionName=scav Nodes=c[1-2] MaxTime=1-00:00:00 PriorityTier=1 PreemptMode=REQUEUE
"""


def private_nodes() -> str:
    """The lines of slurm.conf for the nodes that share no files, which have a partition of their own."""
    names = ",".join(PRIVATE_NODES)
    return f"""\
NodeName={names} CPUs=16 CoresPerSocket=16 RealMemory=16000 State=UNKNOWN
PartitionName=private Nodes={names} MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF
"""


def gres_conf(root: Path) -> str:
    """gres.conf: without device files Slurm would not set CUDA_VISIBLE_DEVICES."""
    return f"NodeName=c[1-2] Name=gpu Type=h100 File={root}/dev/gpu[0-{GPUS_PER_NODE - 1}]\n"


def cgroup_conf() -> str:
    """cgroup.conf: nothing here uses control groups, and guessing their version can fail in a container."""
    return "CgroupPlugin=cgroup/v1\n"


def slurmdbd_conf(root: Path) -> str:
    """slurmdbd.conf, which must belong to SlurmUser with mode 0600."""
    return f"""\
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
SlurmUser=slurm
PidFile={root}/state/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={DATABASE_PORT}
StorageUser=slurm
StoragePass={DATABASE_PASSWORD}
StorageLoc={DATABASE}
"""


def mariadb_options(data: Path) -> tuple[str, ...]:
    """mariadbd's options; it needs no file. It gives up some safety against power cuts for speed."""
    return (
        f"--datadir={data}",
        f"--socket={data}/socket",
        f"--pid-file={data}/pid",
        "--bind-address=127.0.0.1",
        f"--port={DATABASE_PORT}",
        "--skip-name-resolve",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-lock-wait-timeout=900",
    )


def database_setup() -> str:
    """The SQL that makes Slurm's database and its user; it may be run again."""
    return f"""\
CREATE DATABASE IF NOT EXISTS {DATABASE};
CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY '{DATABASE_PASSWORD}';
GRANT ALL ON {DATABASE}.* TO slurm@'127.0.0.1';
"""


def sshd_config(address: str, port: int, host_key: Path) -> str:
    """The configuration of one sshd: keys only, and the usual limit of sessions for each connection."""
    return f"""\
ListenAddress {address}
Port {port}
HostKey {host_key}
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxSessions 10
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
LogLevel VERBOSE
"""


def ssh_config(user: str) -> str:
    """~/.ssh/config on the laptop: the ways to the cluster that work, and those that fail."""
    return f"""\
Host gate
  User {user}

# The cluster, directly and through the gate.
Host mycluster
  HostName login
  User {user}
Host farcluster
  HostName login
  User {user}
  ProxyJump gate

# The one with OAR, likewise.
Host myoar
  HostName oarfront
  User {user}
Host faroar
  HostName oarfront
  User {user}
  ProxyJump gate

# A host that has no scheduler.
Host plaincluster
  HostName gate
  User {user}

# Nothing answers.
Host deadcluster
  HostName {SILENT_ADDRESS}
  User {user}
# The host's key is not the one in known_hosts.
Host changedcluster
  HostName {ADDRESSES["login"]}
  Port {CHANGED_PORT}
  User {user}
# The host's key is not in known_hosts.
Host unknowncluster
  HostName {ADDRESSES["login"]}
  Port {UNKNOWN_PORT}
  User {user}
# The host does not accept the user's key.
Host refusedcluster
  HostName login
  User {user}
  IdentityFile ~/.ssh/id_refused
  IdentitiesOnly yes
"""


def known_hosts(public_keys: Mapping[str, str]) -> str:
    """known_hosts for the hosts whose public key ("type base64") is given by name; by name and by address."""
    return "".join(f"{host},{ADDRESSES[host]} {key}\n" for host, key in public_keys.items())


def changed_known_host(public_key: str) -> str:
    """The known_hosts line for CHANGED_PORT; the key given here is not the one that sshd will show."""
    return f"[{ADDRESSES['login']}]:{CHANGED_PORT} {public_key}\n"
