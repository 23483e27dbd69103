"""Judged cycles, as they leave evidence for the cycles that follow."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.time import Window
from pipelines.registry import evidence
from pipelines.registry.evidence import FoundChange, JudgedCycle

TARGET = "repin_volume_at_3"
JUDGED_AT = datetime(2026, 3, 1, tzinfo=UTC)
PAIRS = ("theta", "delta", "phi")


def judged_cycle(run: ResolvedRun, **fields: Any) -> JudgedCycle:
    """Return what a cycle two weeks before a run found of its recipe, but for what is given."""
    as_of = fields.get("as_of", run.as_of - timedelta(days=14))
    changes = (FoundChange(pair=pair, metric=TARGET, segment="all", value=0.01) for pair in PAIRS)
    values: dict[str, Any] = {
        "run_id": f"{as_of:%Y-%m-%d}--before",
        "run_uri": storage.join(run.workspace_uri, "runs", "before"),
        "as_of": as_of,
        "holdout": Window(start=as_of - timedelta(days=7), end=as_of),
        "judged_at": JUDGED_AT,
        "challenger_recipe": run.config.recipe_digest,
        "may_promote": True,
        "changes": tuple(changes),
    }
    return JudgedCycle(**(values | fields))


def publish_evidence(run: ResolvedRun, **fields: Any) -> str:
    """Publish such a cycle with influences of two groups of users; return its record's URI."""
    cycle = judged_cycle(run, **fields)
    columns = {change.column: np.array([0.001, -0.002]) for change in cycle.changes}
    return evidence.publish(run, cycle, np.array([4, 77]), columns)
