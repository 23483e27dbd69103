"""What a task leaves for the run's note: the outcome where it judged, the reason where it broke.

That the scheduler writes it is tested in tests/pipelines/orchestration/test_scheduler.py.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import storage
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Decision
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.orchestration.shown.keys import FAILURE_KEY, NOTE_KEY
from pipelines.orchestration.shown.run_note import JUDGING, RunNotes
from pipelines.orchestration.shown.words import told_of
from pipelines.orchestration.timetable import HomefeedPlugin
from pipelines.settings import DAG_ID, Settings
from support.judgements import make_judgement
from support.runs import make_run, save_artifact, save_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedRun:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    return save_run(make_run(tmp_path))


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
    assert task.left == {NOTE_KEY: told_of(outcome)}


@pytest.mark.parametrize("other", [{"task_id": "alert"}, {"dag_id": "theirs"}, {"__table__": 1}])
def test_others_leave_nothing(run: ResolvedRun, other: dict[str, Any]) -> None:
    save_artifact(run, JUDGING, make_judgement(Decision.REJECT))
    task = Task(**({"task_id": JUDGING, "run": run} | other))
    RunNotes().on_task_instance_success(task)
    assert task.left == {}


def test_a_stage_that_broke_leaves_why(run: ResolvedRun) -> None:
    noted = StageFailure(
        stage="build_snapshot",
        error_class="DataContractError",
        message="as *it* was",
        exit_code=65,
        is_retryable=False,
        occurred_at=run.as_of,
    )
    storage.write_model(failure_uri(run.run_uri, noted.stage), noted)
    task = Task(noted.stage, run)
    RunNotes().on_task_instance_failed(task)
    title, happened, *_ = task.left[NOTE_KEY]
    assert title == f"**BROKEN**: Homefeed retrain {run.as_of:%Y-%m-%d}: build\\_snapshot broke"
    assert "DataContractError in build\\_snapshot" in happened and "as \\*it\\* was" in happened


def test_a_run_that_was_not_resolved_leaves_what_was_refused() -> None:
    at = "2026-11-28T03:12:00+00:00"
    step = {"sentence": "Again.", "commands": ()}
    left = {"message": "as_of is wrong", "next_step": step, "at": at}
    task = Task("resolve_run", None, seen={FAILURE_KEY: left})
    RunNotes().on_task_instance_failed(task)
    assert task.left[NOTE_KEY][1] == (
        "resolve\\_run failed at 2026-11-28 03:12:00 UTC: as\\_of is wrong"
    )


def test_a_task_that_cannot_leave_a_word_ends_all_the_same(run: ResolvedRun, caplog: Any) -> None:
    RunNotes().on_task_instance_success(Task(JUDGING, run))  # nothing was judged
    RunNotes().on_task_instance_failed(Task("alert", None))
    assert caplog.text.count("the run's note is not written") == 2


def test_airflow_is_given_the_listener() -> None:
    assert any(isinstance(each, RunNotes) for each in HomefeedPlugin.listeners)
