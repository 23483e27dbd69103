"""What a stage used, for its manifest: verdict page and index of all cycles tell it.

It is read from the kernel's accounts before and after, of every attempt, also where the environment
asks for no metrics: no thread is started and nothing is imported for it. Not for sending it
anywhere, nor for the memory of all processes together (`pipelines.metrics.measured`).

Tested in tests/pipelines/metrics/test_recorded.py.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.run_layout import StageUsage
from pipelines.metrics.measured import ON_GPUS
from pipelines.metrics.usage import Account

log = logging.getLogger(__name__)


class Recording:
    """What the block has used; None until it has ended, and where it could not be read."""

    usage: StageUsage | None = None


@contextlib.contextmanager
def recorded(stage: str, inputs: Iterable[Any]) -> Iterator[Recording]:
    """Record what the block uses. A fault of reading it is told and reddens no stage.

    Args:
        stage: Its name.
        inputs: What it is given; the run among it tells how many GPUs are held.
    """
    found, before = Recording(), _read(stage)
    yield found
    after = _read(stage)
    if before is not None and after is not None:
        found.usage = _between(before, after, _num_gpus(stage, inputs))


def _between(before: Account, after: Account, num_gpus: int) -> StageUsage:
    return StageUsage(
        cpu_s=max(0.0, after.cpu_s - before.cpu_s),
        gpu_s=(after.wall_s - before.wall_s) * num_gpus,
        peak_memory_bytes=after.peak_since(before),
        read_bytes=_difference(after.read_bytes, before.read_bytes),
        written_bytes=_difference(after.written_bytes, before.written_bytes),
    )


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else max(0, after - before)


def _read(stage: str) -> Account | None:
    try:
        return Account.now()
    except Exception as error:  # Whatever it is, the stage's own work is what counts.
        log.warning("what %s used is not on record (%s)", stage, type(error).__name__)
        return None


def _num_gpus(stage: str, inputs: Iterable[Any]) -> int:
    run = next((each for each in inputs if isinstance(each, ResolvedRun)), None)
    is_on_gpus = run is not None and run.accelerator == "gpu" and stage in ON_GPUS
    return run.num_devices if run is not None and is_on_gpus else 0
