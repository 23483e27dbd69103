"""What is told of a cycle that was judged: number, direction, what serves, who is hurt most.

That every place tells it alike is tested in tests/pipelines/stages/test_compare_with_champion.py.
"""

from pathlib import Path

import pytest

from pipelines.alerts.compose import compose_verdict
from pipelines.alerts.outcomes import direction_of, outcome_of
from pipelines.contracts.alert import AlertKind
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Decision, Judgement, Outcome
from pipelines.contracts.reasons import Interval
from pipelines.settings import Settings
from support.example_alerts import with_segments
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run

STAYS = "test_ranker v3 (as_of 2017-02-16) stays champion."
BECOMES = "test_ranker v4 (as_of 2017-03-02) becomes champion in place of test_ranker v3."
UNKNOWN = "test_ranker v4 was not promoted: it is not known to be good enough, "
VOID = "the comparison is void and its numbers count for nothing"


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    return make_run(tmp_path, champion=CHAMPION)


def outcome_in(run: ResolvedRun, judgement: Judgement, is_void: bool = False) -> Outcome:
    return outcome_of(run, judgement, None, Settings(), is_void=is_void)


@pytest.mark.parametrize(
    ("low", "high", "direction"),
    [
        (-0.2, -0.1, "worse"),
        (-0.2, 0.1, "cannot tell"),
        (0.1, 0.2, "better"),
        (0, 0.2, "cannot tell"),
    ],
)
def test_a_direction_is_told_where_the_interval_knows_it(
    low: float, high: float, direction: str
) -> None:
    change = Interval(value=(low + high) / 2, low=low, high=high, confidence=0.95)
    assert direction_of(change) == direction


@pytest.mark.parametrize(
    ("decision", "interval", "may_promote", "title", "serves"),
    [
        (
            Decision.INCONCLUSIVE,
            (-0.23, 0.004),
            True,
            f"{UNKNOWN}repin_volume_at_3 cannot tell: -6.25 % (95 %: -23.00 to +0.40 %)",
            STAYS,
        ),
        (Decision.REJECT, (0.01, 0.02), True, "is worse and was rejected", STAYS),
        (Decision.PROMOTE, (0.01, 0.02), True, "is promoted", BECOMES),
        (
            Decision.PROMOTE,
            (0.01, 0.02),
            False,
            "may be promoted, and this run promotes nothing",
            STAYS,
        ),
        (
            Decision.PROMOTE,
            (-0.0015, -0.0005),
            False,
            "is worse, within the margin; it may be promoted, and this run",
            STAYS,
        ),
    ],
)
def test_the_title_says_what_became_of_it_and_the_first_line_what_serves(
    run: ResolvedRun,
    decision: Decision,
    interval: tuple[float, float],
    may_promote: bool,
    title: str,
    serves: str,
) -> None:
    asked = run.model_copy(update={"may_promote": may_promote})
    outcome = outcome_in(asked, make_judgement(decision, low=interval[0], high=interval[1]))
    assert title in outcome.title
    assert outcome.lines()[0] == outcome.serves == serves
    assert ("is promoted" in outcome.done) is (serves == BECOMES)


def test_the_numbers_of_a_void_comparison_are_not_told(run: ResolvedRun) -> None:
    rejected = make_judgement(Decision.REJECT, "The bundle would not serve.")
    assert outcome_in(run, rejected, True).title == f"test_ranker v4 was rejected, {VOID}"
    judgement = make_judgement(Decision.INCONCLUSIVE, "One model on both sides.", high=-0.01)
    outcome = outcome_in(run, judgement, True)
    assert outcome.title == f"{UNKNOWN}{VOID}"
    assert "6.25" not in f"{outcome.title}{outcome.number}{outcome.most_hurt}"
    assert outcome.change is None and outcome.direction == "not compared"
    alert = compose_verdict(outcome, judgement, run, Settings())
    assert alert is not None and alert.kind is AlertKind.INCONCLUSIVE


def test_a_metric_that_was_not_compared_is_told_as_such(run: ResolvedRun) -> None:
    judgement = make_judgement(Decision.INCONCLUSIVE)
    comparison = judgement.comparison.model_copy(update={"metrics": ()})
    outcome = outcome_in(run, judgement.model_copy(update={"comparison": comparison}))
    assert outcome.title.endswith("repin_volume_at_3 not compared")
    assert (outcome.direction, outcome.change) == ("not compared", None)


def test_the_segment_that_loses_most_is_named(run: ResolvedRun) -> None:
    judgement = make_judgement(Decision.REJECT)
    found = with_segments(judgement, {"core": -0.02, "new": -0.3})
    auc = found.comparison.metrics[-1].model_copy(update={"metric": "auc", "segment": "casual"})
    comparison = found.comparison
    comparison = comparison.model_copy(update={"metrics": (*comparison.metrics, auc)})
    assert outcome_in(run, found.model_copy(update={"comparison": comparison})).most_hurt == (
        "Segment new loses most: repin_volume_at_3 -30.00 % (95 %: -32.00 to -28.00 %), 321 users."
    )
    assert outcome_in(run, judgement).most_hurt == ""


def test_no_link_carries_who_logs_in(run: ResolvedRun) -> None:
    settings = Settings(airflow_url="https://me:hidden@air.example/ui/")
    outcome = outcome_of(run, make_judgement(Decision.REJECT), None, settings)
    assert dict(outcome.links)["Airflow run"].startswith("https://air.example/ui/dags/")
