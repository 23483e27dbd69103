"""What is kept of a cycle's MLflow runs: one run per side, with every option once."""

from pathlib import Path

import mlflow
import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.registry import tracking
from support.runs import make_run


def test_a_retry_finds_the_run_and_keeps_its_options(tmp_path: Path, store_uri: str) -> None:
    places = {"tracking_uri": store_uri, "experiment": f"cycles_{tmp_path.name}"}
    run = make_run(tmp_path, **places)
    client = tracking.connect(store_uri)
    run_id = tracking.open_run(client, run, "challenger", "challenger")
    tracking.log_config(client, run_id, run.config)
    other = run.config.training.model_copy(update={"seed": 18})
    assert tracking.open_run(client, run, "challenger", "another name") == run_id
    tracking.log_config(client, run_id, run.config.model_copy(update={"training": other}))

    params = client.get_run(run_id).data.params
    assert params["recipe"] == "smoke"
    assert params["training.seed"] == str(run.config.training.seed) != "18"
    assert len(params) == len(tracking.COMPARED) <= 15
    with tracking.address_of_process(store_uri):
        kept = mlflow.artifacts.load_dict(f"runs:/{run_id}/{tracking.CONFIG_FILE}")
    assert kept["model"]["mlp_dims"] == list(run.config.model.mlp_dims)
    assert params["features.heads"].startswith("[{'name': 'repin'")
    assert client.get_run(run_id).info.run_name == "2017-03-02 challenger"
    baseline = tracking.open_run(client, run, "baseline", "popularity ranking")
    assert baseline != run_id
    for _ in range(2):
        tracking.copy_params(client, run_id, baseline)
    assert client.get_run(baseline).data.params == params
    tracking.copy_params(client, "0" * 32, baseline)  # deleted: it has none to give


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://user:secret@host", "carries credentials"),
        ("file:///somewhere", "expected the http"),
        ("sqlite:////somewhere/mlflow.db", "expected the http"),
    ],
)
def test_an_address_that_may_not_be_kept_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        tracking.check_tracking_uri(uri)
    assert "secret" not in str(caught.value)


def test_a_file_is_an_address_only_as_a_rebuilt_cycles_own(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / tracking.OWN_REGISTRY}"
    assert tracking.check_tracking_uri(uri) == uri


def test_the_address_of_the_process_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the three the address that was set wins in MLflow, then the environment's, then a file."""
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri(None)  # A store of the tests before is put back by nobody here.
    with tracking.address_of_process("sqlite:////nowhere/outer.db"):
        with tracking.address_of_process("sqlite:////nowhere/inner.db"):
            assert mlflow.get_tracking_uri() == "sqlite:////nowhere/inner.db"
        assert mlflow.get_tracking_uri() == "sqlite:////nowhere/outer.db"
    assert not mlflow.is_tracking_uri_set()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with tracking.address_of_process("sqlite:////nowhere/inner.db"):
        assert mlflow.get_tracking_uri() == "sqlite:////nowhere/inner.db"
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:9"
