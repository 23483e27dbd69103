"""Processes that do one act each, and may be killed at a point of it.

They are forked from a process that has imported the heavy libraries and computed nothing yet
(multiprocessing's fork server): a try does not pay for the imports, and no pool of threads is
copied in whatever state it is. What starts further processes is done in the process itself here:
the training that torchrun would start, and the serving check. So their points are points too. With
torchrun a stage is killed in tests/pipelines/stages/test_train_anchor.py.
"""

import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.contracts import mlflow_errors
from pipelines.contracts.errors import HomefeedError
from support.stage_points import Place, Places, watch

Act = Callable[[], object]
KILLED = -signal.SIGKILL
_TIMEOUT_S = 120.0
_PRELOADED = (
    "support.great_expectations_first",
    "matplotlib.pyplot",
    "mlflow.pyfunc",
    "pipelines.alerts.compose",
    "pipelines.registry.moves",
    "pipelines.snapshot.counterpart",
    "pipelines.stages.light",
    "pipelines.stages.check_snapshot",
    "pipelines.stages.compare_with_champion",
    "pipelines.stages.runner",
    "pipelines.stages.train",
    "training.bundle.mlflow_model",
    "training.bundle.serving_check",
    "training.launch.worker",
    "training.fitting.fit",
    "validation.data_gate.gate",
    "validation.model_gate.facts",
    "validation.report.verdict_page",
)


@dataclass(frozen=True)
class Where:
    """What a process is told about its place."""

    home: Path
    """Changes below it are points; its `tmp` is where temporary files are made."""
    notes: Path
    """A folder outside of it, for what the process says."""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or minus the signal, and its error of ours."""

    code: int
    error: str = ""
    said: str = ""


def find_places(where: Where, act: Act) -> list[Place]:
    """Do an act to its end, and return the points that it came by."""
    ended = _run(where, act, None, is_listing=True)
    assert ended.code == 0, ended.said
    return [(name, number) for name, number in json.loads((where.notes / "places").read_text())]


def perform(where: Where, act: Act, kill_at: Place | None = None) -> Ended:
    """Do an act in a process that is killed at a point, if one is given."""
    return _run(where, act, kill_at, is_listing=False)


def _run(where: Where, act: Act, kill_at: Place | None, is_listing: bool) -> Ended:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    (where.notes / "error").unlink(missing_ok=True)
    process = context.Process(target=_child, args=(where, act, kill_at, is_listing))
    process.start()
    process.join(_TIMEOUT_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"an act did not end in {_TIMEOUT_S:g} s: {_said(where)}")
    error = where.notes / "error"
    return Ended(process.exitcode, error.read_text() if error.exists() else "", _said(where))


def _said(where: Where) -> str:
    said = where.notes / "output"
    return said.read_text(errors="replace")[-3000:] if said.exists() else ""


def _child(where: Where, act: Act, kill_at: Place | None, is_listing: bool) -> None:
    _settle_in(where)
    found: list[Place] = []
    places = Places(found.append if is_listing else _killer(kill_at))
    code, error = 0, ""
    try:
        if is_listing or kill_at is not None:
            watch(where.home, places)
        act()
    except HomefeedError as ours:
        code, error = ours.exit_code, type(ours).__name__
    except BaseException:
        traceback.print_exc()
        code, error = 70, "unforeseen"
    if is_listing:
        (where.notes / "places").write_text(json.dumps(found))
    (where.notes / "error").write_text(error)
    sys.stderr.flush()
    os._exit(code)


def _killer(kill_at: Place | None) -> Callable[[Place], None]:
    def reach(place: Place) -> None:
        if place == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


def _settle_in(where: Where) -> None:
    """Take the place's environment on, and let the output go to a file."""
    output = os.open(where.notes / "output", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    temporary = where.home / "tmp"
    temporary.mkdir(exist_ok=True)
    os.environ.update(where.environment | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"})
    tempfile.tempdir = None
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    # Tries are many, and the server is near.
    mlflow_errors.WAITS_S = (0.02, 0.05)
    _do_everything_here()


def _do_everything_here() -> None:
    from training.bundle import mlflow_model, serving_check
    from training.launch import launcher

    # Threads that fetch files make a folder once or twice, as it happens, and a point that was
    # found must be met again.
    assert mlflow_model._NUM_AT_A_TIME > 1
    mlflow_model._NUM_AT_A_TIME = 1
    launcher._run = _train_here
    serving_check.check_serving = _check_here


def _train_here(spec: Any, folder: Any, node: Any) -> Any:
    from training.launch import worker

    before = dict(os.environ)  # A training sets what is meant for its own process.
    os.environ["RANK"] = "0"
    code = worker.main(str(folder.spec), spec.identity(), spec.snapshot_dir)
    os.environ.clear()
    os.environ.update(before)
    return code, []


def _check_here(bundle_dir: Path, config: Any, *others: Any) -> Any:
    """Measure the bundle, with figures that do not depend on the machine's other work."""
    from training.bundle import serving_check

    figures: dict[str, Any] = {"wall_ratio": None}
    figures |= {"latency_p50_ms": 1.0, "latency_p99_ms": 2.0, "processor_p99_ms": 1.5}
    figures["peak_memory_mib"] = 100.0
    few = config.model_copy(update={"num_calls": 2})
    return serving_check.measure(bundle_dir, few).model_copy(update=figures | {"problems": ()})
