"""torchrun, which can meet on the loopback device: `python -m training.launch.agent ARGUMENTS`.

The processes of a training meet at a store, a small server in torchrun. torch has that server
listen on every interface of the machine, and `--local-addr` only changes the address that others
are told. So a rendezvous of our own gives the server a socket that is bound already. The backends
of torchrun itself, `static` for several machines among them, work as before.

Not for people: `training.launch.launcher` starts it. Tested in tests/training/launch/test_nodes.py.
"""

import socket
import sys

from torch.distributed import TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.elastic.rendezvous.utils import parse_rendezvous_endpoint
from torch.distributed.run import main as torchrun

LOOPBACK_BACKEND = "loopback"
"""Value of `--rdzv-backend`; `--rdzv-conf` has `rank` and `timeout` as the static backend does."""


class LoopbackRendezvous(StaticTCPRendezvous):
    """The static rendezvous, whose store listens at the endpoint's address and at no other.

    Port 0 stands for a free one, which serves where one torchrun is all.
    """

    def next_rendezvous(self) -> RendezvousInfo:
        """Open the store at the first call; return it, and this torchrun's rank."""
        if self._store is None:
            self._store = self._open_store()
        return super().next_rendezvous()

    def get_backend(self) -> str:
        """Return the name that this rendezvous is registered under."""
        return LOOPBACK_BACKEND

    def _open_store(self) -> TCPStore:
        descriptor = None
        if self.rank == 0:
            family = socket.AF_INET6 if ":" in self.master_addr else socket.AF_INET
            listener = socket.create_server((self.master_addr, self.master_port), family=family)
            self.master_port = listener.getsockname()[1]
            descriptor = listener.detach()  # the store's from here on
        return TCPStore(
            self.master_addr,
            self.master_port,
            self.world_size,
            is_master=self.rank == 0,
            timeout=self.timeout,
            master_listen_fd=descriptor,
        )


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    host, port = parse_rendezvous_endpoint(parameters.endpoint, default_port=0)
    return LoopbackRendezvous(
        host,
        port,
        int(parameters.config["rank"]),  # what --rdzv-conf gives is text
        parameters.max_nodes,
        parameters.run_id,
        int(parameters.config["timeout"]),
    )


if __name__ == "__main__":
    rendezvous_handler_registry.register(LOOPBACK_BACKEND, _create)
    torchrun(sys.argv[1:])
