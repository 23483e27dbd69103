"""Start a training in its own processes, wait for it, and tell how it ended.

On several nodes each runs this for its own processes; they meet at a `NodeAddress`.

Lightning's DDP starts its command again once per device, which inside an Airflow worker would be
the worker's own command; `torchrun` is the same launch for one CPU and for many GPUs. Not for what
the processes do (`training.fitting.fit`).
"""

import contextlib
import functools
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from pipelines.contracts.errors import HomefeedError, ProcessKilledError, TransientStorageError
from pipelines.contracts.processes import die_with_parent
from training.environment import NOBODY_CAME, model_environment, require_devices
from training.fitting.spec import (
    NodeAddress,
    TrainingError,
    TrainingResult,
    TrainingSpec,
    WorkFolder,
    read,
    wait_for,
)

log = logging.getLogger(__name__)
_NUM_TAIL_LINES = 40
_NODES_WAIT_S = 2400.0
"""How long nodes wait for each other at the start: machines are not given out all at once, and a
cluster may look for one for half an hour (`pipelines.orchestration.kubernetes_stages`)."""
_PUBLISH_WAIT_S = 1800.0
"""How long a node whose processes are done waits for node 0, which calibrates and writes."""


def train(spec: TrainingSpec, node: NodeAddress | None = None) -> TrainingResult:
    """Train as specified and return what was published in `spec.work_dir`.

    A finished training of the same specification is returned without doing it again; one that was
    interrupted goes on from its newest intact checkpoint. Call this from the main thread: the
    processes die with the thread that started them (kill -9 included), and SIGTERM is passed on.

    With `spec.num_nodes` above 1 every node calls this, in any order, with the same specification
    (only `snapshot_dir` may differ), and all return the result that node 0 published.

    Args:
        spec: the training.
        node: which of several nodes this is; None for the only one.

    Raises:
        RunInProgressError: another process trains in the same folder, or is the same node.
        ConfigurationError: the devices asked for are not there; `node` does not fit the number of
            nodes; `work_dir` holds files that no training wrote.
        DataContractError: the snapshot cannot be trained on, or the loss became NaN or infinite.
        TransientStorageError: the disk is full, another node did not come or was told to stop; a
            retry continues.
        ProcessKilledError: a process was killed; a retry continues.
        HomefeedError: the processes ended in another way; the message has the end of their output.
    """
    node = node or NodeAddress(rank=0, rendezvous="127.0.0.1:0" if spec.num_nodes == 1 else "")
    node.require_one_of(spec.num_nodes)
    rank = node.rank
    if spec.accelerator == "cpu":  # GPUs are counted by the processes, which have torch.
        require_devices(spec.num_devices, spec.accelerator)
    folder = WorkFolder(Path(spec.work_dir))
    folder.root.mkdir(parents=True, exist_ok=True)
    # The lock is held from here to the end, so that nobody clears the folder while the processes
    # start.
    with folder.locked("training", f"launch-node-{rank}.lock"):
        if rank > 0:
            finished = folder.join(spec, rank, _NODES_WAIT_S)
        else:
            with folder.locked("training"):
                finished = folder.prepare(spec)
        if finished is not None:
            log.info("this training is finished already (%d steps)", finished.num_steps)
            return finished
        exit_code, tail = _run(spec, folder, node)
        ended = wait_for(
            lambda: folder.finished(spec) or read(folder.error, TrainingError),
            _PUBLISH_WAIT_S if rank > 0 and exit_code == 0 else 0.0,
        )
        # Another node's processes may end badly only because node 0 has published and is gone.
        if isinstance(ended, TrainingResult) and (exit_code == 0 or rank > 0):
            return ended
        raise _failure(spec, folder, rank, exit_code, tail)


def _run(spec: TrainingSpec, folder: WorkFolder, node: NodeAddress) -> tuple[int, list[str]]:
    """Run this node's processes, pass their output through, and return exit code and last lines.

    Node K's processes have the K-th ranks, whoever comes first, and node 0 has rank 0.
    """
    rank, is_one_machine = node.rank, node.is_loopback
    command = [
        *(sys.executable, "-m", "training.launch.agent"),
        "--rdzv-backend=homefeed",
        f"--rdzv-endpoint={node.rendezvous}",
        f"--rdzv-conf=timeout={_NODES_WAIT_S:.0f},rank={rank},is_one_machine={is_one_machine}",
        f"--nnodes={spec.num_nodes}",
        f"--node-rank={rank}",
        f"--log-dir={folder.root}/torchrun-node-{rank}",
        f"--nproc-per-node={spec.num_devices}",
        *("-m", "training.launch.worker", str(folder.spec), spec.identity(), spec.snapshot_dir),
    ]
    own = model_environment(spec.num_devices, is_one_machine=is_one_machine)
    return run_to_end(command, own, folder.log_of(rank))


def run_to_end(command: list[str], own: dict[str, str], log_path: Path) -> tuple[int, list[str]]:
    """Run a command of ours, pass its output through, and return exit code and last lines.

    Args:
        command: Program and arguments.
        own: Its environment variables.
        log_path: File that its output is appended to.
    """
    tail: deque[str] = deque(maxlen=_NUM_TAIL_LINES)
    with (
        subprocess.Popen(
            command,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # one system call, and no other thread is there
            preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509
        ) as process,
        _stopping(process),
        log_path.open("a", buffering=1) as log_file,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            sys.stderr.write(line)
            log_file.write(line)
            tail.append(line)
        exit_code = process.wait()
    return exit_code, list(tail)


@contextlib.contextmanager
def _stopping(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Pass SIGTERM and Ctrl-C on to the processes, wait for their end, and end likewise.

    torchrun kills those that have not ended after 30 seconds.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.terminate()

    before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            raise SystemExit(128 + received[0])


def _failure(
    spec: TrainingSpec, folder: WorkFolder, rank: int, exit_code: int, tail: list[str]
) -> HomefeedError:
    """Return the error that a worker left, of its class, or one with the end of the output."""
    left = read(folder.error, TrainingError)
    if left is not None:
        return left.to_error()
    if spec.num_nodes > 1 and exit_code in (0, NOBODY_CAME):
        found = f"did not meet the others within {_NODES_WAIT_S:.0f} s"
        if exit_code == 0:
            found = f"is done, and node 0 published nothing in {folder.root}"
        return TransientStorageError(
            f"node {rank} of {spec.num_nodes} {found}; expected a result of all; start all, see "
            f"that they reach node 0's port and look at its output, {folder.log_of(rank)} has this "
            f"node's; a retry on all goes on where it was"
        )
    end = "".join(tail).strip()
    # of torchrun itself, or of the process that failed first
    was_killed = exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    help_ = f"a process was killed; if memory ran out, {advice(spec)}; a retry goes on; "
    return (ProcessKilledError if was_killed else HomefeedError)(
        f"training ended with exit code {exit_code}, expected 0 and a result in {folder.root}; "
        f"{help_ * was_killed}the whole output is in {folder.log_of(rank)}. Its end:\n{end}"
    )


def advice(spec: TrainingSpec) -> str:
    """Return what to change so that a training needs less memory."""
    batch_size, model = spec.config.training.batch_size, spec.config.model
    processes = spec.num_devices * spec.num_nodes
    return (
        f"try training.batch_size={max(1, batch_size // 2)} (it was {batch_size} over {processes} "
        f"process(es)); if that is not enough, lower model.max_actions ({model.max_actions}) or "
        f"model.mlp_dims {model.mlp_dims}"
    )
