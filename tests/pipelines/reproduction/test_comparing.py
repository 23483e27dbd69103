"""What is called equal, whatever its place, ids and the code's name; and what has changed since."""

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.artifacts import AnchorWhy, Challenger, FileDigest, FreshAnchor
from pipelines.contracts.base import Artifact
from pipelines.contracts.code_identity import environment
from pipelines.contracts.judgement import AnchorFacts, Decision, Judgement
from pipelines.contracts.reasons import Reason
from pipelines.contracts.run_layout import StageRecord
from pipelines.event_log.reader import ListedFile, Listing
from pipelines.reproduction.comparing import REBUILT, PastCycle, changes_since, compare_stage
from support.judgements import CHALLENGER, make_judgement
from support.registered import challenger_of
from support.runs import make_run

NUMBERS = itertools.count(7)
BUILT, SINCE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def record_of(stage: str, artifact: Artifact | None = None, **fields: Any) -> StageRecord:
    made = artifact.model_dump(mode="json") if artifact else {}
    said = {"input_digest": "i", "artifact": made, "wall_s": 1, "finished_at": BUILT}
    return StageRecord(stage=stage, **(said | fields))


TRAINED = ("weights", "steps and loss", "trained on snapshot")


def trained(weights: str, **fields: Any) -> Challenger:
    """Return a model with files of its own, under another number at each call."""
    bundle = {"weights.safetensors": weights, "bundle.json": f"by code {next(NUMBERS)}"}
    files = tuple(FileDigest(path=name, sha256=said, num_bytes=1) for name, said in bundle.items())
    model = CHALLENGER.model_copy(update={"version": str(next(NUMBERS))})
    return challenger_of(model).model_copy(update={"bundle_files": files, **fields})


def anchor(why: AnchorWhy, made: Artifact | None = None) -> FreshAnchor:
    return FreshAnchor(trained=made, snapshot=None, why=why)  # type: ignore[arg-type]


JUDGED = make_judgement(Decision.REJECT)
SAME, OTHER = AnchorWhy.SAME, AnchorWhy.OTHER_RECIPE
TRAIN, ANCHOR, COMPARE = "train_challenger", "train_anchor", "compare_with_champion"


def judged(p50_ms: float = 4.0, golden: float = 1e-8, metric: float = 1.5, **ids: Any) -> Judgement:
    """Return a judgement with some measured figures, which stand in its verdict too."""
    new = {"latency_p50_ms": p50_ms, "golden_difference": golden}
    serving, [row] = JUDGED.serving.model_copy(update=new), JUDGED.comparison.metrics
    model = JUDGED.comparison.challenger_model.model_copy(update=ids)
    compared = {
        "challenger_model": model,
        "metrics": (row.model_copy(update={"challenger": metric}),),
    }
    return with_ground(
        serving.figures,
        serving=serving,
        comparison=JUDGED.comparison.model_copy(update=compared),
        report_uri=f"file:///{p50_ms}",
    )


def with_ground(ground: Reason, **fields: Any) -> Judgement:
    grounds = (*JUDGED.verdict.grounds, ground)
    verdict = JUDGED.verdict.model_copy(update={"grounds": grounds})
    return JUDGED.model_copy(update=fields | {"verdict": verdict})


def with_slow_anchor(p99_ms: int, label: str) -> Judgement:
    problem = Reason.of("serving_slow", found=float(p99_ms), limit=250.0)
    slow = JUDGED.serving.model_copy(update={"problems": (problem,)})
    sides = {"recipe": JUDGED.comparison, "freshness": JUDGED.comparison}
    made = AnchorFacts(model=CHALLENGER, self_test=JUDGED.self_test, serving=slow, **sides)
    return with_ground(Reason.of("anchor_not_promoted", model=label, because=problem), anchor=made)


@pytest.mark.parametrize(
    ("stage", "then", "now", "differing"),
    [
        (TRAIN, trained("w"), trained("w"), {}),
        (TRAIN, trained("w"), trained("x"), {f"challenger: {TRAINED[0]}": ""}),
        (
            *(TRAIN, trained("w"), trained("w", num_steps=2)),
            {f"challenger: {TRAINED[1]}": "num_steps: 1 then, 2 now"},
        ),
        # Why an anchor was not trained is compared, and not its sentence.
        (ANCHOR, anchor(SAME), anchor(SAME), {}),
        (ANCHOR, anchor(SAME), anchor(OTHER), {"fresh anchor": "why: same then, other_recipe now"}),
        (
            *(ANCHOR, anchor(OTHER, trained("w")), anchor(OTHER)),
            {f"fresh anchor: {TRAINED[0]}": "", f"fresh anchor: {TRAINED[2]}": ""}
            | {f"fresh anchor: {TRAINED[1]}": "all of it: "},
        ),
        # Of a judgement neither what was measured anew counts nor a model's number, not even
        # where they stand within another reason.
        (COMPARE, judged(), judged(9.0, mlflow_run_id="another", version="77"), {}),
        (COMPARE, with_slow_anchor(260, "v5"), with_slow_anchor(270, "v6"), {}),
        (
            *(COMPARE, judged(), judged(golden=1e-3, metric=1.75)),
            {
                "comparison": "comparison.metrics.repin_volume_at_3 all.challenger: 1.5 then, 1.75",
                "serving": "serving.golden_difference: 1e-08 then, 0.001 now",
            },
        ),
    ],
)
def test_what_repeats_is_compared_and_a_difference_is_placed(
    stage: str, then: Artifact, now: Artifact, differing: dict[str, str]
) -> None:
    found = compare_stage(stage, record_of(stage, then), record_of(stage, now))
    assert {each.state for each in found} <= {"equal", "differs"} and len(found) >= 1
    placed = {each.what: " ".join(each.details) for each in found if each.state == "differs"}
    assert placed.keys() == differing.keys()
    assert all(placed[what].startswith(said) for what, said in differing.items())
    if stage == TRAIN:
        assert {each.what for each in found} == {f"challenger: {each}" for each in TRAINED}
    gone = [each.what for each in found if each.now == "nothing"]
    assert gone == [what for what in placed if "anchor: " in what]


def make_past(tmp_path: Path, then: Listing | None = None, **of_run: Any) -> PastCycle:
    """Return a cycle whose snapshot was built."""
    run = make_run(tmp_path, code_version="former", **of_run)
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
    for until, num in (("train_anchor", 3), (COMPARE, 3), ("check_snapshot", 2)):
        assert past.stages_until(until) == REBUILT[:num]


def test_files_that_are_not_as_they_were_are_named(tmp_path: Path) -> None:
    then, new = listing(a={}, b={}, same={}), {f"part-{number:03}": {} for number in range(30)}
    now = listing(b={"modified_at": SINCE, "num_rows": 8}, same={}, **new)
    gone, *of_b, added = changes_since(make_past(tmp_path, then), {}, now)[:4]
    assert gone.startswith('data: a: {"path": "a", ') and gone.endswith("... then, nothing now")
    assert of_b == [
        "data: b.modified_at: 2026-01-01T00:00:00Z then, 2026-02-01T00:00:00Z now",
        "data: b.num_rows: 7 then, 8 now",
    ]
    assert added.startswith('data: part-000: nothing then, {"path": ')
    [lost] = changes_since(make_past(tmp_path), {}, now)
    assert "is gone, so they are not compared" in lost
    found = changes_since(make_past(tmp_path, listing()), {}, now)
    assert len(found) == 21 and found[-1] == "data: and more"


def test_only_what_differs_of_the_environment_is_named(tmp_path: Path) -> None:
    today, past, name = environment(), make_past(tmp_path), "build_snapshot"
    packages = {each: found for each, found in today.packages.items() if each != "numpy"}
    former = {"python": "3.9.1", "packages": packages, "gpus": ("H100",), "variables": {}}
    then = {**former, "project_digest": "0" * 64, "code_version": "former"}
    now = {"python": "3.11", "gpus": (), "variables": {"OMP_NUM_THREADS": "1"}}

    def changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
        past.records[name], rebuilt = (
            record_of(name, made_with=today.model_copy(update=each)) for each in (then, now)
        )
        return changes_since(past, {name: rebuilt}, None)

    assert changes({}, {}) == changes({"code_version": "a"}, {}) == []
    where = "(on 2026-01-01: build_snapshot)"
    assert changes(then, now) == [
        f"project_digest: 000000000000 then, {today.project_digest[:12]} now {where}",
        f"python: 3.9.1 then, 3.11 now {where}",
        f"packages.numpy: nothing then, {today.packages['numpy']} now {where}",
        f'gpus: ["H100"] then, [] now {where}',
        f"variables.OMP_NUM_THREADS: nothing then, 1 now {where}",
    ]


def test_other_code_of_the_anchor_and_a_limit_that_a_busy_machine_breaks_are_told(
    tmp_path: Path,
) -> None:
    def fresh(code: str) -> FreshAnchor:
        return FreshAnchor(why=OTHER, snapshot=None, trained=None, code_digest=code * 64)

    slow = JUDGED.serving.model_copy(
        update={"problems": (Reason.of("serving_slow", found=260.0, limit=250.0),)}
    )
    past, where = make_past(tmp_path), "now (on 2026-01-01: "
    for stage, then, now, said in (
        (ANCHOR, fresh("a"), fresh("b"), f"code_digest: {'a' * 12} then, {'b' * 12} "),
        (
            *(COMPARE, JUDGED, JUDGED.model_copy(update={"serving": slow})),
            "serving.[0]: nothing then, serving_slow ",
        ),
        (
            *(COMPARE, with_slow_anchor(260, "v5"), JUDGED),
            'anchor\'s serving: ["serving_slow"] then, nothing ',
        ),
    ):
        past.records[stage] = record_of(stage, then)
        told = changes_since(past, {stage: record_of(stage, now)}, None)
        assert told == [f"{said}{where}{stage})"]
        assert changes_since(past, {stage: past.records[stage]}, None) == []
