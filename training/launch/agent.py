"""torchrun, whose store listens where it shall: `python -m training.launch.agent ARGUMENTS`.

The processes of a training meet at a store, a small server in torchrun. torch has that server
listen on every interface of the machine, and `--local-addr` only changes the address that others
are told. So a rendezvous of our own gives the server a socket that is bound already.

The exit code is that of the process that failed first (137 where it was killed), for which torchrun
ends the others, or `NOBODY_CAME`.

Not for people: `training.launch.launcher` starts it. Tested in tests/training/launch/test_nodes.py.
"""

import socket
import sys
import traceback

from torch.distributed import DistNetworkError, DistStoreError, TCPStore
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousParameters, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.elastic.rendezvous.utils import parse_rendezvous_endpoint
from torch.distributed.run import main as torchrun

from pipelines.contracts.processes import collect_seldom
from training.environment import NOBODY_CAME

BACKEND = "homefeed"
"""Value of `--rdzv-backend`; `--rdzv-conf` has `rank` and `timeout`, as torch's `static` does, and
`is_one_machine`."""


class OwnStore(StaticTCPRendezvous):
    """The static rendezvous, whose store listens at the endpoint's address alone on one machine.

    For several machines it listens on every interface: the endpoint may be a name that only others
    know this machine by. Port 0 stands for a free one, which serves where one torchrun is all.
    """

    def __init__(self, parameters: RendezvousParameters) -> None:
        host, port = parse_rendezvous_endpoint(parameters.endpoint, default_port=0)
        # what --rdzv-conf gives is text
        rank, timeout = int(parameters.config["rank"]), int(parameters.config["timeout"])
        super().__init__(host, port, rank, parameters.max_nodes, parameters.run_id, timeout)
        descriptor = None
        if rank == 0 and parameters.config["is_one_machine"] == "True":
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, port), family=family)
            self.master_port = listener.getsockname()[1]
            descriptor = listener.detach()  # the store's from here on
        self._store = TCPStore(
            host,
            self.master_port,
            self.world_size,
            is_master=rank == 0,
            timeout=self.timeout,
            master_listen_fd=descriptor,
        )

    def get_backend(self) -> str:
        """Return the name that this rendezvous is registered under."""
        return BACKEND


if __name__ == "__main__":
    collect_seldom()
    rendezvous_handler_registry.register(BACKEND, OwnStore)
    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as error:
        traceback.print_exc()
        found = error.get_first_failure()[1].exitcode
        sys.exit(found if found > 0 else 128 - found)
    except (DistNetworkError, DistStoreError):
        traceback.print_exc()
        sys.exit(NOBODY_CAME)
