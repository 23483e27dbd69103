"""Verdicts on three models: challenger, fresh anchor and champion, with evidence pooled.

Of validation/model_gate/verdict.py and examine.py; the rules on the challenger alone are in
test_verdict.py.
"""

from typing import Any

import pytest

from pipelines.contracts.artifacts import Standing
from pipelines.contracts.judgement import (
    AnchorFacts,
    Comparison,
    Decision,
    Promoted,
    SelfTest,
    ServingCheck,
    Verdict,
)
from pipelines.contracts.reasons import BaselineKind, Interval, PooledChange, Reason
from pipelines.recipes import smoke
from support.comparisons import CONFIG, SOUND, TARGET, change, comparison
from support.holdouts import HEADS
from support.judgements import BEATEN, CHALLENGER, SERVING, SLOW
from validation.model_gate.verdict import decide

PROBLEM = "Serving check: latency p99 is 300 ms, beyond the 250 ms allowed."
BROKEN = SERVING.model_copy(update={"problems": (SLOW,)})
DOUBT = "Self-test: not possible, the challenger's target metric is zero."
DOUBTED = SelfTest(findings=SOUND.findings, doubts=(Reason.of("test_without_target"),))
FEATURES = smoke().features.model_copy(update={"heads": HEADS, "action_types": ("repin", "hide")})
ACCEPTED = Standing(anchor=smoke().model_copy(update={"model_gate": CONFIG, "features": FEATURES}))


def pooled(value: float, num_cycles: int, error: float, alone: float = 0.01) -> PooledChange:
    """Return a change of the target; `alone` is the error on this cycle's holdout."""
    return PooledChange(
        metric=TARGET,
        segment="all",
        value=value,
        error=alone,
        pooled_value=value,
        pooled_error=error,
        num_cycles=num_cycles,
    )


def three(
    theta: float, delta: float, phi: float, serving: ServingCheck = SERVING, **fields: Any
) -> tuple[Comparison, AnchorFacts]:
    """Return the comparison with the champion, and what is known of the fresh anchor."""
    fresh = CHALLENGER.model_copy(update={"version": "5", "bundle_digest": "f" * 64})
    recipe = comparison(change(delta), baseline_kind=BaselineKind.ANCHOR, baseline_model=fresh)
    freshness = comparison(change(phi), challenger_model=fresh, **fields)
    facts = AnchorFacts(
        model=fresh, recipe=recipe, freshness=freshness, self_test=SOUND, serving=serving
    )
    return comparison(change(theta)), facts


def decide_on(
    found: Comparison, anchor: AnchorFacts | None, standing: Standing = ACCEPTED
) -> Verdict:
    return decide(found, SOUND, SERVING, CONFIG, HEADS, anchor, standing, BEATEN)


def test_a_recipe_that_is_surely_better_than_the_fresh_anchor_becomes_the_anchor() -> None:
    verdict = decide_on(*three(0.02, 0.01, 0.01))
    assert (verdict.decision, verdict.promoted) == (Decision.PROMOTE, Promoted.CHALLENGER)
    assert verdict.becomes_anchor
    assert "of the fresh anchor test_ranker v5: +1.00 %" in verdict.reasons[1]
    even = decide_on(*three(0.01, 0.0002, 0.01))
    assert (even.promoted, even.becomes_anchor) == (Promoted.CHALLENGER, False)
    first = comparison(baseline_kind=BaselineKind.RANKING, baseline_model=None)
    assert decide_on(first, None, Standing()).becomes_anchor
    # A run of before the record was kept: its recipe is not accepted unjudged.
    assert not decide_on(comparison(), None, Standing()).becomes_anchor
    assert not decide_on(comparison(), None).becomes_anchor  # it is the accepted recipe


def test_freshness_does_not_hide_a_worse_recipe_and_a_worse_recipe_costs_no_freshness() -> None:
    verdict = decide_on(*three(0.02, -0.005, 0.025))
    assert (verdict.decision, verdict.promoted) == (Decision.REJECT, Promoted.ANCHOR)
    assert "The recipe is surely worse than the accepted one." in verdict.reasons[0]
    assert "In its place test_ranker v5 is promoted" in verdict.reasons[1]
    assert not verdict.becomes_anchor


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"num_users": 49}, "49 users"),
        ({"hide": change(0.5)}, "beyond its guardrail"),
        ({"calibration": 2.0}, "outside its floor"),
        ({"serving": BROKEN}, PROBLEM),
    ],
)
def test_an_unsound_anchor_is_not_promoted_either(fields: dict[str, Any], why: str) -> None:
    verdict = decide_on(*three(-0.05, -0.07, 0.02, **fields))
    assert (verdict.decision, verdict.promoted) == (Decision.REJECT, Promoted.NONE)
    assert "test_ranker v5, is not promoted either" in verdict.reasons[1]
    assert why in verdict.reasons[1]


def test_what_stands_against_the_challenger_alone_does_not_stop_the_anchor() -> None:
    """A bundle that would not serve, a doubt; but a doubt about the anchor itself does."""
    found, anchor = three(0.02, 0.01, 0.02)
    verdict = decide(found, SOUND, BROKEN, CONFIG, HEADS, anchor, ACCEPTED)
    assert (verdict.decision, verdict.promoted) == (Decision.REJECT, Promoted.ANCHOR)
    assert verdict.reasons[0] == PROBLEM
    verdict = decide(found, DOUBTED, SERVING, CONFIG, HEADS, anchor, ACCEPTED)
    assert (verdict.decision, verdict.promoted) == (Decision.INCONCLUSIVE, Promoted.ANCHOR)
    doubted = anchor.model_copy(update={"self_test": DOUBTED})
    verdict = decide(found, DOUBTED, SERVING, CONFIG, HEADS, doubted, ACCEPTED)
    assert verdict.promoted is Promoted.NONE
    assert f"test_ranker v5, is not promoted either: {DOUBT}" in verdict.reasons[1]
    # It is judged by its own recipe's margin.
    strict = CONFIG.model_copy(update={"margin": 0.0001, "recipe_margin": 0.0001})
    found, anchor = three(-0.02, -0.02, -0.002)
    verdict = decide(found, SOUND, SERVING, strict, HEADS, anchor, ACCEPTED)
    assert (verdict.decision, verdict.promoted) == (Decision.REJECT, Promoted.ANCHOR)


def test_recipes_may_make_the_same_model_and_hides_may_not_creep_against_the_anchor() -> None:
    found, anchor = three(0.02, 0.01, 0.01)
    same = anchor.recipe.model_copy(update={"are_scores_identical": True})
    verdict = decide_on(found, anchor.model_copy(update={"recipe": same}))
    assert verdict.promoted is Promoted.CHALLENGER
    of_anchor = {"baseline_kind": BaselineKind.ANCHOR, "baseline_model": anchor.model}
    recipe = comparison(change(0.01), hide=change(0.05), **of_anchor)
    verdict = decide_on(found, anchor.model_copy(update={"recipe": recipe}))
    assert (verdict.decision, verdict.promoted) == (Decision.REJECT, Promoted.ANCHOR)
    assert "against the fresh anchor, beyond its guardrail" in verdict.reasons[0]


def test_against_the_anchor_floors_do_not_count_and_all_cycles_do() -> None:
    found, anchor = three(0.02, 0.01, 0.01)
    of_anchor = {"baseline_kind": BaselineKind.ANCHOR, "baseline_model": anchor.model}
    recipe = comparison(change(0.01), calibration=2.0, **of_anchor)
    verdict = decide_on(found, anchor.model_copy(update={"recipe": recipe}))
    assert verdict.promoted is Promoted.CHALLENGER
    unsure, worse = change(-0.005, -0.02, 0.01), pooled(-0.005, 5, 0.001)
    recipe = comparison(unsure, pooled=(worse,), **of_anchor)
    verdict = decide_on(found, anchor.model_copy(update={"recipe": recipe}))
    assert verdict.decision is Decision.REJECT
    assert "The recipe is surely worse than the accepted one." in verdict.reasons[0]


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        ({"problem": "The accepted recipe is not known."}, "The accepted recipe is not known."),
        ({"hold": "Recipe 'x' is on hold."}, "Recipe 'x' is on hold."),
    ],
)
def test_what_is_on_record_may_stop_a_promotion(standing: dict[str, str], said: str) -> None:
    verdict = decide_on(comparison(), None, ACCEPTED.model_copy(update=standing))
    assert (verdict.decision, verdict.promoted) == (Decision.INCONCLUSIVE, Promoted.NONE)
    assert verdict.reasons[0] == said
    rejected = decide_on(comparison(change(-0.1)), None, ACCEPTED.model_copy(update=standing))
    assert rejected.decision is Decision.REJECT
    assert said in rejected.reasons  # a person has to act on it all the same


def test_a_recipe_on_hold_does_not_stop_the_accepted_one() -> None:
    held = ACCEPTED.model_copy(update={"hold": "Recipe 'x' is on hold."})
    assert decide_on(*three(0.02, 0.01, 0.01), held).promoted is Promoted.ANCHOR
    lost = ACCEPTED.model_copy(update={"problem": "It cannot be made any more."})
    assert decide_on(*three(0.02, 0.01, 0.01), lost).promoted is Promoted.NONE


def test_pooled_evidence_promotes_what_one_holdout_cannot() -> None:
    wide = change(0.001, -0.019, 0.021)
    assert decide_on(comparison(wide), None).decision is Decision.INCONCLUSIVE
    several = comparison(wide, pooled=(pooled(0.001, 5, 0.004),))
    verdict = decide_on(several, None)
    assert verdict.decision is Decision.PROMOTE
    assert "Pooled over 5 cycles it is +0.10 %" in verdict.reasons[0]


def test_a_guardrail_is_pooled_and_one_bad_challenger_is_not_excused() -> None:
    def with_hide(now: Interval, value: float, error: float) -> Verdict:
        row = pooled(value, 6, error).model_copy(update={"metric": "hit_at_3.hide"})
        return decide_on(comparison(hide=now, pooled=(row,)), None)

    unsure = change(0.03, -0.05, 0.11)
    assert with_hide(unsure, 0.001, 0.003).decision is Decision.PROMOTE
    crept = with_hide(unsure, 0.04, 0.005)
    assert crept.decision is Decision.REJECT
    assert "pooled over 6 cycles, beyond its guardrail" in crept.reasons[0]
    bad = with_hide(change(0.3, 0.2, 0.4), 0.001, 0.003)
    assert bad.decision is Decision.REJECT
    assert "+30.00 %" in bad.reasons[0]
