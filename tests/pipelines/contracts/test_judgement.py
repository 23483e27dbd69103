"""The artifacts of judging: what they say in words, and that earlier versions' JSON is read."""

import json

import pytest

from pipelines.contracts.judgement import (
    AnchorFacts,
    Decision,
    Judgement,
    SelfTest,
    ServingCheck,
)
from support.judgements import CHALLENGER, SERVING, make_judgement


def test_the_serving_check_says_exactly_where_the_scores_are_the_same() -> None:
    same = SERVING.model_copy(update={"golden_difference": 0.0}).describe()
    assert same == (
        "Serving check: 100 candidates in 4.0 ms (median of 200 calls; p99 6.0 ms), 400 MiB at "
        "peak. The stored example rows get exactly the scores they had after training."
    )
    assert SERVING.describe().endswith(
        "The scores of the stored example rows differ by at most 1.0e-08 from those they had "
        "after training."
    )


OF_OLD = """
holdout_digest holdout baseline_kind challenger_model baseline_model num_users num_requests
num_examples segment_users metrics absent target_metric smallest_detectable_change bootstrap_seed
baseline_holdout_digest are_scores_identical reliability heads differences seen pooled
"""
"""The fields of a comparison before baselines had names: the registry keeps digests of these."""


def test_a_ruling_of_before_an_upgrade_has_the_same_digest_behind_it() -> None:
    judgement = make_judgement(Decision.PROMOTE, "It won.")
    assert set(judgement.comparison.model_dump(mode="json")) == set(OF_OLD.split())
    named = judgement.comparison.model_copy(update={"baseline_name": "newest first"})
    assert "baseline_name" in named.model_dump(mode="json")


def measured_as(serving: ServingCheck, decision: Decision = Decision.REJECT) -> Judgement:
    """Return a judgement whose reasons give a serving check's figures, as `decide` gives them."""
    reasons = (*serving.problems, serving.describe(), "It lost.")
    judgement = make_judgement(decision, *reasons)
    return judgement.model_copy(update={"serving": serving})


def test_the_digest_of_a_ruling_is_about_what_judging_again_finds_again() -> None:
    slow = {"latency_p99_ms": 512.0, "problems": ("Serving check: latency p99 is 512 ms.",)}
    slower = {"latency_p99_ms": 530.0, "problems": ("Serving check: latency p99 is 530 ms.",)}
    one, other = (measured_as(SERVING.model_copy(update=found)) for found in (slow, slower))
    assert one.verdict.reasons != other.verdict.reasons
    assert one.ruling_digest == other.ruling_digest
    edited = one.verdict.model_copy(update={"reasons": (*one.verdict.reasons[:-1], "It won.")})
    assert one.model_copy(update={"verdict": edited}).ruling_digest != one.ruling_digest
    promoted = measured_as(one.serving, Decision.PROMOTE)
    assert promoted.ruling_digest != one.ruling_digest


def test_the_digest_of_a_ruling_leaves_out_what_was_measured_of_the_fresh_anchor() -> None:
    def ruled(problem: str) -> Judgement:
        judgement = make_judgement(Decision.INCONCLUSIVE, "Not shown.", f"Nor it: {problem}")
        anchor = AnchorFacts(
            model=CHALLENGER,
            recipe=judgement.comparison,
            freshness=judgement.comparison,
            self_test=SelfTest(),
            serving=SERVING.model_copy(update={"problems": (problem,)}),
        )
        return judgement.model_copy(update={"anchor": anchor})

    one, other = (ruled(f"Serving check: latency p99 is {ms} ms.") for ms in (512, 530))
    assert one.ruling_digest == other.ruling_digest
    assert one.ruling_digest != make_judgement(Decision.INCONCLUSIVE, "Shown.").ruling_digest


@pytest.mark.parametrize("sentences", [[], ["The worst possible ranking: REJECT."]])
def test_a_judgement_of_an_earlier_version_is_read(sentences: list[str]) -> None:
    judgement = make_judgement(Decision.PROMOTE)
    old = json.loads(judgement.model_dump_json())
    del old["self_test"], old["comparison"]["absent"], old["comparison"]["target_metric"]
    old["comparison"]["self_test"] = sentences
    read = Judgement.model_validate_json(json.dumps(old))

    assert read.self_test == SelfTest(findings=tuple(sentences))
    assert read.comparison == judgement.comparison
    assert Judgement.model_validate_json(read.model_dump_json()) == read
