"""A task on several nodes, as torchrun would start it: its processes meet and add up numbers. No GPU, no library.

xpm-hpc run --launcher mycluster allreduce.py -- DIR
"""

import json
import os
import socket
import sys
import time

from experimaestro_hpc import Param, Task, experiment, progress


class Group:
    """The processes of a task. With PyTorch these are its lines one and two:

    torch.distributed.init_process_group("gloo")  # or "nccl"; all it needs is in the environment
    torch.distributed.all_reduce(tensor)
    """

    def __init__(self):
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if self.rank == 0:
            server = socket.create_server(("", port), backlog=self.size)
            self.others = [server.accept()[0].makefile("rw") for _ in range(self.size - 1)]
        else:
            self.first = self._connect(address, port).makefile("rw")

    def _connect(self, address, port):
        for _ in range(300):
            try:
                return socket.create_connection((address, port))
            except OSError:
                time.sleep(0.2)  # rank 0 is not there yet
        raise TimeoutError(f"rank 0 does not answer at {address}:{port}")

    def all_reduce(self, value):
        """The sum of what all processes give; each of them gets it."""
        if self.rank == 0:
            value += sum(json.loads(other.readline()) for other in self.others)
            for other in self.others:
                print(value, file=other, flush=True)
            return value
        print(value, file=self.first, flush=True)
        return json.loads(self.first.readline())


class Add(Task):
    steps: Param[int]

    def execute(self):
        group = Group()
        print(f"rank {group.rank} of {group.size} on {os.uname().nodename}, {os.environ['LOCAL_RANK']} there")
        total = 0
        for step in range(self.steps):
            total += group.all_reduce(group.rank)
            progress((step + 1) / self.steps)  # shown for rank 0
        print("total", total)


if __name__ == "__main__":
    with experiment(sys.argv[1], "allreduce"):
        add = Add(steps=10).submit(resources="nodes=2 & tasks_per_node=2 & duration=5m")
    print(add.__xpm_stdout__.read_text(), end="")
