"""What may go is told from what is found and on record, and everything kept has its reason."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines.registry.history import History, Move, Recipe, Recipes
from pipelines.registry.reconcile import State
from pipelines.retention.plan import (
    FoundCode,
    FoundRun,
    FoundVersion,
    Held,
    Kind,
    Record,
    make_plan,
)
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


def code_of(name: str, pins: str, kind: Kind = "code", days: float = OLD) -> FoundCode:
    return FoundCode(kind, name, f"file:///w/{name}", 10, ago(days), pins=pins)


def by_code(digest: str) -> Recipe:
    return Recipe(config={}, code_digest=digest, run_uri=None)


def moved_by(code: str, version: str, days: float) -> Move:
    """A move of a model that some code made; that code is the accepted one since."""
    recipe = by_code(code)
    return moved(version, days).model_copy(
        update={"recipe": recipe, "recipes": Recipes(accepted=recipe)}
    )


def moved(version: str, days: float, run: str | None = None) -> Move:
    return Move(
        moved_at=ago(days),
        kind="promotion",
        model=make_model(version, ago(900)).model_copy(update={"snapshot_digest": version * 64}),
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


CHAMPIONS = {"1": 400, "2": 300, "3": 49, "4": 20}
"""How many days ago each version became champion; so the second served until 49 days ago."""
FOUR = record_of(*(moved(number, days) for number, days in CHAMPIONS.items()))
TRAINING = held("checkpoints", "a/train_challenger")
SNAPSHOT = held("snapshot", ONES)
BUSY, UNREAD = {"at_work": ("build_snapshot",)}, {"problem": "it is damaged"}
YOUNG = run_of(
    "a", 50, snapshots=frozenset({ONES}), trainings=(held("checkpoints", "a/train_challenger", 31),)
)


def runs_and_models(names: str) -> tuple[Held, ...]:
    return (*map(run_of, names), *(version_of(n, 1, run_name=n) for n in names))


CASES: dict[str, tuple[Record, tuple[Held, ...], dict[str, str]]] = {
    # what is on record and what is found; of what is old, in order, why it is kept
    "needed by nobody": (
        record_of(),
        (
            *(held("alert", "told", 100), held("alert", "told late", 99.9)),
            *(SNAPSHOT, held("snapshot", "2" * 16, 99.9)),
            *(run_of("a", trainings=(held("checkpoints", "a/x"),)), run_of("b", 99.9)),
            *(version_of("1"), version_of("2", 99.9), version_of("5", model_id="")),
        ),
        # Checkpoints go with their run; of the last version nothing can be deleted.
        dict.fromkeys(["model 1", "run a", f"snapshot {ONES}", "alert told"], ""),
    ),
    "champions": (
        FOUR,
        runs_and_models("1234"),
        {"run 1": "", "run 2": "needed: test_ranker v2 served until 2026-01-11"}
        | {"run 3": "v3 is predecessor 1 of the champion", "run 4": "test_ranker v4 serves"},
    ),
    "after a rollback": (
        record_of(moved("1", 400), moved("2", 300), moved("1", 200)),
        runs_and_models("12"),
        {"run 1": "test_ranker v1 serves", "run 2": "v2 is predecessor 1 of the champion"},
    ),
    "a run of the history": (
        record_of(moved("1", 9, "by-history")),
        (run_of("by-history"), run_of("neither")),
        {"run by-history": "test_ranker v1 serves", "run neither": ""},
    ),
    "codes and environments": (
        record_of(
            *(moved_by(f"code-{number}", number, days) for number, days in CHAMPIONS.items()),
            moved("5", 10).model_copy(update={"recipes": Recipes(accepted=by_code("by-hand"))}),
            others_codes=frozenset({"others"}),
        ),
        (
            *(code_of(f"code-{number}", f"pins-{number}") for number in "123"),
            *(
                code_of(name, f"pins-{name}")
                for name in ("by-hand", "others", "of-a-run", "nobody")
            ),
            *(code_of(f"env-{of}", f"pins-{of}", "environment") for of in ("1", "2", "by-hand")),
            *(code_of("env-nobody", "x", "environment"), code_of("young", "x", days=99)),
            run_of("a", 1, codes=frozenset({"of-a-run"})),
        ),
        {
            "environment env-1": "",
            "environment env-2": "code with its pins is kept: test_ranker v2 served until",
            "environment env-by-hand": "code with its pins is kept: it is the accepted code",
            "environment env-nobody": "",
            "code code-1": "it made a champion, which may be rolled back to",
            "code code-2": "test_ranker v2 served until",
            "code code-3": "test_ranker v3 served until",
            "code by-hand": "it is the accepted code",
            "code others": "the history of another registered model names it",
            "code of-a-run": "run a names it",
            "code nobody": "",
        },
    ),
    **{
        f"code, {name}": (
            record_of(),
            (run_of("b", 1, **fields), code_of("x", "")),
            {"code x": why},
        )
        for name, fields, why in (
            ("a stage at work", BUSY, "build_snapshot of run b is at work and may need it"),
            ("unread", UNREAD, "run b may need it; it is damaged"),
        )
    },
    "a pending move": (
        record_of(moved("1", 400), pending=moved("2", 1, "asks")),
        (run_of("asks"), run_of("other")),
        {"run asks": "is decided, and the alias is to follow", "run other": ""},
    ),
    "a young run": (
        record_of(),
        (YOUNG, SNAPSHOT),
        {"checkpoints a/train_challenger": "", f"snapshot {ONES}": "run a names it"},
    ),
    "served, named or shared": (
        record_of(moved("1", 900), moved("8", 800), moved("9", 700)),
        (
            *(version_of("1"), version_of("2", aliases=("challenger",)), version_of("4")),
            *(version_of("3", shared_by=("theirs v9",)), version_of("9", aliases=("champion",))),
        ),
        {
            "model 1": "it has been champion, and what served stays",
            "model 2": "it has the alias challenger",
            "model 4": "",
            "model 3": "its files are those of theirs v9 too",
            "model 9": "test_ranker v9 serves",
        },
    ),
    **{
        f"a snapshot, {name}": (record, (run, SNAPSHOT), {f"snapshot {ONES}": why})
        for name, run, record, why in (
            ("no run", run_of("b", 1), record_of(), ""),
            ("a builder", run_of("b", 1, **BUSY), record_of(), "build_snapshot of run b is at"),
            ("unread", run_of("b", 1, **UNREAD), record_of(), "run b may need it; it is damaged"),
            ("trained on", run_of("b", 1), record_of(moved("1", 400)), "v1 was trained on it: t"),
            ("newest", run_of("b", 1), record_of(references={ONES: "x"}), "snapshot of recipe x"),
        )
    },
    **{
        f"a run that stays: {why}": (
            record_of(**on_record),
            (
                run_of("a", trainings=(TRAINING,), snapshots=frozenset({ONES}), **fields),
                *(SNAPSHOT, version_of("7", run_name="a")),
            ),
            {"model 7": "run a, which trained it, is kept", "run a": why}
            | {"checkpoints a/train_challenger": why, f"snapshot {ONES}": "run a names it"},
        )
        for fields, on_record, why in (
            ({"at_work": ("train_challenger",)}, {}, "train_challenger is at work"),
            (UNREAD, {}, "it is damaged"),
            ({"foreign": ("NOTES.md",)}, {}, "holds NOTES.md, which no stage has made"),
            ({"registered_model": "other"}, {}, "of other, whose record was not looked at"),
            ({}, {"judged_runs": frozenset({"a"})}, "its evidence counts"),
        )
    },
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_old_goes_unless_it_is_needed_and_what_is_younger_is_not_mentioned(
    case: str,
) -> None:
    record, found, expected = CASES[case]
    told = {f"{h.kind} {h.name}": why for h, why in make_plan(found, record, SETTINGS, NOW)}
    assert list(told) == list(expected)
    for name, why in expected.items():
        assert why in told[name] and bool(why) == bool(told[name])
