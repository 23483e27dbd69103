"""What a training is asked to do and what it gives back; both cross a process boundary as JSON.

Not the stage's artifact: the stage turns a result into a `Challenger`.
"""

from typing import Literal

from pydantic import AwareDatetime, Field

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.config import RunConfig


class Lineage(Frozen):
    """Where a model comes from."""

    as_of: AwareDatetime  # Of the cycle (UTC).
    snapshot_digest: str  # Of the snapshot that it was trained on.
    code_version: str  # Commit or version of the project, for people.
    code_digest: str  # Of the code that trains and scores.
    seed: int  # Of weights, order, dropout and mask.


class TrainingSpec(Frozen):
    """One training, complete."""

    snapshot: Snapshot
    config: RunConfig
    lineage: Lineage
    snapshot_dir: str  # Local folder with the snapshot's files.
    work_dir: str  # Local folder of this training; kept between attempts.
    num_devices: int = Field(ge=1)  # Processes per machine, one per device.
    # Machines; each runs num_devices processes and sees work_dir at the same path.
    num_nodes: int = Field(default=1, ge=1)
    accelerator: Literal["cpu", "gpu"] = "cpu"
    tracking_uri: str  # MLflow server; '': no live metrics.
    mlflow_run_id: str  # Run to log to; '': no live metrics.

    def identity(self) -> str:
        """Return a digest of what decides the result.

        Places and addresses do not decide it, that of the recipe included, nor does the project's
        version: a commit to the documentation changes that, and the code digest stays.
        """
        return digest_of(
            {
                "snapshot": self.snapshot.digest,
                "config": self.config.model_dump(mode="json", exclude={"source"}),
                "lineage": self.lineage.model_dump(mode="json", exclude={"code_version"}),
                "devices": [self.num_devices, self.accelerator, self.num_nodes],
            }
        )


class NodeAddress(Frozen):
    """Which of several machines this is, and where they meet; not part of what is trained."""

    rank: int  # 0 on the machine that publishes the result; then 1, 2, ...
    rendezvous: str  # HOST:PORT of machine 0, a free port there; same on all.

    @property
    def is_complete(self) -> bool:
        """Whether the rendezvous has a host and a port."""
        host, _, port = self.rendezvous.rpartition(":")
        return bool(host) and port.isdecimal() and 0 < int(port) < 2**16

    @property
    def is_loopback(self) -> bool:
        """Whether all the "machines" are this one."""
        return self.rendezvous.rpartition(":")[0] in ("127.0.0.1", "[::1]", "localhost")


class TrainingResult(Frozen):
    """What a training published in its work_dir, written last as result.json."""

    spec_identity: str  # `TrainingSpec.identity()` of the training.
    bundle_dir: str  # Local folder of the bundle.
    bundle_digest: str  # sha256 over the bundle's files.
    num_steps: int  # Optimizer steps.
    num_training_examples: int  # Candidates trained on, per epoch.
    final_training_loss: float | None  # Mean of the last tenth of those logged; None: none was.
    resumed_from_step: int  # 0 if this attempt began at the beginning.
    metrics_path: str  # metrics.jsonl: one line per logged value.
