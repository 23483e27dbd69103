"""`check_snapshot` as a stage: what it leaves when it accepts, and when it refuses."""

import re
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts import snapshot_files
from pipelines.contracts.artifacts import DataReport, ResolvedRun, Snapshot
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    DataGateFailedError,
    SnapshotDamagedError,
)
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.recipes import smoke
from pipelines.registry.standing import (
    JudgedSnapshot,
    accepted_folder,
    newest_accepted,
)
from pipelines.stages import runner
from support import commands
from support.damage import flip_a_byte
from support.runs import PLANTED_AS_OF, make_run, save_run
from support.worlds import write_planted_world
from validation.data_gate import snapshot_profile


def prepare(
    tmp_path: Path, gate: DataGateConfig, days_later: int = 0, reference: str | None = None
) -> ResolvedRun:
    """Write a planted world, and a resolved run whose snapshot is built."""
    if not (tmp_path / "event_log").exists():
        write_planted_world(tmp_path / "event_log", num_days=60 + days_later)
    run = make_run(
        tmp_path,
        config=smoke().model_copy(update={"data_gate": gate}),
        as_of=PLANTED_AS_OF + timedelta(days=days_later),
        last_accepted_snapshot_uri=reference,
    )
    save_run(run)
    runner.run_stage("build_snapshot", run.run_uri)
    return run


def report_of(run: ResolvedRun) -> DataReport:
    return runner.read_artifact(run.run_uri, "check_snapshot", DataReport)


def advised(message: str) -> list[str]:
    return re.findall(r"`((?:HOMEFEED_\S+ )*homefeed [^`]+)`", message)


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counts: Counter[str] = Counter()
    genuine = snapshot_files.sha256_of

    def counted(path: Path) -> str:
        counts[str(path)] += 1
        return genuine(path)

    monkeypatch.setattr(snapshot_files, "sha256_of", counted)
    return counts


def test_an_accepted_snapshot_becomes_the_reference(tmp_path: Path) -> None:
    run = prepare(tmp_path, smoke().data_gate)
    runner.run_stage("check_snapshot", run.run_uri)
    report = report_of(run)
    assert report.is_accepted
    assert len({outcome.name for outcome in report.outcomes}) == len(report.outcomes) == 57
    assert '<p class="word">Accepted</p>' in storage.read_bytes(report.docs_uri).decode()
    folder = accepted_folder(run.workspace_uri, run.config.recipe)
    [name] = storage.list_names(folder)
    marker = storage.read_model(storage.join(folder, name), JudgedSnapshot)
    assert storage.exists(f"{marker.snapshot_uri}/manifest.json")
    assert marker.found_uri == report.docs_uri.replace("data_docs/index.html", "profile.json")
    assert storage.exists(marker.found_uri)


def test_a_refused_snapshot_stops_the_run_and_keeps_its_docs(tmp_path: Path) -> None:
    run = prepare(tmp_path, DataGateConfig(min_training_requests=100_000))
    with pytest.raises(DataGateFailedError, match="enough_training_requests .*expected") as caught:
        runner.run_stage("check_snapshot", run.run_uri)
    assert caught.value.exit_code == 65
    docs_uri = str(caught.value).split("Data Docs: ")[1].split("\n")[0]
    assert '<p class="word">Not accepted</p>' in storage.read_bytes(docs_uri).decode()
    failure = storage.read_model(failure_uri(run.run_uri, "check_snapshot"), StageFailure)
    assert (failure.error_class, failure.is_retryable) == ("DataGateFailedError", False)
    assert failure.acceptable == ()  # nobody may call too few requests enough
    assert storage.list_names(storage.join(run.workspace_uri, "accepted_snapshots")) == []
    with pytest.raises(ConfigurationError, match="no manifest of check_snapshot"):
        runner.run_stage("train_challenger", run.run_uri)
    [command] = advised(str(caught.value))
    parsed = commands.parse(command)
    assert (parsed.info_name, parsed.params["as_of"]) == ("retrain", "2017-03-02")
    assert parsed.params["key"] != run.trigger


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing", "deleted"])
def test_a_damaged_snapshot_is_refused_with_its_docs_and_mended_as_told(
    tmp_path: Path, damage: str
) -> None:
    run = prepare(tmp_path, smoke().data_gate)
    snapshot = runner.read_artifact(run.run_uri, "build_snapshot", Snapshot)
    shard = snapshot.shards[0].name
    victim = storage.local_path(snapshot.uri) / shard / "examples.arrow"
    if damage == "altered":
        flip_a_byte(victim)
    elif damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-1])
    elif damage == "missing":
        victim.unlink()
    else:
        deletion.remove(snapshot.uri)

    with pytest.raises(DataGateFailedError) as caught:
        runner.run_stage("check_snapshot", run.run_uri)
    assert type(caught.value) is SnapshotDamagedError
    message = str(caught.value)
    [named] = [line for line in message.splitlines() if line.startswith("- files_match_manifest")]
    assert shard in named
    assert damage == "deleted" or f"{shard}/examples.arrow" in named
    docs = storage.read_bytes(message.split("Data Docs: ")[1].split("\n", maxsplit=1)[0]).decode()
    assert "files_match_manifest" in docs and shard in docs
    # What could not be measured because of the damage would bury it.
    assert "not measured" not in message
    assert re.search(r"^- \d\d more could not be measured because of these", message, re.MULTILINE)

    for command in advised(message):
        commands.run(command)
    assert report_of(run).is_accepted
    since = report_of(run).since_refused
    assert any("files_match_manifest is mended" in phrase for phrase in since)
    assert len(since) < 6, since
    assert runner.read_artifact(run.run_uri, "build_snapshot", Snapshot) == snapshot
    snapshot_files.verify_files(snapshot, storage.local_path(snapshot.uri))


def test_every_file_is_hashed_once_and_the_reference_s_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = prepare(tmp_path, smoke().data_gate, days_later=14)  # the world covers both days
    first = prepare(tmp_path, smoke().data_gate)
    runner.run_stage("check_snapshot", first.run_uri)
    reference = runner.read_artifact(first.run_uri, "build_snapshot", Snapshot)
    later = later.model_copy(update={"last_accepted_snapshot_uri": reference.uri})
    save_run(later)
    runner.run_stage("build_snapshot", later.run_uri)
    snapshot = runner.read_artifact(later.run_uri, "build_snapshot", Snapshot)

    counts = count_hashes(monkeypatch)
    runner.run_stage("check_snapshot", later.run_uri)
    folder = storage.local_path(snapshot.uri)
    assert counts == dict.fromkeys((str(folder / file.path) for file in snapshot.files), 1)


def test_the_kept_profile_judges_as_a_new_one_and_is_made_again_where_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = prepare(tmp_path, smoke().data_gate, days_later=14)
    first = prepare(tmp_path, smoke().data_gate)
    runner.run_stage("check_snapshot", first.run_uri)
    reference = runner.read_artifact(first.run_uri, "build_snapshot", Snapshot)
    later = later.model_copy(update={"last_accepted_snapshot_uri": reference.uri})
    save_run(later)
    runner.run_stage("build_snapshot", later.run_uri)

    measured: list[str] = []
    genuine = snapshot_profile.profile_snapshot

    def noted(snapshot: Snapshot, folder: Path) -> snapshot_profile.SnapshotProfile:
        measured.append(snapshot.digest)
        return genuine(snapshot, folder)

    monkeypatch.setattr(snapshot_profile, "profile_snapshot", noted)
    runner.run_stage("check_snapshot", later.run_uri)
    kept = report_of(later)
    assert kept.reference_digest == reference.digest
    assert measured == []

    deletion.remove(report_of(first).docs_uri.replace("data_docs/index.html", "profile.json"))
    runner.run_stage("check_snapshot", later.run_uri, again=True)
    assert measured == [reference.digest]
    assert report_of(later).outcomes == kept.outcomes
    shift = next(o for o in kept.outcomes if o.name == "row_count_shift")
    assert shift.is_judged and shift.observed != "+0 %"


def test_a_reference_that_was_deleted_to_free_space_is_told_with_the_new_cycle_s_command(
    tmp_path: Path,
) -> None:
    later = prepare(tmp_path, smoke().data_gate, days_later=14)  # the world covers both days
    first = prepare(tmp_path, smoke().data_gate)
    runner.run_stage("check_snapshot", first.run_uri)
    reference = runner.read_artifact(first.run_uri, "build_snapshot", Snapshot)
    later = later.model_copy(update={"last_accepted_snapshot_uri": reference.uri})
    save_run(later)
    runner.run_stage("build_snapshot", later.run_uri)
    deletion.remove(reference.uri)
    with pytest.raises(DataContractError, match=f"{reference.uri}, .* is gone") as caught:
        runner.run_stage("check_snapshot", later.run_uri)
    failure = storage.read_model(failure_uri(later.run_uri, "check_snapshot"), StageFailure)
    assert (failure.exit_code, failure.is_retryable) == (65, False)
    [command] = advised(str(caught.value))
    parsed = commands.parse(command)
    assert (parsed.info_name, parsed.params["as_of"]) == ("retrain", f"{later.as_of:%Y-%m-%d}")
    assert parsed.params["key"] != later.trigger
    # What the new cycle is resolved with: a snapshot that is gone is passed over.
    workspace, recipe = later.workspace_uri, later.config.recipe
    assert newest_accepted(workspace, recipe, later.as_of) is None
