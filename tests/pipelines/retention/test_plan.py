"""What may go is told from what is found and on record, and everything kept has its reason."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines.contracts.artifacts import ModelRef
from pipelines.registry.history import History, Move
from pipelines.registry.reconcile import State
from pipelines.retention.plan import FoundRun, FoundVersion, Held, Holdings, Record, make_plan
from pipelines.settings import Settings
from support.judgements import make_model

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = Settings(
    registered_model="test_ranker",
    keep_days=100,
    rollback_models=1,
)
OLD = 101


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def held(name: str, days: float = OLD) -> Held:
    return Held(name, f"file:///w/{name}", 10, ago(days))


def run_of(name: str, days: float = OLD, **fields: Any) -> FoundRun:
    model = fields.pop("registered_model", "test_ranker")
    uri = f"file:///w/runs/{name}"
    return FoundRun(name, uri, 10, ago(days), registered_model=model, **fields)


def version_of(number: str, days: float = OLD, **fields: Any) -> FoundVersion:
    run_name = fields.pop("run_name", "")
    return FoundVersion(number, "models:/x", 10, ago(days), f"m-{number}", run_name, **fields)


def model_of(version: str) -> ModelRef:
    return make_model(version, ago(900)).model_copy(update={"snapshot_digest": version * 64})


def moved(version: str, days: float, run: str | None = None) -> Move:
    return Move(
        moved_at=ago(days),
        kind="promotion",
        model=model_of(version),
        previous=None,
        run_uri=f"file:///elsewhere/runs/{run}" if run else None,
        reason="it was better",
    )


def record_of(*entries: Move, pending: Move | None = None, **fields: Any) -> Record:
    events = [*entries, pending] if pending else entries
    placed = tuple(e.model_copy(update={"number": n}) for n, e in enumerate(events, start=1))
    followed = frozenset(range(1, len(entries) + 1))
    known = History("file:///w", "test_ranker", placed, followed=followed)
    served = entries[-1].model if entries else None
    state = State(known, served, "")
    record = Record(state, frozenset(), {}, ())
    return replace(record, **fields)


def verdicts(found: Holdings, record: Record) -> dict[str, str]:
    return {
        f"{item.kind} {item.held.name}": item.kept
        for item in make_plan(found, record, SETTINGS, NOW)
    }


def test_what_is_old_and_needed_by_nobody_goes_and_what_is_younger_is_not_mentioned() -> None:
    found = Holdings(
        runs=(run_of("a"), run_of("b", 99.9)),
        snapshots=(held("1" * 16), held("2" * 16, 99.9)),
        alerts=(held("told"), held("told late", 99.9)),
        leftovers=(held(".scratch-1", 0),),
        versions=(version_of("1"), version_of("2", 99.9)),
    )
    assert verdicts(found, record_of()) == {
        "leftover .scratch-1": "",
        "model 1": "",
        "run a": "",
        f"snapshot {'1' * 16}": "",
        "alert told": "",
    }


def test_exactly_at_the_age_it_goes() -> None:
    assert verdicts(Holdings(alerts=(held("told", 100),)), record_of()) == {"alert told": ""}


def test_the_champion_and_its_predecessors_within_the_horizon_keep_their_runs() -> None:
    entries = [moved(n, days) for n, days in (("1", 400), ("2", 300), ("3", 49), ("4", 20))]
    runs = tuple(run_of(f"r{n}", versions=frozenset({n})) for n in "1234")
    found = verdicts(Holdings(runs=runs), record_of(*entries))
    assert found["run r4"].endswith("test_ranker v4 serves")
    assert found["run r3"].endswith("test_ranker v3 is predecessor 1 of the champion")
    # It served until 49 days ago, when the third took its place.
    assert found["run r2"].endswith("test_ranker v2 served until 2026-01-11")
    assert found["run r1"] == ""


def test_after_a_rollback_the_model_taken_down_is_a_predecessor() -> None:
    entries = [moved("1", 400), moved("2", 300), moved("1", 200)]
    runs = tuple(run_of(f"r{n}", versions=frozenset({n})) for n in "12")
    found = verdicts(Holdings(runs=runs), record_of(*entries))
    assert found["run r1"].endswith("v1 serves")
    assert found["run r2"].endswith("v2 is predecessor 1 of the champion")


def test_a_needed_model_s_run_is_found_by_history_and_registry_too() -> None:
    runs = (run_of("by-history"), run_of("by-tag"), run_of("neither"))
    versions = (version_of("1", 1, run_name="by-tag"),)
    found = verdicts(Holdings(runs=runs, versions=versions), record_of(moved("1", 9, "by-history")))
    assert found["run by-history"] and found["run by-tag"]
    assert found["run neither"] == ""


def test_a_pending_intent_keeps_both_models_and_the_cycle() -> None:
    record = record_of(moved("1", 400), pending=moved("2", 1, "asks"))
    found = verdicts(Holdings(runs=(run_of("asks"), run_of("other"))), record)
    assert "is decided, and the alias is to follow" in found["run asks"]
    assert found["run other"] == ""


KEPT_RUNS = [
    (run_of("a", at_work=("train_challenger",)), {}, "train_challenger is at work"),
    (run_of("a", problem="it cannot be read"), {}, "it cannot be read"),
    (run_of("a", foreign=("NOTES.md",)), {}, "holds NOTES.md, which no stage has made"),
    (run_of("a", registered_model="other"), {}, "a cycle of other, whose record was not looked at"),
    (run_of("a"), {"judged_runs": frozenset({"a"})}, "its evidence counts"),
    (run_of("a"), {"profile_uris": ("s3://b/runs/a/x/profile.json",)}, "holds the profile"),
]


@pytest.mark.parametrize("run, on_record, why", KEPT_RUNS)
def test_what_keeps_a_run_keeps_its_snapshot_model_and_checkpoints(
    run: FoundRun, on_record: dict[str, Any], why: str
) -> None:
    run = replace(
        run,
        trainings=(held("a/train_challenger"),),
        snapshots=frozenset({"1" * 16}),
        versions=frozenset({"7"}),
    )
    found = Holdings(runs=(run,), snapshots=(held("1" * 16),), versions=(version_of("7"),))
    told = verdicts(found, record_of(**on_record))
    assert why in told["run a"] and why in told["checkpoints a/train_challenger"]
    assert told[f"snapshot {'1' * 16}"] == "run a names it"
    if run.registered_model == "test_ranker":
        assert told["model 7"] == "run a, which trained it, is kept"


def test_a_young_run_keeps_its_snapshot_and_loses_old_checkpoints() -> None:
    training = held("a/train_challenger", 31)
    run = run_of("a", 50, snapshots=frozenset({"1" * 16}), trainings=(training,))
    found = verdicts(Holdings(runs=(run,), snapshots=(held("1" * 16),)), record_of())
    assert found == {"checkpoints a/train_challenger": "", f"snapshot {'1' * 16}": "run a names it"}


def test_checkpoints_go_with_their_run_and_are_not_told_twice() -> None:
    run = run_of("a", trainings=(held("a/train_challenger"),))
    assert verdicts(Holdings(runs=(run,)), record_of()) == {"run a": ""}


@pytest.mark.parametrize(
    "run, why",
    [
        (run_of("b", 1, at_work=("build_snapshot",)), "build_snapshot of run b is at work and may"),
        (run_of("b", 1, problem="it is damaged"), "run b may need it; it is damaged"),
    ],
)
def test_while_it_is_not_known_what_a_run_needs_no_snapshot_goes(run: FoundRun, why: str) -> None:
    found = verdicts(Holdings(runs=(run,), snapshots=(held("1" * 16),)), record_of())
    assert why in found[f"snapshot {'1' * 16}"]


def test_the_reference_and_the_champion_s_snapshot_stay_without_any_run() -> None:
    found = Holdings(snapshots=tuple(held(n * 16) for n in "123"))
    record = record_of(moved("1", 400), references={"2" * 16: "smoke"})
    told = verdicts(found, record)
    assert "test_ranker v1 serves" in told[f"snapshot {'1' * 16}"]
    assert told[f"snapshot {'2' * 16}"] == "it is the newest accepted snapshot of recipe smoke"
    assert told[f"snapshot {'3' * 16}"] == ""


def test_a_model_that_served_or_has_a_name_is_never_deleted() -> None:
    versions = (
        version_of("1"),
        version_of("2", aliases=("challenger",)),
        version_of("3", other_names=("theirs v9",)),
        version_of("4"),
        version_of("9"),
        replace(version_of("5"), model_id=""),
    )
    record = record_of(moved("1", 900), moved("8", 800), moved("9", 700))
    told = verdicts(Holdings(versions=versions), record)
    assert told["model 1"] == "it has been champion, and what served stays"
    assert told["model 2"] == "it has the alias challenger"
    assert told["model 3"] == "it is registered as theirs v9 too"
    assert told["model 9"] == "test_ranker v9 serves"
    assert told["model 4"] == ""
    # Nothing of it can be deleted.
    assert "model 5" not in told


def twins_of(days: float, **fields: Any) -> Holdings:
    """v1 and v3, which are one logged model, and v2, which is another."""
    first, third = version_of("1", twins=("3",)), version_of("3", days, twins=("1",), **fields)
    return Holdings(versions=(first, version_of("2"), replace(third, model_id="m-1")))


def test_versions_that_are_one_logged_model_go_once() -> None:
    plan = make_plan(twins_of(OLD), record_of(), SETTINGS, NOW)
    assert [(item.label, item.kept) for item in plan] == [("1, 3", ""), ("2", "")]


@pytest.mark.parametrize(
    "found, serving, why",
    [
        (twins_of(OLD), "1", "test_ranker v1 serves"),
        (twins_of(OLD), "3", "v3 is the same files: test_ranker v3 serves"),
        (twins_of(99.9), "9", "v3 is the same files, and younger"),
        (twins_of(OLD, aliases=("mine",)), "9", "v3 is the same files: it has the alias mine"),
        (twins_of(OLD, run_name="a"), "9", "v3 is the same files: run a, which trained it, is"),
        (twins_of(OLD, other_names=("theirs v9",)), "9", "v3 is the same files: it is registered"),
    ],
)
def test_a_logged_model_stays_for_all_of_its_versions_where_it_stays_for_one(
    found: Holdings, serving: str, why: str
) -> None:
    found = replace(found, runs=(run_of("a", 1),))
    told = verdicts(found, record_of(moved(serving, 400)))
    assert told.keys() == {"model 1", "model 2"}
    assert told["model 1"].startswith(why) and told["model 2"] == ""
