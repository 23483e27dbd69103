"""What a mapping says: for each table where its rows lie, and which column or expression is what.

    embedding_version: mine-1
    candidates: {action: click}      only where no impressions were logged
    vectors: {texts: [title]}        only where items have no embeddings; or co_occurrence: {to: ..}
    tables:
      actions:
        files: events/*.csv          beside the mapping; or delta, iceberg, database and query
        times: {unit: s}             or format and zone
        columns: {user_id: visitor, pin_id: item, acted_at: ts, action_type: what}
        action_types: {view: click}  what is not named is left out
      pins: ...

Relative paths begin where the mapping lies. `$NAME` in a database's address is read from the
environment, so that no password stands in a file.
"""

import json
from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.recipes.text import parse
from pipelines.sources.event_log_writer import DEFAULTS

TableName = Literal["impressions", "actions", "pins", "users"]
SOURCES = ("files", "delta", "iceberg", "database")


def needed(table: TableName) -> set[str]:
    """Return the columns that a table has to name: all that `EventLogWriter` does not fill in."""
    return set(EVENT_LOG_TABLES[table].names) - {*DEFAULTS[table], "embedding"}


class Times(Frozen):
    """How times are written; timestamps and ISO 8601 are read without being told how."""

    unit: Literal["s", "ms", "us", "ns"] | None = None  # Numbers since 1970.
    format: str = ""  # As strptime has it, such as %d.%m.%Y %H:%M.
    zone: str = "UTC"  # Of times that name none.


class TableMapping(Frozen):
    """One table: where its rows are, and what they are."""

    files: str | tuple[str, ...] = ()  # Paths, patterns, folders or URIs.
    delta: str = ""  # Folder or URI of a Delta table.
    iceberg: str = ""  # Metadata file of an Iceberg table.
    database: str = ""  # SQLAlchemy's address of a database, with `query`.
    query: str = ""
    delimiter: str = ""  # Of CSV files; found out by default.
    encoding: str = "utf-8"  # Of CSV files.
    times: Times = Times()
    columns: dict[str, str]  # The log's column: a column of the source, or an SQL expression.
    where: str = ""  # An SQL condition that rows meet.
    action_types: dict[str, str] = Field(default_factory=dict)  # Of the source: of the log.

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name)]
        if len(given) != 1 or bool(self.database) != bool(self.query):
            raise ValueError(
                f"found {given or 'no source'}; expected one of {', '.join(SOURCES)}, and query "
                f"with database alone"
            )
        return self


class Draw(Frozen):
    """How candidates are drawn where none were logged (`draw`)."""

    action: str  # The log's action type that makes a request, the main head's.
    num: int = Field(20, ge=1, le=1000)  # Others beside what was chosen.
    window_hours: float = Field(24, gt=0)  # What was chosen so shortly before is alive.
    visit_minutes: float = Field(30, gt=0)  # Silence that ends a visit.
    seed: int = Field(17, ge=0)

    @property
    def sentence(self) -> str:
        """How they were drawn, for pages."""
        return (
            f"{self.num} others beside what was chosen in a visit, of the items that anybody chose "
            f"({self.action}) in the {self.window_hours:g} h before it, as often as they were "
            f"chosen; seed {self.seed}"
        )


class CoOccurrence(Frozen):
    """Vectors of who chose what (`vectors`)."""

    to: date  # Actions before this day (UTC) are fitted; nothing of an item is known earlier.


class Vectors(Frozen):
    """How items without embeddings get some (`vectors`)."""

    texts: tuple[str, ...] = ()  # Columns of the pins' source.
    co_occurrence: CoOccurrence | None = None
    width: int = Field(32, ge=2, le=1024)  # Of each of the two.

    @model_validator(mode="after")
    def _are_of_something(self) -> Self:
        if not self.texts and self.co_occurrence is None:
            raise ValueError("expected texts or co_occurrence")
        return self


class Mapping(Frozen):
    """A whole log's."""

    embedding_version: str = Field(min_length=1)
    complete_to: AwareDatetime | None = None  # Of all that happened before, rows are there.
    tables: dict[TableName, TableMapping]
    candidates: Draw | None = None
    vectors: Vectors | None = None

    @model_validator(mode="after")
    def _makes_a_log(self) -> Self:
        is_drawn = self.candidates is not None
        if (
            not {"actions", "pins"} <= set(self.tables)
            or ("impressions" in self.tables) == is_drawn
        ):
            raise ValueError(
                f"found tables {', '.join(self.tables)}{' and candidates' * is_drawn}; expected "
                f"actions, pins, and either impressions or candidates"
            )
        for name, table in self.tables.items():
            if missing := sorted(needed(name) - set(table.columns)):
                raise ValueError(f"tables.{name}.columns lacks {', '.join(missing)}")
        if ("embedding" in self.tables["pins"].columns) == (self.vectors is not None):
            raise ValueError("expected either tables.pins.columns.embedding or vectors")
        fit = self.vectors and self.vectors.co_occurrence
        if fit and f"{fit.to}" not in self.embedding_version:
            raise ValueError(
                f"embedding_version is {self.embedding_version!r}; expected it to say on what day "
                f"vectors.co_occurrence is fitted, such as mine-{fit.to}"
            )
        return self


def read_mapping(path: Path) -> Mapping:
    """Return the mapping that a YAML file holds.

    Raises:
        ConfigurationError: it cannot be read, or is none; the message has a line for each problem.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"mapping {path} cannot be read: {error.strerror}; `homefeed log init mine` writes one"
        ) from None
    try:
        found = parse(content, str(path), "mapping")
        return Mapping.model_validate_json(json.dumps(found, default=str))
    except ValidationError as error:
        lines = "\n".join(
            f"- {'.'.join(map(str, each['loc'])) or 'it'}: "
            f"{each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_url=False)
        )
        raise ConfigurationError(f"mapping {path} is not valid:\n{lines}\nCorrect it") from None
