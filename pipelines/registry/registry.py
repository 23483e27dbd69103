"""The MLflow model registry: register what was trained, read and move the `champion` alias.

This is the only module that may move an alias. Whether the champion moves is decided by the
verdict, not here. Tested in tests/pipelines/registry/test_registry.py and
test_promotion.py.
"""

import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import (
    BUNDLE_MISSING,
    DataContractError,
    TrackingEntryMissingError,
)
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.mlflow_errors import ask_again, make_once, translated_outages
from pipelines.registry import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
RULING = "ruling_digest"
"""Tag of a challenger's version: `Judgement.ruling_digest` of the cycle that judged it."""
KEEPER = "homefeed_workspace"
"""Tag of a registered model: the one workspace that keeps its history."""
_LINEAGE_TAGS = ("as_of", "bundle_digest", "snapshot_digest")
_MODEL_DIGEST = "model_digest"
ALIAS_TIMEOUT_S = 5
"""How long the answer to a request to move the alias is waited for, in seconds."""
_LOGGED = re.compile(r"models:/(m-[^/@]+)|.*/models/(m-[^/]+)/artifacts(?:/.*)?")
"""A logged model, and a place among its files."""
ROLL_BACK = "roll back to another version (`homefeed rollback --to-version N`)"
"""What a person does about files of a version that are not as registered, if it is to serve."""


def read_champion(client: "MlflowClient", name: str) -> ModelRef | None:
    """Return the version behind the `champion` alias, or None when there is no champion yet.

    Raises:
        DataContractError: the version lacks lineage tags; it was not registered by this project.
        TrackingUnavailableError: the server does not answer.
        ConfigurationError: no MLflow server answers, or it does not let this user in.
    """
    version = _find_champion(client, name)
    return to_ref(version) if version else None


def read_served(client: "MlflowClient", name: str) -> ModelRef | None:
    """Return what is behind the `champion` alias, whoever registered it, or None.

    A version of somebody else has no lineage: its digests are '', its as_of is when it was made.
    """
    version = _find_champion(client, name)
    if version is None:
        return None
    made = datetime.fromtimestamp((version.creation_timestamp or 0) / 1000, UTC)
    tags = {"as_of": made.isoformat(), "bundle_digest": "", "snapshot_digest": ""} | {
        tag: version.tags[tag] for tag in (*_LINEAGE_TAGS, _MODEL_DIGEST) if tag in version.tags
    }
    return ModelRef(
        name=name, version=str(version.version), mlflow_run_id=version.run_id or "", **tags
    )


def _find_champion(client: "MlflowClient", name: str) -> "ModelVersion | None":
    from mlflow.exceptions import RestException

    with translated_outages(client.tracking_uri):
        try:
            return client.get_model_version_by_alias(name, CHAMPION)
        except RestException as error:  # Only the server itself knows that there is none.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def read_version(client: "MlflowClient", name: str, version: str) -> ModelRef:
    """Return one registered version as a reference.

    Raises:
        TrackingEntryMissingError: it was deleted, or never was.
        TrackingUnavailableError: the server does not answer.
    """
    from mlflow.exceptions import RestException

    with translated_outages(client.tracking_uri):
        try:
            return to_ref(client.get_model_version(name, version))
        except RestException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            there = [int(v.version) for v in client.search_model_versions(f"name = '{name}'")]
    known = ", ".join(map(str, sorted(there))) or "none, for it has no versions"
    raise TrackingEntryMissingError(
        f"{name} has no version {version!r} in the registry at {client.tracking_uri}; expected one "
        f"of {known}; it was deleted or never was"
    )


def read_tags(client: "MlflowClient", model: ModelRef) -> dict[str, str]:
    """Return the tags of a registered version."""
    with translated_outages(client.tracking_uri):
        return dict(client.get_model_version(model.name, model.version).tags)


def to_ref(version: "ModelVersion") -> ModelRef:
    """Return a registry entry as a pinned reference."""
    missing = [tag for tag in _LINEAGE_TAGS if tag not in version.tags]
    if missing:
        raise DataContractError(
            f"model {version.name} v{version.version} has no tags {missing}; expected lineage "
            f"tags {list(_LINEAGE_TAGS)}; register models through this pipeline, or point the "
            f"alias at a version that has them"
        )
    return ModelRef(
        name=version.name,
        version=str(version.version),
        mlflow_run_id=version.run_id,
        model_digest=version.tags.get(_MODEL_DIGEST, ""),
        **{tag: version.tags[tag] for tag in _LINEAGE_TAGS},
    )


def register(
    client: "MlflowClient",
    run: ResolvedRun,
    mlflow_run_id: str,
    model_uri: str,
    tags: dict[str, str],
    alias: str = "challenger",
) -> ModelRef:
    """Register a logged model as a new version with an alias; once per MLflow run.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        mlflow_run_id: The run that logged the model.
        model_uri: Where `training.bundle.mlflow_model.log_bundle` put it.
        tags: Lineage; must hold bundle_digest and snapshot_digest, and model_digest where the
            files that serve were logged with the bundle.
        alias: 'challenger', or 'anchor' for the accepted recipe made fresh; it moves here.

    Returns:
        The version made now, or by the attempt before this one.
    """
    # The bundle may have been logged again, after what was logged first had been altered: the
    # version of the former logged model is then another one.
    marks = {tag: tags[tag] for tag in ("bundle_digest", _MODEL_DIGEST) if tag in tags}
    of_this_run = " and ".join(
        (
            f"name = '{run.registered_model}'",
            f"run_id = '{mlflow_run_id}'",
            *(f"tags.{tag} = '{value}'" for tag, value in marks.items()),
        )
    )
    with translated_outages(client.tracking_uri):
        ensure_registered_model(client, run.registered_model, run.workspace_uri)
        lineage = {"as_of": run.as_of.isoformat(), "code_version": run.code_version, **tags}
        version = make_once(
            lambda: next(iter(client.search_model_versions(of_this_run)), None),
            lambda: client.create_model_version(
                run.registered_model,
                source=model_uri,
                run_id=mlflow_run_id,
                tags=lineage,
                # What was logged as a model has an id, in `models:/<id>`; a path has none.
                model_id=model_uri.removeprefix("models:/") if "models:/m-" in model_uri else None,
            ),
        )
        client.set_registered_model_alias(run.registered_model, alias, version.version)
        return to_ref(version)


def ensure_registered_model(client: "MlflowClient", name: str, workspace_uri: str) -> None:
    """Make a registered model without versions, which names its one workspace, if it is not there.

    Its name is unique in MLflow, so of two workspaces that make it at once one is named.
    """
    from mlflow.exceptions import MlflowException

    said = "Homefeed ranker, retrained by homefeed_retrain."
    try:
        tags = {KEEPER: workspace_uri}
        ask_again(lambda: client.create_registered_model(name, tags, description=said))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def point_champion_at(client: "MlflowClient", model: ModelRef) -> None:
    """Point `champion` at a version, wherever it points now; only `registry.reconcile` calls this.

    Nothing can keep a request that is under way from arriving after its answer was given up.
    """
    so_far = "whether the champion moved is not known"
    with translated_outages(client.tracking_uri, so_far), tracking.giving_up_after(ALIAS_TIMEOUT_S):
        client.set_registered_model_alias(model.name, CHAMPION, model.version)


def read_keeper(client: "MlflowClient", name: str) -> str:
    """Return the URI of the workspace that keeps a registered model's history; '' if none does."""
    from mlflow.exceptions import MlflowException

    with translated_outages(client.tracking_uri):
        try:
            return str(client.get_registered_model(name).tags.get(KEEPER, ""))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return ""
            raise


def name_keeper(client: "MlflowClient", name: str, workspace_uri: str) -> None:
    """Write down in the registry which workspace keeps a registered model's history."""
    with translated_outages(client.tracking_uri):
        client.set_registered_model_tag(name, KEEPER, workspace_uri)


def tag_version(client: "MlflowClient", model: ModelRef, tags: dict[str, str]) -> None:
    """Add tags to a registered version (a verdict, say)."""
    with translated_outages(client.tracking_uri):
        for key, value in tags.items():
            client.set_model_version_tag(model.name, model.version, key, value[:5000])


def describe_version(client: "MlflowClient", model: ModelRef, markdown: str) -> None:
    """Describe a registered version, in Markdown."""
    with translated_outages(client.tracking_uri):
        client.update_model_version(model.name, model.version, description=markdown[:5000])


def logged_model_in(source: str) -> str:
    """Return the id of the logged model that a source names or lies in; '' where it is others'."""
    found = _LOGGED.fullmatch(source)
    return (found[1] or found[2]) if found else ""


def find_logged_model(client: "MlflowClient", version: "ModelVersion") -> str:
    """Return the id of the logged model that a version's files are; '' where they are others.

    The source of a copy is a version, which may be gone: where its files lie was kept with it.
    """
    source = str(version.source or "")
    if source.startswith("models:/") and not logged_model_in(source):
        source = str(client.get_model_version_download_uri(version.name, version.version))
    return logged_model_in(source)


def find_location(client: "MlflowClient", model_id: str) -> str:
    """Return where a logged model's files are; '' where it is deleted, or marked as deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_logged_model(model_id).artifact_location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""


def download_bundle(client: "MlflowClient", model: ModelRef, folder: Path) -> Path:
    """Fetch a version with its bundle into `folder` and return the bundle's own folder.

    Raises:
        HomefeedError: as `download_version` raises.
    """
    return find_bundle(model, download_version(client, model, folder))


def download_version(
    client: "MlflowClient", model: ModelRef, folder: Path, repair: str = ROLL_BACK
) -> Path:
    """Fetch all of a version's files into a new folder in `folder`, and return that.

    They are compared with what was registered: a serving process runs the code among them.

    Args:
        client: Client of the registry.
        model: The version.
        folder: Where the new folder is made.
        repair: What a person should do where the files are gone or were altered.

    Raises:
        TrackingEntryMissingError: the version was deleted.
        DataContractError: the version is there, and its files are not, or others than its tags say.
    """
    from training.bundle.logged_files import fetch

    with translated_outages(client.tracking_uri):
        source = ask_again(lambda: client.get_model_version_download_uri(model.name, model.version))
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="version-", dir=folder))
    try:
        with translated_outages(client.tracking_uri):
            is_there = fetch(source, root, client.tracking_uri)
    except TrackingEntryMissingError as error:
        raise _bundle_missing(model, f"nothing at {source}", repair) from error
    if not is_there:
        raise _bundle_missing(model, f"nothing at {source}", repair)
    require_as_registered(model, root, repair)
    return root


def find_bundle(model: ModelRef, root: Path, repair: str = ROLL_BACK) -> Path:
    """Return the folder of a version's bundle among its files.

    Raises:
        DataContractError: there is none, or more than one.
    """
    found = sorted(root.rglob("bundle.json"))
    if len(found) != 1:
        raise _bundle_missing(model, f"{len(found)} bundle.json files among its files", repair)
    return found[0].parent


def require_as_registered(model: ModelRef, root: Path, repair: str = ROLL_BACK) -> None:
    """Refuse files that are not those of a version.

    Raises:
        DataContractError: there is no bundle among them, or they are others than its tags say.
    """
    _require_digest(model, "bundle", find_bundle(model, root, repair), model.bundle_digest, repair)
    if model.model_digest:  # Older versions have none.
        what = "model with its serving code"
        _require_digest(model, what, root, model.model_digest, repair)


def require_bundle(model: ModelRef, bundle_dir: Path, repair: str) -> None:
    """Refuse a bundle that is not the one of a version, wherever it lies.

    Args:
        model: The version.
        bundle_dir: Folder of the bundle.
        repair: What a person does about another bundle in that place.

    Raises:
        DataContractError: its digest is not that of the version.
    """
    what = f"bundle in {bundle_dir}"
    _require_digest(model, what, bundle_dir, model.bundle_digest, repair)


def _require_digest(model: ModelRef, what: str, folder: Path, registered: str, repair: str) -> None:
    digest = digest_of_files(digest_files(folder))
    if digest != registered:
        raise DataContractError(
            f"{model.label}: the digest of its {what} is {digest[:12]}, its tag says "
            f"{registered[:12]}; expected the same: the files were altered after registration; "
            f"{repair}"
        )


def _bundle_missing(model: ModelRef, found: str, repair: str) -> DataContractError:
    return DataContractError(
        f"{model.label}: found {found}, expected its bundle with one bundle.json; the version's "
        f"files were deleted or altered in MLflow's artifact store; put them back, or {repair}",
        kind=BUNDLE_MISSING,
    )
