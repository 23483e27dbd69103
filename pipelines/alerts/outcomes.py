"""The outcome of a cycle in words: one function, whose value every place shows as it is.

The alert, the verdict page and the command line all show what is composed here, so that they never
disagree. Which model serves is read from the history when it is told, and what became of the cycle
since it was judged from its records. Not for what is told of a cycle that was not judged
(`pipelines.alerts.compose`), nor for how a command is spelled (`pipelines.alerts.commands`).
"""

import shlex
from datetime import timedelta
from typing import NamedTuple

from pipelines.alerts.commands import (
    Offered,
    command_at,
    force_command,
    homefeed,
    new_cycle_command,
    rollback_command,
    step,
)
from pipelines.alerts.links import Links, links_of, page_link
from pipelines.contracts.alert import NextStep
from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, ResolvedRun
from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import (
    Approval,
    Comparison,
    Decision,
    Direction,
    Judgement,
    Outcome,
    Promoted,
    Promotion,
)
from pipelines.contracts.reasons import Interval
from pipelines.plain_text import one_line
from pipelines.recipes.text import differences
from pipelines.registry import history
from pipelines.settings import Settings

APPROVAL_TASK = "approve_promotion"
"""The task that asks whether a model may serve, where the recipe wants a person to say so."""
_VOID = "the comparison is void and its numbers count for nothing"
_SHORT = {
    "floor_broken": "{metric} is outside its floor",
    "floor_doubtful": "{metric} may be outside its floor",
    "guardrail_broken": "{metric} breaks its guardrail",
    "guardrail_doubtful": "{metric} may break its guardrail",
    "guardrail_broken_by_difference": "{metric} breaks its guardrail",
    "guardrail_spent": "{metric} breaks its guardrail over several recipes",
    "segment_broken": "segment {segment} loses too much",
    "segment_doubtful": "segment {segment} may lose too much",
    "head_not_finite": "head {head} gives no finite numbers",
    "head_constant": "head {head} is constant",
    "head_below_chance": "head {head} ranks worse than chance",
    "head_out_of_calibration": "head {head} is out of calibration",
    "recipe_worse": "its recipe is worse than the accepted one",
    "line_worse": "it and the recipes before it are together worse than the accepted one",
    "recipe_not_shown": "its recipe is not known to be as good as the accepted one",
    "baseline_beats": "{baseline} beats it",
    "baseline_doubtful": "it does not surely beat {baseline}",
    "few_users": "the holdout has too few users",
    "sample_small": "too few of the holdout's users were scored",
    "lift_implausible": "it gains more than is plausible",
    "serving_golden": "its example rows do not score as they did",
    "serving_slow": "it takes too long to answer",
    "serving_waits": "it takes longer to answer than the champion may",
    "serving_memory": "it takes too much memory",
    "serving_saturated": "its scores stick at 0 or 1",
    "serving_constant": "its scores are all the same",
    "target_not_shown": "it is not known to be good enough",
}
"""Why a model was not promoted, by the code of the reason that decided, for titles."""
_LOST = ("target_lost", "target_not_shown", "baseline_beats", "baseline_doubtful")
"""Codes of reasons by which a simple ranking stands in a model's way, where one is compared."""
_TOLD_FIELDS = 4
"""Fields of a recipe that are named where two differ; more are counted."""


class Since(NamedTuple):
    """What became of a cycle since it was judged, as far as that is so yet."""

    promotion: Promotion | None = None
    approval: Approval | None = None


NOTHING_YET = Since()


def outcome_of(
    run: ResolvedRun,
    judgement: Judgement,
    report: DataReport | None,
    settings: Settings,
    in_mlflow: Links = (),
    is_void: bool = False,
    since: Since = NOTHING_YET,
    serves: str | None = None,
) -> Outcome:
    """Return what people are told about a cycle, and which model serves at this instant.

    Args:
        run: The cycle.
        judgement: What was found and ruled, with the page's published place.
        report: What the data gate found; None where that is not known.
        settings: Addresses for the links.
        in_mlflow: Where MLflow shows the comparison.
        is_void: Whether nothing follows from the comparison, whatever its numbers are.
        since: What became of it since.
        serves: Which model serves; None: it is read.
    """
    comparison, verdict = judgement.comparison, judgement.verdict
    change = None if is_void else comparison.target_change
    direction = direction_of(change)
    reasons = tuple(map(one_line, verdict.reasons))
    percent = f": {_percent(change)}" if change else ""
    told = _VOID if is_void else f"{comparison.target_metric} {direction}{percent}"
    done, next_step = _fate(run, judgement, since)
    return Outcome(
        decision=verdict.decision.value,
        title=f"{comparison.challenger_model.label} {_finding(run, judgement, since)}, {told}",
        serves=what_serves(run.workspace_uri, run.registered_model) if serves is None else serves,
        metric=comparison.target_metric,
        direction=direction,
        change=change,
        number=f"{_VOID.capitalize()}." if is_void else _number(comparison, bool(run.candidates)),
        why=reasons[0],
        reasons=reasons,
        most_hurt="" if is_void else _most_hurt(comparison, run.config.model_gate),
        warnings=(
            *([judgement.skew.sentence] if judgement.skew and judgement.skew.is_fault else ()),
            *(map(_warning, report.warnings) if report else ()),
        ),
        changed=_what_changed(run),
        done=done,
        next_step=next_step,
        links=(
            ("Verdict page", page_link(judgement.report_uri, run.workspace_uri, settings)),
            *in_mlflow,
            *links_of(run, settings, report),
        ),
    )


def what_serves(workspace_uri: str, registered_model: str) -> str:
    """Say which model serves now, by the history of its moves."""
    try:
        known = history.load(workspace_uri, registered_model)
    except HomefeedError as error:
        return f"Which model serves could not be read: {one_line(str(error))}"
    if known.is_newest_damaged:
        return "Which model serves is not known: the newest entry of its history is damaged."
    if (last := known.in_time.last) is None:
        return "There is no champion yet."
    named = f"{last.model.label} (as_of {last.model.as_of:%Y-%m-%d})"
    if known.pending:
        return f"{named} was made champion, and MLflow's alias is about to follow."
    by_hand = "" if last.kind == "promotion" else f" ({last.kind}: {one_line(last.reason)})"
    return f"{named} serves since {last.moved_at:%Y-%m-%d %H:%M} UTC{by_hand}."


def direction_of(change: Interval | None) -> Direction:
    """Return what an interval of a change says about its direction."""
    if change is None:
        return "not compared"
    if change.high < 0:
        return "worse"
    return "better" if change.low > 0 else "cannot tell"


def needs_somebody(run: ResolvedRun, judgement: Judgement) -> bool:
    """Return whether a person has to decide something before a cycle like this one promotes."""
    is_nothing = judgement.verdict.promoted is Promoted.NONE
    return is_nothing and bool(judgement.problem or judgement.hold or _num_waited(run))


def _num_waited(run: ResolvedRun) -> int:
    """Return the cycles without a promotion where they are too many, else 0."""
    number = len({*run.standing.unpromoted, run.as_of})
    is_long = run.may_promote and number >= run.config.model_gate.max_unpromoted_cycles
    return number if is_long else 0


def _fate(run: ResolvedRun, judgement: Judgement, since: Since) -> tuple[str, NextStep]:
    """Return what the pipeline does or did with the models, and what a person may do."""
    model, challenger = judgement.promoted_model, judgement.comparison.challenger_model
    stays_out = f"{challenger.label} was not promoted."
    if model is None:
        return stays_out, _after_no_promotion(run, judgement)
    if not run.may_promote:
        told = "This run may not promote: it is a backfill, or promotion was switched off."
        again = ("Run the cycle allowed to promote:", new_cycle_command(run, may_promote=True))
        return stays_out, step(told, *(() if run.later_champion else (again,)))
    asked, approval = run.config.promotion.approval, since.approval
    if approval is not None and not approval.is_given:
        told = "The question is closed. The next cycle asks about its own model."
        return f"{stays_out} {one_line(approval.sentence)}", step(told)
    is_done = since.promotion is not None and since.promotion.is_promoted
    if asked and approval is None and not is_done and judgement.waits_for_approval(run):
        who = one_line(" or ".join(asked.by)) or "somebody"
        told = f"Approve or reject in Airflow, in the run's task {APPROVAL_TASK}."
        return (
            f"{model.label} waits to be approved by {who}, for {asked.within_hours:g} h at most.",
            step(f"{told} Without an answer nothing is promoted."),
        )
    verb, told = "is", f"The pipeline makes {model.label} the champion, unless it has changed."
    if is_done:
        verb, told = "was", "Nothing has to be done. A rollback takes the promotion back."
    done = f"{challenger.label} {verb} promoted."
    if judgement.verdict.promoted is Promoted.ANCHOR:
        done = f"{model.label}, the accepted recipe made fresh, {verb} promoted in its place."
    if approval is not None:
        done = f"{done} {one_line(approval.sentence)}"
    if run.champion is None:
        return done, step(told)
    # The versions are named: what `rollback` alone does depends on what serves by then.
    command = rollback_command(run, run.champion.version, model.version)
    return done, step(told, (f"Go back to {run.champion.label}:", command))


def _after_no_promotion(run: ResolvedRun, judgement: Judgement) -> NextStep:
    recipe, told, offered = run.config, _how_to_win(run, judgement), tuple[Offered, ...]()
    accept = command_at(
        run, f"anchor set --recipe {shlex.quote(recipe.reference)} --reason 'why it is accepted'"
    )
    if judgement.problem:
        offered += (("Name the accepted recipe:", accept),)
    elif run.standing.hold:
        release = f"anchor release --recipe {recipe.recipe_digest[:12]}"
        release = command_at(run, f"{release} --reason 'why it may come back'")
        offered += (("Let the recipe be promoted again:", release),)
    elif judgement.hold:
        offered += (("Once you have looked at the long-term line, accept a recipe:", accept),)
    elif judgement.verdict.grounds[0].code == "lift_implausible":
        told = "Look for a column that tells the label: in the data report, and in what it ranks."
        offered += (("If the gain is real, promote this challenger:", force_command(run)),)
    elif waited := _num_waited(run):
        told = f"Nothing was promoted in {waited} cycles: somebody has to decide."
        offered += (
            ("Promote this challenger in spite of the verdict:", force_command(run)),
            ("Accept this run's recipe, so that later ones are held to it:", accept),
        )
    if judgement.verdict.decision is Decision.REJECT:
        if judgement.certain_losses and not judgement.comparison.is_first_cycle:
            why = homefeed(f"explain {shlex.quote(run.run_uri)}")
            offered += (("Find out what the loss comes from:", why),)
        again = ("After a fix of recipe, data or code:", new_cycle_command(run))
        return step(told or "Nothing has to be run: mend what the reason names.", *offered, again)
    # The same holdout is not asked again: trying until it agrees would make chance the judge.
    as_of = run.as_of + timedelta(days=run.config.snapshot.holdout_days)
    fresh = f"From {as_of:%Y-%m-%d} on, on a fresh holdout:"
    offered += ((fresh, new_cycle_command(run, as_of=as_of)),)
    return step(told or "Nothing has to be done: the next cycle judges on fresh days.", *offered)


def _how_to_win(run: ResolvedRun, judgement: Judgement) -> str:
    """Say which simple ranking wins, and which line of the recipe shows the model what it ranks by.

    '' where something else decided.
    """
    from validation.model_gate.baselines import lacking

    lost = (row.name for row in judgement.baselines if row.change and row.change.high < 0)
    winner = next(lost, judgement.comparison.baseline_name)
    if not winner or judgement.verdict.grounds[0].code not in _LOST:
        return ""
    start = f"{winner[0].upper()}{winner[1:]}"
    if names := lacking(winner, run.config.features):
        lines = ", ".join(f"{{name: {name}}}" for name in names)
        return f"{start} ranks by what the model is not told: add to features.numeric {lines}."
    return (
        f"{start} ranks by what the model is told too: train it on more days, or in smaller "
        f"batches (snapshot.training_days, training.batch_size)."
    )


def _what_changed(run: ResolvedRun) -> str:
    """Say what is new against the champion: fields of the recipe, days and code."""
    if run.champion is None:
        return "All is new: no model served."
    standing = run.standing
    told = [f"rows up to {run.champion.as_of:%Y-%m-%d} -> {run.as_of:%Y-%m-%d}"]
    if standing.anchor is not None:
        fields = differences(standing.anchor, run.config)
        told += fields[:_TOLD_FIELDS]
        if len(fields) > _TOLD_FIELDS:
            told.append(f"{len(fields) - _TOLD_FIELDS} more fields of the recipe")
    if standing.anchor_code_digest not in ("", run.code_digest):
        told.append(f"code {standing.anchor_code_digest[:8]} -> {run.code_digest[:8]}")
    return one_line("; ".join(told))


def _finding(run: ResolvedRun, judgement: Judgement, since: Since) -> str:
    """Return what became of the challenger and why, as the end of a sentence about it."""
    if judgement.verdict.promoted is Promoted.CHALLENGER:
        if not run.may_promote:
            return "may be promoted, and this run promotes nothing"
        if since.approval is not None and not since.approval.is_given:
            return "was not approved"
        if since.promotion is not None and since.promotion.is_promoted:
            return "was promoted"
        waits = judgement.waits_for_approval(run) and since.approval is None
        return "is promoted if a person approves" if waits else "is promoted"
    is_rejected = judgement.verdict.decision is Decision.REJECT
    # The first reason, unless it is too long for a title.
    grounds = judgement.verdict.grounds[:1]
    why = "".join(one_line(_SHORT.get(r.code, "").format(**r.facts)) for r in grounds)
    return f"was {'rejected' if is_rejected else 'not promoted'}{f': {why}' if why else ''}"


def _percent(change: Interval) -> str:
    value, low, high = (100 * each for each in (change.value, change.low, change.high))
    return f"{value:+.2f} % ({100 * change.confidence:g} %: {low:+.2f} to {high:+.2f} %)"


def _number(comparison: Comparison, is_drawn: bool) -> str:
    """Return the change with interval, sizes and power, or that there is none."""
    rows = comparison.size + (" (whose candidates were drawn, not logged)" if is_drawn else "")
    row = comparison.target
    if row is None or row.relative_change is None:
        return f"{comparison.target_metric} could not be compared on {rows}; the gate fails closed."
    return (
        f"{comparison.target_metric}: {row.challenger:.4f} against {row.baseline:.4f} "
        f"({comparison.baseline_label}), {_percent(row.relative_change)}, on {rows}. This holdout "
        f"shows changes of {comparison.detectable_change} and more with 80 % power."
    )


def _most_hurt(comparison: Comparison, gate: ModelGateConfig) -> str:
    """Name what is surely lost, of segments and guardrails, or else the two lowest segments."""
    # Of an unwanted action more is worse.
    rails = {rail.metric: rail.max_decrease is None for rail in gate.guardrails}
    found = []
    for row in comparison.metrics:
        is_segment = row.metric == comparison.target_metric and row.segment != "all"
        if row.relative_change and (is_segment or (row.segment == "all" and row.metric in rails)):
            is_turned = not is_segment and rails[row.metric]
            change = row.relative_change.times(-1.0 if is_turned else 1.0)
            told = f"{row.segment if is_segment else row.metric} {_percent(row.relative_change)}"
            found.append((change.value, change.high < 0, is_segment, one_line(told)))
    lost = [each for each in found if each[1]]
    lowest = [each for each in found if each[0] < 0 and each[2]]
    told = "; ".join(told for *_, told in sorted(lost or lowest)[:2])
    start = "Surely worse" if lost else "No segment surely loses; the lowest"
    return f"{start}: {told}." if told else ""


def _warning(found: ExpectationOutcome) -> str:
    where = f" in {', '.join(found.partitions[:3])}" if found.partitions else ""
    return one_line(
        f"The data gate warned of {found.name}: found {found.observed}{where}; expected "
        f"{found.expected}."
    )
