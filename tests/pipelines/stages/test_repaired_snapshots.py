"""`check_snapshot` after a refusal: the verdict says what was wrong then, and what it is now."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts.artifacts import DataReport, ResolvedRun, Snapshot
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.errors import DataGateFailedError
from pipelines.recipes import smoke
from pipelines.registry.standing import last_refused, mark_judged, read_refusal
from pipelines.stages import runner
from support.runs import PLANTED_AS_OF, make_run, save_run
from support.worlds import write_planted_world

STRICT = DataGateConfig(min_training_requests=100_000)
NAME = "enough_training_requests"


def prepare(tmp_path: Path, gate: DataGateConfig, run_id: str) -> ResolvedRun:
    """Return a run with a snapshot, resolved as if it began now."""
    if not (tmp_path / "event_log").exists():
        write_planted_world(tmp_path / "event_log", num_days=60)
    run = make_run(tmp_path, config=smoke().model_copy(update={"data_gate": gate}), run_id=run_id)
    uri = last_refused(run.workspace_uri, run.config.reference, run.as_of)
    save_run(run := run.model_copy(update={"refused_report_uri": uri}))
    runner.run_stage("build_snapshot", run.run_uri)
    return run


def refuse(run: ResolvedRun) -> str:
    with pytest.raises(DataGateFailedError) as caught:
        runner.run_stage("check_snapshot", run.run_uri)
    return str(caught.value)


def accept(run: ResolvedRun, again: bool = False) -> DataReport:
    runner.run_stage("check_snapshot", run.run_uri, again=again)
    return runner.read_artifact(run.run_uri, "check_snapshot", DataReport)


def marked(run: ResolvedRun) -> str:
    return last_refused(run.workspace_uri, run.config.reference, run.as_of)


def page_of(report: DataReport) -> str:
    return storage.read_bytes(report.docs_uri).decode()


def test_a_later_cycle_of_the_day_is_held_against_the_refused_snapshot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refused = prepare(tmp_path, STRICT, "refused")
    assert "Since it was refused" not in refuse(refused)
    with caplog.at_level(logging.INFO):
        report = accept(prepare(tmp_path, smoke().data_gate, "later"))
    same, mended, *others = report.since_refused
    assert same == "the snapshot is the one that was refused" and others == []
    assert mended.startswith(f"{NAME} is mended: found ")
    assert mended.endswith("expected at least 100")
    assert "Since it was refused" in page_of(report) and f"{NAME} is mended" in page_of(report)
    assert f"since it was refused: {same}; {mended}" in caplog.text


def test_a_run_that_is_judged_again_is_held_against_its_own_last_attempt(tmp_path: Path) -> None:
    run = prepare(tmp_path, STRICT, "refused")
    refuse(run)
    message = refuse(run)
    _, _, since = message.partition("Since it was refused before: ")
    assert since.startswith(f"the snapshot is the one that was refused; {NAME} is not mended: ")
    docs_uri = message.split("Data Docs: ")[1].split("\n")[0]
    assert f"{NAME} is not mended" in storage.read_bytes(docs_uri).decode()


def test_a_damaged_snapshot_that_was_built_again_is_called_mended(tmp_path: Path) -> None:
    run = prepare(tmp_path, smoke().data_gate, "damaged")
    snapshot = runner.read_artifact(run.run_uri, "build_snapshot", Snapshot)
    (storage.local_path(snapshot.uri) / snapshot.shards[0].name / "users.arrow").unlink()
    refuse(run)
    runner.run_stage("build_snapshot", run.run_uri, again=True)
    told = accept(run).since_refused
    assert any(
        each.startswith("files_match_manifest is mended: found none") and "1 in 1 of" in each
        for each in told
    )


def test_what_was_accepted_since_is_not_told_again(tmp_path: Path) -> None:
    refused = prepare(tmp_path, STRICT, "refused")
    refuse(refused)
    assert marked(refused).startswith(f"{refused.run_uri}/check_snapshot/output-")
    later = prepare(tmp_path, smoke().data_gate, "later")
    assert accept(later).since_refused != ()
    assert marked(later) == ""
    assert accept(prepare(tmp_path, smoke().data_gate, "last")).since_refused == ()
    assert accept(later, again=True).since_refused == ()


@pytest.mark.parametrize("content", [None, b"{", b'{"is_accepted": false}'])
def test_a_refused_report_that_is_gone_or_damaged_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    uri = storage.to_uri(tmp_path / "report.json")
    if content is not None:
        storage.write_bytes(uri, content)
    assert read_refusal(uri, DataReport) is None
    assert "judged without it" in caplog.text and uri in caplog.text


def test_without_the_refused_report_the_next_snapshot_is_judged_without(tmp_path: Path) -> None:
    refused = prepare(tmp_path, STRICT, "refused")
    refuse(refused)
    later = prepare(tmp_path, smoke().data_gate, "later")
    assert later.refused_report_uri == marked(refused) != ""
    deletion.remove(refused.run_uri)
    report = accept(later)
    assert report.is_accepted and report.since_refused == ()
    assert "Since it was refused" not in page_of(report)


def test_the_marker_of_a_day_and_recipe(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    workspace, recipe = run.workspace_uri, run.config.reference
    snapshot = Snapshot.model_construct(uri="file:///snapshot", digest="0" * 64, as_of=run.as_of)
    mark_judged(run, snapshot, "file:///report", is_accepted=False)
    assert marked(run) == "file:///report"
    assert last_refused(workspace, recipe, PLANTED_AS_OF + timedelta(days=1)) == ""
    assert last_refused(workspace, "completejourney", PLANTED_AS_OF) == ""
    [marker] = (tmp_path / "workspace" / "refused_snapshots").glob("*/2017-03-02.json")
    marker.write_text("{")
    assert marked(run) == ""
    mark_judged(run, snapshot, "file:///profile", is_accepted=True)
    assert not marker.exists()
