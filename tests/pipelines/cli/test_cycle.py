"""`homefeed retrain` in this process: what it says at the end, and whom it tells that it broke."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines import storage
from pipelines.cli import cycle
from pipelines.cli.main import app
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import (
    DataReport,
    ExpectationOutcome,
    ResolvedRun,
    RunRequest,
    Severity,
)
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError, RunInProgressError
from pipelines.contracts.judgement import Decision, Promotion
from pipelines.contracts.run_layout import manifest_uri
from pipelines.recipes import RECIPES, smoke
from pipelines.registry import history
from pipelines.settings import Settings
from pipelines.stages import runner
from pipelines.stages.resolve_run import run_uri_of
from support.judgements import CHAMPION, baseline_facts, make_judgement
from support.runs import make_run, save_artifact, save_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedRun:
    """A cycle that is resolved, and judged against a champion of then; nothing was promoted."""
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    found = save_run(make_run(tmp_path, champion=CHAMPION, may_promote=False))
    judgement = make_judgement(Decision.REJECT)
    save_artifact(found, "compare_with_champion", judgement)
    save_artifact(found, "check_snapshot", data_report())
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


def data_report(*outcomes: ExpectationOutcome) -> DataReport:
    return DataReport(
        snapshot_digest="s" * 64, outcomes=outcomes, docs_uri="file:///docs", reference_digest=None
    )


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
    assert "data gate" not in done.output and "simple baselines" not in done.output
    read = json.loads(CliRunner().invoke(app, ["retrain", "--json"]).stdout)
    assert read["run_uri"] == run.run_uri
    assert read["outcome"]["title"] in done.output


def test_what_the_data_gate_warns_of_is_said_beside_the_verdict(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [
        ExpectationOutcome(
            name=name,
            description="Planted.",
            severity=severity,
            is_met=is_met,
            observed=f"{name} found",
            expected=f"{name} wanted",
        )
        for name, severity, is_met in (
            ("label_rate", Severity.WARNING, False),
            ("num_pins", Severity.WARNING, True),
            ("zero_share", Severity.WARNING, False),
            ("num_users", Severity.CRITICAL, True),
        )
    ]
    save_artifact(run, "check_snapshot", data_report(*outcomes))
    monkeypatch.setattr(runner, "run_stage", lambda *_: "")
    lines = [line for line in retrain().output.splitlines() if "data gate" in line]
    assert lines == [
        f"The data gate warned of {name}: found {name} found; expected {name} wanted."
        for name in ("label_rate", "zero_share")
    ]


def test_the_simple_baselines_are_a_table_beside_the_verdict(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_stage", lambda *_: "")
    without = baseline_facts("newest first", change=None)
    bare = without.model_copy(update={"level": None, "note": "No pin has an age."})
    baselines = (baseline_facts(), without, bare.model_copy(update={"name": "age"}))
    judgement = make_judgement(Decision.REJECT).model_copy(update={"baselines": baselines})
    save_artifact(run, "compare_with_champion", judgement)
    lines = retrain().output.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("simple baselines"))
    assert any(line.startswith("REJECT: ") for line in lines[:start])
    assert lines[start : start + 4] == [
        "simple baselines by repin_volume_at_3, the best first, and the challenger's change:",
        "  popularity, 28 days  1.5000  +15.00% (95 % interval +10.00% to +20.00%)",
        "  newest first         1.5000  not known",
        "  age                       -  not known: No pin has an age.",
    ]


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
    assert isinstance(error, RunInProgressError)
    assert [name.endswith(".txt") for name in outbox(run)].count(True) == 1


def test_a_cycle_that_breaks_and_then_ends_is_told_as_both(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_broken = True

    def run_stage(name: str, run_uri: str) -> str:
        if is_broken:
            raise DataContractError("no rows")
        if not storage.exists(manifest_uri(run_uri, name)):
            save_artifact(run, name, AlertReceipt(alert=None, delivered_to=()))
        return ""

    monkeypatch.setattr(runner, "run_stage", run_stage)
    assert isinstance(retrain().exception, DataContractError)
    is_broken = False
    for _ in range(2):
        assert retrain().exit_code == 0
    kinds = [name.split(".")[1] for name in outbox(run) if name.endswith(".json")]
    assert sorted(kinds) == ["broken_run", "recovered"]


def test_a_recipe_that_has_changed_since_the_cycle_was_resolved_is_told(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "run_stage", lambda *_: "")
    asked, genuine, read = list[str](), runner.is_resolved, list[str]()

    def is_resolved(request: RunRequest, settings: Settings) -> bool:
        asked.append(manifest_uri(run_uri_of(request, settings), "resolve_run"))
        return genuine(request, settings)

    def read_again(name: str) -> RunConfig:
        read.append(name)
        return RECIPES["smoke"]()

    monkeypatch.setattr(runner, "is_resolved", is_resolved)
    monkeypatch.setattr(cycle, "make_recipe", read_again)
    words = ["retrain", "--recipe", "smoke"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert read == [], "the cycle is new"
    storage.write_bytes(asked[0], b"{}")  # the same cycle, from now on
    assert CliRunner().invoke(app, words).exit_code == 0
    assert read == ["smoke"] and "has changed since" not in caplog.text
    gate = smoke().model_gate.model_copy(update={"margin": 0.02})
    monkeypatch.setitem(RECIPES, "smoke", lambda: smoke().model_copy(update={"model_gate": gate}))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and run.run_uri in done.output
    assert "recipe smoke has changed since this cycle was resolved" in caplog.text
    assert "give another --key" in caplog.text
