"""Declared columns: texts become codes, numbers are read, and what is none is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import DataContractError
from pipelines.event_log.declared import append_numbers, positions
from support.random_log import build, config_of, write_random_log
from support.tiny_log import build_tiny, rows_of, tiny_config, write_tiny_log


def test_categories_become_codes_and_unknown_ones_zero(tmp_path: Path) -> None:
    config = tiny_config()
    state = {"name": "state", "table": "users", "values": ("core", "non_core", "new")}
    surface = {"name": "surface", "table": "impressions", "values": ("search",)}
    features = config.features.model_dump() | {"categorical": (state, surface)}
    config = config.model_validate(config.model_dump() | {"features": features})
    write_tiny_log(tmp_path / "event_log")
    snapshot = build_tiny(tmp_path, config)
    assert [user["cat_state"] for user in rows_of(snapshot, "users")] == [1, 3]
    assert {row["cat_surface"] for row in rows_of(snapshot, "examples")} == {0}


def test_texts_have_one_position_however_a_file_holds_them() -> None:
    texts = pa.chunked_array([["b", None, "x"], [], ["a", "b"]], pa.string())
    coded = pa.chunked_array([chunk.dictionary_encode() for chunk in texts.chunks])
    together = pa.chunked_array([coded.combine_chunks()])
    for found in (texts, coded, together, texts.cast(pa.large_string())):
        assert positions(found, ["a", "b"]).tolist() == [1, -1, -1, 0, 1]
    assert positions(texts.slice(0, 0), ["a"]).tolist() == []


def test_a_null_becomes_nan_and_an_integer_a_float() -> None:
    rows = pa.table({"age": pa.array([1, None, 3], pa.int32()), "x": pa.nulls(3)})
    found = append_numbers("a.parquet", rows.select([]), rows, ["age", "x"])
    assert found.schema.field("raw_age") == pa.field("raw_age", pa.float64(), nullable=False)
    assert np.asarray(found["raw_age"]).tolist()[::2] == [1.0, 3.0]
    assert np.isnan(np.asarray(found["raw_x"])).all()
    assert found["raw_age"].null_count == 0


@pytest.mark.parametrize("number", [np.inf, -np.inf, 1e39])
def test_a_number_that_no_float32_holds_is_refused(number: float) -> None:
    rows = pa.table({"price": [1.0, number]})
    with pytest.raises(
        DataContractError, match="a.parquet: column 'price' has a number that is inf"
    ):
        append_numbers("a.parquet", rows, rows, ["price"])


def test_text_where_a_number_is_declared_names_file_and_column(tmp_path: Path) -> None:
    write_random_log(tmp_path / "event_log")
    [path] = (tmp_path / "event_log" / "pins").glob("*.parquet")
    rows = pq.read_table(path)
    index = rows.schema.get_field_index("created_at")
    texts = rows["created_at"].cast(pa.string())
    pq.write_table(rows.set_column(index, "created_at", texts), path)
    expected = r"pins/part-0.parquet: column 'created_at' is string; expected an integer or a float"
    with pytest.raises(DataContractError, match=expected):
        build(tmp_path, config_of(NumericFeature(name="pins.created_at")))
