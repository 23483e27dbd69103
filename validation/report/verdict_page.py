"""The verdict page: one self-contained HTML file that a person reads before believing a verdict.

The page must open years later, from a mail or an archive, without a network. Styles and drawings
are therefore inside, and nothing is fetched. The same drawings are also written as PNG files, for
MLflow's artifact view. Not for deciding (`validation.model_gate.verdict`).
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from pipelines.contracts.artifacts import NextStep
from pipelines.contracts.judgement import Comparison, SelfTest, Verdict
from validation.model_gate.verdict import needed_lower_end
from validation.report.data_docs import environment
from validation.report.plots import write_drawings

log = logging.getLogger(__name__)

PAGE = "verdict.html"
CONTEXT_KEYS = ("run_id", "recipe", "as_of", "code_version", "margin")


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
    page = out_dir / PAGE
    html = (
        environment()
        .get_template("verdict.html.j2")
        .render(
            comparison=comparison,
            verdict=verdict,
            context=said,
            target=comparison.target,
            self_test=self_test,
            needed=needed,
            drawings=write_drawings(comparison, needed, out_dir),
            next_step=next_step,
            confidence=_confidence(comparison),
        )
    )
    page.write_text(html, "utf-8")
    log.info("verdict page: %s", page)
    return page


def _confidence(comparison: Comparison) -> str:
    """Return the intervals' confidence as text, e.g. '95 %'; 'no' where there is no interval."""
    changes = (row.relative_change for row in comparison.metrics)
    return next((f"{change.confidence * 100:g} %" for change in changes if change), "no")
