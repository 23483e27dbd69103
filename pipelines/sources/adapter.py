"""What every source adapter is: somebody's data, turned into the tables of an event log.

An adapter makes the tables in an empty local folder, through `pipelines.sources.writer.log_folder`,
and says what it made. It knows nothing of where they go: `pipelines.sources.publish.ingest` brings
the log of any adapter to its place.
Tested in tests/pipelines/sources/test_publish.py.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pydantic import Field

from pipelines.contracts.base import Frozen


class IngestedLog(Frozen):
    """What an ingest made; each adapter adds its counts. Its file is the log's marker."""

    adapter_version: str = Field(description="`SourceAdapter.version` of the adapter.")


Made = TypeVar("Made", bound=IngestedLog)


class SourceAdapter(ABC, Generic[Made]):
    """One source of data. What differs between two logs of it is given to the constructor."""

    name: ClassVar[str]
    """The word after `homefeed ingest`."""

    version: ClassVar[str]
    """Changes whenever the same data gives another event log; an older log is then made anew."""

    marker: ClassVar[str]
    """Name of the file beside the tables that holds what was made, and that is written last."""

    made_type: type[Made]
    """Class of the value in the marker."""

    @abstractmethod
    def write_tables(self, folder: Path) -> Made:
        """Write the tables below a local folder that does not exist yet; return what was made."""

    @abstractmethod
    def check_same_input(self, uri: str, found: Made) -> None:
        """Check that a log which is there already was made from what this adapter would read.

        Raises:
            ConfigurationError: the log is of other data, and would be overwritten.
        """
