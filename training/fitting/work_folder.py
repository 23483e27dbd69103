"""The folder of one training, kept between attempts: where each file is, and who may write.

    spec.json            the TrainingSpec                    *.lock         held while training
    checkpoints/*.ckpt   the newest two, by step and sha256  training.log   output of all processes
    metrics.jsonl        one line per logged value           error.json     why an attempt ended
    bundle/              present as a whole or not at all    result.json    TrainingResult, last

With several nodes, node 0 prepares the folder; node K has spec-node-K.json (its snapshot may lie
elsewhere) and training-node-K.log beside.

Not for the stage's own folder: the stage publishes from here.
"""

import logging
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.contracts.files import digest_files, digest_of_files, hold_lock, write_json
from training.fitting.spec import TrainingResult, TrainingSpec

log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=Frozen)
_LOCK_WAIT_S = 5.0
"""Long enough for a killed attempt to be gone, too short to wait for the end of a training."""
_POLL_S = 0.2


class TrainingError(Frozen):
    """`error.json`: an error on its way from a worker to the launcher."""

    error_class: str  # Its name in pipelines.contracts.errors.
    kind: str
    message: str

    @classmethod
    def of(cls, error: HomefeedError) -> "TrainingError":
        """Return what the launcher needs to raise the same error."""
        return cls(error_class=type(error).__name__, kind=error.kind, message=str(error))


class WorkFolder:
    """Paths below a training's folder, and what may be done there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec, self.error = root / "spec.json", root / "error.json"
        self.log, self.metrics = root / "training.log", root / "metrics.jsonl"
        self.checkpoints, self.bundle = root / "checkpoints", root / "bundle"
        self.result = root / "result.json"

    def spec_of(self, node_rank: int) -> Path:
        """The specification that a node's processes read."""
        return self.spec if node_rank == 0 else self.root / f"spec-node-{node_rank}.json"

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
        known = read(self.spec, TrainingSpec)
        if known is None or known.identity() != spec.identity():
            others = [*self.root.glob("spec-node-*.json"), *self.root.glob("training-node-*.log")]
            own = [self.error, self.metrics, self.result, self.log, self.checkpoints, self.bundle]
            there = [path for path in (*own, *others) if path.exists()]
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
        write_json(self.spec, spec)
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
        deadline = time.monotonic() + wait_s
        while (known := read(self.spec, TrainingSpec)) is None or (
            known.identity() != spec.identity()
        ):
            if time.monotonic() > deadline:
                raise TransientStorageError(
                    f"node {node_rank} found {'another' if known else 'no'} training in "
                    f"{self.root} for {wait_s:.0f} s; expected node 0 to prepare this one; start "
                    f"node 0 too, with the same options and code, and check that both see the "
                    f"same folder"
                )
            time.sleep(_POLL_S)
        # an earlier attempt's: the processes of this one start when all nodes have met
        self.error.unlink(missing_ok=True)
        write_json(self.spec_of(node_rank), spec)
        return self.finished(spec)

    def finished(self, spec: TrainingSpec, wait_s: float = 0.0) -> TrainingResult | None:
        """Return the published result of this training; None if there is none in time.

        A result whose bundle is no longer the one that was written is none. Returns before the time
        is over if an error was left.
        """
        deadline = time.monotonic() + wait_s
        while True:
            result = read(self.result, TrainingResult)
            if result is not None and result.spec_identity == spec.identity():
                found = digest_of_files(digest_files(Path(result.bundle_dir)))
                if found == result.bundle_digest:
                    return result
                log.warning(
                    "the bundle in %s has digest %s, and the training wrote %s; the training goes "
                    "on from its newest checkpoint, and writes the bundle anew",
                    *(result.bundle_dir, found[:12], result.bundle_digest[:12]),
                )
            if self.error.exists() or time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_S)


def read(path: Path, model: type[Model]) -> Model | None:
    """Return a value from its file; None if it is missing, half written or of another kind."""
    try:
        return model.from_record(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
