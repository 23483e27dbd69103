"""What is called equal: contents, whatever their places, their ids and the code's name."""

from datetime import UTC, datetime
from pathlib import Path

from pipelines import storage
from pipelines.contracts.artifacts import AnchorWhy, FreshAnchor
from pipelines.contracts.base import Artifact
from pipelines.contracts.code_identity import environment
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.judgement import AnchorFacts, Decision, Judgement
from pipelines.contracts.reasons import Reason
from pipelines.contracts.run_layout import StageRecord
from pipelines.reproduction.findings import Finding, compare_stage
from support.bundles import write_small_bundle, write_with_config
from support.judgements import CHALLENGER, make_judgement
from support.registered import challenger_of
from training.bundle.files import read_config

FORMER = {"code_version": "former", "code_digest": "f" * 64}


def record_of(stage: str, artifact: Artifact) -> StageRecord:
    return StageRecord(
        stage=stage,
        input_digest="i",
        artifact=artifact.model_dump(mode="json"),
        wall_s=1,
        finished_at=datetime(2026, 1, 1, tzinfo=UTC),
        made_with=environment().model_copy(update=FORMER),
    )


def compared(stage: str, then: Artifact, now: Artifact) -> dict[str, Finding]:
    found = compare_stage(stage, record_of(stage, then), record_of(stage, now), "")
    return {finding.what: finding for finding in found}


def trained(folder: Path, seed: int, **code: str) -> Artifact:
    source = write_small_bundle(folder / "unnamed", seed)
    named = read_config(source).model_copy(update=code or {"code_version": "todays"})
    bundle = write_with_config(source, folder / "bundle", named)
    files = digest_files(bundle)
    model = CHALLENGER.model_copy(update={"bundle_digest": digest_of_files(files)})
    places = {"bundle_uri": storage.to_uri(bundle), "bundle_files": files}
    return challenger_of(model).model_copy(update=places)


def test_a_bundle_that_other_code_has_signed_is_equal(tmp_path: Path) -> None:
    then, now = trained(tmp_path / "then", 3, **FORMER), trained(tmp_path / "now", 3)
    found = compared("train_challenger", then, now)
    assert {finding.state for finding in found.values()} == {"equal"}
    assert {"challenger: weights", "challenger: description"} <= set(found)


def test_other_weights_are_not(tmp_path: Path) -> None:
    then, now = trained(tmp_path / "then", 3, **FORMER), trained(tmp_path / "now", 4)
    found = compared("train_challenger", then, now)
    states = {what.removeprefix("challenger: "): each.state for what, each in found.items()}
    assert states == {
        **dict.fromkeys(("weights", "description", "example scores"), "differs"),
        **dict.fromkeys(("steps and loss", "trained on snapshot"), "equal"),
    }


def test_why_an_anchor_was_not_trained_is_compared_and_not_its_sentence(tmp_path: Path) -> None:
    def states(*whys: AnchorWhy) -> set[str]:
        made = [
            FreshAnchor(trained=None, snapshot=None, why=why, reason=f"Sentence {number}.")
            for number, why in enumerate(whys)
        ]
        return {finding.state for finding in compared("train_anchor", *made).values()}

    assert states(AnchorWhy.SAME, AnchorWhy.SAME) == {"equal"}
    assert states(AnchorWhy.SAME, AnchorWhy.NOT_POSSIBLE) == {"differs"}


def test_an_anchor_that_was_not_trained_again_differs(tmp_path: Path) -> None:
    reason = {"why": AnchorWhy.OTHER_RECIPE, "reason": "It differs.", "snapshot": None}
    then = FreshAnchor(trained=trained(tmp_path / "then", 3, **FORMER), **reason)
    found = compared("train_anchor", then, FreshAnchor(trained=None, **reason))
    assert found["fresh anchor"].now.startswith("not trained ")
    assert found["fresh anchor: weights"].state == "differs"
    assert found["fresh anchor: weights"].now == "nothing"


def judged(**changes: object) -> Judgement:
    return make_judgement(Decision.REJECT).model_copy(update=changes)


def test_a_judgement_is_equal_whatever_was_measured_anew(tmp_path: Path) -> None:
    then = judged()
    slow = then.serving.model_copy(update={"latency_p50_ms": 9.0})
    kept = then.comparison.challenger_model.model_copy(update={"mlflow_run_id": "another"})

    def with_description(judgement: Judgement) -> Judgement:
        grounds = (*judgement.verdict.grounds, judgement.serving.figures)
        verdict = judgement.verdict.model_copy(update={"grounds": grounds})
        return judgement.model_copy(update={"verdict": verdict})

    comparison = then.comparison.model_copy(update={"challenger_model": kept})
    now = with_description(judged(serving=slow, report_uri="file:///x", comparison=comparison))
    found = compared("compare_with_champion", with_description(then), now)
    assert {finding.state for finding in found.values()} == {"equal"}
    assert found["verdict"].then.startswith("REJECT ")


def test_what_repeats_of_a_serving_check_is_compared(tmp_path: Path) -> None:
    then = judged()
    serving = then.serving.model_copy(update={"golden_difference": 1e-3})
    found = compared("compare_with_champion", then, judged(serving=serving))
    assert found["serving check"].state == "differs"
    assert found["serving check"].details == (
        "challenger.golden_difference: 1e-08 then, 0.001 now",
    )


def test_a_figure_within_another_reason_is_left_out_too(tmp_path: Path) -> None:
    def with_slow_anchor(p99_ms: int) -> Judgement:
        problem = Reason.of("serving_latency", found=float(p99_ms), limit=250.0)
        then = judged()
        slow = then.serving.model_copy(update={"problems": (problem,)})
        anchor = AnchorFacts(
            model=CHALLENGER,
            recipe=then.comparison,
            freshness=then.comparison,
            self_test=then.self_test,
            serving=slow,
        )
        other = Reason.of("anchor_not_promoted", model="v5", because=problem)
        verdict = then.verdict.model_copy(update={"grounds": (*then.verdict.grounds, other)})
        return then.model_copy(update={"anchor": anchor, "verdict": verdict})

    made = with_slow_anchor(260), with_slow_anchor(270)
    found = compared("compare_with_champion", *made)
    assert {finding.state for finding in found.values()} == {"equal"}


def test_another_metric_is_named_with_both_values(tmp_path: Path) -> None:
    then = judged()
    [row] = then.comparison.metrics
    other = (row.model_copy(update={"challenger": 1.75}),)
    comparison = then.comparison.model_copy(update={"metrics": other})
    now = judged(comparison=comparison)
    found = compared("compare_with_champion", then, now)
    differing = [finding for finding in found.values() if finding.state == "differs"]
    assert [finding.what for finding in differing] == ["metrics and intervals"]
    assert differing[0].details == ("metrics.repin_volume_at_3 all.challenger: 1.5 then, 1.75 now",)
