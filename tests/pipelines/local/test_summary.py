"""What is printed of a cycle: what it did itself, and no failure of an attempt beside it."""

from pathlib import Path

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Decision, Promotion
from pipelines.contracts.run_layout import StageFailure, lost_race_uri
from pipelines.local.summary import describe, find_run
from support.commands import EXECUTABLE, parse
from support.judgements import CHALLENGER, CHAMPION
from support.runs import make_run, save_artifact, save_run


def said_of(tmp_path: Path, run: ResolvedRun) -> list[str]:
    outcome = find_run(str(tmp_path / "workspace"), run.trigger)
    assert outcome is not None
    return describe(outcome)


def promotion(is_promoted: bool) -> Promotion:
    return Promotion(
        decision=Decision.PROMOTE if is_promoted else Decision.REJECT,
        is_promoted=is_promoted,
        champion_before=CHAMPION,
        champion_after=CHALLENGER if is_promoted else CHAMPION,
        reason="It is so.",
        history_uri="file:///w/history/x.json" if is_promoted else None,
    )


def test_a_cycle_says_what_it_did_and_not_what_serves(tmp_path: Path) -> None:
    """The champion that it was compared with may serve no more, or never have at the same time."""
    run = save_run(make_run(tmp_path, champion=CHAMPION))
    for is_promoted, did in ((False, "nothing"), (True, CHALLENGER.label)):
        save_artifact(run, "promote_challenger", promotion(is_promoted))
        lines = said_of(tmp_path, run)
        assert f"this cycle promoted {did}" in lines
        assert not any(line.startswith("serving") for line in lines)
        [ask] = [line for line in lines if line.startswith("which model serves now: ")]
        assert parse(ask.partition(": ")[2]).info_name == "serving"
        assert f" {EXECUTABLE} serving" in ask


def test_an_attempt_that_was_refused_is_no_failure_of_a_stage_that_ended(tmp_path: Path) -> None:
    run = save_run(make_run(tmp_path))
    lost = StageFailure(
        stage="build_snapshot",
        error_class="LostRaceError",
        message="already running",
        exit_code=75,
        is_retryable=True,
        occurred_at=run.as_of,
    )
    storage.write_model(lost_race_uri(run.run_uri, lost.stage), lost)
    assert any(line.startswith("FAILED in build_snapshot") for line in said_of(tmp_path, run))
    save_artifact(run, "build_snapshot", promotion(False))
    assert not any(line.startswith("FAILED") for line in said_of(tmp_path, run))
