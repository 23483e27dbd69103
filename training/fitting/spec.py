"""What a training is asked to do, what it gives back, and the folder in which both lie.

Spec and result cross a process boundary as JSON. The folder is kept between attempts:

    spec.json            the TrainingSpec                    *.lock         held while training
    checkpoints/*.ckpt   the newest two, by step and sha256  training.log   output of all processes
    metrics.jsonl        one line per logged value           error.json     why an attempt ended
    bundle/              present as a whole or not at all    result.json    TrainingResult, last

With several nodes, node 0 prepares the folder; node K has training-node-K.log beside.

Not the stage's artifact, nor its folder: the stage turns a result into a `Challenger`, and
publishes from here.
"""

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AwareDatetime, Field, ValidationError

from pipelines.contracts import errors
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.contracts.files import digest_files, digest_of_files, hold_lock, write_whole

log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=Frozen)
Value = TypeVar("Value")
_LOCK_WAIT_S = 5.0
"""Long enough for a killed attempt to be gone, too short to wait for the end of a training."""
_POLL_S = 0.2


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
    starts_from: str = ""  # Bundle whose weights the model begins with; '': random ones.

    def identity(self) -> str:
        """Return a digest of what decides the result.

        Places and addresses do not decide it, that of the recipe included, nor does the project's
        version: a commit to the documentation changes that, and the code digest stays.
        """
        parts = {
            "snapshot": self.snapshot.digest,
            "config": self.config.model_dump(mode="json", exclude={"source"}),
            "lineage": self.lineage.model_dump(mode="json", exclude={"code_version"}),
            "devices": [self.num_devices, self.accelerator, self.num_nodes],
        }
        if self.starts_from:
            parts["starts_from"] = digest_of_files(digest_files(Path(self.starts_from)))
        return digest_of(parts)


class NodeAddress(Frozen):
    """Which of several machines this is, and where they meet; not part of what is trained."""

    rank: int  # 0 on the machine that publishes the result; then 1, 2, ...
    rendezvous: str  # HOST:PORT of machine 0, a free port there; same on all.

    @property
    def is_loopback(self) -> bool:
        """Whether all the "machines" are this one."""
        return self.rendezvous.rpartition(":")[0] in ("127.0.0.1", "[::1]", "localhost")

    def require_one_of(self, num_nodes: int) -> None:
        """Refuse an address that none of so many machines has.

        Raises:
            ConfigurationError: the rank is another machine's, or the rendezvous has no host or
                port.
        """
        host, _, port = self.rendezvous.rpartition(":")
        first_port = 0 if num_nodes == 1 else 1  # 0 is a free port, which no other would know
        is_place = bool(host) and port.isdecimal() and first_port <= int(port) < 2**16
        if not (is_place and 0 <= self.rank < num_nodes):
            raise ConfigurationError(
                f"found node rank {self.rank} and rendezvous {self.rendezvous!r}; expected a rank "
                f"in [0, {num_nodes}) and HOST:PORT, an address of machine 0 and a free port "
                f"there; run the same command on each machine with --node-rank and --rendezvous "
                f"(a Job of Kubernetes sets both)"
            )


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


class TrainingError(Frozen):
    """`error.json`: an error on its way from a worker to the launcher."""

    error_class: str  # Its name in pipelines.contracts.errors.
    kind: str
    message: str

    @classmethod
    def of(cls, error: HomefeedError) -> "TrainingError":
        """Return what the launcher needs to raise the same error."""
        return cls(error_class=type(error).__name__, kind=error.kind, message=str(error))

    def to_error(self) -> HomefeedError:
        """Return the same error, to be raised here."""
        kind = getattr(errors, self.error_class, HomefeedError)
        return kind(self.message, kind=self.kind)  # type: ignore[no-any-return]


class WorkFolder:
    """Paths below a training's folder, and what may be done there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec, self.error = root / "spec.json", root / "error.json"
        self.log, self.metrics = root / "training.log", root / "metrics.jsonl"
        self.checkpoints, self.bundle = root / "checkpoints", root / "bundle"
        self.result = root / "result.json"

    def log_of(self, node_rank: int) -> Path:
        """Output of a node's processes, all attempts."""
        return self.log if node_rank == 0 else self.root / f"training-node-{node_rank}.log"

    def locked(self, purpose: str, name: str = "training.lock") -> AbstractContextManager[object]:
        """Hold one of the folder's locks for the time being, after a short wait for its holder.

        Args:
            purpose: what is done in the folder meanwhile, for the message: "training", say.
            name: of the lock's file.

        Raises:
            RunInProgressError: another process holds the lock and goes on holding it.
        """
        return hold_lock(self.root / name, f"{purpose} in {self.root}", _LOCK_WAIT_S)

    def prepare(self, spec: TrainingSpec) -> TrainingResult | None:
        """Make ready for an attempt, or return the finished result of the same training.

        A training is finished if the bundle that its result names is the one that it wrote.
        What another training left is deleted; what an earlier attempt of this one left is kept.

        Raises:
            ConfigurationError: files of these names are there, but no specification.
        """
        if not self._holds(spec):
            own = [self.error, self.metrics, self.result, self.log, self.checkpoints, self.bundle]
            there = [
                path for path in (*own, *self.root.glob("training-node-*.log")) if path.exists()
            ]
            if there and not self.spec.exists():
                raise ConfigurationError(
                    f"{self.root} holds {sorted(path.name for path in there)} and no spec.json: it "
                    f"is not the folder of a training, and they would be deleted; expected an "
                    f"empty folder or one of an earlier training; choose another"
                )
            for path in there:
                log.info("deleting %s, which another training left", path)
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        self.error.unlink(missing_ok=True)
        write_whole(self.spec, spec.to_record())
        finished = self.finished(spec)
        if finished is None:
            # It would pass for the new attempt's, before that one has written its own.
            self.result.unlink(missing_ok=True)
        return finished

    def join(self, spec: TrainingSpec, node_rank: int, wait_s: float) -> TrainingResult | None:
        """Wait for node 0 to `prepare` this training, then do a further node's part of it.

        Raises:
            TransientStorageError: node 0 has not prepared it in time.
        """
        if not wait_for(lambda: self._holds(spec), wait_s):
            raise TransientStorageError(
                f"node {node_rank} found {'another' if self.spec.exists() else 'no'} training in "
                f"{self.root} for {wait_s:.0f} s; expected node 0 to prepare this one; start node "
                f"0 too, with the same options and code, and check that both see the same folder"
            )
        # an earlier attempt's: the processes of this one start when all nodes have met
        self.error.unlink(missing_ok=True)
        return self.finished(spec)

    def finished(self, spec: TrainingSpec) -> TrainingResult | None:
        """Return the published result of this training; None if there is none.

        A result whose bundle is no longer the one that was written is none.
        """
        result = read(self.result, TrainingResult)
        if result is None or result.spec_identity != spec.identity():
            return None
        if digest_of_files(digest_files(Path(result.bundle_dir))) == result.bundle_digest:
            return result
        log.warning(
            "the bundle in %s is not the one that the training wrote; it goes on from its newest "
            "checkpoint, and writes the bundle anew",
            result.bundle_dir,
        )
        return None

    def _holds(self, spec: TrainingSpec) -> bool:
        known = read(self.spec, TrainingSpec)
        return known is not None and known.identity() == spec.identity()


def wait_for(find: Callable[[], Value], wait_s: float) -> Value:
    """Return what is found as soon as it counts as true, or what is found when time is over."""
    deadline = time.monotonic() + wait_s
    while not (found := find()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return found


def read(path: Path, model: type[Model]) -> Model | None:
    """Return a value from its file; None if it is missing, half written or of another kind."""
    try:
        return model.from_record(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
