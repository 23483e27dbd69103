"""The verdict page: one self-contained HTML file that a person reads before believing a verdict.

The page must open years later, from a mail or an archive, without a network. Styles and drawings
are therefore inside, and nothing is fetched. The same drawings are also written as PNG files, for
MLflow's artifact view. Not for deciding (`validation.model_gate.verdict`).
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipelines.contracts.artifacts import NextStep
from pipelines.contracts.judgement import (
    AbsentMetric,
    Comparison,
    Decision,
    MetricComparison,
    SelfTest,
    Verdict,
)
from validation.model_gate.verdict import needed_lower_end
from validation.report.data_docs import environment
from validation.report.drawings import draw_forest, draw_reliability, forest_rows, reliability_heads
from validation.report.plots import write_plots

log = logging.getLogger(__name__)

PAGE = "verdict.html"
CONTEXT_KEYS = (
    "run_id",
    "recipe",
    "as_of",
    "code_version",
    "margin",
)

_MEANINGS = {
    "volume_at_3": "actions of a head among a request's top 3, mean per request; higher is better",
    "hit_at_3": "actions among a request's top 3, summed, per user; higher is better for a wanted "
    "action, lower for an unwanted one",
    "log_loss": "mean -log of the probability given to what happened; lower is better",
    "calibration_ratio": "sum of predictions / sum of actions; 1 is right",
    "auc": "chance that an acted-on candidate scores above another; higher is better",
    "ece": "mean gap between predicted and observed share, over bins; lower is better",
}
_TONES = {
    Decision.PROMOTE: "is-good",
    Decision.REJECT: "is-bad",
    Decision.INCONCLUSIVE: "is-warn",
}


def write_report(
    comparison: Comparison,
    self_test: SelfTest,
    verdict: Verdict,
    next_step: NextStep,
    out_dir: Path,
    context: Mapping[str, str],
) -> Path:
    """Write the verdict page and its plots.

        <out_dir>/verdict.html       self-contained, below 300 kB
        <out_dir>/changes.png        relative changes with intervals
        <out_dir>/reliability.png    calibration, where a side has probabilities

    Args:
        comparison: The facts about challenger and baseline.
        self_test: What the gate found when it tested itself.
        verdict: The decision and its reasons.
        next_step: What the pipeline does now, and what a person may run.
        out_dir: Existing folder.
        context: What else the page says of the run; see `CONTEXT_KEYS`, all of them required.

    Returns:
        Path of the page.

    Raises:
        KeyError: the context lacks a key.
    """
    said = {key: context[key] for key in CONTEXT_KEYS}
    needed = needed_lower_end(comparison, float(said["margin"]))
    rows = forest_rows(comparison)
    page = out_dir / PAGE
    html = (
        environment()
        .get_template("verdict.html.j2")
        .render(
            comparison=comparison,
            verdict=verdict,
            tone=_TONES[verdict.decision],
            context=said,
            target=comparison.target,
            self_test=self_test,
            needed=needed,
            baseline=baseline_label(comparison),
            forest=draw_forest(rows, needed),
            calibration=[
                (head, draw_reliability(comparison, head)) for head in reliability_heads(comparison)
            ],
            segments=_tables(comparison),
            next_step=next_step,
            meanings=_MEANINGS,
            confidence=_confidence(comparison),
        )
    )
    page.write_text(html, "utf-8")
    write_plots(comparison, rows, needed, out_dir)
    log.info("verdict page: %s", page)
    return page


def baseline_label(comparison: Comparison) -> str:
    """Return what the challenger was compared with, for people."""
    if comparison.champion_model is not None:
        return f"champion {comparison.champion_model.label}"
    return "the popularity ranking"


class SegmentTable(NamedTuple):
    """What the page shows of one segment."""

    segment: str
    num_users: int
    rows: list[MetricComparison]
    absent: list[AbsentMetric]


def _tables(comparison: Comparison) -> list[SegmentTable]:
    """Return a table per segment, in the order in which the segments were compared."""
    return [
        SegmentTable(
            segment,
            num_users,
            [row for row in comparison.metrics if row.segment == segment],
            [row for row in comparison.absent if row.segment == segment],
        )
        for segment, num_users in comparison.segment_users.items()
    ]


def _confidence(comparison: Comparison) -> str:
    """Return the intervals' confidence as text, e.g. '95 %'."""
    for row in comparison.metrics:
        if row.relative_change is not None:
            return f"{row.relative_change.confidence * 100:g} %"
    return "no"
