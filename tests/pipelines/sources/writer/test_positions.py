"""Positions that were not given: a request's rows are counted as one, however they are filed."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.sources import EventLogWriter
from pipelines.sources.writer import assemble, positions, runs
from support.own_tables import VERSION, acted_on, pins, rows_of_log

MIDNIGHT = pd.Timestamp(2024, 1, 3)


def around_midnight(num_requests: int = 5, num_rows: int = 6) -> pd.DataFrame:
    """Return requests whose rows lie on both sides of midnight, in order of time."""
    place, request = np.divmod(np.arange(num_rows * num_requests), num_requests)
    return pd.DataFrame(
        {
            "request_id": [f"r{number}" for number in request],
            "user_id": "u0",
            "pin_id": [f"p{number}" for number in place],
            "impressed_at": MIDNIGHT + pd.to_timedelta(place - num_rows // 2, unit="s"),
        }
    )


def positions_of(location: Path) -> dict[tuple[str, int], int]:
    found = rows_of_log(location, "impressions")
    return {(row["request_id"], row["impressed_at"]): row["position"] for row in found}


@pytest.mark.parametrize("max_file_rows", [2, 1 << 20])
@pytest.mark.parametrize("is_one_batch", [True, False])
def test_a_request_is_counted_over_midnight_files_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_file_rows: int, is_one_batch: bool
) -> None:
    monkeypatch.setattr(assemble, "MAX_FILE_ROWS", max_file_rows)
    monkeypatch.setattr(runs, "MAX_BYTES", 200)
    shown = around_midnight()
    parts = [shown] if is_one_batch else [shown.iloc[[row]] for row in range(len(shown))]
    random.Random(3).shuffle(parts)
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        for part in parts:
            writer.impressions(part)
        writer.actions(acted_on(2))
        writer.pins(pins(0, 6))
    start = int((MIDNIGHT - pd.Timedelta(seconds=3)).timestamp() * 1000)
    expected = {(f"r{r}", start + 1000 * place): place for r in range(5) for place in range(6)}
    assert positions_of(tmp_path / "log") == expected


def test_rows_of_one_instant_are_counted_as_they_were_given(tmp_path: Path) -> None:
    shown = around_midnight(num_requests=1).assign(impressed_at=MIDNIGHT)
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.impressions(shown.iloc[[4, 1]])
        writer.impressions(shown.iloc[[5]].assign(position=9))
        writer.impressions(shown.iloc[[0, 3, 2]])
        writer.actions(acted_on(2))
        writer.pins({"pin_id": [f"p{n}" for n in range(6)], "embedding": np.eye(6)})
    found = rows_of_log(tmp_path / "log", "impressions")
    names = {positions.id_of(f"p{number}"): number for number in range(6)}
    in_order = {names[row["pin_id"]]: row["position"] for row in found}
    assert in_order == {4: 0, 1: 1, 5: 9, 0: 3, 3: 4, 2: 5}


def test_a_request_with_too_many_rows_over_midnight_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "_LARGEST_POSITION", 4)
    says = "request 'r0' has more than 4 rows; expected one request_id for each page"
    with (
        pytest.raises(DataContractError, match=says),
        EventLogWriter(tmp_path / "log", VERSION) as writer,
    ):
        writer.impressions(pa.Table.from_pandas(around_midnight(num_requests=1)))
        writer.actions(acted_on(2))
        writer.pins(pins())
    assert not (tmp_path / "log").exists()
