"""Checks the tables of pins and users: embeddings of one width, whole numbers, one row per key.

    <scratch>/pins-<number>/{pin,version}.bin, names.json (versions)
    <scratch>/users-<number>/{user,as_of}.bin

Any width is fine as long as a version has one. Not for what the numbers mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.rules import (
    Finding,
    embedding_number_problems,
    repeated_embedding,
    repeated_user_row,
)
from pipelines.log_check import scratch
from pipelines.log_check.categories import Counts
from pipelines.log_check.exposures import pair_keys
from pipelines.log_check.found import Embeddings
from pipelines.log_check.reading import Collector, Wanted, numbers, read_checked, usable

USERS = ""
"""Stands for a version in the users' table, which has none."""
KEYS = {"pins": "pin_id", "users": "user_id"}


@dataclass(frozen=True)
class TableTask:
    """One file of pins or users for one worker."""

    event_log: EventLog
    file: LogFile
    number: int
    wanted: Wanted
    folder: Path

    @property
    def columns(self) -> Path:
        """Where the file's keys go."""
        return self.folder / f"{self.file.table}-{self.number}"


@dataclass
class TableFound:
    """What one file comes to."""

    embeddings: dict[str, Embeddings] = field(default_factory=dict)  # by version
    findings: list[Finding] = field(default_factory=list)
    unlisted: Counts = field(default_factory=dict)


def read_table(task: TableTask) -> TableFound:
    """Read, check and count one file of pins or users."""
    found, collector, table = TableFound(), Collector(), task.file.table
    names: dict[str, int] = {}
    for offset, rows in read_checked(task.event_log, task.file, task.wanted, collector):
        collector.add(_measure(task.file, rows, found.embeddings), table, offset)
        other = "embedding_version" if table == "pins" else "as_of"
        is_usable = usable(rows, (KEYS[table], other))
        if is_usable is not None:
            kept = rows.filter(pa.array(is_usable))
            scratch.append(task.columns, _keys(table, kept, names))
    scratch.write_names(task.columns, list(names))
    found.findings = list(collector.found.values())
    found.unlisted = collector.unlisted
    return found


def _keys(table: str, rows: pa.Table, names: dict[str, int]) -> dict[str, scratch.Column]:
    if table == "users":
        return {"user": numbers(rows, "user_id"), "as_of": numbers(rows, "as_of")}
    texts = rows["embedding_version"].cast(pa.string())
    for name in pc.unique(texts).to_pylist():
        names.setdefault(name, len(names))
    codes = pc.index_in(texts, value_set=pa.array(list(names), pa.string()))
    return {"pin": numbers(rows, "pin_id"), "version": np.asarray(codes).astype(np.int16)}


def _measure(file: LogFile, rows: pa.Table, embeddings: dict[str, Embeddings]) -> Iterator[Finding]:
    """Count a batch's embeddings by version and width; yield those that hold no numbers."""
    key = KEYS[file.table]
    if not {"embedding", key} <= set(rows.schema.names):
        return
    rows = rows.append_column("row", pa.array(np.arange(len(rows))))
    rows = rows.filter(rows["embedding"].is_valid())
    has_version = "embedding_version" in rows.schema.names
    texts = rows["embedding_version"].cast(pa.string()) if has_version else None
    for version in pc.unique(texts).drop_null().to_pylist() if texts is not None else [USERS]:
        own = rows if texts is None else rows.filter(pc.fill_null(pc.equal(texts, version), False))
        known = embeddings.setdefault(version, Embeddings())
        known.rows += len(own)
        widths = pc.list_value_length(own["embedding"])
        for width in pc.unique(widths).to_pylist():
            some = own.filter(pc.equal(widths, width))
            known.widths[width] = known.widths.get(width, 0) + len(some)
            matrix = _matrix(some["embedding"], width)
            known.zero += int((matrix == 0).all(axis=1).sum())
            for problem in embedding_number_problems(file.path, key, some[key], matrix):
                assert problem.row is not None  # it is about a row of `some`
                yield _of_row(problem, some["row"][problem.row].as_py())


def _of_row(problem: Finding, row: int) -> Finding:
    return Finding(**{**vars(problem), "row": row})


def _matrix(lists: pa.ChunkedArray, width: int) -> np.ndarray:
    """Return lists of one width as [rows, width]; a null number is NaN."""
    flat = pc.list_flatten(lists).combine_chunks()
    numbers_of = flat.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(numbers_of, dtype=np.float32).reshape(len(lists), width)


def width_problems(table: str, embeddings: dict[str, Embeddings]) -> Iterator[Finding]:
    """Yield the versions whose embeddings have several widths."""
    for version, known in sorted(embeddings.items()):
        if len(known.widths) > 1:
            usual = max(known.widths, key=lambda width: known.widths[width])
            others = {width: rows for width, rows in known.widths.items() if width != usual}
            said = ", ".join(f"{rows:,} of {width}" for width, rows in sorted(others.items()))
            what = f" of version {version!r}" if version else ""
            yield Finding(
                "embedding_width",
                "",
                f"{table}: embeddings{what} have several widths: {known.widths[usual]:,} of "
                f"{usual} numbers, {said}",
                "one width in a version",
                "write these rows again, or under an embedding_version of their own",
                table=table,
                column="embedding",
                value=said,
                num_rows=sum(others.values()),
            )


def pins_by_version(folder: Path, num_files: int) -> dict[str, np.ndarray]:
    """Return the pins of each version, sorted; a pin that occurs twice is there twice."""
    found: dict[str, list[np.ndarray]] = {}
    for number in range(num_files):
        columns = folder / f"pins-{number}"
        pins = scratch.load(columns, "pin", np.int64)
        codes = scratch.load(columns, "version", np.int16)
        for code, name in enumerate(scratch.read_names(columns)):
            found.setdefault(name, []).append(np.asarray(pins[codes == code]))
    return {name: np.sort(np.concatenate(parts)) for name, parts in found.items()}


def repeated_pins(pins: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Yield the versions in which a pin has two rows."""
    for version, ids in sorted(pins.items()):
        repeated = ids[1:][ids[1:] == ids[:-1]]
        if len(repeated):
            yield repeated_embedding(int(repeated[0]), version, len(repeated))


def repeated_users(folder: Path, num_files: int) -> Iterator[Finding]:
    """Yield a finding where a user has two rows of one as_of."""
    columns = [folder / f"users-{number}" for number in range(num_files)]
    users = [scratch.load(each, "user", np.int64) for each in columns]
    times = [scratch.load(each, "as_of", np.int64) for each in columns]
    if not users:
        return
    user, as_of = np.concatenate(users), np.concatenate(times)
    keys = pair_keys(user, as_of)
    in_order = np.sort(keys)
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    if len(repeated):
        row = int(np.flatnonzero(keys == repeated[0])[0])
        yield repeated_user_row(int(user[row]), int(as_of[row]), len(repeated))
