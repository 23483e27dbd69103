"""How often libgomp's waiting threads look before they sleep, chosen for this processor.

A thread that waits for another one spins, and sleeps after GOMP_SPINCOUNT looks. libgomp's own
300,000 looks take longer than a time slice of the scheduler: beside busy processes, a thread that
waits for one which is not running takes the core from it, and a training is an order of magnitude
slower. With too few looks the threads sleep within every step, and an idle machine is a quarter
slower. What counts is the time, and how long one look takes differs by a factor of ten between
processors (it is their `pause` instruction): so it is measured. `train_under_load` and `train_idle`
in docs/benchmarks.md say what comes of it. Tested in tests/training/test_environment.py.
"""

import ctypes
import functools
import importlib.util
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

log = logging.getLogger(__name__)
SPIN_S = 10e-6
"""How long a thread spins before it sleeps, in seconds.

Measured on two cores: 4 us make an idle machine 25 % slower, 8 us and more by hardly more than the
noise; beside four busy processes the rate is 0.60 of the idle one with 10 us, 0.50 with 16 us, 0.45
with 32 us, and 0.05 with libgomp's own count (docs/decisions.md)."""
_NUM_LOOKS = 100_000
_PATIENCE_S = 30.0


@functools.cache
def spin_count() -> str | None:
    """Return the GOMP_SPINCOUNT that lasts SPIN_S, or None where libgomp is not torch's OpenMP.

    A process of its own measures it, because libgomp reads its environment once. It takes a tenth
    of a second, and as CPU time is counted, other processes do not change the result.
    """
    found = importlib.util.find_spec("torch")
    folders = found.submodule_search_locations if found else None
    library = Path(folders[0]) / "lib" / "libgomp.so.1" if folders else Path()
    if not library.is_file():
        return None
    command = [sys.executable, "-m", "training.spin_count", str(library)]
    environment = {**os.environ, "GOMP_SPINCOUNT": str(_NUM_LOOKS)}
    try:
        measured = subprocess.run(
            command, env=environment, capture_output=True, timeout=_PATIENCE_S, check=True
        )
        return str(max(1, round(_NUM_LOOKS * SPIN_S / float(measured.stdout))))
    except (subprocess.SubprocessError, OSError, ValueError, ArithmeticError) as error:
        log.warning("libgomp's spinning cannot be measured (%s); it stays as it is", error)
        return None


def _measure(library: str) -> float:
    """Return the CPU seconds in which one thread spins to its end while the other one sleeps."""
    gomp = ctypes.CDLL(library)

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def rest_in_the_first_thread(_: int | None) -> None:
        if gomp.omp_get_thread_num() == 0:
            time.sleep(0.05)

    gomp.GOMP_parallel(rest_in_the_first_thread, None, 2, 0)  # starts the second thread
    started = time.process_time()
    gomp.GOMP_parallel(rest_in_the_first_thread, None, 2, 0)
    return time.process_time() - started


if __name__ == "__main__":
    sys.stdout.write(f"{_measure(sys.argv[1]):.9f}\n")
