"""`homefeed retrain` in this process: what it says at the end, and whom it tells that it broke."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines import storage
from pipelines.cli import cycle
from pipelines.cli.main import app
from pipelines.contracts.artifacts import ResolvedRun, RunRequest
from pipelines.contracts.errors import LostRaceError, RunInProgressError
from pipelines.contracts.judgement import Decision, Promotion
from pipelines.contracts.run_layout import manifest_uri, stage_lease_uri
from pipelines.recipes import RECIPES, smoke
from pipelines.registry import history
from pipelines.settings import Settings
from pipelines.stages import runner
from pipelines.stages.resolve_run import run_uri_of
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run, save_artifact, save_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedRun:
    """A cycle that is resolved, and judged against a champion of then; nothing was promoted."""
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    found = save_run(make_run(tmp_path, champion=CHAMPION, may_promote=False))
    judgement = make_judgement(Decision.REJECT)
    save_artifact(found, "compare_with_champion", judgement)
    stays = Promotion(
        decision=Decision.REJECT,
        is_promoted=False,
        champion_before=CHAMPION,
        champion_after=CHAMPION,
        reason="It lost.",
        history_uri=None,
    )
    save_artifact(found, "promote_challenger", stays)
    monkeypatch.setattr(runner, "start_run", lambda *_: found)
    return found


def retrain() -> Result:
    return CliRunner().invoke(app, ["retrain"])


def outbox(run: ResolvedRun) -> list[str]:
    return storage.list_names(storage.join(run.workspace_uri, "outbox"))


def test_it_says_what_the_cycle_did_and_not_what_serves(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_stage", lambda *_: "")
    done = retrain()
    assert done.exit_code == 0, done.output
    assert "this cycle promoted nothing" in done.output
    assert "serving: " not in done.output
    assert "homefeed serving" in done.output


def test_another_process_at_the_stage_is_no_reason_to_tell_people(run: ResolvedRun) -> None:
    with storage.exclusive_lock(stage_lease_uri(run.run_uri, "build_snapshot"), "the other one"):
        assert isinstance(retrain().exception, LostRaceError)
    assert outbox(run) == []


def test_another_place_that_is_held_is_told(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_stage(name: str, run_uri: str) -> str:
        with history.promotion_lock(run.workspace_uri):
            return ""

    monkeypatch.setattr(runner, "run_stage", run_stage)
    monkeypatch.setattr(history, "LOCK_WAIT_S", 0.1)
    with history.promotion_lock(run.workspace_uri):
        error = retrain().exception
    assert isinstance(error, RunInProgressError) and not isinstance(error, LostRaceError)
    assert [name.endswith(".txt") for name in outbox(run)].count(True) == 1


def test_a_recipe_that_has_changed_since_is_told(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "run_stage", lambda *_: "")
    monkeypatch.setattr(runner, "is_resolved", lambda *_: True)
    words = ["retrain", "--recipe", "smoke"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert "has changed since" not in caplog.text
    gate = smoke().model_gate.model_copy(update={"margin": 0.02})
    monkeypatch.setitem(RECIPES, "smoke", lambda: smoke().model_copy(update={"model_gate": gate}))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and run.run_uri in done.output
    assert "recipe smoke has changed since this cycle was resolved" in caplog.text
    assert "give another --key" in caplog.text


def test_a_recipe_is_read_again_only_where_the_cycle_was_resolved_before(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_stage", lambda *_: "")
    asked, read = [], []
    genuine = runner.is_resolved

    def is_resolved(request: RunRequest, settings: Settings) -> bool:
        asked.append(manifest_uri(run_uri_of(request, settings), "resolve_run"))
        return genuine(request, settings)

    monkeypatch.setattr(runner, "is_resolved", is_resolved)
    monkeypatch.setattr(cycle, "make_recipe", lambda name: read.append(name) or smoke())
    words = ["retrain", "--recipe", "smoke"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert read == []
    storage.write_bytes(asked[0], b"{}")  # the same cycle, from now on
    assert CliRunner().invoke(app, words).exit_code == 0
    assert read == ["smoke"] and len(set(asked)) == 1
