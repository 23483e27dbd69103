"""A reason survives JSON with its facts, and its sentence is made of them alone."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.contracts.reasons import AbsenceKind, AbsentMetric, Reason
from support.judgements import SERVING, interval

NONE = AbsentMetric(metric="m", segment="all", side="baseline", kind=AbsenceKind.ZERO_BASELINE)
SCORES_AGAIN = {
    0.0: "The stored example rows get exactly the scores they had after training.",
    1e-8: "The scores of the stored example rows differ by at most 1.0e-08 from those they had "
    "after training.",
}
ON_RAIL = {"change": interval(0.05, -0.01, 0.11), "num_cycles": 3, "is_anchor": True}


@pytest.mark.parametrize(
    ("code", "facts", "sentence"),
    [
        (
            "guardrail_broken",
            {"metric": "hit_at_3.hide", "bounds": (None, 0.02)} | ON_RAIL,
            "hit_at_3.hide changed by +5.00 % (95 % interval -1.00 % to +11.00 %), pooled over 3 "
            "cycles against the fresh anchor, beyond its guardrail [-inf, +2.00 %].",
        ),
        (
            "floor_held",
            {"metric": "ece.repin", "level": 0.01, "bounds": (None, 0.1)},
            "ece.repin 0.0100 holds its floor of at most 0.1.",
        ),
        (
            "target_without_interval",
            {"metric": "m", "why": NONE},
            "The relative change of the target metric 'm' has no interval: the baseline's m is "
            "not surely above zero.",
        ),
        (
            "anchor_not_promoted",
            {"model": "v5", "because": Reason.of("serving_constant")},
            "The accepted recipe made fresh, v5, is not promoted either: Serving "
            "check: every golden row got the same score.",
        ),
        *(
            (
                "serving_figures",
                SERVING.figures.facts | {"golden_difference": difference},
                f"Serving check: 100 candidates in 4.0 ms (median of 200 calls; p99 6.0 ms, "
                f"of which the processor 5.0 ms), 400 "
                f"MiB at peak. {says}",
            )
            for difference, says in SCORES_AGAIN.items()
        ),
        (
            "heads_sound",
            {"heads": ("1", "2")},
            "Heads that differ, rank no worse than chance and are in calibration: 1, 2.",
        ),
    ],
)
def test_a_reason_survives_json_and_says_its_facts(
    code: str, facts: dict[str, Any], sentence: str
) -> None:
    reason = Reason.of(code, **facts)
    read = Reason.model_validate_json(reason.model_dump_json())
    assert read == reason and str(read) == read.sentence == sentence


@pytest.mark.parametrize(
    ("code", "facts", "says"),
    [
        ("made_up", {}, "expected one of"),
        ("few_users", {"num_users": 3}, "expected \\['min_users', 'num_users'\\]"),
        ("no_floor", {"metric": "m"}, "found facts \\['metric'\\]"),
    ],
)
def test_a_code_or_fact_that_no_template_knows_is_refused(
    code: str, facts: dict[str, object], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        Reason.of(code, **facts)
