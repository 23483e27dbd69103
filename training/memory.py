"""Tells that memory ran out, on a GPU or not, and says what to try.

The kernel's own remedy, SIGKILL, leaves no error behind: `training.launch` sees that.
"""

from training.spec import TrainingSpec

_CPU_MESSAGE = "can't allocate memory"  # torch has no class of its own for it


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed: torch on a GPU or a CPU, NumPy or Arrow."""
    import torch  # here: the launcher, which asks for the advice alone, does without torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_MESSAGE in str(error)


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
