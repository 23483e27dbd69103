"""A rollback that Airflow runs: the champion goes back, and the asset says so.

Not for the rollback itself (`pipelines.registry.by_hand`). Tested in
tests/pipelines/orchestration/test_rolling_back.py.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

log = logging.getLogger(__name__)


def roll_back(params: Mapping[str, Any], dag_run: Any, events: Any, champion: Asset) -> str:
    """Roll back as a form asks, and return what serves now, in a sentence.

    Args:
        params: `to_version`, `from_version` and `reason`.
        dag_run: The run; a move that was made since it began is its own, also after a retry.
        events: The outlet's events.
        champion: The asset that others schedule on.

    Raises:
        AirflowSkipException: the champion was taken back before this run began.
        HomefeedError: as `by_hand.rollback` does.
    """
    from pipelines import storage
    from pipelines.cycles.index import refresh_index
    from pipelines.registry import by_hand, tracking
    from pipelines.settings import Settings

    settings, now = Settings(), datetime.now(UTC)
    entry = by_hand.rollback(
        tracking.connect(settings.tracking_uri),
        settings,
        params["to_version"] or None,
        now,
        params["reason"],
        params["from_version"] or None,
    )
    said = f"{entry.model.label} serves, in place of {entry.previous and entry.previous.label}"
    if entry.moved_at < dag_run.start_date:
        raise AirflowSkipException(
            f"nothing was moved: {said} since {entry.moved_at:%Y-%m-%d %H:%M} UTC "
            f"({entry.reason}); to go back further name a version"
        )
    refresh_index(storage.to_uri(settings.workspace_location), settings.registered_model)
    events.add(champion, extra={"version": entry.model.version, "reason": entry.reason})
    log.info("%s: %s", said, entry.reason)
    return said
