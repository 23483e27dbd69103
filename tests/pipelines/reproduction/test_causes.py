"""What has changed since a cycle ran is named, what matters most first."""

import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import AnchorWhy, FreshAnchor
from pipelines.contracts.code_identity import code_digest, environment
from pipelines.contracts.judgement import Decision, Reason
from pipelines.contracts.run_layout import StageRecord
from pipelines.event_log.listing import ListedFile, Listing
from pipelines.recipes import make_recipe
from pipelines.reproduction import causes
from pipelines.reproduction.past_cycle import REBUILT, PastCycle
from support.judgements import make_judgement
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
        "data: a is gone, with 5 rows known before as_of; it was there when the snapshot was built "
        "(2026-01-01 00:00:00 UTC)",
        f"data: d {again}, with as many rows as before and another footer: values, their order, or "
        f"only how they are stored were changed",
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
    assert past.stages_to_tell_of("train_challenger") == REBUILT[:4]
    assert past.stages_to_tell_of("train_anchor") == (*REBUILT[:2], "train_anchor")
    del past.records["train_anchor"]
    assert past.stages_to_tell_of("train_anchor") == REBUILT[:4]
    assert past.stages_to_tell_of("train_challenger") == REBUILT[:3]


def test_a_commit_is_named_that_changed_the_code_in_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"

    def commit(folder: str) -> str:
        (repository / folder).mkdir(parents=True, exist_ok=True)
        (repository / folder / "code.py").touch()
        git("add", ".")
        git("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", f"Changes {folder}")
        return git("rev-parse", "HEAD")

    def git(*words: str) -> str:
        command = ["git", "-C", str(repository), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    repository.mkdir()
    git("init", "-q")
    former = commit("docs")
    commit("validation")
    commit("training")
    monkeypatch.setattr(causes, "ROOT", repository)
    past = make_past(tmp_path)
    other = past.run.model_copy(update={"code_digest": "0" * 64, "code_version": former})
    past = PastCycle(past.run_uri, other, past.records, None)
    today = environment()
    now = {"build_snapshot": record("build_snapshot", made_with=today)}
    [found] = causes.environment_changes(past, now)
    assert "the first commit to it since is" in found
    assert found.endswith("Changes training (build_snapshot)")  # only training is in question
    changes = {"project_digest": "0" * 64, "code_version": former}
    past = make_past(tmp_path, made_with=today.model_copy(update=changes))
    [found] = causes.environment_changes(past, now)
    assert "Changes validation; what trains and scores is equal" in found


def test_an_anchor_that_other_code_trained_is_told(tmp_path: Path) -> None:
    why = {"why": AnchorWhy.OTHER_RECIPE, "reason": "It differs."}
    fresh = FreshAnchor(**why, snapshot=None, trained=None, code_digest="a" * 64)
    past = make_past(tmp_path)
    past.records["train_anchor"] = record("train_anchor", artifact=fresh.model_dump(mode="json"))
    run = past.run.model_copy(update={"code_digest": "c" * 64})
    past = PastCycle(past.run_uri, run, past.records, None)
    now = {"train_anchor": past.records["train_anchor"]}
    [found] = causes.anchor_changes(past, now)
    assert found.startswith(f"fresh anchor: it was trained by code {'a' * 12}, and the cycle was")
    assert found.endswith(f"it was rebuilt by the code that is installed, {code_digest()[:12]}")
    assert causes.anchor_changes(past, {}) == []
    own = past.run.model_copy(update={"code_digest": "a" * 64})
    assert causes.anchor_changes(PastCycle(past.run_uri, own, past.records, None), now) == []


def test_a_limit_that_a_busy_machine_breaks_is_told(tmp_path: Path) -> None:
    slow = Reason.of("serving_latency", found=260.0, limit=250.0)
    others = Reason.of("serving_golden", found=1e-3, limit=1e-5)
    quick, name = make_judgement(Decision.PROMOTE), "compare_with_champion"
    problems = {"latency_p99_ms": 260.0, "problems": (slow, others)}
    serving = quick.serving.model_copy(update=problems)
    busy = quick.model_copy(update={"serving": serving})
    past = make_past(tmp_path)
    past.records[name] = record(name, artifact=quick.model_dump(mode="json"))
    now = {name: record(name, artifact=busy.model_dump(mode="json"))}
    assert causes.measured_changes(past, now) == [
        "serving check of the challenger: nothing beyond its limit (p99 6 ms and 400 MiB) then, "
        "latency p99 is 260 ms, beyond the 250 ms allowed now; this is measured anew each time, "
        "and the verdict depends on it"
    ]
    assert causes.measured_changes(past, {name: past.records[name]}) == []
    assert causes.measured_changes(past, {}) == []


def test_an_option_that_is_younger_than_the_record_is_named(tmp_path: Path) -> None:
    past = make_past(tmp_path)
    del past.records["resolve_run"].artifact["config"]["training"]["weight_decay"]
    found = causes.recipe_changes(past)
    assert found == ["option training.weight_decay: younger than the record; its default was taken"]


def test_a_recipe_from_outside_is_read_again_if_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\n")
    config = make_recipe(str(path))
    past = make_past(tmp_path)
    past = replace(past, run=past.run.model_copy(update={"config": config}))
    past.records["resolve_run"].artifact["config"] = config.model_dump(mode="json")
    assert causes.recipe_changes(past) == []
    path.write_text("extends: smoke\ntraining: {seed: 5}\n")
    [changed] = causes.recipe_changes(past)
    assert changed.startswith(f"recipe '{path.as_uri()}': {config.fingerprint()[:12]} then, ")
    path.unlink()
    [gone] = causes.recipe_changes(past)
    assert "cannot be read today" in gone and gone.endswith("; the recorded was taken")
