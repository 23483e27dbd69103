"""What a run's note says: the outcome's words, or what broke, beside what a person wrote.

That the scheduler writes it is tested in tests/pipelines/orchestration/test_scheduler.py.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import storage
from pipelines.alerts.links import mlflow_links
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Decision, Outcome
from pipelines.contracts.run_layout import failure_uri
from pipelines.orchestration.run_note import (
    JUDGING,
    LIMIT,
    NOTE_KEY,
    SIGNATURE,
    RunNotes,
    merged,
    told_of,
)
from pipelines.orchestration.runs import FAILURE_KEY
from pipelines.settings import DAG_ID, Settings
from support.judgements import CHAMPION, make_failure, make_judgement, make_promotion
from support.markdown import as_shown as as_text
from support.runs import make_run, save_artifact, save_run


@pytest.fixture
def run(home: Path) -> ResolvedRun:
    return save_run(make_run(home))


class Task(SimpleNamespace):
    """Stands for a task instance in its worker, with the XComs that it sees and leaves."""

    def __init__(self, task_id: str, run: ResolvedRun | None, **more: Any) -> None:
        resolved = {"return_value": {"run_uri": run.run_uri}} if run else {}
        super().__init__(
            task_id=task_id,
            dag_id=more.pop("dag_id", DAG_ID),
            run_id="manual__x",
            start_date=run.as_of if run else None,
            seen=resolved | more.pop("seen", {}),
            left={},
            **more,
        )

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
        return self.seen.get(key)

    def xcom_push(self, key: str, value: Any) -> None:
        self.left[key] = value


def test_the_task_that_judged_leaves_the_outcomes_words(run: ResolvedRun) -> None:
    judgement = make_judgement(Decision.REJECT)
    outcome = outcome_of(run, judgement, None, Settings())
    save_artifact(run, JUDGING, judgement.model_copy(update={"outcome": outcome}))
    task = Task(JUDGING, run)
    RunNotes().on_task_instance_success(task)
    assert task.left == {NOTE_KEY: f"**{run.as_of:%Y-%m-%d}** {told_of(outcome)}"}
    save_artifact(run, "promote_challenger", make_promotion())
    RunNotes().on_task_instance_success(moving := Task("promote_challenger", run))
    assert moving.left == task.left, "a rejection stays one"


@pytest.mark.parametrize("other", [{"task_id": "alert"}, {"dag_id": "theirs"}, {"__table__": 1}])
def test_others_leave_nothing(run: ResolvedRun, other: dict[str, Any]) -> None:
    save_artifact(run, JUDGING, make_judgement(Decision.REJECT))
    task = Task(**({"task_id": JUDGING, "run": run} | other))
    RunNotes().on_task_instance_success(task)
    assert task.left == {}


def test_a_stage_that_broke_leaves_why(run: ResolvedRun) -> None:
    noted = make_failure("build_snapshot", message="as *it* was", occurred_at=run.as_of)
    storage.write_model(failure_uri(run.run_uri, noted.stage), noted)
    task = Task(noted.stage, run)
    RunNotes().on_task_instance_failed(task)
    title, happened = task.left[NOTE_KEY].split("\n\n")
    day = f"{run.as_of:%Y-%m-%d}"
    assert title == f"**{day}** **BROKEN**: Homefeed retrain {day}: build\\_snapshot broke"
    assert "DataContractError in build\\_snapshot" in happened and "as \\*it\\* was" in happened


def test_a_run_that_was_not_resolved_leaves_what_was_refused() -> None:
    at = "2026-11-28T03:12:00+00:00"
    step = {"sentence": "Again.", "commands": ()}
    left = {"message": "as_of is wrong", "next_step": step, "at": at}
    task = Task("resolve_run", None, seen={FAILURE_KEY: left})
    RunNotes().on_task_instance_failed(task)
    assert "as\\_of is wrong" in task.left[NOTE_KEY]


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    run = make_run(tmp_path, champion=CHAMPION)
    places = mlflow_links("http://127.0.0.1:5000", "7", ("4" * 32, "3" * 32))
    return outcome_of(run, make_judgement(Decision.REJECT), None, Settings(), places)


def as_shown(note: str) -> str:
    """Return what a reader sees of it, as far as these notes go."""
    return as_text(note.replace("**", ""))


def test_the_words_are_the_outcomes_with_links_to_page_and_comparison(outcome: Outcome) -> None:
    note, places = merged("", told_of(outcome)), dict(outcome.links)
    shown = as_shown(note).split("\n\n")
    assert f"{outcome.decision}: {outcome.title}" == shown[0]
    assert outcome.number in shown and f"- {outcome.why}" in "\n".join(shown) and "~~" not in note
    assert shown[-1] == SIGNATURE
    for label in ("MLflow comparison", "All cycles"):
        assert f"[{label}](<{places[label]}>)" in note
    assert places["Verdict page"] in as_shown(note), "of another workspace, named where it lies"


def test_a_note_is_never_longer_than_airflow_keeps(outcome: Outcome) -> None:
    huge = {"number": "N" * 900, "reasons": ("[x](y) " * 60,)}
    note = merged("", told_of(outcome.model_copy(update=huge)))
    assert len(note) <= LIMIT and note.endswith(SIGNATURE)
    assert outcome.title in as_shown(note) and "N" * 900 not in note


def test_what_a_person_wrote_stays_below(outcome: Outcome) -> None:
    mine = "Asked Anna.\n\n**Look** at the save head."
    first = merged(mine, told_of(outcome))
    assert first.startswith("**REJECT**: ") and first.endswith(f"{SIGNATURE}\n\n{mine}")
    again = merged(f"{first}\n\nShe says: fine.", "**PROMOTE**: another end")
    assert again == f"**PROMOTE**: another end\n\n{SIGNATURE}\n\n{mine}\n\nShe says: fine."
    for left in (20, 80):
        text = "x" * (LIMIT - left)  # which leaves no room
        assert merged(text, told_of(outcome)) == text
