"""The MLflow model registry: register what was trained, read and move the `champion` alias.

This is the only module that may move an alias. Whether the champion moves is decided by the
verdict, not here.
"""

import contextlib
import re
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import (
    BUNDLE_MISSING,
    DataContractError,
    PromotionRefusedError,
    TrackingEntryMissingError,
)
from pipelines.contracts.files import digest_files, digest_of_files, own_temporary_folder
from pipelines.contracts.mlflow_errors import ask_again, make_once, translated_outages
from pipelines.registry import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
KEEPER = "homefeed_workspace"
"""Tag of a registered model: the one workspace that keeps its history."""
_LINEAGE_TAGS = ("as_of", "bundle_digest", "snapshot_digest")
_TAGS = (*_LINEAGE_TAGS, "model_digest")
ALIAS_TIMEOUT_S = 5
"""How long the answer to a request to move the alias is waited for, in seconds."""
_LOGGED = re.compile(r"models:/(m-[^/@]+)|.*/models/(m-[^/]+)/artifacts(?:/.*)?")
"""A logged model, and a place among its files."""
ROLL_BACK = "roll back to another version (`homefeed rollback --to-version N`)"
"""What a person does about files of a version that are not as registered, if it is to serve."""


def _answer(client: "MlflowClient", ask: Callable[[], Any]) -> Any:
    """Return the registry's answer about one thing; None where it says that there is none.

    Only the server itself may say so, and not what stands before it. A store in a file answers by
    itself.
    """
    from mlflow.exceptions import MlflowException, RestException

    with translated_outages(client.tracking_uri):
        try:
            return ask()
        except MlflowException as error:
            is_told = isinstance(error, RestException) or not client.tracking_uri.startswith("http")
            absent = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
            if is_told and error.error_code in absent:
                return None
            raise


def read_champion(
    client: "MlflowClient", name: str, is_ours: bool = True, alias: str = CHAMPION
) -> ModelRef | None:
    """Return the version behind the `champion` or another alias, or None where there is none yet.

    One of somebody else, which has no lineage, is taken too unless it is to be one of ours: its
    digests are '', its as_of is when it was made.

    Raises:
        DataContractError: the version was not registered by this project.
        TrackingUnavailableError: the server does not answer.
        ConfigurationError: no MLflow server answers, or it does not let this user in.
    """
    version = _answer(client, lambda: client.get_model_version_by_alias(name, alias))
    return to_ref(version, is_ours) if version else None


def to_ref(version: "ModelVersion", is_ours: bool = True) -> ModelRef:
    """Return a registry entry as a pinned reference.

    Raises:
        DataContractError: it has no lineage that can be used, and is to be one of ours.
    """
    made = datetime.fromtimestamp((version.creation_timestamp or 0) / 1000, UTC)
    known = {"name": version.name, "version": str(version.version)}
    known |= {"mlflow_run_id": version.run_id or "", "as_of": made.isoformat()}
    known |= dict.fromkeys(_LINEAGE_TAGS[1:], "")
    tags = {name: tag for name, tag in version.tags.items() if name in _TAGS}
    try:
        if not is_ours or all(map(tags.get, _LINEAGE_TAGS)):
            return ModelRef.model_validate(known | tags)
    except ValidationError:
        if not is_ours:
            return ModelRef.model_validate(known)
    raise DataContractError(
        f"model {version.name} v{version.version} has the lineage tags {tags}; expected "
        f"{list(_LINEAGE_TAGS)}, a time and digests; register models through this pipeline, or "
        f"point the alias at a version that has them"
    )


def read_version(client: "MlflowClient", name: str, version: str) -> ModelRef:
    """Return one registered version as a reference.

    Raises:
        TrackingEntryMissingError: it was deleted, or never was.
        TrackingUnavailableError: the server does not answer.
    """
    found = _answer(client, lambda: client.get_model_version(name, version))
    if found is not None:
        return to_ref(found)
    raise TrackingEntryMissingError(
        f"{name} has no version {version!r} in the registry at {client.tracking_uri}; expected one "
        f"that is there; it was deleted or never was; name one of those that served (`homefeed "
        f"history`)"
    )


def read_versions(client: "MlflowClient", name: str) -> list[ModelRef]:
    """Return all versions that this project has registered of a model, the newest first.

    Raises:
        TrackingUnavailableError: the server does not answer.
    """
    found, token = list[ModelRef](), ""
    while True:
        with translated_outages(client.tracking_uri):
            page = client.search_model_versions(f"name = '{name}'", page_token=token or None)
        found += [to_ref(each) for each in page if {*_LINEAGE_TAGS} <= {*each.tags}]
        if not (token := page.token):
            return sorted(found, key=lambda ref: int(ref.version), reverse=True)


def register(
    client: "MlflowClient",
    run: ResolvedRun,
    mlflow_run_id: str,
    model_uri: str,
    tags: dict[str, str],
    alias: str = "challenger",
) -> ModelRef:
    """Register a logged model as a new version with an alias, or find it; once per MLflow run.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        mlflow_run_id: The run that logged the model.
        model_uri: Where `training.bundle.mlflow_model.log_bundle` put it.
        tags: Lineage; must hold bundle_digest and snapshot_digest, and model_digest where the
            files that serve were logged with the bundle.
        alias: 'challenger', or 'anchor' for the accepted recipe made fresh; it moves here.
    """
    # The bundle may have been logged again, after what was logged first had been altered: the
    # version of the former logged model is then another one.
    name, marks = run.registered_model, ("bundle_digest", "model_digest")
    mine = [f"tags.{tag} = '{tags[tag]}'" for tag in marks if tag in tags]
    query = " and ".join((f"name = '{name}'", f"run_id = '{mlflow_run_id}'", *mine))
    with translated_outages(client.tracking_uri):
        ensure_registered_model(client, name, run.workspace_uri)
        version = make_once(
            lambda: next(iter(client.search_model_versions(query)), None),
            lambda: client.create_model_version(
                name,
                source=model_uri,
                run_id=mlflow_run_id,
                tags={"as_of": run.as_of.isoformat(), **tags},
                # What was logged as a model has an id, in `models:/<id>`; a path has none.
                model_id=model_uri.removeprefix("models:/") if "models:/m-" in model_uri else None,
            ),
        )
        client.set_registered_model_alias(name, alias, version.version)
        return to_ref(version)


def ensure_registered_model(client: "MlflowClient", name: str, workspace_uri: str) -> None:
    """Make a registered model without versions, which names its one workspace, if it is not there.

    Its name is unique in MLflow, so of two workspaces that make it at once one is named.
    """
    tags, said = {KEEPER: workspace_uri}, "Homefeed ranker, retrained by homefeed_retrain."
    tracking.make_unless_there(lambda: client.create_registered_model(name, tags, description=said))


def point_champion_at(client: "MlflowClient", model: ModelRef) -> None:
    """Point `champion` at a version, wherever it points now; only `registry.reconcile` calls this.

    Nothing can keep a request that is under way from arriving after its answer was given up.
    """
    so_far = "whether the champion moved is not known"
    with translated_outages(client.tracking_uri, so_far), tracking.giving_up_after(ALIAS_TIMEOUT_S):
        client.set_registered_model_alias(model.name, CHAMPION, model.version)


def read_keeper(client: "MlflowClient", name: str) -> str | None:
    """Return the URI of the workspace that keeps a model's history; '' none, None no model yet."""
    found = _answer(client, lambda: client.get_registered_model(name))
    return str(found.tags.get(KEEPER, "")) if found else None


def tag_version(
    client: "MlflowClient", model: ModelRef, tags: dict[str, str], description: str = ""
) -> None:
    """Add tags (a verdict, say) to a registered version, and describe it in Markdown."""
    name, longest = model.name, tracking.LONGEST_TAG
    with translated_outages(client.tracking_uri):
        for key, value in tags.items():
            client.set_model_version_tag(name, model.version, key, value[:longest])
        if description:
            client.update_model_version(name, model.version, description=description[:longest])


def find_logged_model(client: "MlflowClient", version: "ModelVersion") -> str:
    """Return the id of the logged model that a version's files are; '' where they are others.

    The source of a copy is a version, which may be gone: where its files lie was kept with it.
    """
    found = _LOGGED.fullmatch(source := str(version.source or ""))
    if found is None and source.startswith("models:/"):
        source = str(client.get_model_version_download_uri(version.name, version.version))
        found = _LOGGED.fullmatch(source)
    return (found[1] or found[2]) if found else ""


def find_location(client: "MlflowClient", model_id: str) -> str:
    """Return where a logged model's files are; '' where it is deleted, or marked as deleted."""
    found = _answer(client, lambda: client.get_logged_model(model_id))
    return str(found.artifact_location) if found else ""


def download_bundle(client: "MlflowClient", model: ModelRef, folder: Path) -> Path:
    """Fetch a version as `download_version` does, and return its bundle's own folder."""
    return next(download_version(client, model, folder).rglob("bundle.json")).parent


def download_version(
    client: "MlflowClient", model: ModelRef, folder: Path, repair: str = ROLL_BACK
) -> Path:
    """Fetch all of a version's files into a new folder in `folder`, and return that.

    They are compared with what was registered: a serving process runs the code among them. Where
    they are gone or were altered, `repair` is what a person should do.

    Raises:
        TrackingEntryMissingError: the version was deleted.
        DataContractError: the version's files are gone (kind `BUNDLE_MISSING`), or are others than
            its tags say.
    """
    from training.bundle.mlflow_model import fetch

    with translated_outages(client.tracking_uri):
        source = ask_again(lambda: client.get_model_version_download_uri(model.name, model.version))
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="version-", dir=folder))
    with contextlib.suppress(TrackingEntryMissingError), translated_outages(client.tracking_uri):
        fetch(source, root, client.tracking_uri)
    found = sorted(root.rglob("bundle.json"))
    if len(found) != 1:
        raise DataContractError(
            f"{model.label}: found {len(found)} bundle.json files among its files, expected its "
            f"bundle with one; the version's files were deleted or altered in MLflow's artifact "
            f"store; put them back, or {repair}",
            kind=BUNDLE_MISSING,
        )
    require_digest(model, "bundle", found[0].parent, repair)
    if model.model_digest:
        require_digest(model, "model with its serving code", root, repair)
    return root


def require_unaltered(client: "MlflowClient", known: ModelRef, can_serve: bool = False) -> None:
    """Refuse a version that is not what was judged or recorded: a verdict is about its digests.

    With `can_serve` its example rows must get their scores here too.

    Raises:
        PromotionRefusedError: the registry says that the version is another model.
        DataContractError: its files are others, marked as deleted, or do not score as they did.
    """
    found = read_version(client, known.name, known.version)
    if found != known:
        then, now = (
            f"bundle {each.bundle_digest[:12]} and model {each.model_digest[:12] or 'unknown'} "
            f"(as_of {each.as_of:%Y-%m-%d}, MLflow run {each.mlflow_run_id})"
            for each in (known, found)
        )
        raise PromotionRefusedError(
            f"{known.label} is on record with {then}; found {now} at that version in the registry; "
            f"expected the same: its tags were altered since; nothing was moved; start a new "
            f"cycle, or {ROLL_BACK}; where it was decided already, name what shall serve: "
            f"`homefeed history repair --to-version N`"
        )
    require_not_deleted(client, known)
    # Off the workspace's disk: a full one keeps nobody from going back.
    with storage.scratch_folder(own_temporary_folder("scratch").as_uri()) as scratch:
        bundle = download_bundle(client, known, scratch)
        if not can_serve:
            return
        from training.bundle.files import load_bundle

        try:
            load_bundle(bundle)
        except DataContractError as error:
            raise DataContractError(
                f"{known.label} cannot serve, so the champion stays: {error}; {ROLL_BACK}"
            ) from error


def require_not_deleted(client: "MlflowClient", model: ModelRef) -> None:
    """Refuse to make a version champion whose logged model is marked as deleted.

    Its files may be there, so that they could be fetched, until `mlflow gc` erases them.

    Raises:
        DataContractError: it is marked, or erased already.
    """
    with translated_outages(client.tracking_uri):
        version = client.get_model_version(model.name, model.version)
        model_id = find_logged_model(client, version)  # Others' files are not looked for.
    if not model_id or find_location(client, model_id):
        return
    raise DataContractError(
        f"{model.label} cannot become champion: its logged model {model_id} is marked as deleted "
        f"in MLflow at {client.tracking_uri}, or erased; expected one that is there, because "
        f"`mlflow gc` erases the files of a marked one; nothing was moved; MLflow has no call that "
        f"takes the mark back, so count it as gone; {ROLL_BACK}, or start a new cycle",
        kind=BUNDLE_MISSING,
    )


def require_digest(model: ModelRef, what: str, folder: Path, repair: str = ROLL_BACK) -> None:
    """Refuse files that are not those of a version, wherever they lie.

    Args:
        model: The version.
        what: 'bundle', or 'model with its serving code', which the folder holds.
        folder: The files.
        repair: What a person does about other files in that place.

    Raises:
        DataContractError: their digest is not that of the version.
    """
    registered = model.bundle_digest if what == "bundle" else model.model_digest
    if (digest := digest_of_files(digest_files(folder))) != registered:
        raise DataContractError(
            f"{model.label}: the digest of its {what} in {folder} is {digest[:12]}, its tag says "
            f"{registered[:12]}; expected the same: the files were altered after registration; "
            f"{repair}"
        )
