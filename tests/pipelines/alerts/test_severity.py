"""How soon somebody should look: each kind has a severity with a meaning, decided in one place."""

import pytest

from pipelines.alerts.compose import compose_failure, compose_verdict
from pipelines.alerts.outcomes import outcome_of
from pipelines.alerts.rendering import render
from pipelines.alerts.severity import MEANINGS, severity_of
from pipelines.contracts.artifacts import Standing
from pipelines.contracts.judged.alert import AlertKind, AlertSeverity
from pipelines.contracts.judgement import Decision
from pipelines.settings import Settings
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run

SETTINGS = Settings()


def test_each_kind_has_a_severity_and_each_severity_a_meaning() -> None:
    found = {kind: severity_of(kind) for kind in AlertKind}
    assert set(found.values()) == set(AlertSeverity) == set(MEANINGS)
    critical = {kind for kind, severity in found.items() if severity is AlertSeverity.CRITICAL}
    assert critical == {AlertKind.BROKEN_RUN, AlertKind.DATA_GATE_FAILED}


@pytest.mark.parametrize("kind", AlertKind)
def test_who_has_to_decide_something_is_at_least_warned(kind: AlertKind) -> None:
    assert severity_of(kind, needs_somebody=True) is not AlertSeverity.INFO


@pytest.mark.parametrize(
    ("standing", "problem", "severity"),
    [
        (Standing(), "", AlertSeverity.INFO),
        (Standing(hold="It was rolled back."), "", AlertSeverity.WARNING),
        (Standing(), "The accepted recipe is not known.", AlertSeverity.WARNING),
    ],
)
def test_a_verdict_that_waits_for_a_person_warns(tmp_path, standing, problem, severity) -> None:  # type: ignore[no-untyped-def]
    run = make_run(tmp_path, champion=CHAMPION, standing=standing)
    found = make_judgement(Decision.INCONCLUSIVE, high=0.01).model_copy(update={"problem": problem})
    alert = compose_verdict(outcome_of(run, found, None, SETTINGS), found, run, SETTINGS)
    assert alert is not None and alert.severity is severity


def test_subject_and_text_say_it_with_its_meaning(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rendered = render(compose_failure(None, make_run(tmp_path), SETTINGS, "train_challenger"))
    assert rendered.subject.startswith("[homefeed] critical: Homefeed retrain 2017-03-02: train_")
    said = "Severity: critical, the cycle stands still until somebody acts"
    assert said in rendered.text and said in rendered.html
