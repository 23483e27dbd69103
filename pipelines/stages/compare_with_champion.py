"""`compare_with_champion`: score every side on one holdout, judge, publish, log.

The judging is done by `validation`. This module fetches the sides, pools what earlier cycles found,
logs all sides to MLflow under the same names (what decides comes first, because MLflow sorts by
name), and keeps the evidence for later cycles.
"""

import contextlib
import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.alerts.commands import rebuild_command, stage_command
from pipelines.alerts.links import HOME, cycles_address, mlflow_links
from pipelines.alerts.outcomes import outcome_of
from pipelines.alerts.rendering import to_markdown
from pipelines.contracts.artifacts import (
    AnchorWhy,
    Challenger,
    DataReport,
    FreshAnchor,
    ResolvedRun,
    Snapshot,
    Standing,
)
from pipelines.contracts.base import sha256_of
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import (
    AnchorFacts,
    Comparison,
    Judgement,
    OperatingPoint,
    Promoted,
    ServingCheck,
)
from pipelines.contracts.reasons import Interval, LinePoint, Reason
from pipelines.contracts.run_layout import VERDICT_PAGE
from pipelines.contracts.snapshot_files import verify_files
from pipelines.cycles.reading import record_of
from pipelines.plain_text import as_markdown
from pipelines.registry import evidence, experiment_page, history, registry, tracking
from pipelines.registry.evidence import line_before, pool_facts
from pipelines.settings import Settings
from pipelines.snapshot.counterpart import counterpart
from pipelines.stages.train import not_judged

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from validation.model_gate.facts import Facts, Side

log = logging.getLogger(__name__)
SERVING_METRICS = {
    *("latency_p50_ms", "latency_p99_ms", "processor_p99_ms"),
    *("wall_ratio", "peak_memory_mib", "golden_difference"),
}
"""Fields of `ServingCheck` that are logged to MLflow, as `serving/<field>`."""
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
    from pipelines.log_days.skew import measure_skew
    from validation.model_gate.facts import gather_facts
    from validation.report.verdict_page import write_report

    client = tracking.connect(run.tracking_uri)
    cycles = evidence.read(run.judged_before)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(storage.scratch_folder(run.workspace_uri))
        mine, champion, anchor = _sides(stack, run, scratch, snapshot, challenger, fresh)
        try:
            found = gather_facts(mine, champion, run.config, anchor)
        except DataContractError as error:
            if anchor is None or fresh.code_digest in ("", run.code_digest):
                raise
            fresh, anchor = not_judged(run, anchor[1], error), None
            found = gather_facts(mine, champion, run.config)
        facts = pool_facts(run, cycles, found)
        sides = mine, champion, anchor and anchor[0]
        judgement = judge(run, facts, sides, fresh, line_before(run, cycles))
        page_uri = storage.join(output_uri, VERDICT_PAGE)
        skew = measure_skew(run, champion) if champion else None
        curve = _operating_curve(run, judgement, fresh)
        added = {"report_uri": page_uri, "skew": skew, "operating_curve": curve}
        judgement = judgement.model_copy(update=added)
        comparison = judgement.comparison
        shown = _open_runs(client, run, judgement)
        places = mlflow_links(run.tracking_uri, tracking.experiment_id_of(client, run), shown)
        record = record_of(run, comparison)
        outcome = outcome_of(run, judgement, report, settings, places, record.is_void)
        judgement = judgement.model_copy(update={"outcome": outcome})
        out_dir = scratch / "report"
        out_dir.mkdir()
        write_report(judgement, run, out_dir, record)
        log_sides(client, run, judgement, out_dir)
        tracking.log_dataset(client, shown[1], snapshot, "evaluation")
        storage.publish_folder(out_dir, output_uri)
    keep_evidence(run, facts, judgement, fresh, now)
    log.info("%s", "\n".join(outcome.lines()))
    return judgement


def _sides(
    stack: contextlib.ExitStack,
    run: ResolvedRun,
    scratch: Path,
    snapshot: Snapshot,
    challenger: Challenger,
    fresh: FreshAnchor,
) -> "tuple[Side, Side | None, tuple[Side, RunConfig] | None]":
    """Return challenger, champion, and the accepted recipe made fresh with its configuration.

    The verdict is about the digests of registered versions, which are what a promotion serves: what
    this cycle has published must still have them. The champion has a snapshot that is computed as
    its own recipe says.
    """
    from training.bundle.files import read_config
    from validation.model_gate.facts import Side

    def trained(stage: str, made: Challenger, of: Snapshot, repair: str) -> Side:
        bundle_dir = stack.enter_context(storage.local_copy(made.bundle_uri))
        publish = stage_command(stage, run.run_uri, again=True)
        again = f"run `{publish}`, which publishes it anew"
        registry.require_digest(made.model, "bundle", bundle_dir, again)
        snapshot_dir = stack.enter_context(storage.local_copy(of.uri))
        verify_files(of, snapshot_dir, repair)
        return Side(made.model, bundle_dir, of, snapshot_dir, accelerator=run.accelerator)

    rebuild = f"run `{rebuild_command(run.run_uri)}`"
    mine = trained("train_challenger", challenger, snapshot, rebuild)
    if run.champion is None:
        return mine, None, None
    accepted, anchor = run.standing.anchor, None
    if fresh.trained and fresh.snapshot and accepted:
        anchor = trained("train_anchor", fresh.trained, fresh.snapshot, _REBUILT), accepted
    client = tracking.connect(run.tracking_uri)
    bundle_dir = registry.download_bundle(client, run.champion, scratch / "champion")
    config = read_config(bundle_dir)
    own = counterpart(run, snapshot, config.features, config.snapshot)
    own_dir = stack.enter_context(storage.local_copy(own.uri))
    if own.digest != snapshot.digest:
        verify_files(own, own_dir, _REBUILT)
    theirs = Side(run.champion, bundle_dir, own, own_dir, accelerator=run.accelerator)
    return mine, theirs, anchor


def judge(
    run: ResolvedRun,
    facts: "Facts",
    sides: "tuple[Side, Side | None, Side | None]",
    fresh: FreshAnchor,
    line: tuple[LinePoint, ...],
    serving: ServingCheck | None = None,
) -> Judgement:
    """Check that the bundles would serve, unless that is known (`serving`), and rule."""
    from training.bundle.serving_check import check_serving
    from validation.model_gate.long_line import points_of
    from validation.model_gate.policy import for_code
    from validation.model_gate.verdict import decide

    comparison, gate, anchor = facts.theta.comparison, run.config.model_gate, None
    mine, champion, fresh_side = sides
    champion_dir = champion.bundle_dir if champion else None
    if fresh.why is AnchorWhy.OTHER_CODE:
        gate = for_code(gate)
        if fresh_side and _is_one_model(facts, mine, fresh_side):
            fresh_side, fresh = None, FreshAnchor(why=AnchorWhy.SAME_MODEL)
    serving = serving or check_serving(mine.bundle_dir, run.config.serving, champion_dir)
    accepted, line = run.standing.anchor, (*line, *points_of(facts.baselines, run.as_of))
    if fresh_side and accepted and facts.delta is not None and facts.phi is not None:
        anchor = AnchorFacts(
            model=fresh_side.model,
            recipe=facts.delta.comparison,
            freshness=facts.phi.comparison,
            self_test=facts.anchor_self_test,
            serving=check_serving(fresh_side.bundle_dir, accepted.serving, champion_dir),
        )
    standing = _standing_with(run, line, fresh)
    made = comparison, facts.self_test, serving
    verdict = decide(*made, gate, run.config.features.heads, anchor, standing, facts.baselines)
    if fresh.why is AnchorWhy.SAME_MODEL and verdict.promoted is Promoted.CHALLENGER:
        verdict = verdict.model_copy(update={"becomes_anchor": True})
    return Judgement(
        comparison=comparison,
        self_test=facts.self_test,
        serving=serving,
        anchor=anchor,
        anchor_note=fresh.reason,
        problem=standing.problem,
        hold=standing.hold,
        estimates=facts.estimates,
        baselines=facts.baselines,
        line=line,
        verdict=verdict,
        report_uri="",
    )


def _operating_curve(
    run: ResolvedRun, judgement: Judgement, fresh: FreshAnchor
) -> tuple[OperatingPoint, ...]:
    """Return what the gate sees with the error of two models of the accepted recipe.

    Where there are no such, it is the challenger's: the error of a change grows with the change.
    """
    from validation.model_gate.policy import for_code
    from validation.model_gate.years import operating_curve

    gate, anchor = run.config.model_gate, judgement.anchor
    told = anchor.freshness if anchor else judgement.comparison
    row = told.find_pooled(told.target_metric)
    if row is None or not row.error or told.is_first_cycle:  # it is not that of two models
        return ()
    if fresh.why is AnchorWhy.OTHER_CODE:
        gate = for_code(gate)
    return operating_curve(row.error, gate.model_copy(update={"seed_noise": run.seed_noise}))


def _is_one_model(facts: "Facts", one: "Side", other: "Side") -> bool:
    """Return whether challenger and fresh anchor have the same weights and give the same scores."""
    from training.bundle.files import WEIGHTS

    weights = {sha256_of(side.bundle_dir / WEIGHTS) for side in (one, other)}
    is_alike = facts.delta is not None and facts.delta.comparison.are_scores_identical
    return bool(is_alike) and len(weights) == 1


def _standing_with(run: ResolvedRun, line: tuple[LinePoint, ...], fresh: FreshAnchor) -> Standing:
    """Return what is on record of recipes, with what the fresh anchor and the long-term line add.

    Where the line is lost, a changed recipe or code is on hold. The accepted recipe by the accepted
    code, or by code that makes the same model, is what nobody changed: it goes out fresh.
    """
    from validation.model_gate.long_line import REFERENCES, THRESHOLD, evidence_of_fall

    standing = run.standing
    if fresh.problem:
        standing = standing.model_copy(update={"problem": fresh.problem})
    accepted, gate = standing.anchor, run.config.model_gate
    ours = (run.config.recipe_digest, run.code_digest)
    is_same = accepted and ours == (accepted.recipe_digest, standing.anchor_code_digest)
    if accepted is None or is_same or fresh.why is AnchorWhy.SAME_MODEL:
        return standing
    if evidence_of_fall(line, gate.margin, run.seed_noise) < THRESHOLD:
        return standing
    reference = REFERENCES[0]
    num_cycles = sum(point.reference == reference for point in line)
    lost = Reason.of("line_lost", num_cycles=num_cycles, reference=reference, margin=gate.margin)
    return standing.model_copy(update={"hold": f"{lost.sentence} {standing.hold}".strip()})


def _line_of(run: ResolvedRun, judgement: Judgement) -> tuple[LinePoint, ...]:
    """Return the points of the model that a verdict promotes; () where that is none."""
    from validation.model_gate.long_line import points_of
    from validation.model_gate.policy import Estimate

    anchor, recipe = judgement.anchor, None
    if judgement.promoted_model is None:
        return ()
    if judgement.verdict.promoted is Promoted.ANCHOR and anchor is not None:
        pooled = anchor.recipe.find_pooled(anchor.recipe.target_metric)
        if pooled is None:
            return ()
        recipe = Estimate(pooled.value, pooled.error)
    return points_of(judgement.baselines, run.as_of, recipe)


def keep_evidence(
    run: ResolvedRun, facts: "Facts", judgement: Judgement, fresh: FreshAnchor, now: datetime
) -> None:
    """Leave what this cycle found for later ones to pool: the sound comparisons of it."""
    from validation.model_gate.examine import void_reasons

    accepted, anchor, pairs = run.standing.anchor, judgement.anchor, facts.pairs()
    configs = {"theta": run.config, "delta": run.config, "phi": accepted}
    changes = tuple(
        evidence.FoundChange(
            pair=pair,
            metric=row.metric,
            segment=row.segment,
            value=row.value,
            day_variance=found.influences.days[row.metric, row.segment].variance,
            day_freedom=found.influences.days[row.metric, row.segment].freedom,
        )
        for pair, found in pairs.items()
        if (config := configs[pair]) is not None
        and not void_reasons(found.comparison, config.model_gate, config.features.heads)
        for row in found.comparison.pooled
    )
    columns = {
        change.column: pairs[change.pair].influences.columns[(change.metric, change.segment)]
        for change in changes
    }
    cycle = evidence.JudgedCycle(
        run_id=run.run_id,
        run_uri=run.run_uri,
        as_of=run.as_of,
        holdout=judgement.comparison.holdout,
        judged_at=now,
        entry=run.newest_entry.number,
        spent=anchor.recipe.spent if anchor and judgement.verdict.becomes_anchor else (),
        challenger_recipe=run.config.recipe_digest,
        challenger_name=run.config.recipe,
        anchor_recipe=accepted.recipe_digest if accepted and anchor else "",
        codes=(run.code_digest, fresh.code_digest),
        champion_bundle=run.champion.bundle_digest if run.champion else "",
        may_promote=run.may_promote,
        changes=changes,
        line=_line_of(run, judgement),
    )
    evidence.publish(run, cycle, facts.theta.influences.groups, columns)


def _open_runs(client: "MlflowClient", run: ResolvedRun, judgement: Judgement) -> list[str]:
    """Open the MLflow runs of all sides before they are logged: the outcome says where they are.

    That of the champion gets the recipe that made it, where the history has one that can be read.
    """
    comparison, anchor = judgement.comparison, judgement.anchor
    baseline = comparison.baseline_label.removeprefix("the ")
    sides = {"challenger": comparison.challenger_model.label, "baseline": baseline}
    sides |= {"anchor": anchor.model.label} if anchor else {}
    opened = [tracking.open_run(client, run, side, label) for side, label in sides.items()]
    known = history.load(run.workspace_uri, run.registered_model)
    recipe = run.champion and known.recipe_of(run.champion)
    if recipe and recipe.digest:
        tracking.log_config(client, opened[1], recipe.parse())
    return opened


def log_sides(
    client: "MlflowClient", run: ResolvedRun, judgement: Judgement, out_dir: Path
) -> None:
    """Log each side as an MLflow run, and the verdict as a tag of the side that it is about.

    Where it ends early a later call completes it, and writes nothing twice. The judgement has its
    outcome, and the folder holds the verdict page.
    """
    from validation.report.pages import for_mlflow

    comparison, anchor, outcome = judgement.comparison, judgement.anchor, judgement.outcome
    challenger = comparison.challenger_model
    assert outcome is not None, "MLflow tells the outcome"
    tags, page = {"verdict": str(outcome.decision)}, {tracking.DESCRIPTION: to_markdown(outcome)}
    own = _side_metrics(comparison, "challenger", judgement.serving)
    own |= _change_metrics(outcome.change)
    baseline, theirs = comparison.baseline_label.removeprefix("the "), "baseline"
    # The page lies on all sides: MLflow's table of a comparison fails at a run without files.
    addresses = dict(outcome.links)
    shown = for_mlflow((out_dir / VERDICT_PAGE).read_text("utf-8"), addresses["Verdict page"])
    others = _side_metrics(comparison, theirs)
    tracking.log_side(client, run, "challenger", challenger.label, own, tags | page, shown)
    tracking.log_side(client, run, theirs, baseline, others, page, shown)
    if anchor is not None:
        its = {"verdict": "PROMOTE"} if judgement.verdict.promoted is Promoted.ANCHOR else {}
        fresh = _side_metrics(anchor.freshness, "challenger", anchor.serving)
        if outcome.change is not None:  # else the comparison is void
            fresh |= _change_metrics(anchor.freshness.target_change)
        tracking.log_side(client, run, "anchor", anchor.model.label, fresh, its | page, shown)
        registry.tag_version(client, anchor.model, its, page[tracking.DESCRIPTION])
    registry.tag_version(client, challenger, tags, page[tracking.DESCRIPTION])
    place = tracking.experiment_id_of(client, run)
    listed = cycles_address(run.tracking_uri, place, is_chart=True)
    said = f"[Of all cycles]({listed}), that of {run.as_of:%Y-%m-%d} was judged last: "
    said += f"{as_markdown(outcome.title)}. [What serves now]({addresses[HOME]})"
    experiment_page.show_cycle(client, place, comparison.target_metric, said)
    if run.champion is not None and outcome.change is not None:
        experiment_page.add_change(client, run, place, outcome.change)


def _change_metrics(change: Interval | None) -> dict[str, float]:
    """Return a change of the target metric with its interval, in percent; {} if not known."""
    found = {"change": change.value, "low": change.low, "high": change.high} if change else {}
    return {f"decision/{name}_percent": round(100 * v, 3) for name, v in found.items()}


def _side_metrics(
    comparison: Comparison, side: str, serving: ServingCheck | None = None
) -> dict[str, float]:
    """Return one side's numbers under the names that both sides use in MLflow.

    Segment 'all' is logged as `holdout/<metric>`, others as `holdout_<segment>/<metric>`. A number
    that a side lacks is left out: popularity has no probabilities. The target metric stands beside
    the change that decides once more.
    """
    found = {}
    for row in comparison.metrics:
        value = row.challenger if side == "challenger" else row.baseline
        if value is not None:
            group = "holdout" if row.segment == "all" else f"holdout_{row.segment}"
            found[f"{group}/{row.metric}"] = value
            if (row.segment, row.metric) == ("all", comparison.target_metric):
                found[f"decision/{row.metric}"] = value
    figures = serving.model_dump(include=SERVING_METRICS) if serving else {}
    told = {f"serving/{name}": value for name, value in figures.items() if value is not None}
    return found | told
