"""Start a training in its own processes, wait for it, and tell how it ended.

Lightning's DDP starts its command again once per device, which inside an Airflow worker would be
the worker's own command; `torchrun` is the same launch for one CPU and for many GPUs. Not for what
the processes do (`training.fit`).
"""

import contextlib
import logging
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from pipelines.contracts import errors
from pipelines.contracts.errors import HomefeedError
from training.processes import die_with_parent, training_environment
from training.spec import TrainingResult, TrainingSpec
from training.work_folder import TrainingError, WorkFolder, read

log = logging.getLogger(__name__)
_NUM_TAIL_LINES = 40
_STOP_WAIT_S = 30.0


def train(spec: TrainingSpec) -> TrainingResult:
    """Train as specified and return what was published in `spec.work_dir`.

    A finished training of the same specification is returned without doing it again; one that was
    interrupted goes on from its newest intact checkpoint. Call this from the main thread: the
    processes die with the thread that started them (kill -9 included), and SIGTERM is passed on.

    Raises:
        RunInProgressError: another process trains in the same folder.
        TrainingDivergedError: the loss became NaN or infinite.
        ConfigurationError: the devices asked for are not there.
        DataContractError: the snapshot cannot be trained on.
        TransientStorageError: the disk is full; a retry continues.
        HomefeedError: the processes ended in another way; the message has the end of their output.
    """
    folder = WorkFolder(Path(spec.work_dir))
    folder.root.mkdir(parents=True, exist_ok=True)
    with folder.locked("preparing to train"):
        finished = folder.prepare(spec)
    if finished is not None and Path(finished.bundle_dir).is_dir():
        log.info("this training is finished already (%d steps)", finished.num_steps)
        return finished
    exit_code, tail = _run(_command(spec, folder), spec.num_devices, folder)
    result = read(folder.result, TrainingResult)
    if exit_code == 0 and result is not None:
        return result
    raise _failure(folder, exit_code, tail)


def _command(spec: TrainingSpec, folder: WorkFolder) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr=127.0.0.1",
        f"--log-dir={folder.root / 'torchrun'}",
        f"--nproc-per-node={spec.num_devices}",
        "-m",
        "training.main",
        str(folder.spec),
    ]


def _run(command: list[str], num_processes: int, folder: WorkFolder) -> tuple[int, list[str]]:
    """Run the command, passing its output through; return its exit code and its last lines."""
    tail: deque[str] = deque(maxlen=_NUM_TAIL_LINES)
    with (
        subprocess.Popen(
            command,
            env=training_environment(num_processes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, and no thread but this
        ) as process,
        _stopping(process),
        folder.log.open("a", buffering=1) as log_file,
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
    """Pass SIGTERM and Ctrl-C on to the processes, wait for their end, and end likewise."""
    received: list[int] = []
    patience = threading.Timer(_STOP_WAIT_S, process.kill)

    def stop(number: int, frame: FrameType | None) -> None:
        if not received:
            patience.start()
        received.append(number)
        process.terminate()

    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if is_main else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        patience.cancel()  # else its thread would hold the end of this process up
        if process.poll() is None:
            process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            raise SystemExit(128 + received[0])


def _failure(folder: WorkFolder, exit_code: int, tail: list[str]) -> HomefeedError:
    """Return the error that a worker left, of its class, or one with the end of the output."""
    left = read(folder.error, TrainingError)
    if left is not None:
        error_class = getattr(errors, left.error_class, HomefeedError)
        return error_class(left.message)
    return HomefeedError(
        f"training ended with exit code {exit_code}, expected 0 and a result in {folder.root}; the "
        f"whole output is in {folder.log}. Its end:\n{''.join(tail)}"
    )
