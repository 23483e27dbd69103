"""Append-only history of the champion: who was serving at an instant, and what to go back to.

There is one JSON file for each move, named by its time and never rewritten. The registry knows only
what serves now. Tested in tests/pipelines/registry/test_promotion.py.
"""

import fnmatch
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError


class HistoryEntry(Frozen):
    """One move of the `champion` alias."""

    moved_at: AwareDatetime
    kind: Literal["promotion", "rollback", "forced"]
    model: ModelRef = Field(description="Serving from moved_at on.")
    previous: ModelRef | None = Field(description="Serving before; None for the first champion.")
    run_uri: str | None = Field(description="Cycle that asked for it; None for a rollback.")
    reason: str = Field(description="One sentence.")


def promotion_lock(workspace_uri: str) -> AbstractContextManager[None]:
    """Return the lock that every move of the champion or of the accepted recipe holds."""
    return storage.exclusive_lock(
        storage.join(workspace_uri, "history", "promotion"), "a promotion"
    )


def append(workspace_uri: str, entry: HistoryEntry) -> str:
    """Add an entry and return its URI. A promotion of the same cycle is added only once."""
    for uri, known in read(workspace_uri, entry.model.name):
        if entry.run_uri is not None and known.run_uri == entry.run_uri:
            return uri
    name = f"{entry.moved_at:%Y%m%dT%H%M%S%fZ}-v{entry.model.version}.json"
    uri = storage.join(workspace_uri, "history", name)
    storage.write_model(uri, entry)
    return uri


def read(workspace_uri: str, registered_model: str) -> list[tuple[str, HistoryEntry]]:
    """Return (URI, entry) pairs of one registered model, oldest first."""
    folder = storage.join(workspace_uri, "history")
    # A name that begins with a full stop is that of a file which was never finished.
    names = fnmatch.filter(storage.list_names(folder), "[!.]*.json")
    uris = [storage.join(folder, name) for name in names]
    entries = [(uri, storage.read_model(uri, HistoryEntry)) for uri in uris]
    return [(uri, entry) for uri, entry in entries if entry.model.name == registered_model]


def champion_before(workspace_uri: str, registered_model: str, as_of: datetime) -> ModelRef | None:
    """Return the champion of the time before a cycle's as_of, or None if there was none.

    It is the newest by its own as_of among the models that were champion. The times of the moves do
    not tell: cycles of past days may all have been run today.
    """
    models = [entry.model for _, entry in read(workspace_uri, registered_model)]
    earlier = [model for model in models if model.as_of < as_of]
    return max(earlier, key=lambda model: model.as_of, default=None)


def serving_at(workspace_uri: str, registered_model: str, instant: datetime) -> HistoryEntry:
    """Return the entry in force at an instant.

    Raises:
        ConfigurationError: nothing was serving yet.
    """
    entries = [entry for _, entry in read(workspace_uri, registered_model)]
    earlier = [entry for entry in entries if entry.moved_at <= instant]
    if not earlier:
        first = f"the first champion came {entries[0].moved_at}" if entries else "no champion yet"
        raise ConfigurationError(f"nothing of {registered_model} was serving at {instant}; {first}")
    return earlier[-1]
