"""Simple ways to rank that every model is held against, measured on the same rows.

Six rankings by one number that a snapshot always holds, and a logistic regression on its numbers,
which is fitted on training rows. They were fixed before any model was tuned against them. Ties are
broken at random (`validation.model_gate.ranking_metrics`), so that the order of constants is the
random one. Not for what follows from them (`validation.model_gate.examine`), nor for serving.

Letters: N examples, M requests, F numeric columns.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.contracts.config import FeatureConfig, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.reasons import RANDOM, REGRESSION, BaselineFacts, MetricComparison
from validation.model_gate.comparison import Holdout, RatioMetric, measure_ratios
from validation.model_gate.intervals import FloatArray
from validation.model_gate.target_metric import volume_name

if TYPE_CHECKING:
    from training.data.reader import ExampleRows

MAX_ITERATIONS = 1_000


class Ranking(NamedTuple):
    """One way to order a request's candidates without a model."""

    name: str
    description: str
    needs: tuple[str, ...]  # names of numeric features
    score: Callable[..., Any]  # of their columns, float64 (N,): the highest goes first


RANKINGS = (
    Ranking(RANDOM, "A seeded hash of request and pin.", (), lambda: 0.0),
    *(
        Ranking(
            f"popularity, {days}",
            f"The pin's wanted actions in the {said} before the request's day, most first.",
            (name,),
            np.positive,
        )
        for name, days, said in (
            ("pin_popularity_1d", "1 day", "day"),
            ("pin_popularity_7d", "7 days", "7 days"),
            ("pin_popularity_28d", "28 days", "28 days"),
        )
    ),
    Ranking(
        "newest first",
        "pin_age, least first: the time since the pin's first appearance of the last 28 days, or "
        "since the time in the column that the recipe names; a pin without one is newest.",
        ("pin_age",),
        np.negative,  # A missing age is 0.
    ),
    Ranking(
        "past engagement",
        "The user's earlier actions on this very pin, most first; where equal, by popularity.",
        ("past_engagements", "pin_popularity_28d"),
        # The features are log(1 + count). The past counts as whole actions, and log(1 + popularity)
        # is far below the factor, so that no popularity outweighs an action.
        lambda past, popularity: np.expm1(past).round() * 1_000 + popularity,
    ),
)
"""Where two are equally good, the one that stands first counts as the better one."""


@dataclass(frozen=True)
class Baselines:
    """What was found of all of them, the best first, and their scores by name."""

    facts: tuple[BaselineFacts, ...]
    scores: Mapping[str, FloatArray]

    def best(self, name: str = "") -> BaselineFacts:
        """Return the one with the highest level, or the one of a name.

        Raises:
            DataContractError: it could not be measured.
        """
        for facts in self.facts:
            if facts.level is not None and name in ("", facts.name):
                return facts
        notes = "; ".join(f"{facts.name}: {facts.note}" for facts in self.facts)
        raise DataContractError(
            f"no baseline{f' by {name}' if name else ''} could be measured on the holdout "
            f"({notes or 'there is none'}); expected at least a random order, and the snapshot to "
            f"hold what is ranked by; look at the holdout's examples, and build the snapshot again"
        )


def measure(
    rows: "ExampleRows", training: "ExampleRows", score: FloatArray, config: RunConfig
) -> Baselines:
    """Return the target metric of each baseline, held against the challenger over users.

    Args:
        rows: of the holdout.
        training: of the training window; the regression is fitted on them.
        score: the challenger's, of the holdout's examples (N,).
        config: target metric and its head, and confidence.
    """
    holdout = Holdout(rows, config.features.heads, config.model_gate)
    head, target = holdout.target_head.name, config.model_gate.target_metric
    names = sorted(set(rows.numeric) & set(training.numeric))
    told = {ranking.name: ranking.description for ranking in RANKINGS}
    told[REGRESSION] = f"A logistic regression on {len(names)} numbers of the training rows."
    scores, notes = dict[str, FloatArray](), dict[str, str]()
    for ranking in RANKINGS:
        if missing := [name for name in ranking.needs if name not in rows.numeric]:
            notes[ranking.name] = f"The snapshot does not hold {', '.join(missing)}."
            continue
        columns = [rows.numeric[name].astype(np.float64) for name in ranking.needs]
        scores[ranking.name] = np.zeros(len(rows.request_index)) + ranking.score(*columns)
    try:
        scores[REGRESSION] = regression(rows, training, head, names)
    except DataContractError as error:
        notes[REGRESSION] = f"{error}"
    ours = holdout.hits(score, head)
    is_finite = bool(np.isfinite(ours).all())
    # Without a challenger's number the baselines have their levels all the same.
    ours = ours if is_finite else np.zeros_like(ours)
    requests = np.ones(len(ours)) if target == volume_name(head) else None
    pairs = [RatioMetric(name, ours, holdout.hits(theirs, head), requests)
             for name, theirs in scores.items()]  # fmt: skip
    table = measure_ratios(holdout, pairs, {"all": holdout.masks["all"]}).table
    cells = {row.metric: row for row in table if isinstance(row, MetricComparison)}
    facts = []
    for name, description in told.items():
        row, note = cells.get(name), notes.get(name, "")
        change = row.relative_change if row and is_finite else None
        if row and not is_finite:
            note = f"The challenger has no {target}: its scores are not finite."
        elif row and change is None:
            note = f"Its {target} is not surely above zero."
        facts.append(
            BaselineFacts(
                name=name,
                kind="regression" if name == REGRESSION else "ranking",
                description=description,
                level=row and row.baseline_interval,
                change=change,
                difference=row.difference if row and is_finite else None,
                note=note,
            )
        )
    facts.sort(key=lambda each: -np.inf if each.level is None else each.level.value, reverse=True)
    return Baselines(tuple(facts), scores)


def regression(
    rows: "ExampleRows", training: "ExampleRows", head: str, names: list[str]
) -> FloatArray:
    """Return the score (N,) of rows by a regression of a head's label on numbers of `training`."""
    known, asked = _columns(training, names), _columns(rows, names)
    return fit_and_score(known, training.labels[head], asked)


def lacking(baseline: str, features: FeatureConfig) -> list[str]:
    """Return the numbers that a baseline ranks by and a recipe does not tell its model."""
    needs = {ranking.name: ranking.needs for ranking in RANKINGS}
    told = {feature.name for feature in features.numeric}
    held = tuple(feature.name for feature in features.numeric_held)
    return [name for name in needs.get(baseline, held) if name not in told]


def _columns(rows: "ExampleRows", names: list[str]) -> FloatArray:
    """Return float64 (N, F)."""
    columns = [np.asarray(rows.numeric[name], dtype=np.float64) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows.request_index), 0))


def fit_and_score(
    training_NF: FloatArray, label_N: np.ndarray, holdout_NF: FloatArray
) -> FloatArray:
    """Return the log-odds that a regression gives to the holdout's examples.

    Args:
        training_NF: numbers of the training examples, finite.
        label_N: 0 or 1, the target's label of the training examples.
        holdout_NF: the same numbers of the holdout's examples, finite.

    Raises:
        DataContractError: there is no number, or all labels are the same.
    """
    if training_NF.shape[1] == 0:
        raise DataContractError("there is no numeric feature; expected at least one to regress on")
    if label_N.min(initial=1) == label_N.max(initial=0):
        raise DataContractError(
            f"all {len(label_N):,} training labels are the same; expected some of both"
        )
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(max_iter=MAX_ITERATIONS)
    model = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(training_NF, label_N)
        except ConvergenceWarning as warning:
            raise DataContractError(
                f"the regression on {training_NF.shape[1]} numbers did not settle within "
                f"{MAX_ITERATIONS} steps ({warning}); expected it to; look at the numeric features"
            ) from warning
    return np.asarray(model.decision_function(holdout_NF), dtype=np.float64)
