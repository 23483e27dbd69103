"""What is on record about recipes when a cycle begins; `resolve_run` fixes it for the cycle.

A champion of a workspace that kept no such record yet becomes the anchor with its own recipe, which
is written down, so that it stays the anchor when another model serves. Tested in
tests/pipelines/registry/test_anchor.py.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.contracts.artifacts import ModelRef, PinnedFile, Standing
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.registry import anchor, evidence, history, registry
from pipelines.registry.seed_noise import measured_deviation

if TYPE_CHECKING:
    from mlflow import MlflowClient


def find_standing(
    client: "MlflowClient",
    workspace_uri: str,
    champion: ModelRef | None,
    registered_model: str,
    config: RunConfig,
    judged_before: tuple[PinnedFile, ...],
) -> Standing:
    """Return the accepted recipe, what is on hold, and since when the champion serves.

    Args:
        client: Client of the tracking server.
        workspace_uri: The workspace.
        champion: The model that serves now, or None.
        registered_model: Its name in the registry.
        config: The run's configuration.
        judged_before: Records of judged cycles, pinned.
    """
    accepted, code, problem = None, "", ""
    entry = anchor.present(workspace_uri, registered_model)
    try:
        if entry is None and champion is not None:
            entry = _adopt(client, workspace_uri, champion)
        if entry is not None:
            accepted, code = _parse(entry)
    except ConfigurationError as error:
        problem = f"A model serves and the accepted recipe is not known: {error}."
    moves = [move for _, move in history.read(workspace_uri, registered_model)]
    since = moves[-1].moved_at if moves else None
    return Standing(
        anchor=accepted,
        anchor_code_digest=code,
        problem=problem,
        hold=_why_held(entry, config),
        seed_noise=measured_deviation(
            workspace_uri, config.recipe_digest, config.model_gate.target_metric
        ),
        unpromoted=evidence.unpromoted_days(evidence.read(judged_before), since),
        champion_since=since,
        rolled_back_at=_last_rollback(workspace_uri, registered_model, moves),
    )


def _last_rollback(
    workspace_uri: str, registered_model: str, moves: Sequence[history.HistoryEntry]
) -> datetime | None:
    """Return when a rollback was last begun; one that was killed is in the anchor's record only."""
    found = [move.moved_at for move in moves if move.kind == "rollback"]
    entries = anchor.read(workspace_uri, registered_model)
    found += [entry.set_at for entry in entries if entry.kind == "rollback"]
    return max(found, default=None)


def _adopt(client: "MlflowClient", workspace_uri: str, champion: ModelRef) -> anchor.AnchorEntry:
    """Make the recipe of a champion of before the record was kept the accepted one."""
    tags = registry.read_tags(client, champion)
    entry = anchor.AnchorEntry(
        set_at=datetime.now(UTC),
        kind="adopted",
        registered_model=champion.name,
        recipe=anchor.recipe_of_model(workspace_uri, champion, tags),
        run_uri=None,
        reason=f"{champion.label} was serving when this record began.",
    )
    with history.promotion_lock(workspace_uri):
        return anchor.present(workspace_uri, champion.name) or anchor.append(workspace_uri, entry)


def _parse(entry: anchor.AnchorEntry) -> tuple[RunConfig, str]:
    if entry.recipe is None:
        raise ConfigurationError(
            f"it could not be read when it was recorded ({entry.kind}: {entry.reason}); name it: "
            f"`homefeed anchor set --recipe NAME --reason ...`"
        )
    return entry.recipe.parse(), entry.recipe.code_digest


def _why_held(entry: anchor.AnchorEntry | None, config: RunConfig) -> str:
    """Return why the run's recipe may not be promoted, or ''."""
    digest = config.recipe_digest
    held = entry.held if entry is not None else ()
    why = next((each.reason for each in held if each.digest == digest), "")
    if not why:
        return ""
    return (
        f"Recipe {config.reference!r} is on hold ({why}). It is not promoted until "
        f"somebody releases it: `homefeed anchor release --recipe {digest[:12]} --reason ...`."
    )
