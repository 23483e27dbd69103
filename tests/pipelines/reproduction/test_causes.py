"""What has changed since a cycle ran is named, what matters most first."""

from datetime import UTC, datetime
from pathlib import Path

from pipelines.contracts.artifacts import StageRecord
from pipelines.contracts.code_identity import code_digest, environment
from pipelines.event_log.listing import ListedFile, Listing
from pipelines.reproduction import causes
from pipelines.reproduction.past_cycle import REBUILT, PastCycle
from support.runs import make_run

BUILT = datetime(2026, 1, 1, tzinfo=UTC)
SINCE = datetime(2026, 2, 1, tzinfo=UTC)


def record(stage: str, **fields: object) -> StageRecord:
    said = {"input_digest": "i", "artifact": {}, "wall_s": 1, "finished_at": BUILT}
    return StageRecord(stage=stage, **(said | fields))


def make_past(tmp_path: Path, listing: Listing | None = None, **fields: object) -> PastCycle:
    run = make_run(tmp_path, code_version="former")
    records = {
        "resolve_run": record("resolve_run", artifact=run.model_dump(mode="json")),
        "build_snapshot": record("build_snapshot", **fields),
    }
    return PastCycle(run.run_uri, run, records, listing)


def file(path: str, **changes: object) -> ListedFile:
    said = {"num_bytes": 9, "modified_at": BUILT, "footer": "f", "num_rows": 7, "num_known": 5}
    return ListedFile(path=path, **(said | changes))


def listing(*files: ListedFile) -> Listing:
    return Listing(event_log_uri="file:///log", files=files)


def test_files_are_named_by_what_they_may_have_done(tmp_path: Path) -> None:
    then = listing(file("a"), file("b"), file("c"), file("d"), file("e"), file("same"))
    anew = {"modified_at": SINCE, "footer": "g"}
    now = listing(
        file("b", modified_at=SINCE),
        file("c", **anew, num_rows=9),
        file("d", **anew),
        file("e", **anew, num_rows=8, num_known=6),
        file("same"),
    )
    again = "was written again 2026-02-01 00:00:00 UTC"
    assert causes.data_changes(make_past(tmp_path, then), now) == [
        "data: a is gone since 2026-01-01 00:00:00 UTC, with 5 rows known before as_of",
        f"data: d {again}, with as many rows as before: values or their order were changed",
        f"data: e {again}: 5 rows known before as_of then, 6 rows now",
        f"data: c {again}: 7 rows then, 9 rows now, as many as before known before as_of",
        f"data: b {again}, with the same row counts and the same bounds of every column",
    ]


def test_many_files_do_not_hide_the_others(tmp_path: Path) -> None:
    now = listing(*(file(f"part-{number:03}") for number in range(30)))
    found = causes.data_changes(make_past(tmp_path, listing()), now)
    assert len(found) == 21 and found[-1] == "data: and 10 more files"


def test_of_an_older_record_the_code_is_told_by_its_run(tmp_path: Path) -> None:
    past = make_past(tmp_path)
    other = past.run.model_copy(update={"code_digest": "0" * 64})
    past = PastCycle(past.run_uri, other, past.records, None)
    now = {"build_snapshot": record("build_snapshot", made_with=environment())}
    [found] = causes.environment_changes(past, now)
    assert found.startswith(f"code that trains: {'0' * 12} (former) then, {code_digest()[:12]} (")
    assert causes.not_recorded(past)[0].endswith("resolve_run, build_snapshot")


def test_only_what_differs_of_the_environment_is_named(tmp_path: Path) -> None:
    today = environment()
    now = {"build_snapshot": record("build_snapshot", made_with=today)}
    assert causes.environment_changes(make_past(tmp_path, made_with=today), now) == []
    packages = {name: each for name, each in today.packages.items() if name != "numpy"}
    then = today.model_copy(
        update={"python": "3.9.1", "packages": packages, "gpus": ("H100",), "variables": {}}
    )
    other = today.model_copy(update={"variables": {"OMP_NUM_THREADS": "1"}})
    now = {"build_snapshot": record("build_snapshot", made_with=other)}
    found = causes.environment_changes(make_past(tmp_path, made_with=then), now)
    where = "(build_snapshot)"
    assert found[0] == f"Python: 3.9.1 on 2026-01-01, {today.python} now {where}"
    numpy = today.packages["numpy"]
    assert found[1].startswith(
        f"package numpy: not installed on 2026-01-01, {numpy} now, installed"
    )
    assert found[2] == f"gpus: H100 on 2026-01-01, {', '.join(today.gpus) or 'none'} now {where}"
    assert found[3] == f"variables: none on 2026-01-01, OMP_NUM_THREADS=1 now {where}"


def test_the_model_that_was_registered_first_is_trained_first(tmp_path: Path) -> None:
    past = make_past(tmp_path)
    model = {"model": {"version": "12"}}
    for name in ("check_snapshot", "train_anchor", "compare_with_champion"):
        past.records[name] = record(name, artifact={"trained": None})
    past.records["train_challenger"] = record("train_challenger", artifact=model)
    assert past.stages_until("compare_with_champion") == REBUILT
    earlier = {"trained": {"model": {"version": "9"}}}
    past.records["train_anchor"] = record("train_anchor", artifact=earlier)
    assert past.stages_until("train_challenger")[2:] == ("train_anchor", "train_challenger")
    assert past.stages_until("train_anchor")[2:] == ("train_anchor",)
    assert past.stages_until("build_snapshot") == ("build_snapshot",)


def test_an_option_that_is_younger_than_the_record_is_named(tmp_path: Path) -> None:
    past = make_past(tmp_path)
    del past.records["resolve_run"].artifact["config"]["training"]["weight_decay"]
    found = causes.recipe_changes(past)
    assert found == ["option training.weight_decay: younger than the record; its default was taken"]
