"""Embeddings in every form that people have: the same numbers, in one width and one type."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import DataContractError
from pipelines.sources import EventLogWriter
from support.own_tables import VERSION, acted_on, pins, record_of, shown_on

NUMBERS = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
IDS = ["p0", "p1", "p2"]


def tensors(numbers: np.ndarray) -> pa.ExtensionArray:
    type_ = pa.fixed_shape_tensor(pa.float32(), (4,))
    return pa.ExtensionArray.from_storage(type_, to_list_column(numbers))


@pytest.mark.parametrize(
    ("given", "type_"),
    [
        (NUMBERS, "float32"),
        (NUMBERS.astype(np.float64), "float32"),
        (NUMBERS.astype(np.float16), "float16"),
        (to_list_column(NUMBERS.astype(np.float16)), "float16"),
        (pa.array(NUMBERS.tolist(), pa.large_list(pa.float32())), "float32"),
        (tensors(NUMBERS), "float32"),
        (pd.Series(list(NUMBERS)), "float32"),
        (pd.Series(NUMBERS.tolist()), "float32"),
    ],
)
def test_every_form_is_written_as_lists_of_one_width(
    tmp_path: Path, given: Any, type_: str
) -> None:
    batch = {"pin_id": IDS, "embedding": given}
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.pins(pd.DataFrame(batch) if isinstance(given, pd.Series) else batch)
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
    vectors = record_of(tmp_path / "log").embedding_versions[VERSION]
    assert (vectors.embedding_dim, vectors.type) == (4, type_)
    rows = pq.read_table(tmp_path / "log" / "pins")
    number = pa.float16() if type_ == "float16" else pa.float32()
    assert rows.schema.field("embedding").type == pa.list_(number, 4)
    by_id = {row["pin_id"]: row["embedding"] for row in rows.to_pylist()}
    names = pq.read_table(tmp_path / "log" / "names" / "pins").to_pylist()
    found = {row["name"]: by_id[row["id"]] for row in names}
    assert [found[name] for name in IDS] == NUMBERS.tolist()


def test_a_version_keeps_its_type(tmp_path: Path) -> None:
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.pins(pins())
        writer.pins(pins(3, 5, type_=np.float16))  # widened: float32 holds every float16
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
    with (
        pytest.raises(DataContractError, match="has float numbers, and this embedding version has"),
        EventLogWriter(tmp_path / "log", "mine-2") as writer,
    ):
        writer.pins(pins(type_=np.float16))
        writer.pins(pins(3, 4))
    with EventLogWriter(tmp_path / "log", "mine-2") as writer:
        writer.pins(pins(width=9, type_=np.float16))
    versions = record_of(tmp_path / "log").embedding_versions
    assert {name: (v.embedding_dim, v.type) for name, v in versions.items()} == {
        "mine-1": (6, "float32"),
        "mine-2": (9, "float16"),
    }
