"""Moves of the champion in a workspace in a bucket, killed at a request or a registry's call.

The process that is killed is forked from one that has opened no store yet: a fork of a process
that has would inherit its clients without their threads. So it opens the world once more.
"""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.faulty_proxy import FaultyProxy
from support.killed_moves import ACTIONS, prepare
from support.points import attempt
from support.record_world import World, record_world
from support.s3_server import environment

_TIMEOUT_S = 90.0
_KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Killer:
    """Kills moves whose requests go by a proxy; its places are numbers, requests come first."""

    proxy: FaultyProxy
    notes: Path
    """A folder for what the processes write down."""

    def count_places(self, folder: Path, workspace_uri: str, action: str) -> int:
        """Do an action to its end, and return how many places it comes by.

        Each request counts twice, before it arrives and after, and then each call of the registry.
        """
        with record_world(folder, workspace_uri) as world:
            prepare(world, action)
            counted = itertools.count()
            self._when_begun(lambda: str(next(counted))[:0])
            assert self._run(world, action, -1) == 0
            num_requests = next(counted)
        calls = (self.notes / "calls").read_text().splitlines()
        (self.notes / f"{action} requests").write_text(str(num_requests))
        return 2 * num_requests + len(calls)

    def __call__(self, world: World, action: str, place: int) -> str:
        """Kill an action at a place; return "killed", or "ended" where it does not come there."""
        num_requests = int((self.notes / f"{action} requests").read_text())
        number, arrives = divmod(place, 2)
        counted = itertools.count()

        def at_request() -> str:
            if number >= num_requests or next(counted) != number:
                return ""
            os.kill(int((self.notes / "process").read_text()), signal.SIGKILL)
            return "" if arrives else "request lost"

        self._when_begun(at_request)
        code = self._run(world, action, place - 2 * num_requests)
        return {_KILLED: "killed", 0: "ended"}.get(code, "broken")

    def _when_begun(self, choose: Callable[[], str]) -> None:
        begun = self.notes / "process"
        begun.unlink(missing_ok=True)
        self.proxy.choose = lambda *_: choose() if begun.exists() else ""

    def _run(self, world: World, action: str, call: int) -> int:
        """Do an action in a process of its own, which dies at a call of the registry."""
        context = multiprocessing.get_context("forkserver")
        # Only what is imported is inherited; it has opened nothing.
        context.set_forkserver_preload(["support.record_world"])
        where = (world.folder, world.workspace_uri, self.proxy.url, self.notes)
        process = context.Process(target=_child, args=(*where, action, call))
        process.start()
        process.join(_TIMEOUT_S)
        self.proxy.mend()
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"{action} did not end in {_TIMEOUT_S:g} s")
        return process.exitcode


def _child(folder: Path, workspace_uri: str, url: str, notes: Path, action: str, call: int) -> None:
    # The fork server has the environment of whichever test started it.
    os.environ.update(environment(url))
    with record_world(folder, workspace_uri) as world:
        calls: list[str] = []

        def point(name: str) -> None:
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(name)

        world.registry.point = point
        # From now on its requests count: those that opened the world do not.
        (notes / "process").write_text(str(os.getpid()))
        attempt(lambda: ACTIONS[action](world))
        (notes / "calls").write_text("\n".join(calls))
    os._exit(0)
