"""What a log and the batches so far have settled for the batches that follow.

A value never changes; a batch that is kept gives the next one. So a refused batch settles nothing.
Not for the rows themselves: `pipelines.sources.writer.runs`.
"""

from dataclasses import dataclass, field, replace
from typing import Self

from pipelines.event_log.record import EventLogRecord, IdKind, Vectors
from pipelines.sources.writer.columns import Known, Normalised

_WITH_VECTORS = ("pins", "users")


@dataclass(frozen=True)
class Settled:
    """Kinds of ids, looks of embeddings, and columns, by table or column."""

    id_kinds: dict[str, IdKind] = field(default_factory=dict)
    vectors: dict[str, Vectors | None] = field(default_factory=lambda: dict.fromkeys(_WITH_VECTORS))
    extra: dict[str, dict[str, str]] = field(default_factory=dict)  # of tables given in this block
    extra_before: dict[str, dict[str, str]] = field(default_factory=dict)  # of those in the log
    has_pin_times: bool | None = None

    @classmethod
    def by_log(cls, record: EventLogRecord, embedding_version: str) -> Self:
        """Return what a log has settled for a writer of that version."""
        pins = record.embedding_versions.get(embedding_version)
        has_rows = [table for table, num_rows in record.num_rows.items() if num_rows]
        return cls(
            id_kinds=dict(record.id_kinds),
            vectors={"pins": pins, "users": record.user_embeddings},
            extra_before={table: record.extra_columns[table] for table in has_rows},
            has_pin_times=record.have_pins_times,
        )

    def known(self, table: str, embedding_version: str) -> Known:
        """Return what a batch of a table is held to."""
        return Known(
            embedding_version=embedding_version,
            id_kinds=self.id_kinds,
            vectors=self.vectors.get(table),
            extra=self.extra.get(table, self.extra_before.get(table)),
            may_have_more=table not in self.extra,
            has_pin_times=self.has_pin_times,
        )

    def followed_by(self, table: str, found: Normalised) -> Self:
        """Return what is settled when these rows are kept."""
        has_vectors = table in _WITH_VECTORS
        is_pins = table == "pins"
        return replace(
            self,
            id_kinds=self.id_kinds | found.id_kinds,
            vectors=self.vectors | ({table: found.vectors} if has_vectors else {}),
            extra=self.extra | {table: found.extra},
            has_pin_times="known_at" in found.rows.column_names if is_pins else self.has_pin_times,
        )
