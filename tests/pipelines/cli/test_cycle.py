"""`homefeed retrain` in this process: what it says at the end, and whom it tells that it broke."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ResolvedRun, Severity
from pipelines.contracts.errors import DataContractError, RunInProgressError
from pipelines.contracts.judgement import Decision
from pipelines.contracts.run_layout import manifest_uri
from pipelines.recipes import RECIPES, smoke
from pipelines.registry import history
from pipelines.settings import Settings
from pipelines.stages import runner
from support.commands import as_json, homefeed, lines, refusal
from support.judgements import CHAMPION, make_judgement, make_promotion, make_report
from support.runs import make_run, save_artifact, save_run


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedRun:
    """A cycle that is resolved, and judged against a champion of then; nothing was promoted."""
    found = save_run(make_run(home, champion=CHAMPION, may_promote=False))
    save_artifact(found, "compare_with_champion", make_judgement(Decision.REJECT))
    save_artifact(found, "check_snapshot", make_report())
    save_artifact(found, "promote_challenger", make_promotion(False))
    monkeypatch.setattr(runner, "start_run", lambda *_: found)
    monkeypatch.setattr(runner, "run_stage", lambda *_: "")
    return found


def kinds_told(run: ResolvedRun) -> list[str]:
    names = storage.list_names(storage.join(run.workspace_uri, "outbox"))
    return sorted(name.split(".")[1] for name in names if name.endswith(".json"))


def test_it_says_what_the_cycle_did_and_not_what_serves(run: ResolvedRun) -> None:
    shown, read = "\n".join(lines("retrain")), as_json("retrain")
    assert "v4 was not promoted." in shown and "There is no champion yet." in shown
    assert "data gate" not in shown
    assert read["run_uri"] == run.run_uri and read["outcome"]["title"] in shown


def test_what_the_data_gate_warns_of_stands_beside_the_verdict(run: ResolvedRun) -> None:
    of = {"is_met": False, "severity": Severity.WARNING}
    report = make_report(label_rate=of, zero_share=of, num_pins=of | {"is_met": True}, num_users={})
    judged = make_judgement(Decision.REJECT)
    outcome = outcome_of(run, judged, report, Settings())
    judged = judged.model_copy(update={"outcome": outcome})
    save_artifact(run, "compare_with_champion", judged)
    save_artifact(run, "check_snapshot", report)
    assert [line for line in lines("retrain") if "data gate" in line] == [
        f"The data gate warned of {name}: found 1; expected 2."
        for name in ("label_rate", "zero_share")
    ]


@pytest.mark.parametrize("command", ["retrain", "resolve", "stage"])
def test_an_unforeseen_error_is_told_once_and_not_where_airflow_tells_of_it(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    broken = "start_run" if command == "resolve" else "run_stage"
    monkeypatch.setattr(runner, broken, lambda *_: 1 / 0)
    asked = ("stage", "build_snapshot", run.run_uri) if command == "stage" else (command,)
    if command != "retrain":  # which Airflow does not run
        monkeypatch.setenv("HOMEFEED_DAG_CODE", "")
        assert isinstance(homefeed(*asked).exception, ZeroDivisionError)
        assert kinds_told(run) == []
        monkeypatch.delenv("HOMEFEED_DAG_CODE")
    assert isinstance(homefeed(*asked).exception, ZeroDivisionError)
    assert kinds_told(run) == ["broken_run"]


def test_a_cycle_that_breaks_and_then_ends_is_told_as_both(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold(name: str, run_uri: str) -> str:
        with history.promotion_lock(run.workspace_uri):
            return ""

    def fail(name: str, run_uri: str) -> str:
        raise DataContractError("no rows")

    def end(name: str, run_uri: str) -> str:
        if not storage.exists(manifest_uri(run_uri, name)):
            save_artifact(run, name, AlertReceipt(alert=None, delivered_to=()))
        return ""

    monkeypatch.setattr(history, "LOCK_WAIT_S", 0.1)
    monkeypatch.setattr(runner, "run_stage", hold)
    with history.promotion_lock(run.workspace_uri):  # another place that is held
        assert isinstance(refusal("retrain"), RunInProgressError)
    assert kinds_told(run) == ["broken_run"]
    monkeypatch.setattr(runner, "run_stage", fail)
    assert isinstance(refusal("retrain"), DataContractError)
    monkeypatch.setattr(runner, "run_stage", end)
    assert lines("retrain") == lines("retrain")
    assert kinds_told(run) == ["broken_run", "broken_run", "recovered"]


@pytest.mark.parametrize("is_told", [False, True])
def test_a_recipe_that_has_changed_since_the_cycle_was_resolved_is_told(
    run: ResolvedRun, monkeypatch, caplog, is_told: bool
) -> None:
    if is_told:
        gate = smoke().model_gate.model_copy(update={"margin": 0.02})
        changed = smoke().model_copy(update={"model_gate": gate})
        monkeypatch.setitem(RECIPES, "smoke", lambda: changed)
    done = homefeed("retrain", "--recipe", "smoke")
    assert done.exit_code == 0 and run.run_uri in done.output
    said = "recipe smoke has changed since this cycle was resolved"
    assert (said in caplog.text) is ("give another --key" in caplog.text) is is_told
