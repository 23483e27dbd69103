"""What may go is told from what is found and on record, and everything kept has its reason."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines.contracts.artifacts import ModelRef
from pipelines.registry.history import History, Move
from pipelines.registry.reconcile import State
from pipelines.retention.plan import FoundRun, FoundVersion, Held, Kind, Record, make_plan
from pipelines.settings import Settings
from support.judgements import make_model

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = Settings(registered_model="test_ranker", keep_days=100, rollback_models=1)
OLD = 101
ONES = "1" * 16


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def held(kind: Kind, name: str, days: float = OLD) -> Held:
    return Held(kind, name, f"file:///w/{name}", 10, ago(days))


def run_of(name: str, days: float = OLD, **fields: Any) -> FoundRun:
    fields = {"registered_model": "test_ranker", **fields}
    return FoundRun("run", name, f"file:///w/runs/{name}", 10, ago(days), **fields)


def version_of(number: str, days: float = OLD, **fields: Any) -> FoundVersion:
    fields = {"model_id": f"m-{number}", **fields}
    return FoundVersion("model", number, "models:/x", 10, ago(days), **fields)


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
    return replace(Record(State(known, served, None), frozenset(), {}), **fields)


def verdicts(record: Record, *found: Held) -> dict[str, str]:
    plan = make_plan(found, record, SETTINGS, NOW)
    return {f"{item.held.kind} {item.held.name}": item.kept for item in plan}


def test_what_is_old_and_needed_by_nobody_goes_and_what_is_younger_is_not_mentioned() -> None:
    found = verdicts(
        record_of(),
        *(held("alert", "told", 100), held("alert", "told late", 99.9)),
        *(held("snapshot", ONES), held("snapshot", "2" * 16, 99.9)),
        *(run_of("a", trainings=(held("checkpoints", "a/x"),)), run_of("b", 99.9)),
        *(version_of("1"), version_of("2", 99.9), version_of("5", model_id="")),
    )
    # Checkpoints go with their run; of the last version nothing can be deleted.
    going = ["model 1", "run a", f"snapshot {ONES}", "alert told"]
    assert list(found.items()) == [(name, "") for name in going]


CHAMPIONS = {"1": 400, "2": 300, "3": 49, "4": 20}
"""How many days ago each version became champion; so the second served until 49 days ago."""


@pytest.mark.parametrize(
    ("record", "found", "kept"),
    [
        (
            record_of(*(moved(number, days) for number, days in CHAMPIONS.items())),
            (*map(run_of, "1234"), *(version_of(n, 1, run_name=n) for n in "1234")),
            {
                "4": "test_ranker v4 serves",
                "3": "test_ranker v3 is predecessor 1 of the champion",
                "2": "test_ranker v2 served until 2026-01-11",
            },
        ),
        (  # a rollback: what was taken down is a predecessor
            record_of(moved("1", 400), moved("2", 300), moved("1", 200)),
            (*map(run_of, "12"), *(version_of(n, 1, run_name=n) for n in "12")),
            {"1": "test_ranker v1 serves", "2": "v2 is predecessor 1 of the champion"},
        ),
        (
            record_of(moved("1", 9, "by-history")),
            (run_of("by-history"), run_of("neither")),
            {"by-history": "test_ranker v1 serves"},
        ),
        (
            record_of(moved("1", 400), pending=moved("2", 1, "asks")),
            (run_of("asks"), run_of("other")),
            {"asks": "is decided, and the alias is to follow"},
        ),
    ],
)
def test_the_runs_of_the_champion_and_of_who_may_follow_it_are_kept(
    record: Record, found: tuple[Held, ...], kept: dict[str, str]
) -> None:
    told = verdicts(record, *found)
    for run in (each for each in found if isinstance(each, FoundRun)):
        assert told[f"run {run.name}"].endswith(kept.get(run.name, ""))
        assert bool(told[f"run {run.name}"]) == (run.name in kept)


@pytest.mark.parametrize(
    ("fields", "on_record", "why"),
    [
        ({"at_work": ("train_challenger",)}, {}, "train_challenger is at work"),
        ({"problem": "it cannot be read"}, {}, "it cannot be read"),
        ({"foreign": ("NOTES.md",)}, {}, "holds NOTES.md, which no stage has made"),
        ({"registered_model": "other"}, {}, "a cycle of other, whose record was not looked at"),
        ({}, {"judged_runs": frozenset({"a"})}, "its evidence counts"),
    ],
)
def test_what_keeps_a_run_keeps_its_snapshot_model_and_checkpoints(
    fields: dict[str, Any], on_record: dict[str, Any], why: str
) -> None:
    training = held("checkpoints", "a/train_challenger")
    run = run_of("a", trainings=(training,), snapshots=frozenset({ONES}), **fields)
    found = (run, held("snapshot", ONES), version_of("7", run_name="a"))
    told = verdicts(record_of(**on_record), *found)
    assert why in told["run a"] and why in told["checkpoints a/train_challenger"]
    assert told[f"snapshot {ONES}"] == "run a names it"
    assert told["model 7"] == "run a, which trained it, is kept"


def test_a_young_run_keeps_its_snapshot_and_loses_old_checkpoints() -> None:
    training = held("checkpoints", "a/train_challenger", 31)
    run = run_of("a", 50, snapshots=frozenset({ONES}), trainings=(training,))
    found = verdicts(record_of(), run, held("snapshot", ONES))
    assert found == {"checkpoints a/train_challenger": "", f"snapshot {ONES}": "run a names it"}


@pytest.mark.parametrize(
    ("run", "record", "why"),
    [
        (run_of("b", 1), record_of(), ""),
        (run_of("b", 1, at_work=("build_snapshot",)), record_of(), "build_snapshot of run b is at"),
        (run_of("b", 1, problem="it is damaged"), record_of(), "run b may need it; it is damaged"),
        (run_of("b", 1), record_of(moved("1", 400)), "test_ranker v1 was trained on it: test_"),
        (
            run_of("b", 1),
            record_of(references={ONES: "smoke"}),
            "it is the newest accepted snapshot of recipe smoke",
        ),
    ],
)
def test_a_snapshot_that_no_run_names_stays_where_it_is_or_may_be_needed(
    run: FoundRun, record: Record, why: str
) -> None:
    told = verdicts(record, run, held("snapshot", ONES))[f"snapshot {ONES}"]
    assert told.startswith(why) and bool(told) == bool(why)


def test_a_model_that_served_or_has_a_name_or_several_versions_is_never_deleted() -> None:
    record = record_of(moved("1", 900), moved("8", 800), moved("9", 700))
    told = verdicts(
        record,
        *(version_of("1"), version_of("2", aliases=("challenger",)), version_of("4")),
        *(version_of("3", shared_by=("theirs v9",)), version_of("9", aliases=("champion",))),
    )
    assert told == {
        "model 1": "it has been champion, and what served stays",
        "model 2": "it has the alias challenger",
        "model 3": "its files are those of theirs v9 too",
        "model 4": "",
        "model 9": "test_ranker v9 serves",
    }
