"""`train_challenger` as a stage: it trains on what the data gate has accepted, and publishes that.

Whole trainings are in `test_train_anchor`, one of them killed in the middle.
"""

from pathlib import Path

import pytest

from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, Severity, Snapshot
from pipelines.contracts.errors import DataContractError, DataGateFailedError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.registry import tracking
from pipelines.snapshot.build import write_snapshot
from pipelines.stages.train import train_challenger
from pipelines.storage import join, local_path, to_uri
from support.bundles import write_small_bundle
from support.commands import EXECUTABLE
from support.damage import flip_a_byte
from support.runs import make_run
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log
from training.fitting.spec import NodeAddress, TrainingResult, TrainingSpec
from training.launch import launcher


def report_on(snapshot_digest: str, is_met: bool) -> DataReport:
    outcome = ExpectationOutcome(
        name="enough_rows",
        description="There are enough rows.",
        severity=Severity.CRITICAL,
        is_met=is_met,
        observed="1",
        expected="2",
    )
    return DataReport(
        snapshot_digest=snapshot_digest,
        outcomes=(outcome,),
        docs_uri="file:///nowhere/index.html",
        reference_digest=None,
    )


@pytest.mark.parametrize(
    ("is_about_this", "is_met", "message"),
    [(True, False, "refuses it"), (False, True, "is about snapshot ffffffffffff")],
)
def test_a_snapshot_without_an_accepting_report_is_not_trained_on(
    tmp_path: Path, is_about_this: bool, is_met: bool, message: str
) -> None:
    write_tiny_log(tmp_path / "event_log")
    run = make_run(tmp_path, tiny_config(num_shards=1), TINY_AS_OF)
    snapshot: Snapshot = write_snapshot(run)
    report = report_on(snapshot.digest if is_about_this else "f" * 64, is_met)
    with pytest.raises(DataGateFailedError, match=message):
        train_challenger(run, snapshot, report, "file:///nowhere/output")


@pytest.mark.services
def test_a_bundle_that_is_not_the_one_that_was_trained_is_not_published(
    tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_log(tmp_path / "event_log")
    places = {"tracking_uri": tracking_uri, "registered_model": "trained", "experiment": "trained"}
    run = make_run(tmp_path, tiny_config(num_shards=1), TINY_AS_OF, **places)
    snapshot = write_snapshot(run)
    report = report_on(snapshot.digest, is_met=True)
    result = write_result(tmp_path)
    monkeypatch.setattr(launcher, "train", lambda spec, node: result)
    output_uri = to_uri(tmp_path / "output")
    made = train_challenger(run, snapshot, report, output_uri)
    assert digest_of_files(made.bundle_files) == made.model.bundle_digest == result.bundle_digest
    client, mine = tracking.connect(tracking_uri), made.model.mlflow_run_id
    shown = {each.path for each in client.list_artifacts(mine, "data_gate")}
    assert "data_gate/report.json" in shown
    [kept] = client.get_run(mine).inputs.dataset_inputs
    assert (kept.dataset.digest, kept.tags[0].value) == (snapshot.digest[:36], "training")

    def train_and_alter(spec: TrainingSpec, node: NodeAddress | None) -> TrainingResult:
        flip_a_byte(Path(result.bundle_dir) / "weights.safetensors")
        return result

    monkeypatch.setattr(launcher, "train", train_and_alter)
    later = join(output_uri, "later")
    again = f"run `{EXECUTABLE} stage train_challenger --run {run.run_uri}`"
    with pytest.raises(DataContractError, match=f"the digest of its bundle in .*{again}"):
        train_challenger(run, snapshot, report, later)
    assert not local_path(later).exists()


def write_result(folder: Path) -> TrainingResult:
    """Write what a training leaves, and return its result."""
    bundle = write_small_bundle(folder / "bundle", 1)
    (folder / "metrics.jsonl").write_bytes(b"")
    return TrainingResult(
        spec_identity="i" * 64,
        bundle_dir=str(bundle),
        bundle_digest=digest_of_files(digest_files(bundle)),
        num_steps=1,
        num_training_examples=1,
        final_training_loss=0.5,
        resumed_from_step=0,
        metrics_path=str(folder / "metrics.jsonl"),
    )
