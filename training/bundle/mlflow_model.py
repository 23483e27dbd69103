"""Log a bundle as an MLflow model: code, bundle and signature together, no pickle.

Not for the registry: who is challenger or champion is `pipelines.registry.registry`.
"""

import importlib.metadata
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import pipelines.contracts
import training
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.mlflow_errors import ask_all_again, make_once, translated_outages
from training.bundle.files import BundleConfig, read_golden
from training.bundle.logged_files import fetch
from training.data.batches import VARYING_AXES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

MODEL_NAME = "homefeed_ranker"
_DIGEST_TAG = "bundle_digest"
_MODEL_DIGEST_TAG = "model_digest"
_REQUIREMENTS = ("mlflow", "numpy", "pyarrow", "pydantic", "safetensors", "torch")


class LoggedBundle(NamedTuple):
    """A bundle in MLflow."""

    uri: str  # 'models:/m-...'
    digest: str  # sha256 over all of the model's files, the serving code among them


def log_bundle(client: "MlflowClient", bundle_dir: Path, run_id: str) -> LoggedBundle:
    """Log the bundle as a model of an MLflow run.

    A retry returns the model that the attempt before it logged, if its files are still the same.

    Args:
        client: The stage's client, which asks again where that does no harm, and writes nothing
            once the stage's lease is lost (`pipelines.registry.tracking`).
        bundle_dir: Folder of the bundle.
        run_id: The run.

    Raises:
        DataContractError: the model that was logged before has been altered since.
        TrackingUnavailableError: the server cannot be reached; nothing has to be trained again.
        TrackingEntryMissingError: the server does not know the run.
        ConfigurationError: the server or something before it refuses; a retry would be refused too.
    """
    so_far = f"the bundle {bundle_dir} for MLflow run {run_id} is trained and is not trained again"
    with translated_outages(client.tracking_uri, so_far):
        bundle_digest = digest_of_files(digest_files(bundle_dir))
        model = _open_model(client, run_id, bundle_digest)
        if str(model.status) != "READY":
            return LoggedBundle(model.model_uri, _upload(client, bundle_dir, run_id, model))
        _require_as_logged(model, client.tracking_uri)
        return LoggedBundle(model.model_uri, model.tags[_MODEL_DIGEST_TAG])


def _require_as_logged(model: "LoggedModel", tracking_uri: str) -> None:
    """Refuse a model whose files are others than those that were logged.

    Raises:
        DataContractError: it was altered.
    """
    logged = model.tags[_MODEL_DIGEST_TAG]
    with tempfile.TemporaryDirectory() as scratch:
        fetch(model.artifact_location, Path(scratch), tracking_uri)
        digest = digest_of_files(digest_files(Path(scratch)))
    if digest != logged:
        raise DataContractError(
            f"the logged model {model.model_id} of MLflow run {model.source_run_id} has digest "
            f"{digest[:12]}, and {logged[:12]} was logged; expected the same: its files were "
            f"altered in the artifact store; delete this logged model in MLflow, then retry: the "
            f"bundle is logged again, and registered as a new version"
        )


def _open_model(client: "MlflowClient", run_id: str, bundle_digest: str) -> "LoggedModel":
    """Return the run's model of this bundle, finished or begun, or begin it.

    MLflow would log to the process's own experiment, which is number 0, and not to the run's.
    """
    experiment_id = client.get_run(run_id).info.experiment_id

    def find() -> "LoggedModel | None":
        found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
        same = [model for model in found if model.tags.get(_DIGEST_TAG) == bundle_digest]
        same = [model for model in same if str(model.status) != "FAILED"]
        # A finished one comes before one that an attempt has begun and not finished.
        return min(same, key=lambda model: str(model.status) != "READY", default=None)

    tags = {_DIGEST_TAG: bundle_digest}
    return make_once(
        find, lambda: client.create_logged_model(experiment_id, MODEL_NAME, run_id, tags)
    )


def _upload(client: "MlflowClient", bundle_dir: Path, run_id: str, model: "LoggedModel") -> str:
    """Fill a model that was begun, finish it, and return its digest; each step may be done twice.

    `Model.log` of MLflow would do the same, but not a second time after it had failed: that a run
    has put a model out may be told to a server once only.
    """
    from mlflow.entities import LoggedModelOutput

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _write_model(folder, Path(scratch) / "code", bundle_dir, run_id, model)
        digest = digest_of_files(digest_files(folder))
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        # One by one, each more than once if need be: sent at once, one fault spoils them all.
        ask_all_again([partial(_send, client, model, path, folder) for path in paths])
    outputs = client.get_run(run_id).outputs
    known = [each.model_id for each in outputs.model_outputs] if outputs else []
    if model.model_id not in known:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    # Before the model is ready: a ready one always has the digest of the files that it got last.
    client.set_logged_model_tags(model.model_id, {_MODEL_DIGEST_TAG: digest})
    client.finalize_logged_model(model.model_id, "READY")
    return digest


def _send(client: "MlflowClient", model: "LoggedModel", path: Path, folder: Path) -> None:
    place = path.parent.relative_to(folder).as_posix()
    client.log_model_artifact(model.model_id, str(path), None if place == "." else place)


def _write_model(
    folder: Path, code_dir: Path, bundle_dir: Path, run_id: str, model: "LoggedModel"
) -> None:
    """Write the model's folder: the bundle, the code that serves it, and its signature."""
    import mlflow
    from mlflow.models import Model

    described = Model(
        artifact_path=model.artifact_location,
        run_id=run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
    )
    mlflow.pyfunc.save_model(
        path=str(folder),
        mlflow_model=described,
        python_model=str(Path(__file__).with_name("serving_model.py")),
        # A URI, because MLflow reads "%2F" and the like in a path as it reads them in a URI.
        artifacts={"bundle": bundle_dir.absolute().as_uri()},
        code_paths=_copy_code(code_dir),
        signature=_signature(bundle_dir),
        pip_requirements=[f"{name}=={_public_version(name)}" for name in _REQUIREMENTS],
    )
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)


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

    config = BundleConfig.from_record((bundle_dir / "bundle.json").read_bytes())
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
