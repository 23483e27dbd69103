"""Old models in MLflow: found by their registered versions, deleted through MLflow's own calls.

Only the files of *logged models* go, and MLflow only marks them as deleted: `mlflow gc`, run by
whoever keeps the server, frees the space. MLflow has no call that takes a mark back. Versions,
their tags and aliases, and MLflow runs with parameters, metrics and pages are never deleted here,
nor a logged model that several versions are. Not for which of them may go (`plan`).
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.registry import registry
from pipelines.retention.plan import FoundVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient


def find_versions(client: "MlflowClient", name: str) -> list[FoundVersion]:
    """Return all versions of a registered model, the oldest first, of no size.

    Raises:
        TrackingUnavailableError: the server does not answer.
    """
    found: list[FoundVersion] = []
    with translated_outages(client.tracking_uri):
        groups = _by_logged_model(client)
        ours = [(id_, e, same) for id_, same in groups.items() for e in same if e.name == name]
        aliases = dict(client.get_registered_model(name).aliases) if ours else {}
        for model_id, version, same in sorted(ours, key=lambda each: int(each[1].version)):
            number = str(version.version)
            made_at = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
            is_there = model_id and registry.find_location(client, model_id)
            found.append(
                FoundVersion(
                    *("model", number, f"models:/{name}/{number}", 0, made_at),
                    model_id=model_id if is_there else "",
                    run_name=version.tags.get("homefeed_run_id", ""),
                    aliases=tuple(sorted(a for a, at in aliases.items() if str(at) == number)),
                    shared_by=tuple(
                        f"{e.name} v{e.version}" for e in same if model_id and e is not version
                    ),
                )
            )
    return found


def why_kept_by_now(client: "MlflowClient", name: str, version: FoundVersion) -> str:
    """Return what has happened to a logged model since it was found, so that it stays; or ''.

    Args:
        client: Client of the registry.
        name: The registered model that the version was found of.
        version: The logged model, by the version that was found; no other one had its files.
    """
    with translated_outages(client.tracking_uri):
        same = _by_logged_model(client).get(version.model_id, [])
        told = [f"{each.name} v{each.version}" for each in same]
        if told != [f"{name} v{version.name}"]:
            return f"it is registered as {', '.join(told) or 'nothing'} since the plan was made"
        numbers = dict(client.get_registered_model(name).aliases).values()
    is_named = version.name in map(str, numbers)
    return "an alias was given to it since the plan was made" if is_named else ""


def mark_deleted(client: "MlflowClient", version: FoundVersion) -> None:
    """Have MLflow mark a logged model as deleted.

    Raises:
        TrackingUnavailableError: the answer was lost; the next look tells whether it is deleted.
    """
    so_far = f"whether logged model {version.model_id} is marked as deleted is not known"
    with translated_outages(client.tracking_uri, so_far):
        client.delete_logged_model(version.model_id)


def _by_logged_model(client: "MlflowClient") -> dict[str, list[Any]]:
    """Return the versions of every registered model by the id of the logged model that they are.

    Those whose files are others, such as artifacts of an MLflow run, are under ''.
    """
    page = client.search_model_versions()
    versions: list[Any] = list(page)
    while page.token:
        page = client.search_model_versions(page_token=page.token)
        versions += page
    groups: dict[str, list[Any]] = {}
    for each in sorted(versions, key=lambda each: (each.name, int(each.version))):
        groups.setdefault(registry.find_logged_model(client, each), []).append(each)
    return groups
