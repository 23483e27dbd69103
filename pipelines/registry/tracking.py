"""MLflow tracking: one run per cycle and side, found again by its tags, never opened twice.

All runs of a cycle have the tag CYCLE, by which one filter finds them. MLflow's own
client repeats every request whose answer was lost, also one that makes something; its repetitions
are switched off, and `PatientClient` repeats what does no harm. Not for the registry
(`pipelines.registry.registry`), nor for the training curves (`training`), nor for what a run shows
once its side was compared (`pipelines.registry.in_mlflow`).
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.mlflow_errors import ask_again, make_once, translated_outages

if TYPE_CHECKING:
    from mlflow import MlflowClient

OWN_REGISTRY = "reproduction.db"
"""File of the registry that a rebuilt cycle has to itself (`pipelines.reproduction`); no server."""

CYCLE, SIDE = "homefeed_run_id", "homefeed_side"
"""The tags of a run that say of which cycle it is, and of which side of it."""
CONFIG_FILE = "config.json"
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
COMPARED = (
    *("recipe", "recipe_digest", "recipe_reference", "features.heads", "features.numeric"),
    *("snapshot.embedding_version", "snapshot.training_days", "snapshot.label_window_hours"),
    *("model.max_actions", "model.encoder_variant", "model.num_layers"),
    *("training.num_epochs", "training.batch_size", "training.learning_rate", "training.seed"),
)
"""The parameters of a run. MLflow shows each that differs between two runs, so they are few; the
artifact CONFIG_FILE has all options."""
FAILURE = "failure"
"""The tag of a failed cycle's run that says why; '' where a later attempt went on."""
LONGEST_TAG = 5000
"""Characters; the server refuses longer tags, and longer descriptions of versions."""
DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow shows as a run's description, in Markdown."""


def check_tracking_uri(uri: str) -> str:
    """Return the URI if it may be stored with a run: a server's, or a rebuilt cycle's own file.

    Raises:
        ConfigurationError: it carries a password, or is no http(s) server.
    """
    parts = urlsplit(uri)
    if parts.username or parts.password:
        raise ConfigurationError(
            "HOMEFEED_TRACKING_URI carries credentials, which would be saved with every run; "
            "expected a bare URL; put them into MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    is_own = parts.scheme == "sqlite" and parts.path.endswith(f"/{OWN_REGISTRY}")
    if parts.scheme not in ("http", "https") and not is_own:
        raise ConfigurationError(
            f"HOMEFEED_TRACKING_URI is {uri!r}; expected the http(s) address of an MLflow server; "
            f"`make ui` starts one on this machine"
        )
    return uri


def connect(uri: str) -> "MlflowClient":
    """Return a client of a server that answers.

    Raises:
        TrackingUnavailableError: it does not answer within a few seconds.
    """
    # MLflow would repeat every request, also one that makes something.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault(_TIMEOUT, "20")
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # A log is no terminal: there each step of a progress bar is a line of its own.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    client = patient(MlflowClient(tracking_uri=check_tracking_uri(uri), registry_uri=uri))
    with translated_outages(uri):
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def giving_up_after(seconds: int) -> Iterator[None]:
    """Have MLflow's client wait so long for an answer, or less where that is set already."""
    before = os.environ.get(_TIMEOUT)
    os.environ[_TIMEOUT] = str(min(seconds, int(before)) if before else seconds)
    try:
        yield
    finally:
        del os.environ[_TIMEOUT]
        if before is not None:
            os.environ[_TIMEOUT] = before


@contextlib.contextmanager
def address_of_process(uri: str) -> Iterator[None]:
    """Have MLflow take an address where it is given none, and forget it afterwards.

    Parts of MLflow ask the process's own address even of a client that was given one. An address
    that stays set goes before the environment's.
    """
    import mlflow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(cast("str", before))  # None, which it does not declare: forget it.


def open_run(client: "MlflowClient", run: ResolvedRun, side: str, label: str) -> str:
    """Return the id of the MLflow run of one side of a cycle, making experiment and run if needed.

    A retry finds the run of the attempt before it, so a cycle never leaves two.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        side: 'challenger' or 'baseline'.
        label: What a new MLflow run is named after, beside the cycle's day.
    """
    mine = {CYCLE: run.run_id, SIDE: side}
    tags = mine | {
        "as_of": run.as_of.isoformat(),
        **recipe_tags(run.config),
        "code_version": run.code_version,
        "code_digest": run.code_digest,
        "trigger": run.trigger,
    }
    query = " and ".join(f"tags.{tag} = '{value}'" for tag, value in mine.items())
    with translated_outages(client.tracking_uri):
        place = experiment_id_of(client, run)
        found = make_once(
            lambda: next(iter(client.search_runs([place], query, max_results=1)), None),
            lambda: client.create_run(place, tags=tags, run_name=f"{run.as_of:%Y-%m-%d} {label}"),
        )
        if found.info.status == "FAILED":  # a failed attempt was told, and this one goes on
            client.update_run(found.info.run_id, status="RUNNING")
            client.set_tag(found.info.run_id, FAILURE, "")
        return found.info.run_id


def experiment_of(client: "MlflowClient", run_id: str) -> str:
    """Return the id of a run's experiment."""
    with translated_outages(client.tracking_uri):
        return str(client.get_run(run_id).info.experiment_id)


def recipe_tags(config: RunConfig) -> dict[str, str]:
    """Return which recipe this is, as tags of a run or version, and as parameters of a run."""
    ref = config.recipe_ref
    return {"recipe": ref.name, "recipe_digest": ref.digest, "recipe_reference": ref.reference}


def experiment_id_of(client: "MlflowClient", run: ResolvedRun) -> str:
    """Return the id of a cycle's experiment, which is made if it is not there."""
    from mlflow.exceptions import MlflowException

    def find() -> str | None:
        found = client.get_experiment_by_name(run.experiment)
        return found.experiment_id if found else None

    try:
        return make_once(find, lambda: client.create_experiment(run.experiment))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = find()  # Another cycle made it a moment ago.
    assert found is not None
    return found


def log_config(client: "MlflowClient", run_id: str, config: RunConfig) -> None:
    """Log the whole configuration as an artifact, and what people compare as parameters.

    A parameter that the run has already is left as it is: MLflow forbids to change it.
    """
    import pandas as pd

    fields = config.model_dump(mode="json", exclude={"source"}) | recipe_tags(config)
    client.log_dict(run_id, fields, CONFIG_FILE)
    [options] = pd.json_normalize(fields).to_dict("records")
    _log_params(client, run_id, {name: str(options[name]) for name in COMPARED})


def copy_params(client: "MlflowClient", from_run: str, to_run: str) -> None:
    """Give a run the parameters of another, so that a comparison with it shows what differs.

    A run that was deleted has none to give.
    """
    from mlflow.exceptions import MlflowException

    with translated_outages(client.tracking_uri):
        try:
            params = client.get_run(from_run).data.params
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return
        _log_params(client, to_run, {name: params[name] for name in COMPARED if name in params})


def _log_params(client: "MlflowClient", run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    fresh = [Param(name, value[:500]) for name, value in params.items() if name not in known]
    client.log_batch(run_id, params=fresh)


_REPEATED = (
    *("get_", "search_", "list_", "download_"),
    *("set_", "log_batch", "log_inputs", "log_artifact", "log_model_artifact"),
    "finalize_logged_model",
)
_NOT_REPEATED = ("set_registered_model_alias",)
"""Who moves an alias reads it back instead (`pipelines.registry.reconcile`)."""


class PatientClient:
    """Stands in for a `MlflowClient`; a method is repeated where its name says that it may be."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        """Return a method of the client, repeated as its name says."""
        found = getattr(self._client, name)
        if not callable(found) or not name.startswith(_REPEATED) or name in _NOT_REPEATED:
            return found
        return lambda *arguments, **options: ask_again(lambda: found(*arguments, **options))


def patient(client: "MlflowClient") -> "MlflowClient":
    """Return the client in its patient form, under the type that callers know."""
    return cast("MlflowClient", PatientClient(client))
