"""A categorical feature whose values the recipe does not list is told before a training."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.config import RunConfig
from pipelines.contracts.features.categorical import CategoricalFeature
from pipelines.log_check import categories, run
from pipelines.log_check.categories import Unlisted, count_unlisted
from pipelines.log_check.found import Severity
from pipelines.log_check.run import check_log
from support.tiny_log import rewrite, tiny_config, write_tiny_log

PINS = "pins/part-0.parquet"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_tiny_log(tmp_path / "log")
    return tmp_path / "log"


def recipe_with(*features: CategoricalFeature) -> RunConfig:
    base = tiny_config()
    fields = {"features": base.features.model_copy(update={"categorical": features})}
    return base.model_copy(update=fields)


def feature(name: str, table: str, *values: str) -> CategoricalFeature:
    return CategoricalFeature.model_validate({"name": name, "table": table, "values": values})


def told(log: Path, *features: CategoricalFeature) -> list[tuple[Severity, str]]:
    problems = check_log(str(log), recipe_with(*features)).problems
    return [
        (p.severity, p.finding.message) for p in problems if p.finding.rule == "unlisted_values"
    ]


def give_pins(log: Path, *groups: str | int | None) -> None:
    rows = pq.read_table(log / PINS)
    pq.write_table(rows.append_column("group", pa.array(list(groups))), log / PINS)


def test_a_feature_of_which_no_value_is_listed_is_an_error(log: Path) -> None:
    give_pins(log, "35-39", "35-39", "30-34", "35-39", "30-34")
    [(severity, message)] = told(log, feature("group", "pins", "19-24", "25-34"))
    assert severity is Severity.ERROR
    assert message.startswith(
        "pins.group: 100% of the 5 rows have a value that the recipe does not list: '35-39' 3, "
        "'30-34' 2; expected values of features.categorical ('19-24', '25-34')"
    )
    assert message.endswith("add them to the feature's values, or correct the values in the log")


@pytest.mark.parametrize(
    ("groups", "severity"),
    [
        (("a", "a", "a", "a", "b"), Severity.NOTE),  # exactly the data gate's bound
        (("a", "a", "a", "b", "b"), Severity.WARNING),
        (("b", "b", "b", "b", "b"), Severity.ERROR),
        ((1, 1, 1, 1, 2), Severity.ERROR),  # whole numbers are read as texts
    ],
)
def test_how_bad_it_is_depends_on_the_share(
    log: Path, groups: tuple[str | int, ...], severity: Severity
) -> None:
    give_pins(log, *groups)
    assert [found for found, _ in told(log, feature("group", "pins", "a"))] == [severity]


def test_listed_values_are_no_problem_and_nothing_is_read_without_a_recipe(log: Path) -> None:
    give_pins(log, 1, 1, 2, 1, 2)
    assert told(log, feature("group", "pins", "1", "2")) == []
    assert "unlisted_values" not in {p.finding.rule for p in check_log(str(log)).problems}


def test_nulls_are_told_apart_from_values(log: Path) -> None:
    give_pins(log, None, "b", None, "a", "a")
    [(severity, message)] = told(log, feature("group", "pins", "a"))
    assert severity is Severity.WARNING
    assert "20% of the 5 rows have a value that the recipe does not list: 'b' 1; 40% of" in message
    assert "40% of the 5 rows have a null; expected" in message
    give_pins_again(log, *[None] * 5)
    [(severity, message)] = told(log, feature("group", "pins", "a"))
    assert severity is Severity.ERROR
    assert "pins.group: 100% of the 5 rows have a null; expected" in message


def give_pins_again(log: Path, *groups: str | None) -> None:
    rewrite(log, PINS, "group", pa.array(list(groups), pa.string()))


def test_columns_of_the_contract_and_of_each_table_count_as_well(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day that is read in parts counts once; `state` of the tiny log is `core` throughout."""
    features = feature("surface", "impressions", "search"), feature("state", "users", "new")
    whole = told(log, *features)
    assert [message.split(";")[0] for _, message in whole] == [
        "impressions.surface: 100% of the 11 rows have a value that the recipe does not list: "
        "'homefeed' 11",
        "users.state: 100% of the 3 rows have a value that the recipe does not list: 'core' 3",
    ]
    monkeypatch.setattr(run, "ROWS_PER_PART", 1)
    assert told(log, *features) == whole


def test_few_values_are_kept_and_the_most_frequent_of_all_batches_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(categories, "VALUES_KEPT", 3)
    total = Unlisted()
    for batch in range(4):
        values = ["often"] * 5 + ["seldom"] * 2 + [f"{batch}-{n}" for n in range(50)] + ["listed"]
        rows = pa.table({"group": pa.array(values).dictionary_encode()})
        total.add(count_unlisted(rows, feature("group", "pins", "listed")))
    assert (total.rows, total.others, total.nulls) == (4 * 58, 4 * 57, 0)
    assert len(total.values) == 3
    assert total.values.most_common(2) == [("often", 20), ("seldom", 8)]
