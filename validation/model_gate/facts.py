"""The facts of the model gate: up to three models scored on one holdout, compared, the gate tested.

Each side is ranked as it serves: by its own bundle's heads, weights and calibration, on features
that are computed as its own recipe says. Where two recipes differ in features, vocabulary or
embedding version, each side therefore has a snapshot of its own, of the same requests.

Not for the verdict (`validation.model_gate.verdict`). Historic metrics of the champion are never
used, because they were taken on another holdout. Historic *changes* are: see `pooling`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipelines.contracts.artifacts import ModelRef, Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import OffPolicyEstimate, SelfTest
from pipelines.contracts.reasons import POPULARITY, BaselineFacts, BaselineKind, Reason
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from training.bundle.files import BundleConfig, read_config
from training.bundle.score_split import Accelerator, SplitScores, score_once, score_split
from training.data.reader import load_rows, pin_vectors, pins_shown
from validation.model_gate.baselines import measure
from validation.model_gate.comparison import ComparedModels, Found, Holdout, compare
from validation.model_gate.off_policy import estimate
from validation.model_gate.policy import for_code
from validation.model_gate.self_test import run_self_test
from validation.model_gate.sizing import SAMPLED_POWER, users_needed

MAX_REGRESSION_EXAMPLES = 1_000_000
"""Training examples that the logistic regression is fitted on; its coefficients, a few dozen, are
known well from far fewer."""


@dataclass(frozen=True)
class Side:
    """A model with its bundle, and the snapshot whose holdout it scores."""

    model: ModelRef
    bundle_dir: Path
    snapshot: Snapshot
    snapshot_dir: Path
    scores_dir: Path | None = None  # Keeps its scores, which are not computed again then.
    accelerator: Accelerator = "cpu"  # What scores it.

    def score(self, label_heads: tuple[str, ...], num_users: int | None = None) -> SplitScores:
        """Return the scores of its holdout, of so many users where a number is given.

        Labels of these heads enter the digest of the rows.
        """
        asked = self.bundle_dir, self.snapshot, self.snapshot_dir, SPLIT_HOLDOUT, label_heads
        score = partial(score_once, self.scores_dir) if self.scores_dir else score_split
        return score(*asked, num_users=num_users, accelerator=self.accelerator)


@dataclass(frozen=True)
class Facts:
    """What is known of one cycle's models."""

    theta: Found  # the challenger against the champion, or the best simple baseline
    self_test: SelfTest = SelfTest()
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
    """A side with its bundle's configuration and scores, and why the holdout was none for it."""

    side: Side
    config: BundleConfig
    scores: SplitScores
    seen: tuple[Reason, ...]


def gather_facts(
    challenger: Side,
    champion: Side | None,
    config: RunConfig,
    anchor: tuple[Side, RunConfig] | None = None,
) -> Facts:
    """Compare the challenger with the champion; in a first cycle, with the best simple baseline.

    All comparisons see the same users: all of them, or in a large holdout as many as their bounds
    take. Those are scored first whose errors say how many that is.

    Args:
        challenger: Who is judged.
        champion: Who serves; None in the first cycle.
        config: The run's configuration.
        anchor: The accepted recipe made fresh, with its own configuration; it needs a champion.

    Raises:
        ConfigurationError: no head gives the target metric.
        DataContractError: a bundle cannot score its snapshot, the holdout is empty, or the sides'
            snapshots hold other requests.
        HomefeedError: the gate's self-test failed; no verdict of it can be trusted.
    """
    sides, gate = (challenger, champion, config, anchor), config.model_gate
    num_users = max(gate.sample_users, gate.min_users)
    is_large = sum(shard.num_users for shard in challenger.snapshot.shards) > num_users
    facts, tested = _found(*sides, num_users if is_large else None)
    if facts.theta.comparison.num_drawn is not None:
        needed, more = _users_needed(facts, config, anchor and anchor[1]), num_users
        while more < needed:  # Doubled: rounding on another machine draws the same users.
            more *= 2
        facts, tested = (facts, tested) if more == num_users else _found(*sides, more)
    tests = [
        run_self_test(*scored, found.comparison)
        for scored, found in zip(tested, (facts.theta, facts.phi), strict=False)
        if found
    ]
    facts = replace(facts, self_test=tests[0], estimates=estimate(*tested[0]))
    return facts if len(tests) == 1 else replace(facts, anchor_self_test=tests[1])


def _users_needed(facts: Facts, config: RunConfig, accepted: RunConfig | None) -> int:
    """Return how many users all bounds take that the verdict holds the comparisons against."""
    gates = [(facts.theta, config.model_gate)]
    if facts.delta and facts.phi and accepted:
        is_code = accepted.recipe_digest == config.recipe_digest
        gates.append((facts.delta, for_code(config.model_gate) if is_code else config.model_gate))
        gates.append((facts.phi, accepted.model_gate))
    return max(users_needed(found.comparison, gate, SAMPLED_POWER) for found, gate in gates)


def _found(
    challenger: Side,
    champion: Side | None,
    config: RunConfig,
    anchor: tuple[Side, RunConfig] | None,
    num_users: int | None,
) -> tuple[Facts, list[tuple[Holdout, SplitScores, SplitScores]]]:
    """Compare the models on so many users; what the gate shall test itself on comes second."""
    holdout = _holdout(challenger, config, num_users)
    training = load_rows(
        challenger.snapshot, challenger.snapshot_dir, SPLIT_TRAINING, MAX_REGRESSION_EXAMPLES
    )
    others = [side for side in (champion, anchor and anchor[0]) if side is not None]
    shared = tuple(
        name
        for name in challenger.snapshot.features.head_names
        if all(name in side.snapshot.features.head_names for side in others)
    )
    ours = _score(challenger, shared, num_users)
    baselines = measure(holdout.rows, training, ours.scores.ranking_score, config)
    if champion is None:
        beats = config.model_gate.first_champion_beats
        one = baselines.best(POPULARITY if beats == "popularity" else "")
        scores = SplitScores(baselines.scores[one.name], {}, ours.scores.holdout_digest)
        about = challenger.snapshot.holdout, BaselineKind(one.kind), challenger.model, None
        models = ComparedModels(*about, seen=ours.seen, baseline_name=one.name)
        theta = compare(holdout, ours.scores, scores, models)
    else:
        theirs = _score(champion, shared, num_users)
        theta, scores = _compare(holdout, ours, theirs, "challenger", "champion"), theirs.scores
    facts, tested = Facts(theta, baselines=baselines.facts), [(holdout, ours.scores, scores)]
    if anchor is None or champion is None:
        return facts, tested
    side, accepted = anchor
    fresh = _score(side, shared, num_users)
    delta = _compare(holdout, ours, fresh, "challenger", "fresh anchor")
    # The same requests, with the labels that the accepted recipe is judged by.
    holdout = _holdout(side, accepted, num_users)
    phi = _compare(holdout, fresh, theirs, "fresh anchor", "champion")
    return replace(facts, delta=delta, phi=phi), [*tested, (holdout, fresh.scores, scores)]


def _holdout(side: Side, config: RunConfig, num_users: int | None) -> Holdout:
    """Return what a side's snapshot holds of the judged requests, and of the pins they show."""
    place = side.snapshot, side.snapshot_dir
    rows = load_rows(*place, SPLIT_HOLDOUT, num_users=num_users)
    known, vectors = pins_shown(*place, SPLIT_TRAINING), pin_vectors(*place)
    return Holdout(rows, config.features.heads, config.model_gate, known, vectors)


def _score(side: Side, label_heads: tuple[str, ...], num_users: int | None) -> _Scored:
    """Score a side's holdout, and note where it was trained on rows of it."""
    config, holdout, scores = (
        read_config(side.bundle_dir),
        side.snapshot.holdout,
        side.score(label_heads, num_users),
    )
    trained_on = config.training
    if trained_on.end <= holdout.start or trained_on.start >= holdout.end:
        return _Scored(side, config, scores, ())
    days = {"start": trained_on.start, "end": trained_on.end}
    days |= {"holdout_start": holdout.start, "holdout_end": holdout.end}
    said = {name: f"{day:%Y-%m-%d}" for name, day in days.items()}
    seen = Reason.of("holdout_seen", model=side.model.label, **said)
    return _Scored(side, config, scores, (seen,))


def _compare(holdout: Holdout, ours: _Scored, theirs: _Scored, name: str, other: str) -> Found:
    """Compare two sides that are called so; 'fresh anchor' or 'champion' is the other one."""
    if ours.scores.holdout_digest != theirs.scores.holdout_digest:
        one, two = ours.side.snapshot.digest[:12], theirs.side.snapshot.digest[:12]
        raise DataContractError(
            f"snapshots {one} and {two} hold other holdout rows "
            f"({len(ours.scores.ranking_score):,} and {len(theirs.scores.ranking_score):,}; "
            f"digests {ours.scores.holdout_digest[:12]} and {theirs.scores.holdout_digest[:12]}); "
            f"expected the same requests, pins and labels; the event log changed between the two "
            f"builds: start a new cycle"
        )
    models = ComparedModels(
        ours.side.snapshot.holdout,
        BaselineKind.CHAMPION if other == "champion" else BaselineKind.ANCHOR,
        ours.side.model,
        theirs.side.model,
        tuple(what_differs(ours.config, theirs.config, (name, other))),
        (*ours.seen, *theirs.seen),
    )
    return compare(holdout, ours.scores, theirs.scores, models)


def what_differs(
    ours: BundleConfig, theirs: BundleConfig, names: tuple[str, str] = ("challenger", "champion")
) -> Iterator[Reason]:
    """Yield where two bundles' recipes differ in what they rank by and are told.

    Args:
        ours: The first side's.
        theirs: The second side's.
        names: What the two sides are called.
    """
    sides = {"first": names[0], "second": names[1]}
    told = []
    for config in (ours, theirs):
        features = config.features
        # The values of a closed list stand behind its name.
        closed = [f"{f.name} ({', '.join(f.values)})" for f in features.categorical]
        heads = [
            f"{h.name} ({'' if h.is_wanted else 'un'}wanted {h.action_type}, "
            f"weight {h.utility_weight:g})"
            for h in sorted(features.heads, key=lambda head: head.name)
        ]
        told.append({
            "embedding version": config.embedding_version,
            "action types": ", ".join(features.action_types),
            "categorical features": ", ".join(closed) or "none",
            "numeric features": ", ".join(f.label for f in features.numeric) or "none",
            "heads": ", ".join(heads),
        })  # fmt: skip
    for what, mine in told[0].items():
        if mine != (other := told[1][what]):
            yield Reason.of("recipes_differ", what=what, ours=mine, theirs=other, **sides)
