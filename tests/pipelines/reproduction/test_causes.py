"""What has changed since a cycle ran is named, what matters most first."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines.contracts.artifacts import AnchorWhy, FreshAnchor
from pipelines.contracts.code_identity import code_digest, environment
from pipelines.contracts.judgement import Decision
from pipelines.contracts.reasons import Reason
from pipelines.contracts.run_layout import StageRecord
from pipelines.event_log.listing import ListedFile, Listing
from pipelines.recipes import make_recipe
from pipelines.reproduction import causes
from pipelines.reproduction.past_cycle import PastCycle
from support.judgements import make_judgement
from support.runs import make_run

BUILT = datetime(2026, 1, 1, tzinfo=UTC)
SINCE = datetime(2026, 2, 1, tzinfo=UTC)


def record(stage: str, **fields: object) -> StageRecord:
    said = {"input_digest": "i", "artifact": {}, "wall_s": 1, "finished_at": BUILT}
    return StageRecord(stage=stage, **(said | fields))


def make_past(tmp_path: Path, listing: Listing | None = None, **fields: object) -> PastCycle:
    run = make_run(tmp_path, code_version="former")
    records = {"build_snapshot": record("build_snapshot", **fields)}
    return PastCycle(run.run_uri, run, records, listing)


def listing(**files: dict) -> Listing:
    same = {"num_bytes": 9, "modified_at": BUILT, "footer": "f", "num_rows": 7, "num_known": 5}
    found = (ListedFile(path=path, **(same | changes)) for path, changes in files.items())
    return Listing(event_log_uri="file:///log", files=tuple(found))


def test_files_are_named_by_what_they_may_have_done(tmp_path: Path) -> None:
    then = listing(a={}, b={}, c={}, d={}, e={}, same={})
    anew = {"modified_at": SINCE, "footer": "g"}
    now = listing(
        b={"modified_at": SINCE},
        c=anew | {"num_rows": 9},
        d=anew,
        e=anew | {"num_rows": 8, "num_known": 6},
        same={},
        new={"num_known": 0},
    )
    time = "modified_at: 2026-01-01T00:00:00Z then, 2026-02-01T00:00:00Z now"
    found = causes.data_changes(make_past(tmp_path, then), now)
    assert [line.partition(": num_bytes")[0] for line in found] == [
        "data: a is gone",
        f"data: e: {time}; footer: f then, g now; num_rows: 7 then, 8 now; num_known: 5 then, 6 "
        f"now",
        f"data: c: {time}; footer: f then, g now; num_rows: 7 then, 9 now",
        f"data: d: {time}; footer: f then, g now",
        "data: new was added",
        f"data: b: {time}",
    ]
    assert found[0].endswith("num_known: 5 then, nothing now")
    assert found[4].endswith("num_rows: nothing then, 7 now; num_known: nothing then, 0 now")
    assert "is gone, so they are not compared" in causes.data_changes(make_past(tmp_path), now)[0]
    many = listing(**{f"part-{number:03}": {} for number in range(30)})
    found = causes.data_changes(make_past(tmp_path, listing()), many)
    assert len(found) == 21 and found[-1] == "data: and 10 more files"


def test_only_what_differs_of_the_environment_is_named(tmp_path: Path) -> None:
    today = environment()
    now = {"build_snapshot": record("build_snapshot", made_with=today)}
    assert causes.environment_changes(make_past(tmp_path, made_with=today), now) == []
    packages = {name: each for name, each in today.packages.items() if name != "numpy"}
    former = {"python": "3.9.1", "packages": packages, "gpus": ("H100",), "variables": {}}
    then = today.model_copy(update={**former, "project_digest": "0" * 64})
    other = today.model_copy(update={"variables": {"OMP_NUM_THREADS": "1"}})
    now = {"build_snapshot": record("build_snapshot", made_with=other)}
    where = "(on 2026-01-01: build_snapshot)"
    gpus = json.dumps(list(today.gpus))
    assert causes.environment_changes(make_past(tmp_path, made_with=then), now) == [
        f"project_digest: 000000000000 then, {today.project_digest[:12]} now {where}",
        f"python: 3.9.1 then, {today.python} now {where}",
        f"packages.numpy: nothing then, {today.packages['numpy']} now {where}",
        f'gpus: ["H100"] then, {gpus} now {where}',
        f"variables.OMP_NUM_THREADS: nothing then, 1 now {where}",
    ]


def test_an_anchor_that_other_code_trained_is_told(tmp_path: Path) -> None:
    why = {"why": AnchorWhy.OTHER_RECIPE, "reason": "It differs."}
    fresh = FreshAnchor(**why, snapshot=None, trained=None, code_digest="a" * 64)
    now = {"train_anchor": record("train_anchor", artifact=fresh.model_dump(mode="json"))}
    past = make_past(tmp_path)
    past.records.update(now)
    for code, records, is_told in (("c", now, True), ("c", {}, False), ("a", now, False)):
        run = past.run.model_copy(update={"code_digest": code * 64})
        found = list(causes.anchor_changes(replace(past, run=run), records))
        assert bool(found) == is_told
        assert not found or found[0].endswith(f"that is installed, {code_digest()[:12]}")


def test_a_limit_that_a_busy_machine_breaks_is_told(tmp_path: Path) -> None:
    slow = Reason.of("serving_latency", found=260.0, limit=250.0)
    others = Reason.of("serving_golden", found=1e-3, limit=1e-5)
    quick, name = make_judgement(Decision.PROMOTE), "compare_with_champion"
    serving = quick.serving.model_copy(update={"problems": (slow, others)})
    busy = quick.model_copy(update={"serving": serving})
    past = make_past(tmp_path)
    past.records[name] = record(name, artifact=quick.model_dump(mode="json"))
    now = {name: record(name, artifact=busy.model_dump(mode="json"))}
    [found] = causes.measured_changes(past, now)
    assert found.startswith(
        "serving check of the challenger, then: within its limits. Now: Serving check: latency p99 "
        "is 260 ms, beyond the 250 ms allowed. This is measured anew"
    )
    assert not [*causes.measured_changes(past, past.records), *causes.measured_changes(past, {})]


def test_a_recipe_from_outside_is_read_again_if_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\n")
    config = make_recipe(str(path))
    past = make_past(tmp_path)
    past = replace(past, run=past.run.model_copy(update={"config": config}))
    assert list(causes.recipe_changes(past)) == []
    path.write_text("extends: smoke\ntraining: {seed: 5}\n")
    [changed] = causes.recipe_changes(past)
    assert changed.startswith(f"recipe '{path.as_uri()}', of which the recorded one was taken: ")
    assert changed.endswith("training.seed: 17 then, 5 now")
    path.unlink()
    [gone] = causes.recipe_changes(past)
    assert "cannot be read today" in gone
