"""A reproduction's own MLflow store: one file, no server, and the numbers of the original registry.

    <folder>/registry/reproduction.db    runs and model versions
    <folder>/registry/artifacts/         what MLflow keeps of them

Models get the numbers that they have in the original registry, because numbers stand in sentences
that are compared. What is not rebuilt keeps its number as an empty version that says so. The
original registry is asked for the champion's files, and for nothing else.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.registry import registry, tracking
from pipelines.reproduction.scratch import Scratch

if TYPE_CHECKING:
    from mlflow import MlflowClient

_REPAIR = "rebuild what needs no champion: give --until train_anchor"
_EMPTY = "Not rebuilt. It keeps the numbers of the versions as they are in the original registry."


@contextlib.contextmanager
def own_registry(scratch: Scratch) -> Iterator["MlflowClient"]:
    """Make the registry, or find it, and have MLflow use it for the time being.

    MLflow's store in a file asks the process's own address where a logged model lies, and not the
    one that its client was given.
    """
    uri = scratch.run.tracking_uri
    with tracking.address_of_process(uri):
        _make_store(scratch)
        client = tracking.connect(uri)
        _make_experiment(client, scratch)
        with translated_outages(uri):
            run = scratch.run
            registry.ensure_registered_model(client, run.registered_model, run.workspace_uri)
        _add_champion(client, scratch)
        yield client


def keep_numbers_below(client: "MlflowClient", name: str, version: int | None) -> None:
    """Make empty versions, so that the next one gets its number, if that is not taken already.

    Args:
        client: Client of the own registry.
        name: The registered model.
        version: The number to be had; None for any.
    """
    if version is None:
        return
    for _ in range(_newest(client, name) + 1, version):
        with translated_outages(client.tracking_uri):
            client.create_model_version(name, source="file:///nowhere", description=_EMPTY)


def _newest(client: "MlflowClient", name: str) -> int:
    with translated_outages(client.tracking_uri):
        found = client.search_model_versions(f"name = '{name}'")
    return max((int(each.version) for each in found), default=0)


def fetch_champion(original: ResolvedRun, scratch: Scratch) -> None:
    """Fetch the champion's files from the original registry, which is only read.

    Raises:
        TrackingUnavailableError: the original registry does not answer.
        TrackingEntryMissingError: the champion's version was deleted.
        DataContractError: its files are gone, or are not those that the record names.
    """
    champion = original.champion
    if champion is None or _is_fetched(scratch, champion):
        return
    client = tracking.connect(original.tracking_uri)
    registry.read_version(client, champion.name, champion.version)
    with storage.scratch_folder(storage.to_uri(scratch.folder)) as folder:
        found = registry.download_version(client, champion, folder, _REPAIR)
        storage.publish_folder(found, storage.to_uri(scratch.champion))


def _is_fetched(scratch: Scratch, champion: ModelRef) -> bool:
    if not scratch.champion.exists():
        return False
    try:
        registry.require_as_registered(champion, scratch.champion)
    except DataContractError:
        return False
    return True


def _make_store(scratch: Scratch) -> None:
    """Make the store's file under another name first: one that was begun is of no use."""
    store = scratch.registry / tracking.OWN_REGISTRY
    if store.exists():
        return
    from mlflow import MlflowClient

    with storage.translated_errors(str(store), "making"):
        scratch.registry.mkdir(parents=True, exist_ok=True)
        begun = store.with_suffix(".begun")
        begun.unlink(missing_ok=True)
    with translated_outages(scratch.run.tracking_uri):
        MlflowClient(tracking_uri=f"sqlite:///{begun}").search_experiments(max_results=1)
    with storage.translated_errors(str(store), "making"):
        begun.rename(store)


def _make_experiment(client: "MlflowClient", scratch: Scratch) -> None:
    """Make the experiment, whose artifacts lie in the folder."""
    name, place = scratch.run.experiment, scratch.registry / "artifacts"
    with translated_outages(client.tracking_uri):
        if client.get_experiment_by_name(name) is None:
            client.create_experiment(name, artifact_location=place.as_uri())


def _add_champion(client: "MlflowClient", scratch: Scratch) -> None:
    """Add the champion under its own number; its files come when the comparison needs them."""
    champion = scratch.run.champion
    if champion is None:
        return
    number = int(champion.version)
    keep_numbers_below(client, champion.name, number)
    if _newest(client, champion.name) >= number:
        return
    tags = {
        "as_of": champion.as_of.isoformat(),
        "bundle_digest": champion.bundle_digest,
        "snapshot_digest": champion.snapshot_digest,
        "model_digest": champion.model_digest,
    }
    with translated_outages(client.tracking_uri):
        client.create_model_version(champion.name, scratch.champion.as_uri(), tags=tags)
