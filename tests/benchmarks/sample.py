"""The Complete Journey sample for the benchmarks: event log, snapshot, trained variants.

Kept under .homefeed/ so that a second run of a benchmark does not ingest again.
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.config import RunConfig
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.recipes import completejourney
from pipelines.sources.completejourney.adapter import CompleteJourneyAdapter
from pipelines.sources.publish import ingest
from training.bundle.score_split import SplitScores, score_split
from training.fitting.spec import Lineage, TrainingSpec
from training.launch import launcher

AS_OF = datetime(2017, 6, 12, tzinfo=UTC)
HOME = Path(__file__).resolve().parents[2] / ".homefeed"


def event_log_uri() -> str:
    """Return the sample's event log, ingesting it the first time."""
    uri = storage.to_uri(HOME / "event_log")
    ingest(CompleteJourneyAdapter(), uri)
    return uri


def make_run(config: RunConfig, as_of: datetime, workspace: Path, log_uri: str = "") -> ResolvedRun:
    """Return a first-cycle run over the sample or another event log, without a registry."""
    workspace_uri = storage.to_uri(workspace)
    return ResolvedRun(
        run_id=f"bench-{as_of:%Y-%m-%d}",
        run_uri=storage.join(workspace_uri, "runs", "bench"),
        as_of=as_of,
        config=config,
        code_version="bench",
        event_log_uri=log_uri or event_log_uri(),
        workspace_uri=workspace_uri,
        tracking_uri="http://127.0.0.1:9",
        experiment="bench",
        registered_model="bench",
        champion=None,
        last_accepted_snapshot_uri=None,
        may_promote=False,
        num_devices=1,
        trigger="bench",
    )


def variant(seed: int) -> RunConfig:
    """Return the sample's recipe with a seed."""
    base = completejourney()
    training = base.training.model_copy(update={"seed": seed})
    return base.model_copy(update={"training": training})


def train_and_score(snapshot: Snapshot, config: RunConfig) -> SplitScores:
    """Train a model, and return its scores of the holdout."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
        bundle = Path(launcher.train(spec_of(snapshot, config, work_dir)).bundle_dir)
        return score_split(bundle, snapshot, storage.local_path(snapshot.uri), SPLIT_HOLDOUT)


def spec_of(snapshot: Snapshot, config: RunConfig, work_dir: str) -> TrainingSpec:
    """Return a training without live metrics."""
    lineage = Lineage(
        as_of=snapshot.as_of,
        snapshot_digest=snapshot.digest,
        code_version="bench",
        code_digest=code_digest(),
        seed=config.training.seed,
    )
    return TrainingSpec(
        snapshot=snapshot,
        config=config,
        lineage=lineage,
        snapshot_dir=str(storage.local_path(snapshot.uri)),
        work_dir=work_dir,
        num_devices=1,
        tracking_uri="",
        mlflow_run_id="",
    )
