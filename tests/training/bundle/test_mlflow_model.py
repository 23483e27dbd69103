"""A bundle in MLflow: it loads without pickle, is logged once, and stays through an outage."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.contracts.errors import TrackingUnavailableError
from pipelines.registry import tracking
from training.bundle.files import read_golden
from training.bundle.mlflow_model import log_bundle
from training.data.batches import MODEL_INPUTS

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("few_retries")]


def test_a_logged_bundle_loads_and_reproduces_its_golden_rows(
    tracking_uri, client, run_id, trained, tmp_path, monkeypatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    odd = tmp_path / "home #1, 100%2F"  # each of these means something in a URI
    bundle_dir = shutil.copytree(trained[1].bundle_dir, odd / "bundle")
    logged = log_bundle(client, bundle_dir, run_id)
    uri = logged.uri
    assert log_bundle(client, bundle_dir, run_id) == logged  # a retry logs nothing new
    of_run = client.get_run(run_id).info.experiment_id
    assert len(client.search_logged_models([of_run], f"source_run_id = '{run_id}'")) == 1
    with tracking.address_of_process(tracking_uri):
        model = mlflow.pyfunc.load_model(uri)
        local = Path(mlflow.artifacts.download_artifacts(uri))
    golden, expected = read_golden(bundle_dir, 3)
    found = model.predict({name: getattr(golden, name).numpy() for name in MODEL_INPUTS})
    assert np.abs(found["probabilities"] - expected).max() < 1e-6
    raw = found["uncalibrated_probabilities"]
    assert raw.shape == expected.shape and np.abs(raw - expected).max() > 1e-6
    assert model.metadata.signature.inputs.input_names() == list(MODEL_INPUTS)
    names = [path.name for path in local.rglob("*") if path.is_file()]
    assert {"weights.safetensors", "bundle.json", "golden.safetensors"} <= set(names)
    assert {"sequence_encoder.py", "layer.py", "schemas.py"} <= set(names)
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]


def test_an_outage_says_which_bundle_stays_as_it_is(trained, unused_url) -> None:
    bundle_dir = trained[1].bundle_dir
    kept = f"(?s){unused_url} does not answer.*the bundle {bundle_dir} for MLflow run r1 is trained"
    with pytest.raises(TrackingUnavailableError, match=kept):
        log_bundle(MlflowClient(tracking_uri=unused_url), Path(bundle_dir), "r1")
