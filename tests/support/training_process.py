"""A training in a process of its own, to be killed or told to stop."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def signal_when(
    path: Path,
    is_time: Callable[[Path], bool],
    spec_path: Path,
    number: int = signal.SIGKILL,
) -> int:
    """Train in another process, signal it as soon as `is_time(path)`, and return how it ended."""
    code = (
        "import sys; from pathlib import Path; from training.fitting.spec import TrainingSpec; "
        "from training.launch.launcher import train; "
        "train(TrainingSpec.from_record(Path(sys.argv[1]).read_bytes()))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(spec_path)])
    deadline = time.monotonic() + 120
    while not is_time(path):
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline, f"nothing in {path} after two minutes"
        time.sleep(0.02)
    process.send_signal(number)
    return process.wait()
