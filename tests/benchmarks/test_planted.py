"""Planted defects: each changes what it says, as much as it says, where it may, and no more."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines import storage
from pipelines.contracts.day_profile import DayProfile
from pipelines.event_log.log_files import open_event_log
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from support.log_days import random_log
from support.planted import DEFECTS, KNOWN, TABLES, LogRows, try_defects
from support.planted_blind import BLIND
from support.planted_tuned import TUNED
from support.runs import PLANTED_AS_OF
from support.worlds import write_planted_world
from validation.data_gate.days.measure import DayRows, measure_days, open_engine

ALL = {**KNOWN, **TUNED, **BLIND}
NEW_PINS = {name for name in TUNED if name.startswith(("new_pin_", "pin_ids_"))}
NOT_IN_A_SMALL_LOG = {
    *("positions_by_label", "heavy_users_capped", "column_of_last_week", "rarer_types_merged"),
    *("impressed_on_the_hour", "unacted_requests_lost", "exploration_flag_lost", *NEW_PINS),
    *("rows_after_midnight_lost", "pins_no_longer_shown_lost", "exploration_requests_lost"),
}
"""Its pins are never new nor gone, its users equally busy, its labels at the top, and it has no
week, no third type, no minutes, no lag, no idle request and no exploration."""


def planted(name: str, strength: float = 0.6) -> LogRows:
    return ALL[name][0](random_log(), strength, np.random.default_rng(3))


def changed(before: LogRows, after: LogRows) -> list[str]:
    return [name for name in TABLES if not getattr(before, name).equals(getattr(after, name))]


@pytest.mark.parametrize("name", ALL)
def test_a_defect_changes_the_days_that_it_may_and_the_same_with_the_same_seed(name: str) -> None:
    before, after = random_log(), planted(name, ALL[name][1][-1])
    assert changed(after, planted(name, ALL[name][1][-1])) == []
    tables = changed(before, after)
    assert bool(tables) == (name not in NOT_IN_A_SMALL_LOG)
    for table in tables:
        assert getattr(after, table).column_names == getattr(before, table).column_names
    if tables == ["pins"] or name == "user_embeddings_months_old":
        return  # Not by days.
    for table, side in (("impressions", -1), ("actions", -1), ("users", 1)):
        first, spoiled = (
            getattr(log, table).filter(pa.array(
                log.day_of(table) < before.first_day if side < 0
                else log.day_of(table) >= before.end_day))
            for log in (before, after)
        )  # fmt: skip
        assert spoiled.equals(first)


def test_how_strong_defects_are(tmp_path: Path) -> None:
    assert tuple(map(len, (DEFECTS, TUNED, BLIND))) == (37, 62, 30)

    def days_of(log: LogRows) -> list[DayProfile]:
        with open_engine(str(tmp_path)) as engine:
            rows = DayRows([log.impressions], [log.actions], [log.users])
            return list(measure_days(engine, rows, log.first_day, log.end_day, ["shelf"]))

    found, sound = {}, days_of(random_log())
    for name, measure, clean, spoiled in (
        ("exposures_twice", "impressions.pin_repeated", 0.0, 0.6 / 1.6),
        ("negatives_lost", "impressions.pins_per_request", 5.0, 1 + 4 * 0.4),
        ("position_constant", "impressions.place_repeated", 0.0, 0.6 * 0.8),
        ("sequence_reversed", "named.repin.shown", 1.0, 0.42),
        ("columns_swapped", "named.repin.own", 1.0, 0.4),
        ("leak_through_actions", "actions.repin.name_a_request", 1.0, 1 / 1.6),
        ("action_type_gone", "actions.repin.per_request", 1.0, 0.4),
        ("lag_gone", "actions.repin.known_at_once", 0.0, 0.6),
        ("user_embeddings_zero", "users.zero_embedding", 0.0, 0.6),
        ("user_embeddings_equal", "users.embedding_repeated", 0.0, 0.58),
        ("holdout_requests_lost", "named.repin.known", 1.0, 1 - 0.6 / 2),
        ("actions_tripled", "actions.repin.per_request", 1.0, 2.2),
    ):
        for days, expected in ((sound, clean), (days_of(planted(name)), spoiled)):
            value = float(np.mean([day.numbers[measure].value for day in days]))
            found[name, expected] = value - expected
    assert {key: off for key, off in found.items() if abs(off) > 0.08} == {}


@pytest.mark.slow
def test_the_gate_is_tried_at_three_strengths(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log", num_days=80, num_users=150)
    names = ("exposures_twice", "pin_embeddings_rotated", "lag_gone", "feature_equals_label")
    event_log = open_event_log(storage.to_uri(tmp_path / "event_log"))
    plan = plan_of(smoke(), PLANTED_AS_OF)
    kinds = {name: ALL[name] for name in (*names, "pins_without_rows")}
    clean, *found = try_defects(event_log, plan, tmp_path, kinds)
    assert not clean.has_effect and not clean.told
    by_name = {(each.defect, each.strength): each for each in found}
    assert len(by_name) == 15 and all(each.has_effect for each in found)
    lost = by_name["pins_without_rows", "weak"]  # The contract refuses one such pin.
    assert lost.is_critical and lost.told[0] == "pins without rows (contract)"
    assert by_name["exposures_twice", "middle"].is_critical
    assert by_name["pin_embeddings_rotated", "weak"].told == ("embeddings of pins",)
    assert by_name["lag_gone", "strong"].told
    assert not by_name["feature_equals_label", "weak"].told
