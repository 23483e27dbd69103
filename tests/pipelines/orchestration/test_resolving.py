"""Which as_of an Airflow run gets, and what is left where its cycle cannot be resolved."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from pipelines import storage
from pipelines.contracts import errors
from pipelines.contracts.alert import Unresolved
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.config import NumericFeature
from pipelines.orchestration import missed
from pipelines.orchestration.resolving import (
    FAILURE_KEY,
    choose_as_of,
    newest_day_to_enter,
    start_cycle,
)
from pipelines.settings import Settings
from pipelines.stages import runner
from pipelines.stages.resolve_run import run_uri_of
from support.commands import parse
from support.runs import make_run
from support.worlds import write_planted_world

END = datetime(2026, 1, 19, 6, tzinfo=UTC)
NOW = datetime(2026, 2, 3, 17, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    "param, interval_end, expected_day",
    [
        ("2017-06-12", END, "2017-06-12"),
        (None, END, "2026-01-19"),
        ("", END, "2026-01-19"),
        (None, None, "2026-02-03"),
    ],
)
def test_as_of_is_the_param_else_the_interval_end_else_now(param, interval_end, expected_day):
    found = choose_as_of(param, interval_end, NOW)
    assert found.isoformat() == f"{expected_day}T00:00:00+00:00"


def test_as_of_is_floored_in_utc():
    berlin_night = datetime.fromisoformat("2026-02-03T00:30:00+01:00")
    assert choose_as_of(None, None, berlin_night).isoformat() == "2026-02-02T00:00:00+00:00"


def test_an_as_of_that_is_no_day_is_refused():
    with pytest.raises(errors.ConfigurationError, match="'yesterday'"):
        choose_as_of("yesterday", None, NOW)


@pytest.mark.parametrize(
    ("as_of", "expected"), [("yesterday", "2026-01-19"), ("2017-06-12", "2017-06-12")]
)
def test_a_cycle_that_cannot_be_resolved_leaves_the_command_that_begins_it(
    tmp_path, as_of, expected
):
    dag_run = SimpleNamespace(
        run_id="manual__it's", run_type="manual", data_interval_end=END, run_after=NOW, conf={}
    )
    params = {"as_of": as_of, "recipe": "smoke", "promote": True, "devices": 2}
    params |= {"accelerator": "cpu", "nodes": 1}
    left = {}
    ti = SimpleNamespace(xcom_push=left.__setitem__)
    with pytest.raises(errors.HomefeedError) as caught:
        start_cycle(params, dag_run, ti, Settings(home=str(tmp_path)))

    kept = Unresolved.model_validate_json(json.dumps(left[FAILURE_KEY]))
    assert str(caught.value) in kept.message
    assert abs(kept.at - datetime.now(UTC)) < timedelta(minutes=1)
    assert kept.cycle is not None and kept.cycle.label == f"{expected}, recipe smoke"
    parsed = [parse(command) for _, command in kept.next_step.commands]
    assert {context.info_name for context in parsed} == {"resolve"}
    assert [context.params["promote"] for context in parsed] == [True, False]
    for context in parsed:
        assert (context.params["as_of"], context.params["devices"]) == (expected, 2)
        assert context.params["key"] == "manual__it's"


def test_a_cycle_that_another_process_resolves_is_left_marked_as_a_lost_race(tmp_path, monkeypatch):
    settings = Settings(home=str(tmp_path))
    dag_run = SimpleNamespace(
        run_id="manual__x", run_type="manual", data_interval_end=END, run_after=NOW, conf={}
    )
    params = {"as_of": "2017-06-12", "recipe": "smoke", "promote": True, "devices": 1}
    params |= {"accelerator": "cpu", "nodes": 1}
    left = {}
    ti = SimpleNamespace(xcom_push=left.__setitem__)
    monkeypatch.setattr(runner, "RESOLVE_WAIT_S", 0.1)
    request = RunRequest(
        recipe="smoke",
        as_of=datetime(2017, 6, 12, tzinfo=UTC),
        now=NOW,
        may_promote=True,
        num_devices=1,
        trigger=dag_run.run_id,
    )
    lock = storage.join(run_uri_of(request, settings), "resolve_run", "stage")
    with storage.exclusive_lock(lock, "another process"):
        with pytest.raises(errors.LostRaceError):
            start_cycle(params, dag_run, ti, settings)
    assert left[FAILURE_KEY]["lost_in"] == run_uri_of(request, settings)
    with pytest.raises(errors.DataContractError):  # there is no event log
        start_cycle(params, dag_run, ti, settings)
    assert left[FAILURE_KEY]["lost_in"] == ""


def test_what_the_form_asks_for_is_resolved_and_crosses_to_the_trainings(tmp_path, monkeypatch):
    asked = []

    def resolve(request, settings):
        asked.append(request)
        return make_run(tmp_path, **request.options())

    monkeypatch.setattr(runner, "start_run", resolve)
    dag_run = SimpleNamespace(
        run_id="manual__x", run_type="manual", data_interval_end=END, run_after=NOW, conf={}
    )
    params = {"as_of": "2017-06-12", "recipe": "smoke", "promote": True, "devices": 4}
    params |= {"accelerator": "gpu", "nodes": 2}
    settings = Settings(home=str(tmp_path))
    resolved = start_cycle(params, dag_run, None, settings)
    assert (asked[0].accelerator, asked[0].num_devices, asked[0].num_nodes) == ("gpu", 4, 2)
    assert resolved["hardware"] == {"accelerator": "gpu", "devices": 4, "nodes": 2}
    assert json.loads(json.dumps(resolved)) == resolved


def ended_on(tmp_path):
    """Return the settings of a home with a tiny log that ends with 2017-03-01."""
    write_planted_world(tmp_path / "event_log", num_users=2, num_days=60)
    return Settings(home=str(tmp_path))


def test_an_empty_as_of_on_a_log_that_has_ended_says_what_to_enter(tmp_path):
    settings = ended_on(tmp_path)
    dag_run = SimpleNamespace(
        run_id="manual__x", run_type="manual", data_interval_end=END, run_after=NOW, conf={}
    )
    params = {"as_of": None, "recipe": "smoke", "promote": True, "devices": 1}
    params |= {"accelerator": "cpu", "nodes": 1}
    left = {}
    ti = SimpleNamespace(xcom_push=left.__setitem__)
    with pytest.raises(errors.DataContractError) as caught:
        start_cycle(params, dag_run, ti, settings)
    said = str(caught.value)
    assert "no as_of was entered, so that this run is as of 2026-01-19, and the event log" in said
    assert "ends with 2017-03-01; trigger the cycle anew with 2017-03-02 as As of" in said
    assert said in left[FAILURE_KEY]["message"]
    step = Unresolved.model_validate(left[FAILURE_KEY]).next_step
    assert "with As of 2017-03-02" in step.sentence and step.commands == ()


def test_another_damage_is_told_though_the_log_has_ended(tmp_path, monkeypatch):
    def damaged(*_: object) -> None:
        raise errors.DataContractError("record.json is damaged")

    monkeypatch.setattr(missed, "account_for", damaged)
    dag_run = SimpleNamespace(
        run_id="scheduled__x", run_type="scheduled", data_interval_end=END, run_after=NOW, conf={}
    )
    params = {"as_of": None, "recipe": "smoke", "promote": True, "devices": 1}
    ti = SimpleNamespace(xcom_push={}.__setitem__)
    with pytest.raises(errors.DataContractError, match="record.json is damaged"):
        start_cycle(params | {"accelerator": "cpu", "nodes": 1}, dag_run, ti, ended_on(tmp_path))


def test_a_day_that_was_entered_and_a_log_that_goes_on_are_refused_as_before(tmp_path):
    settings = ended_on(tmp_path)
    asked = {"recipe": "smoke", "now": NOW, "may_promote": True, "num_devices": 1, "trigger": "x"}
    days = {"2017-03-02": None, "2017-03-03": None, "2016-01-01": None, "2017-06-01": "2017-03-02"}
    for day, expected in days.items():
        request = RunRequest(as_of=datetime.fromisoformat(f"{day}T00:00+00:00"), **asked)
        found = newest_day_to_enter(request, settings)
        assert (f"{found}" if found else None) == expected, day
    assert newest_day_to_enter(request, Settings(home=str(tmp_path / "nothing"))) is None


def test_a_conf_with_an_unknown_key_is_refused_and_not_run_as_of_today(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "start_run", lambda *_: 1 / 0)
    dag_run = SimpleNamespace(conf={"as_off": "2017-06-12", "promote": False})
    left = {}
    ti = SimpleNamespace(xcom_push=left.__setitem__)
    with pytest.raises(errors.ConfigurationError, match=r"'as_off' \(perhaps 'as_of' is meant\)"):
        start_cycle({}, dag_run, ti, Settings(home=str(tmp_path)))
    step = Unresolved.model_validate(left[FAILURE_KEY]).next_step
    assert "as_off" in left[FAILURE_KEY]["message"] and step.commands == ()


@pytest.mark.parametrize("packages", ["", "theirs, json.tool"])
def test_a_function_of_a_package_that_is_not_allowed_is_not_called(tmp_path, monkeypatch, packages):
    monkeypatch.setenv("HOMEFEED_RECIPE_PACKAGES", packages)
    monkeypatch.setattr(runner, "start_run", lambda *_: 1 / 0)
    dag_run = SimpleNamespace(
        run_id="manual__x", run_type="manual", data_interval_end=END, run_after=NOW, conf={}
    )
    params = {"as_of": "2017-06-12", "promote": True, "devices": 1, "accelerator": "cpu"}
    left = {}
    ti = SimpleNamespace(xcom_push=left.__setitem__)
    settings = Settings(home=str(tmp_path))
    with pytest.raises(errors.ConfigurationError, match="function of the package os; expected"):
        start_cycle(params | {"nodes": 1, "recipe": "os:getcwd"}, dag_run, ti, settings)
    assert "HOMEFEED_RECIPE_PACKAGES" in left[FAILURE_KEY]["message"]
    with pytest.raises(ZeroDivisionError if packages else errors.ConfigurationError):
        start_cycle(params | {"nodes": 1, "recipe": "json.tool:main"}, dag_run, ti, settings)


def test_own_features_of_a_package_that_is_not_allowed_stop_the_cycle(tmp_path, monkeypatch):
    numeric = (NumericFeature(name="theirs:number"),)
    run = make_run(tmp_path)
    features = run.config.features.model_copy(update={"numeric": numeric})
    config = run.config.model_copy(update={"features": features, "source": "file:///a.yaml"})
    monkeypatch.setattr(runner, "start_run", lambda *_: run.model_copy(update={"config": config}))
    dag_run = SimpleNamespace(
        run_id="manual__x", run_type="manual", data_interval_end=END, run_after=NOW, conf={}
    )
    params = {"as_of": "2017-06-12", "recipe": "file:///a.yaml", "promote": True, "devices": 1}
    params |= {"accelerator": "cpu", "nodes": 1}
    ti = SimpleNamespace(xcom_push={}.__setitem__)
    with pytest.raises(errors.ConfigurationError, match="feature theirs:number would run a func"):
        start_cycle(params, dag_run, ti, Settings(home=str(tmp_path)))
    allowed = Settings(home=str(tmp_path), recipe_packages="theirs")
    assert start_cycle(params, dag_run, ti, allowed)["run_uri"] == run.run_uri
