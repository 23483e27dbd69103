"""What keeps a cycle from being begun is asked in one list: one refuses at the first, one lists."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.contracts.artifacts import ModelRef, RunRequest
from pipelines.contracts.config import Limit, NumericFeature, RelativeLimit, RunConfig
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
    TrackingUnavailableError,
)
from pipelines.preconditions import cycle
from pipelines.preconditions.cycle import Asked, recipe_problems, refusals, require_all
from pipelines.recipes import RECIPES, smoke
from pipelines.registry import registry, tracking
from pipelines.settings import Settings
from support.judgements import make_model
from support.tiny_log import TINY_AS_OF, acted, tiny_actions, tiny_config, write_tiny_log


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save = acted(1, 30, "save", "17 10:00", "17 10:00")
    write_tiny_log(tmp_path / "event_log", actions=[*tiny_actions(), save])
    monkeypatch.setattr(tracking, "connect", lambda _: object())
    monkeypatch.setattr(cycle, "require_record", lambda *_, **__: None)
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: None)
    serve(monkeypatch, None)
    return tmp_path


def serve(monkeypatch: pytest.MonkeyPatch, model: ModelRef | None) -> None:
    monkeypatch.setattr(registry, "read_champion", lambda *_: model)


def asked(
    home: Path, config: RunConfig | None = None, runner: Any = "bash", **options: Any
) -> Asked:
    wanted = {"may_promote": True, "num_devices": 1, "trigger": "x"} | options
    request = RunRequest(recipe="smoke", as_of=TINY_AS_OF, now=TINY_AS_OF, **wanted)
    settings = Settings(home=str(home), stage_runner=runner, stage_image="x")
    return Asked(request, config or tiny_config(), settings)


def said(home: Path, *given: Any, **options: Any) -> list[str]:
    """Return all that is refused, which begins with what `require_all` raises."""
    found = refusals(asked(home, *given, **options))
    with pytest.raises(type(found[0])) as first:
        require_all(asked(home, *given, **options))
    assert str(first.value) == str(found[0])
    return [str(error) for error in found]


def with_own(*names: str) -> RunConfig:
    base = tiny_config()
    numeric = tuple(NumericFeature(name=name) for name in names)
    features = base.features.model_copy(update={"numeric": numeric})
    return base.model_copy(update={"features": features})


def test_a_cycle_that_can_be_begun_is_refused_by_nothing(home: Path) -> None:
    found = asked(home)
    require_all(found)
    assert refusals(asked(home)) == []
    assert found.knows_champion and found.log is not None


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
    config = with_own("nosuchmod.x:fn", "odd_functions:number", "odd_functions:gone")
    [problem] = said(home, config)
    assert "'nosuchmod.x:fn': its module cannot be imported in this process" in problem
    assert "'odd_functions:number': the module odd_functions has int" in problem
    assert "'odd_functions:gone': the module odd_functions has nothing" in problem
    [error] = refusals(asked(home, config))
    assert len(error.problems) == 3
    # In containers the functions are those of the image.
    assert refusals(asked(home, config, "docker")) == []


def test_all_is_listed_at_once_in_the_order_of_the_questions(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disagrees(*_: Any, may_settle: bool) -> None:
        raise RecordDisagreesError(f"alias and history, {may_settle}")

    monkeypatch.setattr(cycle, "require_record", disagrees)
    serve(monkeypatch, make_model("3", TINY_AS_OF))
    config = with_own("impressions.price", "impressions.position")
    found = refusals(asked(home, config, num_devices=64, num_nodes=2))
    kinds = [ConfigurationError, ConfigurationError, DataContractError, RecordDisagreesError]
    assert [type(error) for error in found] == [*kinds, ConfigurationError]
    parts = ("'position'", "nodes is 2", "'price'", "history, True", "not newer")
    assert all(part in str(error) for part, error in zip(parts, found, strict=True))


def test_where_mlflow_does_not_answer_the_rest_is_asked_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise TrackingUnavailableError("MLflow does not answer")

    monkeypatch.setattr(cycle, "require_record", down)
    found = refusals(asked(home, with_own("impressions.price")))
    assert [type(error) for error in found] == [DataContractError, TrackingUnavailableError]


def test_a_champion_whose_own_functions_are_gone_is_refused_beforehand(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, make_model("3", datetime(2017, 1, 1, tzinfo=UTC)))
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: with_own("nosuchmod.x:fn"))
    [problem] = said(home)
    assert "serves and cannot be compared with recipe smoke" in problem
    assert "'nosuchmod.x:fn': its module cannot be imported in this process" in problem
    assert "set HOMEFEED_REGISTERED_MODEL to another name" in problem


def test_a_champion_of_a_recipe_that_the_log_cannot_feed_is_refused_beforehand(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, make_model("3", datetime(2017, 1, 1, tzinfo=UTC)))
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: tiny_config(embedding_version="planted-0"))
    [error] = refusals(asked(home))
    assert "'planted-0', and no pin has an embedding of it" in str(error)
    assert [text.partition(":")[0] for text in error.problems] == [
        f"{make_model('3', datetime(2017, 1, 1, tzinfo=UTC)).label} serves and cannot be compared"
    ]


GPU = {"accelerator": "gpu"}
TWO = {"num_nodes": 2}
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


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_our_own_recipes_are_sound(name: str) -> None:
    assert recipe_problems(RECIPES[name]()) == []


@pytest.mark.parametrize("metric", ["hit_at_3.save", "log_loss.repin", "auc.save", "ece.repin"])
def test_what_a_comparison_gives_may_have_a_limit(metric: str) -> None:
    assert recipe_problems(with_gate(floors=(Limit(metric=metric, minimum=0),))) == []


def test_metrics_of_no_head_are_refused_with_the_nearest_and_old_runs_can_be_read() -> None:
    """A gate that asks for a metric which no head gives would never promote anything."""
    config = with_gate(
        target_metric="hide_volume_at_3",
        floors=(Limit(metric="calibration_ratio.repn", minimum=1),),
        guardrails=(RelativeLimit(metric="save_at_3", max_decrease=0.1),),
    )
    target, floor, rail = recipe_problems(config)
    assert "model_gate.target_metric is 'hide_volume_at_3', expected one of ['hit_at_3" in target
    assert "model_gate.floors has a limit on 'calibration_ratio.repn'" in floor
    assert "did you mean 'calibration_ratio.repin'?" in floor
    # Of a head that is not the target's no volume is computed.
    assert "model_gate.guardrails has a limit on 'save_at_3'" in rail
    assert "hit_at_3.repin, log_loss.repin" in rail
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
