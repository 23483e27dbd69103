"""What is told of a cycle that was judged: number, direction, what serves, what can be done.

That every place tells it alike is tested in tests/pipelines/stages/test_compare_with_champion.py.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.alerts.compose import compose_verdict
from pipelines.alerts.outcomes import Since, outcome_of
from pipelines.contracts.alert import AlertKind
from pipelines.contracts.artifacts import ResolvedRun, Standing
from pipelines.contracts.config import ApprovalConfig, PromotionConfig, RelativeLimit
from pipelines.contracts.judgement import Approval, Decision, Judgement, Outcome
from pipelines.contracts.reasons import RANDOM, Reason
from pipelines.registry import history
from pipelines.registry.history import Move
from pipelines.settings import Settings
from support.commands import parse
from support.desk import record_move
from support.example_alerts import with_segments
from support.judgements import CHAMPION, interval, make_judgement, make_promotion, metric
from support.runs import make_run
from validation.model_gate.baselines import REGRESSION

PROMOTE, REJECT, INCONCLUSIVE = Decision.PROMOTE, Decision.REJECT, Decision.INCONCLUSIVE
SERVES = "test_ranker v3 (as_of 2017-02-16) serves since 2017-02-16 00:00 UTC."
UNKNOWN = "test_ranker v4 was not promoted, "
VOID = "the comparison is void and its numbers count for nothing"
NEWER = CHAMPION.model_copy(update={"as_of": datetime(2017, 3, 2, tzinfo=UTC)})
DAYS = tuple(datetime(2017, 1, day, tzinfo=UTC) for day in (1, 8, 15))
NOT = {"may_promote": False}


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    return make_run(tmp_path, champion=CHAMPION)


def outcome_in(run: ResolvedRun, judgement: Judgement, is_void: bool = False) -> Outcome:
    return outcome_of(run, judgement, None, Settings(), is_void=is_void)


@pytest.mark.parametrize(
    ("decision", "interval", "changes", "title"),
    [
        (
            *(INCONCLUSIVE, (-0.23, 0.004), {}),
            f"{UNKNOWN}repin_volume_at_3 cannot tell: -6.25 % (95 %: -23.00 to +0.40 %)",
        ),
        (REJECT, (-0.2, -0.1), {}, "v4 was rejected, repin_volume_at_3 worse: -6.25 %"),
        (PROMOTE, (0.01, 0.02), {}, "v4 is promoted, repin_volume_at_3 better: "),
        (PROMOTE, (0.01, 0.02), NOT, "may be promoted, and this run promotes nothing"),
        (PROMOTE, (-0.0015, -0.0005), NOT, "promotes nothing, repin_volume_at_3 worse: "),
    ],
)
def test_the_title_says_what_became_of_it(
    run: ResolvedRun,
    decision: Decision,
    interval: tuple[float, float],
    changes: dict[str, Any],
    title: str,
) -> None:
    judgement = make_judgement(decision, low=interval[0], high=interval[1])
    outcome = outcome_in(run.model_copy(update=changes), judgement)
    assert title in outcome.title
    assert ("is promoted" in outcome.done) is (decision is PROMOTE and not changes)


def test_what_serves_is_what_the_history_says_when_it_is_told(run: ResolvedRun) -> None:
    """A rollback during the training: the run has pinned v3, and v5 serves."""
    judgement = make_judgement(REJECT)
    assert outcome_in(run, judgement).serves == "There is no champion yet."
    move = Move(moved_at=CHAMPION.as_of, kind="promotion", model=CHAMPION, previous=None, reason="")
    record_move(run.workspace_uri, move)
    assert outcome_in(run, judgement).lines()[0] == SERVES
    back = {"kind": "rollback", "model": NEWER.model_copy(update={"version": "5"})}
    back |= {"previous": CHAMPION, "reason": "hides rose", "moved_at": NEWER.as_of}
    known = record_move(run.workspace_uri, move.model_copy(update=back), is_followed=False)
    about_to = "v5 (as_of 2017-03-02) was made champion, and MLflow's alias is about to follow."
    assert outcome_in(run, judgement).serves.endswith(about_to)
    history.mark_followed(known, known.moves[-1], was_set_again=False)
    told = outcome_in(run, judgement).serves
    assert told.endswith("v5 (as_of 2017-03-02) serves since 2017-03-02 00:00 UTC "
                         "(rollback: hides rose).")  # fmt: skip
    storage.local_path(known.uri_of(2)).write_text("{")
    assert "the newest entry of its history is damaged" in outcome_in(run, judgement).serves


@pytest.mark.parametrize(
    ("answer", "is_promoted", "title", "done"),
    [
        (None, None, "is promoted if a person approves", "waits to be approved by anna"),
        ("approved", None, "is promoted, ", "anna approved the promotion"),
        ("approved", True, "was promoted, ", "was promoted. anna approved the promotion"),
        ("rejected", None, "was not approved, ", "was not promoted. anna rejected the promotion"),
        ("rejected", False, "was not approved, ", "anna rejected the promotion"),
    ],
)
def test_what_became_of_it_since_is_told(
    run: ResolvedRun, answer: Any, is_promoted: bool | None, title: str, done: str
) -> None:
    asks = PromotionConfig(approval=ApprovalConfig(by=("anna",)))
    run = run.model_copy(update={"config": run.config.model_copy(update={"promotion": asks})})
    judgement = make_judgement(PROMOTE, low=0.01, high=0.02)
    about = {"model": "v4", "ruling_digest": judgement.ruling_digest}
    approval = answer and Approval(answer=answer, by="anna", at=CHAMPION.as_of, **about)
    since = Since(None if is_promoted is None else make_promotion(is_promoted), approval)
    outcome = outcome_of(run, judgement, None, Settings(), since=since)
    assert title in outcome.title and done in outcome.done


@pytest.mark.parametrize(
    ("reason", "title"),
    [
        (Reason.of("head_out_of_calibration", head="save", level=1.9, interval=None,
                   bounds=(0.8, 1.25)), "was rejected: head save is out of calibration, "),
        (Reason.of("serving_slow", found=300.0, limit=250.0),
         "was rejected: it takes too long to answer, "),
    ],
)  # fmt: skip
def test_the_title_of_a_rejection_says_why(run: ResolvedRun, reason: Reason, title: str) -> None:
    better = make_judgement(REJECT, low=0.05, high=0.12)
    verdict = better.verdict.model_copy(update={"grounds": (reason,)})
    told = outcome_in(run, better.model_copy(update={"verdict": verdict})).title
    assert title in told and "repin_volume_at_3 better" in told


@pytest.mark.parametrize(
    ("winner", "knows", "told"),
    [
        ("past engagement", False, "ranks by what the model is not told: add to features.numeric "
                                   "{name: pin_popularity_28d}."),
        ("newest first", False, "ranks by what the model is not told: add to features.numeric "
                                "{name: pin_age}."),
        (REGRESSION, False, "ranks by what the model is not told: add to features.numeric {name: "
                            "pin_popularity_1d}, {name: pin_popularity_7d}, {name: "),
        (REGRESSION, True, "ranks by what the model is told too: train it on more days"),
        (RANDOM, False, "ranks by what the model is told too: train it on more days"),
    ],
)  # fmt: skip
def test_what_won_and_the_line_of_the_recipe_that_shows_it(
    run: ResolvedRun, winner: str, knows: bool, told: str
) -> None:
    judgement = make_judgement(REJECT, baseline_name=winner)
    first, told_all = run.model_copy(update={"champion": None}), run.config.features.numeric_held
    if knows:
        features = run.config.features.model_copy(update={"numeric": told_all})
        config = run.config.model_copy(update={"features": features})
        first = first.model_copy(update={"config": config})
    assert winner not in outcome_in(first, judgement).next_step.sentence  # another reason decided
    beats = Reason.of("baseline_beats", baseline=winner, change=interval(-0.1), difference=None)
    verdict = judgement.verdict.model_copy(update={"grounds": (beats,)})
    outcome = outcome_in(first, judgement.model_copy(update={"verdict": verdict}))
    sentence = outcome.next_step.sentence
    assert sentence.lower().startswith(f"{winner} {told}".lower()) and sentence[0].isupper()
    assert f"was rejected: {winner} beats it" in outcome.title


def test_what_changed_is_told_by_field_days_and_code(run: ResolvedRun) -> None:
    accepted = run.config.model_copy(
        update={"training": run.config.training.model_copy(update={"learning_rate": 0.5})}
    )
    standing = Standing(anchor=accepted, anchor_code_digest="a" * 64)
    now = run.model_copy(update={"standing": standing, "code_digest": "b" * 64})
    rate = run.config.training.learning_rate
    assert outcome_in(now, make_judgement(REJECT)).changed == (
        f"rows up to 2017-02-16 -> 2017-03-02; training.learning_rate: 0.5 -> {rate}; "
        f"code aaaaaaaa -> bbbbbbbb"
    )


@pytest.mark.parametrize(
    ("decision", "changes", "problem", "commands"),
    [
        (REJECT, {}, "", "retrain"),
        (REJECT, NOT, "", "retrain"),
        (INCONCLUSIVE, {}, "", "retrain"),
        (PROMOTE, {}, "", "rollback"),
        (PROMOTE, {"champion": None}, "", ""),  # there is nothing to go back to
        (PROMOTE, NOT, "", "retrain"),
        (PROMOTE, NOT | {"later_champion": NEWER}, "", ""),
        *((decision, NOT | {"champion": None}, "", "retrain") for decision in Decision),
        (INCONCLUSIVE, {"standing": Standing(unpromoted=DAYS[:2])}, "", "retrain"),
        (INCONCLUSIVE, {"standing": Standing(unpromoted=DAYS)}, "", "promote set retrain"),
        (INCONCLUSIVE, NOT | {"standing": Standing(unpromoted=DAYS)}, "", "retrain"),
        *((decision, {}, field, "set retrain")  # the line is lost, or no recipe is known
          for decision in (INCONCLUSIVE, REJECT) for field in ("problem", "hold")),
        (INCONCLUSIVE, {"standing": Standing(hold="Back.")}, "", "release retrain"),
    ],
)  # fmt: skip
def test_what_can_be_done_is_offered_with_commands(
    run: ResolvedRun, decision: Decision, changes: dict[str, Any], problem: str, commands: str
) -> None:
    told = {problem: "It waits."} if problem else {}
    judgement = make_judgement(decision, high=0.01).model_copy(update=told)
    asked = run.model_copy(update=changes)
    found = [parse(line) for _, line in outcome_in(asked, judgement).next_step.commands]
    assert " ".join(each.info_name for each in found) == commands
    for each in found:
        if each.info_name == "retrain":  # a holdout is seven days long
            assert each.params["as_of"] == (
                "2017-03-09" if decision is INCONCLUSIVE else "2017-03-02"
            )
            assert each.params["promote"] is (decision is PROMOTE or asked.may_promote)
            assert each.params["key"] == f"again-{run.run_id}"
        elif each.info_name == "rollback":
            assert (each.params["to_version"], each.params["from_version"]) == ("3", "4")
        elif each.info_name == "release":
            assert run.config.recipe_digest.startswith(each.params["recipe"])


def test_a_gain_that_is_not_plausible_is_promoted_by_who_has_looked_for_a_leak(
    run: ResolvedRun,
) -> None:
    facts = {"metric": "repin_volume_at_3", "plausible": 0.03, "past": (0.004, 0.01, 0.0, 0.002)}
    reason = Reason.of("lift_implausible", change=interval(0.2, 0.18, 0.22), **facts)
    judgement = make_judgement(INCONCLUSIVE)
    verdict = judgement.verdict.model_copy(update={"grounds": (reason,)})
    outcome = outcome_in(run, judgement.model_copy(update={"verdict": verdict}))
    assert "it gains more than is plausible" in outcome.title
    assert "column that tells the label" in outcome.next_step.sentence
    found = [parse(line) for _, line in outcome.next_step.commands]
    assert [each.info_name for each in found] == ["promote", "retrain"]
    assert found[0].params["force"] and found[0].params["run"] == run.run_uri
    stored = Reason.model_validate_json(reason.model_dump_json())
    assert stored == reason and "4 earlier cycles make plausible" in stored.sentence


def test_the_numbers_of_a_comparison_that_says_nothing_are_not_told(run: ResolvedRun) -> None:
    rejected = make_judgement(REJECT, "The bundle would not serve.")
    assert outcome_in(run, rejected, True).title == f"test_ranker v4 was rejected, {VOID}"
    judgement = make_judgement(INCONCLUSIVE, "One model on both sides.", high=-0.01)
    outcome = outcome_in(run, judgement, True)
    assert outcome.title == f"{UNKNOWN}{VOID}"
    assert "6.25" not in f"{outcome.title}{outcome.number}{outcome.most_hurt}"
    alert = compose_verdict(outcome, judgement, run, Settings())
    assert alert is not None and alert.kind is AlertKind.INCONCLUSIVE
    comparison = judgement.comparison.model_copy(update={"metrics": ()})
    bare = outcome_in(run, judgement.model_copy(update={"comparison": comparison}))
    assert bare.title.endswith("repin_volume_at_3 not compared")
    for each in (outcome, bare):
        assert (each.direction, each.change) == ("not compared", None)


def test_what_is_surely_worse_is_named_or_else_the_lowest_segments(run: ResolvedRun) -> None:
    judgement = make_judgement(REJECT)

    def told(changes: dict[str, float], hides: float = 0.0) -> str:
        comparison = with_segments(judgement, changes).comparison
        name, row = (
            "hit_at_3.hide",
            metric("hit_at_3.hide", interval(hides, hides - 0.02, hides + 0.02)),
        )
        comparison = comparison.model_copy(update={"metrics": (*comparison.metrics, row)})
        rail = RelativeLimit(metric=name, max_increase=0.5)
        gate = run.config.model_gate.model_copy(update={"guardrails": (rail,)})
        config = run.config.model_copy(update={"model_gate": gate})
        found = judgement.model_copy(update={"comparison": comparison})
        return outcome_in(run.model_copy(update={"config": config}), found).most_hurt

    assert told({"core": -0.019, "new": -0.3, "casual": -0.4}) == (
        "Surely worse: casual -40.00 % (95 %: -42.00 to -38.00 %); new -30.00 % "
        "(95 %: -32.00 to -28.00 %)."
    )
    assert told({"core": -0.019, "new": -0.001}) == (
        "No segment surely loses; the lowest: core -1.90 % (95 %: -3.90 to +0.10 %); new -0.10 % "
        "(95 %: -2.10 to +1.90 %)."
    )
    hides = "hit_at_3.hide +3.00 % (95 %: +1.00 to +5.00 %)"
    assert told({"core": -0.019}, hides=0.03) == f"Surely worse: {hides}."  # more hides are worse
    assert told({"new": 0.1}, hides=-0.03) == ""
