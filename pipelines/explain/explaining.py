"""How much of a challenger's loss comes back with each part that is put back: the door of the room.

Each setting, which is the challenger's with some parts put back, is trained with the same seeds,
which are not the challenger's own, and ranks the run's holdout. The challenger's own setting, on
which all rests, is trained with as many seeds again. With C and X the levels of challenger and
winning side, and v(S) the mean over the seeds with the parts S put back,

    X - C = [v(nothing) - C] + sum over parts of [v(part) - v(nothing)] + unexplained,

of which the first is what the challenger's own seed has cost. Where the luck of seeds hardly leaves
so much unexplained, and at most `MOST_FOR_SHAPLEY` parts differ, all sets of parts are trained, and
Shapley's value shares out what they do together. What each model hits is kept: a killed command
goes on. Not for the verdict, which stays. Letters: M requests.
"""

import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pipelines import deletion, storage
from pipelines.contracts.artifacts import Challenger, ResolvedRun, Snapshot
from pipelines.contracts.base import digest_of
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.errors import ConfigurationError, DataContractError, HomefeedError
from pipelines.contracts.explain import ExplainedPart, Explanation, explanation_uri
from pipelines.contracts.judgement import Comparison, Judgement
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.contracts.progress import tracked
from pipelines.contracts.reasons import Interval
from pipelines.contracts.run_layout import VERDICT_PAGE
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.snapshot_files import verify_files
from pipelines.cycles.reading import record_of
from pipelines.explain.parts import Setting, parts_of, put_back
from pipelines.explain.training import Trainer
from pipelines.registry import history, tracking
from pipelines.stages.runner import read_artifact
from pipelines.stages.train import work_dir_of

if TYPE_CHECKING:
    from validation.model_gate import intervals
    from validation.model_gate.comparison import Holdout

MOST_FOR_SHAPLEY = 3
CONFIDENCE = 0.95
Parts = frozenset[str]
"""Names of the parts that are put back."""
NOTHING, OWN = Parts(), Parts(("seed",))
"""The challenger's setting with other seeds, and the challenger itself."""
Weights = Mapping[tuple[Parts, int], float]
"""Of single models: the setting of each, and which of its seeds it has."""
Hits = npt.NDArray[np.int16]
"""The target's actions in the top 3 of each request, (M,)."""


def explain(run_uri: str, num_seeds: int = 2) -> Explanation:
    """Say how much of a run's loss each part explains; a part that cannot be put back is left out.

    Raises:
        HomefeedError: the challenger lost nothing, its own setting cannot be trained any more, or
            what a retry may heal, which goes on where this ended.
    """
    from training.bundle.score_split import digest_rows
    from training.data.reader import SnapshotReader, load_rows
    from validation.model_gate.comparison import Holdout

    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    snapshot = read_artifact(run_uri, "build_snapshot", Snapshot)
    comparison, theirs, gap = winning_side(run)
    uri, first = explanation_uri(run.workspace_uri, run.run_id), run.config.training.seed + 1
    with (
        storage.exclusive_lock(uri, f"explaining {run.run_id}"),
        storage.local_copy(snapshot.uri) as folder,
    ):
        verify_files(snapshot, folder)
        drawn = comparison.num_drawn
        rows = load_rows(snapshot, folder, SPLIT_HOLDOUT, num_users=drawn)
        reader = SnapshotReader(snapshot.shards, folder, snapshot.features, 1)
        digest = digest_rows(reader, reader.index(SPLIT_HOLDOUT).of_users(drawn), ())
        holdout = Holdout(rows, run.config.features.heads, run.config.model_gate)
        seeds = tuple(range(first, first + 2 * num_seeds))
        work = _Work(run, snapshot, comparison, theirs, holdout, digest, seeds)
        work.measure([NOTHING, OWN, *(Parts((name,)) for name in work.parts)])
        found, names = work.explanation("one at a time", gap), work.names
        is_left = abs(found.unexplained) > found.unexplained_floor
        if is_left and 2 <= len(names) <= MOST_FOR_SHAPLEY:
            sets = [Parts(s) for n in range(2, len(names) + 1) for s in combinations(names, n)]
            work.measure(sets)
            if {*sets} <= work.levels.keys():
                found = work.explanation("Shapley", gap)
        storage.write_model(uri, found)
        deletion.remove(storage.join(work.folder_uri, "train_registry"))
    return found


def show(run_uri: str) -> None:
    """Write what was found onto the verdict page, and into the challenger's MLflow run.

    Raises:
        TrackingUnavailableError: MLflow does not answer; the page is written.
    """
    from validation.report.pages import for_mlflow
    from validation.report.verdict_page import write_report

    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    judgement = read_artifact(run_uri, "compare_with_champion", Judgement)
    record, outcome = record_of(run, judgement.comparison), judgement.outcome
    if record.explanation is None or outcome is None or not storage.exists(judgement.report_uri):
        return  # A page that was deleted, or has no words, is not written again.
    with storage.scratch_folder(run.workspace_uri) as scratch:
        page = write_report(judgement, run, scratch, record).read_text("utf-8")
    storage.write_bytes(judgement.report_uri, page.encode())
    client, model = tracking.connect(run.tracking_uri), judgement.comparison.challenger_model
    shown = for_mlflow(page, dict(outcome.links)["Verdict page"])
    texts = {VERDICT_PAGE: shown, "explain.json": record.explanation.model_dump_json(indent=2)}
    with translated_outages(run.tracking_uri):
        for name, text in texts.items():
            client.log_text(model.mlflow_run_id, text, f"comparison/{name}")


def winning_side(run: ResolvedRun) -> tuple[Comparison, Setting, str]:
    """Return the comparison that a run lost, the other side's setting, and what of it is unknown.

    It is that with the fresh anchor where the recipe was the reason, else that with the champion.
    """
    judgement = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    comparison, anchor, gap = judgement.comparison, run.standing.anchor, ""
    theirs = Setting(run.config, run.champion.as_of if run.champion else run.as_of, "")
    if judgement.anchor and anchor and judgement.verdict.grounds[0].code.startswith("recipe_"):
        comparison = judgement.anchor.recipe
        theirs = Setting(anchor, run.as_of, run.standing.anchor_code_digest)
    elif run.champion is not None:
        try:
            known = history.load(run.workspace_uri, run.registered_model).recipe_of(run.champion)
            if known is None:
                raise DataContractError(f"the history has no recipe of {run.champion.label}")
            theirs = Setting(known.parse(), run.champion.as_of, known.code_digest)
        except (ConfigurationError, DataContractError) as error:
            gap = str(error)
    change = comparison.target_change
    if change is None or change.value >= 0 or comparison.is_first_cycle:
        raise ConfigurationError(
            f"{run.run_id} lost nothing of {comparison.target_metric} to another model (change: "
            f"{change and change.value}); expected a challenger that did worse; name another run"
        )
    return comparison, theirs, gap


@dataclass
class _Work:
    """Settings that were trained with each seed, and what they have hit."""

    run: ResolvedRun
    snapshot: Snapshot
    comparison: Comparison
    theirs: Setting
    holdout: "Holdout"
    holdout_digest: str
    seeds: tuple[int, ...]
    levels: dict[Parts, list[Hits]] = field(default_factory=dict)  # Of each seed's model.
    left_out: dict[str, str] = field(default_factory=dict)  # Why, by the part's name.

    def __post_init__(self) -> None:
        from validation.model_gate.target_metric import volume_name

        run, target, everybody = self.run, self.comparison.target, self.holdout.masks["all"]
        self.ours = Setting(run.config, run.as_of, run.code_digest or code_digest())
        self.parts = parts_of(self.ours, self.theirs)
        self.folder_uri = explanation_uri(run.workspace_uri, run.run_id).rpartition("/")[0]
        self.trainer = Trainer(run, self.snapshot, self.folder_uri)
        self.num_seeds = len(self.seeds) // 2
        self.head = self.holdout.target_head.name
        self.is_volume = run.config.model_gate.target_metric == volume_name(self.head)
        assert target is not None and target.baseline, "a change has a baseline"
        num = np.ones(len(everybody)) if self.is_volume else self.holdout.share_of_user(everybody)
        self.whole = target.baseline * num  # (M,) What the winning side hits, if all were alike.

    def measure(self, sets: Iterable[Parts]) -> None:
        """Train and score settings; a part that cannot be put back is left out."""
        own, hits = (self.run.config.training.seed,), dict[Parts, list[Hits]]()
        seeds = {OWN: own, NOTHING: self.seeds}
        jobs = [(s, seed) for s in sets for seed in seeds.get(s, self.seeds[: self.num_seeds])]
        for parts, seed in tracked(jobs, "trainings"):
            try:
                if not self.left_out.keys() & parts:
                    hits.setdefault(parts, []).append(self._hits_of(parts, seed))
            except HomefeedError as error:
                if error.is_retryable or not parts:
                    raise
                hits.pop(parts, None)
                self.left_out |= {name: str(error) for name in parts if len(parts) == 1}
        self.levels |= hits
        self.names = [name for name in self.parts if Parts((name,)) in self.levels]

    def _hits_of(self, parts: Parts, seed: int) -> Hits:
        """Return what a setting's model of one seed hits, training it where that is not known."""
        made = read_artifact(self.run.run_uri, "train_challenger", Challenger)
        setting, sink = self.ours, io.BytesIO()
        for name in sorted(parts - OWN):
            setting = put_back(setting, self.theirs, name)
        training = setting.recipe.training.model_copy(update={"seed": seed})
        recipe = setting.recipe.model_copy(update={"training": training})
        of = {"features", "snapshot", "model", "training"}
        decides = [recipe.model_dump(mode="json", include=of), f"{setting.as_of}", setting.code]
        decides = [made.model.bundle_digest] if parts == OWN else decides
        key = digest_of([*decides, self.snapshot.digest])[:16]
        place = storage.join(self.folder_uri, key)
        if not storage.exists(uri := f"{place}.npy"):
            bundle_uri, scored_on = made.bundle_uri, self.snapshot
            if parts != OWN:
                bundle_uri, scored_on = self.trainer.train(replace(setting, recipe=recipe), place)
            np.save(sink, self._score(bundle_uri, scored_on))
            storage.write_bytes(uri, sink.getvalue())
        of_place = self.run.model_copy(update={"run_uri": place})
        for left in (place, work_dir_of(of_place, "part").as_uri()):
            deletion.remove(left)
        return np.asarray(np.load(io.BytesIO(storage.read_bytes(uri))))

    def _score(self, bundle_uri: str, snapshot: Snapshot) -> Hits:
        """Return what a model hits of the run's requests."""
        from training.bundle.score_split import score_split

        with (
            storage.local_copy(bundle_uri) as bundle_dir,
            storage.local_copy(snapshot.uri) as snapshot_dir,
        ):
            asked = bundle_dir, snapshot, snapshot_dir, SPLIT_HOLDOUT
            scores = score_split(*asked, num_users=self.comparison.num_drawn)
        hits = self.holdout.hits(scores.ranking_score, self.head)
        if scores.holdout_digest != self.holdout_digest or not np.isfinite(hits).all():
            raise DataContractError(
                f"a score is not finite, or snapshot {snapshot.digest[:12]} holds other requests "
                f"than the run's; expected a score of each; the event log may have changed since"
            )
        return hits.astype(np.int16)

    def _weights(self, name: str, method: str) -> Weights:
        """Return a part's gain as a sum of what single models hit."""
        if name == "seed":
            mean = 1 / len(self.seeds)
            return {**{(NOTHING, n): mean for n in range(len(self.seeds))}, (OWN, 0): -1.0}
        others, weights = [each for each in self.names if each != name], dict[Parts, float]()
        for num in range(len(self.names) if method == "Shapley" else 0):
            share = 1 / len(self.names) / math.comb(len(others), num)
            for before in combinations(others, num):
                weights |= {Parts((*before, name)): share, Parts(before): -share}
        weights = weights or {Parts((name,)): 1.0, NOTHING: -1.0}
        num = self.num_seeds
        return {(parts, n): w / num for parts, w in weights.items() for n in range(num)}

    def explanation(self, method: Literal["one at a time", "Shapley"], gap: str) -> Explanation:
        """Return what is found by now; `gap` is why nothing is known of the other side's recipe."""
        comparison, total, found = self.comparison, Counter({(OWN, 0): 1.0}), list[ExplainedPart]()
        assert comparison.target_change is not None, "something was lost"
        loss = comparison.target_change.times(-1.0)
        seeds = f"{', '.join(map(str, self.seeds))} -> {self.run.config.training.seed}"
        for name, change in {**self.parts, "seed": seeds}.items():
            told: dict[str, Any] = {"left_out": self.left_out.get(name, "")}
            if not told["left_out"]:
                weights = self._weights(name, method)
                total.update(weights)
                told = {"gain": self._share(weights), "noise_floor": self._floor(weights)}
            found.append(ExplainedPart(name=name, change=change, **told))
        if gap:
            found.append(ExplainedPart(name="recipe and code", change="not known", left_out=gap))
        return Explanation(
            challenger=comparison.challenger_model.label,
            against=comparison.baseline_label,
            target_metric=comparison.target_metric,
            loss=loss,
            parts=tuple(sorted(found, key=lambda p: -p.gain.value if p.gain else math.inf)),
            segments=self._segments(),
            unexplained=loss.value - sum(part.gain.value for part in found if part.gain),
            unexplained_floor=self._floor(total, others=1.0),
            method=method,
            seeds=self.seeds,
            seed_deviation=math.sqrt(self._noise().variance),
            num_trainings=sum(len(hits) for parts, hits in self.levels.items() if parts != OWN),
        )

    def _noise(self) -> "intervals.Part":
        """Return the variance between trainings that differ in the seed."""
        from validation.model_gate.intervals import Part

        trained = [hits for parts, hits in self.levels.items() if parts != OWN]
        squares = sum(len(hits) * float(np.var(np.sum(hits, axis=1))) for hits in trained)
        freedom = sum(len(hits) - 1 for hits in trained)
        return Part(squares / freedom / float(self.whole.sum()) ** 2, freedom)

    def _floor(self, weights: Weights, others: float = 0.0) -> float:
        """Return how far a sum of models, and so many others, reach by luck alone."""
        from validation.model_gate.intervals import reach

        times = sum(weight**2 for weight in weights.values()) + others
        return reach(self._noise().scaled(math.sqrt(times)), CONFIDENCE)

    def _share(self, weights: Weights) -> Interval:
        """Return a sum of what models hit as a share of all that the winning side has hit."""
        from validation.model_gate.intervals import ratio_estimate

        hits = sum(w * self.levels[parts][n] for (parts, n), w in weights.items())
        cells = self.holdout.cells
        found = ratio_estimate(cells.sums(np.asarray(hits)), cells.sums(self.whole), cells)
        assert found is not None, "the winning side's level is above zero"
        # One user alone tells nothing of others.
        alone = Interval(value=found.value, low=-1.0, high=1.0, confidence=CONFIDENCE)
        return found.interval(CONFIDENCE) or alone

    def _segments(self) -> dict[str, Interval]:
        """Return what core and other users' requests add to the loss."""
        found = {}
        for name in ("core", "non_core"):
            row = self.comparison.find(self.comparison.target_metric, name)
            if row and row.difference:
                mask = self.holdout.masks[name]
                num = mask.sum() if self.is_volume else self.holdout.count_users(mask)
                found[name] = row.difference.times(-float(num / self.whole.sum()))
        return found
