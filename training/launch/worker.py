"""What torchrun starts, once per device: `-m training.launch.worker SPEC IDENTITY SNAPSHOT_DIR`.

Tells that memory or disk ran out, and what to try. The kernel's own remedy, SIGKILL, leaves no
error behind: `training.launch.launcher` sees that. Not a command line for people: that is `homefeed
train` or `homefeed stage train_challenger`.
"""

import contextlib
import logging
import os
import sys
import warnings
from pathlib import Path

from pipelines.contracts.processes import collect_seldom, die_with_parent

_MEMORY_MESSAGES = ("out of memory", "t allocate memory", "alloc_failed")
"""torch has no class of its own for an allocation on a CPU, in a library or of a GPU's context."""


def main(spec_path: str, identity: str, snapshot_dir: str) -> int:
    """Train as one of the processes of a specification; return the exit code.

    Args:
        spec_path: JSON of a `TrainingSpec`.
        identity: its `identity()`, as the launcher prepared it.
        snapshot_dir: where this machine has the snapshot, which may lie elsewhere on node 0.
    """
    die_with_parent()
    collect_seldom()
    # After the above: importing torch takes seconds in which the launcher may be killed.
    import torch

    from pipelines.contracts import errors
    from pipelines.contracts.files import write_whole
    from training.environment import threads_per_process
    from training.fitting.fit import run_process
    from training.fitting.spec import TrainingError, TrainingSpec, WorkFolder
    from training.launch.launcher import advice

    rank = int(os.environ["RANK"])  # over all nodes; LOCAL_RANK is the one on this node
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    # Lightning 2.6 calls a function that torch 2.13 deprecates, at every batch of every process.
    for message in (".*LeafSpec.*", ".*overridden `on_before_batch_transfer`.*"):
        warnings.filterwarnings("ignore", message=message)
    # Lightning's remarks on devices and tips are for interactive use.
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    spec = TrainingSpec.from_record(Path(spec_path).read_bytes())
    if spec.identity() != identity:
        sys.stderr.write(f"{spec_path} is of another training than this process was started for\n")
        return errors.RunInProgressError.exit_code
    spec = spec.model_copy(update={"snapshot_dir": snapshot_dir})
    folder = WorkFolder(Path(spec.work_dir))
    torch.set_num_threads(threads_per_process(spec.num_devices))
    try:
        with folder.locked("training") if rank == 0 else contextlib.nullcontext():
            run_process(spec, folder, rank)
    except (errors.HomefeedError, MemoryError, RuntimeError, OSError) as error:
        ours = errors.as_ours(error, spec.work_dir)
        if is_out_of_memory(error):
            told = f"out of memory while training in {folder.root}: {error}; {advice(spec)}"
            ours = errors.ConfigurationError(told)
        if ours is None:
            raise
        write_whole(folder.error, TrainingError.of(ours).to_record())
        logging.getLogger(__name__).error("%s: %s", type(ours).__name__, ours)
        return ours.exit_code
    return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed: torch on a GPU or a CPU, NumPy, Arrow or the kernel."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(part in text for part in _MEMORY_MESSAGES)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
