"""The verdict page: one self-contained HTML file that a person reads before believing a verdict.

The page must open years later, from a mail or an archive, without a network and without scripts.
Styles and drawings are therefore inside, and nothing is fetched. The same numbers are also drawn as
PNG files, for MLflow's artifact view. Not for deciding (`validation.model_gate.verdict`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.judged.cycle import CycleRecord
from pipelines.contracts.judged.outcome import Outcome
from pipelines.contracts.judgement import Comparison, Judgement, PooledChange
from pipelines.contracts.run_layout import VERDICT_PAGE
from validation.model_gate.examine import margin_of
from validation.model_gate.target_metric import other_form
from validation.model_gate.years import ASSUMED_DECAY, NUM_YEARS
from validation.report.costs import cost_rows
from validation.report.data_docs import environment
from validation.report.drawings import drawings_of
from validation.report.plots import write_drawings
from validation.report.segment_tables import segment_tables

NOTHING = CycleRecord()
CONTEXT_KEYS = ("run_id", "recipe", "as_of", "code_version", "margin")


def write_report(
    judgement: Judgement,
    outcome: Outcome,
    out_dir: Path,
    context: Mapping[str, str],
    record: CycleRecord = NOTHING,
) -> Path:
    """Write the verdict page and its plots.

        <out_dir>/verdict.html       self-contained, below 300 kB
        <out_dir>/changes.png        relative changes with intervals
        <out_dir>/reliability.png    calibration, where a side has probabilities
        <out_dir>/operating_curve.png    what the gate can see, where the change has an error

    Args:
        judgement: The facts, and what was decided.
        outcome: What people are told of it, in the words that every other place has.
        out_dir: Existing folder.
        context: What else the page says of the run; see `CONTEXT_KEYS`, all of them required.
        record: When the cycle ran and what it cost, as far as that is known.

    Returns:
        Path of the page.

    Raises:
        KeyError: the context lacks a key.
    """
    said = {key: context[key] for key in CONTEXT_KEYS}
    comparison = judgement.comparison
    needed = -margin_of(comparison, float(said["margin"]))
    page = out_dir / VERDICT_PAGE
    write_drawings(judgement, needed, out_dir)
    html = (
        environment()
        .get_template("verdict.html.j2")
        .render(
            comparison=comparison,
            verdict=judgement.verdict,
            anchor=judgement.anchor,
            changes=_changes(judgement),
            judgement=judgement,
            assumed_decay=ASSUMED_DECAY,
            num_years=NUM_YEARS,
            other_form=other_form(comparison.target_metric),
            context=said,
            target=comparison.target,
            self_test=judgement.self_test,
            needed=needed,
            drawings=drawings_of(judgement, needed),
            tables=segment_tables(comparison),
            record=record,
            costs=cost_rows(record.costs, record.earlier),
            age=_age(comparison),
            outcome=outcome,
            confidence=_confidence(comparison),
        )
    )
    page.write_text(html, "utf-8")
    return page


@dataclass(frozen=True)
class ChangeRow:
    """One line of the table that tells recipe and freshness apart."""

    question: str
    sides: str
    comparison: Comparison
    pooled: PooledChange

    @property
    def reach(self) -> float:
        """Half the width of the pooled two-sided 95 % interval."""
        return 1.96 * self.pooled.pooled_error


def _changes(judgement: Judgement) -> list[ChangeRow]:
    """Return the changes of the target metric that decide, each with the question it answers."""
    anchor, found = judgement.anchor, judgement.comparison
    asked: list[tuple[str, Comparison | None]] = [
        ("What would users notice?", found),
        ("What is the change of recipe worth?", anchor.recipe if anchor else None),
        ("What is fresh data worth?", anchor.freshness if anchor else None),
    ]
    return [
        ChangeRow(
            question,
            f"{comparison.challenger_model.label} against {comparison.baseline_label}",
            comparison,
            row,
        )
        for question, comparison in asked
        if comparison is not None and (row := comparison.find_pooled(comparison.target_metric))
    ]


def _confidence(comparison: Comparison) -> str:
    """Return the intervals' confidence as text, e.g. '95 %'; 'no' where there is no interval."""
    changes = (row.relative_change for row in comparison.metrics)
    return next((f"{change.confidence * 100:g} %" for change in changes if change), "no")


def _age(comparison: Comparison) -> str:
    """Say how old the champion is beside the challenger; '' where there is none."""
    champion = comparison.baseline_model
    if champion is None:
        return ""
    days = (comparison.challenger_model.as_of - champion.as_of).total_seconds() / 86400
    return f"{champion.label} was trained as of {champion.as_of:%Y-%m-%d}, {days:g} days earlier"
