"""The names of numeric features, and the page that shows them."""

import re
from pathlib import Path

import pytest

from pipelines.contracts.features import BASELINE_FEATURES, CATALOGUE, Option, meaning_of


def shown(value: Option) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "not given"


def test_the_page_has_a_row_for_each_with_its_options_and_the_baselines_marked(
    repository: Path,
) -> None:
    found = {}
    for line in (repository / "docs/features.md").read_text().splitlines():
        if row := re.fullmatch(r"\| `(.+)`( \*)? \| .+ \| .+ \| (.+) \| (.+) \|", line):
            name, mark, options, missing = row.groups()
            found[name] = (bool(mark), missing != "never", options)
    for name, meaning in CATALOGUE.items():
        given = (f"`{option}` ({shown(value)})" for option, value in meaning.options.items())
        options = ", ".join(given) or "none"
        assert found.pop(name) == (name in BASELINE_FEATURES, meaning.may_be_missing, options)
    assert not found


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("user_actions:<action_type>", ["user_actions:long_click"]),
        ("pins.<column>", ["pins.created_at"]),
        ("users.<column>", ["users.days since joining"]),
        ("impressions.<column>", ["impressions.price"]),
        ("<package.module>:<function>", ["my_features:season", "pins.own:season"]),
        ("weekday", ["weekday"]),
    ],
)
def test_a_name_has_a_meaning(family: str, names: list[str]) -> None:
    assert {meaning_of(name).name for name in names} == {family}


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
