"""A champion of another recipe needs the log of today to hold what its own recipe says."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.config import CategoricalFeature, Head, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.preconditions.cycle import champion_problems, look_at
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.counterpart import counterpart
from pipelines.storage import to_uri
from support.runs import make_run
from support.tiny_log import (
    TINY_AS_OF,
    acted,
    days_before,
    tiny_actions,
    tiny_config,
    write_tiny_log,
)

TYPES = ("repin", "click", "long_click", "save")
REPIN = Head(name="repin", action_type="repin", utility_weight=1.0)
CLICK = Head(name="click", action_type="click", utility_weight=1.0)
SAVE = Head(name="save", action_type="save", utility_weight=1.0)
SHOP = CategoricalFeature(name="shop", table="pins", values=("A",))


def recipe(version: str = "planted-1", **features: Any) -> RunConfig:
    base = tiny_config(embedding_version=version)
    chosen = {"action_types": TYPES, "heads": (REPIN,), **features}
    made = {"features": base.features.model_copy(update=chosen), "recipe": "its own"}
    return base.model_copy(update=made)


@pytest.mark.parametrize(
    ("its_own", "told"),
    [
        (recipe("planted-0"), "is 'planted-0', and no pin has an embedding of it"),
        (recipe(categorical=(SHOP,)), "missing column 'shop'"),
        (recipe(action_types=(*TYPES, "share"), heads=(SAVE,)), "head 'save' predicts action type"),
    ],
)
def test_what_is_refused_beforehand_is_what_would_break_in_the_comparison(
    tmp_path: Path, its_own: RunConfig, told: str
) -> None:
    write_tiny_log(tmp_path / "event_log")
    seen = look_at(to_uri(tmp_path / "event_log"), TINY_AS_OF)
    [problem] = champion_problems(its_own, recipe(), seen, TINY_AS_OF)
    assert told in problem
    run = make_run(tmp_path, recipe(), TINY_AS_OF)
    snapshot = write_snapshot(run, num_workers=1)
    with pytest.raises(DataContractError):
        counterpart(run, snapshot, its_own.features, its_own.snapshot)


@pytest.mark.parametrize(
    "its_own",
    [
        recipe(),
        recipe(heads=(REPIN, CLICK)),
        recipe(action_types=(*TYPES, "share")),
        recipe(action_types=("repin", "click")),
    ],
    ids=["the same", "another head", "a type more", "a type less"],
)
def test_what_can_be_compared_is_not_refused(tmp_path: Path, its_own: RunConfig) -> None:
    write_tiny_log(tmp_path / "event_log")
    seen = look_at(to_uri(tmp_path / "event_log"), TINY_AS_OF)
    assert champion_problems(its_own, recipe(), seen, TINY_AS_OF) == []
    run = make_run(tmp_path, recipe(), TINY_AS_OF)
    snapshot = write_snapshot(run, num_workers=1)
    own = counterpart(run, snapshot, its_own.features, its_own.snapshot)
    assert own.holdout == snapshot.holdout


def test_a_type_that_neither_recipe_knows_is_refused_within_the_look_back(tmp_path: Path) -> None:
    shared = acted(1, 40, "share", "09 12:00", "09 12:00")
    # The first day that is read is 17 December: popularity looks back 28 days from training.
    write_tiny_log(tmp_path / "in", actions=[*tiny_actions(), days_before(shared, 23)])
    seen = look_at(to_uri(tmp_path / "in"), TINY_AS_OF)
    [problem] = champion_problems(recipe(), recipe(), seen, TINY_AS_OF)
    assert "actions of type 'share'" in problem
    knowing = recipe(action_types=(*TYPES, "share"))
    assert champion_problems(recipe(), knowing, seen, TINY_AS_OF) == []
    write_tiny_log(tmp_path / "out", actions=[*tiny_actions(), days_before(shared, 24)])
    seen = look_at(to_uri(tmp_path / "out"), TINY_AS_OF)
    assert champion_problems(recipe(), recipe(), seen, TINY_AS_OF) == []
