"""Registers small stand-in bundles, so that promotion is tested without training a model."""

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient

from pipelines.contracts.artifacts import AnchorWhy, Challenger, FreshAnchor, ModelRef, ResolvedRun
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.judgement import Decision, Judgement
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.time import Window
from pipelines.registry import moves, registry, tracking
from support.bundles import write_small_bundle
from support.judgements import interval, make_judgement, metric
from training.bundle.mlflow_model import LoggedBundle, log_bundle

NOW = datetime(2026, 3, 1, tzinfo=UTC)
"""When a test's first promotion is made, unless it says otherwise."""


def register_bundle(
    client: MlflowClient,
    run: ResolvedRun,
    folder: Path,
    bundle: Path | None = None,
    is_logged: bool = False,
    is_small: bool = False,
) -> ModelRef:
    """Log a bundle and register it as the challenger of the run, with both of its digests.

    Args:
        client: Client of the run's server.
        run: The cycle.
        folder: Where a small bundle is made.
        bundle: A bundle to be taken instead.
        is_logged: It is logged as a training logs it, with all the code that serves it. That is a
            hundred files; else a file of one line stands for the code.
        is_small: It is logged as a model too, with that one file for its code.
    """
    number = uuid.uuid4().int % 2**32
    bundle = bundle or write_small_bundle(folder / f"bundle-{number:08x}", number)
    mlflow_run_id = tracking.open_run(client, run, "challenger", "a challenger")
    log = log_bundle if is_logged else _log_small_model if is_small else _log_stand_in
    logged = log(client, bundle, mlflow_run_id)
    tags = {
        "bundle_digest": digest_of_files(digest_files(bundle)),
        "snapshot_digest": "s" * 64,
        "model_digest": logged.digest,
    }
    return registry.register(client, run, mlflow_run_id, logged.uri, tags)


def _log_stand_in(client: MlflowClient, bundle: Path, mlflow_run_id: str) -> LoggedBundle:
    """Log a bundle and a file that stands for the code, as plain files of the MLflow run."""
    with _stand_in(bundle) as folder:
        client.log_artifacts(mlflow_run_id, str(folder), artifact_path="model")
        digest = digest_of_files(digest_files(folder))
    return LoggedBundle(client.get_run(mlflow_run_id).info.artifact_uri + "/model", digest)


def _log_small_model(client: MlflowClient, bundle: Path, mlflow_run_id: str) -> LoggedBundle:
    """Log a bundle and a file that stands for the code, as a logged model."""
    experiment_id = client.get_run(mlflow_run_id).info.experiment_id
    model = client.create_logged_model(experiment_id, "small", mlflow_run_id)
    with _stand_in(bundle) as folder:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            place = path.parent.relative_to(folder).as_posix()
            client.log_model_artifact(model.model_id, str(path), None if place == "." else place)
        digest = digest_of_files(digest_files(folder))
    client.finalize_logged_model(model.model_id, "READY")
    return LoggedBundle(model.model_uri, digest)


@contextlib.contextmanager
def _stand_in(bundle: Path) -> Iterator[Path]:
    """Give a folder with a bundle as a model holds it, and a file that stands for the code."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(bundle, folder / "artifacts" / "bundle")
        (folder / "serving_model.py").write_text("print('the code that serves')\n")
        yield folder


def promote_bundle(
    client: MlflowClient, run: ResolvedRun, folder: Path, now: datetime = NOW
) -> ModelRef:
    """Register a small bundle as the run's challenger, promote it, and return it."""
    model = register_bundle(client, run, folder)
    judgement = judgement_of(run, model)
    moves.promote_challenger(run, challenger_of(model), NO_ANCHOR, judgement, now)
    return model


NO_ANCHOR = FreshAnchor(trained=None, snapshot=None, why=AnchorWhy.SAME)


def challenger_of(model: ModelRef) -> Challenger:
    return Challenger(
        model=model,
        bundle_uri="file:///nowhere",
        num_steps=1,
        num_training_examples=1,
        final_training_loss=0.5,
        seed=1,
    )


def judgement_of(
    run: ResolvedRun, model: ModelRef, decision: Decision = Decision.PROMOTE
) -> Judgement:
    """A judgement that compares `model` with the run's champion: 1 % better."""
    return make_judgement(
        decision,
        f"Because of a test: {decision}.",
        baseline_kind=BaselineKind.CHAMPION if run.champion else BaselineKind.RANKING,
        challenger_model=model,
        baseline_model=run.champion,
        holdout_digest="s" * 64,
        holdout=Window(start=datetime(2017, 6, 1, tzinfo=UTC), end=run.as_of),
        metrics=(metric("repin_volume_at_3", interval(0.01, 0.002, 0.02), 1.8, "all", 1.78),),
    )
