"""Refuses a champion that cannot be compared with a recipe: each is scored on its own features.

A champion of another recipe needs what its own recipe says, from the log of today: its embedding
version, its columns, and no action type that neither recipe knows. Where that is gone, the
comparison would break after the training was paid for. Not for comparing
(`pipelines.stages.compare_with_champion`). Tested in
tests/pipelines/preconditions/test_champion.py.
"""

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.preconditions.event_log import Glimpse, log_problems
from pipelines.registry import registry
from pipelines.registry.history import recipe_of_model
from pipelines.snapshot.counterpart import OWN_OPTIONS, unknown_types
from pipelines.snapshot.plan import plan_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


def recipe_of(client: "MlflowClient", workspace_uri: str, champion: ModelRef) -> RunConfig | None:
    """Return the recipe that made the champion; None where its cycle is not on record any more.

    Then nothing is known beforehand, and the comparison finds out by the champion's bundle.
    """
    tags = registry.read_tags(client, champion)
    try:
        return recipe_of_model(workspace_uri, champion, tags).parse()
    except ConfigurationError as error:
        log.info("whether %s can be compared is not known yet: %s", champion.label, error)
        return None


def champion_problems(
    its_own: RunConfig, config: RunConfig, seen: Glimpse, as_of: datetime
) -> list[str]:
    """Return in sentences what the log lacks, or has too much, for scoring a champion.

    Args:
        its_own: The champion's recipe.
        config: The run's, whose windows count.
        seen: The event log.
        as_of: The run's.

    Raises:
        TransientStorageError: the storage failed.
    """
    own = {name: getattr(its_own.snapshot, name) for name in OWN_OPTIONS}
    options = config.snapshot.model_copy(update=own)
    plan = plan_of(
        config.model_copy(update={"features": its_own.features, "snapshot": options}),
        as_of,
        unknown_types(config.features, its_own.features),
    )
    # With another vocabulary a snapshot of its own is built for it, which needs its main head.
    has_own = its_own.features.action_types != config.features.action_types
    return log_problems(plan, seen, (its_own.features.main_head,) if has_own else ())
