"""Settings come from the environment; a name that is no longer one is refused."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_name

from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "ALERT_TRANSPORTS",
            '["slack", "pager"]',
            r"item 1\) is 'pager': input should be 'outbox'",
        ),
        ("ALERT_TRANSPORTS", "slack", "is 'slack': expected JSON"),
        ("CADENCE_DAYS", "0", "is '0': input should be greater than 0"),
        ("CADENCE_DAYS", "inf", "is 'inf': input should be less than or equal to 3650"),
        ("ACCELERATOR", "tpu", "is 'tpu': input should be 'cpu' or 'gpu'"),
        ("READER_ZONE", "Europe/Berln", "time zone, such as Europe/Berlin .perhaps Europe/Berlin"),
        ("READER_ZONE", "CEST", "expected the IANA name of a time zone"),
        ("READER_ZONE", "../../etc/passwd", "expected the IANA name of a time zone"),
        ("READER_ZONE", "Europe", "expected the IANA name of a time zone"),
        ("ALERT_EMAIL_TO", '["a@b.c\\nBcc: all@b.c"]', "expected addresses without line breaks"),
    ],
)
def test_a_variable_that_holds_nonsense_is_named_with_what_it_may_hold(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"HOMEFEED_{variable}", value)
    with pytest.raises(ConfigurationError, match=f"HOMEFEED_{variable}.*{message}") as caught:
        Settings()
    assert caught.value.__cause__ is None and "pydantic" not in str(caught.value)


@pytest.mark.parametrize("variable", ["HOME", "EVENT_LOG", "WORKSPACE"])
def test_keys_in_a_place_are_refused_before_a_message_repeats_the_place(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(f"HOMEFEED_{variable}", "s3://AKIAKEY:sEcReT@bucket/x")
    with pytest.raises(
        ConfigurationError, match=rf"^HOMEFEED_{variable}=s3://\S+@bucket/x "
    ) as told:
        Settings()
    assert "sEcReT" not in str(told.value) and "AKIAKEY" not in str(told.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RUNBOOK_URL", "https://me:sEcReT@host/runbook.md"),
        ("SPARK_OPTIONS", '{"fs.s3a.secret.key": "sEcReT"'),
        ("SPARK_OPTIONS", '["sEcReT"]'),
    ],
)
def test_what_may_hold_a_secret_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"HOMEFEED_{variable}", value)
    with pytest.raises(ConfigurationError, match=f"HOMEFEED_{variable} is hidden: ") as told:
        Settings()
    assert "sEcReT" not in str(told.value)


@pytest.mark.parametrize("name", ["a/b", "a:b", " ", ".", "..", "it's", "a\nb", "a" * 201])
def test_a_model_name_that_would_fail_after_the_training_fails_now(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", name)
    with pytest.raises(ConfigurationError, match="HOMEFEED_REGISTERED_MODEL is .* no / and no :"):
        Settings()


@pytest.mark.parametrize("name", ["homefeed_ranker", "Ranker 2", "größe.v1-x"])
def test_a_model_name_that_mlflow_takes_is_taken(name: str) -> None:
    _validate_model_name(name)
    assert Settings(registered_model=name).registered_model == name
    with pytest.raises(MlflowException):
        _validate_model_name(f"{name}/x")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HOME", "TRACKING_URI", "ALERT_TRANSPORTS", "COMMAND")
    for name in names:
        monkeypatch.delenv(f"HOMEFEED_{name}", raising=False)
    usual = Settings()
    for name in names:
        monkeypatch.setenv(f"HOMEFEED_{name}", "")
    assert Settings() == usual
    assert Settings().workspace_location == ".homefeed/workspace"


def test_packages_of_recipes_are_names_that_commas_separate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().triggerable_packages == ()
    monkeypatch.setenv("HOMEFEED_RECIPE_PACKAGES", " ranking, ours.features ,")
    assert Settings().triggerable_packages == ("ranking", "ours.features")
    monkeypatch.setenv("HOMEFEED_RECIPE_PACKAGES", "ranking ours")
    with pytest.raises(ConfigurationError, match="PACKAGES is 'ranking ours': expected names of"):
        Settings()
