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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import (
    AnchorWhy,
    Challenger,
    DataReport,
    FileDigest,
    FreshAnchor,
    ResolvedRun,
    Standing,
)
from pipelines.contracts.base import Artifact
from pipelines.contracts.errors import (
    DataContractError,
    HomefeedError,
    LostRaceError,
    TransientStorageError,
)
from pipelines.contracts.judgement import Decision, Judgement, Promoted, Promotion
from pipelines.contracts.run_layout import failure_uri, manifest_uri, stage_lease_uri
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
from support.tiny_log import TINY_AS_OF, build_tiny, rows_of, tiny_config, write_tiny_log

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
    found = (each for each in receiver.values if each.name == f"{OWN}attempts")
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
    assert receiver.of(f"{OWN}attempts") == [1, 1]
    assert receiver.of(f"{OWN}attempt_number") == [1, 2]
    assert 0 < receiver.of(f"{OWN}duration")[0] < time.time() - before
    most = (time.time() - before) * (os.cpu_count() or 1)
    assert 0.01 < sum(receiver.of(f"{OWN}cpu.time")[:2]) < most
    assert 30e6 < receiver.of(f"{OWN}memory.peak")[0] < receiver.of(f"{OWN}memory.limit")[0]
    assert receiver.of(f"{OWN}gpu.held_time") == []
    assert len(receiver.of(f"{OWN}rows", homefeed__row="example")) == 1, "work is told once"
    assert receiver.of(f"{OWN}io", homefeed__direction="write")[0] > 0


def test_values_carry_the_attributes_of_the_table_and_no_others(
    run: ResolvedRun, receiver: Receiver
) -> None:
    runner.run_stage(STAGE, run.run_uri)
    known = {each.name: each for each in INSTRUMENTS}
    for value in receiver.values:
        instrument = known[value.name]
        assert (value.unit, value.kind) == (instrument.unit, instrument.kind)
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
    assert receiver.of(f"{OWN}rows") == []


def test_a_stage_that_another_process_has_is_no_failure(
    run: ResolvedRun, receiver: Receiver
) -> None:
    with (
        storage.exclusive_lock(stage_lease_uri(run.run_uri, STAGE), "somebody"),
        pytest.raises(LostRaceError),
    ):
        runner.run_stage(STAGE, run.run_uri)
    assert outcomes(receiver) == ["lost_race"]
    assert receiver.of(f"{OWN}attempt_number") == []


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
    assert receiver.of(f"{OWN}attempts")[-1] == 1
    assert receiver.of(f"{OWN}attempt_number")[-1] == 2


def test_a_collector_that_does_not_answer_delays_and_changes_nothing(
    run: ResolvedRun, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.delay_s = 60.0
    others: list[float] = []

    def take_the_lease() -> None:
        wait_until(lambda: bool(receiver.headers))
        with storage.exclusive_lock(stage_lease_uri(run.run_uri, STAGE), "somebody else"):
            others.append(time.monotonic())

    thread = threading.Thread(target=take_the_lease)
    thread.start()
    started = time.monotonic()
    assert runner.run_stage(STAGE, run.run_uri) == manifest_uri(run.run_uri, STAGE)
    ended = time.monotonic()
    thread.join()
    assert ended - started < WAIT_S + 10, "the stage itself takes seconds on a loaded machine"
    assert others[0] < ended, "the stage's lease is free while its metrics are sent"
    [warning] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "build_snapshot (done)" in warning.getMessage()


@pytest.fixture(params=["UsageMeter", "memory_limit_bytes"])
def defect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the measuring fail where it begins, where it ends, or where the limit is read."""
    monkeypatch.setattr(f"pipelines.metrics.measured.{request.param}", lambda *_: 1 // 0)


@pytest.mark.usefixtures("defect", "receiver")
def test_a_defect_of_the_measuring_reddens_no_stage(
    run: ResolvedRun, caplog: pytest.LogCaptureFixture
) -> None:
    assert runner.run_stage(STAGE, run.run_uri) == manifest_uri(run.run_uri, STAGE)
    assert storage.exists(manifest_uri(run.run_uri, STAGE))
    [warning] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "was not measured (ZeroDivisionError)" in warning.getMessage()


@pytest.mark.usefixtures("defect", "receiver")
def test_a_defect_of_the_measuring_hides_no_failure(run: ResolvedRun, set_body: Callable) -> None:
    def body() -> Artifact:
        raise DataContractError("bad rows")

    set_body(body)
    with pytest.raises(HomefeedError, match="^bad rows$"):
        runner.run_stage(STAGE, run.run_uri)
    assert storage.exists(failure_uri(run.run_uri, STAGE))


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


NOW = datetime(2017, 3, 5, 12, tzinfo=UTC)
ATTEMPT: dict[str, str | bool] = {"homefeed.stage": "x", "homefeed.outcome": "done"}
FILES = (
    FileDigest(path="a", sha256="0", num_bytes=300),
    FileDigest(path="b", sha256="1", num_bytes=40),
)


@pytest.fixture
def judged(tmp_path: Path) -> ResolvedRun:
    return make_run(tmp_path, champion=CHAMPION)


def said(artifact: Artifact, run: ResolvedRun, *inputs: Artifact) -> dict[tuple[str, ...], float]:
    """Return the values by the metric's name and what tells apart values of one metric."""
    points = list(points_of(artifact, inputs, run, NOW, ATTEMPT))
    attributes = {each.name: each.attributes for each in INSTRUMENTS}
    found = {}
    for point in points:
        allowed = {*attributes[point.name]}
        assert set(point.attributes) <= allowed
        if "homefeed.stage" in allowed:
            assert ATTEMPT.items() <= point.attributes.items()
        else:
            assert point.attributes["homefeed.model"] == "test_ranker"
        keys = ("homefeed.row", "homefeed.direction", "homefeed.verdict")
        apart = (str(point.attributes[key]) for key in keys if key in point.attributes)
        found[(point.name.removeprefix("homefeed."), *apart)] = point.value
    assert len(found) == len(points)
    return found


def make_challenger() -> Challenger:
    return Challenger(
        model=CHALLENGER,
        bundle_uri="file:///b",
        bundle_files=FILES,
        num_steps=7,
        num_training_examples=1234,
        final_training_loss=0.5,
        seed=1,
    )


def test_a_run_says_who_serves(judged: ResolvedRun) -> None:
    run = judged
    age_s = (13 + 4.5) * 86400  # from 16 February to 5 March at noon
    expected = {("champion.as_of",): CHAMPION.as_of.timestamp(), ("champion.age",): age_s}
    assert said(run, run) == expected
    backfill = run.model_copy(update={"later_champion": CHALLENGER})
    assert said(backfill, backfill)[("champion.as_of",)] == CHALLENGER.as_of.timestamp()
    first = run.model_copy(update={"champion": None})
    assert said(first, first) == {}


def test_a_snapshot_says_what_was_written(judged: ResolvedRun, tmp_path: Path) -> None:
    run = judged
    write_tiny_log(tmp_path / "event_log")
    snapshot = build_tiny(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.arrow"))
    found = said(snapshot, run, run)
    tables = {"example": "examples", "request": "requests", "action": "timeline"}
    for kind, table in tables.items():
        assert found[("stage.rows", kind, "write")] == len(rows_of(snapshot, table)) > 0
    assert found[("stage.rows", "pin", "write")] == snapshot.num_pins > 0
    assert found[("stage.rows", "user", "write")] > 0
    assert found[("stage.io", "write")] == size > 0
    report = DataReport(
        snapshot_digest=snapshot.digest, outcomes=(), docs_uri="file:///d", reference_digest=None
    )
    assert said(report, run, run, snapshot) == {
        ("stage.rows", "example", "read"): snapshot.num_examples,
        ("stage.rows", "request", "read"): snapshot.num_requests,
        ("stage.io", "read"): size,
    }


def test_a_training_says_what_it_read_and_made(judged: ResolvedRun) -> None:
    run = judged
    expected = {("stage.rows", "example", "read"): 1234, ("stage.io", "write"): 340}
    assert said(make_challenger(), run) == expected
    anchor = FreshAnchor(
        trained=make_challenger(), snapshot=None, why=AnchorWhy.SAME, reason="it differs"
    )
    assert said(anchor, run) == expected
    assert (
        said(
            FreshAnchor(trained=None, snapshot=None, why=AnchorWhy.SAME, reason="it is the same"),
            run,
        )
        == {}
    )


@pytest.mark.parametrize("decision", list(Decision))
def test_a_judgement_says_its_verdict(judged: ResolvedRun, decision: Decision) -> None:
    run = judged
    found = said(make_judgement(decision), run, run)
    assert {key[1]: value for key, value in found.items() if key[0] == "verdict.state"} == {
        str(each): int(each is decision) for each in Decision
    }
    assert found[("verdicts", str(decision))] == 1
    assert [key for key in found if key[0] == "verdicts"] == [("verdicts", str(decision))]
    assert found[("stage.rows", "example", "read")] == 68136
    assert found[("stage.rows", "user", "read")] == 1234


def with_comparison(judgement: Judgement, **changes: Any) -> Judgement:
    comparison = judgement.comparison.model_copy(update=changes)
    return judgement.model_copy(update={"comparison": comparison})


def test_a_comparison_that_says_nothing_is_void(judged: ResolvedRun) -> None:
    run = judged
    judgement = make_judgement(Decision.REJECT)
    gate = run.config.model_gate
    sound = with_comparison(
        judgement,
        baseline_holdout_digest=judgement.comparison.holdout_digest,
        baseline_model=CHAMPION.model_copy(update={"bundle_digest": "e" * 64}),
        are_scores_identical=False,
        target_metric=gate.target_metric,
        segment_users=dict.fromkeys(("all", "core", "non_core"), 5000),
    )
    assert said(sound, run)[("comparison.void",)] == 0
    void = with_comparison(sound, seen=(said_of("The champion was trained on its rows."),))
    assert said(void, run)[("comparison.void",)] == 1


def test_cycles_without_a_promotion_are_counted(judged: ResolvedRun) -> None:
    run = judged
    key = ("champion.unpromoted_cycles",)
    days = tuple(run.as_of - timedelta(days=14 * k) for k in (2, 1, 0))
    aged = run.model_copy(update={"standing": Standing(unpromoted=days[:2])})
    again = run.model_copy(update={"standing": Standing(unpromoted=days)})
    kept = make_judgement(Decision.INCONCLUSIVE)
    assert said(kept, run)[key] == 1
    assert said(kept, aged)[key] == 3
    assert said(kept, again)[key] == 3, "the same day, judged again, is one"
    anchored = kept.verdict.model_copy(update={"promoted": Promoted.ANCHOR})
    assert said(kept.model_copy(update={"verdict": anchored}), aged)[key] == 0
    trial = aged.model_copy(update={"may_promote": False})
    assert key not in said(kept, trial), "one that may not promote is none of them"


def test_a_promotion_says_who_serves_now(judged: ResolvedRun) -> None:
    run = judged
    made = Promotion(
        decision=Decision.PROMOTE,
        is_promoted=True,
        champion_before=CHAMPION,
        champion_after=CHALLENGER,
        reason="it won",
        history_uri="file:///h",
    )
    assert said(made, run) == {
        ("promotions",): 1,
        ("champion.as_of",): CHALLENGER.as_of.timestamp(),
        ("champion.age",): 3.5 * 86400,
    }
    kept = made.model_copy(update={"is_promoted": False, "champion_after": CHAMPION})
    assert ("promotions",) not in said(kept, run)
    assert said(kept, run)[("champion.as_of",)] == CHAMPION.as_of.timestamp()


def test_an_artifact_that_says_nothing_is_no_error(judged: ResolvedRun) -> None:
    run = judged
    assert said(AlertReceipt(alert=None, delivered_to=()), run) == {}
