"""The verdict: what may happen next, given all the facts. Pure, and the only place that rules.

These are all the rules on the challenger, in the order in which they are tried:

1. **Serving**: the serving check found a problem: REJECT. This holds even where the comparison
   is void, because it is known that the bundle would not serve.
2. **Void**: the comparison says nothing about the challenger (two holdouts, a side that was
   trained on rows of the holdout, the same model twice, another target metric, too few users,
   an empty required segment, a missing or non-finite threshold): INCONCLUSIVE. REJECT would be
   an accusation without evidence.
3. **REJECT**: a number that a rule needs is absent because the challenger's own scores are not
   finite; the whole interval of the change in the target metric lies below minus the margin; a
   bound is broken, which means that the whole interval lies beyond it: a floor, a guardrail,
   the margin of a required segment, or what is asked of every head (`limits`); or the recipe is
   surely worse than the fresh anchor, over all cycles of the pair.
4. **A gap**: a number that a rule needs could not be computed for another reason: INCONCLUSIVE.
5. **Held back**: an interval straddles a guardrail or a segment's margin, and the holdout could
   have seen a change of that size; or a guarded metric has more likely than not moved beyond its
   bound over several recipes; or a level lies outside its floor, though not surely; or the change
   is larger than earlier cycles make plausible, as where a label leaks; or the recipe was rolled
   back and nobody has released it: INCONCLUSIVE.
6. **Not shown**: the pooled change against the champion is not above minus the margin, or that
   against the fresh anchor is not above minus the recipe's margin: INCONCLUSIVE.
7. **A doubt**: the gate's self-test raised one, or was not run: INCONCLUSIVE.
8. **PROMOTE** otherwise.

Where the challenger is not promoted, the fresh anchor is, if it holds the same bounds against
the champion, would serve, and is shown to be above minus the margin: a worse recipe never costs
freshness. Where a model serves whose recipe nobody can read or make, nothing is promoted until
a person says which recipe is accepted. In every other case the champion stays.

In the first cycle the baseline is a simple one (`baselines`). Against a ranking the margin is zero
in 3 and 6, and the whole two-sided interval must be above it: no champion has aged, so that
freshness is worth nothing. Where the recipe asks for it, every other ranking must be beaten
likewise, and the logistic regression may not be better by more than the margin.
Guardrails and segments are judged against the baseline as they are against a champion.

A holdout of many users can be sure of a loss that is smaller than the margin. Such a challenger
is promoted, because freshness is worth the margin; the first reason says that the loss is
certain, and people are alerted.

Not for computing facts (`validation.model_gate.facts`, `training.bundle.serving_check`), nor for
acting on the verdict (`pipelines.registry.moves`).
"""

from pipelines.contracts.artifacts import Standing
from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.judgement import (
    AnchorFacts,
    Comparison,
    Decision,
    Promoted,
    SelfTest,
    ServingCheck,
    Verdict,
)
from pipelines.contracts.reasons import BaselineFacts, Reason
from validation.model_gate.examine import Examined, examine, margin_of
from validation.model_gate.policy import Evidence, choose, is_surely_better

FIRST = Standing()
"""Nothing is on record: no model was ever promoted."""


def decide(
    comparison: Comparison,
    self_test: SelfTest | None,
    serving: ServingCheck | None,
    config: ModelGateConfig,
    heads: tuple[Head, ...],
    anchor: AnchorFacts | None = None,
    standing: Standing = FIRST,
    baselines: tuple[BaselineFacts, ...] = (),
) -> Verdict:
    """Return decision, promoted model and reasons, by the rules at the top of this module.

    Args:
        comparison: The challenger against the baseline.
        self_test: What the gate found of itself on the same rows; None for a model that it planted.
        serving: Whether the challenger's bundle would serve; None for a planted one (rules 2 to 6).
        config: Thresholds, from the run's configuration.
        heads: The model's heads; an unwanted one must be guarded.
        anchor: The fresh anchor, where one was trained.
        standing: What is on record about recipes.
        baselines: The simple baselines of this cycle; without one, no first champion is promoted.
    """
    accepted, doubts = standing.anchor, _doubts(self_test) if self_test else ()
    problems = serving.problems if serving else ()
    said = (standing.problem, standing.hold)
    obstacles = tuple(Reason.of("on_record", text=text) for text in said if text)
    mine = examine(comparison, config, heads, baselines)
    recipe = examine(anchor.recipe, config, heads) if anchor else None
    fresh: Examined | None = None
    against: tuple[Reason, ...] = ()  # What stands against it in the champion's place.
    if anchor is not None and accepted is not None:
        fresh = examine(anchor.freshness, accepted.model_gate, accepted.features.heads)
        of_fresh = (*(fresh.why_not if fresh.stops else ()), *_doubts(anchor.self_test))
        against = (*anchor.serving.problems, *of_fresh)
    evidence = Evidence(
        mine.change,
        recipe.change if recipe else None,
        fresh.change if fresh else None,
        is_broken=bool(problems or mine.broken or (recipe and recipe.broken)),
        is_held_back=any((doubts, obstacles, mine.is_held_back, recipe and recipe.is_held_back)),
        is_anchor_sound=fresh is not None and not (standing.problem or against),
        anchor_margin=accepted.model_gate.margin if accepted else None,
        num_tries=comparison.num_tries,
    )
    outcome = choose(evidence, config, margin_of(comparison, config.margin))
    grounds = _grounds(outcome.decision, mine, recipe, obstacles, doubts)
    if anchor is not None and fresh is not None and outcome.promoted is not Promoted.CHALLENGER:
        is_promoted = outcome.promoted is Promoted.ANCHOR
        because = fresh.target if is_promoted else (*against, Reason.of("anchor_unreliable"))[0]
        code = "anchor_promoted" if is_promoted else "anchor_not_promoted"
        on_anchor = Reason.of(code, model=anchor.model.label, because=because)
        grounds = (grounds[0], on_anchor, *grounds[1:])
    is_better = recipe and recipe.change and is_surely_better(recipe.change) and not recipe.is_open
    is_first = accepted is None and comparison.baseline_model is None
    return Verdict(
        decision=outcome.decision,
        promoted=outcome.promoted,
        becomes_anchor=outcome.promoted is Promoted.CHALLENGER and bool(is_first or is_better),
        grounds=_with_figures(grounds, serving),
    )


def _with_figures(grounds: tuple[Reason, ...], serving: ServingCheck | None) -> tuple[Reason, ...]:
    """Return the grounds with the serving check's figures, which come first if it failed."""
    if serving is None:
        return grounds
    found = (*serving.problems, serving.figures)
    return (*found, *grounds) if serving.problems else (*grounds, *found)


def _grounds(
    decision: Decision,
    mine: Examined,
    recipe: Examined | None,
    obstacles: tuple[Reason, ...],
    doubts: tuple[Reason, ...],
) -> tuple[Reason, ...]:
    """Return why the challenger is judged so, the deciding reasons first.

    A doubt of the self-test is told where it alone stands in the way of a promotion.
    """
    on_target = (mine.target,) if mine.target else ()
    if decision is Decision.PROMOTE:
        about = (recipe.target, *recipe.held) if recipe and recipe.target else ()
        return (*on_target, *about, *mine.held)
    of_recipe = recipe.why_not if recipe is not None and recipe.stops else ()
    if decision is Decision.REJECT:
        broken = (*mine.broken, *(recipe.broken if recipe else ()))
        if broken:
            return (*broken, *mine.missing, *obstacles)
        # The bundle would not serve; what the comparison says comes after.
        return (*mine.why_not, *obstacles)
    if mine.stops:
        return (*mine.why_not, *of_recipe, *obstacles)
    return (*obstacles, *doubts, *of_recipe, *on_target, *mine.held)


def _doubts(self_test: SelfTest) -> tuple[Reason, ...]:
    """Return what the self-test holds against a promotion."""
    if not self_test.findings and not self_test.doubts:
        return (Reason.of("not_tested"),)
    return self_test.doubts
