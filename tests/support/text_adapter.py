"""An adapter whose event log is one small text file, for tests of how a log is published."""

from pathlib import Path

from pipelines.sources.publish import SourceAdapter


class TextAdapter(SourceAdapter):
    """Writes one file; counts how often."""

    version = "text-1"

    def __init__(self, source: str = "a") -> None:
        self.made_of, self.num_written = {"adapter": "text", "source": source}, 0

    def write_tables(self, folder: Path) -> None:
        self.num_written += 1
        (folder / "pins").mkdir(parents=True)
        (folder / "pins" / f"{self.version}.txt").write_text(self.made_of["source"])


class NewerTextAdapter(TextAdapter):
    version = "text-2"
