"""Measures the simple baselines on the holdout, on the same draws of users as everything else.

Not for what follows from them (`rule`). Tested in
tests/validation/model_gate/baselines/test_measure.py.

Letters: N examples, M requests, F numeric columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import BaselineFacts, BaselineKind, Interval, MetricComparison
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.baselines import regression
from validation.model_gate.baselines.rankings import RANDOM, RANKINGS
from validation.model_gate.comparison import HoldoutUsers, bootstrap_metrics
from validation.model_gate.holdout_metrics import RatioMetric, segment_masks
from validation.model_gate.ranking_metrics import top_k_hits
from validation.model_gate.target_metric import TOP_K, TargetMetric, target_metric, volume_name

FloatArray = NDArray[np.float64]
Kind = Literal["ranking", "regression"]
_AGAINST_RANDOM = "against random: "


@dataclass(frozen=True)
class Baseline:
    """One baseline with its scores, or why it has none."""

    name: str
    kind: Kind
    description: str
    score: FloatArray | None  # (N,), finite
    note: str = ""


@dataclass(frozen=True)
class Baselines:
    """What was found of all of them, the best first, and their scores by name."""

    facts: tuple[BaselineFacts, ...]
    scores: Mapping[str, FloatArray]

    def find(self, name: str) -> BaselineFacts:
        """Return a baseline that has scores.

        Raises:
            DataContractError: it could not be measured.
        """
        for facts in self.facts:
            if facts.name == name and name in self.scores:
                return facts
        raise DataContractError(
            f"the baseline {name!r} could not be measured on the holdout; expected the snapshot to "
            f"hold what it ranks by; build the snapshot again"
        )

    def best(self) -> BaselineFacts:
        """Return the one with the highest level.

        Raises:
            DataContractError: none has a level.
        """
        if not self.facts or self.facts[0].level is None:
            notes = "; ".join(f"{facts.name}: {facts.note}" for facts in self.facts)
            raise DataContractError(
                f"no baseline could be measured on the holdout ({notes or 'there is none'}); "
                f"expected at least a random order; look at the holdout's examples"
            )
        return self.facts[0]


def kind_of(facts: BaselineFacts) -> BaselineKind:
    """Return how a comparison with this baseline is called."""
    return BaselineKind(facts.kind)


def make_baselines(
    rows: ExampleRows, training: ExampleRows, config: RunConfig
) -> tuple[Baseline, ...]:
    """Return every baseline with its scores of the holdout.

    Args:
        rows: of the holdout.
        training: of the training window; the regression is fitted on them.
        config: whose target metric names the head.
    """
    num_examples = len(rows.request_index)
    found = []
    for ranking in RANKINGS:
        missing = [name for name in ranking.needs if name not in rows.numeric]
        score = None if missing else ranking.score(rows.numeric, num_examples)
        note = f"The snapshot does not hold {', '.join(missing)}." if missing else ""
        found.append(Baseline(ranking.name, "ranking", ranking.description, score, note))
    head = target_metric(config.model_gate, config.features.heads).head.name
    return (*found, _regression(rows, training, head))


def measure(
    rows: ExampleRows, challenger: SplitScores, made: tuple[Baseline, ...], config: RunConfig
) -> Baselines:
    """Return the target metric of each baseline, with paired intervals over users.

    Each is held against the challenger and against a random order.

    Args:
        rows: of the holdout.
        challenger: its scores of these rows.
        made: from `make_baselines`; one of them is the random order.
        config: target metric, draws and confidence.
    """
    gate = config.model_gate
    target = target_metric(gate, config.features.heads)
    label = rows.labels[target.head.name]
    hits = {b.name: _hits(rows, b.score, label) for b in made if b.score is not None}
    ours = _hits(rows, challenger.ranking_score, label)
    requests = np.ones(len(rows.user_id)) if target.name == volume_name(target.head.name) else None
    pairs = [RatioMetric(name, ours, theirs, requests, True) for name, theirs in hits.items()]
    if (random := hits.get(RANDOM)) is not None:
        pairs += [
            RatioMetric(_AGAINST_RANDOM + name, theirs, random, requests, True)
            for name, theirs in hits.items()
        ]
    everybody = {"all": segment_masks(rows)["all"]}
    table = bootstrap_metrics(rows, pairs, everybody, HoldoutUsers.of(rows), gate).table
    cells = {row.metric: row for row in table if isinstance(row, MetricComparison)}
    facts = [_facts(baseline, cells, target) for baseline in made]
    best_first = tuple(sorted(facts, key=_level, reverse=True))
    return Baselines(best_first, {b.name: b.score for b in made if b.score is not None})


def _level(facts: BaselineFacts) -> float:
    return -np.inf if facts.level is None else facts.level.value


def _hits(rows: ExampleRows, score: FloatArray, label: np.ndarray) -> FloatArray:
    """Return the target's actions in the top 3 per request (M,); NaN without a finite score."""
    if not np.all(np.isfinite(score)):
        return np.full(len(rows.user_id), np.nan)
    return np.asarray(top_k_hits(rows, score, label, k=TOP_K), dtype=np.float64)


def _facts(
    baseline: Baseline, cells: Mapping[str, MetricComparison], target: TargetMetric
) -> BaselineFacts:
    """Return one baseline's facts from the table of comparisons."""
    row = cells.get(baseline.name)
    against_random = cells.get(_AGAINST_RANDOM + baseline.name)
    # Where the challenger's scores are not finite, the pair with the random order has the level.
    level: Interval | None = row.baseline_interval if row is not None else None
    if row is None and against_random is not None:
        level = against_random.challenger_interval
    note = baseline.note
    if not note and row is None:
        note = f"The challenger has no {target.name}: its scores are not finite."
    elif not note and row is not None and row.relative_change is None:
        note = f"Its {target.name} is zero in a resample of the users."
    return BaselineFacts(
        name=baseline.name,
        kind=baseline.kind,
        description=baseline.description,
        level=level,
        change=row.relative_change if row is not None else None,
        difference=row.difference if row is not None else None,
        against_random=against_random.relative_change if against_random is not None else None,
        note=note,
    )


def _regression(rows: ExampleRows, training: ExampleRows, head: str) -> Baseline:
    """Return the regression on all numbers that both splits hold."""
    names = sorted(set(rows.numeric) & set(training.numeric))
    said = f"A logistic regression on {len(names)} numbers, fitted on the training rows."
    try:
        score = regression.fit_and_score(
            _columns(training, names), training.labels[head], _columns(rows, names)
        )
    except DataContractError as error:
        return Baseline(regression.NAME, "regression", said, None, f"{error}")
    return Baseline(regression.NAME, "regression", said, score)


def _columns(rows: ExampleRows, names: list[str]) -> FloatArray:
    """Return float64 (N, F)."""
    columns = [np.asarray(rows.numeric[name], dtype=np.float64) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows.request_index), 0))
