"""Every kind of cycle is read, the newest first, with its costs, and a damaged one hides none."""

from datetime import timedelta
from pathlib import Path

from pipelines import storage
from pipelines.contracts.config import Limit
from pipelines.contracts.cycle import CycleFacts
from pipelines.contracts.judgement import Decision
from pipelines.contracts.run_layout import StageUsage, manifest_uri
from pipelines.cycles.reading import (
    find_cycle,
    lines_of,
    newest_cycles,
    record_of,
    run_names,
)
from pipelines.settings import Settings
from pipelines.stages.runner import read_record
from support.judgements import CHALLENGER, make_judgement
from support.kept_cycles import begin, fail, judge
from support.runs import PLANTED_AS_OF, make_run, save_artifact, save_run

SETTINGS = Settings(registered_model="test_ranker")
FOUND = make_judgement(Decision.REJECT).comparison


def cycles_of(tmp_path: Path, num: int = 9) -> tuple[CycleFacts, ...]:
    workspace_uri = storage.to_uri(tmp_path / "workspace")
    return newest_cycles(workspace_uri, run_names(workspace_uri), SETTINGS, num)


def test_every_kind_of_cycle_is_told_the_newest_first(tmp_path: Path) -> None:
    """A damaged record, an edited one, and a folder in the place of one hide no other cycle."""
    judge(begin(tmp_path, 0), Decision.PROMOTE, is_promoted=True)
    fail(begin(tmp_path, 1), "check_snapshot", "DataGateFailedError")
    fail(begin(tmp_path, 2), "train_challenger", "TransientStorageError")
    begin(tmp_path, 3)
    damaged, folder, edited = (begin(tmp_path, number) for number in (4, 5, 6))
    storage.write_bytes(manifest_uri(damaged.run_uri, "resolve_run"), b"{")
    storage.local_path(manifest_uri(folder.run_uri, "build_snapshot")).mkdir(parents=True)
    uri = manifest_uri(edited.run_uri, "resolve_run")
    storage.write_bytes(uri, storage.read_bytes(uri).replace(b'"trigger": "', b'"trigger": "no '))
    never = make_run(tmp_path, run_id="2019-01-01--00000000")
    fail(never, "resolve_run", "DataContractError")
    unresolved, *unreadable, not_ended, broken, gate, promoted = cycles_of(tmp_path)
    assert (unresolved.as_of, unresolved.began_at) == (None, None)
    assert unresolved.broke_at == never.as_of
    assert {each.state for each in unreadable} == {"not readable"}
    assert all(each.happened == each.problem for each in unreadable)
    said = ("was edited", "build_snapshot/", "resolve_run")
    assert all(part in each.problem for each, part in zip(unreadable, said, strict=True))
    assert (not_ended.state, not_ended.next_stage) == ("not ended", "build_snapshot")
    assert not_ended.happened == "build_snapshot has not ended."
    assert (broken.state, broken.happened) == ("broken", "train_challenger broke: rows are missing")
    assert broken.began_at is not None and broken.broke_at is None
    assert (gate.state, gate.happened) == ("data gate failed", "rows are missing")
    assert (promoted.state, promoted.promoted) == ("judged", "test_ranker v4")
    outcome = promoted.outcome
    assert outcome is not None and outcome.decision == "PROMOTE"
    assert promoted.happened == outcome.title
    assert outcome.change is not None and outcome.change.low == -0.2
    assert promoted.page_uri.endswith("output-1/verdict.html")
    assert gate.airflow_url.endswith("/dags/homefeed_retrain/runs/test")
    two = [cycle.run_id for cycle in cycles_of(tmp_path, 2)]
    assert two == [never.run_id, edited.run_id]


def test_of_one_day_the_cycle_that_began_last_comes_first_and_is_found_by_its_key(
    tmp_path: Path,
) -> None:
    for name, hours in (("b", 1), ("a", 0), ("c", 2)):
        as_of = PLANTED_AS_OF + timedelta(hours=hours)  # at which it ends
        begin(tmp_path, run_id=f"2017-03-02-{name}", as_of=as_of, trigger=f"key {name}")
    assert [cycle.run_id[-1] for cycle in cycles_of(tmp_path, 2)] == ["c", "b"]
    found = find_cycle(str(tmp_path / "workspace"), "key a", SETTINGS)
    assert found is not None and found.run_id == "2017-03-02-a"
    assert find_cycle(str(tmp_path / "workspace"), "another", SETTINGS) is None


def test_a_void_comparison_is_named_as_such(tmp_path: Path) -> None:
    run = begin(tmp_path)
    judgement = judge(run, Decision.INCONCLUSIVE)  # its baseline's holdout is not known
    [cycle] = cycles_of(tmp_path)
    assert cycle.is_void and cycle.word == "void"
    limits = {"floors": (Limit(metric="auc.repin", minimum=0.5),), "required_segments": ()}
    gate = run.config.model_gate.model_copy(update=limits | {"min_users": 2})
    config = run.config.model_copy(update={"model_gate": gate})
    facts = {
        "baseline_holdout_digest": judgement.comparison.holdout_digest,
        "are_scores_identical": False,
        "challenger_model": CHALLENGER.model_copy(update={"bundle_digest": "e" * 64}),
        "target_metric": gate.target_metric,
    }
    sound = save_run(run.model_copy(update={"config": config}))
    comparison = judgement.comparison.model_copy(update=facts)
    found = judgement.model_copy(update={"comparison": comparison})
    save_artifact(sound, "compare_with_champion", found)
    [cycle] = cycles_of(tmp_path)
    assert not cycle.is_void and cycle.word == "INCONCLUSIVE"


def test_a_cycle_that_was_not_allowed_to_promote_is_no_promotion(tmp_path: Path) -> None:
    judge(begin(tmp_path, may_promote=False), Decision.PROMOTE)
    [cycle] = cycles_of(tmp_path)
    assert cycle.promoted == ""
    kinds = {None: "PROMOTE", "": "not promoted", "ranker v2": "PROMOTE"}  # None: not ended
    told = {"is_void": False}
    found = {by: cycle.model_copy(update=told | {"promoted": by}).word for by in kinds}
    assert found == kinds


def test_costs_come_from_the_manifests(tmp_path: Path) -> None:
    run = begin(tmp_path)
    record = read_record(run.run_uri, "resolve_run")
    assert record.usage is None
    used = StageUsage(cpu_s=2.0, peak_memory_bytes=9)
    measured = record.model_copy(update={"usage": used, "wall_s": 3.0})  # the seal covers neither
    storage.write_model(manifest_uri(run.run_uri, "resolve_run"), measured)
    [cycle] = cycles_of(tmp_path)
    (cost,) = cycle.costs
    assert (cost.stage, cost.wall_s, cost.usage) == ("resolve_run", 3.0, used)


def test_the_lines_say_what_the_cycle_did_and_where_it_broke(tmp_path: Path) -> None:
    judge(begin(tmp_path, 0), Decision.REJECT)
    fail(begin(tmp_path, 1), "check_snapshot", "DataGateFailedError")
    run = begin(tmp_path, 2)
    judge(run, Decision.REJECT)
    fail(run, "alert", "AlertDeliveryError")
    late, broken, judged = cycles_of(tmp_path)
    assert late.state == late.word == "broken" and late.outcome is not None
    assert late.outcome.decision == "REJECT", "it broke after its verdict, and tells both"
    assert late.happened.endswith("Then alert broke: rows are missing")
    assert list(lines_of(broken)) == [
        "2017-03-16  data gate failed: rows are missing",
        "  DataGateFailedError, 2017-03-16 00:00 UTC",
        f"  run folder: {broken.run_uri}",
    ]
    outcome = judged.outcome
    assert outcome is not None
    ending = ["  this cycle promoted nothing", f"  run folder: {judged.run_uri}"]
    page = f"  Verdict page: {judged.page_uri}"
    short = [f"  {outcome.why}", page, *ending]
    assert list(lines_of(judged)) == [f"2017-03-02  void: {outcome.title}", *short]


def test_a_verdict_s_page_tells_when_its_cycle_ran_as_far_as_that_can_be_read(
    tmp_path: Path,
) -> None:
    run = save_run(make_run(tmp_path))
    record = record_of(run, FOUND)
    assert (record.began_at, record.trained_at) == (run.as_of, run.as_of)
    assert record.is_void  # of hand-made facts nobody knows the baseline's holdout
    storage.write_bytes(manifest_uri(run.run_uri, "resolve_run"), b"{")
    record = record_of(run, FOUND)
    assert (record.began_at, record.trained_at) == (None, None)
