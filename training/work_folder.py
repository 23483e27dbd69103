"""The folder of one training, kept between attempts: where each file is, and who may write.

    spec.json            the TrainingSpec                    training.lock  held while training
    checkpoints/*.ckpt   the newest two, with digests        training.log   output of all processes
    metrics.jsonl        one line per logged value           error.json     why an attempt ended
    learning_curve.png   bundle/                             result.json    TrainingResult, last

Not for the stage's own folder: the stage publishes from here.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import RunInProgressError
from training.spec import TrainingResult, TrainingSpec

Model = TypeVar("Model", bound=Frozen)
_LOCK_WAIT_S = 5.0
"""Long enough for a killed attempt to be gone, too short to wait for a training."""


class TrainingError(Frozen):
    """`error.json`: an error on its way from a worker to the launcher."""

    error_class: str = Field(description="Class name in pipelines.contracts.errors.")
    message: str


@dataclass(frozen=True)
class WorkFolder:
    """Paths below a training's folder."""

    root: Path

    @property
    def spec(self) -> Path:
        """The specification this folder belongs to."""
        return self.root / "spec.json"

    @property
    def error(self) -> Path:
        """Why the last attempt ended, if it ended with an error of ours."""
        return self.root / "error.json"

    @property
    def log(self) -> Path:
        """Output of all attempts."""
        return self.root / "training.log"

    @property
    def metrics(self) -> Path:
        """Logged values, one JSON object per line."""
        return self.root / "metrics.jsonl"

    @property
    def learning_curve(self) -> Path:
        """Plot of the loss."""
        return self.root / "learning_curve.png"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def bundle(self) -> Path:
        """The bundle, present as a whole or not at all."""
        return self.root / "bundle"

    @property
    def result(self) -> Path:
        """The TrainingResult, written last."""
        return self.root / "result.json"

    @contextlib.contextmanager
    def locked(self, purpose: str) -> Iterator[None]:
        """Hold the folder's lock; the kernel frees it when the process dies.

        Raises:
            RunInProgressError: another process holds it and goes on holding it.
        """
        with (self.root / "training.lock").open("a+") as handle:
            deadline = time.monotonic() + _LOCK_WAIT_S
            while not _try_lock(handle.fileno()):
                if time.monotonic() > deadline:
                    handle.seek(0)
                    raise RunInProgressError(
                        f"{purpose}: process {handle.read().strip() or 'unknown'} is training in "
                        f"{self.root}; expected nobody; wait for it to end, then try again"
                    )
                time.sleep(0.1)
            handle.seek(0)
            handle.truncate()
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def prepare(self, spec: TrainingSpec) -> TrainingResult | None:
        """Make ready for an attempt, or return the finished result of the same training.

        What another training left is deleted; what an earlier attempt of this one left is kept.
        """
        known = read(self.spec, TrainingSpec)
        if known is None or known.identity() != spec.identity():
            for path in (self.error, self.metrics, self.learning_curve, self.result, self.log):
                path.unlink(missing_ok=True)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            shutil.rmtree(self.bundle, ignore_errors=True)
        self.error.unlink(missing_ok=True)
        write(self.spec, spec)
        result = read(self.result, TrainingResult)
        is_ours = result is not None and result.spec_identity == spec.identity()
        return result if is_ours else None


def read(path: Path, model: type[Model]) -> Model | None:
    """Return a value from its file; None if it is missing, half written or of another kind."""
    try:
        return model.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write(path: Path, value: Frozen) -> None:
    """Write a frozen value as JSON, atomically."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("w") as stream:
        stream.write(value.model_dump_json(indent=2))
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


def _try_lock(file_descriptor: int) -> bool:
    try:
        fcntl.flock(file_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
