"""An adapter whose event log is one small text file, for tests of how a log is published."""

from pathlib import Path

from pipelines.contracts.errors import ConfigurationError
from pipelines.sources.publish import IngestedLog, SourceAdapter


class Made(IngestedLog):
    source: str


class TextAdapter(SourceAdapter[Made]):
    """Writes one file; counts how often."""

    name, version, marker, made_type = "text", "text-1", "text.json", Made

    def __init__(self, source: str = "a") -> None:
        self.source, self.num_written = source, 0

    def check_same_input(self, uri: str, found: Made) -> None:
        if found.source != self.source:
            raise ConfigurationError(f"{uri} is of {found.source}")

    def write_tables(self, folder: Path) -> Made:
        self.num_written += 1
        (folder / "pins").mkdir(parents=True)
        (folder / "pins" / f"{self.version}.txt").write_text(self.source)
        return Made(adapter_version=self.version, source=self.source)


class NewerTextAdapter(TextAdapter):
    version = "text-2"
