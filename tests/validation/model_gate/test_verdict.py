"""The verdict's rules, on the challenger alone and on three models with evidence pooled."""

from typing import Any

import pytest

from pipelines.contracts.artifacts import Standing
from pipelines.contracts.config import ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import (
    AnchorFacts,
    Comparison,
    Decision,
    Promoted,
    SelfTest,
    Verdict,
)
from pipelines.contracts.reasons import (
    AbsenceKind,
    BaselineKind,
    Interval,
    Reason,
    Spent,
)
from pipelines.recipes import smoke
from support.comparisons import CONFIG, SOUND, TARGET, absent, change, comparison, metric, pooled
from support.holdouts import HEADS, champion_with
from support.judgements import BEATEN, CHALLENGER, SERVING, SLOW
from validation.model_gate.verdict import decide

PROMOTE, INCONCLUSIVE, REJECT = Decision.PROMOTE, Decision.INCONCLUSIVE, Decision.REJECT
NOT_FINITE, NO_ACTION = AbsenceKind.NOT_FINITE, AbsenceKind.NO_ACTION
CALIBRATION, HIDE = "calibration_ratio.repin", "hit_at_3.hide"
RAIL = CONFIG.guardrails[0]
PROBLEM = "Serving check: a call takes 300 ms of the processor (p99), beyond the 250 ms allowed."
BROKEN = SERVING.model_copy(update={"problems": (SLOW,)})
DOUBT = "Self-test: not possible, the challenger's target metric is zero."
DOUBTED = SelfTest(findings=SOUND.findings, doubts=(Reason.of("test_without_target"),))


def decide_on(
    found: Comparison, config: ModelGateConfig = CONFIG, anchor: AnchorFacts | None = None,
    **update: Any,
) -> Verdict:  # fmt: skip
    values: dict[str, Any] = {"self_test": SOUND, "serving": SERVING, "standing": ACCEPTED}
    values |= {"baselines": BEATEN}
    return decide(found, config=config, heads=HEADS, anchor=anchor, **values | update)


FIRST = {"baseline_kind": BaselineKind.RANKING, "baseline_model": None}
RANKING = "the ranking by popularity"
SAVES = CONFIG.model_copy(
    update={"guardrails": (RAIL, RelativeLimit(metric="hit_at_3.save", max_decrease=0.05))}
)


def at(low: float, high: float, **fields: Any) -> Comparison:
    return comparison(change((low + high) / 2, low, high), **fields)


def saves(by: float) -> Comparison:
    return comparison(add=(metric("hit_at_3.save", change(by)),))


def without(name: str) -> Comparison:
    return comparison(drop=(f"{name}/all",), absent=(absent(name, NOT_FINITE),))


def of_hide(now: Interval, value: float, error: float) -> Comparison:
    return comparison(hide=now, pooled=(pooled(value, 6, error, HIDE),))


FEATURES = smoke().features.model_copy(update={"heads": HEADS, "action_types": ("repin", "hide")})
ACCEPTED = Standing(anchor=smoke().model_copy(update={"model_gate": CONFIG, "features": FEATURES}))
HELD = ACCEPTED.model_copy(update={"hold": "Recipe 'x' is on hold."})
LOST = ACCEPTED.model_copy(update={"problem": "It cannot be made any more."})
VOID, LOSING, WINNING = comparison(num_users=49), comparison(change(-0.1)), at(0.01, 0.03)
WIDE, UNSURE_HIDE = change(0.001, -0.019, 0.021), change(0.03, -0.05, 0.11)
EARLIER = pooled(-0.05, 5, 0.001).model_copy(update={"pooled_value": 0.0})


@pytest.mark.parametrize(
    ("found", "update", "expected", "said"),
    [
        (at(0.01, 0.03), {}, PROMOTE, "+2.00 % (95 % interval +1.00 % to +3.00 %)"),
        (at(-0.0099, 0.02), {}, PROMOTE, "above the -1.00 % required"),  # not worse
        # The one-sided 95 % end, which decides, lies 1.645 standard errors below the value.
        (at(-0.0124, 0.02), {}, PROMOTE, ""),
        (at(-0.0128, 0.02), {}, INCONCLUSIVE, ""),
        # The second try on a holdout is held to 98.5 % in place of 95.
        (at(-0.008, 0.02, num_tries=2), {}, PROMOTE, "-0.95 % at one-sided 98.48 %, is"),
        (at(-0.0124, 0.02, num_tries=2), {}, INCONCLUSIVE, "98.48 %, is not"),
        (at(-0.02, -0.01), {}, INCONCLUSIVE, ""),  # nor wholly below it
        (at(-0.02, -0.0101), {}, REJECT, ""),
        # Surely worse, by less than the margin.
        (at(-0.0015, -0.0005), {}, PROMOTE, "is certain, and smaller than the margin."),
        (at(0.0, 0.0), {}, PROMOTE, ""),
        # The first cycle must beat a ranking: the margin is for freshness.
        (at(0.001, 0.02, **FIRST), {}, PROMOTE, RANKING),
        (at(0.0, 0.02, **FIRST), {}, INCONCLUSIVE, RANKING),
        (at(-0.005, 0.02, **FIRST), {}, INCONCLUSIVE, RANKING),
        (at(-0.02, -0.001, **FIRST), {}, REJECT, RANKING),
        # A guardrail on a decrease looks down.
        (saves(-0.049), {"config": SAVES}, PROMOTE, ""),
        (saves(-0.06), {"config": SAVES}, REJECT,
         "-6.00 % (95 % interval -6.10 % to -5.90 %), beyond its guardrail [-5.00 %, inf]."),
        # A broken floor rejects even where another metric is missing.
        (comparison(calibration=2.0, drop=(HIDE,)), {}, REJECT, "2.0000"),
        # A challenger without numbers is rejected.
        *((without(name), {}, REJECT, f"'{name}' was not computed")
          for name in (TARGET, CALIBRATION, HIDE)),
        # A missing threshold never promotes.
        *((comparison(), {"config": CONFIG.model_copy(update={name: ()})}, INCONCLUSIVE, said)
          for name, said in (("floors", "No absolute floor"),
                             ("guardrails", "'hide' is unwanted"))),
        # It fails closed.
        (comparison(drop=(TARGET,)), {}, INCONCLUSIVE, "'all', so its margin"),
        (comparison(drop=(f"{TARGET}/core",)), {}, INCONCLUSIVE, "'core', so its margin"),
        (comparison(drop=(CALIBRATION,)), {}, INCONCLUSIVE, "its floor cannot be judged"),
        (comparison(drop=(HIDE,)), {}, INCONCLUSIVE, "its guardrail cannot be judged"),
        (comparison(add=(metric(TARGET, None),)), {}, INCONCLUSIVE, "has no interval"),
        (comparison(add=(metric(HIDE, None),)), {}, INCONCLUSIVE, "guardrail cannot be"),
        (comparison(add=(metric(TARGET, None).model_copy(update={"baseline": None}),),
                    absent=(absent(TARGET, NOT_FINITE, side="baseline"),)), {}, INCONCLUSIVE,
         "has no interval: the baseline's scores hold NaN or infinity."),
        (comparison(drop=(CALIBRATION,), absent=(absent(CALIBRATION, NO_ACTION),)), {},
         INCONCLUSIVE, "so its floor cannot be judged: No example has the action."),
        (comparison(target_metric="save_volume_at_3"), {}, INCONCLUSIVE,
         "the target metric 'save_volume_at_3'"),
        (comparison(num_users=49), {}, INCONCLUSIVE, "49 users, expected at least 50"),
        (comparison(segment_users={"all": 50, "core": 50, "non_core": 0}), {}, INCONCLUSIVE,
         "'non_core' has no users"),
        (comparison(segment_users={"all": 50, "core": 50}), {}, INCONCLUSIVE,
         "'non_core' has no users"),
        (comparison(baseline_model=None), {}, INCONCLUSIVE, "no champion model is named"),
        (comparison(are_scores_identical=True), {}, INCONCLUSIVE, "to each of the 1,000"),
        (comparison(are_scores_identical=None), {}, INCONCLUSIVE, "Nobody checked"),
        (comparison(baseline_holdout_digest="e" * 64), {}, INCONCLUSIVE,
         "not scored on the same holdout"),
        (comparison(baseline_holdout_digest=None), {}, INCONCLUSIVE, "baseline unknown"),
        # The interval lies below zero, but it is of a model against itself.
        (comparison(change(-0.1), baseline_model=champion_with("b" * 64)), {}, INCONCLUSIVE,
         "compared with itself"),
        # A doubt stops a promotion alone.
        (WINNING, {"self_test": DOUBTED}, INCONCLUSIVE, DOUBT),
        (LOSING, {"self_test": DOUBTED}, REJECT, "wholly below -1.00 %"),
        (VOID, {"self_test": DOUBTED}, INCONCLUSIVE, "49 users"),
        (WINNING, {"self_test": SelfTest()}, INCONCLUSIVE, "was not tested"),
        # What is on record may stop a promotion.
        # Evidence is pooled.
        (comparison(WIDE), {}, INCONCLUSIVE, ""),
        (comparison(WIDE, pooled=(pooled(0.001, 5, 0.004),)), {}, PROMOTE,
         "Pooled over 5 cycles it is +0.10 %"),
        # What earlier cycles showed does not excuse a challenger that surely loses on this one.
        (comparison(WIDE, pooled=(EARLIER,)), {}, REJECT, ""),
        # A guardrail is pooled, and one bad challenger is not excused.
        (of_hide(UNSURE_HIDE, 0.001, 0.003), {}, PROMOTE, ""),
        (of_hide(UNSURE_HIDE, 0.04, 0.005), {}, REJECT,
         "+4.00 % (95 % interval +3.02 % to +4.98 %), pooled over 6 cycles, beyond its guardrail"),
        (of_hide(change(0.3, 0.2, 0.4), 0.001, 0.003), {}, REJECT, "+30.00 %"),
    ],
)  # fmt: skip
def test_the_rules_on_the_challenger_alone(
    found: Comparison, update: dict[str, Any], expected: Decision, said: str
) -> None:
    verdict = decide_on(found, **{"standing": Standing()} | update)
    assert verdict.decision is expected
    told = " ".join(verdict.reasons) if expected is INCONCLUSIVE else verdict.reasons[0]
    assert said in told
    assert all(reason.endswith(".") for reason in verdict.reasons)
    assert verdict.reasons[-1] == SERVING.figures.sentence
    assert (DOUBT in verdict.reasons) is (said == DOUBT)  # told where it alone decides
    # A bundle that would not serve is rejected, and what the comparison says comes after it.
    broken = decide_on(found, **{"standing": Standing()} | update, serving=BROKEN)
    assert broken.decision is REJECT and len(broken.reasons) > 2
    assert broken.reasons[:2] == (PROBLEM, BROKEN.figures.sentence)


# Three models: challenger, fresh anchor and champion.
FRESH = CHALLENGER.model_copy(update={"version": "5", "bundle_digest": "f" * 64})
OF_ANCHOR = {"baseline_kind": BaselineKind.ANCHOR, "baseline_model": FRESH}


def three(
    theta: float, delta: float | Comparison, phi: float, **update: Any
) -> tuple[Comparison, AnchorFacts]:
    """Return the comparison with the champion, and what is known of the fresh anchor."""
    if not isinstance(delta, Comparison):
        delta = comparison(change(delta), **OF_ANCHOR)
    facts = AnchorFacts(
        model=FRESH,
        recipe=delta,
        freshness=comparison(change(phi), challenger_model=FRESH, **update.pop("fresh", {})),
        self_test=SOUND,
        serving=SERVING,
    )
    return comparison(change(theta)), facts.model_copy(update=update)


def recipe(value: Interval | None = None, **fields: Any) -> Comparison:
    return comparison(value or change(0.01), **OF_ANCHOR | fields)


STRICT = CONFIG.model_copy(update={"margin": 0.0001, "recipe_margin": 0.0001})
WORSE_RECIPE = "The recipe is surely worse than the accepted one."
REFUSED = "test_ranker v5, is not promoted either: "
WORSE_LINE = pooled(0.02, 5, 0.001).model_copy(update={"line": change(-0.005, 0.002)})
SLIGHT = pooled(0.0009, 5, 0.00051).model_copy(update={"value": 0.05})
UNSURE = change(-0.005, -0.02, 0.01)
ONE, OTHER, NONE = Promoted.CHALLENGER, Promoted.ANCHOR, Promoted.NONE
SAME_MODEL = recipe().model_copy(update={"are_scores_identical": True})
GOOD, BAD = three(0.02, 0.01, 0.01), (-0.05, -0.07, 0.02)
THREE: dict[str, tuple[tuple[Comparison, AnchorFacts], dict[str, Any], Any, Any, str]] = {
    "surely better": (GOOD, {}, PROMOTE, ONE, "of the fresh anchor test_ranker v5: +1.00 %"),
    # Surely better here, and not over all cycles: it becomes no anchor.
    "a worse line": (three(0.01, recipe(pooled=(WORSE_LINE,)), 0.01), {}, INCONCLUSIVE, OTHER,
                     "Together, the recipe and those of its name before it changed"),
    "hides over recipes": (three(0.01, recipe(spent=(Spent(metric=HIDE, value=0.2, error=0.05),)),
                                 0.01), {}, INCONCLUSIVE, OTHER, "over all recipes accepted one"),
    # It is promoted, and later recipes are held to the one before until this one is known.
    "few over recipes": (three(0.01, recipe(spent=(Spent(metric=HIDE, value=0.02, error=0.05),)),
                               0.01), {}, PROMOTE, ONE, "not yet shown to lie within its"),
    "none over recipes": (three(0.01, recipe(spent=(Spent(metric=HIDE, value=0.0, error=0.01),)),
                                0.01), {}, PROMOTE, ONE, ""),
    "even": (three(0.01, recipe(pooled=(SLIGHT,)), 0.01), {}, PROMOTE, ONE, ""),
    # Freshness does not hide a worse recipe, and a worse recipe costs no freshness.
    "worse": (three(0.02, -0.005, 0.025), {}, REJECT, OTHER, WORSE_RECIPE),
    # An unsound anchor is not promoted either.
    "few": (three(*BAD, fresh={"num_users": 49}), {}, REJECT, NONE, "49 users"),
    "hides": (three(*BAD, fresh={"hide": change(0.5)}), {}, REJECT, NONE, "its guardrail"),
    "floor": (three(*BAD, fresh={"calibration": 2.0}), {}, REJECT, NONE, "outside its floor"),
    "slow": (three(*BAD, serving=BROKEN), {}, REJECT, NONE, f"{REFUSED}{PROBLEM}"),
    # What stands against the challenger alone does not stop the anchor.
    "not served": (three(0.02, 0.01, 0.02), {"serving": BROKEN}, REJECT, OTHER, PROBLEM),
    "doubt": (three(0.02, 0.01, 0.02), {"self_test": DOUBTED}, INCONCLUSIVE, OTHER, ""),
    "both": (three(0.02, 0.01, 0.02, self_test=DOUBTED), {"self_test": DOUBTED}, INCONCLUSIVE,
             NONE, f"{REFUSED}{DOUBT}"),
    # It is judged by its own recipe's margin.
    "strict": (three(-0.02, -0.02, -0.002), {"config": STRICT}, REJECT, OTHER, WORSE_RECIPE),
    # Two recipes may make the same model, and hides may not creep against the anchor.
    "same model": (three(0.02, SAME_MODEL, 0.01), {}, PROMOTE, ONE, ""),
    "creeping": (three(0.02, recipe(hide=change(0.05)), 0.01), {}, REJECT, OTHER,
                 "against the fresh anchor, beyond its guardrail"),
    # Against the anchor floors do not count, and all cycles do.
    "no floor": (three(0.02, recipe(calibration=2.0), 0.01), {}, PROMOTE, ONE, ""),
    "all cycles": (three(0.02, recipe(UNSURE, pooled=(pooled(-0.005, 5, 0.001),)), 0.01), {},
                   REJECT, OTHER, WORSE_RECIPE),
    # A recipe on hold does not stop the accepted one; one that nobody can make does.
    "hold": (GOOD, {"standing": HELD}, INCONCLUSIVE, OTHER, "Recipe 'x' is on hold."),
    "problem": (GOOD, {"standing": LOST}, INCONCLUSIVE, NONE, "cannot be made any more."),
}  # fmt: skip


@pytest.mark.parametrize(
    ("models", "update", "decision", "promoted", "said"), THREE.values(), ids=THREE
)
def test_the_rules_on_three_models(
    models: tuple[Comparison, AnchorFacts], update: Any, decision: Any, promoted: Any, said: str
) -> None:
    verdict = decide_on(models[0], anchor=models[1], **update)
    assert (verdict.decision, verdict.promoted) == (decision, promoted)
    told = " ".join(verdict.reasons)
    assert said in told and ("v5 is promoted" in told) is (promoted is OTHER)
    assert verdict.becomes_anchor is (promoted is ONE and models[1].recipe not in UNACCEPTED)


UNACCEPTED = [THREE[name][0][1].recipe for name in ("even", "few over recipes")]


def test_which_recipe_becomes_the_anchor_where_none_was_trained() -> None:
    first = comparison(baseline_kind=BaselineKind.RANKING, baseline_model=None)
    assert decide_on(first, standing=Standing()).becomes_anchor
    # A model serves and its recipe is not on record: this one is not accepted unjudged.
    assert not decide_on(comparison(), standing=Standing()).becomes_anchor
    assert not decide_on(comparison()).becomes_anchor  # it is the accepted recipe


@pytest.mark.parametrize("standing", [HELD, LOST])
def test_what_is_on_record_stops_a_promotion_and_is_told_anyway(
    standing: Standing,
) -> None:
    said, verdict = standing.hold or standing.problem, decide_on(comparison(), standing=standing)
    assert (verdict.decision, verdict.promoted) == (INCONCLUSIVE, NONE)
    assert verdict.reasons[0] == said
    assert said in decide_on(LOSING, standing=standing).reasons  # a person has to act on it
