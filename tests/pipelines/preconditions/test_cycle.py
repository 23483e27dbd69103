"""What keeps a cycle from being begun is asked in one list: one refuses at the first, one lists."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.contracts.artifacts import ModelRef, RunRequest
from pipelines.contracts.config import (
    CategoricalFeature,
    Head,
    Limit,
    NumericFeature,
    RelativeLimit,
    RunConfig,
)
from pipelines.contracts.errors import (
    ASKED,
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
    TrackingUnavailableError,
)
from pipelines.preconditions import cycle
from pipelines.preconditions.cycle import (
    Asked,
    champion_problems,
    look_at,
    recipe_problems,
    refusals,
    require_all,
)
from pipelines.recipes import RECIPES, smoke
from pipelines.registry import registry, tracking
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.counterpart import counterpart
from pipelines.storage import to_uri
from support.judgements import make_model
from support.mistakes import PINS, USERS
from support.runs import make_run
from support.tiny_log import (
    ACTIONS_15,
    IMPRESSIONS_15,
    TINY_AS_OF,
    acted,
    days_before,
    rewrite,
    tiny_actions,
    tiny_config,
    write_tiny_log,
)

EARLIER = make_model("3", datetime(2017, 1, 1, tzinfo=UTC))
TYPES = ("repin", "click", "long_click", "save")
REPIN, CLICK, SAVE = (
    Head(name=name, action_type=name, utility_weight=1.0) for name in ("repin", "click", "save")
)
DISPLAY = CategoricalFeature(name="display", table="impressions", values=("A",))
SHOP = CategoricalFeature(name="shop", table="pins", values=("A",))


@pytest.fixture
def home(log: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tracking, "connect", lambda _: object())
    monkeypatch.setattr(cycle, "require_record", lambda *_, **__: None)
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: None)
    monkeypatch.setattr(cycle, "_BATCH_ROWS", 1)
    serve(monkeypatch, None)
    return log.parent


def serve(monkeypatch: pytest.MonkeyPatch, model: ModelRef | None) -> None:
    monkeypatch.setattr(registry, "read_champion", lambda *_: model)


def recipe(version: str = "planted-1", **features: Any) -> RunConfig:
    """Return a recipe of the tiny log, whose only head is repin."""
    base = tiny_config(embedding_version=version)
    chosen = {"action_types": TYPES, "heads": (REPIN,), **features}
    made = {"features": base.features.model_copy(update=chosen), "recipe": "mine"}
    return base.model_copy(update=made)


def with_numbers(*names: str) -> RunConfig:
    return recipe(numeric=tuple(NumericFeature(name=name) for name in names))


def asked(
    home: Path, config: RunConfig | None = None, runner: Any = "bash", **options: Any
) -> Asked:
    wanted = {"may_promote": True, "num_devices": 1, "trigger": "x", "as_of": TINY_AS_OF} | options
    settings = Settings(home=str(home), stage_runner=runner, stage_image="x")
    request = RunRequest(recipe="smoke", now=TINY_AS_OF, **wanted)
    return Asked(request, config or recipe(), settings)


def said(home: Path, *given: Any, **options: Any) -> list[str]:
    """Return all that is refused, one by one, of which `require_all` raises the first."""
    found = refusals(asked(home, *given, **options))
    if found:
        with pytest.raises(type(found[0])) as first:
            require_all(asked(home, *given, **options))
        assert str(first.value) == str(found[0])
    return [each for error in found for each in error.problems or (str(error),)]


def test_a_cycle_that_can_be_begun_is_refused_by_nothing(home: Path) -> None:
    found = asked(home)
    require_all(found)
    assert refusals(asked(home)) == []
    assert found.log is not None


def test_the_champions_own_day_is_refused_beforehand(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, make_model("3", TINY_AS_OF))
    [problem] = said(home)
    assert problem.startswith("as_of 2017-01-20 is not newer than the champion's: ")
    assert refusals(asked(home, may_promote=False)) == []
    serve(monkeypatch, make_model("3", TINY_AS_OF - timedelta(days=1)))
    assert refusals(asked(home)) == []


def test_own_functions_are_imported_where_stages_run_here(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_functions.py").write_text("number = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = with_numbers("nosuchmod.x:fn", "odd_functions:number", "odd_functions:gone")
    missing, other, gone = said(home, config)
    assert "'nosuchmod.x:fn': its module cannot be imported in this process" in missing
    assert "'odd_functions:number': 'number' of the module odd_functions is 3" in other
    assert "'odd_functions:gone': 'gone' of the module odd_functions is None" in gone
    # In containers the functions are those of the image.
    assert refusals(asked(home, config, "docker")) == []


def test_all_is_listed_at_once_in_the_order_of_the_questions(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disagrees(*_: Any, may_settle: bool) -> None:
        raise RecordDisagreesError(f"alias and history, {may_settle}")

    monkeypatch.setattr(cycle, "require_record", disagrees)
    serve(monkeypatch, make_model("3", TINY_AS_OF))
    config = with_numbers("impressions.price", "impressions.position")
    found = refusals(asked(home, config, num_devices=64, num_nodes=2))
    kinds = [ConfigurationError, ConfigurationError, DataContractError, RecordDisagreesError]
    assert [type(error) for error in found] == [*kinds, ConfigurationError]
    parts = ("'position'", "nodes is 2", "'price'", "history, True", "not newer")
    assert all(part in str(error) for part, error in zip(parts, found, strict=True))
    assert "recipe mine cannot be run here" in str(found[0])
    assert "cannot feed recipe mine as of 2017-01-20" in str(found[2])


def test_where_mlflow_does_not_answer_the_rest_is_asked_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise TrackingUnavailableError("MLflow does not answer")

    monkeypatch.setattr(cycle, "require_record", down)
    found = refusals(asked(home, with_numbers("impressions.price")))
    assert [type(error) for error in found] == [DataContractError, TrackingUnavailableError]


@pytest.mark.parametrize(
    ("its_own", "says"),
    [
        (with_numbers("nosuchmod.x:fn"), "'nosuchmod.x:fn': its module cannot be imported in this"),
        (recipe("planted-0"), "'planted-0', and no pin has an embedding of it"),
    ],
)
def test_a_champion_that_cannot_be_scored_today_is_refused_beforehand(
    home: Path, monkeypatch: pytest.MonkeyPatch, its_own: RunConfig, says: str
) -> None:
    serve(monkeypatch, EARLIER)
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: its_own)
    [error] = refusals(asked(home))
    assert "serves and cannot be compared with recipe mine" in str(error) and says in str(error)
    assert "set HOMEFEED_REGISTERED_MODEL to another name" in str(error)
    assert [text.partition(":")[0] for text in error.problems] == [
        f"{EARLIER.label} serves and cannot be compared"
    ]


GPU, TWO = {"accelerator": "gpu"}, {"num_nodes": 2}
BUCKET = {"workspace": "s3://bucket/workspace"}


@pytest.mark.parametrize(
    ("runner", "wanted", "places", "says"),
    [
        ("bash", GPU | {"num_devices": 1}, {}, ""),
        ("bash", GPU | {"num_devices": 2}, {}, "'gpu' with 2 device.* 1 GPU.* 'cpu' or fewer dev"),
        ("docker", GPU | {"num_devices": 4}, {}, ""),  # in containers, the engine knows
        ("docker", TWO, {}, "nodes is 2.* is 'docker'.*'kubernetes' for"),
        ("kubernetes", TWO, {}, ""),  # a volume that all mount, by the pod template
        ("kubernetes", TWO, BUCKET, "share no folder: HOMEFEED_WORK_FOLDER is .*Many"),
        ("kubernetes", TWO, BUCKET | {"work_folder": "/trainings"}, ""),
    ],
)
def test_machines_that_are_not_there_are_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, runner: str, wanted: dict, places: dict, says: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    given = asked(home, None, runner, **wanted)
    given.settings = Settings(stage_runner=runner, stage_image="x", **places)  # type: ignore[arg-type]
    if not says:
        cycle.ask_hardware(given)
        return
    with pytest.raises(ConfigurationError, match=says):
        cycle.ask_hardware(given)


def with_gate(**options: Any) -> RunConfig:
    gate = smoke().model_gate.model_copy(update=options)
    return smoke().model_copy(update={"model_gate": gate})


@pytest.mark.parametrize(
    "config",
    [*(make() for make in RECIPES.values()),
     with_gate(floors=tuple(Limit(metric=metric, minimum=0) for metric in (
         "hit_at_3.save", "log_loss.repin", "auc.save", "ece.repin")))],
)  # fmt: skip
def test_a_recipe_of_what_a_comparison_gives_is_sound(config: RunConfig) -> None:
    assert recipe_problems(config) == []


def test_metrics_of_no_head_are_refused_and_old_runs_can_be_read() -> None:
    """A gate that asks for a metric which no head gives would never promote anything."""
    config = with_gate(
        target_metric="hide_volume_at_3",
        floors=(Limit(metric="calibration_ratio.repn", minimum=1),),
        guardrails=(RelativeLimit(metric="save_at_3", max_decrease=0.1),),
    )
    target, floor, rail = recipe_problems(config)
    assert "model_gate.target_metric is 'hide_volume_at_3', expected one of ['hit_at_3" in target
    assert "model_gate.floors has a limit on 'calibration_ratio.repn'" in floor
    # Of a head that is not the target's no volume is computed.
    assert "model_gate.guardrails has a limit on 'save_at_3'" in rail
    assert "hit_at_3.repin, log_loss.repin" in rail
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


# What the event log lacks


def with_displays(log: Path) -> None:
    """Give all days but the first the column, as one that came in mid-life has it."""
    for day, rows in ((16, 2), (17, 1), (18, 4), (19, 1)):
        path = log / f"impressions/day=2017-01-{day}/part-0.parquet"
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.append_column("display", pa.array(["A"] * rows)), path)


def some_pins_with_times(log: Path) -> None:
    rows = pq.read_table(log / PINS)
    times = pa.array([1_480_000_000_000] * len(rows))
    pq.write_table(rows.append_column("known_at", times), log / "pins/part-1.parquet")


def with_saves(*actions: dict) -> Callable[[Path], None]:
    return lambda log: write_tiny_log(log, actions=[*tiny_actions(), *actions])


# The first day that is read is 17 December: popularity looks back 28 days from training.
EARLY = days_before(acted(1, 30, "save", "08 23:59", "09 00:00"), 23)
LATE = acted(1, 30, "save", "18 00:30", "20 00:00")  # known at as_of, not before
WITHIN = days_before(acted(1, 30, "save", "09 00:00", "09 00:01"), 23)
NO_SAVE = (
    "head 'save' predicts action type 'save', which no action from 2016-12-17 to 2017-01-20 has; "
    "found ['click', 'long_click', 'repin']; correct the head, or add these actions to the log"
)
BOTH = recipe(heads=(REPIN, SAVE))


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        (with_saves(EARLY, LATE), BOTH, [NO_SAVE]),
        (with_saves(WITHIN), BOTH, []),
        (with_saves(), recipe(action_types=("repin", "long_click")), [
            "actions/day=2017-01-09/part-0.parquet, which is not in features"]),
        (lambda log: rewrite(log, PINS, "embedding_version", pa.array(
            ["planted-0", *["planted-1"] * 4]).dictionary_encode()), recipe("planted-2"), [
            "'planted-2', and no pin has an embedding of it; found ['planted-0', 'planted-1']"]),
        (with_saves(), with_numbers("pins.price"), [
            "missing column 'price' (declared as features by the recipe)"]),
        (with_saves(), recipe(categorical=(DISPLAY,)), ["'display' (declared"]),
        (some_pins_with_times, recipe(), ["part-0.parquet has no column 'known_at'"]),
        (with_displays, recipe(categorical=(DISPLAY,)), [
            "day=2017-01-15/part-0.parquet: missing column 'display'"]),
        (lambda log: rewrite(log, USERS, "state", None),
         recipe("planted-2", heads=(REPIN, SAVE), categorical=(DISPLAY,)),
         ["'display'", "'state'", "'save'", "'planted-2'"]),
        (lambda log: [(log / path).unlink() for path in (PINS, USERS)], recipe(),
         ["has no table 'pins'", "has no table 'users'"]),
        (lambda log: (log / ACTIONS_15).write_bytes(b"PAR1 no more"), recipe(), [
            f"{ACTIONS_15} is not a readable Parquet file"]),
        (lambda log: rewrite(log, IMPRESSIONS_15, "pin_id", pa.array(["10", "20"])), recipe(), [
            "column 'pin_id' is string; expected int64"]),
    ],
)  # fmt: skip
def test_all_that_a_log_lacks_is_listed_once_for_files_alike(
    home: Path, change: Callable[[Path], object], config: RunConfig, says: list[str]
) -> None:
    change(home / "event_log")
    found = said(home, config)
    assert len(found) == len(says)
    assert all(part in problem for part, problem in zip(says, found, strict=True))
    are_many = any("display" in part and "day=" not in part for part in says)
    assert are_many == any("(and 4 more files to" in problem for problem in found)


def test_days_without_a_log_are_all_that_is_said(home: Path) -> None:
    far = TINY_AS_OF + timedelta(days=30)
    [problem] = said(home, recipe("none", categorical=(DISPLAY,)), as_of=far)
    assert "no impressions in the training window" in problem
    assert "covers 2017-01-14 to 2017-01-19" in problem


def test_days_whose_labels_are_not_closed_are_all_that_is_said(home: Path) -> None:
    [problem] = said(home, recipe("none"), as_of=TINY_AS_OF + timedelta(days=1))
    assert "is complete to 2017-01-20 00:00 UTC, where its last day ends; " in problem
    assert "found 2017-01-21; expected all labels; choose as_of 2017-01-20, or write" in problem
    [error] = refusals(asked(home, as_of=TINY_AS_OF + timedelta(days=1)))
    assert error.kind == ASKED  # a run by hand is skipped, and its note says this


SHARE = acted(1, 40, "share", "09 12:00", "09 12:00")
KNOWING = recipe(action_types=(*TYPES, "share"))


@pytest.mark.parametrize(
    ("its_own", "actions", "says"),
    [
        (recipe(), [], ""),
        (recipe(heads=(REPIN, CLICK)), [], ""),
        (KNOWING, [], ""),
        (recipe(action_types=("repin", "click")), [], ""),
        (KNOWING, [days_before(SHARE, 23)], ""),
        (recipe(), [days_before(SHARE, 24)], ""),  # before the look-back
        (recipe(), [days_before(SHARE, 23)], "actions of type 'share'"),
        (recipe("planted-0"), [], "is 'planted-0', and no pin has an embedding of it"),
        (recipe(categorical=(SHOP,)), [], "missing column 'shop'"),
        (recipe(action_types=(*TYPES, "share"), heads=(SAVE,)), [], "head 'save' predicts action"),
    ],
)
def test_what_is_refused_beforehand_is_what_would_break_in_the_comparison(
    tmp_path: Path, its_own: RunConfig, actions: list[dict], says: str
) -> None:
    write_tiny_log(tmp_path / "event_log", actions=[*tiny_actions(), *actions])
    problems = champion_problems(
        its_own, recipe(), look_at(to_uri(tmp_path / "event_log")), TINY_AS_OF
    )
    assert len(problems) == bool(says) and all(says in problem for problem in problems)
    if not actions:
        run = make_run(tmp_path, recipe(), TINY_AS_OF)
        snapshot = write_snapshot(run)
        if says:
            with pytest.raises(DataContractError):
                counterpart(run, snapshot, its_own.features, its_own.snapshot)
        else:
            own = counterpart(run, snapshot, its_own.features, its_own.snapshot)
            assert own.holdout == snapshot.holdout
