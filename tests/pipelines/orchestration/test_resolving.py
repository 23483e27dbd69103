"""Which as_of an Airflow run gets, and what is left where its cycle cannot be resolved."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.contracts import errors
from pipelines.contracts.alert import Unresolved
from pipelines.contracts.config import NumericFeature
from pipelines.orchestration.resolving import FAILURE_KEY, request_of, start_cycle
from pipelines.settings import Settings
from pipelines.stages import runner
from support.commands import parse
from support.runs import make_run
from support.worlds import write_planted_world

END = datetime(2026, 1, 19, 6, tzinfo=UTC)
NOW = datetime(2026, 2, 3, 17, 45, tzinfo=UTC)


BERLIN_NIGHT = datetime.fromisoformat("2026-02-03T00:30:00+01:00")
PARAMS = {"as_of": "2017-06-12", "recipe": "smoke", "promote": True}
PARAMS |= {"devices": 1, "accelerator": "cpu", "nodes": 1}


def run_of(**values: Any) -> SimpleNamespace:
    """Return Airflow's run of a person, or another."""
    known = {"run_id": "manual__x", "run_type": "manual", "data_interval_end": END}
    return SimpleNamespace(**(known | {"run_after": NOW, "conf": {}} | values))


class Left(dict[str, Any]):
    """Stands for the task, and has the XComs that it leaves."""

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "param, interval_end, run_after, expected_day",
    [
        ("2017-06-12", END, NOW, "2017-06-12"),
        (None, END, NOW, "2026-01-19"),
        ("", END, NOW, "2026-01-19"),
        (None, None, NOW, "2026-02-03"),
        (None, None, BERLIN_NIGHT, "2026-02-02"),  # floored in UTC
    ],
)
def test_as_of_is_the_param_else_the_interval_end_else_now(
    param, interval_end, run_after, expected_day
):
    dag_run = run_of(data_interval_end=interval_end, run_after=run_after)
    found = request_of(PARAMS | {"as_of": param}, dag_run)
    assert found.as_of.isoformat() == f"{expected_day}T00:00:00+00:00"


@pytest.mark.parametrize("run_type", ["manual", "backfill"])
@pytest.mark.parametrize("promote", [True, False])
def test_a_backfill_never_promotes(run_type, promote):
    asked = request_of(PARAMS | {"promote": promote}, run_of(run_type=run_type))
    assert asked.may_promote == (promote and run_type == "manual")


def test_a_cycle_that_cannot_be_resolved_leaves_the_command_that_begins_it(tmp_path):
    left = Left()
    with pytest.raises(errors.HomefeedError) as caught:
        start_cycle(
            PARAMS | {"devices": 2},
            run_of(run_id="manual__it's"),
            left,
            Settings(home=str(tmp_path)),
        )
    kept = Unresolved.model_validate(left[FAILURE_KEY])
    assert str(caught.value) in kept.message
    assert abs(kept.at - datetime.now(UTC)) < timedelta(minutes=1)
    assert kept.cycle is not None and kept.cycle.label == "2017-06-12, recipe smoke"
    ask, begin = (parse(command) for _, command in kept.next_step.commands)
    assert (ask.info_name, begin.info_name) == ("check", "resolve")
    told = {"as_of": "2017-06-12", "devices": 2, "key": "manual__it's", "promote": True}
    assert begin.params.items() >= told.items()


def test_what_the_form_asks_for_is_resolved_and_crosses_to_the_trainings(tmp_path, monkeypatch):
    asked = []

    def resolve(request, settings):
        asked.append(request)
        return make_run(tmp_path, **request.options())

    monkeypatch.setattr(runner, "start_run", resolve)
    params = PARAMS | {"devices": 4, "accelerator": "gpu", "nodes": 2}
    resolved = start_cycle(params, run_of(), None, Settings(home=str(tmp_path)))
    assert (asked[0].accelerator, asked[0].num_devices, asked[0].num_nodes) == ("gpu", 4, 2)
    assert resolved["hardware"] == {"accelerator": "gpu", "devices": 4, "nodes": 2}
    assert json.loads(json.dumps(resolved)) == resolved


def test_a_day_that_the_log_does_not_have_is_told_with_the_days_that_it_has(tmp_path):
    write_planted_world(tmp_path / "event_log", num_users=2, num_days=60)  # to 2017-03-01
    left = Left()
    with pytest.raises(errors.DataContractError) as caught:
        start_cycle(PARAMS | {"as_of": None}, run_of(), left, Settings(home=str(tmp_path)))
    assert "of as_of 2026-01-19: the event log at " in str(caught.value)
    assert "to 2017-03-01; choose an as_of whose windows lie in it" in str(caught.value)
    assert str(caught.value) in left[FAILURE_KEY]["message"]


@pytest.mark.parametrize(
    ("params", "conf", "said"),
    [
        (
            {},
            {"as_off": "2017-06-12"},
            "'as_off', which would change nothing; expected only as_of, recipe",
        ),
        ({"as_of": "yesterday"}, {}, "'yesterday'"),
    ],
)
def test_what_is_no_option_or_no_day_is_refused_and_not_run_as_of_today(
    tmp_path, monkeypatch, params, conf, said
):
    monkeypatch.setattr(runner, "start_run", lambda *_: 1 / 0)
    left = Left()
    with pytest.raises(errors.ConfigurationError, match=said) as caught:
        start_cycle(PARAMS | params, run_of(conf=conf), left, Settings(home=str(tmp_path)))
    step = Unresolved.model_validate(left[FAILURE_KEY]).next_step
    assert str(caught.value) in left[FAILURE_KEY]["message"] and step.commands == ()


def test_a_function_of_a_package_that_is_not_allowed_is_not_called(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "start_run", lambda *_: 1 / 0)
    left, settings = Left(), Settings(home=str(tmp_path), recipe_packages="theirs, json.tool")
    with pytest.raises(errors.ConfigurationError, match="function of the package os; expected"):
        start_cycle(PARAMS | {"recipe": "os:getcwd"}, run_of(), left, settings)
    assert "HOMEFEED_RECIPE_PACKAGES" in left[FAILURE_KEY]["message"]
    with pytest.raises(ZeroDivisionError):
        start_cycle(PARAMS | {"recipe": "json.tool:main"}, run_of(), left, settings)


def test_own_features_of_a_package_that_is_not_allowed_stop_the_cycle(tmp_path, monkeypatch):
    numeric = (NumericFeature(name="theirs:number"),)
    run = make_run(tmp_path)
    features = run.config.features.model_copy(update={"numeric": numeric})
    config = run.config.model_copy(update={"features": features, "source": "file:///a.yaml"})
    monkeypatch.setattr(runner, "start_run", lambda *_: run.model_copy(update={"config": config}))
    params = PARAMS | {"recipe": "file:///a.yaml"}
    with pytest.raises(errors.ConfigurationError, match="would run theirs:number, a function of"):
        start_cycle(params, run_of(), Left(), Settings(home=str(tmp_path)))
    allowed = Settings(home=str(tmp_path), recipe_packages="theirs")
    assert start_cycle(params, run_of(), Left(), allowed)["run_uri"] == run.run_uri
