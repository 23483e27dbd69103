"""Tells that memory or disk ran out, and says what to try.

The kernel's own remedy, SIGKILL, leaves no error behind: `training.launch.launcher` sees that.
"""

import errno

from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from training.fitting.spec import TrainingSpec

_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "alloc_failed")
"""torch has no class of its own for an allocation on a CPU, in a library or of a GPU's context."""
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def as_our_error(error: BaseException, spec: TrainingSpec) -> HomefeedError | None:
    """Return an error that says what to change; None where it is nothing of this kind."""
    if isinstance(error, HomefeedError):
        return error
    if is_out_of_memory(error):
        return ConfigurationError(
            f"out of memory while training in {spec.work_dir}: {error}; {advice(spec)}"
        )
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return TransientStorageError(
            f"no space left while training in {spec.work_dir}: {error}; expected room for two "
            f"checkpoints and a bundle; free some and retry: training goes on where it was"
        )
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed: torch on a GPU or a CPU, NumPy, Arrow or the kernel."""
    import torch  # here: the launcher, which asks for the advice alone, does without torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in _MEMORY_MESSAGES)


def advice(spec: TrainingSpec) -> str:
    """Return what to change so that a training needs less memory."""
    batch_size, model = spec.config.training.batch_size, spec.config.model
    processes = spec.num_devices * spec.num_nodes
    smaller = max(1, batch_size // 2)
    try_batch = (
        f"try training.batch_size={smaller} (it was {batch_size} over {processes} process(es))"
        if smaller < batch_size
        else "training.batch_size is 1 already"
    )
    return (
        f"{try_batch}; if that is not enough, lower model.max_actions ({model.max_actions}) or "
        f"model.mlp_dims {model.mlp_dims}"
    )
