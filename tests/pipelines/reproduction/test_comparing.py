"""What is called equal, whatever its place, ids and the code's name; and what has changed since."""

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.artifacts import AnchorWhy, Challenger, FileDigest, FreshAnchor
from pipelines.contracts.base import Artifact
from pipelines.contracts.code_identity import code_digest, environment
from pipelines.contracts.judgement import AnchorFacts, Decision, Judgement
from pipelines.contracts.reasons import Reason
from pipelines.contracts.run_layout import StageRecord
from pipelines.event_log.listing import ListedFile, Listing
from pipelines.recipes import make_recipe
from pipelines.reproduction.comparing import Finding, changes_since, compare_stage
from pipelines.reproduction.past_cycle import REBUILT, PastCycle
from support.judgements import CHALLENGER, make_judgement
from support.registered import challenger_of
from support.runs import make_run

NUMBERS = itertools.count(7)
BUILT, SINCE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def record_of(stage: str, artifact: Artifact | None = None, **fields: Any) -> StageRecord:
    made = artifact.model_dump(mode="json") if artifact else {}
    said = {"input_digest": "i", "artifact": made, "wall_s": 1, "finished_at": BUILT}
    return StageRecord(stage=stage, **(said | fields))


def compared(stage: str, then: Artifact, now: Artifact) -> dict[str, Finding]:
    records = (record_of(stage, each) for each in (then, now))
    return {finding.what: finding for finding in compare_stage(stage, *records, "")}


def states(found: dict[str, Finding]) -> set[str]:
    return {finding.state for finding in found.values()}


def trained(weights: str, **fields: Any) -> Challenger:
    """Return a model with files of its own, under another number at each call."""
    bundle = {"weights.safetensors": weights, "bundle.json": f"by code {next(NUMBERS)}"}
    files = tuple(FileDigest(path=name, sha256=said, num_bytes=1) for name, said in bundle.items())
    model = CHALLENGER.model_copy(update={"version": str(next(NUMBERS))})
    return challenger_of(model).model_copy(update={"bundle_files": files, **fields})


@pytest.mark.parametrize(
    ("now", "differing"),
    [
        (trained("w"), set()),
        (trained("other"), {"weights"}),
        (trained("w", num_steps=2), {"steps and loss"}),
    ],
)
def test_a_bundle_is_compared_by_its_weights_under_whatever_number(
    now: Challenger, differing: set[str]
) -> None:
    found = compared("train_challenger", trained("w"), now)
    found = {what.removeprefix("challenger: "): each for what, each in found.items()}
    assert set(found) == {"weights", "steps and loss", "trained on snapshot"}
    assert {what for what, each in found.items() if each.state == "differs"} == differing


def test_why_an_anchor_was_not_trained_is_compared_and_not_its_sentence() -> None:
    def anchor(why: AnchorWhy, reason: str, made: Artifact | None = None) -> FreshAnchor:
        return FreshAnchor(trained=made, snapshot=None, why=why, reason=reason)  # type: ignore[arg-type]

    same, other = AnchorWhy.SAME, AnchorWhy.OTHER_RECIPE
    assert states(compared("train_anchor", anchor(same, "A."), anchor(same, "B."))) == {"equal"}
    assert states(compared("train_anchor", anchor(same, "A."), anchor(other, "A."))) == {"differs"}
    then = anchor(other, "It differs.", trained("w"))
    found = compared("train_anchor", then, anchor(other, "It differs."))
    assert found["fresh anchor"].now.startswith("not trained ")
    weights = found["fresh anchor: weights"]
    assert (weights.state, weights.now) == ("differs", "nothing")


JUDGED = make_judgement(Decision.REJECT)


def with_figures(judged: Judgement) -> Judgement:
    grounds = (*judged.verdict.grounds, judged.serving.figures)
    verdict = judged.verdict.model_copy(update={"grounds": grounds})
    return judged.model_copy(update={"verdict": verdict})


def with_slow_anchor(p99_ms: int, label: str) -> Judgement:
    problem = Reason.of("serving_latency", found=float(p99_ms), limit=250.0)
    slow = JUDGED.serving.model_copy(update={"problems": (problem,)})
    sides = {"recipe": JUDGED.comparison, "freshness": JUDGED.comparison}
    self_test = JUDGED.self_test
    anchor = AnchorFacts(model=CHALLENGER, self_test=self_test, serving=slow, **sides)
    other = Reason.of("anchor_not_promoted", model=label, because=problem)
    verdict = JUDGED.verdict.model_copy(update={"grounds": (*JUDGED.verdict.grounds, other)})
    return JUDGED.model_copy(update={"anchor": anchor, "verdict": verdict})


def test_a_judgement_is_equal_whatever_was_measured_anew() -> None:
    slow = JUDGED.serving.model_copy(update={"latency_p50_ms": 9.0})
    again = {"mlflow_run_id": "another", "version": "77"}
    model = JUDGED.comparison.challenger_model.model_copy(update=again)
    comparison = JUDGED.comparison.model_copy(update={"challenger_model": model})
    changes = {"serving": slow, "report_uri": "file:///x", "comparison": comparison}
    now = with_figures(JUDGED.model_copy(update=changes))
    found = compared("compare_with_champion", with_figures(JUDGED), now)
    assert states(found) == {"equal"} and found["verdict"].then.startswith("REJECT ")
    # Nor does a figure within another reason count, nor a model's number there.
    slower = with_slow_anchor(260, "v5"), with_slow_anchor(270, "v6")
    assert states(compared("compare_with_champion", *slower)) == {"equal"}


def test_what_repeats_of_a_judgement_is_named_with_both_values() -> None:
    [row] = JUDGED.comparison.metrics
    metrics = (row.model_copy(update={"challenger": 1.75}),)
    serving = JUDGED.serving.model_copy(update={"golden_difference": 1e-3})
    comparison = JUDGED.comparison.model_copy(update={"metrics": metrics})
    now = JUDGED.model_copy(update={"serving": serving, "comparison": comparison})
    found = compared("compare_with_champion", JUDGED, now)
    assert {what: each.details for what, each in found.items() if each.state == "differs"} == {
        "metrics and intervals": ("metrics.repin_volume_at_3 all.challenger: 1.5 then, 1.75 now",),
        "serving check": ("challenger.golden_difference: 1e-08 then, 0.001 now",),
    }


def make_past(tmp_path: Path, then: Listing | None = None, **of_run: Any) -> PastCycle:
    """Return a cycle whose snapshot was built; its recipe is one that cannot change."""
    run = make_run(tmp_path, code_version="former", **of_run)
    config = run.config.model_copy(update={"recipe": "no recipe of today"})
    run = run.model_copy(update={"config": of_run.get("config", config)})
    return PastCycle(run.run_uri, run, {"build_snapshot": record_of("build_snapshot")}, then)


def listing(**files: dict) -> Listing:
    same = {"num_bytes": 9, "modified_at": BUILT, "footer": "f", "num_rows": 7, "num_known": 5}
    found = (ListedFile(path=path, **(same | changes)) for path, changes in files.items())
    return Listing(event_log_uri="file:///log", files=tuple(found))


def test_stages_are_rebuilt_up_to_the_one_named_and_none_after_the_last_on_record(
    tmp_path: Path,
) -> None:
    past = make_past(tmp_path)
    assert past.stages_until("train_anchor") == REBUILT[:1]
    past.records["train_challenger"] = record_of("train_challenger")
    for until, num in (("train_anchor", 3), ("compare_with_champion", 3), ("check_snapshot", 2)):
        assert past.stages_until(until) == REBUILT[:num]


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
    found = changes_since(make_past(tmp_path, then), {}, now)
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
    [gone] = changes_since(make_past(tmp_path), {}, now)
    assert "is gone, so they are not compared" in gone
    many = listing(**{f"part-{number:03}": {} for number in range(30)})
    found = changes_since(make_past(tmp_path, listing()), {}, many)
    assert len(found) == 21 and found[-1] == "data: and 10 more files"


def test_only_what_differs_of_the_environment_is_named(tmp_path: Path) -> None:
    today, name = environment(), "build_snapshot"
    packages = {each: found for each, found in today.packages.items() if each != "numpy"}
    former = {"python": "3.9.1", "packages": packages, "gpus": ("H100",), "variables": {}}
    then = today.model_copy(update={**former, "project_digest": "0" * 64})
    other = today.model_copy(update={"variables": {"OMP_NUM_THREADS": "1"}})
    where, past = "(on 2026-01-01: build_snapshot)", make_past(tmp_path)
    past.records[name] = record_of(name, made_with=today)
    assert changes_since(past, {name: record_of(name, made_with=today)}, None) == []
    past.records[name] = record_of(name, made_with=then)
    assert changes_since(past, {name: record_of(name, made_with=other)}, None) == [
        f"project_digest: 000000000000 then, {today.project_digest[:12]} now {where}",
        f"python: 3.9.1 then, {today.python} now {where}",
        f"packages.numpy: nothing then, {today.packages['numpy']} now {where}",
        f'gpus: ["H100"] then, {json.dumps(list(today.gpus))} now {where}',
        f"variables.OMP_NUM_THREADS: nothing then, 1 now {where}",
    ]


@pytest.mark.parametrize(("code", "is_told"), [("c", True), ("a", False)])
def test_an_anchor_that_other_code_trained_is_told(
    tmp_path: Path, code: str, is_told: bool
) -> None:
    why = {"why": AnchorWhy.OTHER_RECIPE, "reason": "It differs."}
    fresh = FreshAnchor(**why, snapshot=None, trained=None, code_digest="a" * 64)
    now = {"train_anchor": record_of("train_anchor", fresh)}
    past = make_past(tmp_path, code_digest=code * 64)
    past.records.update(now)
    found = changes_since(past, now, None)
    assert [each.endswith(f"installed, {code_digest()[:12]}") for each in found] == [True] * is_told
    assert changes_since(past, {}, None) == []


def test_a_limit_that_a_busy_machine_breaks_is_told(tmp_path: Path) -> None:
    slow = Reason.of("serving_latency", found=260.0, limit=250.0)
    others = Reason.of("serving_golden", found=1e-3, limit=1e-5)
    serving = JUDGED.serving.model_copy(update={"problems": (slow, others)})
    name, past = "compare_with_champion", make_past(tmp_path)
    past.records[name] = record_of(name, JUDGED)
    now = {name: record_of(name, JUDGED.model_copy(update={"serving": serving}))}
    [found] = changes_since(past, now, None)
    assert found.startswith(
        "serving check of the challenger, then: within its limits. Now: Serving check: latency p99 "
        "is 260 ms, beyond the 250 ms allowed. This is measured anew"
    )
    assert changes_since(past, {name: past.records[name]}, None) == []


def test_a_recipe_from_outside_is_read_again_if_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\n")
    past = make_past(tmp_path, config=make_recipe(str(path)))
    assert changes_since(past, {}, None) == []
    path.write_text("extends: smoke\ntraining: {seed: 5}\n")
    [changed] = changes_since(past, {}, None)
    assert changed.startswith(f"recipe '{path.as_uri()}', of which the recorded one was taken: ")
    assert changed.endswith("training.seed: 17 then, 5 now")
    path.unlink()
    [gone] = changes_since(past, {}, None)
    assert "cannot be read today" in gone
