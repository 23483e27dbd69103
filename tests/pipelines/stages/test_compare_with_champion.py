"""What is compared is what was registered, and what that leaves in MLflow.

In MLflow there are two finished runs, whose numbers have the same names.
"""

import contextlib
import html
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.alerts.compose import compose_verdict
from pipelines.alerts.outcomes import outcome_of
from pipelines.alerts.rendering import render
from pipelines.contracts.artifacts import (
    AnchorWhy,
    Challenger,
    DataReport,
    ExpectationOutcome,
    FreshAnchor,
    ResolvedRun,
    Severity,
    Standing,
)
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Decision
from pipelines.contracts.reasons import LinePoint
from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.cycles.index import tell_moved
from pipelines.cycles.reading import read_cycle
from pipelines.recipes import smoke
from pipelines.registry import tracking
from pipelines.registry.history import Move
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from pipelines.stages.compare_with_champion import (
    _sides,
    _standing_with,
    compare_with_champion,
    log_sides,
)
from support.bundles import write_small_bundle
from support.commands import EXECUTABLE
from support.desk import record_move, variant
from support.judgements import make_promotion, ruled
from support.markdown import as_shown
from support.registered import NO_ANCHOR, challenger_of, judgement_of, register_bundle
from support.runs import make_run, save_artifact, save_run
from support.worlds import PLANTED_VERSION, write_planted_world

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WARNED = ExpectationOutcome(
    name="save_rate",
    description="The rate of saves is as usual.",
    severity=Severity.WARNING,
    is_met=False,
    observed="-67 %",
    expected="within 30 %",
    partitions=("2026-02-20",),
)
REPORT = DataReport(
    outcomes=(WARNED,),
    docs_uri="file:///w/docs/index.html",
    snapshot_digest="d" * 64,
    reference_digest=None,
)


@pytest.mark.services
def test_both_sides_are_logged_once_under_the_same_names(tmp_path: Path, tracking_uri: str) -> None:
    name = f"ranker_{tmp_path.name}"
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    run = make_run(tmp_path, **places)
    client = tracking.connect(tracking_uri)
    model = register_bundle(client, run, tmp_path)
    judged = judgement_of(run, model, Decision.REJECT)
    outcome = outcome_of(run, judged, None, Settings())
    judged = judged.model_copy(update={"outcome": outcome})
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "verdict.html").write_text("a page")
    for _ in range(2):
        log_sides(client, run, judged, tmp_path / "report")
    experiment = client.get_experiment_by_name(name)
    found = client.search_runs([experiment.experiment_id], order_by=["tags.homefeed_side DESC"])
    challenger, baseline = found
    assert challenger.info.run_id == model.mlflow_run_id
    change = judged.comparison.target.relative_change
    decision = {"change": change.value, "low": change.low, "high": change.high}
    assert challenger.data.metrics == {
        **{f"decision/{k}_percent": pytest.approx(100 * v) for k, v in decision.items()},
        "decision/repin_volume_at_3": 1.8,
        "holdout/repin_volume_at_3": 1.8,
        "serving/latency_p50_ms": 4.0,
        "serving/latency_p99_ms": 6.0,
        "serving/processor_p99_ms": 5.0,
        "serving/peak_memory_mib": 400.0,
        "serving/golden_difference": 1e-8,
    }
    assert baseline.data.metrics == {
        "decision/repin_volume_at_3": 1.78,
        "holdout/repin_volume_at_3": 1.78,
    }
    assert baseline.info.run_name == "2017-03-02 ranking by popularity 17-03-02"
    assert [file.path for file in client.list_artifacts(challenger.info.run_id, "comparison")] == [
        "comparison/verdict.html"
    ]
    for found in (challenger, baseline):
        assert found.info.status == "FINISHED"
        assert found.data.tags["homefeed_run_id"] == run.run_id
    version = client.get_model_version(name, model.version)
    assert challenger.data.tags["verdict"] == version.tags["verdict"] == "REJECT"
    assert "verdict" not in baseline.data.tags  # it was not judged


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> ResolvedRun:
    """A cycle of a planted world that is small: what its models are worth does not matter here."""
    folder = tmp_path_factory.mktemp("compared")
    write_planted_world(folder / "event_log", num_users=60)
    places = {
        "tracking_uri": tracking_uri,
        "registered_model": "compared",
        "experiment": "compared",
    }
    return make_run(folder, **places)


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return tracking.connect(tracking_uri)


def bundle_of(folder: Path, seed: int) -> Path:
    return write_small_bundle(folder / f"seed-{seed}", seed, EMBEDDING_DIM, PLANTED_VERSION)


def published(client: MlflowClient, run: ResolvedRun, folder: Path) -> tuple[Challenger, Path]:
    """Return a registered challenger, and the folder of the bundle that was published of it."""
    bundle = bundle_of(folder, 1)
    place = shutil.copytree(bundle, folder / "published")
    challenger = challenger_of(register_bundle(client, run, folder, bundle))
    return challenger.model_copy(update={"bundle_uri": storage.to_uri(place)}), place


@pytest.mark.services
def test_every_place_tells_the_outcome_word_for_word(
    run: ResolvedRun, client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = write_snapshot(run)
    challenger, _ = published(client, run, tmp_path)
    caplog.set_level("INFO")
    sides = snapshot, REPORT, challenger, NO_ANCHOR
    output_uri = storage.to_uri(tmp_path / "output")
    judged = compare_with_champion(run, *sides, output_uri, NOW, Settings())
    assert judged.comparison.challenger_model == challenger.model
    outcome = judged.outcome
    assert outcome is not None and len(outcome.warnings) == 1
    save_run(run)
    save_artifact(run, "compare_with_champion", judged)

    page = html.unescape((tmp_path / "output" / "verdict.html").read_text("utf-8"))
    found = client.get_run(challenger.model.mlflow_run_id).data.tags
    described = as_shown(found["mlflow.note.content"])
    rejected = ruled(Decision.REJECT, *outcome.reasons)
    otherwise = judged.model_copy(update={"verdict": rejected})
    message = compose_verdict(outcome, otherwise, run, Settings())
    cycle = read_cycle(run.run_uri, Settings())
    assert message is not None
    alert, lines = render(message).text, "\n".join(cycle.outcome.lines())
    sentences = [outcome.title, outcome.number, *outcome.reasons]
    sentences += [*outcome.warnings, outcome.done, outcome.next_step.sentence]
    for place in (page, described, caplog.text, lines):
        for sentence in sentences:
            assert sentence in place
    assert outcome.serves in page and outcome.serves in caplog.text
    assert outcome.title in alert and outcome.next_step.sentence in alert
    assert all(command in page and command in lines for _, command in outcome.next_step.commands)
    assert found["verdict"] == outcome.decision
    query = f"tags.{tracking.CYCLE} = '{run.run_id}' and tags.{tracking.SIDE} = 'baseline'"
    experiment = client.get_experiment_by_name(run.experiment)
    [other] = client.search_runs([experiment.experiment_id], query)
    digests = {each.dataset.digest for each in other.inputs.dataset_inputs}
    assert snapshot.digest[:36] in digests
    assert 'href="../../../../cycles.html"' in page  # all cycles; Airflow, MLflow and Data Docs:
    assert all(
        uri in page for label, uri in outcome.links if label not in ("Verdict page", "All cycles")
    )
    version = client.get_model_version(challenger.model.name, challenger.model.version)
    assert version.description == found["mlflow.note.content"]
    tell_moved(run.workspace_uri, run.registered_model, run.run_uri)  # Nobody serves yet.
    assert "not all of what the move changes was told" not in caplog.text
    save_artifact(run, "promote_challenger", make_promotion(True, champion_after=challenger.model))
    at = {"moved_at": NOW, "kind": "promotion", "reason": "It won.", "run_uri": run.run_uri}
    move = Move(model=challenger.model, previous=None, **at)
    record_move(run.workspace_uri, move, run.registered_model)
    tell_moved(run.workspace_uri, run.registered_model)
    version = client.get_model_version(challenger.model.name, challenger.model.version)
    assert version.description.startswith(f"Serves since {NOW:%Y-%m-%d %H:%M} UTC.")
    assert "-67 % in 2026-02-20; expected within 30 %" in outcome.warnings[0]
    assert ("Data Docs", REPORT.docs_uri) in outcome.links


@pytest.mark.services
def test_a_side_whose_bundle_is_not_the_registered_one_is_not_judged(
    run: ResolvedRun, client: MlflowClient, tmp_path: Path
) -> None:
    """A promotion serves the registered one: a verdict on another bundle would be about nothing."""
    snapshot = write_snapshot(run)
    trained, place = published(client, run, tmp_path)
    with contextlib.ExitStack() as stack:
        sides = (stack, run, tmp_path, snapshot, trained, NO_ANCHOR)
        mine, champion, anchor = _sides(*sides)
        assert (mine.bundle_dir, champion, anchor) == (place, None, None)
        other = trained.model_copy(update={"bundle_uri": bundle_of(tmp_path, 3).as_uri()})
        known = {"champion": trained.model, "standing": Standing(anchor=run.config)}
        anew = NO_ANCHOR.model_copy(update={"trained": other, "snapshot": snapshot})
        with pytest.raises(DataContractError, match="its bundle in .* train_anchor .*--again"):
            _sides(*sides[:1], run.model_copy(update=known), *sides[2:5], anew)
        shutil.copytree(bundle_of(tmp_path, 2), place, dirs_exist_ok=True)
        again = f"run `{EXECUTABLE} stage train_challenger {run.run_uri} --again`"
        with pytest.raises(DataContractError, match=f"its bundle in {place} is .*{again}"):
            _sides(*sides)


@pytest.mark.parametrize(
    ("anchor", "code", "why", "lead", "is_held"),
    [
        (smoke(), "a" * 64, AnchorWhy.SAME, -0.08, False),  # What nobody changed goes out.
        (smoke(), "b" * 64, AnchorWhy.SAME_MODEL, -0.08, False),
        (smoke(), "b" * 64, AnchorWhy.OTHER_CODE, -0.08, True),
        (variant(9), "a" * 64, AnchorWhy.OTHER_RECIPE, -0.08, True),
        (variant(9), "a" * 64, AnchorWhy.OTHER_RECIPE, 0.0, False),
        (None, "", AnchorWhy.OTHER_RECIPE, -0.08, False),
    ],
)
def test_a_lost_line_holds_what_was_changed(
    tmp_path: Path, anchor: RunConfig | None, code: str, why: AnchorWhy, lead: float, is_held: bool
) -> None:
    standing = Standing(anchor=anchor, anchor_code_digest=code, hold="It was rolled back.")
    run = make_run(tmp_path, standing=standing, code_digest="a" * 64)
    of = {"reference": "logistic regression", "as_of": NOW, "error": 0.005}
    line = tuple(LinePoint(value=value, **of) for value in (0.0, 0.0, lead, lead))
    hold = _standing_with(run, line, FreshAnchor(why=why)).hold
    assert hold.endswith("It was rolled back.")
    assert hold.startswith("Over 4 champions, the lead over the logistic") is is_held
