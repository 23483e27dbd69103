"""Which servers are up and what each serves: each says so in the workspace at every look.

    <workspace>/servers/<machine>-<port>.json    a ServerNote; it goes when the server ends

A note that is not renewed is of a server that died, and goes too. Tested in
tests/pipelines/serving/test_servers.py.
"""

from datetime import datetime

from pydantic import AwareDatetime, Field

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.base import Frozen

FOLDER = "servers"


class ServerNote(Frozen):
    """What a server says of itself."""

    address: str = Field(description="Its machine and port.")
    model: ModelRef | None = Field(description="Which model answers; None: none yet.")
    since: AwareDatetime = Field(description="When the server began.")
    counts_until: AwareDatetime
    troubles: tuple[str, ...] = Field(description="Why it stays behind, or its log does.")


def read_servers(workspace_uri: str, now: datetime) -> tuple[ServerNote, ...]:
    """Return the notes of the servers that are up; those of dead ones are deleted."""
    found = []
    for name in storage.list_names(storage.join(workspace_uri, FOLDER)):
        place = storage.join(workspace_uri, FOLDER, name)
        if (note := storage.find_model(place, ServerNote, "delete it")) is None:
            continue  # Its server has ended since.
        if now < note.counts_until:
            found.append(note)
        else:
            deletion.remove(place)
    return tuple(found)
