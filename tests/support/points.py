"""Points at which a process may be killed: before and after each act on a name, and on a registry.

They are found by running; a process is killed at one of them by SIGKILL, so that nothing is cleaned
up. On a store, whose clients no fork inherits, an exception of its own ends the action, and every
later act that would clean up.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipelines import deletion, storage
from pipelines.contracts import files
from pipelines.contracts.errors import HomefeedError
from pipelines.registry.reconcile import State
from support.fake_registry import FakeRegistry

Acts = tuple[tuple[Any, str], ...]
OF_MOVES: Acts = (
    *((files.os, "link"), (Path, "replace")),
    *((files, "sync_folder"), (deletion, "remove")),
)
ON_STORE: Acts = (
    *((storage, "write_new"), (storage, "write_over"), (storage, "write_bytes")),
    (deletion, "remove"),
)


class Killed(BaseException):
    """Ends an action on a store, as a kill would."""


class Place(Protocol):
    """A world whose registry tells when it changes."""

    registry: FakeRegistry


def assert_sound(state: State, story: str) -> None:
    """Check that alias and history agree, and that each cycle has promoted once at most."""
    assert state.disagreement() == "" and state.history.damaged == (), story
    assert state.history.pending is None, story
    promoted = [entry.run_uri for entry in state.history.moves if entry.kind == "promotion"]
    assert len(promoted) == len(set(promoted)), story


def points_of(world: Place, action: Callable[[], object], acts: Acts = OF_MOVES) -> list[str]:
    """Run an action to its end, and return the names of the points that it came by."""
    names: list[str] = []
    with _observed(world, names.append, acts):
        attempt(action)
    return names


def kill_at(world: Place, action: Callable[[], object], place: int, acts: Acts = OF_MOVES) -> str:
    """Run an action in a process that is killed at a point, and return how the process ended."""
    child = os.fork()
    if child == 0:
        count = iter(range(10**6))

        def point(name: str) -> None:
            if next(count) == place:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            with _observed(world, point, acts):
                attempt(action)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return "ended" if os.WEXITSTATUS(status) == 0 else "broken"


def die_at(world: Place, action: Callable[[], object], place: int) -> str:
    """Run an action on a store that is ended at a point, and return how it ended."""
    count = iter(range(10**6))

    def point(name: str) -> None:
        if next(count) >= place:  # A dead process does nothing more.
            raise Killed

    with _observed(world, point, ON_STORE):
        try:
            attempt(action)
        except Killed:
            return "killed"
    return "ended"


def attempt(action: Callable[[], object]) -> str:
    """Run an action, and return the class of our error that ended it; '' where none did."""
    try:
        action()
    except HomefeedError as error:
        return type(error).__name__
    return ""


@contextmanager
def _observed(world: Place, point: Callable[[str], None], acts: Acts) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in acts:
            original = getattr(owner, name)

            def act(*words: Any, original: Any = original, name: str = name, **more: Any) -> Any:
                what = f"{name} {Path(str(words[-1])).name}"
                point(f"before {what}")
                found = original(*words, **more)
                point(f"after {what}")
                return found

            patch.setattr(owner, name, act)
        patch.setattr(world.registry, "point", point)
        yield
