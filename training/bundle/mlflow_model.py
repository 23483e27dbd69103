"""Log a bundle as an MLflow model: code, bundle and signature together, no pickle.

Not for the registry: who is challenger or champion is `pipelines.registry.registry`.
"""

import importlib.metadata
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import pipelines.contracts
import training
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.mlflow_errors import ask_again, make_once, translated_outages
from training.bundle.configuration import BundleConfig
from training.bundle.files import read_golden
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


def log_bundle(bundle_dir: Path, run_id: str, tracking_uri: str) -> LoggedBundle:
    """Log the bundle as a model of an MLflow run.

    A retry returns the model that the attempt before it logged, if its files are still the same.

    Raises:
        DataContractError: the model that was logged before has been altered since.
        TrackingUnavailableError: the server cannot be reached; nothing has to be trained again.
        TrackingEntryMissingError: the server does not know the run.
        ConfigurationError: the server or something before it refuses; a retry would be refused too.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    so_far = f"the bundle {bundle_dir} for MLflow run {run_id} is trained and is not trained again"
    with translated_outages(tracking_uri, so_far):
        bundle_digest = digest_of_files(digest_files(bundle_dir))
        model = _open_model(client, run_id, bundle_digest)
        if str(model.status) != "READY":
            return LoggedBundle(model.model_uri, _upload(client, bundle_dir, run_id, model))
        digest = str(model.tags.get(_MODEL_DIGEST_TAG, ""))
        _require_as_logged(model, digest, tracking_uri)
        return LoggedBundle(model.model_uri, digest)


def _require_as_logged(model: "LoggedModel", logged: str, tracking_uri: str) -> None:
    """Refuse a model whose files are others than those that were logged.

    Raises:
        DataContractError: it was altered.
    """
    import mlflow.artifacts

    with tempfile.TemporaryDirectory() as scratch:
        found = ask_again(
            lambda: mlflow.artifacts.download_artifacts(
                # By its place: the model's own URI would be looked up at the process's server.
                artifact_uri=model.artifact_location,
                dst_path=scratch,
                tracking_uri=tracking_uri,
            )
        )
        digest = digest_of_files(digest_files(Path(found)))
    if digest != logged:
        raise DataContractError(
            f"the logged model {model.model_id} of MLflow run {model.source_run_id} has digest "
            f"{digest[:12]}, and {logged[:12] or 'none'} was logged; expected the same: its files "
            f"were altered in the artifact store; delete this logged model in MLflow, then retry: "
            f"the bundle is logged again"
        )


def _open_model(client: "MlflowClient", run_id: str, bundle_digest: str) -> "LoggedModel":
    """Return the run's model of this bundle, finished or begun, or begin it.

    MLflow would log to the process's own experiment, which is number 0, and not to the run's.
    """
    experiment_id = ask_again(lambda: client.get_run(run_id)).info.experiment_id

    def find() -> "LoggedModel | None":
        mine = f"source_run_id = '{run_id}'"
        found = ask_again(lambda: client.search_logged_models([experiment_id], mine))
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
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            _upload_file(client, model.model_id, path, path.parent.relative_to(folder).as_posix())
    outputs = ask_again(lambda: client.get_run(run_id)).outputs
    known = [each.model_id for each in outputs.model_outputs] if outputs else []
    if model.model_id not in known:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    # Before the model is ready: a ready one always has the digest of the files that it got last.
    ask_again(lambda: client.set_logged_model_tags(model.model_id, {_MODEL_DIGEST_TAG: digest}))
    ask_again(lambda: client.finalize_logged_model(model.model_id, "READY"))
    return digest


def _upload_file(client: "MlflowClient", model_id: str, path: Path, place: str) -> None:
    """Send one file, more than once if need be: with all of them at once, one fault spoils all."""
    where = None if place == "." else place
    ask_again(lambda: client.log_model_artifact(model_id, str(path), where))


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
