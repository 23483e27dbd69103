"""MLflow tracking: one run per cycle and side, found again by its tags, never opened twice.

All runs of a cycle have the tag CYCLE, by which one filter finds them. They show, for people only,
the snapshot, what the data gate found, and the numbers of each side of the comparison; whatever is
written twice is there once. MLflow's own client repeats every request whose answer was lost, also
one that makes something; its repetitions are switched off, and `PatientClient` repeats what does no
harm. Not for the registry (`pipelines.registry.registry`), nor the training curves (`training`).
"""

import contextlib
import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ResolvedRun, Snapshot
from pipelines.contracts.base import digest_of
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.contracts.mlflow_errors import ask_again, make_once, translated_outages
from pipelines.contracts.run_layout import DOCS_ARTIFACT, VERDICT_PAGE
from pipelines.recipes.text import fields_of
from pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
OWN_REGISTRY = "reproduction.db"
"""File of the registry that a rebuilt cycle has to itself (`pipelines.reproduction`); no server."""

CYCLE, SIDE = "homefeed_run_id", "homefeed_side"
"""The tags of a run that say of which cycle it is, and of which side of it."""
_TIMEOUT, _TIMEOUT_S = "MLFLOW_HTTP_REQUEST_TIMEOUT", "20"
CONFIG_FILE = "config.json"
"""The artifact with a run's whole configuration and what tells its recipe and code apart."""
_MOST_PARAMS, _LONGEST_PARAM = 100, 6000
"""Of one request, which MLflow refuses to have more of; characters, beyond which it cuts."""
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
    os.environ.setdefault(_TIMEOUT, _TIMEOUT_S)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # A log is no terminal: there each step of a progress bar is a line of its own.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    _refuse_empty_bodies()
    client = PatientClient(MlflowClient(tracking_uri=check_tracking_uri(uri), registry_uri=uri))
    with translated_outages(uri):
        client.search_experiments(max_results=1)
    return cast("MlflowClient", client)  # under the type that callers know


@functools.cache
def _refuse_empty_bodies() -> None:
    """Have MLflow's client take an answer without a body for an outage, and for no empty list."""
    from mlflow.utils import rest_utils
    from requests.exceptions import JSONDecodeError

    of_mlflow = rest_utils.verify_rest_response

    def verify(response: Any, *where: Any, **expected: Any) -> Any:
        if response.status_code == 200 and not response.content:
            raise JSONDecodeError("there is no body", "", 0)
        return of_mlflow(response, *where, **expected)

    rest_utils.verify_rest_response = verify


@contextlib.contextmanager
def giving_up_after(seconds: int) -> Iterator[None]:
    """Have MLflow's client wait so long for an answer, or less where that is set already."""
    before = os.environ.setdefault(_TIMEOUT, _TIMEOUT_S)
    os.environ[_TIMEOUT] = str(min(seconds, int(before)))
    try:
        yield
    finally:
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

    A retry finds the run of the attempt before it, so a cycle never leaves two. A side is
    'challenger', 'baseline' or 'anchor'. A new run is named after the cycle's day, the label, and
    the end of the cycle's name, which tells apart the cycles of a day.
    """
    query = f"tags.{CYCLE} = '{run.run_id}' and tags.{SIDE} = '{side}'"
    tags = {CYCLE: run.run_id, SIDE: side, "trigger": run.trigger} | shown_tags(run, side)
    name = f"{run.as_of:%Y-%m-%d} {label} {run.run_id[-8:]}"
    with translated_outages(client.tracking_uri):
        place = experiment_id_of(client, run)
        found = make_once(
            lambda: next(iter(client.search_runs([place], query, max_results=1)), None),
            lambda: client.create_run(place, tags=tags, run_name=name),
        )
        if found.info.status == "FAILED":  # a failed attempt was told, and this one goes on
            client.update_run(found.info.run_id, status="RUNNING")
            client.set_tag(found.info.run_id, FAILURE, "")
        return found.info.run_id


def shown_tags(run: ResolvedRun, side: str) -> dict[str, str]:
    """Return what MLflow's list of runs shows of a run beside its verdict and its numbers."""
    shown = "champion" if side == "baseline" and run.champion else side
    return {"cycle": f"{run.as_of:%Y-%m-%d}", "side": shown}


def experiment_id_of(client: "MlflowClient", run: ResolvedRun | Settings) -> str:
    """Return the id of a cycle's or the settings' experiment, made if it is not there."""
    with translated_outages(client.tracking_uri):
        if (found := client.get_experiment_by_name(run.experiment)) is None:
            make_unless_there(lambda: client.create_experiment(run.experiment))
            found = client.get_experiment_by_name(run.experiment)
        assert found is not None
        return str(found.experiment_id)


def make_unless_there(make: Callable[[], object]) -> None:
    """Make what has a name of its own; another made it, or we did and the answer was lost."""
    from mlflow.exceptions import MlflowException

    try:
        ask_again(make)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def log_config(client: "MlflowClient", run_id: str, config: RunConfig, **code: str) -> None:
    """Log a recipe and its code's identity as an artifact, and each field as a parameter.

    The parameters that differ between two runs are the fields that `homefeed recipe diff` tells;
    a name has no brackets, which MLflow refuses. MLflow forbids to change a parameter, so those
    that the run has stay.
    """
    from mlflow.entities import Param

    ref, whole = config.recipe_ref, config.model_dump(mode="json", exclude={"source"}) | code
    whole |= {"recipe": ref.name, "recipe_digest": ref.digest, "recipe_reference": ref.reference}
    fields = {re.sub(r"\[(\d+)\]", r".\1", path): v for path, v in fields_of(config).items()}
    params = [
        Param(name, value if len(value) <= _LONGEST_PARAM else f"{value[:5900]} {digest_of(value)}")
        for name, value in fields.items()
    ]
    with translated_outages(client.tracking_uri):
        client.log_dict(run_id, whole, CONFIG_FILE)
        client.set_tag(run_id, "recipe", config.recipe)
        known = client.get_run(run_id).data.params
        fresh = [param for param in params if param.key not in known]
        for at in range(0, len(fresh), _MOST_PARAMS):
            client.log_batch(run_id, params=fresh[at : at + _MOST_PARAMS])


_REPEATED = (
    *("get_", "search_", "list_", "download_"),
    *("set_", "log_batch", "log_inputs", "log_artifact", "log_model_artifact", "log_text"),
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
        from mlflow.exceptions import MlflowException

        if not callable(found := getattr(self._client, name)):
            return found

        def ask(*arguments: Any, **options: Any) -> Any:  # Of `{}` it makes a thing without a name.
            answer = found(*arguments, **options)
            thing = getattr(answer, "info", answer)
            if getattr(thing, "name", getattr(thing, "run_id", thing)) == "":
                raise MlflowException(f"its answer to {name} is about nothing")
            return answer

        if not name.startswith(_REPEATED) or name in _NOT_REPEATED:
            return ask
        return lambda *arguments, **options: ask_again(lambda: ask(*arguments, **options))


def log_dataset(
    client: "MlflowClient", mlflow_run_id: str, snapshot: Snapshot, context: str
) -> None:
    """Log a cycle's snapshot as the input of an MLflow run; twice is as once.

    The type of source is our own, so that MLflow loads nothing. The context is 'training' or
    'evaluation'.

    Raises:
        HomefeedError: as `translated_outages` raises.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name, source = f"snapshot {snapshot.as_of:%Y-%m-%d}", json.dumps({"uri": snapshot.uri})
    data = Dataset(name, snapshot.digest[:36], "homefeed_snapshot", source)  # Longer is refused.
    tags = [InputTag("mlflow.data.context", context)]
    with translated_outages(client.tracking_uri):
        client.log_inputs(mlflow_run_id, [DatasetInput(data, tags)])


def log_gate(
    client: "MlflowClient", mlflow_run_id: str, report: DataReport, address_of: Callable[[str], str]
) -> None:
    """Log a data report and its pages to an MLflow run; a page that was deleted is left out.

    A browser finds a page of a URI at its address.

        data_gate/report.json            every expectation, with what was found
        data_gate/data_docs.html         the Data Docs of the snapshot
        data_gate/event_log.html         those of the event log's days, where these were judged

    Raises:
        HomefeedError: of MLflow or of the pages' storage.
    """
    from validation.report.pages import for_mlflow

    pages = {DOCS_ARTIFACT: report.docs_uri, "data_gate/event_log.html": report.log_docs_uri}
    texts = {"data_gate/report.json": report.model_dump_json(indent=2)}
    for name, uri in pages.items():
        if uri and storage.exists(uri):
            texts[name] = for_mlflow(storage.read_bytes(uri).decode(), address_of(uri))
    with translated_outages(client.tracking_uri):
        for name, text in texts.items():
            client.log_text(mlflow_run_id, text, name)


def log_side(
    client: "MlflowClient",
    run: ResolvedRun,
    side: str,
    label: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    page: str = "",
) -> str:
    """Log one side of a comparison to its MLflow run, end the run, and return the run's id.

    It is opened as `open_run` does. Metrics are final numbers, logged at step 0; tags say what else
    is known of the comparison, and the verdict page is logged where there is one.
    """
    from mlflow.entities import Metric, RunTag

    run_id = open_run(client, run, side, label)
    with translated_outages(client.tracking_uri):
        # All have the time at which the run began: a retry then sends exact duplicates, which the
        # server drops.
        started = client.get_run(run_id).info.start_time
        measured = [Metric(key, value, started, 0) for key, value in sorted(metrics.items())]
        shown = dict(tags) | shown_tags(run, side)  # the run may have been opened by older code
        told = [RunTag(name, value[:LONGEST_TAG]) for name, value in shown.items()]
        client.log_batch(run_id, metrics=measured, tags=told)
        if page:
            client.log_text(run_id, page, f"comparison/{VERDICT_PAGE}")
        client.set_terminated(run_id, "FINISHED")
    return run_id


def end_failed(run: ResolvedRun, reason: str) -> None:
    """End the MLflow runs of a broken cycle that are open still, with the reason.

    Where MLflow does not answer they stay open: it must not keep anybody from being told.
    """
    from mlflow.exceptions import MlflowException

    query = f"tags.{CYCLE} = '{run.run_id}' and attributes.status = 'RUNNING'"
    try:
        with giving_up_after(5), translated_outages(run.tracking_uri):
            client = connect(run.tracking_uri)
            experiment = client.get_experiment_by_name(run.experiment)
            places = [experiment.experiment_id] if experiment else []
            for found in client.search_runs(places, query) if places else ():
                client.set_tag(found.info.run_id, FAILURE, reason[:LONGEST_TAG])
                client.set_terminated(found.info.run_id, "FAILED")
    except (HomefeedError, MlflowException) as error:
        log.warning("the cycle's MLflow runs stay open: %s", error)
