"""Old models in MLflow: found by their registered versions, deleted through MLflow's own calls.

Only the files of *logged models* go, and MLflow only marks them as deleted: `mlflow gc`, run by
whoever keeps the server, frees the space, and until then they can be restored. Versions, their tags
and aliases, and MLflow runs with parameters, metrics and pages are never deleted here. Not for
which of them may go (`plan`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.contracts.mlflow_errors import ask_again, translated_outages
from pipelines.retention.holdings import FoundVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOGGED = "models:/m-"


def find_versions(
    client: "MlflowClient", name: str, measured_before: datetime
) -> tuple[FoundVersion, ...]:
    """Return all versions of a registered model, the oldest first.

    Args:
        client: Client of the registry.
        name: The registered model.
        measured_before: Only of older versions is it asked whether they are still there, and how
            large they are.

    Raises:
        TrackingUnavailableError: the server does not answer.
    """
    with translated_outages(client.tracking_uri):
        versions = _all_versions(client)
        mine = [each for each in versions if each.name == name]
        if not mine:
            return ()
        aliases = read_aliases(client, name)
        others: dict[str, list[str]] = {}
        for each in versions:
            if each.name != name:
                others.setdefault(_model_id(each), []).append(f"{each.name} v{each.version}")
        found = [
            _describe(client, each, aliases, others, _made_at(each) <= measured_before)
            for each in mine
        ]
    return tuple(sorted(found, key=lambda each: int(each.name)))


def read_aliases(client: "MlflowClient", name: str) -> dict[str, str]:
    """Return the version behind each alias of a registered model."""
    with translated_outages(client.tracking_uri):
        found = client.get_registered_model(name).aliases
    return {alias: str(version) for alias, version in dict(found).items()}


def mark_deleted(client: "MlflowClient", version: FoundVersion) -> None:
    """Have MLflow mark a logged model as deleted.

    Raises:
        TrackingUnavailableError: the answer was lost; the next look tells whether it is deleted.
    """
    so_far = f"whether logged model {version.model_id} is marked as deleted is not known"
    with translated_outages(client.tracking_uri, so_far):
        client.delete_logged_model(version.model_id)


def _all_versions(client: "MlflowClient") -> list[Any]:
    """Return the versions of every registered model: two of them may be one logged model."""
    found, token = [], None
    while True:
        page = client.search_model_versions(page_token=token)
        found += list(page)
        token = page.token
        if not token:
            return found


def _describe(
    client: "MlflowClient",
    version: Any,
    aliases: Mapping[str, str],
    others: Mapping[str, list[str]],
    is_measured: bool,
) -> FoundVersion:
    model_id, number, num_bytes = _model_id(version), str(version.version), 0
    if is_measured and model_id:
        location = _find_location(client, model_id)
        model_id = model_id if location else ""
        num_bytes = _size_of(location, client.tracking_uri) if location else 0
    return FoundVersion(
        name=number,
        uri=f"models:/{version.name}/{number}",
        num_bytes=num_bytes,
        changed_at=_made_at(version),
        model_id=model_id,
        run_name=version.tags.get("homefeed_run_id", ""),
        aliases=tuple(sorted(alias for alias, behind in aliases.items() if behind == number)),
        other_names=tuple(others.get(model_id, ())),
    )


def _find_location(client: "MlflowClient", model_id: str) -> str:
    """Return where a logged model's files are; '' where it was marked as deleted before."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_logged_model(model_id).artifact_location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""


def _size_of(location: str, tracking_uri: str) -> int:
    """Return the bytes below an artifact location."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(location, tracking_uri=tracking_uri)
    waiting: list[str | None] = [None]
    num_bytes = 0
    while waiting:
        place = waiting.pop()
        found = ask_again(partial(repository.list_artifacts, place))
        waiting += [entry.path for entry in found if entry.is_dir]
        num_bytes += sum(entry.file_size or 0 for entry in found if not entry.is_dir)
    return num_bytes


def _model_id(version: Any) -> str:
    """Return the id of a version's logged model; '' where its files are others, such as a run's."""
    source = str(version.source or "")
    return source.removeprefix("models:/") if source.startswith(_LOGGED) else ""


def _made_at(version: Any) -> datetime:
    return datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
