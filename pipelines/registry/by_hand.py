"""What people do to the champion: take it back, or promote a challenger in spite of its verdict.

A command that was killed, or whose answer was lost, is finished by the same command: it finds its
intent on record, and begins nothing anew. Not for what a cycle does
(`pipelines.registry.promotion`).
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, ModelRef, ResolvedRun
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.registry import anchor, history, moves, registry
from pipelines.registry.history import History, HistoryEntry, Kind, Move
from pipelines.registry.promotion import require_not_deleted, require_unaltered
from pipelines.registry.reconcile import require_own, require_workspace
from pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


def force(
    client: "MlflowClient", run: ResolvedRun, challenger: Challenger, now: datetime, reason: str
) -> HistoryEntry:
    """Make a run's challenger champion in spite of its verdict, because a person says so.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        challenger: What it trained.
        now: The time of the move.
        reason: Why, in a sentence, for the history and the alert.

    Returns:
        The move, or the earlier one by which the challenger was promoted by hand already.

    Raises:
        ConfigurationError: there is no reason, or the challenger serves already.
        PromotionRefusedError: the registry's version is not what the cycle trained.
        RecordDisagreesError: the alias is not where the history says.
    """
    model, place = challenger.model, run.workspace_uri
    if not reason.strip():
        raise ConfigurationError(
            "--reason is empty; expected a sentence that says why the verdict is overruled"
        )
    with history.promotion_lock(place):
        move = _begun_before(place, model.name, "forced", model.version)
        if move is not None and not moves.has_moved(client, move):
            # It may have been altered since the command was first given.
            require_unaltered(client, place, move.intent.entry.model)
        if move is None:
            known = _settled(client, place, model.name, now)
            require_unaltered(client, place, model)
            present = registry.read_champion(client, model.name)
            last = known.last
            serves = present is not None and present.version == model.version
            if serves and last is not None and last.kind == "forced" and last.model == model:
                anchor.release_forced(place, run, now, last.reason)
                return last
            if serves:
                raise ConfigurationError(
                    f"{model.label} is the champion already; nothing was moved"
                )
            recipe = run.config.recipe_ref
            move = _begin(place, known, "forced", (present, model), now, reason, recipe)
        entry = moves.carry_out(client, move, now)
        anchor.release_forced(place, run, now, reason)
        return entry


def rollback(
    client: "MlflowClient",
    settings: Settings,
    to_version: str | None,
    now: datetime,
    reason: str,
    from_version: str | None = None,
) -> HistoryEntry:
    """Point `champion` back at an earlier version: the one before the present, or a named one.

    The version is fetched, and must give its golden rows their scores, before anything is moved.
    Where the last move was a rollback already, nothing is moved unless a version is named: a
    command that is given twice, because its answer was lost, must not walk from version to version.

    Args:
        client: Client of the tracking server.
        settings: Where workspace and registry are.
        to_version: What shall serve; None: what served before the present champion.
        now: The time.
        reason: Why, in a sentence.
        from_version: What is to be taken down; another version that serves is left alone.

    Returns:
        The move, or the earlier one by which the champion was taken back already.

    Raises:
        ConfigurationError: there is nothing to go back to, or the version serves already.
        DataContractError: the version's files are missing, altered, marked as deleted in MLflow, or
            do not score as they did.
        RecordDisagreesError: the alias is not where the history says.
        TrackingUnavailableError: MLflow does not answer; the message says what was moved.
    """
    place, name = storage.to_uri(settings.workspace_location), settings.registered_model
    require_workspace(place)
    with history.promotion_lock(place):
        move = _begun_before(place, name, "rollback", to_version, from_version)
        if move is not None and not moves.has_moved(client, move):
            wanted = move.intent.entry.model
            found = registry.read_version(client, name, wanted.version)
            _require_fit(client, place, found, [wanted])
        if move is None:
            known = _settled(client, place, name, now)
            present = registry.read_champion(client, name)
            if present is None:
                raise ConfigurationError(f"{name} has no champion; there is nothing to roll back")
            if _is_back_already(known, present, to_version, from_version):
                return known.entries[-1][1]
            model = registry.read_version(
                client, name, to_version or _version_before(known, present)
            )
            if model.version == present.version:
                raise ConfigurationError(
                    f"{model.label} is the champion already; name another version"
                )
            served = [entry.model for _, entry in known.entries]
            _require_fit(client, place, model, served)
            move = _begin(place, known, "rollback", (present, model), now, reason)
        _note_recipes(client, place, move)
        return moves.carry_out(client, move, now)


def _begun_before(
    workspace_uri: str, name: str, kind: Kind, version: str | None, away: str | None = None
) -> Move | None:
    """Return the pending intent that an earlier call of the same command has left, or None."""
    move = history.load(workspace_uri, name).pending
    if move is None or move.intent.entry.kind != kind:
        return None
    entry = move.intent.entry
    if version not in (None, entry.model.version):
        return None
    if away not in (None, entry.previous and entry.previous.version):
        return None
    log.info("going on with what was begun at %s", entry.moved_at)
    return move


def _settled(client: "MlflowClient", workspace_uri: str, name: str, now: datetime) -> History:
    """Return the history with nothing pending, in agreement with the alias."""
    moves.settle_others(client, workspace_uri, name, now, "a person moved the champion by hand")
    return require_own(client, workspace_uri, name).history


def _begin(
    workspace_uri: str,
    known: History,
    kind: Kind,
    pair: tuple[ModelRef | None, ModelRef],
    now: datetime,
    reason: str,
    recipe: RecipeRef | None = None,
) -> Move:
    previous, model = pair
    entry = HistoryEntry(
        moved_at=now,
        kind=kind,
        model=model,
        previous=previous,
        run_uri=None,
        recipe=recipe,
        reason=reason,
    )
    return history.begin(workspace_uri, known, entry)


def _is_back_already(
    known: History, present: ModelRef, target: str | None, away: str | None
) -> bool:
    """Return whether the last move was the rollback that is asked for.

    Raises:
        ConfigurationError: what is to be taken down does not serve, and was not taken down last.
    """
    last = known.last
    is_last = last is not None and last.model.version == present.version
    if is_last and last is not None and last.kind == "rollback" and last.previous is not None:
        is_down = away in (None, last.previous.version)
        if is_down and target in (None, last.model.version):
            return True
    if away not in (None, present.version):
        raise ConfigurationError(
            f"{present.label} serves, and not v{away}, which was to be taken down; nothing was "
            f"moved; see `homefeed history`, and leave out --from-version to go back all the same"
        )
    return False


def _require_fit(
    client: "MlflowClient", workspace_uri: str, model: ModelRef, on_record: Sequence[ModelRef]
) -> None:
    """Refuse to go back to a version that was altered or deleted since, or that cannot serve.

    A rollback that is carried on is asked this again: time has passed since it was begun.

    Raises:
        DataContractError: it is one of these; nothing was moved.
    """
    _require_as_recorded(on_record, model)
    require_not_deleted(client, model)
    _require_servable(client, workspace_uri, model)


def _require_as_recorded(on_record: Sequence[ModelRef], model: ModelRef) -> None:
    """Refuse a version whose tags are not those that the history keeps of it.

    Its files are compared with the tags, so whoever may alter both could bring back anything.

    Raises:
        DataContractError: the tags were altered since the version was recorded.
    """
    recorded = [each for each in on_record if each.version == model.version]
    # What was no version of this project when it was recorded has no digests.
    if recorded and recorded[-1].bundle_digest and recorded[-1] != model:
        raise DataContractError(
            f"{model.label} is on record with bundle {recorded[-1].bundle_digest[:12]} and model "
            f"{recorded[-1].model_digest[:12] or 'unknown'}; found bundle "
            f"{model.bundle_digest[:12]} and model {model.model_digest[:12] or 'unknown'} in its "
            f"tags; expected the same, so the champion stays; name another version with "
            f"--to-version"
        )


def _require_servable(client: "MlflowClient", workspace_uri: str, model: ModelRef) -> None:
    """Refuse a version whose bundle is missing or altered, or does not score as it did.

    Raises:
        DataContractError: it is one of these; nothing was moved.
    """
    from training.bundle.files import load_bundle

    with storage.scratch_folder(workspace_uri) as scratch:
        try:
            load_bundle(registry.download_bundle(client, model, scratch))
        except DataContractError as error:
            raise DataContractError(
                f"{model.label} cannot serve, so the champion stays: {error}; name another version "
                f"with --to-version"
            ) from error


def _note_recipes(client: "MlflowClient", workspace_uri: str, move: Move) -> None:
    """Record which recipe is accepted again and which one is on hold; once for each rollback.

    This comes before the alias moves: were the process killed in between, challengers would be
    held to the older recipe, which is the safe side.
    """
    entry = move.intent.entry
    assert entry.previous is not None  # A rollback takes a champion down.
    away = (entry.previous, _recipe_or_none(client, workspace_uri, entry.previous))
    recipe = _recipe_or_none(client, workspace_uri, entry.model)
    anchor.after_rollback(workspace_uri, recipe, away, entry.moved_at, entry.reason)


def _recipe_or_none(
    client: "MlflowClient", workspace_uri: str, model: ModelRef
) -> anchor.Recipe | None:
    """Return what made a model, or None: a rollback must not wait for what cannot be read."""
    try:
        return anchor.recipe_of_model(workspace_uri, model, registry.read_tags(client, model))
    except ConfigurationError as error:
        log.warning("%s", error)
        return None


def _version_before(known: History, present: ModelRef) -> str:
    """Return the version that served before the present one came.

    Only what the history says has served counts: what a hand had put behind the alias for a while
    was never accepted. The move by which the present one came back by a rollback is passed over.
    """
    entries = [entry for _, entry in known.entries]
    for place in range(len(entries) - 1, -1, -1):
        entry = entries[place]
        before = entries[place - 1].model if place else entry.previous
        has_come = entry.model.version == present.version and entry.kind != "rollback"
        if has_come and before is not None and before.version != present.version:
            return before.version
    if known.is_newest_damaged and known.last is not None:
        return known.last.model.version
    raise ConfigurationError(
        f"the history knows no champion before {present.label}; name one with --to-version"
    )
