"""A measured stage: what arrives at a collector however the stage ends, and what it costs.

The collector is a real server (support/otlp.py); processes are the project's own command line.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ResolvedRun, Standing
from pipelines.contracts.base import Artifact
from pipelines.contracts.errors import (
    DataContractError,
    HomefeedError,
    TransientStorageError,
)
from pipelines.contracts.judgement import Decision, Promoted, Promotion
from pipelines.contracts.run_layout import failure_uri, manifest_uri, stage_lock_uri
from pipelines.contracts.stage_table import TABLE, Stage
from pipelines.metrics.instruments import INSTRUMENTS
from pipelines.metrics.measured import measured, points_of, unmeasured
from pipelines.metrics.sending import WAIT_S
from pipelines.stages import runner
from support.judgements import CHALLENGER, CHAMPION, make_judgement
from support.judgements import said as said_of
from support.otlp import Receiver, http_receiver
from support.runs import make_run, save_run
from support.serving import wait_until
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log

STAGE = "build_snapshot"
OWN = "homefeed.stage."
MIB = 2**20
SLEEPING = """
import os, time
from pathlib import Path
import pipelines.stages.build_snapshot as module
from pipelines.cli.main import main

def build_snapshot(run):
    Path(os.environ["SIGN"]).touch()
    time.sleep(60)

module.build_snapshot = build_snapshot
main()
"""
MODULES = """
import sys, threading
from pipelines.stages.runner import run_stage
run_stage("build_snapshot", sys.argv[1])
print([name for name in sys.modules if name.partition(".")[0] == "opentelemetry"])
print([thread.name for thread in threading.enumerate() if thread.name == "usage"])
"""


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    write_tiny_log(tmp_path / "event_log")
    return save_run(make_run(tmp_path, tiny_config(), TINY_AS_OF))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


@pytest.fixture
def set_body(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Artifact]], None]:
    """Put a body in the place of the stage's function."""

    def set_it(body: Callable[[], Artifact]) -> None:
        monkeypatch.setitem(TABLE, STAGE, Stage(STAGE, inputs={}, gives=Artifact))
        monkeypatch.setattr("pipelines.stages.build_snapshot.build_snapshot", body)

    return set_it


def command(run: ResolvedRun, *start: str) -> list[str]:
    return [sys.executable, *start, "stage", STAGE, "--run", run.run_uri]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ":".join(sys.path), **variables}


def outcomes(receiver: Receiver) -> list[str]:
    """Return how the attempts ended that have told so."""
    found = (each for each in receiver.values if each.name == f"{OWN}end_time")
    return [each.attributes["homefeed.outcome"] for each in found]


def test_a_stage_tells_what_it_used(run: ResolvedRun, receiver: Receiver) -> None:
    before = time.time()
    for _ in range(2):
        done = subprocess.run(
            command(run, "-m", "pipelines.cli"),
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == manifest_uri(run.run_uri, STAGE)
        assert "WARNING" not in done.stderr
    assert outcomes(receiver) == ["done", "found"]
    [end, _] = receiver.of(f"{OWN}end_time")
    assert before < end < time.time()
    assert 0 < receiver.of(f"{OWN}duration")[0] < time.time() - before
    most = (time.time() - before) * (os.cpu_count() or 1)
    assert 0.01 < sum(receiver.of(f"{OWN}cpu.time")[:2]) < most
    assert 30e6 < receiver.of(f"{OWN}memory.peak")[0] < receiver.of(f"{OWN}memory.limit")[0]
    assert receiver.of(f"{OWN}gpu.held_time") == []
    known = {each.name: each for each in INSTRUMENTS}
    for value in receiver.values:
        instrument = known[value.name]
        assert (value.unit, value.kind) == (instrument.unit, "gauge")
        assert set(value.attributes) <= set(instrument.attributes)
        assert value.attributes["homefeed.stage"] == STAGE
        assert value.attributes["homefeed.recipe"] == "smoke"
        assert value.attributes["homefeed.model"] == "test_ranker"


@pytest.mark.parametrize(
    ("error", "is_retryable"),
    [
        (DataContractError("bad rows"), False),
        (TransientStorageError("the disk is full"), True),
        (ZeroDivisionError("a defect"), True),
    ],
)
def test_a_failure_is_told_with_its_class(
    run: ResolvedRun,
    receiver: Receiver,
    set_body: Callable,
    error: Exception,
    is_retryable: bool,
) -> None:
    def body() -> Artifact:
        raise error

    set_body(body)
    with pytest.raises(type(error)):
        runner.run_stage(STAGE, run.run_uri)
    [told] = [each for each in receiver.values if each.name == f"{OWN}end_time"]
    assert told.attributes["homefeed.outcome"] == "failed"
    assert told.attributes["error.type"] == type(error).__name__
    assert told.attributes["homefeed.is_retryable"] is is_retryable


@pytest.mark.parametrize(
    ("number", "code", "told"), [(signal.SIGTERM, 143, ["stopped"]), (signal.SIGKILL, -9, [])]
)
def test_a_stage_that_is_ended_costs_its_own_point_at_most(
    run: ResolvedRun,
    receiver: Receiver,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    told: list[str],
) -> None:
    sign = tmp_path / "begun"
    process = subprocess.Popen(command(run, "-c", SLEEPING), env=environment(SIGN=str(sign)))
    try:
        wait_until(sign.exists)
        process.send_signal(number)
        assert process.wait(30) == code
    finally:
        process.kill()
        process.wait()
    assert outcomes(receiver) == told
    runner.run_stage(STAGE, run.run_uri)
    assert outcomes(receiver) == [*told, "done"]


def test_a_collector_that_does_not_answer_delays_and_changes_nothing(
    run: ResolvedRun, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.delay_s = 60.0
    others: list[float] = []

    def take_the_lock() -> None:
        wait_until(lambda: bool(receiver.headers))
        with storage.exclusive_lock(stage_lock_uri(run.run_uri, STAGE), "somebody else"):
            others.append(time.monotonic())

    thread = threading.Thread(target=take_the_lock)
    thread.start()
    started = time.monotonic()
    assert runner.run_stage(STAGE, run.run_uri) == manifest_uri(run.run_uri, STAGE)
    ended = time.monotonic()
    thread.join()
    assert ended - started < WAIT_S + 10, "the stage itself takes seconds on a loaded machine"
    assert others[0] < ended, "the stage's lock is free while its metrics are sent"
    [warning] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "build_snapshot (done)" in warning.getMessage()


@pytest.fixture(params=["UsageMeter", "memory_limit_bytes"])
def defect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the measuring fail where it begins, where it ends, or where the limit is read."""
    monkeypatch.setattr(f"pipelines.metrics.measured.{request.param}", lambda *_: 1 // 0)


@pytest.mark.usefixtures("defect", "receiver")
@pytest.mark.parametrize("fails", [False, True])
def test_a_defect_of_the_measuring_reddens_no_stage_and_hides_no_failure(
    run: ResolvedRun, set_body: Callable, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    def body() -> Artifact:
        raise DataContractError("bad rows")

    if fails:
        set_body(body)
        with pytest.raises(HomefeedError, match="^bad rows$"):
            runner.run_stage(STAGE, run.run_uri)
    else:
        assert runner.run_stage(STAGE, run.run_uri) == manifest_uri(run.run_uri, STAGE)
    assert storage.exists(failure_uri(run.run_uri, STAGE)) is fails
    assert "was not measured (ZeroDivisionError)" in caplog.text


def test_a_training_tells_how_long_it_held_its_gpus(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained: the stage is given no snapshot, and fails after it has read the run."""
    run = save_run(make_run(tmp_path, accelerator="gpu", num_devices=3))
    row = Stage("train_challenger", inputs={"resolve_run": ResolvedRun}, gives=Artifact)
    monkeypatch.setitem(TABLE, "train_challenger", row)
    with pytest.raises(TypeError):
        runner.run_stage("train_challenger", run.run_uri)
    [held] = receiver.of(f"{OWN}gpu.held_time")
    assert held == pytest.approx(3 * receiver.of(f"{OWN}duration")[0])


def test_what_is_rebuilt_sends_nothing(run: ResolvedRun, receiver: Receiver) -> None:
    with unmeasured():
        runner.run_stage(STAGE, run.run_uri)
    assert receiver.requests == []
    runner.run_stage(STAGE, run.run_uri)
    assert outcomes(receiver) == ["found"]


def test_the_last_line_stays_the_manifest_where_metrics_are_printed(run: ResolvedRun) -> None:
    """Airflow takes the last line for the stage's result."""
    done = subprocess.run(
        command(run, "-m", "pipelines.cli"),
        env=environment(OTEL_METRICS_EXPORTER="console"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"homefeed.stage.duration"' in done.stdout
    assert done.stdout.splitlines()[-1] == manifest_uri(run.run_uri, STAGE)


def test_where_nobody_asks_nothing_is_imported_and_no_thread_is_left(run: ResolvedRun) -> None:
    quiet = {name: value for name, value in environment().items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", MODULES, run.run_uri],
        env=quiet,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_the_manifest_keeps_what_was_used_by_all_processes(
    run: ResolvedRun, tmp_path: Path
) -> None:
    code = f"x = bytearray({200 * MIB}); x[::4096] = b'1' * len(x[::4096]); sum(range(3_000_000))"
    with measured(STAGE) as attempt:
        attempt.inputs = (run,)
        (tmp_path / "file").write_bytes(b"x" * MIB)
        (tmp_path / "file").read_bytes()
        subprocess.run([sys.executable, "-c", code], check=True)
        used = attempt.used()
    assert used is not None and used.cpu_s > 0.02 and used.gpu_s == 0
    assert used.written_bytes is not None and MIB <= used.written_bytes < 20 * MIB
    assert used.read_bytes is not None and used.read_bytes >= MIB


def test_what_cannot_be_read_is_not_on_record(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.metrics.usage._moved_bytes", lambda: (None, None))
    with measured(STAGE) as attempt:
        used = attempt.used()
        assert used is not None and used.read_bytes is None and used.written_bytes is None
        monkeypatch.setattr("pipelines.metrics.measured.UsageMeter.read", lambda _: 1 // 0)
        assert attempt.used() is None


def said(artifact: Artifact, run: ResolvedRun) -> dict[str, float]:
    """Return the values by the metric's name, of a verdict's states with the verdict."""
    allowed, found = {each.name: each.attributes for each in INSTRUMENTS}, {}
    for point in points_of(artifact, run):
        assert set(point.attributes) == set(allowed[point.name])
        assert point.attributes["homefeed.model"] == "test_ranker"
        key = point.attributes.get("homefeed.verdict", point.name.removeprefix("homefeed."))
        found[str(key)] = point.value
    return found


def made(is_promoted: bool) -> Promotion:
    return Promotion(
        decision=Decision.PROMOTE,
        is_promoted=is_promoted,
        champion_before=CHAMPION,
        champion_after=CHALLENGER if is_promoted else CHAMPION,
        reason="it won",
        history_uri="file:///h",
    )


def test_run_and_promotion_say_who_serves_and_others_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, champion=CHAMPION)
    backfill = run.model_copy(update={"later_champion": CHALLENGER})
    first = run.model_copy(update={"champion": None})
    nothing = AlertReceipt(alert=None, delivered_to=())
    for artifact, serving in (
        *((run, CHAMPION), (backfill, CHALLENGER), (first, None), (nothing, None)),
        *((made(True), CHALLENGER), (made(False), CHAMPION)),
    ):
        expected = {"champion.as_of": serving.as_of.timestamp()} if serving else {}
        assert said(artifact, run) == expected


@pytest.mark.parametrize("decision", list(Decision))
def test_a_judgement_says_its_verdict(tmp_path: Path, decision: Decision) -> None:
    found = said(make_judgement(decision), make_run(tmp_path, champion=CHAMPION))
    assert {each: found[each] for each in Decision} == {d: int(d is decision) for d in Decision}


def test_a_comparison_that_says_nothing_is_void(tmp_path: Path) -> None:
    run, judgement = make_run(tmp_path, champion=CHAMPION), make_judgement(Decision.REJECT)
    changes = {
        "baseline_holdout_digest": judgement.comparison.holdout_digest,
        "baseline_model": CHAMPION.model_copy(update={"bundle_digest": "e" * 64}),
        "are_scores_identical": False,
        "target_metric": run.config.model_gate.target_metric,
        "segment_users": dict.fromkeys(("all", "core", "non_core"), 5000),
    }
    for seen in ((), (said_of("The champion was trained on its rows."),)):
        comparison = judgement.comparison.model_copy(update={**changes, "seen": seen})
        found = said(judgement.model_copy(update={"comparison": comparison}), run)
        assert found["comparison.void"] == len(seen)


def test_cycles_without_a_promotion_are_counted(tmp_path: Path) -> None:
    run, key = make_run(tmp_path, champion=CHAMPION), "champion.unpromoted_cycles"
    days = tuple(run.as_of - timedelta(days=14 * k) for k in (2, 1, 0))
    kept = make_judgement(Decision.INCONCLUSIVE)
    anchored = kept.verdict.model_copy(update={"promoted": Promoted.ANCHOR})
    for judgement, before, number in (
        *((kept, (), 1), (kept, days[:2], 3), (kept, days, 3)),  # judged again, a day is one
        (kept.model_copy(update={"verdict": anchored}), days[:2], 0),
    ):
        aged = run.model_copy(update={"standing": Standing(unpromoted=before)})
        assert said(judgement, aged)[key] == number
    assert key not in said(kept, run.model_copy(update={"may_promote": False}))
