"""What is told of a cycle that was judged: number, direction, what serves, who is hurt most.

That every place tells it alike is tested in tests/pipelines/stages/test_compare_with_champion.py.
"""

from pathlib import Path

import pytest

from pipelines.alerts.compose import compose_verdict
from pipelines.alerts.outcomes import direction_of, outcome_of
from pipelines.contracts.alert import AlertKind
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Decision, Judgement, Outcome, Promoted
from pipelines.contracts.reasons import Interval, MetricComparison
from pipelines.settings import Settings
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    return make_run(tmp_path, champion=CHAMPION)


def outcome_in(run: ResolvedRun, judgement: Judgement) -> Outcome:
    return outcome_of(run, judgement, None, Settings())


def row_of(metric: str, segment: str, value: float) -> MetricComparison:
    change = Interval(value=value, low=value - 0.1, high=value + 0.1, confidence=0.95)
    return MetricComparison(
        metric=metric, segment=segment, challenger=1.0, baseline=1.0, relative_change=change
    )


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


def test_the_title_has_number_and_direction(run: ResolvedRun) -> None:
    outcome = outcome_in(run, make_judgement(Decision.INCONCLUSIVE, low=-0.23, high=0.004))
    assert outcome.title == (
        "test_ranker v4 was not promoted: it is not known to be good enough, "
        "repin_volume_at_3 cannot tell: -6.25 % (95 %: -23.00 to +0.40 %)"
    )


def test_what_cannot_serve_is_rejected_also_where_the_comparison_is_void(run: ResolvedRun) -> None:
    judgement = make_judgement(Decision.REJECT, "The bundle would not serve.")
    outcome = outcome_of(run, judgement, None, Settings(), is_void=True)
    assert outcome.title.startswith("test_ranker v4 was rejected, the comparison is void")


def test_the_numbers_of_a_void_comparison_are_not_told(run: ResolvedRun) -> None:
    judgement = make_judgement(Decision.INCONCLUSIVE, "One model on both sides.", high=-0.01)
    outcome = outcome_of(run, judgement, None, Settings(), is_void=True)
    assert outcome.title == (
        "test_ranker v4 was not promoted: it is not known to be good enough, "
        "the comparison is void and its numbers count for nothing"
    )
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


@pytest.mark.parametrize(
    ("decision", "may_promote", "serves"),
    [
        (Decision.REJECT, True, "test_ranker v3 (as_of 2017-02-16) stays champion."),
        (
            Decision.PROMOTE,
            True,
            "test_ranker v4 (as_of 2017-03-02) becomes champion in place of test_ranker v3.",
        ),
        (Decision.PROMOTE, False, "test_ranker v3 (as_of 2017-02-16) stays champion."),
    ],
)
def test_the_first_line_says_what_serves(
    run: ResolvedRun, decision: Decision, may_promote: bool, serves: str
) -> None:
    asked = run.model_copy(update={"may_promote": may_promote})
    outcome = outcome_in(asked, make_judgement(decision, low=0.01, high=0.02))
    assert outcome.lines()[0] == outcome.serves == serves


def test_a_run_that_may_not_promote_does_not_claim_that_it_did(run: ResolvedRun) -> None:
    judgement = make_judgement(Decision.PROMOTE, low=0.01, high=0.02)
    asked = run.model_copy(update={"may_promote": False})
    outcome = outcome_in(asked, judgement)
    assert judgement.verdict.promoted is Promoted.CHALLENGER
    assert "may be promoted, and this run promotes nothing" in outcome.title
    assert "is promoted" not in outcome.done


def test_nor_where_the_loss_is_within_the_margin(run: ResolvedRun) -> None:
    judgement = make_judgement(Decision.PROMOTE, low=-0.0015, high=-0.0005)
    outcome = outcome_in(run.model_copy(update={"may_promote": False}), judgement)
    assert "is worse, within the margin; it may be promoted, and this run" in outcome.title
    assert "is promoted" not in outcome.title + outcome.done
    assert "stays champion" in outcome.serves


def test_the_segment_that_loses_most_is_named(run: ResolvedRun) -> None:
    judgement = make_judgement(Decision.REJECT)
    rows = [
        MetricComparison(
            metric=metric,
            segment=segment,
            challenger=1.0,
            baseline=1.0,
            relative_change=Interval(
                value=value, low=value - 0.1, high=value + 0.1, confidence=0.95
            ),
        )
        for metric, segment, value in [
            ("repin_volume_at_3", "core", -0.02),
            ("repin_volume_at_3", "new", -0.3),
            ("auc", "casual", -0.9),
        ]
    ]
    comparison = judgement.comparison
    changed = {"metrics": (*comparison.metrics, *rows), "segment_users": {"all": 9, "new": 7}}
    comparison = comparison.model_copy(update=changed)
    outcome = outcome_in(run, judgement.model_copy(update={"comparison": comparison}))
    assert outcome.most_hurt == (
        "Segment new loses most: repin_volume_at_3 -30.00 % (95 %: -40.00 to -20.00 %), 7 users."
    )
    assert outcome_in(run, judgement).most_hurt == ""


def test_no_link_carries_who_logs_in(run: ResolvedRun) -> None:
    settings = Settings(airflow_url="https://me:hidden@air.example/ui/")
    outcome = outcome_of(run, make_judgement(Decision.REJECT), None, settings)
    assert dict(outcome.links)["Airflow run"].startswith("https://air.example/ui/dags/")
