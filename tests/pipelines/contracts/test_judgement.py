"""The artifacts of judging: what the digest of a ruling is about."""

import json
from typing import Any

import pytest

from pipelines.contracts import reasons
from pipelines.contracts.judgement import Decision, Judgement, Promoted
from pipelines.contracts.reasons import RankedRequest, Reason
from support.damage import sealed
from support.judgements import SERVING, SLOW, make_judgement, said

SLOWER = SLOW.model_copy(update={"facts": SLOW.facts | {"found": 530.0}})


def judged(*grounds: Reason, **ruled: Any) -> Judgement:
    """Return a judgement on these grounds, and the serving check's figures."""
    judgement = make_judgement(Decision.REJECT)
    verdict = judgement.verdict.model_copy(update={"grounds": (*grounds, SERVING.figures)} | ruled)
    return judgement.model_copy(update={"verdict": verdict})


def test_the_digest_of_a_ruling_is_about_what_judging_again_finds_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost, before = said("It lost."), judged(said("It lost.")).ruling_digest
    assert judged(SLOW, lost).ruling_digest == judged(SLOWER, lost).ruling_digest == before
    nor = (Reason.of("anchor_not_promoted", model="v5", because=each) for each in (SLOW, SLOWER))
    assert len({*(judged(lost, each).ruling_digest for each in nor), before}) == 2
    for other in (
        judged(said("It won.")),
        judged(lost, decision=Decision.PROMOTE),
        judged(lost, promoted=Promoted.CHALLENGER),
        make_judgement(Decision.REJECT, "It lost.", low=-0.04),
    ):
        assert other.ruling_digest != before
    # Who edits a sentence changes no digest.
    monkeypatch.setitem(reasons.TEMPLATES, "on_record", "It is said that {text}")
    after = judged(said("It lost."))
    assert after.verdict.reasons[0] == "It is said that It lost."
    assert after.ruling_digest == before


def test_a_record_of_before_reads_without_shown_requests_and_keeps_its_digest() -> None:
    now = judged(said("It lost."))
    shown = RankedRequest(request_id="r", num_candidates=1, pins=())
    found = now.comparison.model_copy(update={"requests": (shown,)})
    record = json.loads(now.model_copy(update={"comparison": found}).to_record())
    assert record["comparison"].pop("requests") == [shown.model_dump(mode="json")]
    before = Judgement.from_record(sealed(record))
    assert before == now and before.comparison.requests == ()
    assert before.ruling_digest == now.model_copy(update={"comparison": found}).ruling_digest
