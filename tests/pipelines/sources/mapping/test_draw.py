"""Candidates that are drawn: alive, in an order that tells nothing, one request a visit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.sources.mapping.draw import BEFORE_MS, draw
from pipelines.sources.mapping.spec import Draw
from pipelines.sources.mapping.tables import Tables

HOUR = 3_600_000
START = 1_767_225_600_000
HOW = Draw(action="click", num=10, seed=3)


def clicks(num: int = 6_000, days: int = 4) -> pd.DataFrame:
    """Clicks on items that are born one after another, as likely on each that is alive."""
    rng = np.random.default_rng(7)
    time = np.sort(rng.integers(0, days * 24 * HOUR, num))
    born = np.sort(rng.integers(-24 * HOUR, days * 24 * HOUR, 400))
    item = (rng.random(num) * np.searchsorted(born, time)).astype(np.int64)
    user = rng.integers(0, 300, num)
    columns = {"user_id": user, "pin_id": item, "acted_at": START + time, "action_type": "click"}
    return pd.DataFrame(columns)


def drawn(tmp_path: Path, actions: pd.DataFrame, how: Draw = HOW) -> tuple[pd.DataFrame, ...]:
    """Return the impressions, and the actions with their requests."""
    scratch = tmp_path / f"of {len(actions)}"
    scratch.mkdir()
    tables = Tables(tmp_path, scratch)
    tables.database.register("given", actions)
    tables.database.execute("CREATE TABLE actions AS FROM given")
    shown = pd.concat([rows.to_pandas() for rows in draw(tables, how)], ignore_index=True)
    answered = tables.database.sql("FROM actions").df()
    tables.database.close()
    return shown, answered


def test_each_candidate_was_alive_and_nothing_tells_which_one_was_chosen(tmp_path: Path) -> None:
    actions = clicks()
    shown, answered = drawn(tmp_path, actions)
    own = answered.dropna(subset="request_id").set_index(["request_id", "pin_id"]).index
    pairs = shown.set_index(["request_id", "pin_id"]).index
    assert pairs.is_unique and own.isin(pairs).all()
    others = shown[~pairs.isin(own)]
    merged = others.merge(actions, on="pin_id", suffixes=("", "_of"))
    since = (merged["acted_at"] >= merged["impressed_at"] - 24 * HOUR) & (
        merged["acted_at"] < merged["impressed_at"]
    )
    alive = merged[since].groupby(["request_id", "pin_id"]).size()
    assert others.set_index(["request_id", "pin_id"]).index.isin(alive.index).all()
    # Neither place nor age tells what was chosen: each item that is alive is chosen as often.
    shown["is_own"], shown["place"] = pairs.isin(own), shown.groupby("request_id").cumcount()
    late = shown[shown["impressed_at"] > START + 48 * HOUR]
    ranks = {name: late.groupby("request_id")[name].rank(pct=True) for name in ("place", "pin_id")}
    place, age = (each[late["is_own"]].mean() - each.mean() for each in ranks.values())
    assert abs(place) < 0.02
    # An item of the last hours was not chosen often yet, so that the chosen ones are newer by a
    # little; drawn of the whole day, they came out older by far.
    assert 0 < age < 0.07


def test_a_visit_makes_one_request_which_its_other_actions_answer_too(tmp_path: Path) -> None:
    minutes = {("u", "a"): 600, ("u", "b"): 610, ("u", "c"): 700}
    rows = [("v", item, minute, "click") for minute, item in enumerate("abcdefgh")]
    rows += [(*pair, minute, "click") for pair, minute in minutes.items()]
    rows += [("u", "a", 601, "like"), ("u", "z", 602, "like"), ("w", "a", 900, "like")]
    actions = pd.DataFrame(rows, columns=["user_id", "pin_id", "acted_at", "action_type"])
    actions["acted_at"] = START + 60_000 * actions["acted_at"]
    shown, answered = drawn(tmp_path, actions)
    ids = [f"drawn-u-{START + minute * 60_000 - BEFORE_MS}" for minute in (600, 700)]
    assert sorted(set(shown["request_id"])) == ids, "the first visit has no others"
    assert set(shown[shown["request_id"] == ids[0]]["pin_id"]) == set("abcdefgh")
    assert set(shown[shown["request_id"] == ids[1]]["pin_id"]) == set("abcdefgh")
    kept = answered.dropna(subset="request_id")
    found = {tuple(row) for row in kept[["pin_id", "action_type", "request_id"]].to_numpy()}
    clicked = {("a", "click", ids[0]), ("b", "click", ids[0]), ("c", "click", ids[1])}
    assert found == clicked | {("a", "like", ids[0])}


def test_a_day_that_is_given_with_the_day_before_gives_the_same_requests(tmp_path: Path) -> None:
    actions, last = clicks(), START + 72 * HOUR
    whole, _ = drawn(tmp_path, actions)
    part, _ = drawn(tmp_path, actions[actions["acted_at"] >= last - 25 * HOUR])
    both = [
        rows[rows["impressed_at"] >= last + HOUR].sort_values("request_id", kind="stable")
        for rows in (whole, part)
    ]
    assert both[0].to_numpy().tolist() == both[1].to_numpy().tolist() and len(both[0])


def test_a_log_of_which_nothing_can_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="no action is a 'buy'; found click; expected"):
        drawn(tmp_path, clicks(50), Draw(action="buy"))
    with pytest.raises(DataContractError, match="none of 1 visits has others"):
        drawn(tmp_path, clicks(1))
