"""A bundle as an MLflow model: code, bundle and signature together, no pickle; logged and fetched.

The module imports nothing heavy, because a light task fetches too. Not for the registry: who is
challenger or champion is `pipelines.registry.registry`.
"""

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import pipelines.contracts
import training
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.mlflow_errors import ask_again, make_once, translated_outages

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

MODEL_NAME = "homefeed_ranker"
_DIGEST_TAG = "bundle_digest"
_MODEL_DIGEST_TAG = "model_digest"
_NUM_AT_A_TIME = 8
_REQUIREMENTS = ("mlflow", "numpy", "pyarrow", "pydantic", "safetensors", "torch")


class LoggedBundle(NamedTuple):
    """A bundle in MLflow."""

    uri: str  # 'models:/m-...'
    digest: str  # sha256 over all of the model's files, the serving code among them


def log_bundle(client: "MlflowClient", bundle_dir: Path, run_id: str) -> LoggedBundle:
    """Log the bundle as a model of an MLflow run.

    A retry returns the model that the attempt before it logged. Whoever fetches it compares its
    files with the digest.

    Args:
        client: The stage's client, which asks again where that does no harm.
        bundle_dir: Folder of the bundle.
        run_id: The run.

    Raises:
        TrackingUnavailableError: the server cannot be reached; nothing has to be trained again.
        TrackingEntryMissingError: the server does not know the run.
        ConfigurationError: the server or something before it refuses; a retry would be refused too.
    """
    so_far = f"the bundle {bundle_dir} for MLflow run {run_id} is trained and is not trained again"
    with translated_outages(client.tracking_uri, so_far), tempfile.TemporaryDirectory() as scratch:
        tags = {_DIGEST_TAG: digest_of_files(digest_files(bundle_dir))}
        # MLflow would log to the process's own experiment, which is number 0, and not to the run's.
        experiment_id = client.get_run(run_id).info.experiment_id

        def find() -> "LoggedModel | None":
            found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
            same = [model for model in found if tags.items() <= model.tags.items()]
            # A finished one comes before one that an attempt has begun and not finished.
            return min(same, key=lambda model: str(model.status) != "READY", default=None)

        model = make_once(
            find, lambda: client.create_logged_model(experiment_id, MODEL_NAME, run_id, tags)
        )
        if str(model.status) == "READY":
            return LoggedBundle(model.model_uri, model.tags[_MODEL_DIGEST_TAG])
        digest = _upload(client, bundle_dir, run_id, model, Path(scratch))
        return LoggedBundle(model.model_uri, digest)


def _upload(
    client: "MlflowClient", bundle_dir: Path, run_id: str, model: "LoggedModel", scratch: Path
) -> str:
    """Fill a model that was begun, finish it, and return its digest; each step may be done twice.

    The model's folder holds the bundle, the code that serves it, and its signature. `Model.log` of
    MLflow would do the same, but not a second time after it had failed: that a run has put a model
    out may be told to a server once only.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    folder, code = scratch / "model", scratch / "code"
    # The packages that the model needs, and no others of this project.
    for package, place in ((training, "training"), (pipelines.contracts, "pipelines/contracts")):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, code / place, ignore=shutil.ignore_patterns("__pycache__"))
    (code / "pipelines" / "__init__.py").write_text('"""The contracts alone."""\n')
    mlflow.pyfunc.save_model(
        path=str(folder),
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            run_id=run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        ),
        python_model=str(Path(__file__).with_name("serving_model.py")),
        # A URI, because MLflow reads "%2F" and the like in a path as it reads them in a URI.
        artifacts={"bundle": bundle_dir.absolute().as_uri()},
        code_paths=[str(code / "training"), str(code / "pipelines")],
        signature=_signature(bundle_dir),
        # Without a version's local part: no index has torch 2.13.0+cpu.
        pip_requirements=[
            f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in _REQUIREMENTS
        ],
    )
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)
    digest = digest_of_files(digest_files(folder))
    # One by one, each more than once if need be: sent at once, one fault spoils them all.
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        place = path.parent.relative_to(folder).as_posix()
        client.log_model_artifact(model.model_id, str(path), None if place == "." else place)
    outputs = client.get_run(run_id).outputs
    known = [each.model_id for each in outputs.model_outputs] if outputs else []
    if model.model_id not in known:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    # Before the model is ready: a ready one always has the digest of the files that it got last.
    client.set_logged_model_tags(model.model_id, {_MODEL_DIGEST_TAG: digest})
    client.finalize_logged_model(model.model_id, "READY")
    return digest


def _signature(bundle_dir: Path) -> "ModelSignature":
    """Return tensor types and shapes of inputs and output; requests and candidates vary."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from training.bundle.files import read_config, read_golden
    from training.data.batches import VARYING_AXES

    config = read_config(bundle_dir)
    golden, _ = read_golden(bundle_dir, len(config.features.heads))
    inputs: list[Any] = [
        TensorSpec(array.dtype, (-1,) * len(varying) + array.shape[len(varying) :], name)
        for name, varying in VARYING_AXES.items()
        for array in [getattr(golden, name).numpy()]
    ]
    shape = (-1, len(config.features.heads))
    outputs: list[Any] = [
        TensorSpec(np.dtype(np.float64), shape, name)
        for name in ("probabilities", "uncalibrated_probabilities")
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def fetch(source: str, folder: Path, tracking_uri: str) -> None:
    """Fetch all that is at an artifact URI into a folder.

    The files come one by one: a model has about a hundred, and fetched by one call, one lost answer
    would spoil all of them. Tested in tests/pipelines/registry/test_lost_answers.py.

    Args:
        source: Where the files lie; a logged model's own URI would be looked up at the server that
            the process knows, which may be another one.
        folder: Where they are put.
        tracking_uri: The server that is asked for them.

    Raises:
        MlflowException: as MLflow raises; outages are asked about again first.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(source, tracking_uri=tracking_uri)

    def paths_in(folder: str | None) -> Iterator[str]:
        for entry in ask_again(partial(repository.list_artifacts, folder)):
            yield from paths_in(entry.path) if entry.is_dir else [entry.path]

    with ThreadPoolExecutor(_NUM_AT_A_TIME) as pool:
        wanted = [
            partial(repository.download_artifacts, each, str(folder)) for each in paths_in(None)
        ]
        list(pool.map(ask_again, wanted))
