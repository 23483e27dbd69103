"""A verdict page of each outcome that a judged cycle can have, made as the pipeline makes them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.cycle import CycleRecord, StageCost
from pipelines.contracts.judgement import Decision, Judgement, OperatingPoint, SelfTest
from pipelines.contracts.reasons import (
    AbsenceKind,
    AbsentMetric,
    RankedPin,
    RankedRequest,
    Reason,
    ReliabilityBin,
)
from pipelines.contracts.run_layout import StageUsage
from pipelines.cycles.reading import is_void
from pipelines.recipes import smoke
from pipelines.settings import Settings
from support.holdouts import (
    AGAINST_CHAMPION,
    AGAINST_POPULARITY,
    HEADS,
    champion_with,
    judged,
    noisy_scores,
    planted_rows,
    popularity_scores,
)
from support.judgements import BEATEN, CHAMPION, SERVING, interval, make_judgement, metric, said
from support.runs import make_run
from training.bundle.score_split import SplitScores
from training.data.reader import ExampleRows
from validation.model_gate.comparison import ComparedModels, Holdout, compare
from validation.model_gate.verdict import decide
from validation.report.verdict_page import write_report

OUTCOMES = ("promote", "tie", "reject", "inconclusive", "first_cycle", "void")
CURVE = tuple(
    OperatingPoint(
        true_change=0.01 * k,
        promoted=0.5 + 0.1 * k,
        rejected=max(0.0, 0.3 - 0.1 * k),
        year_quality=0.008 * k - 0.01,
    )
    for k in range(-4, 5)
)
STAGES = ("resolve_run", "build_snapshot", "check_snapshot", "train_challenger", "train_anchor")


def costs_of(factor: float = 1.0, is_measured: bool = True) -> tuple[StageCost, ...]:
    """Return what a cycle might have used; its training takes an hour times the factor."""
    used = StageUsage(
        cpu_s=5400 * factor,
        gpu_s=3600 * factor,
        peak_memory_bytes=3_400_000_000,
        read_bytes=81_000_000_000,
        written_bytes=12_345_678,
    )
    day = datetime(2017, 3, 2, 6, tzinfo=UTC)
    return tuple(
        StageCost(
            stage=stage,
            wall_s=(0.4, 900, 41, 3600, 5)[place] * factor,
            finished_at=day + timedelta(hours=place),
            usage=used if is_measured else None,
        )
        for place, stage in enumerate(STAGES)
    )


RECORD = CycleRecord(
    began_at=datetime(2017, 3, 2, 6, 0, tzinfo=UTC),
    trained_at=datetime(2017, 3, 2, 10, 12, tzinfo=UTC),
    index_href="../../../../cycles.html",
)


def _config(**more: object) -> ModelGateConfig:
    return ModelGateConfig(
        floors=(Limit(metric="calibration_ratio.repin", minimum=0.5, maximum=2.0),),
        guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.5),),
        **more,
    )


def _ruled(
    rows: ExampleRows,
    sides: tuple[SplitScores, SplitScores],
    models: ComparedModels,
    config: ModelGateConfig,
) -> Judgement:
    """Compare and rule by the gate's own rules, with a self-test that was run elsewhere."""
    comparison = compare(Holdout(rows, HEADS, config), *sides, models).comparison
    passed = SelfTest(findings=(Reason.of("tested_worst", change=interval(-1.0, -1.0, -1.0)),))
    verdict = decide(comparison, passed, SERVING, config, HEADS, baselines=BEATEN)
    return Judgement(
        comparison=comparison, self_test=passed, serving=SERVING, verdict=verdict, report_uri=""
    )


@cache
def judgement_of(outcome: str) -> Judgement:
    """Judge two planted sides so that the gate itself comes to an outcome."""
    rows, truth = planted_rows(num_users=60 if outcome == "inconclusive" else 160)
    good, fair = noisy_scores(truth, 0.2, 1), noisy_scores(truth, 1.0, 2)
    models, config = AGAINST_CHAMPION, _config()
    sides = (fair, good) if outcome == "reject" else (good, fair)
    if outcome == "tie":
        sides, config = (noisy_scores(truth, 0.21, 3), good), _config(margin=0.05)
    if outcome == "inconclusive":
        sides = (noisy_scores(truth, 0.25, 4), good)
    if outcome == "first_cycle":
        models, sides = AGAINST_POPULARITY, (good, popularity_scores(rows))
    if outcome == "void":
        models = replace(
            models, baseline_model=champion_with(models.challenger_model.bundle_digest)
        )
    found = _ruled(rows, sides, models, config)
    if outcome == "promote":
        found = judged(rows, *sides, models, config)
    curve = () if outcome == "first_cycle" else CURVE
    return found.model_copy(update={"operating_curve": curve, "report_uri": "file:///w/p.html"})


LONG = "a_very_long_name_of_something_without_any_space_" * 4
MARKUP = "<script>alert(1)</script> **bold** [x](javascript:alert(2)) & \"'"
FROM_RIGHT = "\u202e\u05e9\u05dc\u05d5\u05dd\u0645\u0631\u062d\u0628\u0627" * 6


@cache
def huge_judgement() -> Judgement:
    """Return a judgement of 40 segments and 20 heads, with long names and others' markup."""
    plain = make_judgement(Decision.INCONCLUSIVE, f"{LONG} {MARKUP}", low=-0.02, high=0.03)
    segments = ["all", LONG, MARKUP, *(f"region_{number}" for number in range(38))]
    heads = [LONG, MARKUP, *(f"head_{number}" for number in range(18))]
    change = interval(0.01, -0.02, 0.04)
    names = [f"{kind}.{head}" for head in heads for kind in ("hit_at_3", "log_loss", "auc", "ece")]
    rows = [
        metric(name, change, 0.5, segment, 0.4)
        for segment in segments
        for name in (plain.comparison.target_metric, *names)
    ]
    gone = {"side": "challenger", "kind": AbsenceKind.NO_ACTION}
    absent = [
        AbsentMetric(metric=f"calibration_ratio.{head}", segment=segment, **gone)
        for segment in segments
        for head in heads
    ]
    bins = [
        ReliabilityBin(side=side, head=head, mean_predicted=0.05 * n, mean_observed=0.04 * n)
        for head in heads
        for side in ("challenger", "baseline")
        for n in range(10)
    ]
    pins = [RankedPin(pin_id=n - 2**63, challenger=n, baseline=19 - n, actions=(LONG, MARKUP))
            for n in range(1, 16)]  # fmt: skip
    more = {
        "requests": tuple(
            RankedRequest(request_id=name[:64], num_candidates=4_000, pins=pins)
            for name in (LONG, MARKUP, FROM_RIGHT, *map(str, range(7)))
        ),
        "metrics": tuple(rows),
        "absent": tuple(absent),
        "reliability": tuple(bins),
        "segment_users": dict.fromkeys(segments, 1234),
        "differences": (said(LONG), said(MARKUP)),
    }
    comparison = plain.comparison.model_copy(update=more)
    update = {"comparison": comparison, "operating_curve": CURVE, "tries": (LONG,) * 3}
    return plain.model_copy(update=update)


def write_page_of(judgement: Judgement, folder: Path) -> Path:
    """Write the page that the pipeline would of a judgement."""
    folder.mkdir(parents=True, exist_ok=True)
    champion: ModelRef | None = None if judgement.comparison.is_first_cycle else CHAMPION
    config = smoke().model_copy(update={"model_gate": _config()})
    run = make_run(folder, config, champion=champion, run_id="2017-03-02--ab12cd34")
    outcome = outcome_of(run, judgement, None, Settings())
    record = RECORD.model_copy(update={"is_void": is_void(run, judgement.comparison)})
    judgement = judgement.model_copy(update={"outcome": outcome})
    return write_report(judgement, run, folder, record)
