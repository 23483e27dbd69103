"""The names of numeric features, and the page that shows them."""

import re

import pytest

from pipelines.contracts.features import BASELINE_FEATURES, BOUNDS, CATALOGUE, meaning_of
from support.feature_page import PAGE, table


def test_the_page_shows_the_catalogue_as_it_is() -> None:
    assert table() in PAGE.read_text(), "run `python tests/support/feature_page.py`"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("user_actions:long_click", "user_actions:<action_type>"),
        ("pins.created_at", "pins.<column>"),
        ("users.days since joining", "users.<column>"),
        ("impressions.price", "impressions.<column>"),
        ("my_features:season", "<package.module>:<function>"),
        ("pins.own:season", "<package.module>:<function>"),
        ("weekday", "weekday"),
    ],
)
def test_a_name_has_a_meaning(name: str, family: str) -> None:
    assert meaning_of(name).name == family


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("pin_populartiy", "did you mean 'pin_popularity'?"),
        ("similarity_decay", "did you mean 'similarity_decayed'?"),
        ("pin.<column>", "did you mean 'pins.<column>'?"),
        ("user_actions:", "did you mean 'user_activity'?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_list(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=re.escape(nearest)) as caught:
        meaning_of(name)
    assert all(repr(known) in str(caught.value) for known in CATALOGUE)


def test_baselines_are_features_without_options_and_bounds_are_known() -> None:
    assert set(BASELINE_FEATURES) <= set(CATALOGUE)
    assert all(meaning.scale in BOUNDS for meaning in CATALOGUE.values())
    assert len(CATALOGUE) == 22
