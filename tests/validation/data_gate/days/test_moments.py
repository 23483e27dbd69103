"""What rows give together: quantities counted by plain loops, and defects that no rule is for."""

import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS
from support.log_days import FIRST_DAY, random_log
from support.planted import LogRows
from validation.data_gate.days import moments
from validation.data_gate.days.measure import DayRows, measure_days, open_engine


def measured(log: LogRows, scratch: Path) -> dict[int, DayProfile]:
    rows = DayRows([log.impressions], [log.actions], [log.users], [log.pins])
    with open_engine(str(scratch)) as engine:
        found = measure_days(engine, rows, log.first_day, log.end_day, ["shelf"])
    return {each.day: each for each in found}


def test_quantities_of_a_day_are_those_of_plain_loops(tmp_path: Path) -> None:
    log, day = random_log(), FIRST_DAY + 2
    numbers = measured(log, tmp_path)[day].numbers
    acted = {(row["user_id"], row["pin_id"]) for row in log.actions.to_pylist()
             if row["acted_at"] // DAY_MS == day and row["action_type"] == "repin"}  # fmt: skip
    shown = [row for row in log.impressions.to_pylist() if row["impressed_at"] // DAY_MS == day]
    pins = [row["pin_id"] for row in shown]
    is_acted = np.array([(row["user_id"], row["pin_id"]) in acted for row in shown], float)
    position = np.log1p([row["position"] for row in shown])
    popularity = np.log([pins.count(pin) for pin in pins])
    expected = {
        "acted repin.mean": is_acted.mean(),
        "position.mean": position.mean(),
        "position.deviation": position.std(),
        "popularity.mean": popularity.mean(),
        "acted repin~position": np.corrcoef(is_acted, position)[0, 1],
        "position~popularity": np.corrcoef(position, popularity)[0, 1],
    }
    found = {name: numbers[f"joint.impressions.{name}"].value for name in expected}
    assert found == pytest.approx(expected)
    for name in ("acted click.mean", "position~size"):  # Too few of them say anything.
        assert f"joint.impressions.{name}" not in numbers


def test_what_the_rows_of_a_request_give_together_is_that_of_plain_loops(tmp_path: Path) -> None:
    log, day = random_log(), FIRST_DAY + 2
    numbers = measured(log, tmp_path)[day].numbers
    acted = {(row["user_id"], row["pin_id"]) for row in log.actions.to_pylist()
             if row["acted_at"] // DAY_MS == day}  # fmt: skip
    requests, of_pin = defaultdict(list), defaultdict(list)
    for row in log.impressions.to_pylist():
        if row["impressed_at"] // DAY_MS == day:
            requests[row["request_id"]].append(row)
            key = row["impressed_at"], row["user_id"], row["request_id"]
            of_pin[row["pin_id"]].append((*key, row["shelf"]))
    hits = [[(r["user_id"], r["pin_id"]) in acted for r in of] for of in requests.values()]
    gains = [np.log1p(np.flatnonzero(of)).mean() - np.log1p(range(5)).mean() for of in hits]
    shelves = [sorted(of, key=lambda each: each[:2]) for of in of_pin.values()]
    kept = [a[-1] == b[-1] for of in shelves for a, b in itertools.pairwise(of)]
    expected = {
        "requests.size.mean": np.log(5),
        "requests.acted_pins.mean": np.log1p(np.sum(hits, axis=1)).mean(),
        "requests.position_gain.mean": np.mean(gains),
        "impressions.same_of_pin shelf.mean": np.mean(kept),
    }
    assert {n: numbers[f"joint.{n}"].value for n in expected} == pytest.approx(expected)
    assert 0.3 < numbers["joint.requests.alike.mean"].value < 0.6  # 1 over the root of five pins.


def test_of_a_large_day_the_same_users_are_looked_at_in_every_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "_SAMPLE", moments._SAMPLE.replace("30000", "200"))
    monkeypatch.setattr(moments, "FEWEST_ROWS", 1)
    half = measured(random_log(), tmp_path)[FIRST_DAY + 1].numbers
    shown, people = (
        half[f"joint.{name}.user_length.mean"].num for name in ("impressions", "users")
    )
    assert shown == 10 * people and 10 <= people <= 30


def test_action_types_may_have_any_name_and_days_no_actions(tmp_path: Path) -> None:
    log = random_log()
    odd = log.set("actions", action_type=["\"re'pin]"] * len(log.actions))
    numbers = measured(odd, tmp_path)[FIRST_DAY + 1].numbers
    assert numbers["joint.impressions.acted \"re'pin].mean"].value > 0.2
    none = log.without("actions", np.ones(len(log.actions), dtype=bool))
    assert "joint.users.requests.mean" not in measured(none, tmp_path)[FIRST_DAY + 1].numbers
