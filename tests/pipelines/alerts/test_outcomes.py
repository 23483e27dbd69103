"""What is told of a cycle that was judged: number, direction, what serves, what can be done.

That every place tells it alike is tested in tests/pipelines/stages/test_compare_with_champion.py.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.alerts.compose import compose_verdict
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.alert import AlertKind
from pipelines.contracts.artifacts import ResolvedRun, Standing
from pipelines.contracts.judgement import Decision, Judgement, Outcome
from pipelines.settings import Settings
from support.commands import parse
from support.example_alerts import with_segments
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run

PROMOTE, REJECT, INCONCLUSIVE = Decision.PROMOTE, Decision.REJECT, Decision.INCONCLUSIVE
STAYS = "test_ranker v3 (as_of 2017-02-16) stays champion."
BECOMES = "test_ranker v4 (as_of 2017-03-02) becomes champion in place of test_ranker v3."
UNKNOWN = "test_ranker v4 was not promoted: it is not known to be good enough, "
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
    ("decision", "interval", "changes", "title", "serves"),
    [
        (
            *(INCONCLUSIVE, (-0.23, 0.004), {}),
            f"{UNKNOWN}repin_volume_at_3 cannot tell: -6.25 % (95 %: -23.00 to +0.40 %)",
            STAYS,
        ),
        (REJECT, (-0.2, -0.1), {}, "v4 was rejected, repin_volume_at_3 worse: -6.25 %", STAYS),
        (PROMOTE, (0.01, 0.02), {}, "v4 is promoted, repin_volume_at_3 better: ", BECOMES),
        (PROMOTE, (0.01, 0.02), NOT, "may be promoted, and this run promotes nothing", STAYS),
        (PROMOTE, (-0.0015, -0.0005), NOT, "promotes nothing, repin_volume_at_3 worse: ", STAYS),
    ],
)
def test_the_title_says_what_became_of_it_and_the_first_line_what_serves(
    run: ResolvedRun,
    decision: Decision,
    interval: tuple[float, float],
    changes: dict[str, Any],
    title: str,
    serves: str,
) -> None:
    judgement = make_judgement(decision, low=interval[0], high=interval[1])
    outcome = outcome_in(run.model_copy(update=changes), judgement)
    assert title in outcome.title
    assert outcome.lines()[0] == outcome.serves == serves
    assert ("is promoted" in outcome.done) is (serves == BECOMES)


@pytest.mark.parametrize(
    ("decision", "changes", "problem", "commands"),
    [
        (REJECT, {}, "", "serving retrain"),
        (REJECT, NOT, "", "serving retrain"),
        (INCONCLUSIVE, {}, "", "serving retrain"),
        (PROMOTE, {}, "", "serving rollback"),
        (PROMOTE, {"champion": None}, "", "serving"),  # there is nothing to go back to
        (PROMOTE, NOT, "", "serving retrain"),
        (PROMOTE, NOT | {"later_champion": NEWER}, "", "serving"),
        *((decision, NOT | {"champion": None}, "", "serving retrain") for decision in Decision),
        (INCONCLUSIVE, {"standing": Standing(unpromoted=DAYS[:2])}, "", "serving retrain"),
        (INCONCLUSIVE, {"standing": Standing(unpromoted=DAYS)}, "", "serving promote set retrain"),
        (INCONCLUSIVE, NOT | {"standing": Standing(unpromoted=DAYS)}, "", "serving retrain"),
        *((decision, {}, field, "serving set retrain")  # the line is lost, or no recipe is known
          for decision in (INCONCLUSIVE, REJECT) for field in ("problem", "hold")),
        (INCONCLUSIVE, {"standing": Standing(hold="Back.")}, "", "serving release retrain"),
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


def test_the_segment_that_loses_most_is_named(run: ResolvedRun) -> None:
    judgement = make_judgement(REJECT)
    changes = {"core": -0.02, "new": -0.3, "casual": -0.4}
    comparison = with_segments(judgement, changes).comparison
    auc = comparison.metrics[-1].model_copy(update={"metric": "auc"})
    comparison = comparison.model_copy(update={"metrics": (*comparison.metrics[:-1], auc)})
    found = judgement.model_copy(update={"comparison": comparison})
    assert outcome_in(run, found).most_hurt == (
        "Segment new loses most: repin_volume_at_3 -30.00 % (95 %: -32.00 to -28.00 %), 321 users."
    )
    for none in (judgement, with_segments(judgement, {"new": 0.1})):
        assert outcome_in(run, none).most_hurt == ""
