"""What a log and the batches so far have settled for the batches that follow.

A value never changes; a batch that is kept gives the next one. So a refused batch settles nothing.
Not for the rows themselves: `pipelines.sources.writer.runs`.
"""

from dataclasses import dataclass, field, replace
from typing import Self

from pipelines.contracts.errors import DataContractError
from pipelines.event_log.record import EventLogRecord, IdKind, Vectors
from pipelines.sources.writer.columns import Known, Normalised, UsersGiven

_OTHER = {"pins": "users", "users": "pins"}
"""The tables with embeddings, which all lie in one space, and whose width is compared with them."""


@dataclass(frozen=True)
class Settled:
    """Kinds of ids, looks of embeddings, and columns, by table or column."""

    id_kinds: dict[str, IdKind] = field(default_factory=dict)
    vectors: dict[str, Vectors | None] = field(default_factory=lambda: dict.fromkeys(_OTHER))
    extra: dict[str, dict[str, str]] = field(default_factory=dict)  # of tables given in this block
    extra_before: dict[str, dict[str, str]] = field(default_factory=dict)  # of those in the log
    has_pin_times: bool | None = None
    users_given: UsersGiven | None = None  # of this block
    widths_before: frozenset[int] = frozenset()  # of the log's pins, of whatever version

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
            widths_before=frozenset(v.embedding_dim for v in record.embedding_versions.values()),
        )

    def known(self, table: str, embedding_version: str) -> Known:
        """Return what a batch of a table is held to."""
        return Known(
            embedding_version=embedding_version,
            id_kinds=self.id_kinds,
            vectors=self.vectors.get(table),
            other_vectors=self.vectors.get(_OTHER.get(table, "")),
            users_given=self.users_given,
            extra=self.extra.get(table, self.extra_before.get(table)),
            may_have_more=table not in self.extra,
            has_pin_times=self.has_pin_times,
        )

    def followed_by(self, table: str, found: Normalised) -> Self:
        """Return what is settled when these rows are kept."""
        has_vectors = table in _OTHER
        is_pins, names = table == "pins", found.rows.column_names
        given = self.users_given
        if table == "users" and given is None:
            given = UsersGiven(found.place, "embedding" in names)
        vectors = found.vectors or self.vectors.get(table)
        return replace(
            self,
            id_kinds=self.id_kinds | found.id_kinds,
            vectors=self.vectors | ({table: vectors} if has_vectors else {}),
            extra=self.extra | {table: found.extra},
            has_pin_times="known_at" in names if is_pins else self.has_pin_times,
            users_given=given,
        )

    def zeros_of_users(self, embedding_version: str) -> Vectors | None:
        """Return what the zeros look like that users without embeddings get.

        None where the users of this block have embeddings, or none of them was given.

        Raises:
            DataContractError: they have none, and no pins say how wide the zeros are.
        """
        if self.users_given is None or self.users_given.has_embeddings:
            return None
        known = self.vectors["users"] or self.vectors["pins"]
        if known is not None:
            return known
        if len(self.widths_before) == 1:
            return Vectors(embedding_dim=min(self.widths_before), type="float32")
        raise DataContractError(
            f"the users have no column 'embedding', and no pins of version {embedding_version!r} "
            f"say how wide their zeros are; the log's versions have the widths "
            f"{sorted(self.widths_before)}; expected one width; give pins of version "
            f"{embedding_version!r}, or the users' embeddings"
        )
