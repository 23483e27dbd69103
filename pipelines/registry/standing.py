"""What is on record about recipes when a cycle begins; `resolve_run` fixes it for the cycle.

Tested in tests/pipelines/registry/test_anchor.py.
"""

from pipelines.contracts.artifacts import ModelRef, PinnedFile, Standing
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.registry import evidence
from pipelines.registry.history import History
from pipelines.registry.recipes_on_record import NAME_ONE
from pipelines.registry.seed_noise import measured_deviation


def find_standing(
    known: History,
    workspace_uri: str,
    champion: ModelRef | None,
    config: RunConfig,
    judged_before: tuple[PinnedFile, ...],
) -> Standing:
    """Return the accepted recipe, what is on hold, and since when the champion serves.

    Args:
        known: The history, at the entry that the run pins.
        workspace_uri: The workspace.
        champion: The model that serves now, or None.
        config: The run's configuration.
        judged_before: Records of judged cycles, pinned.
    """
    accepted, code, problem = None, "", ""
    recipe = known.recipes.accepted
    try:
        if recipe is not None:
            accepted, code = recipe.parse(), recipe.code_digest
        elif champion is not None:
            raise ConfigurationError(f"it could not be read when {champion.label} came; {NAME_ONE}")
    except ConfigurationError as error:
        problem = f"A model serves and the accepted recipe is not known: {error}."
    moves = [move for _, move in known.entries]
    since = moves[-1].moved_at if moves else None
    rollbacks = [move.moved_at for move in moves if move.kind == "rollback"]
    return Standing(
        anchor=accepted,
        anchor_code_digest=code,
        problem=problem,
        hold=_why_held(known, config),
        seed_noise=measured_deviation(
            workspace_uri, config.recipe_digest, config.model_gate.target_metric
        ),
        unpromoted=evidence.unpromoted_days(evidence.read(judged_before), since),
        champion_since=since,
        rolled_back_at=max(rollbacks, default=None),
    )


def _why_held(known: History, config: RunConfig) -> str:
    """Return why the run's recipe may not be promoted, or ''."""
    digest = config.recipe_digest
    why = next((each.reason for each in known.recipes.held if each.digest == digest), "")
    if not why:
        return ""
    return (
        f"Recipe {config.reference!r} is on hold ({why}). It is not promoted until "
        f"somebody releases it: `homefeed anchor release --recipe {digest[:12]} --reason ...`."
    )
