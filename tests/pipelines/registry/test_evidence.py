"""What judged cycles leave behind: what is pinned, what may be pooled, and what is refused."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import PinnedFile, ResolvedRun, Standing
from pipelines.contracts.errors import DataContractError, RunInProgressError
from pipelines.contracts.judgement import Decision, Promoted
from pipelines.contracts.time import Window
from pipelines.recipes import smoke
from pipelines.registry import evidence
from pipelines.registry.evidence import FoundChange, JudgedCycle, earlier_changes, tries_on
from support.judgements import CHAMPION
from support.runs import make_run

TARGET = "repin_volume_at_3"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
OURS = smoke().recipe_digest
ACCEPTED = smoke().model_copy(
    update={"training": smoke().training.model_copy(update={"num_epochs": 9})}
)


def make_cycle(run: ResolvedRun, **fields: Any) -> JudgedCycle:
    """Return what an earlier cycle of the same pair found, but for what is given."""
    as_of = fields.pop("as_of", run.as_of - timedelta(days=14))
    pairs = ("theta", "delta", "phi")
    values: dict[str, Any] = {
        "run_id": f"{as_of:%Y-%m-%d}--before",
        "run_uri": storage.join(run.workspace_uri, "runs", "before"),
        "registered_model": run.registered_model,
        "as_of": as_of,
        "holdout": Window(start=as_of - timedelta(days=7), end=as_of),
        "judged_at": NOW,
        "first_judged_at": NOW,
        "challenger_recipe": OURS,
        "anchor_recipe": ACCEPTED.recipe_digest,
        "champion_bundle": CHAMPION.bundle_digest,
        "decision": Decision.INCONCLUSIVE,
        "promoted": Promoted.NONE,
        "may_promote": True,
        "changes": tuple(
            FoundChange(pair=pair, metric=TARGET, segment="all", value=0.01) for pair in pairs
        ),
    }
    return JudgedCycle(**(values | fields))


def publish(run: ResolvedRun, cycle: JudgedCycle) -> str:
    columns = {change.column: np.array([0.001, -0.002]) for change in cycle.changes}
    return evidence.publish(run, cycle, np.array([4, 77]), columns)


def make_pooling_run(tmp_path: Path, **standing: Any) -> ResolvedRun:
    found = Standing(**({"anchor": ACCEPTED} | standing))
    return make_run(tmp_path, champion=CHAMPION, standing=found, code_digest="a" * 64)


def pinned(run: ResolvedRun) -> tuple[PinnedFile, ...]:
    return evidence.pin(run.workspace_uri, run.registered_model, run.run_id)


def pooled_pairs(run: ResolvedRun) -> list[str]:
    """Return the pairs of which an earlier cycle is pooled with this run."""
    cycles = evidence.read(pinned(run))
    return [pair for pair in ("theta", "delta", "phi") if earlier_changes(run, cycles, pair)]


def test_what_is_left_comes_back_as_it_was(tmp_path: Path) -> None:
    run = make_pooling_run(tmp_path)
    publish(run, make_cycle(run))
    [cycle] = evidence.read(pinned(run))
    groups, columns = evidence.read_influences(run, cycle)
    assert groups.tolist() == [4, 77]
    assert columns[f"phi|{TARGET}|all"].tolist() == [0.001, -0.002]
    [found] = earlier_changes(run, [cycle], "delta")[(TARGET, "all")]
    assert (found.value, found.holdout) == (0.01, cycle.holdout)


LATER = NOW + timedelta(days=1)
ALL = ["theta", "delta", "phi"]
OTHER = "f" * 64
ONE_RECIPE = {"anchor": smoke(), "anchor_code_digest": "b" * 64}


@pytest.mark.parametrize(
    ("standing", "fields", "expected"),
    [
        ({}, {}, ALL),
        ({"champion_since": LATER}, {}, ["delta"]),  # another champion came, the recipes stay
        ({"champion_since": LATER, "rolled_back_at": LATER}, {}, []),  # a rollback empties all
        ({}, {"champion_bundle": "e" * 64}, ["delta"]),
        ({}, {"challenger_recipe": OTHER}, ["phi"]),
        ({}, {"anchor_recipe": OTHER}, ["theta"]),
        ({}, {"as_of": datetime(2018, 1, 1, tzinfo=UTC)}, []),  # newer than the run
        ({}, {"changes": ()}, []),  # its comparisons were void
        # Of one recipe only the same two codes are pooled.
        (ONE_RECIPE, {"anchor_recipe": OURS, "codes": ("a" * 64, "b" * 64)}, ALL),
        (ONE_RECIPE, {"anchor_recipe": OURS, "codes": ("b" * 64, "a" * 64)}, ["theta", "phi"]),
        (ONE_RECIPE, {"anchor_recipe": OURS, "codes": ("", "")}, ["theta", "phi"]),
    ],
)
def test_only_the_same_pair_is_pooled(
    tmp_path: Path, standing: dict[str, Any], fields: dict[str, Any], expected: list[str]
) -> None:
    run = make_pooling_run(tmp_path, **standing)
    publish(run, make_cycle(run, **fields))
    assert pooled_pairs(run) == expected
    # Evidence is found where the workspace is now.
    (tmp_path / "workspace").rename(tmp_path / "moved")
    moved = run.model_copy(update={"workspace_uri": storage.to_uri(tmp_path / "moved")})
    assert pooled_pairs(moved) == expected


def test_five_triggers_on_one_day_are_named_and_a_run_is_not_its_own_past(tmp_path: Path) -> None:
    run = make_pooling_run(tmp_path)
    for number in range(5):
        publish(run, make_cycle(run, as_of=run.as_of, run_id=f"try-{number}"))
    publish(run, make_cycle(run, as_of=run.as_of, run_id=run.run_id))
    publish(run, make_cycle(run))
    cycles = evidence.read(pinned(run))
    holdout = Window(start=run.as_of - timedelta(days=7), end=run.as_of)
    assert tries_on(holdout, cycles) == tuple(f"try-{number}" for number in range(5))
    before = run.as_of - timedelta(days=14)
    assert evidence.unpromoted_days(cycles, None) == (before, run.as_of)
    assert evidence.unpromoted_days(cycles, LATER) == ()


@pytest.mark.parametrize("what", ["record", "influences", "altered"])
def test_evidence_that_is_gone_or_altered_when_it_is_needed_is_named(
    tmp_path: Path, what: str
) -> None:
    run = make_pooling_run(tmp_path)
    record = storage.local_path(publish(run, make_cycle(run)))
    pins = pinned(run)
    cycles = evidence.read(pins)
    path = next(record.parent.glob("*.parquet")) if what == "influences" else record
    if what == "altered":
        path.write_text(path.read_text().replace("0.01", "0.09"))
    else:
        path.unlink()
    message = "holds other bytes" if what == "altered" else rf"{path.name}, is gone.*start a new"
    with pytest.raises(DataContractError, match=message):
        earlier_changes(run, cycles, "theta") if what == "influences" else evidence.read(pins)


def test_new_runs_go_on_without_evidence_that_was_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_pooling_run(tmp_path)
    uri = publish(run, make_cycle(run))
    publish(run, make_cycle(run, as_of=run.as_of - timedelta(days=28), changes=()))
    next(storage.local_path(uri).parent.glob("*.parquet")).unlink()
    (storage.local_path(uri).parent / "2017-01-01--x.json").write_text('{"of": "another version"}')
    assert len(pinned(run)) == 1
    assert "its evidence is not pooled" in caplog.text


def test_a_cycle_that_is_judged_again_rewrites_nothing_and_keeps_its_time(tmp_path: Path) -> None:
    run = make_pooling_run(tmp_path)
    first = publish(run, make_cycle(run))
    pins = pinned(run)
    again = {"judged_at": LATER, "first_judged_at": LATER}
    assert publish(run, make_cycle(run, **again)) == first
    other = publish(run, make_cycle(run, **again, decision=Decision.REJECT))
    assert other != first
    assert [cycle.decision for cycle in evidence.read(pins)] == [Decision.INCONCLUSIVE]
    [cycle] = evidence.read(pinned(run))
    assert (cycle.decision, cycle.first_judged_at) == (Decision.REJECT, NOW)


def test_a_record_that_another_process_wrote_meanwhile_stays(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an object store: two attempts judge at the same time."""
    run = make_run(tmp_path, workspace_uri=s3_uri, champion=CHAMPION)
    theirs = make_cycle(run)
    look = storage.exists

    def look_before_them(uri: str) -> bool:
        was_there = look(uri)
        if uri.endswith(".json") and not was_there:
            storage.write_model(uri, theirs)
        return was_there

    with monkeypatch.context() as patched:
        patched.setattr(storage, "exists", look_before_them)
        with pytest.raises(RunInProgressError, match="was written by another process"):
            publish(run, make_cycle(run, judged_at=LATER, first_judged_at=LATER))
    [pinned_file] = pinned(run)
    assert storage.read_model(pinned_file.uri, JudgedCycle) == theirs
    assert publish(run, make_cycle(run, judged_at=LATER)) == pinned_file.uri
