"""Old models in MLflow: found by their registered versions, deleted through MLflow's own calls.

Only the files of *logged models* go, and MLflow only marks them as deleted: `mlflow gc`, run by
whoever keeps the server, frees the space. MLflow has no call that takes a mark back. Several
versions, of one registered model or of several, may be one logged model: they are told together.
Versions, their tags and aliases, and MLflow runs with parameters, metrics and pages are never
deleted here. Not for which of them may go (`plan`).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.contracts.mlflow_errors import ask_again, translated_outages
from pipelines.registry import registry
from pipelines.retention.plan import FoundVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

_VERSION = re.compile(r"models:/([^/@]+)/(\d+)")
"""The source of a version that was copied from another one."""


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
        groups = _by_logged_model(client)
        mine = [
            (model_id, each)
            for model_id, versions in groups.items()
            for each in versions
            if each.name == name
        ]
        if not mine:
            return ()
        aliases = read_aliases(client, name)
        found = []
        for model_id, each in mine:
            same = [other for other in groups[model_id] if model_id and other is not each]
            is_measured = _made_at(each) <= measured_before
            found.append(_describe(client, (model_id, each), same, aliases, is_measured))
    return tuple(sorted(found, key=lambda each: int(each.name)))


def read_aliases(client: "MlflowClient", name: str) -> dict[str, str]:
    """Return the version behind each alias of a registered model."""
    with translated_outages(client.tracking_uri):
        found = client.get_registered_model(name).aliases
    return {alias: str(version) for alias, version in dict(found).items()}


def why_kept_by_now(client: "MlflowClient", name: str, version: FoundVersion) -> str:
    """Return what has happened to a logged model since it was found, so that it stays; or ''.

    Args:
        client: Client of the registry.
        name: The registered model that the version was found of.
        version: The logged model, by the version that was found.
    """
    with translated_outages(client.tracking_uri):
        found = _by_logged_model(client).get(version.model_id, [])
        same = {(each.name, str(each.version)) for each in found}
        for each in sorted({each.name for each in found}):
            behind = read_aliases(client, each).values()
            if any((each, number) in same for number in behind):
                return "an alias was given to it since the plan was made"
    new = same - {(name, number) for number in (version.name, *version.twins)}
    if new:
        told = ", ".join(f"{each} v{number}" for each, number in sorted(new))
        return f"it was registered as {told} too since the plan was made"
    return ""


def mark_deleted(client: "MlflowClient", version: FoundVersion) -> None:
    """Have MLflow mark a logged model as deleted.

    Raises:
        TrackingUnavailableError: the answer was lost; the next look tells whether it is deleted.
    """
    so_far = f"whether logged model {version.model_id} is marked as deleted is not known"
    with translated_outages(client.tracking_uri, so_far):
        client.delete_logged_model(version.model_id)


def _all_versions(client: "MlflowClient") -> list[Any]:
    """Return the versions of every registered model, by name and number."""
    found, token = [], None
    while True:
        page = client.search_model_versions(page_token=token)
        found += list(page)
        token = page.token
        if not token:
            return sorted(found, key=lambda each: (each.name, int(each.version)))


def _by_logged_model(client: "MlflowClient") -> dict[str, list[Any]]:
    """Return the versions of every registered model by the id of the logged model that they are.

    Those whose files are others, such as artifacts of an MLflow run, are under ''.
    """
    versions = _all_versions(client)
    known = {(each.name, str(each.version)): each for each in versions}
    groups: dict[str, list[Any]] = {}
    for each in versions:
        groups.setdefault(_find_logged_model(client, each, known), []).append(each)
    return groups


def _find_logged_model(
    client: "MlflowClient", version: Any, known: Mapping[tuple[str, str], Any]
) -> str:
    """Return the id of the logged model that a version is, also by way of those it was copied from.

    Where a registered model was deleted and made anew, so are its numbers: what is younger than its
    copy is not what was copied. Then the registry is asked, which keeps where the copy's files lie.
    """
    origin = version
    while copied := _VERSION.fullmatch(str(origin.source or "")):
        before = known.get((copied[1], copied[2]))
        if before is None or before.creation_timestamp >= origin.creation_timestamp:
            return registry.find_logged_model(client, version)
        origin = before
    return registry.logged_model_in(str(origin.source or ""))


def _describe(
    client: "MlflowClient",
    identified: tuple[str, Any],
    same: Sequence[Any],
    aliases: Mapping[str, str],
    is_measured: bool,
) -> FoundVersion:
    """Return a version with what else is the same logged model."""
    model_id, version = identified
    number, num_bytes = str(version.version), 0
    if is_measured and model_id:
        location = registry.find_location(client, model_id)
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
        twins=tuple(str(each.version) for each in same if each.name == version.name),
        other_names=tuple(f"{e.name} v{e.version}" for e in same if e.name != version.name),
    )


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


def _made_at(version: Any) -> datetime:
    return datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
