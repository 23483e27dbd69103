"""How a loss is shared out, what is left out by name, and that nothing is trained twice."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.contracts.explain import Explanation, explanation_uri
from pipelines.contracts.judgement import AnchorFacts, Decision, Judgement
from pipelines.contracts.reasons import BaselineKind, Reason
from pipelines.explain import explaining, training
from pipelines.explain.explaining import Parts, explain
from pipelines.explain.parts import Setting
from pipelines.recipes import smoke
from pipelines.stages.runner import read_artifact
from support.bundles import chance_bundle
from support.commands import lines
from support.judgements import SERVING, TESTED, interval, make_judgement, metric, ruled, told
from support.lost_cycles import begin, changed, lose, save_challenger, setting
from support.older_code import keep_older_code
from support.runs import PLANTED_AS_OF, save_artifact, save_run
from support.training_process import signal_when
from support.worlds import write_planted_world
from training.fitting.spec import TrainingResult, TrainingSpec

DAY = timedelta(days=1)
WEEK_AND_RATE = changed(changed(smoke(), "snapshot", training_days=7), "training", batch_size=256)
OURS = setting(smoke(), PLANTED_AS_OF)
THEIRS = setting(WEEK_AND_RATE, PLANTED_AS_OF - 14 * DAY)
LOSS = 0.0625
Lost = Callable[..., ResolvedRun]


@pytest.fixture(scope="module")
def event_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    write_planted_world(folder / "event_log")
    return folder / "event_log"


@pytest.fixture
def lost(tmp_path: Path, event_log: Path) -> Lost:
    """Makes a run that lost 6.25 % to its champion; its bundle is of a model of chance."""

    def make(theirs: Setting = THEIRS, ours: Setting = OURS, **fields: Any) -> ResolvedRun:
        (tmp_path / "event_log").symlink_to(event_log)
        run, snapshot = begin(tmp_path, ours, theirs, **fields)
        model = save_challenger(run, chance_bundle(tmp_path / "bundle", snapshot, run.config, 17))
        names = {"baseline_model": run.champion, "challenger_model": model}
        names |= {"num_users": 40, "num_users_in_all": 48}  # The explanation reads those 40 alone.
        change = interval(-LOSS, -0.1, -0.02)
        rows = [metric("repin_volume_at_3", change, 1.5, name, 1.6) for name in ("all", "core")]
        rows = [row.model_copy(update={"difference": interval(-0.1)}) for row in rows]
        judged = make_judgement(Decision.REJECT, metrics=tuple(rows), **names)
        judged = judged.model_copy(update={"outcome": told(judged)})
        save_artifact(run, "compare_with_champion", judged)
        return run

    return make


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[TrainingSpec]:
    """What was trained; a model of chance is what comes of it."""
    asked: list[TrainingSpec] = []

    def train(spec: TrainingSpec, node: object = None) -> TrainingResult:
        asked.append(spec)
        bundle = Path(spec.work_dir) / "bundle"
        chance_bundle(bundle, spec.snapshot, spec.config, spec.config.training.seed)
        return TrainingResult.model_construct(bundle_dir=str(bundle))

    monkeypatch.setattr("training.launch.launcher.train", train)
    return asked


def gains(found: Explanation) -> dict[str, float]:
    return {part.name: part.gain.value for part in found.parts if part.gain}


def test_each_part_is_trained_with_each_seed_and_all_adds_up(lost: Lost, specs: list) -> None:
    run = lost()
    found = explain(run.run_uri)
    names = ("data", "snapshot.training_days", "training", "seed")
    assert {part.name for part in found.parts} == {*names}
    assert sum(gains(found).values()) + found.unexplained == pytest.approx(LOSS)
    assert found.loss.low < LOSS < found.loss.high
    assert (found.method, found.num_trainings, found.seeds) == (
        "one at a time",
        10,
        (18, 19, 20, 21),
    )
    asked = [(s.snapshot.as_of, s.snapshot.training.end - s.snapshot.training.start,
              s.config.training.batch_size) for s in specs[2::2]]  # fmt: skip
    now, then = PLANTED_AS_OF, PLANTED_AS_OF - 14 * DAY
    expected = [(now, 14 * DAY, 512), (then, 14 * DAY, 512), (now, 7 * DAY, 512)]
    assert asked == [*expected, (now, 14 * DAY, 256)]
    assert [s.config.training.seed for s in specs] == [18, 19, 20, 21, *[18, 19] * 3]
    assert all(s.mlflow_run_id == "" and s.lineage.snapshot_digest for s in specs)
    folder = storage.local_path(explanation_uri(run.workspace_uri, run.run_id)).parent
    assert list(folder.glob("*/")) == []
    assert Explanation.from_record((folder / "explain.json").read_bytes()) == found
    assert explain(run.run_uri) == found and len(specs) == 10
    more = explain(run.run_uri, 3)
    assert len(specs) == 15 and more.seeds == tuple(range(18, 24))


def test_what_was_trained_before_a_kill_is_not_trained_again(
    lost: Lost, specs: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, built, write = lost(), list[object](), training.write_snapshot
    monkeypatch.setattr(training, "write_snapshot", lambda *a: built.append(a) or write(*a))
    real, save = training.train_apart, np.save

    def killed(*given: Any) -> Any:
        raise SystemExit(137)

    for place in (1, 5, 7):
        monkeypatch.setattr(
            training, "train_apart", lambda *a, n=place: (real if len(specs) < n else killed)(*a)
        )
        with pytest.raises(SystemExit):
            explain(run.run_uri)
        assert len(specs) == place
    monkeypatch.setattr(training, "train_apart", real)
    monkeypatch.setattr(np, "save", killed)  # A model is trained, and is not scored yet.
    with pytest.raises(SystemExit):
        explain(run.run_uri)
    monkeypatch.setattr(np, "save", save)
    found = explain(run.run_uri)
    assert len({spec.identity() for spec in specs}) == found.num_trainings == 10
    assert len(specs) == 11 and len(built) == 1  # The launcher finds that one finished.
    monkeypatch.setattr(training, "train_apart", killed)
    assert explain(run.run_uri) == found


def at(**values: Any) -> Setting:
    return replace(THEIRS, **values)


GONE = changed(WEEK_AND_RATE, "snapshot", embedding_version="retired-7")


@pytest.mark.parametrize(
    ("theirs", "name", "said"),
    [
        (at(recipe=GONE), "snapshot.embedding_version", "retired-7"),
        (at(code="e" * 64), "code", "e{64} holds no wheel"),
        (at(as_of=PLANTED_AS_OF - 300 * DAY), "data", "covers 2017-01-01 to"),
    ],
)
def test_what_cannot_be_put_back_is_left_out_by_name(
    lost: Lost, specs: list, theirs: Setting, name: str, said: str
) -> None:
    found = explain(lost(theirs).run_uri)
    [left] = [part for part in found.parts if part.left_out]
    assert found.parts[-1] == left and left.is_luck
    assert left.name == name and re.search(said, left.left_out)
    assert "seed" in gains(found) and len(gains(found)) >= 3


def test_a_bundle_of_another_schema_or_gone_and_a_history_with_gaps_are_left_out(
    lost: Lost, specs: list, tmp_path: Path
) -> None:
    run = lost()
    hits = storage.local_path(explanation_uri(run.workspace_uri, run.run_id)).parent
    described = tmp_path / "bundle" / "bundle.json"
    whole = json.loads(described.read_text())
    described.write_text(json.dumps(whole | {"schema_version": 99}))
    [left] = [part for part in explain(run.run_uri).parts if part.left_out]
    assert left.name == "seed" and "schema_version" in left.left_out
    (tmp_path / "bundle").rename(tmp_path / "away")
    assert "No such file" in explain(run.run_uri).parts[-1].left_out
    [entry] = (tmp_path / "workspace" / "history" / "test_ranker").glob("0*1.json")
    entry.write_text("{}")
    found = explain(run.run_uri)
    assert gains(found).keys() == {"data"} and len([*hits.glob("*.npy")]) == 10
    assert "no recipe of test_ranker v3" in found.parts[-1].left_out


def test_what_a_retry_may_heal_is_raised_and_so_is_what_nothing_can_do_without(
    lost: Lost, specs: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lost()

    def fail(*given: Any) -> Any:
        raise error

    monkeypatch.setattr(training, "train_apart", fail)
    for error in (TransientStorageError("full"), ConfigurationError("no own recipe")):
        with pytest.raises(type(error), match=str(error)):
            explain(run.run_uri)
    won = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    rows = (metric("repin_volume_at_3", interval(0.01)),)
    comparison = won.comparison.model_copy(update={"metrics": rows})
    save_artifact(run, "compare_with_champion", won.model_copy(update={"comparison": comparison}))
    with pytest.raises(ConfigurationError, match=r"lost nothing of repin_volume_at_3.* 0\.01"):
        explain(run.run_uri)


def test_the_fresh_anchor_is_the_other_side_where_the_recipe_was_the_reason(
    lost: Lost, specs: list
) -> None:
    run = lost()
    accepted = {"anchor": WEEK_AND_RATE, "anchor_code_digest": "e" * 64}
    standing = run.standing.model_copy(update=accepted)
    run = save_run(run.model_copy(update={"standing": standing}))
    judged = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    recipe = judged.comparison.model_copy(update={"baseline_kind": BaselineKind.ANCHOR})
    anchor = AnchorFacts(model=run.champion, recipe=recipe, freshness=judged.comparison,
                         self_test=TESTED, serving=SERVING)  # fmt: skip
    why = "baseline baseline_level change days difference level metric pooled users"
    worse = Reason(code="recipe_worse", facts=dict.fromkeys(why.split(), "x"))
    verdict = ruled(Decision.REJECT, "x").model_copy(update={"grounds": (worse,)})
    save_artifact(run, "compare_with_champion",
                  judged.model_copy(update={"anchor": anchor, "verdict": verdict}))  # fmt: skip
    found = explain(run.run_uri)  # Neither its bundle nor its code is there any more.
    assert found.against == "the fresh anchor test_ranker v3"
    assert gains(found).keys() == {"snapshot.training_days", "training", "seed"}
    assert found.parts[-1].name == "code" and "holds no wheel" in found.parts[-1].left_out


def planted(
    monkeypatch: pytest.MonkeyPatch, level: Callable[[Parts], float], luck: float, own: float
) -> None:
    """Let settings hit so much of what the winning side hits; seeds differ by so much."""

    def hits(self: Any, parts: Parts, seed: int) -> np.ndarray:
        now = own if parts == explaining.OWN else level(parts) + (luck if seed % 2 else -luck)
        return self.whole * now

    monkeypatch.setattr(explaining._Work, "_hits_of", hits)


def test_parts_that_add_up_are_put_back_one_at_a_time(
    lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    worth = {"data": 0.05, "snapshot.training_days": -0.01, "training": 0.0}
    planted(monkeypatch, lambda parts: 0.95 + sum(worth[p] for p in parts), 0.01, 0.94)
    run = lost()
    found = explain(run.run_uri)
    assert gains(found) == pytest.approx(worth | {"seed": 0.01})
    assert found.parts[0].name == "data" and not found.parts[0].is_luck
    [same] = [part for part in found.parts if part.name == "training"]
    assert same.is_luck and same.noise_floor > 0.01
    assert found.method == "one at a time" and found.unexplained == pytest.approx(LOSS - 0.05)
    assert found.segments.keys() == {"core"} and found.segments["core"].value > 0
    assert found.seed_deviation == pytest.approx(
        (10 * 0.01**2 / 6) ** 0.5
    )  # four seeds, and three pairs


@pytest.mark.parametrize("theirs", [THEIRS, at(recipe=smoke())])
def test_parts_that_do_it_together_share_it_by_shapleys_value_where_few_differ(
    lost: Lost, monkeypatch: pytest.MonkeyPatch, theirs: Setting
) -> None:
    together = {"data", "snapshot.training_days"}
    planted(monkeypatch, lambda parts: 1.0 if together <= parts else 0.94, 0.0001, 0.94)
    found = explain(lost(theirs).run_uri)
    if theirs is not THEIRS:
        assert found.method == "one at a time" and found.num_trainings == 6
        return
    assert found.method == "Shapley" and found.num_trainings == 18
    worth = {**dict.fromkeys(together, 0.03), "training": 0, "seed": 0}
    assert gains(found) == pytest.approx(worth)
    assert found.unexplained == pytest.approx(LOSS - 0.06)


def test_the_command_tells_what_was_found_and_so_does_the_page(
    lost: Lost, specs: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worth = {"data": 0.05, "snapshot.training_days": -0.01, "training": 0.0}
    planted(monkeypatch, lambda parts: 0.95 + sum(worth[p] for p in parts), 0.001, 0.95)
    run = lost(at(code="e" * 64))
    monkeypatch.setitem(worth, "code", 0.0)
    logged: dict[str, str] = {}
    page = tmp_path / "verdict.html"
    page.write_text("before")
    judged = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    links = (("Verdict page", "https://pages/verdict.html"),)
    outcome = told(judged).model_copy(update={"links": links})
    judged = judged.model_copy(update={"report_uri": page.as_uri(), "outcome": outcome})
    save_artifact(run, "compare_with_champion", judged)
    client = SimpleNamespace(log_text=lambda run_id, text, place: logged.update({place: text}))
    monkeypatch.setattr("pipelines.registry.tracking.connect", lambda uri: client)
    said = lines("explain", run.run_uri)
    assert said[0].endswith("v4 has 6.25 % less repin_volume_at_3 than champion test_ranker v3")
    assert said[1].startswith("  data (rows before 2017-02-16 -> 2017-03-02): +5.00 % (+5.00 to")
    assert said[1].endswith(", 80 % of the loss")
    assert said[-1] == "12 trainings, 0.13 % apart by their seed alone; one at a time"
    assert logged.keys() == {"comparison/verdict.html", "comparison/explain.json"}
    assert json.loads(logged["comparison/explain.json"])["parts"][0]["name"] == "data"
    html = page.read_text()
    assert "Why did it regress?" in html and "80 % of the loss" in html
    assert "the luck of seeds brings up to" in html


FASTER = ("training/fitting/lightning_module.py", "lr=training.learning_rate,",
          "lr=training.learning_rate * 20,")  # fmt: skip
SLOW = changed(smoke(), "training", learning_rate=smoke().training.learning_rate / 20)


@pytest.mark.slow
def test_changed_code_is_found_though_the_command_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_planted_world(tmp_path / "event_log", num_users=240)
    code = keep_older_code(storage.to_uri(tmp_path / "workspace"), tmp_path / "older", FASTER)
    ours = setting(SLOW, PLANTED_AS_OF)
    run = lose(tmp_path, replace(ours, code=code), ours)
    folder = storage.local_path(explanation_uri(run.workspace_uri, run.run_id)).parent
    command = [sys.executable, "-m", "pipelines.cli", "explain", run.run_uri]

    def is_at_the_second() -> bool:
        is_begun = any(folder.glob("*/train_*/training/metrics.jsonl"))
        return is_begun and len([*folder.glob("*.npy")]) == 1

    process = subprocess.Popen(command, env=os.environ | {"HOMEFEED_HOME": str(tmp_path)})
    signal_when(is_at_the_second, process, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    found = explain(run.run_uri)  # Nothing is trained or scored twice, and nothing is left.
    assert found.parts[0].name == "code" and found.num_trainings == 6
    assert before and {path: path.stat().st_mtime_ns for path in before} == before
    assert len([*folder.glob("*.npy")]) == 7 and not [*folder.glob("*/")]
