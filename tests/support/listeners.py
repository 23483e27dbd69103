"""Which addresses processes listen at: what another machine could reach."""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import psutil

from support.serving import beside


@dataclass
class Listeners:
    """The addresses at which processes were seen to listen, and how many processes there were."""

    by_process: dict[int, set[str]] = field(default_factory=dict)

    def look(self, processes: Iterable[psutil.Process]) -> None:
        """Add what these processes listen at now."""
        for process in processes:
            # A process that ends meanwhile listens no more.
            with contextlib.suppress(psutil.Error):
                for found in process.net_connections(kind="tcp"):
                    if found.status == psutil.CONN_LISTEN:
                        self.by_process.setdefault(process.pid, set()).add(found.laddr.ip)

    @property
    def open_to_others(self) -> set[str]:
        """The addresses that are not this machine's own."""
        addresses = set().union(*self.by_process.values())
        return {address for address in addresses if not ip_address(address).is_loopback}


@contextlib.contextmanager
def watched_listeners(interval_s: float = 0.05) -> Iterator[Listeners]:
    """Look at all processes below this one that the block starts, again and again meanwhile."""
    found, is_over, own = Listeners(), threading.Event(), psutil.Process(os.getpid())
    # A server that other tests of this process use is none of them.
    before = set(own.children(recursive=True))

    def watch() -> None:
        while not is_over.wait(interval_s):
            found.look([each for each in own.children(recursive=True) if each not in before])

    with beside(watch, end=is_over.set):
        yield found
