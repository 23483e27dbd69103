"""What artifacts say: rows, bytes, verdict, champion. All numbers are worked by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.artifacts import (
    AnchorWhy,
    Challenger,
    DataReport,
    FileDigest,
    FreshAnchor,
    ResolvedRun,
    Standing,
)
from pipelines.contracts.base import Artifact
from pipelines.contracts.judged.alert import AlertReceipt
from pipelines.contracts.judgement import Decision, Judgement, Promoted, Promotion
from pipelines.metrics.facts import Done, points_of
from support.judgements import CHALLENGER, CHAMPION, make_judgement
from support.judgements import said as said_of
from support.runs import make_run
from support.tiny_log import build_tiny, rows_of, write_tiny_log

NOW = datetime(2017, 3, 5, 12, tzinfo=UTC)
ATTEMPT: dict[str, str | bool] = {"homefeed.stage": "x", "homefeed.outcome": "done"}
FILES = (
    FileDigest(path="a", sha256="0", num_bytes=300),
    FileDigest(path="b", sha256="1", num_bytes=40),
)


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    return make_run(tmp_path, champion=CHAMPION)


def said(artifact: Artifact, run: ResolvedRun, *inputs: Artifact) -> dict[tuple[str, ...], float]:
    """Return the values by the metric's name and what tells apart values of one metric."""
    points = points_of(artifact, Done(run, inputs, NOW, ATTEMPT))
    found = {}
    for point in points:
        allowed = {*point.instrument.attributes}
        assert set(point.attributes) <= allowed
        if "homefeed.stage" in allowed:
            assert ATTEMPT.items() <= point.attributes.items()
        else:
            assert point.attributes["homefeed.model"] == "test_ranker"
        keys = ("homefeed.row", "homefeed.direction", "homefeed.verdict")
        apart = (str(point.attributes[key]) for key in keys if key in point.attributes)
        found[(point.instrument.name.removeprefix("homefeed."), *apart)] = point.value
    assert len(found) == len(points)
    return found


def make_challenger() -> Challenger:
    return Challenger(
        model=CHALLENGER,
        bundle_uri="file:///b",
        bundle_files=FILES,
        num_steps=7,
        num_training_examples=1234,
        final_training_loss=0.5,
        seed=1,
    )


def test_a_run_says_who_serves(run: ResolvedRun) -> None:
    age_s = (13 + 4.5) * 86400  # from 16 February to 5 March at noon
    expected = {("champion.as_of",): CHAMPION.as_of.timestamp(), ("champion.age",): age_s}
    assert said(run, run) == expected
    backfill = run.model_copy(update={"later_champion": CHALLENGER})
    assert said(backfill, backfill)[("champion.as_of",)] == CHALLENGER.as_of.timestamp()
    first = run.model_copy(update={"champion": None})
    assert said(first, first) == {}


def test_a_snapshot_says_what_was_written(run: ResolvedRun, tmp_path: Path) -> None:
    write_tiny_log(tmp_path / "event_log")
    snapshot = build_tiny(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.arrow"))
    found = said(snapshot, run, run)
    tables = {"example": "examples", "request": "requests", "action": "timeline"}
    for kind, table in tables.items():
        assert found[("stage.rows", kind, "write")] == len(rows_of(snapshot, table)) > 0
    assert found[("stage.rows", "pin", "write")] == snapshot.num_pins > 0
    assert found[("stage.rows", "user", "write")] > 0
    assert found[("stage.io", "write")] == size > 0
    report = DataReport(
        snapshot_digest=snapshot.digest, outcomes=(), docs_uri="file:///d", reference_digest=None
    )
    assert said(report, run, run, snapshot) == {
        ("stage.rows", "example", "read"): snapshot.num_examples,
        ("stage.rows", "request", "read"): snapshot.num_requests,
        ("stage.io", "read"): size,
    }


def test_a_training_says_what_it_read_and_made(run: ResolvedRun) -> None:
    expected = {("stage.rows", "example", "read"): 1234, ("stage.io", "write"): 340}
    assert said(make_challenger(), run) == expected
    anchor = FreshAnchor(
        trained=make_challenger(), snapshot=None, why=AnchorWhy.SAME, reason="it differs"
    )
    assert said(anchor, run) == expected
    assert (
        said(
            FreshAnchor(trained=None, snapshot=None, why=AnchorWhy.SAME, reason="it is the same"),
            run,
        )
        == {}
    )


@pytest.mark.parametrize("decision", list(Decision))
def test_a_judgement_says_its_verdict(run: ResolvedRun, decision: Decision) -> None:
    found = said(make_judgement(decision), run, run)
    assert {key[1]: value for key, value in found.items() if key[0] == "verdict.state"} == {
        str(each): int(each is decision) for each in Decision
    }
    assert found[("verdicts", str(decision))] == 1
    assert [key for key in found if key[0] == "verdicts"] == [("verdicts", str(decision))]
    assert found[("stage.rows", "example", "read")] == 68136
    assert found[("stage.rows", "user", "read")] == 1234


def with_comparison(judgement: Judgement, **changes: Any) -> Judgement:
    comparison = judgement.comparison.model_copy(update=changes)
    return judgement.model_copy(update={"comparison": comparison})


def test_a_comparison_that_says_nothing_is_void(run: ResolvedRun) -> None:
    judgement = make_judgement(Decision.REJECT)
    gate = run.config.model_gate
    sound = with_comparison(
        judgement,
        baseline_holdout_digest=judgement.comparison.holdout_digest,
        baseline_model=CHAMPION.model_copy(update={"bundle_digest": "e" * 64}),
        are_scores_identical=False,
        target_metric=gate.target_metric,
        segment_users=dict.fromkeys(("all", "core", "non_core"), 5000),
    )
    assert said(sound, run)[("comparison.void",)] == 0
    void = with_comparison(sound, seen=(said_of("The champion was trained on its rows."),))
    assert said(void, run)[("comparison.void",)] == 1


def test_cycles_without_a_promotion_are_counted(run: ResolvedRun) -> None:
    key = ("champion.unpromoted_cycles",)
    days = tuple(run.as_of - timedelta(days=14 * k) for k in (2, 1, 0))
    aged = run.model_copy(update={"standing": Standing(unpromoted=days[:2])})
    again = run.model_copy(update={"standing": Standing(unpromoted=days)})
    kept = make_judgement(Decision.INCONCLUSIVE)
    assert said(kept, run)[key] == 1
    assert said(kept, aged)[key] == 3
    assert said(kept, again)[key] == 3, "the same day, judged again, is one"
    anchored = kept.verdict.model_copy(update={"promoted": Promoted.ANCHOR})
    assert said(kept.model_copy(update={"verdict": anchored}), aged)[key] == 0
    trial = aged.model_copy(update={"may_promote": False})
    assert key not in said(kept, trial), "one that may not promote is none of them"


def test_a_promotion_says_who_serves_now(run: ResolvedRun) -> None:
    made = Promotion(
        decision=Decision.PROMOTE,
        is_promoted=True,
        champion_before=CHAMPION,
        champion_after=CHALLENGER,
        reason="it won",
        history_uri="file:///h",
    )
    assert said(made, run) == {
        ("promotions",): 1,
        ("champion.as_of",): CHALLENGER.as_of.timestamp(),
        ("champion.age",): 3.5 * 86400,
    }
    kept = made.model_copy(update={"is_promoted": False, "champion_after": CHAMPION})
    assert ("promotions",) not in said(kept, run)
    assert said(kept, run)[("champion.as_of",)] == CHAMPION.as_of.timestamp()


def test_an_artifact_that_says_nothing_is_no_error(run: ResolvedRun) -> None:
    assert said(AlertReceipt(alert=None, delivered_to=()), run) == {}
