"""Settings come from the environment; a name that is no longer one is refused."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_name

from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings

KEYS = "s3://AKIAKEY:sEcReT@bucket/x"
NO_NAMES = ("a/b", "a:b", " ", ".", "..", "it's", "a\nb", "a" * 201)
NO_PAGES = ("runbook.md", "https://me:sEcReT@host/runbook.md", "https://x/r#a", "ftp://x/r")
NO_ZONES = ("Europe/Berln", "../../etc/passwd", "Europe")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ALERT_TRANSPORTS", '["slack", "pager"]', r" \(item 1\) is 'pager': input should be"),
        ("CADENCE_DAYS", "0", r" is '0': .* greater than 0 \(Days between scheduled cycles\)"),
        ("CADENCE_DAYS", "inf", " is 'inf': input should be less than or equal to 3650"),
        ("ACCELERATOR", "tpu", " is 'tpu': input should be 'cpu' or 'gpu'"),
        *(("READER_ZONE", zone, ": invalid timezone: .*IANA name") for zone in NO_ZONES),
        *(("ALERT_EMAIL_TO", f'["a@b.c{n}B: c"]', "0.* match pattern") for n in ("\\n", "\u2028")),
        ("STAGE_RESOURCES", '{"alert": {"cpus": 1, "memory_gib": 1}}', "'.*match.*build_snapshot"),
        ("RECIPE_PACKAGES", "[3]", r" \(item 0\) is 3: input should be a valid string"),
        # It would fail after the training.
        *(("REGISTERED_MODEL", name, " is .*no / and no :") for name in NO_NAMES),
        # No message repeats what may be a secret.
        *((place, KEYS, r"=s3://\S+@bucket/x ") for place in ("HOME", "EVENT_LOG", "WORKSPACE")),
        *(("RUNBOOK_URL", each, " is hidden: .*runbook.md, for the links") for each in NO_PAGES),
        ("SPARK_OPTIONS", '["sEcReT"]', " is hidden: "),
    ],
)
def test_a_variable_that_holds_nonsense_is_named_with_what_it_may_hold(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"HOMEFEED_{variable}", value)
    with pytest.raises(ConfigurationError, match=f"^HOMEFEED_{variable}.*{says}") as caught:
        Settings()
    assert caught.value.__cause__ is None and "pydantic" not in str(caught.value)
    assert "sEcReT" not in str(caught.value) and "AKIAKEY" not in str(caught.value)


@pytest.mark.parametrize("value", ["slack", '{"fs.s3a.secret.key": "sEcReT"'])
def test_what_is_no_json_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HOMEFEED_SPARK_OPTIONS", value)
    with pytest.raises(ConfigurationError, match='"spark_options".*expected JSON') as caught:
        Settings()
    assert value not in str(caught.value)


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
    assert Settings() == usual and usual.workspace_location == ".homefeed/workspace"
