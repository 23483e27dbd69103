"""Memory that runs out is told apart from other failures, with what to try."""

import contextlib
import errno
import threading
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import torch

from pipelines.contracts.errors import ConfigurationError, ProcessKilledError
from training.launch.launcher import train
from training.launch.worker import is_out_of_memory


def test_out_of_memory_says_what_to_try(planted, tmp_path) -> None:
    spec = planted.spec(tmp_path, model={"mlp_dims": (2_000_000_000,)})
    expected = r"can't allocate memory.*training\.batch_size=128 \(it was 256.*model\.mlp_dims"
    with pytest.raises(ConfigurationError, match=f"(?s)out of memory.*{expected}"):
        train(spec)
    assert not (tmp_path / "result.json").exists()


def test_a_process_that_was_killed_may_have_had_too_little_memory(planted, tmp_path) -> None:
    spec = planted.spec(tmp_path)
    killer = threading.Thread(target=kill_a_rank, args=(tmp_path,), daemon=True)
    killer.start()
    with pytest.raises(ProcessKilledError, match=r"a process was killed.*batch_size=128") as caught:
        train(spec)
    assert caught.value.is_retryable
    killer.join(timeout=60)
    assert not killer.is_alive()


def kill_a_rank(work_dir: Path) -> None:
    """Kill the training process as the kernel does when memory runs out, and not its launcher."""
    marker = str(work_dir / "spec.json")
    while True:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                command = process.cmdline()
                if marker in command and "training.launch.agent" not in command:
                    return process.kill()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (pa.ArrowMemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError("no space"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory
