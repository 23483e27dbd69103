"""Texts as codes."""

from pathlib import Path

import pyarrow as pa

from pipelines.contracts.features.categorical import CategoricalFeature
from pipelines.event_log.declared import positions
from support.tiny_log import assert_refused, build_tiny, rows_of, tiny_config, write_tiny_log


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


def test_a_declared_feature_without_its_column_is_named(log: Path) -> None:
    config = tiny_config()
    feature = CategoricalFeature(name="mailer", table="impressions", values=("A",))
    features = config.features.model_copy(update={"categorical": (feature,)})
    assert_refused(
        log.parent,
        "missing column 'mailer' .declared as features by the recipe",
        config=config.model_copy(update={"features": features}),
    )


def test_texts_have_one_position_however_a_file_holds_them() -> None:
    texts = pa.chunked_array([["b", None, "x"], [], ["a", "b"]], pa.string())
    coded = pa.chunked_array([chunk.dictionary_encode() for chunk in texts.chunks])
    together = pa.chunked_array([coded.combine_chunks()])
    for found in (texts, coded, together, texts.cast(pa.large_string())):
        assert positions(found, ["a", "b"]).tolist() == [1, -1, -1, 0, 1]
    assert positions(texts.slice(0, 0), ["a"]).tolist() == []
