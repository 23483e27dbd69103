"""The ledger: what a promotion was expected to bring, beside what was measured online.

    <workspace>/ledger/<model>/<digest>.json    a Measured, created only if it is absent

A verdict compares two models on logged requests. What the better one brings to people is measured
elsewhere, by an experiment, and entered here. Both numbers together say whether offline changes
foretell online ones, by how much they are off, and what a change of some size has meant. Not for
measuring online, nor for a verdict: that never reads this. Tested in
tests/pipelines/cycles/test_ledger.py.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Self

import numpy as np
from pydantic import AwareDatetime, BeforeValidator, Field, model_validator

from pipelines import storage
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.cycle import Agreement, Measured, Paired
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import Judgement, Promoted
from pipelines.contracts.reasons import Interval
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.contracts.time import parse_instant
from pipelines.registry.history import Move, load, name_of

FEWEST_TO_FORETELL = 10
"""Entries from which on the ledger says what a change has meant."""
CONFIDENCE = 0.95
COMPARISON = "comparison"
_Instant = Annotated[
    AwareDatetime, BeforeValidator(lambda text: parse_instant(str(text), "a time"))
]


class Given(Frozen):
    """What somebody enters; times are ISO 8601, UTC where they do not say."""

    metric: str = Field(min_length=1, max_length=80)
    lift: float = Field(ge=-1, allow_inf_nan=False)  # Relative, 0.012 is +1.2 %.
    low: float = Field(ge=-1, allow_inf_nan=False)  # Of its 95 % interval.
    high: float = Field(ge=-1, allow_inf_nan=False)
    start: _Instant = Field(alias="from")
    end: _Instant = Field(alias="to")
    source: str = Field("", max_length=200)  # Who measured, and how.

    @model_validator(mode="after")
    def _is_interval(self) -> Self:
        if not self.low <= self.lift <= self.high or self.low == self.high:
            raise ValueError(f"low {self.low}, lift {self.lift}, high {self.high} do not ascend")
        return self


FIELDS = tuple(field.alias or name for name, field in Given.model_fields.items())


def add(workspace_uri: str, registered_model: str, given: Given) -> Measured:
    """Enter what was measured of the model that served all that time; twice the same counts once.

    Raises:
        ConfigurationError: no one model served all that time in another's place.
    """
    move = _served_throughout(workspace_uri, registered_model, given.start, given.end)
    assert move.previous is not None
    interval = {"value": given.lift, "low": given.low, "high": given.high}
    entry = Measured(
        metric=given.metric,
        lift=Interval(**interval, confidence=CONFIDENCE),
        start=given.start,
        end=given.end,
        model=move.model.label,
        previous=move.previous.label,
        run_uri=move.run_uri if move.kind in ("promotion", "forced") else None,
        source=given.source,
    )
    name = f"{digest_of(entry.model_dump(mode='json'))}.json"
    storage.create(storage.join(workspace_uri, "ledger", registered_model, name), entry.to_record())
    return entry


def _served_throughout(workspace_uri: str, name: str, start: datetime, end: datetime) -> Move:
    """Return the move whose model served from start to end in the place of another."""
    moves = load(workspace_uri, name).in_time
    before = [move for move in moves if move.moved_at <= start]
    meanwhile = [move for move in moves if start < move.moved_at < end]
    if start < end and before and before[-1].previous and not meanwhile:
        return before[-1]
    served = ", ".join(f"{m.model.label} from {m.moved_at:%Y-%m-%d %H:%M}" for m in moves[-5:])
    raise ConfigurationError(
        f"from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} no one model served in the place of "
        f"another; found {served or 'no move'}; expected a time within one model's service, the "
        f"first one's excepted; see `homefeed history`"
    )


def read(workspace_uri: str, registered_model: str) -> tuple[Paired, ...]:
    """Return all entries with what their cycles had expected, the newest measurement first.

    Raises:
        DataContractError: an entry, or the verdict of a cycle, is damaged.
    """
    folder = storage.join(workspace_uri, "ledger", registered_model)
    names = [name for name in storage.list_names(folder) if name.endswith(".json")]
    found = [storage.read_model(storage.join(folder, name), Measured) for name in names]
    found.sort(key=lambda each: (each.end, each.metric), reverse=True)
    return tuple(_with_expected(workspace_uri, each) for each in found)


def _with_expected(workspace_uri: str, measured: Measured) -> Paired:
    """Return an entry beside what was expected of its model; of a run that is gone, nothing."""
    if measured.run_uri is None:
        return Paired(measured=measured)
    # The run lies in this workspace, also where that was moved.
    run_uri = storage.join(workspace_uri, "runs", name_of(measured.run_uri))
    try:
        record = storage.read_model(manifest_uri(run_uri, "compare_with_champion"), StageRecord)
    except FileNotFoundError:
        return Paired(measured=measured)
    judgement = Judgement.model_validate(record.artifact)
    if judgement.verdict.promoted is Promoted.ANCHOR and judgement.anchor is not None:
        return Paired(measured=measured, offline=judgement.anchor.freshness.target_change)
    changes = {each.estimator: each.relative_change for each in judgement.estimates}
    return Paired(
        measured=measured,
        offline=judgement.comparison.target_change,
        estimates={name: change for name, change in changes.items() if change},
    )


def account(pairs: Iterable[Paired]) -> tuple[Agreement, ...]:
    """Return how each estimate has foretold the lifts of one metric, the comparison first."""
    lifts: dict[str, list[tuple[Interval, Interval]]] = {}
    for pair in pairs:
        expected = {COMPARISON: pair.offline, **pair.estimates}
        for name, change in expected.items():
            if change is not None:
                lifts.setdefault(name, []).append((change, pair.measured.lift))
    return tuple(_agreement(name, found) for name, found in lifts.items())


def _agreement(name: str, found: Sequence[tuple[Interval, Interval]]) -> Agreement:
    apart = np.array([change.value - lift.value for change, lift in found])
    # Two independent errors add up by their squares.
    widths = [(change.high - change.low, lift.high - lift.low) for change, lift in found]
    reach = np.array([math.hypot(*each) / 2 for each in widths])
    clear = [(change, lift) for change, lift in found if not lift.low <= 0 <= lift.high]
    bias = None
    if len(found) > 1:
        half = _t(len(found) - 1) * apart.std(ddof=1) / math.sqrt(len(found))
        mean = float(apart.mean())
        bias = Interval(value=mean, low=mean - half, high=mean + half, confidence=CONFIDENCE)
    return Agreement(
        estimator=name,
        num=len(found),
        num_covered=int((np.abs(apart) <= reach).sum()),
        num_clear=len(clear),
        num_signs=sum(change.value * lift.value > 0 for change, lift in clear),
        bias=bias,
    )


def foretell(pairs: Iterable[Paired], change: float) -> tuple[Interval, int] | None:
    """Return what an offline change has meant online, with how many entries say so.

    It is the prediction interval of a straight line by least squares (Draper and Smith, Applied
    Regression Analysis, section 1.4). The change itself was estimated too; what is asked is what
    follows from an estimate, so its error belongs into the spread around the line. None with fewer
    than `FEWEST_TO_FORETELL` entries, or where all estimates are one number.
    """
    known = [(p.offline.value, p.measured.lift.value) for p in pairs if p.offline]
    num = len(known)
    if num < FEWEST_TO_FORETELL:
        return None
    x, y = np.array(known).T
    spread = ((x - x.mean()) ** 2).sum()
    if spread == 0:
        return None
    slope = ((x - x.mean()) * y).sum() / spread
    left = y - y.mean() - slope * (x - x.mean())
    value = float(y.mean() + slope * (change - x.mean()))
    variance = (left**2).sum() / (num - 2) * (1 + 1 / num + (change - x.mean()) ** 2 / spread)
    half = _t(num - 2) * math.sqrt(variance)
    meant = Interval(value=value, low=value - half, high=value + half, confidence=CONFIDENCE)
    return meant, num


def of_main_metric(pairs: Sequence[Paired]) -> tuple[Paired, ...]:
    """Return the entries of the metric that most entries have."""
    metrics = [pair.measured.metric for pair in pairs]
    main = max(dict.fromkeys(metrics), key=metrics.count, default="")
    return tuple(pair for pair in pairs if pair.measured.metric == main)


def _t(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))
