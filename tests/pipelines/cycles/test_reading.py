"""Every kind of cycle is read, the newest first, and a damaged one hides none."""

from datetime import timedelta
from pathlib import Path

from pipelines import storage
from pipelines.alerts.outcomes import kept_outcome
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.config import Limit
from pipelines.contracts.judged.cycle import CycleFacts
from pipelines.contracts.judgement import Decision, Promotion
from pipelines.contracts.run_layout import (
    StageFailure,
    StageUsage,
    failure_uri,
    lost_race_uri,
    manifest_uri,
)
from pipelines.cycles.reading import find_cycle, newest_cycles, run_names
from pipelines.cycles.text import lines_of
from pipelines.settings import Settings
from pipelines.stages.runner import read_record
from support.judgements import CHALLENGER, CHAMPION, make_judgement
from support.runs import PLANTED_AS_OF, make_run, save_artifact, save_run

SETTINGS = Settings(registered_model="test_ranker")


def begun(tmp_path: Path, fortnight: int, **values: object) -> ResolvedRun:
    as_of = PLANTED_AS_OF + timedelta(days=14 * fortnight)
    run_id = f"{as_of:%Y-%m-%d}--ab12cd34"
    return save_run(
        make_run(tmp_path, **{"as_of": as_of, "run_id": run_id, "champion": CHAMPION} | values)
    )


def promote(run: ResolvedRun, decision: Decision, is_promoted: bool = False) -> None:
    promotion = Promotion(
        decision=decision,
        is_promoted=is_promoted,
        champion_before=CHAMPION,
        champion_after=CHALLENGER if is_promoted else CHAMPION,
        reason="It is so.",
        history_uri=None,
    )
    save_artifact(run, "promote_challenger", promotion)


def judge(run: ResolvedRun, decision: Decision, is_promoted: bool = False) -> None:
    page = storage.join(run.run_uri, "compare_with_champion", "output-1", "verdict.html")
    judgement = make_judgement(decision, low=-0.2, high=0.1)
    judgement = judgement.model_copy(update={"report_uri": page})
    kept = kept_outcome(run, judgement, SETTINGS)
    save_artifact(run, "compare_with_champion", judgement.model_copy(update={"outcome": kept}))
    promote(run, decision, is_promoted)


def failure_of(run: ResolvedRun, stage: str, error_class: str) -> StageFailure:
    return StageFailure(
        stage=stage,
        error_class=error_class,
        message="rows\nare missing",
        exit_code=65,
        is_retryable=False,
        occurred_at=run.as_of,
    )


def fail(run: ResolvedRun, stage: str, error_class: str) -> None:
    storage.write_model(failure_uri(run.run_uri, stage), failure_of(run, stage, error_class))


def cycles_of(tmp_path: Path, num: int = 9) -> tuple[CycleFacts, ...]:
    workspace_uri = storage.to_uri(tmp_path / "workspace")
    return newest_cycles(workspace_uri, run_names(workspace_uri), SETTINGS, num)


def test_a_cycle_that_was_never_resolved_says_when_it_broke(tmp_path: Path) -> None:
    run = make_run(tmp_path, run_id="2019-01-01--00000000")
    fail(run, "resolve_run", "DataContractError")
    fail(begun(tmp_path, 0), "train_challenger", "TransientStorageError")
    never, began = cycles_of(tmp_path)
    assert (never.as_of, never.began_at, never.broke_at) == (None, None, run.as_of)
    assert began.began_at is not None and began.broke_at is None


def test_every_kind_of_cycle_is_told_the_newest_first(tmp_path: Path) -> None:
    judge(begun(tmp_path, 0), Decision.PROMOTE, is_promoted=True)
    fail(begun(tmp_path, 1), "check_snapshot", "DataGateFailedError")
    fail(begun(tmp_path, 2), "train_challenger", "TransientStorageError")
    begun(tmp_path, 3)
    damaged = begun(tmp_path, 4)
    storage.write_bytes(manifest_uri(damaged.run_uri, "resolve_run"), b"{")
    unreadable, not_ended, broken, gate, promoted = cycles_of(tmp_path)
    assert (unreadable.state, unreadable.run_id) == ("not readable", damaged.run_id)
    assert unreadable.happened == unreadable.problem != ""
    assert (not_ended.state, not_ended.next_stage) == ("not ended", "build_snapshot")
    assert not_ended.happened == "build_snapshot has not ended."
    assert (broken.state, broken.happened) == ("broken", "train_challenger broke: rows are missing")
    assert (gate.state, gate.happened) == ("data gate failed", "rows are missing")
    assert (promoted.state, promoted.promoted) == ("judged", "test_ranker v4")
    outcome = promoted.outcome
    assert outcome is not None and outcome.decision == "PROMOTE"
    assert promoted.happened == outcome.title
    assert outcome.change is not None and outcome.change.low == -0.2
    assert promoted.page_uri.endswith("output-1/verdict.html")
    assert gate.airflow_url.endswith("/dags/homefeed_retrain/runs/test")
    assert [cycle.run_id for cycle in cycles_of(tmp_path, 2)] == [damaged.run_id, not_ended.run_id]


def test_of_one_day_the_cycle_that_began_last_comes_first(tmp_path: Path) -> None:
    for name, hours in (("b", 1), ("a", 0), ("c", 2)):
        as_of = PLANTED_AS_OF + timedelta(hours=hours)
        begun(tmp_path, 0, run_id=f"2017-03-02-{name}", as_of=as_of)  # which ends at its as_of
    assert [cycle.run_id[-1] for cycle in cycles_of(tmp_path, 2)] == ["c", "b"]


def test_a_cycle_is_found_by_what_began_it(tmp_path: Path) -> None:
    run = begun(tmp_path, 0, trigger="a key")
    found = find_cycle(str(tmp_path / "workspace"), "a key", SETTINGS)
    assert found is not None and found.run_id == run.run_id
    assert find_cycle(str(tmp_path / "workspace"), "another", SETTINGS) is None


def test_a_folder_in_place_of_a_manifest_hides_no_other_cycle(tmp_path: Path) -> None:
    begun(tmp_path, 0)
    damaged = begun(tmp_path, 1)
    storage.local_path(manifest_uri(damaged.run_uri, "build_snapshot")).mkdir(parents=True)
    newest, other = cycles_of(tmp_path)
    assert (newest.run_id, newest.state) == (damaged.run_id, "not readable")
    assert "build_snapshot/manifest.json" in newest.happened
    assert other.state == "not ended"


def test_an_edited_manifest_is_not_believed(tmp_path: Path) -> None:
    run = begun(tmp_path, 0)
    record = read_record(run.run_uri, "resolve_run").sealed()
    edited = record.model_copy(update={"artifact": record.artifact | {"trigger": "another"}})
    storage.write_model(manifest_uri(run.run_uri, "resolve_run"), edited)
    [cycle] = cycles_of(tmp_path)
    assert cycle.state == "not readable" and "was edited" in cycle.problem


def test_a_void_comparison_is_named_as_such(tmp_path: Path) -> None:
    run = begun(tmp_path, 0)
    judge(run, Decision.INCONCLUSIVE)  # its baseline's holdout is not known
    [cycle] = cycles_of(tmp_path)
    assert cycle.is_void and cycle.word == "void"

    judgement = make_judgement(Decision.INCONCLUSIVE)
    floors = (Limit(metric="auc.repin", minimum=0.5),)
    gate = run.config.model_gate.model_copy(
        update={"floors": floors, "min_users": 2, "required_segments": ()}
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
    [cycle] = cycles_of(tmp_path)
    assert not cycle.is_void and cycle.word == "INCONCLUSIVE"


def test_a_cycle_that_broke_after_its_verdict_tells_both(tmp_path: Path) -> None:
    run = begun(tmp_path, 0)
    judge(run, Decision.REJECT)
    fail(run, "alert", "AlertDeliveryError")
    [cycle] = cycles_of(tmp_path)
    assert cycle.state == cycle.word == "broken"
    assert cycle.outcome is not None and cycle.outcome.decision == "REJECT"
    assert cycle.happened.endswith("Then alert broke: rows are missing")


def test_an_attempt_that_met_another_one_breaks_nothing(tmp_path: Path) -> None:
    run = begun(tmp_path, 0)
    lost = failure_of(run, "build_snapshot", "LostRaceError")
    storage.write_model(lost_race_uri(run.run_uri, lost.stage), lost)
    [cycle] = cycles_of(tmp_path)
    assert cycle.state == "not ended" and cycle.failure is None


def test_costs_come_from_the_manifests(tmp_path: Path) -> None:
    run = begun(tmp_path, 0)
    record = read_record(run.run_uri, "resolve_run")
    assert record.usage is None
    used = StageUsage(cpu_s=2.0, peak_memory_bytes=9)
    measured = record.model_copy(update={"usage": used, "wall_s": 3.0})  # the seal covers neither
    storage.write_model(manifest_uri(run.run_uri, "resolve_run"), measured)
    [cycle] = cycles_of(tmp_path)
    (cost,) = cycle.costs.stages
    assert (cost.stage, cost.wall_s, cost.usage) == ("resolve_run", 3.0, used)
    assert (cycle.costs.stages_s, cycle.costs.elapsed_s, cycle.costs.overhead_share) == (3, 3, 0)


def test_the_lines_say_what_the_cycle_did_and_where_it_broke(tmp_path: Path) -> None:
    judge(begun(tmp_path, 0), Decision.REJECT)
    fail(begun(tmp_path, 1), "check_snapshot", "DataGateFailedError")
    broken, judged = cycles_of(tmp_path)
    assert list(lines_of(broken)) == [
        "2017-03-16  data gate failed: rows are missing",
        "  DataGateFailedError, 2017-03-16 00:00 UTC",
        f"  run folder: {broken.run_uri}",
    ]
    outcome = judged.outcome
    assert outcome is not None
    ending = ["  this cycle promoted nothing", f"  run folder: {judged.run_uri}"]
    page = f"  Verdict page: {judged.page_uri}"
    short = [f"  {outcome.number}", f"  {outcome.why}", page, *ending]
    assert list(lines_of(judged)) == [f"2017-03-02  void: {outcome.title}", *short]
    whole = [*(f"  {line}" for line in outcome.lines()), *ending]
    assert list(lines_of(judged, is_whole=True))[1:] == whole
