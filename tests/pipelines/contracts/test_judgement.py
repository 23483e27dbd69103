"""The artifacts of judging: what they say in words, and that earlier versions' JSON is read."""

import json

import pytest

from pipelines.contracts.judgement import Decision, Judgement, SelfTest
from support.judgements import SERVING, make_judgement


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
