"""A proposed recipe knows what wins on a planted log, and is one that a cycle accepts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.log_check.propose import propose
from pipelines.recipes import make_recipe
from pipelines.sources.event_log_writer import EventLogWriter
from support.commands import lines

START = datetime(2026, 1, 1, tzinfo=UTC)


def planted_log(folder: Path, num_users: int, num_days: int = 40) -> Path:
    """Write a log of which the newest of six pins is nearly always clicked, and some are hidden."""
    rng, shown, done = np.random.default_rng(5), [], []
    for day in range(num_days):
        for user in range(num_users):
            at, request = START + timedelta(days=day, hours=10, minutes=user), f"{day}-{user}"
            ages = rng.permutation(6)
            newest = int(np.argmin(ages))
            for position, age in enumerate(ages):
                pin = 10 * max(0, day - age) + position % 3
                shown.append((request, user, pin, at))
                acts = rng.random() < (0.8 if position == newest else 0.1)
                kind = "click" if acts else "hide" if rng.random() < 0.2 else ""
                if kind:
                    done.append((request, user, pin, kind, at + timedelta(minutes=5)))
    pins = np.arange(10 * num_days)
    with EventLogWriter(str(folder), "mine-1") as writer:
        embedding = [row.tolist() for row in rng.normal(size=(len(pins), 4)).astype(np.float32)]
        writer.pins(pd.DataFrame({"pin_id": pins, "embedding": embedding}))
        columns = ["request_id", "user_id", "pin_id", "impressed_at"]
        unique = pd.DataFrame(shown, columns=columns).drop_duplicates(["request_id", "pin_id"])
        writer.impressions(unique)
        columns = ["request_id", "user_id", "pin_id", "action_type", "acted_at"]
        writer.actions(pd.DataFrame(done, columns=columns))
    return folder


def proposed(log: Path) -> tuple[str, RunConfig]:
    """Return the text, and the recipe that is read from it."""
    text = "\n".join(lines("recipe", "propose", "--event-log", str(log)))
    path = log.with_suffix(".yaml")
    path.write_text(text)
    return text, make_recipe(str(path))


def test_newest_wins_where_it_is_planted_and_few_users_need_more_days(tmp_path: Path) -> None:
    few_text, few = proposed(planted_log(tmp_path / "few", 15, num_days=70))
    text, many = proposed(planted_log(tmp_path / "many", 250, num_days=70))
    assert "{name: pin_age}  # newest first reaches" in text
    assert "# Of what is simple, newest first is best: " in few_text
    names = {feature.name for feature in many.features.numeric}
    assert {"pin_age", "pin_popularity_1d", "past_engagements"} <= names
    assert few.snapshot.holdout_days > many.snapshot.holdout_days >= 7
    assert "of equal models; four in five take" in few_text
    assert [head.is_wanted for head in many.features.heads] == [True, False]
    assert [rail.metric for rail in many.model_gate.guardrails] == ["hit_at_3.hide"]
    assert few.training.batch_size < many.training.batch_size and many.recipe == "mine"
    assert many.snapshot.label_window_hours == 24 and "follow within 0.083 h" in text


def test_a_cycle_accepts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_url: str
) -> None:
    log = planted_log(tmp_path / "event_log", 40)
    monkeypatch.setenv("HOMEFEED_EVENT_LOG", str(log))
    monkeypatch.setenv("HOMEFEED_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    proposed(log)
    told = lines("recipe", "check", str(log.with_suffix(".yaml")))
    assert "can be run, once MLflow answers" in told[-1]


def test_a_log_that_is_too_short_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="of 5 days, .* proposed from 7 or more"):
        propose(str(planted_log(tmp_path / "log", 20, num_days=5)))
