"""`check_snapshot` as a stage: what it leaves when it accepts, refuses, and judges again."""

import re
import shutil
from datetime import timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines import deletion, storage
from pipelines.contracts import schemas, snapshot_files
from pipelines.contracts.artifacts import DataReport, ResolvedRun, Snapshot
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.errors import ConfigurationError, DataGateFailedError, SnapshotDamagedError
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.recipes import smoke
from pipelines.registry.evidence import JudgedSnapshot, accepted_folder, newest_mark
from pipelines.stages import runner
from support import commands
from support.damage import flip_a_byte
from support.runs import PLANTED_AS_OF, make_run, save_run
from support.worlds import write_planted_world
from validation.data_gate import snapshot_profile

STRICT = DataGateConfig(min_training_requests=100_000)
TOO_FEW = "enough_training_requests"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a log of two cycles and the first one's snapshot, and a copy of it."""
    folder = tmp_path_factory.mktemp("built")
    write_planted_world(folder / "event_log", num_days=74)
    prepare(folder)
    return folder, Path(shutil.copytree(folder, f"{folder}.copy"))


@pytest.fixture
def home(built: tuple[Path, Path]) -> Path:
    """That folder as it was made: the first snapshot is found there, and not built again."""
    folder, copy = built
    shutil.rmtree(folder)
    return Path(shutil.copytree(copy, folder))


def prepare(
    home: Path,
    gate: DataGateConfig | None = None,
    run_id: str = "first",
    days_later: int = 0,
    reference: str | None = None,
) -> ResolvedRun:
    """Return a run whose snapshot is built, resolved as if it began now."""
    config = smoke().model_copy(update={"data_gate": gate or smoke().data_gate})
    as_of = PLANTED_AS_OF + timedelta(days=days_later)
    run = make_run(home, config=config, as_of=as_of, run_id=run_id)
    save_run(run := run.model_copy(update={"last_accepted_snapshot_uri": reference}))
    runner.run_stage("build_snapshot", run.run_uri)
    return run


def snapshot_of(run: ResolvedRun) -> Snapshot:
    return runner.read_artifact(run.run_uri, "build_snapshot", Snapshot)


def accept(run: ResolvedRun, again: bool = False) -> DataReport:
    runner.run_stage("check_snapshot", run.run_uri, again=again)
    return runner.read_artifact(run.run_uri, "check_snapshot", DataReport)


def refuse(run: ResolvedRun) -> DataGateFailedError:
    with pytest.raises(DataGateFailedError) as caught:
        runner.run_stage("check_snapshot", run.run_uri)
    return caught.value


def advised(message: str) -> list[str]:
    return re.findall(r"`((?:HOMEFEED_\S+ )*\S*homefeed [^`]+)`", message)


@pytest.mark.docs
def test_an_accepted_snapshot_becomes_the_reference(home: Path) -> None:
    run = prepare(home)  # of a recipe from outside, which has the name of one of ours
    config = run.config.model_copy(update={"source": "file:///mine/smoke.yaml"})
    report = accept(run := save_run(run.model_copy(update={"config": config})))
    assert report.is_accepted
    assert len({outcome.name for outcome in report.outcomes}) == len(report.outcomes) == 53
    assert '<p class="word">Accepted</p>' in storage.read_bytes(report.docs_uri).decode()
    folder = accepted_folder(run.workspace_uri, run.config.reference)
    [name] = storage.list_names(folder)
    marker = storage.read_model(storage.join(folder, name), JudgedSnapshot)
    assert storage.exists(f"{marker.snapshot_uri}/manifest.json")
    assert marker.found_uri == report.docs_uri.replace("data_docs/index.html", "profile.json")
    assert storage.exists(marker.found_uri)


@pytest.mark.docs
def test_a_refused_snapshot_stops_the_run_and_a_later_cycle_of_the_day_is_accepted(
    home: Path,
) -> None:
    refused = prepare(home, STRICT, "refused")
    error = refuse(refused)
    message = str(error)
    assert error.exit_code == 65 and re.search(f"{TOO_FEW} .*expected", message)
    assert '<p class="word">Not accepted</p>' in storage.read_bytes(error.docs_uri).decode()
    failure = storage.read_model(failure_uri(refused.run_uri, "check_snapshot"), StageFailure)
    assert (failure.error_class, failure.exit_code) == ("DataGateFailedError", 65)
    assert failure.acceptable == ()  # nobody may call too few requests enough
    assert storage.list_names(storage.join(refused.workspace_uri, "accepted_snapshots")) == []
    with pytest.raises(ConfigurationError, match="no manifest of check_snapshot"):
        runner.run_stage("train_challenger", refused.run_uri)
    new = commands.parse(*advised(message))
    assert (new.info_name, new.params["as_of"]) == ("retrain", f"{refused.as_of:%Y-%m-%d}")
    assert new.params["key"] != refused.trigger
    assert str(refuse(refused)).startswith(message.partition("Data Docs")[0])  # and again
    assert accept(prepare(home, run_id="later")).is_accepted


DAMAGES = {
    "altered": flip_a_byte,
    "truncated": lambda victim: victim.write_bytes(victim.read_bytes()[:-1]),
    "missing": Path.unlink,
    "deleted": lambda victim: shutil.rmtree(victim.parents[1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_refused_with_its_docs_and_mended_as_told(
    home: Path, damage: str
) -> None:
    run = prepare(home)
    snapshot = snapshot_of(run)
    shard = snapshot.shards[0].name
    DAMAGES[damage](storage.local_path(snapshot.uri) / shard / "examples.arrow")
    error = refuse(run)
    message = str(error)
    assert type(error) is SnapshotDamagedError
    [named] = [line for line in message.splitlines() if line.startswith("- files_match_manifest")]
    assert shard in named
    assert damage == "deleted" or f"{shard}/examples.arrow" in named
    # What could not be measured because of the damage would bury it.
    assert "not measured" not in message
    for command in advised(message):
        commands.run(command)
    assert runner.read_artifact(run.run_uri, "check_snapshot", DataReport).is_accepted
    assert snapshot_of(run) == snapshot
    snapshot_files.verify_files(snapshot, storage.local_path(snapshot.uri))


def test_a_snapshot_of_another_version_is_built_again_and_the_log_is_not_blamed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(home)
    longer = schemas.EXAMPLE_KEYS.append(pa.field("novelty", pa.float32()))
    monkeypatch.setitem(schemas.KEYS_OF_FILES, "examples", longer)
    error = refuse(run)
    assert type(error) is SnapshotDamagedError and "Mend the event log" not in str(error)
    assert run.run_uri in (build := advised(str(error))[-2]) and build.endswith(" --again")
    snapshot = snapshot_of(run)
    with pytest.raises(SnapshotDamagedError, match="no column novelty: another version"):
        snapshot_files.open_table(
            storage.local_path(snapshot.uri), f"{snapshot.shards[0].name}/examples.arrow"
        )


def test_the_kept_profile_judges_as_a_new_one_and_the_files_are_not_measured_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(first := prepare(home))
    reference = snapshot_of(first)
    later = prepare(home, None, "later", 14, reference.uri)
    measured: list[str] = []
    profile = snapshot_profile.profile_snapshot

    def profile_noted(snapshot: Snapshot, folder: Path) -> snapshot_profile.SnapshotProfile:
        measured.append(snapshot.digest)
        return profile(snapshot, folder)

    monkeypatch.setattr(snapshot_profile, "profile_snapshot", profile_noted)
    kept = accept(later)
    assert (kept.reference_digest, measured) == (reference.digest, [])
    docs_uri = runner.read_artifact(first.run_uri, "check_snapshot", DataReport).docs_uri
    profile_uri = docs_uri.replace("data_docs/index.html", "profile.json")
    altered = storage.read_bytes(profile_uri).replace(b"1", b"2")  # Still a profile.
    for spoil in (
        lambda: storage.write_bytes(profile_uri, altered),
        partial(deletion.remove, profile_uri),
    ):
        spoil()
        assert accept(later, again=True).outcomes == kept.outcomes
    assert measured == [reference.digest] * 2
    shift = next(o for o in kept.outcomes if o.name == "row_count_shift")
    assert shift.is_judged and shift.observed != "+0 %"
    # What a new cycle is resolved with: a snapshot that is gone is passed over.
    deletion.remove(reference.uri)
    folder = accepted_folder(later.workspace_uri, later.config.recipe)
    assert newest_mark(folder, later.as_of) is None
    with pytest.raises(ConfigurationError, match=f"working on .*{reference.uri}"):
        accept(later, again=True)
