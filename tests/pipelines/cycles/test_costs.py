"""What a verdict page says of its cycle's costs and of those before it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Decision, Promoted
from pipelines.contracts.run_layout import manifest_uri
from pipelines.contracts.time import Window
from pipelines.cycles.costs import NUM_EARLIER, record_of
from pipelines.registry.evidence import JudgedCycle
from support.judgements import make_judgement
from support.runs import make_run, save_artifact, save_run

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FOUND = make_judgement(Decision.REJECT).comparison


def judged_before(run: ResolvedRun, fortnights: int, recipe: str = "") -> JudgedCycle:
    """Return an earlier cycle, and write two of its manifests."""
    as_of = run.as_of - timedelta(days=14 * fortnights)
    run_id = f"{as_of:%Y-%m-%d}--before"
    run_uri = storage.join(run.workspace_uri, "runs", run_id)
    earlier = run.model_copy(update={"as_of": as_of, "run_id": run_id, "run_uri": run_uri})
    save_artifact(earlier, "resolve_run", earlier)
    save_artifact(earlier, "build_snapshot", earlier)
    return JudgedCycle(
        run_id=run_id,
        run_uri=run_uri,
        registered_model=run.registered_model,
        as_of=as_of,
        holdout=Window(start=as_of - timedelta(days=7), end=as_of),
        judged_at=NOW,
        first_judged_at=NOW,
        challenger_recipe=recipe or run.config.recipe_digest,
        decision=Decision.INCONCLUSIVE,
        promoted=Promoted.NONE,
        may_promote=True,
    )


def test_the_last_cycles_of_the_same_recipe_are_compared_with(tmp_path: Path) -> None:
    run = save_run(make_run(tmp_path))
    cycles = [judged_before(run, number) for number in range(1, NUM_EARLIER + 3)]
    cycles.append(judged_before(run, 20, recipe="another"))
    cycles.append(cycles[0].model_copy(update={"judged_at": NOW + timedelta(days=1)}))  # again
    record = record_of(run, cycles, FOUND)
    assert (record.began_at, record.trained_at) == (run.as_of, run.as_of)
    assert record.is_void  # of hand-made facts nobody knows the baseline's holdout
    assert [each.stage for each in record.costs.stages] == ["resolve_run"]
    newest = [f"{run.as_of - timedelta(days=14 * n):%Y-%m-%d}--before" for n in range(1, 6)]
    assert [each.run_id for each in record.earlier] == newest
    assert [len(each.stages) for each in record.earlier] == [2] * NUM_EARLIER


def test_a_cycle_whose_manifests_are_gone_or_damaged_is_left_out(tmp_path: Path) -> None:
    run = save_run(make_run(tmp_path))
    gone, damaged, sound = (judged_before(run, number) for number in (1, 2, 3))
    for stage in ("resolve_run", "build_snapshot"):
        deletion.remove(manifest_uri(gone.run_uri, stage))
    storage.write_bytes(manifest_uri(damaged.run_uri, "resolve_run"), b"{")
    record = record_of(run, [gone, damaged, sound], FOUND)
    assert [each.run_id for each in record.earlier] == [sound.run_id]


def test_a_run_without_readable_manifests_still_has_a_record(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    storage.write_bytes(manifest_uri(run.run_uri, "resolve_run"), b"{")
    record = record_of(run, [], FOUND)
    assert (record.began_at, record.costs.stages, record.earlier) == (None, (), ())
