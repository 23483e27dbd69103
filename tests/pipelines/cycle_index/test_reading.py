"""What the index knows of cycles: every kind of them is told, and a damaged one hides none."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.alerts.outcomes import kept_outcome
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.config import Limit
from pipelines.contracts.judged.cycle import CycleLine
from pipelines.contracts.judgement import Decision, Promotion
from pipelines.contracts.run_layout import StageFailure, StageUsage, failure_uri, manifest_uri
from pipelines.cycle_index.reading import read_cycles
from pipelines.registry.history import HistoryEntry, begin, load, settle
from pipelines.settings import Settings
from pipelines.stages.runner import read_record
from support.judgements import CHALLENGER, CHAMPION, make_judgement
from support.runs import PLANTED_AS_OF, make_run, save_artifact, save_run

SETTINGS = Settings(registered_model="test_ranker")


def begun(tmp_path: Path, fortnight: int) -> ResolvedRun:
    as_of = PLANTED_AS_OF + timedelta(days=14 * fortnight)
    run_id = f"{as_of:%Y-%m-%d}--ab12cd34"
    return save_run(make_run(tmp_path, as_of=as_of, champion=CHAMPION, run_id=run_id))


def judge(run: ResolvedRun, decision: Decision, is_promoted: bool = False) -> None:
    page = storage.join(run.run_uri, "compare_with_champion", "output-1", "verdict.html")
    judgement = make_judgement(decision, low=-0.2, high=0.1)
    judgement = judgement.model_copy(update={"report_uri": page})
    kept = kept_outcome(run, judgement, SETTINGS)
    save_artifact(run, "compare_with_champion", judgement.model_copy(update={"outcome": kept}))
    after = CHALLENGER if is_promoted else CHAMPION
    promotion = Promotion(
        decision=decision,
        is_promoted=is_promoted,
        champion_before=CHAMPION,
        champion_after=after,
        reason="It is so.",
        history_uri=None,
    )
    save_artifact(run, "promote_challenger", promotion)


def fail(run: ResolvedRun, stage: str, error_class: str) -> None:
    failure = StageFailure(
        stage=stage,
        error_class=error_class,
        message="rows\nare missing",
        exit_code=65,
        is_retryable=False,
        occurred_at=run.as_of,
    )
    storage.write_model(failure_uri(run.run_uri, stage), failure)


def lines_of(tmp_path: Path) -> tuple[CycleLine, ...]:
    return read_cycles(storage.to_uri(tmp_path / "workspace"), SETTINGS).cycles


def test_a_cycle_that_was_never_resolved_says_when_it_broke(tmp_path: Path) -> None:
    run = make_run(tmp_path, run_id="2019-01-01--00000000")
    fail(run, "resolve_run", "DataContractError")
    fail(begun(tmp_path, 0), "train_challenger", "TransientStorageError")
    never, began = lines_of(tmp_path)
    assert (never.as_of, never.began_at, never.broke_at) == (None, None, run.as_of)
    assert began.began_at is not None and began.broke_at is None


def test_every_kind_of_cycle_is_told_the_newest_first(tmp_path: Path) -> None:
    judge(begun(tmp_path, 0), Decision.PROMOTE, is_promoted=True)
    fail(begun(tmp_path, 1), "check_snapshot", "DataGateFailedError")
    fail(begun(tmp_path, 2), "train_challenger", "TransientStorageError")
    begun(tmp_path, 3)
    damaged = begun(tmp_path, 4)
    storage.write_bytes(manifest_uri(damaged.run_uri, "resolve_run"), b"{")
    not_ended, broken, gate, promoted = lines_of(tmp_path)[1:]
    assert lines_of(tmp_path)[0].state == "not readable"
    assert (not_ended.state, not_ended.happened) == (
        "not ended",
        "build_snapshot has not ended.",
    )
    assert (broken.state, broken.happened) == ("broken", "train_challenger broke: rows are missing")
    assert (gate.state, gate.happened) == ("data gate failed", "rows are missing")
    assert (promoted.state, promoted.decision) == ("judged", "PROMOTE")
    assert promoted.promoted == "test_ranker v4"
    assert promoted.change is not None and promoted.change.low == -0.2
    # Relative, so that the index leads to it wherever the workspace is copied to.
    page = f"runs/{promoted.run_id}/compare_with_champion/output-1/verdict.html"
    assert dict(promoted.links)["Verdict page"] == page
    assert "Airflow run" in dict(gate.links)


def test_a_folder_in_place_of_a_manifest_hides_no_other_cycle(tmp_path: Path) -> None:
    begun(tmp_path, 0)
    damaged = begun(tmp_path, 1)
    storage.local_path(manifest_uri(damaged.run_uri, "build_snapshot")).mkdir(parents=True)
    newest, other = lines_of(tmp_path)
    assert (newest.run_id, newest.state) == (damaged.run_id, "not readable")
    assert "build_snapshot/manifest.json" in newest.happened
    assert other.state == "not ended"


def test_a_void_comparison_is_named_as_such(tmp_path: Path) -> None:
    run = begun(tmp_path, 0)
    judge(run, Decision.INCONCLUSIVE)  # its baseline's holdout is not known
    [line] = lines_of(tmp_path)
    assert line.is_void

    judgement = make_judgement(Decision.INCONCLUSIVE)
    gate = run.config.model_gate.model_copy(
        update={
            "floors": (Limit(metric="auc.repin", minimum=0.5),),
            "min_users": 1,
        }
    )
    facts = judgement.comparison.model_copy(
        update={
            "baseline_holdout_digest": judgement.comparison.holdout_digest,
            "are_scores_identical": False,
            "challenger_model": CHALLENGER.model_copy(update={"bundle_digest": "e" * 64}),
            "target_metric": gate.target_metric,
        }
    )
    sound = run.model_copy(update={"config": run.config.model_copy(update={"model_gate": gate})})
    save_run(sound)
    save_artifact(
        sound, "compare_with_champion", judgement.model_copy(update={"comparison": facts})
    )
    assert not lines_of(tmp_path)[0].is_void


def test_a_cycle_that_broke_after_its_verdict_tells_both(tmp_path: Path) -> None:
    run = begun(tmp_path, 0)
    judge(run, Decision.REJECT)
    fail(run, "alert", "AlertDeliveryError")
    [line] = lines_of(tmp_path)
    assert (line.state, line.decision) == ("broken", "REJECT")
    assert line.happened.endswith("Then alert broke: rows are missing")


def test_costs_come_from_the_manifests(tmp_path: Path) -> None:
    run = begun(tmp_path, 0)
    uri = manifest_uri(run.run_uri, "resolve_run")
    used = StageUsage(cpu_s=2.0, peak_memory_bytes=9)
    record = read_record(run.run_uri, "resolve_run")
    assert record.usage is None  # of older records it is not known
    storage.write_model(uri, record.model_copy(update={"usage": used, "wall_s": 3.0}))
    assert read_record(run.run_uri, "resolve_run").usage == used  # the seal does not cover it
    [line] = lines_of(tmp_path)
    (cost,) = line.costs.stages
    assert (cost.stage, cost.wall_s, cost.usage) == ("resolve_run", 3.0, used)


def test_champions_follow_each_other(tmp_path: Path) -> None:
    workspace_uri = storage.to_uri(tmp_path / "workspace")
    for days, model in enumerate((CHAMPION, CHALLENGER)):
        moved_at = PLANTED_AS_OF + timedelta(days=days)
        entry = HistoryEntry(
            moved_at=moved_at,
            kind="promotion",
            model=model,
            previous=None,
            run_uri=None,
            reason="It\nwon.",
        )
        settle(begin(workspace_uri, load(workspace_uri, "test_ranker"), entry), True, moved_at)
    newest, first = read_cycles(workspace_uri, SETTINGS).champions
    assert (first.model, first.until) == ("test_ranker v3", newest.since)
    assert (newest.model, newest.until, newest.reason) == ("test_ranker v4", None, "It won.")


@pytest.mark.parametrize("has_folder", [True, False])
def test_an_empty_workspace_is_no_error(tmp_path: Path, has_folder: bool) -> None:
    if has_folder:
        (tmp_path / "workspace").mkdir()
    found = read_cycles(storage.to_uri(tmp_path / "workspace"), SETTINGS)
    assert (found.cycles, found.champions, found.num_cycles) == ((), (), 0)
