"""A run's note has the outcome's own words, keeps a person's, and fits into what Airflow keeps."""

from pathlib import Path

import pytest

from pipelines.alerts.compose import compose_failure
from pipelines.alerts.links import mlflow_links
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.judged.outcome import Outcome
from pipelines.contracts.judgement import Decision
from pipelines.orchestration.shown.words import (
    LIMIT,
    SIGNATURE,
    merged,
    told_of,
    told_of_failure,
)
from pipelines.settings import Settings
from support.judgements import CHAMPION, make_judgement
from support.markdown import as_shown as as_text
from support.runs import make_run


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    run = make_run(tmp_path, champion=CHAMPION)
    places = mlflow_links("http://127.0.0.1:5000", "7", ("4" * 32, "3" * 32))
    return outcome_of(run, make_judgement(Decision.REJECT), None, Settings(), places)


def as_shown(note: str) -> str:
    """Return what a reader sees of it, as far as these notes go."""
    return as_text(note.replace("**", ""))


def test_the_words_are_the_outcomes(outcome: Outcome) -> None:
    shown = as_shown(merged("", told_of(outcome))).split("\n\n")
    assert f"{outcome.decision}: {outcome.title}" == shown[0]
    assert outcome.serves == shown[1]
    assert outcome.number in shown and outcome.why in shown
    assert shown[-1] == SIGNATURE


def test_the_note_links_the_page_and_the_comparison(outcome: Outcome) -> None:
    note = merged("", told_of(outcome))
    places = dict(outcome.links)
    for label in ("Verdict page in MLflow", "MLflow comparison"):
        assert f"[{label}](<{places[label]}>)" in note


def test_without_a_server_the_page_is_named_where_it_lies(outcome: Outcome) -> None:
    places = tuple(each for each in outcome.links if "MLflow" not in each[0])
    note = merged("", told_of(outcome.model_copy(update={"links": places})))
    assert "Verdict page" in note and dict(places)["Verdict page"] in as_shown(note)


def test_a_note_is_never_longer_than_airflow_keeps(outcome: Outcome) -> None:
    huge = {"title": "A *very* long name. " * 90, "number": "N" * 900, "why": "[x](y) " * 60}
    note = merged("", told_of(outcome.model_copy(update=huge)))
    assert len(note) <= LIMIT
    assert note.startswith("**REJECT**: A \\*very\\* long name.")
    assert outcome.serves in as_shown(note)
    assert "N" * 900 not in note and note.endswith(SIGNATURE)


def test_what_a_person_wrote_stays_before_and_behind(outcome: Outcome) -> None:
    first = merged("Asked Anna.\n\n**Look** at the save head.", told_of(outcome))
    assert first.startswith("Asked Anna.\n\n**Look** at the save head.\n\n**REJECT**: ")
    edited = f"{first}\n\nAnna says: fine."
    again = merged(edited, ["**PROMOTE**: another end"])
    assert again == (
        "Asked Anna.\n\n**Look** at the save head.\n\nAnna says: fine.\n\n"
        f"**PROMOTE**: another end\n\n{SIGNATURE}"
    )


def test_a_person_who_left_no_room_is_left_alone(outcome: Outcome) -> None:
    text = "x" * (LIMIT - 20)
    assert merged(text, told_of(outcome)) == text
    assert merged(text, []) == text


def test_a_failure_is_told_in_the_words_of_its_alert(tmp_path: Path) -> None:
    run = make_run(tmp_path, champion=CHAMPION)
    alert = compose_failure(None, run, Settings(), "train_challenger", "task_failure")
    shown = as_shown(merged("", told_of_failure(alert))).split("\n\n")
    assert shown[:3] == [f"BROKEN: {alert.title}", alert.happened, alert.done]
