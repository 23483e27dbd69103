"""The schemas of the files."""

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import PIN_ROWS, REQUESTS, TIMELINE
from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path


def test_files_have_the_contract_schema_and_one_batch(tiny: Snapshot) -> None:
    folder = local_path(tiny.uri)
    assert open_table(folder, "pins.arrow").schema.equals(PIN_ROWS)
    assert open_table(folder, "shard-00000/timeline.arrow").schema.equals(TIMELINE)
    assert open_table(folder, "shard-00000/requests.arrow").schema.equals(REQUESTS)
    examples = open_table(folder, "shard-00000/examples.arrow")
    assert examples.schema.names == [
        *("pin_row", "position", "is_exploration", "propensity"),
        *("num_pin_popularity", "num_past_engagements", "num_pin_popularity_1d"),
        *("num_pin_popularity_7d", "num_pin_popularity_28d", "num_pin_age", "num_pin_age_missing"),
        *("label_repin", "label_long_click", "label_save"),
    ]
    assert all(column.num_chunks == 1 for column in examples.columns)
