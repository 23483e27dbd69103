"""Vectors of choices: who is chosen by the same is near, later items are zero, and none changes."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml

from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.time import DAY_MS
from pipelines.sources.event_log_writer import id_of
from pipelines.sources.mapping.load import import_log
from pipelines.sources.mapping.vectors import co_occurrence_of
from support.own_tables import rows_of_log

TO = "2026-01-05"
TO_MS = 20_458 * DAY_MS


def chosen_by_groups(num_users: int = 60) -> pd.DataFrame:
    """Return choices of two groups of users, each of its own six items, on four days."""
    rng, rows = np.random.default_rng(3), []
    for user in range(num_users):
        for item in rng.choice(6, 3, replace=False):
            day = 1 + rng.integers(4)
            at = f"2026-01-{day:02d}T{rng.integers(24):02d}:00:00Z"
            rows.append((f"u{user}", f"{'ab'[user % 2]}{item}", "buy", at))
    return pd.DataFrame(rows, columns=["who", "item", "kind", "at"])


def imported(folder: Path, done: pd.DataFrame, items: list[str], **vectors: Any) -> dict[int, Any]:
    """Import tables, or add them; return the pins of the log by id."""
    done.to_csv(folder / "done.csv", index=False)
    pd.DataFrame({"item": items, "text": ["red scarf"] * len(items)}).to_csv(
        folder / "items.csv", index=False
    )
    columns = {"user_id": "who", "pin_id": "item", "acted_at": "at", "action_type": "kind"}
    value = {
        "embedding_version": f"mine-{TO}",
        "candidates": {"action": "buy", "window_hours": 96, "num": 4},
        "vectors": {"co_occurrence": {"to": TO}, "width": 4, **vectors},
        "tables": {
            "actions": {"files": "done.csv", "columns": columns},
            "pins": {"files": "items.csv", "columns": {"pin_id": "item"}},
        },
    }
    (folder / "mapping.yaml").write_text(yaml.safe_dump(value))
    import_log(folder / "mapping.yaml", str(folder / "log"))
    return {row["pin_id"]: row for row in rows_of_log(folder / "log", "pins")}


ITEMS = [f"{group}{n}" for group in "ab" for n in range(6)]


def test_who_is_chosen_by_the_same_users_is_near_and_later_items_have_their_texts_alone(
    tmp_path: Path,
) -> None:
    pins = imported(tmp_path, chosen_by_groups(), [*ITEMS, "new"], texts=["text"])
    vectors = np.array([pins[id_of(name)]["embedding"] for name in ITEMS])[:, 4:]
    cosines = vectors @ vectors.T
    is_same = np.equal.outer(*[[name[0] for name in ITEMS]] * 2)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert cosines[is_same].mean() > cosines[~is_same].mean() + 0.3
    new = np.array(pins[id_of("new")]["embedding"])
    assert np.linalg.norm(new[:4]) == pytest.approx(1.0, abs=1e-5) and not new[4:].any()
    assert {pin["known_at"] for pin in pins.values()} == {TO_MS}, "nobody is trained on its own fit"


def test_what_is_added_later_changes_no_vector_and_its_items_are_cold(tmp_path: Path) -> None:
    before = imported(tmp_path, chosen_by_groups(), ITEMS)
    later = chosen_by_groups(80).assign(item=lambda rows: rows["item"].str[::-1])
    later["at"] = later["at"].str.replace("2026-01-0", "2026-01-1")
    after = imported(tmp_path, later, [*ITEMS, *(name[::-1] for name in ITEMS)])
    assert {pin: row for pin, row in after.items() if pin in before} == before
    others = [row["embedding"] for pin, row in after.items() if pin not in before]
    assert len(others) == len(ITEMS) and not np.any(others)


def test_the_version_says_the_day_and_too_few_choices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="expected it to say on what day .* mine-2026-01-04"
    ):
        imported(tmp_path, chosen_by_groups(), ITEMS, co_occurrence={"to": "2026-01-04"})
    few = duckdb.sql("SELECT 1 AS user_id, 2 AS pin_id, 3 AS num").to_arrow_table()
    with pytest.raises(DataContractError, match="1 users chose 1 items before its day"):
        co_occurrence_of(few, 4)
