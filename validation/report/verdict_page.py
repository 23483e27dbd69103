"""The verdict page: one self-contained HTML file that a person reads before believing a verdict.

The page must open years later, from a mail or an archive, without a network and without scripts.
Styles and drawings are therefore inside, and nothing is fetched. MLflow shows it among a model's
artifacts. Not for deciding (`validation.model_gate.verdict`).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.cycle import CycleRecord
from pipelines.contracts.judgement import Comparison, Judgement
from pipelines.contracts.reasons import RANDOM, LinePoint, MetricComparison
from pipelines.contracts.run_layout import VERDICT_PAGE
from validation.model_gate.examine import margin_of
from validation.model_gate.long_line import REFERENCES
from validation.model_gate.years import ASSUMED_DECAY, NUM_YEARS
from validation.report.charts import Drawing, Points, Style, axis_of, by_day, panel, scale_of_powers
from validation.report.pages import environment, within_limit

NOTHING = CycleRecord()
_STYLES: dict[str, Style] = {"baseline": "theirs", "challenger": "ours"}


def write_report(
    judgement: Judgement, run: ResolvedRun, out_dir: Path, record: CycleRecord = NOTHING
) -> Path:
    """Write the verdict page, `<out_dir>/verdict.html`: self-contained, below 300 kB.

    Args:
        judgement: The facts, what was decided, and the outcome that people are told.
        run: The cycle's.
        out_dir: Existing folder.
        record: When the cycle ran, as far as that is known.

    Returns:
        Path of the page.
    """
    comparison, why = judgement.comparison, record.explanation
    gains = [part.gain for part in why.parts if part.gain] if why else []
    needed = -margin_of(comparison, run.config.model_gate.margin)
    template, values = environment().get_template("verdict.html.j2"), {
        **dict(judgement),
        "rows": _shown(comparison),
        "judgement": judgement,
        "RANDOM": RANDOM,
        "assumed_decay": ASSUMED_DECAY,
        "num_years": NUM_YEARS,
        "run": run,
        "needed": needed,
        "drawings": drawings_of(judgement, needed),
        "record": record,
        # What explains most is what is looked for, and is never cut.
        "why_axis": axis_of(sorted(gains, key=lambda each: -abs(each.value))[:1]),
    }  # fmt: skip
    html = within_limit(
        lambda num: template.render(most=num, **values),
        max(len(comparison.metrics), len(comparison.absent)),
    )
    page = out_dir / VERDICT_PAGE
    page.write_text(html, "utf-8")
    return page


def drawings_of(judgement: Judgement, needed: float) -> dict[str, Any]:
    """Return what the page of a judgement draws; empty where there is nothing to draw.

    `rows` are comparisons of the target metric by segment, and of HIT@3 over all users.
    `calibration` has a panel for each head; `line` is the long-term line, or None.

    Args:
        judgement: The facts.
        needed: What the lower end of the target metric's interval must exceed.
    """
    comparison, target = judgement.comparison, judgement.comparison.target_metric
    drawn = [
        row
        for row in _shown(comparison)
        if row.relative_change
        and (row.metric == target or row.metric.startswith("hit_at_") and row.segment == "all")
    ]
    heads = dict.fromkeys(point.head for point in comparison.reliability)
    return {
        "rows": drawn,
        "axis": axis_of([row.relative_change for row in drawn if row.relative_change], needed),
        "calibration": {head: _calibration_of(comparison, head) for head in heads},
        "line": draw_line(judgement.line),
    }


def draw_line(points: Sequence[LinePoint]) -> Markup | None:
    """Return a panel of the champions' leads over what never changes, the first one's being zero.

    None of fewer than two champions. In percent, by day.
    """
    styles: tuple[Style, ...] = ("ours", "theirs")
    series: dict[Style, Points] = {}
    for style, reference in zip(styles, REFERENCES, strict=True):
        line = [point for point in points if point.reference == reference]
        if len(line) > 1:
            leads = [100 * math.expm1(point.value - line[0].value) for point in line]
            series[style] = [
                (p.as_of.toordinal(), lead) for p, lead in zip(line, leads, strict=True)
            ]
    label = "Leads of the champions over what never changes, in percent"
    return panel(by_day(label, series)) if series else None


def _calibration_of(comparison: Comparison, head: str) -> Markup:
    """Return a panel of one head: observed share by predicted probability."""
    points = [point for point in comparison.reliability if point.head == head]
    shares = [share for point in points for share in (point.mean_predicted, point.mean_observed)]
    across = scale_of_powers(shares, "predicted probability")
    up = across._replace(label="observed share")
    lines: dict[Style, Points] = {"guide": ((up.low, up.low), (up.high, up.high))}
    for side, style in _STYLES.items():
        if own := [(p.mean_predicted, p.mean_observed) for p in points if p.side == side]:
            lines[style] = own
    label = f"Calibration of head {head}: observed share by prediction"
    return panel(Drawing(label, across, up, lines))


def _shown(comparison: Comparison) -> list[MetricComparison]:
    """Return the rows that a page shows, those of the target metric first."""
    return sorted(comparison.metrics, key=lambda row: row.metric != comparison.target_metric)
