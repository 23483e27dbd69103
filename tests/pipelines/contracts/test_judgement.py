"""The artifacts of judging: what they say in words, and what the digest of a ruling is about."""

import pytest

from pipelines.contracts import reasons
from pipelines.contracts.judgement import AnchorFacts, Decision, Judgement, SelfTest
from pipelines.contracts.reasons import Reason
from support.judgements import CHALLENGER, SERVING, SLOW, make_judgement, ruled, said

SLOWER = SLOW.model_copy(update={"facts": SLOW.facts | {"found": 530.0}})


def test_the_serving_check_says_exactly_where_the_scores_are_the_same() -> None:
    same = SERVING.model_copy(update={"golden_difference": 0.0}).figures.sentence
    assert same == (
        "Serving check: 100 candidates in 4.0 ms (median of 200 calls; p99 6.0 ms), 400 MiB at "
        "peak. The stored example rows get exactly the scores they had after training."
    )
    assert SERVING.figures.sentence.endswith(
        "The scores of the stored example rows differ by at most 1.0e-08 from those they had "
        "after training."
    )


def measured_as(problem: Reason, decision: Decision = Decision.REJECT) -> Judgement:
    """Return a judgement whose reasons give a serving check's figures, as `decide` gives them."""
    serving = SERVING.model_copy(
        update={"latency_p99_ms": problem.facts["found"], "problems": (problem,)}
    )
    grounds = (problem, serving.figures, said("It lost."))
    verdict = ruled(decision, "It lost.").model_copy(update={"grounds": grounds})
    return make_judgement(decision).model_copy(update={"serving": serving, "verdict": verdict})


def test_the_digest_of_a_ruling_is_about_what_judging_again_finds_again() -> None:
    one, other = measured_as(SLOW), measured_as(SLOWER)
    assert one.verdict.reasons != other.verdict.reasons
    assert one.ruling_digest == other.ruling_digest
    grounds = (*one.verdict.grounds[:-1], said("It won."))
    edited = one.verdict.model_copy(update={"grounds": grounds})
    assert one.model_copy(update={"verdict": edited}).ruling_digest != one.ruling_digest
    assert measured_as(SLOW, Decision.PROMOTE).ruling_digest != one.ruling_digest


def with_anchor(problem: Reason) -> Judgement:
    judgement = make_judgement(Decision.INCONCLUSIVE, "Not shown.")
    both = {"recipe": judgement.comparison, "freshness": judgement.comparison}
    serving = SERVING.model_copy(update={"problems": (problem,)})
    anchor = AnchorFacts(model=CHALLENGER, **both, self_test=SelfTest(), serving=serving)
    nor_it = Reason.of("anchor_not_promoted", model="v5", because=problem)
    grounds = (*judgement.verdict.grounds, nor_it)
    verdict = judgement.verdict.model_copy(update={"grounds": grounds})
    return judgement.model_copy(update={"anchor": anchor, "verdict": verdict})


def test_the_digest_of_a_ruling_leaves_out_what_was_measured_of_the_fresh_anchor() -> None:
    one, other = with_anchor(SLOW), with_anchor(SLOWER)
    assert one.ruling_digest == other.ruling_digest
    assert one.ruling_digest != make_judgement(Decision.INCONCLUSIVE, "Shown.").ruling_digest


def test_who_edits_a_sentence_changes_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = measured_as(SLOW).ruling_digest
    monkeypatch.setitem(reasons.TEMPLATES, "on_record", "It is said that {text}")
    after = measured_as(SLOW)
    assert after.verdict.reasons[-1] == "It is said that It lost."
    assert after.ruling_digest == before
