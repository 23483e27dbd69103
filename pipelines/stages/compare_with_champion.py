"""`compare_with_champion`: score every side on one holdout, judge, publish, log.

The judging is done by `validation`. This module fetches the sides, pools what earlier cycles found,
logs all sides to MLflow under the same names, and keeps the evidence for later cycles.
"""

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.alerts.commands import rebuild_command, stage_command
from pipelines.alerts.links import Links, mlflow_links
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.artifacts import (
    Challenger,
    DataReport,
    FreshAnchor,
    ResolvedRun,
    Snapshot,
)
from pipelines.contracts.config import RunConfig
from pipelines.contracts.cycle import CycleRecord
from pipelines.contracts.files import temporary_files_in
from pipelines.contracts.judgement import (
    AnchorFacts,
    Comparison,
    Judgement,
    OperatingPoint,
)
from pipelines.contracts.run_layout import VERDICT_PAGE
from pipelines.contracts.snapshot_files import verify_files
from pipelines.cycles.reading import record_of
from pipelines.registry import evidence, registry, tracking
from pipelines.registry.evidence import changes_of, pool_facts, tries_on
from pipelines.registry.in_mlflow import named
from pipelines.settings import Settings
from pipelines.snapshot.counterpart import counterpart
from pipelines.stages.in_mlflow.sides import log_sides, log_whole

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from validation.model_gate.facts import Facts, Side

log = logging.getLogger(__name__)
_REBUILT = "delete its folder: it is built again when it is needed"


def compare_with_champion(
    run: ResolvedRun,
    snapshot: Snapshot,
    report: DataReport,
    challenger: Challenger,
    fresh: FreshAnchor,
    output_uri: str,
    now: datetime,
    settings: Settings,
) -> Judgement:
    """Judge the challenger against the pinned champion, or the best baseline in the first cycle.

    Where the accepted recipe was made fresh, all three models are compared.

    Raises:
        DataContractError: a bundle is damaged or not the one that was registered, the event log
            lacks what the champion is told, or evidence of an earlier cycle was deleted or altered
            since the run was resolved.
        TrackingUnavailableError: MLflow cannot be reached.
    """
    from validation.model_gate.facts import gather_facts

    client = tracking.connect(run.tracking_uri)
    cycles = evidence.read(run.judged_before)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(storage.scratch_folder(run.workspace_uri))
        stack.enter_context(temporary_files_in(scratch))
        mine = stack.enter_context(_own_side(run, snapshot, challenger))
        champion = stack.enter_context(_champion_side(client, run, snapshot, scratch))
        other = stack.enter_context(_anchor_side(run, fresh))
        facts = pool_facts(run, cycles, gather_facts(mine, champion, run.config, other))
        judgement = _judge(run, facts, mine, other, fresh)
        said = {
            "tries": tries_on(snapshot.holdout, cycles),
            "report_uri": storage.join(output_uri, VERDICT_PAGE),
        }
        judgement = judgement.model_copy(update=said)
        places = _places_in_mlflow(client, run, judgement.comparison)
        record = record_of(run, cycles, judgement.comparison)
        outcome = outcome_of(run, judgement, report, settings, places, record.is_void)
        judgement = judgement.model_copy(update={"outcome": outcome})
        out_dir = scratch / "report"
        out_dir.mkdir()
        write_page(run, judgement, out_dir, record)
        runs = log_sides(client, run, judgement, out_dir, named(snapshot))
        log_whole(client, run, judgement.comparison, snapshot, runs[1], record.is_void)
        storage.publish_folder(out_dir, output_uri)
    keep_evidence(run, facts, judgement, fresh, now)
    log.info("%s", "\n".join(outcome.lines()))
    return judgement.model_copy(
        update={
            "challenger_mlflow_run_id": runs[0],
            "baseline_mlflow_run_id": runs[1],
        }
    )


def _judge(
    run: ResolvedRun,
    facts: "Facts",
    mine: "Side",
    other: "tuple[Side, RunConfig] | None",
    fresh: FreshAnchor,
) -> Judgement:
    """Check that the bundles would serve, and rule."""
    from training.bundle.serving_check import check_serving
    from validation.model_gate.verdict import decide

    serving = check_serving(mine.bundle_dir, run.config.serving)
    anchor = None
    if other is not None and facts.delta is not None and facts.phi is not None:
        side, accepted = other
        anchor = AnchorFacts(
            model=side.model,
            recipe=facts.delta.comparison,
            freshness=facts.phi.comparison,
            self_test=facts.anchor_self_test,
            serving=check_serving(side.bundle_dir, accepted.serving),
        )
    standing = run.standing
    if fresh.problem:
        standing = standing.model_copy(update={"problem": fresh.problem})
    comparison, gate, heads = (
        facts.theta.comparison,
        run.config.model_gate,
        run.config.features.heads,
    )
    return Judgement(
        comparison=comparison,
        self_test=facts.self_test,
        serving=serving,
        anchor=anchor,
        anchor_note=fresh.reason,
        problem=standing.problem,
        estimates=facts.estimates,
        baselines=facts.baselines,
        operating_curve=_operating_curve(anchor.freshness if anchor else comparison, run),
        verdict=decide(
            comparison, facts.self_test, serving, gate, heads, anchor, standing, facts.baselines
        ),
        report_uri="",
        challenger_mlflow_run_id="",
        baseline_mlflow_run_id="",
    )


def _operating_curve(comparison: Comparison, run: ResolvedRun) -> tuple[OperatingPoint, ...]:
    """Return what the gate can see at this holdout's size; nothing where the error is not known.

    The error is that of two models of the accepted recipe where there are such: the error of a
    change grows with the change, and a challenger that is far off says little of the holdout.
    """
    from validation.model_gate.years import operating_curve

    row = comparison.find_pooled(comparison.target_metric)
    if row is None or row.error == 0 or comparison.is_first_cycle:
        return ()  # Against a simple baseline the error is not that of two models.
    gate = run.config.model_gate.model_copy(update={"seed_noise": run.seed_noise})
    return operating_curve(row.error, gate)


def _places_in_mlflow(client: "MlflowClient", run: ResolvedRun, comparison: Comparison) -> Links:
    """Open both sides' runs, which are to be logged, and return where MLflow will show them."""
    labels = {
        "challenger": comparison.challenger_model.label,
        "baseline": comparison.baseline_label.removeprefix("the "),
    }
    mine, other = (tracking.open_run(client, run, side, label) for side, label in labels.items())
    return mlflow_links(run.tracking_uri, tracking.experiment_of(client, mine), (mine, other))


def write_page(run: ResolvedRun, judgement: Judgement, out_dir: Path, record: CycleRecord) -> Path:
    """Write the verdict page with its drawings, and return the page's path."""
    from validation.report import verdict_page

    assert judgement.outcome is not None, "the page tells the outcome"
    said = {
        "run_id": run.run_id,
        "recipe": run.config.recipe_ref.label,
        "as_of": f"{run.as_of:%Y-%m-%d}",
        "code_version": run.code_version,
        "margin": str(run.config.model_gate.margin),
    }
    return verdict_page.write_report(judgement, judgement.outcome, out_dir, said, record)


def keep_evidence(
    run: ResolvedRun, facts: "Facts", judgement: Judgement, fresh: FreshAnchor, now: datetime
) -> None:
    """Leave what this cycle found for later ones to pool: the sound comparisons of it."""
    from validation.model_gate.examine import void_reasons

    accepted = run.standing.anchor
    configs = {"theta": run.config, "delta": run.config, "phi": accepted}
    is_sound = {
        pair: not void_reasons(found.comparison, config.model_gate, config.features.heads)
        for pair, found in facts.pairs().items()
        if (config := configs[pair]) is not None
    }
    changes = changes_of(facts, is_sound)
    pairs = facts.pairs()
    columns = {
        change.column: pairs[change.pair].influences.columns[(change.metric, change.segment)]
        for change in changes
    }
    cycle = evidence.JudgedCycle(
        run_id=run.run_id,
        run_uri=run.run_uri,
        registered_model=run.registered_model,
        as_of=run.as_of,
        holdout=judgement.comparison.holdout,
        judged_at=now,
        first_judged_at=now,
        challenger_recipe=run.config.recipe_digest,
        anchor_recipe=accepted.recipe_digest if accepted and judgement.anchor else "",
        codes=(run.code_digest, fresh.code_digest),
        champion_bundle=run.champion.bundle_digest if run.champion else "",
        decision=judgement.verdict.decision,
        promoted=judgement.verdict.promoted,
        may_promote=run.may_promote,
        changes=changes,
    )
    evidence.publish(run, cycle, facts.theta.influences.groups, columns)


@contextlib.contextmanager
def _own_side(run: ResolvedRun, snapshot: Snapshot, challenger: Challenger) -> "Iterator[Side]":
    from validation.model_gate.facts import Side

    with (
        _as_registered(run, challenger, "train_challenger") as bundle_dir,
        storage.local_copy(snapshot.uri) as snapshot_dir,
    ):
        verify_files(snapshot, snapshot_dir, f"run `{rebuild_command(run.run_uri)}`")
        yield Side(challenger.model, bundle_dir, snapshot, snapshot_dir)


@contextlib.contextmanager
def _anchor_side(run: ResolvedRun, fresh: FreshAnchor) -> "Iterator[tuple[Side, RunConfig] | None]":
    """Fetch the fresh anchor, if one was trained and there is a champion to hold it against."""
    from validation.model_gate.facts import Side

    accepted = run.standing.anchor
    if fresh.trained is None or fresh.snapshot is None or accepted is None or run.champion is None:
        yield None
        return
    with (
        _as_registered(run, fresh.trained, "train_anchor") as bundle_dir,
        storage.local_copy(fresh.snapshot.uri) as snapshot_dir,
    ):
        verify_files(fresh.snapshot, snapshot_dir, _REBUILT)
        yield Side(fresh.trained.model, bundle_dir, fresh.snapshot, snapshot_dir), accepted


@contextlib.contextmanager
def _as_registered(run: ResolvedRun, trained: Challenger, stage: str) -> Iterator[Path]:
    """Give the folder of a bundle that this cycle has trained, if it is still the registered one.

    The verdict is about the digest of the registered version, which is what a promotion serves.
    """
    with storage.local_copy(trained.bundle_uri) as bundle_dir:
        publish = stage_command(stage, run.run_uri, again=True)
        repair = f"run `{publish}`, which publishes it anew"
        registry.require_bundle(trained.model, bundle_dir, repair)
        yield bundle_dir


@contextlib.contextmanager
def _champion_side(
    client: "MlflowClient", run: ResolvedRun, snapshot: Snapshot, scratch: Path
) -> "Iterator[Side | None]":
    """Fetch the champion, with a snapshot that is computed as its own recipe says."""
    from training.bundle.files import read_config
    from validation.model_gate.facts import Side

    if run.champion is None:
        yield None
        return
    bundle_dir = registry.download_bundle(client, run.champion, scratch / "champion")
    config = read_config(bundle_dir)
    own = counterpart(run, snapshot, config.features, config.snapshot)
    with storage.local_copy(own.uri) as own_dir:
        if own.digest != snapshot.digest:
            verify_files(own, own_dir, _REBUILT)
        yield Side(run.champion, bundle_dir, own, own_dir)
