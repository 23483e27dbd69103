"""In what two settings differ, and what comes of it where one part is put back."""

from dataclasses import replace
from datetime import timedelta

import pytest

from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import ConfigurationError
from pipelines.explain.parts import parts_of, put_back
from pipelines.recipes import smoke
from support.lost_cycles import changed, setting, with_seed
from support.runs import PLANTED_AS_OF

OURS = setting(smoke(), PLANTED_AS_OF)


def test_sides_that_differ_in_their_seed_alone_have_no_parts() -> None:
    assert parts_of(OURS, replace(OURS, recipe=with_seed(smoke(), 5), code="")) == {}


def test_each_part_is_put_back_alone_and_all_of_them_make_the_other_side() -> None:
    features = smoke().features
    other = changed(smoke(), "snapshot", training_days=7, history_days=90)
    other = changed(other, "model", first_k=3, dropout=0.3)
    other = changed(other, "training", learning_rate=0.5)
    age = NumericFeature(name="pin_age")
    other = changed(other, "features", action_types=(*features.action_types, "closeup"),
                    numeric=(features.numeric[0], age))  # fmt: skip
    theirs = replace(OURS, recipe=other, code="a" * 64, as_of=OURS.as_of - timedelta(days=14))
    found = parts_of(OURS, theirs)
    assert found == {
        "data": "rows before 2017-02-16 -> 2017-03-02",
        "code": f"aaaaaaaaaaaa -> {OURS.code[:12]}",
        "action type closeup": "closeup -> not there",
        "numeric feature pin_age": "{'name': 'pin_age'} -> not there",
        "numeric feature past_engagements": "not there -> {'name': 'past_engagements'}",
        "snapshot.history_days": "90 -> 180",
        "snapshot.training_days": "7 -> 14",
        "training": "learning_rate: 0.5 -> 0.002",
        "model": "dropout: 0.3 -> 0.0, first_k: 3 -> 10",
    }
    now = OURS
    for name in found:
        alone = put_back(OURS, theirs, name)
        assert parts_of(OURS, alone).keys() == {name} and name not in parts_of(alone, theirs)
        now = put_back(now, theirs, name)
    assert parts_of(now, theirs) == {}
    assert now.recipe.recipe_digest == other.recipe_digest


def test_a_feature_with_other_options_keeps_its_place() -> None:
    first, second = smoke().features.numeric
    theirs = replace(OURS, recipe=changed(smoke(), "features", numeric=(first,)))
    same = replace(OURS, recipe=changed(smoke(), "features", numeric=(second, first)))
    assert parts_of(same, OURS) == {}
    back = put_back(same, theirs, f"numeric feature {second.name}")
    assert back.recipe.features.numeric == (first,)


def test_what_our_recipe_needs_is_not_taken_away() -> None:
    kept = tuple(name for name in smoke().features.action_types if name != "save")
    heads = tuple(head for head in smoke().features.heads if head.name != "save")
    theirs = replace(OURS, recipe=changed(smoke(), "features", action_types=kept, heads=heads))
    assert parts_of(OURS, theirs).keys() == {"action type save", "heads"}
    with pytest.raises(
        ConfigurationError, match=r"action type save cannot be put back alone: .*'save'"
    ):
        put_back(OURS, theirs, "action type save")
