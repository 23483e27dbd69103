"""The snapshot of the same windows for a model whose recipe is another one.

A model of another recipe is told other things: other columns, other embeddings, other trailing
windows. It is scored on rows that are computed as its own recipe says, of the same requests with
the same labels. Not for comparing the two (`validation.model_gate`).
"""

import logging
from collections.abc import Sequence

from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.config import RECIPE_WINDOWS, FeatureConfig, RunConfig, SnapshotConfig
from pipelines.recipes.own_functions import as_they_are_now

log = logging.getLogger(__name__)
OWN_OPTIONS = ("embedding_version", "history_days", "popularity_days")
"""What of `SnapshotConfig` decides a model's inputs. Windows, labels and segments are the run's."""


def snapshot_to_train(
    run: ResolvedRun, snapshot: Snapshot, recipe: RunConfig, is_other_code: bool = False
) -> Snapshot:
    """Return a snapshot of the run's holdout on which another recipe can be trained as well.

    It has the other recipe's features and length of training; the training window ends where the
    run's ends, and how long an action counts as a label is the run's. It is the run's own snapshot
    where the recipes do not differ in these, and no other code computes snapshots. Arguments and
    errors are those of `counterpart`.
    """
    is_held = recipe.features == snapshot.features and not is_other_code
    return _own_or_other(run, snapshot, is_held, recipe.features, recipe.snapshot, RECIPE_WINDOWS)


def counterpart(
    run: ResolvedRun, snapshot: Snapshot, features: FeatureConfig, options: SnapshotConfig
) -> Snapshot:
    """Return a snapshot of the run's windows whose inputs are those of another recipe.

    It is the run's own snapshot where that holds all that the other recipe's model is told,
    computed alike. It may hold other numbers besides.

    Args:
        run: The cycle.
        snapshot: Its snapshot.
        features: Of the other recipe.
        options: Of the other recipe; `OWN_OPTIONS` of them count.

    Raises:
        DataContractError: the event log does not hold what the other recipe needs.
        ConfigurationError: the workspace cannot be written, or an own function is gone.
        TransientStorageError: the storage failed or is full.
    """
    numeric = as_they_are_now(features.numeric)
    for then, now in zip(features.numeric, numeric, strict=True):
        if then.source_digest != now.source_digest:
            log.warning(
                "%s was changed since the other model was trained, which is scored by it as it is "
                "now; give a function that changes its meaning a new name",
                then.name,
            )
    # What all inputs depend on, but for the numbers: a model may lack some.
    ours, theirs = (
        (each.action_types, each.categorical, {h.action_type for h in each.heads if h.is_wanted})
        for each in (snapshot.features, features)
    )
    is_held = set(numeric) <= set(snapshot.features.numeric_held) and ours == theirs
    told = features.model_copy(update={"numeric": numeric})
    return _own_or_other(run, snapshot, is_held, told, options, OWN_OPTIONS)


def _own_or_other(
    run: ResolvedRun,
    snapshot: Snapshot,
    is_held: bool,
    features: FeatureConfig,
    theirs: SnapshotConfig,
    names: Sequence[str],
) -> Snapshot:
    """Return the run's own snapshot, or one with other features and some of others' options."""
    from pipelines.snapshot.build import write_snapshot

    ours = run.config.snapshot
    config = ours.model_copy(update={name: getattr(theirs, name) for name in names})
    if is_held and config == ours:
        return snapshot
    recipe = run.config.model_copy(update={"features": features, "snapshot": config})
    passed_over = unknown_types(run.config.features, features)
    return write_snapshot(run.model_copy(update={"config": recipe}), passed_over=passed_over)


def unknown_types(ours: FeatureConfig, theirs: FeatureConfig) -> tuple[str, ...]:
    """Return the action types of the run's recipe that another recipe does not know.

    Actions of these types are left out of the other's snapshot, as they are not told to its model
    where that serves. A type that neither knows is refused, as in every log.
    """
    return tuple(name for name in ours.action_types if name not in theirs.action_types)
