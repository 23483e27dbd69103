"""A measured stage: what arrives at a collector however the stage ends, and what it costs.

The collector is a real server (support/otlp.py).
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipelines import storage
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ResolvedRun, Standing
from pipelines.contracts.base import Artifact
from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.contracts.judgement import Decision, Promoted
from pipelines.contracts.run_layout import failure_uri, manifest_uri, stage_lock_uri
from pipelines.contracts.stage_table import TABLE, Stage
from pipelines.metrics.instruments import INSTRUMENTS
from pipelines.metrics.measured import measured, points_of, unmeasured
from pipelines.stages import runner
from support.judgements import CHALLENGER, CHAMPION, make_judgement, make_promotion
from support.judgements import said as said_of
from support.otlp import Receiver, http_receiver
from support.runs import make_run, save_run
from support.tiny_log import TINY_AS_OF, tiny_config

STAGE = "build_snapshot"
OWN = "homefeed.stage."
MIB = 2**20
MODULES = """
import sys, threading
from pipelines.stages.runner import run_stage
run_stage("build_snapshot", sys.argv[1])
print([name for name in sys.modules if name.partition(".")[0] == "opentelemetry"])
print([thread.name for thread in threading.enumerate() if thread.name == "usage"])
"""


@pytest.fixture
def run(log: Path) -> ResolvedRun:
    return save_run(make_run(log.parent, tiny_config(), TINY_AS_OF))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


def fail_with(error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """Let the stage's function raise an error."""
    patch.setitem(TABLE, STAGE, Stage(STAGE, inputs={}, gives=Artifact))
    patch.setattr(f"pipelines.stages.{STAGE}.{STAGE}", Mock(side_effect=error))


def test_a_stage_tells_what_it_used_and_what_is_rebuilt_nothing(run, receiver) -> None:
    before = time.time()
    for _ in range(2):
        assert runner.run_stage(STAGE, run.run_uri) == manifest_uri(run.run_uri, STAGE)
    with unmeasured():
        runner.run_stage(STAGE, run.run_uri)
    ended = [each for each in receiver.values if each.name == f"{OWN}end_time"]
    assert [each.attributes["homefeed.outcome"] for each in ended] == ["done", "found"]
    [end, _] = receiver.of(f"{OWN}end_time")
    assert before < end < time.time()
    assert 0 < receiver.of(f"{OWN}duration")[0] < time.time() - before
    assert 30e6 < receiver.of(f"{OWN}memory.peak")[0] < receiver.of(f"{OWN}memory.limit")[0]
    known = {each.name: each for each in INSTRUMENTS}
    about = {"stage": STAGE, "recipe": "smoke", "model": "test_ranker"}
    for value in receiver.values:
        instrument = known[value.name]
        assert (value.unit, value.kind) == (instrument.unit, "gauge")
        failures = {"error.type", "homefeed.is_retryable"}  # Nothing has failed.
        assert set(value.attributes) == set(instrument.attributes) - failures
        assert value.attributes.items() >= {f"homefeed.{k}": v for k, v in about.items()}.items()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataContractError("bad rows"), {"is_retryable": False, "outcome": "failed"}),
        (TransientStorageError("full"), {"is_retryable": True, "outcome": "failed"}),
        (ZeroDivisionError("a defect"), {"is_retryable": True, "outcome": "failed"}),
        (SystemExit(143), {"outcome": "stopped"}),  # as `main` ends a command on SIGTERM
    ],
)
def test_a_failure_is_told_with_its_class(run, receiver, monkeypatch, error, told) -> None:
    fail_with(error, monkeypatch)
    with pytest.raises(type(error)):
        runner.run_stage(STAGE, run.run_uri)
    [found] = [each.attributes for each in receiver.values if each.name == f"{OWN}end_time"]
    assert found.items() >= {f"homefeed.{name}": value for name, value in told.items()}.items()
    assert found.get("error.type", "SystemExit") == type(error).__name__


@pytest.mark.usefixtures("receiver")
def test_the_stage_s_lock_is_free_while_its_metrics_are_sent(run: ResolvedRun, monkeypatch) -> None:
    taken = []

    def send(*_: object) -> None:
        with storage.exclusive_lock(stage_lock_uri(run.run_uri, STAGE), "somebody else"):
            taken.append(True)

    monkeypatch.setattr("pipelines.metrics.measured.send", send)
    assert runner.run_stage(STAGE, run.run_uri) == manifest_uri(run.run_uri, STAGE)
    assert taken == [True]


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("defect", ["UsageMeter", "memory_limit_bytes"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_defect_of_the_measuring_reddens_no_stage_and_hides_no_failure(
    run, monkeypatch, caplog, fails, defect
) -> None:
    """Where it begins, where it ends, or where the limit is read."""
    monkeypatch.setattr(f"pipelines.metrics.measured.{defect}", lambda *_: 1 // 0)
    if fails:
        fail_with(DataContractError("bad rows"), monkeypatch)
        with pytest.raises(DataContractError, match="^bad rows$"):
            runner.run_stage(STAGE, run.run_uri)
    else:
        assert runner.run_stage(STAGE, run.run_uri) == manifest_uri(run.run_uri, STAGE)
    assert storage.exists(failure_uri(run.run_uri, STAGE)) is fails
    assert "was not measured (ZeroDivisionError)" in caplog.text


def test_where_nobody_asks_nothing_is_imported_and_no_thread_is_left(run: ResolvedRun) -> None:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    told = {"env": quiet | {"PYTHONPATH": ":".join(sys.path)}, "text": True}
    said = subprocess.check_output([sys.executable, "-c", MODULES, run.run_uri], **told)
    assert said.splitlines() == ["[]", "[]"]


def test_the_manifest_keeps_what_was_used_by_all_processes_where_it_can_be_read(
    run: ResolvedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"x = bytearray({200 * MIB}); x[::4096] = b'1' * len(x[::4096]); sum(range(3_000_000))"
    with measured(STAGE) as attempt:
        attempt.inputs = (run,)
        (tmp_path / "file").write_bytes(b"x" * MIB)
        (tmp_path / "file").read_bytes()
        subprocess.run([sys.executable, "-c", code], check=True)
        used = attempt.used()
        assert used is not None and used.cpu_s > 0.02 and used.gpu_s == 0
        attempt.inputs = (run.model_copy(update={"accelerator": "gpu", "num_devices": 3}),)
        for stage, times in {"train_challenger": 3, "compare_with_champion": 1}.items():
            attempt.stage = stage
            held = attempt.used()
            assert held is not None and held.gpu_s == pytest.approx(times * attempt.meter.wall_s)
        assert used.written_bytes is not None and MIB <= used.written_bytes < 20 * MIB
        assert used.read_bytes is not None and used.read_bytes >= MIB
        monkeypatch.setattr("pipelines.metrics.usage._moved_bytes", lambda: (None, None))
        used = attempt.used()
        assert used is not None and used.read_bytes is None and used.written_bytes is None
        monkeypatch.setattr("pipelines.metrics.measured.UsageMeter.read", lambda *_: 1 // 0)
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


def test_run_and_promotion_say_who_serves_and_others_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, champion=CHAMPION)
    backfill = run.model_copy(update={"later_champion": CHALLENGER})
    first = run.model_copy(update={"champion": None})
    nothing = AlertReceipt(alert=None, delivered_to=())
    for artifact, serving in (
        *((run, CHAMPION), (backfill, CHALLENGER), (first, None), (nothing, None)),
        *((make_promotion(), CHALLENGER), (make_promotion(False), CHAMPION)),
    ):
        expected = {"champion.as_of": serving.as_of.timestamp()} if serving else {}
        assert said(artifact, run) == expected


def test_a_judgement_says_its_verdict_and_whether_it_is_void(tmp_path: Path) -> None:
    run = make_run(tmp_path, champion=CHAMPION)
    for decision in Decision:
        found = said(make_judgement(decision), run)
        assert {each: found[each] for each in Decision} == {d: int(d is decision) for d in Decision}
    judgement = make_judgement(Decision.REJECT)
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
