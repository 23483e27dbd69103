"""Waits until a local service answers, and tells why one does not. Not for starting one."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from pipelines.contracts.errors import HomefeedError
from pipelines.local.ports import choose_port
from pipelines.local.processes import Service, how_it_ended, is_listening

START_TIMEOUT_S = 180.0
"""Seconds to wait for a service: a first start on a cold, busy machine took 40 s."""


class ServiceError(HomefeedError):
    """A local service did not start or ended early; its log says why."""

    exit_code = 69


@dataclass(frozen=True)
class HealthPage:
    """A server's page that says whether it is up.

    Args:
        port: of 127.0.0.1.
        path: of the page.
        parts: names in its JSON whose status must be "healthy"; none: that it answers is enough.
    """

    port: int
    path: str
    parts: tuple[str, ...] = ()

    def is_good(self) -> bool:
        """Return whether a server answers, with a recent heartbeat of each of the parts."""
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{self.port}{self.path}", timeout=5, trust_env=False
            )
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and all(
            answer.json()[part]["status"] == "healthy" for part in self.parts
        )


def wait_until_up(
    service: Service, page: HealthPage, require_alive: Callable[[], None], timeout_s: float
) -> None:
    """Wait until a service listens on its port and its page is good.

    Args:
        service: the one that is waited for.
        page: where it answers. Another program's server on that port is not taken for it.
        require_alive: raises if a service has ended that is needed meanwhile.
        timeout_s: how long to wait.

    Raises:
        ServiceError: it ended, it does not answer in time, or another program took its port.
    """
    deadline = time.monotonic() + timeout_s
    while not (is_listening(service, page.port) and page.is_good()):
        if service.process.poll() is not None and choose_port(page.port) != page.port:
            raise ServiceError(
                f"port {page.port} was free, and another program took it while {service.name} "
                f"started; run the same command again: it uses another port"
            )
        require_alive()
        if time.monotonic() > deadline:
            raise failed(service, f"does not answer after {timeout_s:.0f} s")
        time.sleep(0.2)


def require_running(*services: Service) -> None:
    """Raise if a service has ended.

    Raises:
        ServiceError: with the end of its log.
    """
    for service in services:
        if (code := service.process.poll()) is not None:
            raise failed(service, how_it_ended(code))


def failed(service: Service, what: str) -> ServiceError:
    """Return the error that says what a service did, with the end of its log."""
    return ServiceError(
        f"{service.name} {what}; the end of {service.log_path}:\n{service.tail()}\n"
        f"Mend what it says, then run the same command again"
    )
