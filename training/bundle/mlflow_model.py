"""Log a bundle as an MLflow model: code, bundle and signature together, no pickle.

Not for the registry: who is challenger or champion is `pipelines.registry.registry`.
"""

import contextlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import pipelines.contracts
import training
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.mlflow_errors import translated_outages
from training.bundle.configuration import BundleConfig
from training.bundle.files import read_golden
from training.data.batches import VARYING_AXES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

MODEL_NAME = "homefeed_ranker"
_DIGEST_TAG = "bundle_digest"
_REQUIREMENTS = ("mlflow", "numpy", "pyarrow", "pydantic", "safetensors", "torch")


def log_bundle(bundle_dir: Path, run_id: str, tracking_uri: str) -> str:
    """Log the bundle as a model of an MLflow run and return its URI ('models:/m-...').

    A retry returns the model that the attempt before it logged.

    Raises:
        TrackingUnavailableError: the server cannot be reached; nothing has to be trained again.
        MlflowException: the server refuses, as where it does not know the run; a retry would be
            refused too.
        RequestException: something between here and the server refuses.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    so_far = f"the bundle {bundle_dir} for MLflow run {run_id} is trained and is not trained again"
    with translated_outages(tracking_uri, so_far):
        bundle_digest = digest_of_files(digest_files(bundle_dir))
        known = _find(client, run_id, bundle_digest)
        return known or _log(bundle_dir, bundle_digest, run_id, tracking_uri)


def _find(client: "MlflowClient", run_id: str, bundle_digest: str) -> str | None:
    """Return the URI of the run's finished model of this bundle, or None."""
    experiment_id = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    for model in found:
        if model.tags.get(_DIGEST_TAG) == bundle_digest and str(model.status) == "READY":
            return model.model_uri
    return None


def _log(bundle_dir: Path, bundle_digest: str, run_id: str, tracking_uri: str) -> str:
    import mlflow
    from mlflow.models import Model

    with _tracking(tracking_uri), tempfile.TemporaryDirectory() as scratch:
        code_dir = Path(scratch)
        logged = Model.log(
            artifact_path=None,
            name=MODEL_NAME,
            flavor=mlflow.pyfunc,
            run_id=run_id,
            tags={_DIGEST_TAG: bundle_digest},
            python_model=str(Path(__file__).with_name("serving_model.py")),
            # A URI, because MLflow reads "%2F" and the like in a path as it reads them in a URI.
            artifacts={"bundle": bundle_dir.absolute().as_uri()},
            code_paths=_copy_code(code_dir),
            signature=_signature(bundle_dir),
            pip_requirements=[f"{name}=={_public_version(name)}" for name in _REQUIREMENTS],
        )
    return logged.model_uri


def _public_version(name: str) -> str:
    """Return an installed version without its local part: no index has torch 2.13.0+cpu."""
    return importlib.metadata.version(name).split("+")[0]


def _copy_code(folder: Path) -> list[str]:
    """Copy the packages that the model needs, and no others of this project; return their paths."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(training.__file__).parent, folder / "training", ignore=ignore)
    contracts = Path(pipelines.contracts.__file__).parent
    shutil.copytree(contracts, folder / "pipelines" / "contracts", ignore=ignore)
    (folder / "pipelines" / "__init__.py").write_text('"""The contracts alone."""\n')
    return [str(folder / "training"), str(folder / "pipelines")]


def _signature(bundle_dir: Path) -> "ModelSignature":
    """Return tensor types and shapes of inputs and output; requests and candidates vary."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    config = BundleConfig.model_validate_json((bundle_dir / "bundle.json").read_bytes())
    golden, _ = read_golden(bundle_dir, len(config.features.heads))
    inputs: list[ColSpec | TensorSpec] = []
    for name, varying in VARYING_AXES.items():
        array = getattr(golden, name).numpy()
        shape = (-1,) * len(varying) + array.shape[len(varying) :]
        inputs.append(TensorSpec(array.dtype, shape, name))
    shape = (-1, len(config.features.heads))
    outputs: list[ColSpec | TensorSpec] = [
        TensorSpec(np.dtype(np.float64), shape, name)
        for name in ("probabilities", "uncalibrated_probabilities")
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


@contextlib.contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """Set MLflow's module-wide tracking address, and set it back at the end."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
