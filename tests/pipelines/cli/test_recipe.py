"""`homefeed recipe`: what it prints can be used, and what it checks is what a cycle would meet."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.cli.printing import recipes_like
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.preconditions import cycle
from pipelines.recipes import completejourney, make_recipe, smoke
from pipelines.registry import registry, tracking
from support.commands import as_json, lines, refusal
from support.judgements import make_model
from support.mistakes import in_file
from support.worlds import write_planted_world

DIGEST = smoke().recipe_digest
CHECK = ("recipe", "check", "smoke")
SERVING = make_model("3", datetime(2017, 2, 1, tzinfo=UTC))


@pytest.fixture
def log(home: Path) -> Path:
    write_planted_world(home / "event_log")
    return home / "event_log"


def test_what_show_prints_is_a_recipe_that_differs_in_nothing(home: Path) -> None:
    saved = home / "saved.yaml"
    saved.write_text("\n".join(lines("recipe", "show", "completejourney")))
    assert make_recipe(str(saved)).model_copy(update={"source": ""}) == completejourney()
    assert recipes_like("comple") == ["completejourney"]
    assert recipes_like(str(saved)[:-5]) == [str(saved)]
    digest = completejourney().recipe_digest
    same = lines("recipe", "diff", "completejourney", str(saved))
    assert same == ["no field differs", f"digests: {digest}, {digest}"]
    assert as_json("recipe", "show", "smoke")["digest"] == DIGEST


def test_diff_names_fields_and_digests(home: Path) -> None:
    path = home / "mine.yaml"
    for options, first in (
        ("learning_rate: 0.004", "training.learning_rate: 0.002 -> 0.004"),
        ("seed: 18", "training.seed: 17 -> 18"),
    ):
        path.write_text(f"extends: smoke\ntraining: {{{options}}}\n")
        digests = [DIGEST, make_recipe(str(path)).recipe_digest]
        words = ("recipe", "diff", "smoke", str(path))
        assert lines(*words) == [first, f"digests: {', '.join(digests)}"]
        assert (digests[0] == digests[1]) is ("seed" in options), "a seed makes no other recipe"
        assert as_json(*words) == {"differences": [first], "digests": digests}


@pytest.mark.usefixtures("home")
def test_check_says_what_it_was_held_against(log: Path) -> None:
    place, champ, size, last = lines(*CHECK)
    assert place == f"event log: {log.as_uri()}, as of 2017-03-02"
    assert champ.startswith("champion: not checked, because ")
    assert "users and" in size and "of equal models; four in five take about" in size
    assert last == f"recipe smoke ({DIGEST[:12]}) can be run, once MLflow answers"
    read = as_json(*CHECK)
    assert read["can_be_run"] and read["problems"] == [] and len(read["not_checked"]) == 1


@pytest.mark.usefixtures("home")
def test_check_is_as_of_the_newest_day_with_all_labels(log: Path) -> None:
    """Where the last day was cut, the day after it has none."""
    for table, name in (("impressions", "impressed_at"), ("actions", "acted_at")):
        in_file(f"{table}/day=2017-03-01", lambda rows, name=name: rows.filter(
            pa.array(np.asarray(rows[name]) % DAY_MS < 6 * HOUR_MS)))(log)  # fmt: skip
    assert lines(*CHECK)[0] == f"event log: {log.as_uri()}, as of 2017-03-01"


def test_check_lists_all_that_is_wrong_with_recipe_and_log(home: Path) -> None:
    error = refusal(*CHECK)
    assert error.exit_code == 65 and "no event log at " in str(error)
    write_planted_world(home / "event_log")
    path = home / "mine.yaml"
    path.write_text("extends: smoke\nmodel_gate: {target_metric: hide_volume_at_3}\n")
    error = refusal("recipe", "check", str(path), "--as-of", "2026-01-01")
    first, *told = str(error).splitlines()
    assert (error.exit_code, first) == (78, f"recipe {path.as_uri()} cannot be run:")
    assert "hide_volume" in told[0] and "no impressions in the training" in told[1]
    assert refusal(*CHECK, "--as-of", "2026-01-01").exit_code == 65


@pytest.mark.usefixtures("log")
def test_check_names_the_champion_and_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[bool] = []
    monkeypatch.setattr(tracking, "connect", lambda _: object())
    monkeypatch.setattr(cycle, "require_record", lambda *_, may_settle: settled.append(may_settle))
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: None)
    for model, said in ((SERVING, SERVING.label), (None, "none, or not known")):
        monkeypatch.setattr(registry, "read_champion", lambda *_, model=model: model)
        assert f"champion: {said}" in lines(*CHECK)
    assert settled == [False, False]
