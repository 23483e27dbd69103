"""Measures whether a bundle would serve: golden rows, latency, memory and scores.

It runs before a promotion, in a process that holds the model and nothing else, so that the peak
memory of the process is what a server needs. A call's processor time is judged as it is. How long
it took is judged beside the champion alone, which is then loaded and called in turn: other work on
the machine makes both wait. Not for the quality of the ranking, which is the model gate's, nor for
the verdict (`validation.model_gate.verdict`).
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
from pipelines.contracts.processes import collect_seldom, die_with_parent
from pipelines.contracts.reasons import Reason
from training.bundle.files import Predictor, load_bundle, read_golden
from training.data.batches import REQUEST, VARYING_AXES, Batch, for_scoring
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


def check_serving(
    bundle_dir: Path, config: ServingConfig, champion_dir: Path | None = None
) -> ServingCheck:
    """Serve the bundle in a process of its own, the champion's in turn; return what was found.

    Call this from the thread that waits for the answer: the process dies with it.

    Raises:
        ProcessKilledError: the process was killed, by a person or because memory ran out, or did
            not end in time; a retry may get through.
        HomefeedError: the process ended without an answer: a damaged bundle, say.
    """
    command = [sys.executable, "-m", "training.bundle.serving_check", config.model_dump_json()]
    try:
        done = subprocess.run(
            [*command, *map(str, filter(None, (bundle_dir, champion_dir)))],
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


def measure(
    bundle_dir: Path, config: ServingConfig, champion_dir: Path | None = None
) -> ServingCheck:
    """Load the bundle in this process, as a server would, and measure it, then both in turn."""
    torch.set_num_threads(_NUM_THREADS)
    predictor = load_bundle(bundle_dir)
    golden, expected_CH = read_golden(bundle_dir, len(predictor.config.features.heads))
    found_CH = predictor.probabilities(golden)
    timed, num_calls = _longest(golden, config.num_candidates), _WARM_UP_CALLS + config.num_calls
    times_ms = [_time_ms(predictor, timed) for _ in range(num_calls)][_WARM_UP_CALLS:]
    (p50_ms, _), (p99_ms, processor_ms) = np.percentile(times_ms, [50, 99], axis=0)
    check = ServingCheck(
        golden_difference=float(np.abs(found_CH - expected_CH).max()),
        latency_p50_ms=float(p50_ms),
        latency_p99_ms=float(p99_ms),
        processor_p99_ms=float(processor_ms),
        peak_memory_mib=peak_memory_mib(),  # Before the champion is loaded.
        num_candidates=config.num_candidates,
        num_calls=config.num_calls,
        score_spread=float(found_CH[:, 0].std()),
        saturated_share=float(np.mean((found_CH < _SATURATED) | (found_CH > 1 - _SATURATED))),
    )
    if champion_dir is not None:
        ratio = _wall_ratio(predictor, timed, champion_dir, config)
        check = check.model_copy(update={"wall_ratio": ratio})
    limits = {
        "serving_golden": (check.golden_difference, _MAX_GOLDEN_DIFFERENCE),
        "serving_slow": (float(processor_ms), config.max_processor_p99_ms),
        "serving_waits": (check.wall_ratio or 0.0, config.max_wall_ratio),
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


def _longest(golden: Batch, num_candidates: int) -> Batch:
    """Return the golden request with the longest history, its candidates repeated."""
    request = int((golden.action_types_RS > 0).sum(dim=1).argmax())
    own = torch.nonzero(golden.request_of_C == request)[:, 0]
    rows_C = own[torch.arange(num_candidates) % len(own)]
    inputs = {}
    for name, (of, *_) in VARYING_AXES.items():
        tensor = getattr(golden, name)
        inputs[name] = tensor[request : request + 1] if of == REQUEST else tensor[rows_C]
    inputs["request_of_C"] = torch.zeros(num_candidates, dtype=torch.int64)
    return for_scoring(inputs, num_heads=golden.labels_CH.shape[1])


def _time_ms(predictor: Predictor, timed: Batch) -> tuple[float, float]:
    """Return the wall time and the processor time of one call, ms."""
    started = time.perf_counter(), time.process_time()
    predictor.probabilities(timed)
    ended = time.perf_counter(), time.process_time()
    return 1000 * (ended[0] - started[0]), 1000 * (ended[1] - started[1])


def _wall_ratio(
    predictor: Predictor, timed: Batch, champion_dir: Path, config: ServingConfig
) -> float:
    """Return the median of a call's wall time over that of the champion's call beside it.

    Which of the two comes first changes from pair to pair.
    """
    champion = load_bundle(champion_dir)
    golden, _ = read_golden(champion_dir, len(champion.config.features.heads))
    theirs, ratios = _longest(golden, config.num_candidates), []
    for number in range(_WARM_UP_CALLS + config.num_calls):
        sides = ((predictor, timed), (champion, theirs))
        walls = {side: _time_ms(*sides[side])[0] for side in ((0, 1), (1, 0))[number % 2]}
        ratios.append(walls[0] / walls[1])
    return float(np.median(ratios[_WARM_UP_CALLS:]))


def peak_memory_mib() -> float:
    """Return the most memory that this process has held at once, MiB.

    `getrusage` would not do: a child process inherits the peak of the process that started it, so a
    comparison of a large holdout would be charged to the bundle.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, "Linux tells it"
    return int(found[1]) / 1024


if __name__ == "__main__":
    collect_seldom()
    own, *others = map(Path, sys.argv[2:])
    answer = measure(own, ServingConfig.model_validate(json.loads(sys.argv[1])), *others)
    sys.stdout.write(f"\n{answer.model_dump_json()}\n")
