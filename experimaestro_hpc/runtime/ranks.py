"""Which of a task's processes this one is. In: what started it, and what that left in the environment. Out: the
variables that ``torch.distributed`` and others read (``env://``). Pure; loaded only for tasks of several processes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: by what starts the processes: where it says the rank, the rank on the node and the node; "" where it does not.
#: mpirun is Open MPI's, Intel's or MPICH's, or any that speaks PMIx
SOURCES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "srun": (("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),),
    "mpirun": (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", ""),
        ("PMI_RANK", "MPI_LOCALRANKID", ""),
        ("PMIX_RANK", "", ""),
    ),
}
#: where these say how many there are in all
_SIZES = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def variables_of(
    start: str, environ: Mapping[str, str], nodes: int, per_node: int, given: Sequence[str] = ()
) -> dict[str, str]:
    """``RANK``, ``LOCAL_RANK``, ``NODE_RANK``, ``WORLD_SIZE`` and ``LOCAL_WORLD_SIZE`` of this process.

    Where only the rank is said, the others follow from it: a node's processes have ranks that follow each other.

    :param start: what started it
    :param given: the node and the rank on it, where we start the processes ourselves
    :raises ValueError: it was not started as one of ``nodes`` times ``per_node`` processes

    >>> variables_of("srun", {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}, 2, 2)["NODE_RANK"]
    '1'
    """
    size = nodes * per_node
    if given:
        node, local = int(given[0]), int(given[1])
        rank = node * per_node + local
    else:
        source = next((one for one in SOURCES.get(start, ()) if environ.get(one[0])), None)
        if source is None:
            names = " or ".join(one[0] for one in SOURCES.get(start, ()))
            raise ValueError(f"{start} does not say which of the processes this is: {names or 'nothing'} is not set")
        rank = int(environ[source[0]])
        local = int(environ.get(source[1]) or rank % per_node)
        node = int(environ.get(source[2]) or rank // per_node)
    name = next((name for name in _SIZES if name.startswith("SLURM") == (start == "srun") and environ.get(name)), "")
    said = int(environ[name]) if name and not given else size
    if said != size or not 0 <= rank < size:
        raise ValueError(f"{start} started process {rank} of {said}; the task asked for {nodes} * {per_node}")
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "NODE_RANK": str(node),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(per_node),
    }
