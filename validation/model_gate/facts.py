"""The facts of the model gate: up to three models scored on one holdout, compared, the gate tested.

Not for the verdict (`validation.model_gate.verdict`). Historic metrics of the champion are never
used, because they were taken on another holdout. Historic *changes* are: see `pooling`.
"""

from dataclasses import dataclass, replace

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import (
    BaselineFacts,
    BaselineKind,
    Comparison,
    OffPolicyEstimate,
    SelfTest,
)
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from training.bundle.score_split import SplitScores, score_split
from training.data.example_rows import ExampleRows, load_rows
from validation.model_gate.baselines.measure import (
    Baselines,
    kind_of,
    make_baselines,
    measure,
)
from validation.model_gate.baselines.rankings import POPULARITY
from validation.model_gate.comparison import ComparedModels, compare_with_influences
from validation.model_gate.off_policy.estimate import estimate
from validation.model_gate.policy.influence import Influences
from validation.model_gate.self_test.run import run_self_test
from validation.model_gate.sides import Side, what_differs, what_was_seen

MAX_REGRESSION_EXAMPLES = 1_000_000
"""Training examples that the logistic regression is fitted on; its coefficients, a few dozen, are
known well from far fewer."""


@dataclass(frozen=True)
class Found:
    """One comparison, and how much each group of users moves its deciding changes."""

    comparison: Comparison
    influences: Influences


@dataclass(frozen=True)
class Facts:
    """What is known of one cycle's models."""

    theta: Found  # the challenger against the champion, or the best simple baseline
    self_test: SelfTest
    delta: Found | None = None  # the challenger against the fresh anchor
    phi: Found | None = None  # the fresh anchor against the champion
    anchor_self_test: SelfTest = SelfTest()  # of the gate, on the fresh anchor's scores
    estimates: tuple[OffPolicyEstimate, ...] = ()  # challenger and baseline, from exploration
    baselines: tuple[BaselineFacts, ...] = ()  # the simple ones, the best first

    def pairs(self) -> dict[str, Found]:
        """Return the comparisons by name."""
        named = {"theta": self.theta, "delta": self.delta, "phi": self.phi}
        return {name: found for name, found in named.items() if found is not None}


@dataclass(frozen=True)
class _Scored:
    """A side with its scores, and why the holdout was none for it."""

    side: Side
    scores: SplitScores
    seen: tuple[str, ...]


def gather_facts(
    challenger: Side,
    champion: Side | None,
    config: RunConfig,
    anchor: tuple[Side, RunConfig] | None = None,
) -> Facts:
    """Compare the challenger with the champion; in a first cycle, with the best simple baseline.

    Every model is scored once, and all comparisons see the same draws of users.

    Args:
        challenger: Who is judged.
        champion: Who serves; None in the first cycle.
        config: The run's configuration.
        anchor: The accepted recipe made fresh, with its own configuration, by which it is judged;
            None where there is none. It needs a champion.

    Raises:
        ConfigurationError: no head gives the target metric.
        DataContractError: a bundle cannot score its snapshot, the holdout is empty, or the sides'
            snapshots hold other requests.
        HomefeedError: the gate's self-test failed; no verdict of it can be trusted.
    """
    rows = load_rows(challenger.snapshot, challenger.snapshot_dir, SPLIT_HOLDOUT)
    others = [side for side in (champion, anchor[0] if anchor else None) if side is not None]
    shared = tuple(
        name
        for name in challenger.snapshot.features.head_names
        if all(name in side.snapshot.features.head_names for side in others)
    )
    ours = _score(challenger, shared, config)
    baselines = measure_baselines(rows, ours, config)
    if champion is None:
        return _first_cycle(rows, ours, baselines, config)
    theirs = _score(champion, shared, config)
    models = _models(ours, theirs, "challenger", BaselineKind.CHAMPION)
    theta = _compare(rows, ours, theirs, models, config)
    self_test = _test_gate(rows, ours, theirs.scores, models, config)
    estimates = _estimates(rows, ours.scores, theirs.scores, config)
    facts = Facts(theta, self_test, estimates=estimates, baselines=baselines.facts)
    if anchor is None:
        return facts
    side, accepted = anchor
    fresh = _score(side, shared, accepted)
    models = _models(ours, fresh, "challenger", BaselineKind.ANCHOR)
    delta = _compare(rows, ours, fresh, models, config)
    # The same requests, with the labels that the accepted recipe is judged by.
    rows = load_rows(side.snapshot, side.snapshot_dir, SPLIT_HOLDOUT)
    models = _models(fresh, theirs, "fresh anchor", BaselineKind.CHAMPION)
    phi = _compare(rows, fresh, theirs, models, accepted)
    its_own = _test_gate(rows, fresh, theirs.scores, models, accepted)
    return replace(facts, delta=delta, phi=phi, anchor_self_test=its_own)


def measure_baselines(rows: ExampleRows, ours: _Scored, config: RunConfig) -> Baselines:
    """Return what the simple baselines are worth on the challenger's holdout."""
    snapshot, folder = ours.side.snapshot, ours.side.snapshot_dir
    training = load_rows(snapshot, folder, SPLIT_TRAINING, MAX_REGRESSION_EXAMPLES)
    return measure(rows, ours.scores, make_baselines(rows, training, config), config)


def _first_cycle(
    rows: ExampleRows, ours: _Scored, baselines: Baselines, config: RunConfig
) -> Facts:
    """Compare the challenger with the best of the baselines that it must beat."""
    model, holdout = ours.side.model, ours.side.snapshot.holdout
    one = baselines.find(POPULARITY) if config.model_gate.needs_popularity else baselines.best()
    kind = kind_of(one)
    models = ComparedModels(holdout, kind, model, None, seen=ours.seen, baseline_name=one.name)
    baseline = SplitScores(baselines.scores[one.name], {}, ours.scores.holdout_digest)
    heads, gate = config.features.heads, config.model_gate
    found = compare_with_influences(rows, ours.scores, baseline, models, heads, gate)
    estimates = _estimates(rows, ours.scores, baseline, config)
    self_test = _test_gate(rows, ours, baseline, models, config)
    return Facts(Found(*found), self_test, estimates=estimates, baselines=baselines.facts)


def _estimates(
    rows: ExampleRows, challenger: SplitScores, baseline: SplitScores, config: RunConfig
) -> tuple[OffPolicyEstimate, ...]:
    """Return what exploration says."""
    return estimate(rows, challenger, baseline, config.features.heads, config.model_gate)


def _score(side: Side, label_heads: tuple[str, ...], config: RunConfig) -> _Scored:
    scores = score_split(
        side.bundle_dir, side.snapshot, side.snapshot_dir, SPLIT_HOLDOUT, label_heads
    )
    seen = what_was_seen(
        side.model.label, side.bundle_config(), side.snapshot.holdout, config.snapshot
    )
    return _Scored(side, scores, seen)


def _models(ours: _Scored, theirs: _Scored, name: str, kind: BaselineKind) -> ComparedModels:
    mine, other = ours.side, theirs.side
    names = (name, "fresh anchor" if kind is BaselineKind.ANCHOR else "champion")
    return ComparedModels(
        mine.snapshot.holdout,
        kind,
        mine.model,
        other.model,
        what_differs(mine.bundle_config(), other.bundle_config(), names),
        (*ours.seen, *theirs.seen),
    )


def _compare(
    rows: ExampleRows, ours: _Scored, theirs: _Scored, models: ComparedModels, config: RunConfig
) -> Found:
    _require_same_rows(ours, theirs)
    heads, gate = config.features.heads, config.model_gate
    return Found(*compare_with_influences(rows, ours.scores, theirs.scores, models, heads, gate))


def _test_gate(
    rows: ExampleRows,
    ours: _Scored,
    baseline: SplitScores,
    models: ComparedModels,
    config: RunConfig,
) -> SelfTest:
    heads, gate = config.features.heads, config.model_gate
    return run_self_test(rows, ours.scores, baseline, models, heads, gate)


def _require_same_rows(ours: _Scored, theirs: _Scored) -> None:
    if ours.scores.holdout_digest != theirs.scores.holdout_digest:
        one, other = ours.side.snapshot.digest[:12], theirs.side.snapshot.digest[:12]
        raise DataContractError(
            f"snapshots {one} and {other} hold other holdout rows "
            f"({len(ours.scores.ranking_score):,} and {len(theirs.scores.ranking_score):,}; "
            f"digests {ours.scores.holdout_digest[:12]} and {theirs.scores.holdout_digest[:12]}); "
            f"expected the same requests, pins and labels; the event log changed between the two "
            f"builds: start a new cycle"
        )
