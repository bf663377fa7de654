"""OAR's part of the test cluster: the front-end oarfront, which has the server and its database, and two nodes.

In: an instance's root directory. Out: what its hosts see of OAR (`mounts`), the files for it (`prepare`), the
daemons, and the SQL that fills the database. Each instance has all of it for itself:

    etc/oar/         what the three hosts see as /etc/oar
    oar/postgres/    the database, kept from one `up` to the next
    oar/lib/HOST     what a host sees as /var/lib/oar, the home directory of the user oar
    oar/Almighty     the server with shorter pauses

The nodes claim 2 GPUs and 8 cores each. Nothing confines a job to them: OAR would need control groups. So what a job
leaves behind when it is killed, outside its process tree, lives on. And the nodes do not reach the database: what
`oarsh` would ask `oarstat` there, the name of the job's control group, a script tells it.
"""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from rig_config import OAR_HOSTS, OAR_NODES, Daemon
from rig_machine import make_directory, write_file

SSH_PORT = 6667  # of the sshd through which the server starts jobs on the nodes
PORT = 6666
CORES, GPUS = 8, 2  # of each node
PACKAGED = Path("/usr/lib/oar")
STATES = "('Terminated', 'Error')"  # of jobs that have ended

#: for the nodes' sshd, beside what each sshd has
SSHD = """\
AllowUsers oar
MaxStartups 1024
AcceptEnv OAR_CPUSET OAR_USER_CPUSET OAR_USER_GPUDEVICE OAR_JOB_USER
PermitUserEnvironment yes
"""

SSH_CONFIG = """\
Host *
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  PasswordAuthentication no
  LogLevel ERROR
"""

#: OAR suspects a node for ever on which a job did not start or end as it should
HEAL = """\
#!/bin/sh
cat >/dev/null
(sleep 1; /usr/sbin/oarnodesetting -n --sql "state='Suspected'" -s Alive) </dev/null >/dev/null 2>&1 &
"""


#: instead of `oarstat -fj JOB` for oarsh
CPUSET_NAME = """\
#!/bin/sh
echo "    cpuset_name = ${OARDO_USER}_$2"
"""


def oar_conf(root: Path) -> str:
    """oar.conf, which is read as Perl and as shell: quick, nodes believed alive, jobs not confined."""
    return f"""\
DB_TYPE="Pg"
DB_HOSTNAME="127.0.0.1"
DB_PORT="5432"
DB_BASE_NAME="oar"
DB_BASE_LOGIN="oar"
DB_BASE_PASSWD="oar"
DB_BASE_LOGIN_RO="oar_ro"
DB_BASE_PASSWD_RO="oar_ro"
SERVER_HOSTNAME="oarfront"
SERVER_PORT="{PORT}"
OARSUB_DEFAULT_RESOURCES="/resource_id=1"
OARSUB_NODES_RESOURCES="network_address"
OARSUB_FORCE_JOB_KEY="no"
LOG_LEVEL="3"
LOG_CATEGORIES="all"
LOG_FILE="{root}/log/oar.log"
OAREXEC_DEBUG_MODE="0"
OAR_RUNTIME_DIRECTORY="/var/lib/oar"
DEPLOY_HOSTNAME="127.0.0.1"
COSYSTEM_HOSTNAME="127.0.0.1"
DETACH_JOB_FROM_SERVER="1"
OPENSSH_CMD="/usr/bin/ssh -p {SSH_PORT} -e none"
PINGCHECKER_GENERIC_COMMAND="/bin/true"
FINAUD_FREQUENCY="0"
SUSPECTED_HEALING_EXEC_FILE="/etc/oar/heal"
SCHEDULER_TIMEOUT="60"
SCHEDULER_NB_PROCESSES=1
SCHEDULER_MIN_TIME_BETWEEN_2_CALLS="0"
SCHEDULER_JOB_SECURITY_TIME="1"
SCHEDULER_GANTT_HOLE_MINIMUM_TIME="1"
SCHEDULER_RESOURCE_ORDER="scheduler_priority ASC, state_num ASC, available_upto DESC, suspended_jobs ASC, \
network_address ASC, resource_id ASC"
SCHEDULER_PRIORITY_HIERARCHY_ORDER="network_address/resource_id"
SCHEDULER_AVAILABLE_SUSPENDED_RESOURCE_TYPE="default"
SCHEDULER_FAIRSHARING_MAX_JOB_PER_USER=30
JOBDEL_SOFTWALLTIME="10"
JOBDEL_WALLTIME="120"
ENERGY_SAVING_INTERNAL="no"
USERS_ALLOWED_HOLD_RESUME="yes"
OARSTAT_DEFAULT_OUTPUT_FORMAT=2
OARSH_OARSTAT_CMD="/etc/oar/cpuset-name"
"""


def impatient(almighty: str) -> str:
    """The server's program with pauses of 1, 3 and 20 s where it has 10, 10 and 60: they cannot be configured."""
    for name, seconds in (("read_commands_timeout", 1), ("villainstimeout", 3), ("schedulertimeout", 20)):
        almighty, count = re.subn(rf"^(my \${name} = )\d+;", rf"\g<1>{seconds};", almighty, flags=re.MULTILINE)
        assert count == 1, f"this version of OAR has no ${name}"
    return almighty


def mounts(root: Path, host: str) -> dict[str, Path]:
    """What a host sees of OAR: mount point → what is there."""
    if host not in OAR_HOSTS:
        return {"/etc/oar": root / "etc/empty"}
    seen = {"/etc/oar": root / "etc/oar", "/var/lib/oar": root / "oar/lib" / host}
    return seen | ({f"{PACKAGED}/Almighty": root / "oar/Almighty"} if host == "oarfront" else {})


def prepare(root: Path, key: str, public_key: str) -> None:
    """Make or renew OAR's files. `key`, `public_key`: those of the user oar."""
    for part in ("oar", "oar/lib", "etc/oar"):
        make_directory(root / part)
    write_file(root / "etc/oar/oar.conf", oar_conf(root), "oar", 0o600)
    write_file(root / "etc/oar/heal", HEAL, mode=0o755)
    write_file(root / "etc/oar/cpuset-name", CPUSET_NAME, mode=0o755)
    write_file(root / "oar/Almighty", impatient((PACKAGED / "Almighty").read_text()), mode=0o755)
    write_file(root / "log/oar.log", "", "oar")
    ssh = {"id_ed25519": key, "config": SSH_CONFIG, "authorized_keys": f'environment="OAR_KEY=1" {public_key}\n'}
    for host in OAR_HOSTS:
        home = root / "oar/lib" / host
        shutil.rmtree(home, ignore_errors=True)  # it has files of jobs that ended with the earlier life
        make_directory(home, "oar")
        for packaged in Path("/var/lib/oar").glob(".ba*"):
            write_file(home / packaged.name, packaged.read_text())
        make_directory(home / ".ssh", "oar", 0o700)
        for name, text in ssh.items():
            write_file(home / ".ssh" / name, text, "oar", 0o600)


def postgres(program: str) -> str:
    """The path of one of PostgreSQL's programs; Debian keeps them by version."""
    return str(max(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[4])))


def daemons(root: Path) -> dict[str, Daemon]:
    """The database and the server. They give up some safety against power cuts for speed."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "shared_buffers": "32MB",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    database = (postgres("postgres"), "-D", str(root / "oar/postgres"), *options)
    return {
        # SIGTERM would wait for the server's connections
        "postgres": Daemon("oarfront", database, 5432, "postgres", signal.SIGINT),
        "almighty": Daemon("oarfront", ("/usr/sbin/Almighty",), PORT),
    }


def psql(database: str) -> list[str]:
    """The words that run SQL from standard input on oarfront, as the database's administrator."""
    return [postgres("psql"), "-h127.0.0.1", "-Upostgres", "-XqAtd", database, "-vON_ERROR_STOP=1"]


def server_setup() -> str:
    """The SQL that makes the users and an empty database, once."""
    return """\
CREATE ROLE oar LOGIN;
CREATE ROLE oar_ro LOGIN;
CREATE DATABASE oar OWNER oar ENCODING UTF8 TEMPLATE template0;
"""


def database_setup(nodes: Sequence[str] = OAR_NODES) -> str:
    """The SQL that fills the database, once: OAR's own files, the properties and the resources, a core each."""
    rows = []
    for number in range(len(nodes) * CORES):
        node, core = divmod(number, CORES)
        device = core * GPUS // CORES
        values = (nodes[node], nodes[node], "rig", node + 1, number + 1, core, node * GPUS + device + 1, device)
        rows.append("(" + ", ".join(repr(value) for value in values) + ", 'FakeGPU', 24576, 16000, 1)")
    own = "\n".join(
        f"\\i {PACKAGED}/database/{name}.sql" for name in ("pg_structure", "pg_default_admission_rules", "default_data")
    )
    return f"""\
BEGIN;
SET ROLE oar;
{own}
GRANT SELECT ON ALL TABLES IN SCHEMA public TO oar_ro;
ALTER TABLE resources
  ADD host varchar(255), ADD cluster varchar(255), ADD cpu int, ADD core int, ADD gpu int, ADD gpudevice int,
  ADD gpu_model varchar(255), ADD gpu_mem int, ADD mem int;
INSERT INTO resources
  (network_address, host, cluster, cpu, core, cpuset, gpu, gpudevice, gpu_model, gpu_mem, mem, state_num)
  VALUES {", ".join(rows)};
COMMIT;
"""


def forget_jobs() -> str:
    """The SQL that ends what an earlier life of the cluster left in the queue, as OAR itself would note it."""
    ended = f"SELECT job_id FROM jobs WHERE state NOT IN {STATES}"
    words = "'EXTERMINATE_JOB', job_id, extract(epoch FROM now()), 'the cluster was taken down', 'NO'"
    indexes = {
        "assigned_resources": "assigned_resource_index",
        "job_dependencies": "job_dependency_index",
        "job_resource_groups": "res_group_index",
        "job_resource_descriptions": "res_job_index",
        "job_types": "types_index",
        "moldable_job_descriptions": "moldable_index",
    }
    logged = "\n".join(f"UPDATE {table} SET {column} = 'LOG';" for table, column in indexes.items())
    return f"""\
INSERT INTO event_logs (type, job_id, date, description, to_check) SELECT {words} FROM ({ended}) AS ended;
UPDATE event_logs SET to_check = 'NO';
UPDATE frag_jobs SET frag_state = 'FRAGGED';
{logged}
DELETE FROM gantt_jobs_predictions WHERE moldable_job_id <> 0;
DELETE FROM gantt_jobs_resources;
UPDATE jobs SET state = 'Error', stop_time = extract(epoch FROM now()) WHERE state NOT IN {STATES};
UPDATE resources SET state = 'Alive', state_num = 1, next_state = 'UnChanged';
"""
