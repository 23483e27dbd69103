"""Source adapters and a writer: turn somebody's data into the event log."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.sources.writer.event_log_writer import EventLogWriter

__all__ = ["EventLogWriter"]


def __getattr__(name: str) -> type["EventLogWriter"]:
    """Import the writer, with numpy and pyarrow, only for those who ask for it."""
    if name == "EventLogWriter":
        from pipelines.sources.writer.event_log_writer import EventLogWriter

        return EventLogWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
