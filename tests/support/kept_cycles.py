"""Cycles as their manifests and failures tell of them, without running a stage."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Decision, Judgement
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.settings import Settings
from support.judgements import CHAMPION, make_failure, make_judgement, make_promotion
from support.runs import PLANTED_AS_OF, make_run, save_artifact, save_run


def begin(folder: Path, fortnight: int = 0, **values: Any) -> ResolvedRun:
    """Save a cycle that is resolved, so many fortnights after the planted day."""
    as_of = PLANTED_AS_OF + timedelta(days=14 * fortnight)
    named = {"as_of": as_of, "run_id": f"{as_of:%Y-%m-%d}--ab12cd34", "champion": CHAMPION}
    return save_run(make_run(folder, **named | values))


def judge(
    run: ResolvedRun, decision: Decision, is_promoted: bool = False, has_page: bool = False
) -> Judgement:
    """Save a cycle's verdict and its promotion."""
    page = storage.join(run.run_uri, "compare_with_champion", "output-1", "verdict.html")
    judgement = make_judgement(decision, low=-0.2, high=0.1)
    judgement = judgement.model_copy(update={"report_uri": page})
    outcome = outcome_of(run, judgement, None, Settings())
    judgement = judgement.model_copy(update={"outcome": outcome})
    save_artifact(run, "compare_with_champion", judgement)
    save_artifact(run, "promote_challenger", make_promotion(is_promoted))
    if has_page:
        storage.write_bytes(page, b"<p>")
    return judgement


def end(run: ResolvedRun) -> None:
    """Save a whole cycle, from the first stage to the last."""
    save_run(run)
    for stage in ("build_snapshot", "check_snapshot", "train_challenger", "train_anchor", "alert"):
        save_artifact(run, stage, run)
    judge(run, Decision.REJECT)


def failure_of(run: ResolvedRun, stage: str, error_class: str) -> StageFailure:
    """Return why a stage of the cycle has failed; it did so at the cycle's as_of."""
    return make_failure(stage, error_class=error_class, occurred_at=run.as_of)


def fail(run: ResolvedRun, stage: str, error_class: str) -> None:
    """Save a failure beside the cycle's manifests."""
    storage.write_model(failure_uri(run.run_uri, stage), failure_of(run, stage, error_class))
