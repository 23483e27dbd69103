"""Shared by the model's tests: a snapshot of a planted world, and a bundle trained on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path
from support.listeners import Listeners, watched_listeners
from support.runs import make_run
from support.worlds import write_planted_world
from training.bundle.files import Predictor, load_bundle
from training.fitting.spec import Lineage, TrainingResult, TrainingSpec
from training.launch.launcher import train

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class PlantedSnapshot:
    """A snapshot of a planted world, and the configuration that it was built with."""

    snapshot: Snapshot
    folder: Path
    config: RunConfig

    def spec(self, work_dir: Path, num_devices: int = 1, **overrides: Any) -> TrainingSpec:
        """Return a training of it; `model` and `training` override options of these names."""
        config = self.config
        for section in ("model", "training"):
            changed = getattr(config, section).model_copy(update=overrides.pop(section, {}))
            config = config.model_copy(update={section: changed})
        fields: dict[str, Any] = {
            "snapshot": self.snapshot,
            "config": config,
            "lineage": Lineage(
                as_of=self.snapshot.as_of,
                snapshot_digest=self.snapshot.digest,
                code_version="test",
                code_digest="c" * 64,
                seed=config.training.seed,
            ),
            "snapshot_dir": str(self.folder),
            "work_dir": str(work_dir),
            "num_devices": num_devices,
            "tracking_uri": "",
            "mlflow_run_id": "",
        }
        return TrainingSpec(**(fields | overrides))

    def spec_with_dropout(
        self, work_dir: Path, num_devices: int = 1, every: int = 4, num_nodes: int = 1
    ) -> TrainingSpec:
        """Return a training whose generator differs by rank, and with checkpoints in an epoch."""
        return self.spec(
            work_dir,
            num_devices,
            model={"dropout": 0.1, "mlp_dropout": 0.1},
            training={"num_epochs": 3, "checkpoint_every_steps": every},
            num_nodes=num_nodes,
        )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread per process: another number of threads rounds differently."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedSnapshot:
    folder = tmp_path_factory.mktemp("planted")
    write_planted_world(folder / "event_log", num_users=100, candidates=10)
    run = make_run(folder)
    snapshot = write_snapshot(run)
    # no dropout: its generator differs by rank, and ranks are compared
    small = {"dropout": 0.0, "mlp_dropout": 0.0, "first_k": 3, "max_actions": 12}
    model = run.config.model.model_copy(update=small)
    training = run.config.training.model_copy(
        update={"num_epochs": 5, "batch_size": 256, "warmup_steps": 5, "learning_rate": 0.003}
    )
    config = run.config.model_copy(update={"model": model, "training": training})
    return PlantedSnapshot(snapshot, local_path(snapshot.uri), config)


@pytest.fixture(scope="session")
def trained(
    planted: PlantedSnapshot, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingSpec, TrainingResult]:
    spec = planted.spec(tmp_path_factory.mktemp("trained"))
    return spec, train(spec)


@pytest.fixture(scope="session")
def watched_two_ranks(
    planted: PlantedSnapshot, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingSpec, TrainingResult, Listeners]:
    """An undisturbed training with dropout in two processes, and where they listened meanwhile."""
    spec = planted.spec_with_dropout(tmp_path_factory.mktemp("two_ranks"), num_devices=2)
    with watched_listeners() as listeners:
        return spec, train(spec), listeners


@pytest.fixture
def predictor(trained: tuple[TrainingSpec, TrainingResult]) -> Predictor:
    """The trained bundle in memory."""
    return load_bundle(Path(trained[1].bundle_dir))


@pytest.fixture
def client(tracking_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)


@pytest.fixture
def run_id(client: "MlflowClient") -> str:
    return client.create_run("0").info.run_id
