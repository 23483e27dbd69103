"""Measures whether a bundle would serve: golden rows, latency, memory and scores.

It runs before a promotion, in a process that holds the model and nothing else, so that the peak
memory of the process is what a server needs. A call's processor time is judged, and how long it
took is told: what other work on the machine makes it wait is not the model's. Not for the quality
of the ranking, which is the model gate's, nor for the verdict (`validation.model_gate.verdict`).
"""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from pipelines.contracts.config import ServingConfig
from pipelines.contracts.errors import HomefeedError, ProcessKilledError
from pipelines.contracts.judgement import ServingCheck
from pipelines.contracts.processes import die_with_parent
from pipelines.contracts.reasons import Reason
from training.bundle.files import load_bundle, read_golden
from training.data.batches import REQUEST, VARYING_AXES, for_scoring
from training.environment import model_environment

_WARM_UP_CALLS = 5
_NUM_THREADS = 1
"""CPU threads that score."""
_MAX_GOLDEN_DIFFERENCE = 1e-5
"""Largest change of a golden row's probability."""
_SATURATED = 1e-6
_MAX_SATURATED_SHARE = 0.5
"""Largest share of golden scores that lie so near to 0 or 1."""
_TIMEOUT_S = 600.0


def check_serving(bundle_dir: Path, config: ServingConfig) -> ServingCheck:
    """Serve the bundle in a process of its own and return what was found.

    Call this from the thread that waits for the answer: the process dies with it.

    Raises:
        ProcessKilledError: the process was killed, by a person or because memory ran out, or did
            not end in time; a retry may get through.
        HomefeedError: the process ended without an answer: a damaged bundle, say.
    """
    command = [sys.executable, "-m", "training.bundle.serving_check", str(bundle_dir)]
    try:
        done = subprocess.run(
            [*command, config.model_dump_json()],
            env=model_environment(1),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=True,
            # one system call, and no other thread is there
            preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        was_killed = getattr(error, "returncode", -signal.SIGKILL) == -signal.SIGKILL
        end = error.stderr or ""  # bytes where time ran out, whatever was asked for
        end = end.decode(errors="replace") if isinstance(end, bytes) else end
        raise (ProcessKilledError if was_killed else HomefeedError)(
            f"the serving check failed: {error}; expected an answer; if it was killed, give this "
            f"machine more memory or run less beside it, then retry; else mend what its end says:\n"
            f"{end[-2000:]}"
        ) from error
    return ServingCheck.model_validate_json(done.stdout.splitlines()[-1])


def measure(bundle_dir: Path, config: ServingConfig) -> ServingCheck:
    """Load the bundle in this process, as a server would, and measure it.

    The timed request is the golden one with the longest history, its candidates repeated.
    """
    torch.set_num_threads(_NUM_THREADS)
    predictor = load_bundle(bundle_dir)
    golden, expected_CH = read_golden(bundle_dir, len(predictor.config.features.heads))
    found_CH = predictor.probabilities(golden)
    request = int((golden.action_types_RS > 0).sum(dim=1).argmax())
    own = torch.nonzero(golden.request_of_C == request)[:, 0]
    rows_C = own[torch.arange(config.num_candidates) % len(own)]
    inputs = {}
    for name, (of, *_) in VARYING_AXES.items():
        tensor = getattr(golden, name)
        inputs[name] = tensor[request : request + 1] if of == REQUEST else tensor[rows_C]
    inputs["request_of_C"] = torch.zeros(config.num_candidates, dtype=torch.int64)
    timed, times_ms = for_scoring(inputs, num_heads=golden.labels_CH.shape[1]), []
    for _ in range(_WARM_UP_CALLS + config.num_calls):
        started = time.perf_counter(), time.process_time()
        predictor.probabilities(timed)
        ended = time.perf_counter(), time.process_time()
        times_ms.append(1000 * np.subtract(ended, started))
    (p50_ms, _), (p99_ms, processor_ms) = np.percentile(times_ms[_WARM_UP_CALLS:], [50, 99], axis=0)
    check = ServingCheck(
        golden_difference=float(np.abs(found_CH - expected_CH).max()),
        latency_p50_ms=float(p50_ms),
        latency_p99_ms=float(p99_ms),
        processor_p99_ms=float(processor_ms),
        peak_memory_mib=peak_memory_mib(),
        num_candidates=config.num_candidates,
        num_calls=config.num_calls,
        score_spread=float(found_CH[:, 0].std()),
        saturated_share=float(np.mean((found_CH < _SATURATED) | (found_CH > 1 - _SATURATED))),
    )
    limits = {
        "serving_golden": (check.golden_difference, _MAX_GOLDEN_DIFFERENCE),
        "serving_slow": (float(processor_ms), config.max_processor_p99_ms),
        "serving_memory": (check.peak_memory_mib, config.max_memory_mib),
        "serving_saturated": (check.saturated_share, _MAX_SATURATED_SHARE),
    }
    problems = [
        Reason.of(code, found=found, limit=limit)
        for code, (found, limit) in limits.items()
        if found > limit
    ]
    if check.score_spread == 0:
        problems.append(Reason.of("serving_constant"))
    return check.model_copy(update={"problems": tuple(problems)})


def peak_memory_mib() -> float:
    """Return the most memory that this process has held at once, MiB.

    `getrusage` would not do: a child process inherits the peak of the process that started it, so a
    comparison of a large holdout would be charged to the bundle.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, "Linux tells it"
    return int(found[1]) / 1024


if __name__ == "__main__":
    answer = measure(Path(sys.argv[1]), ServingConfig.model_validate(json.loads(sys.argv[2])))
    sys.stdout.write(f"\n{answer.model_dump_json()}\n")
