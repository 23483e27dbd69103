"""The ledger: what a promotion was expected to bring, beside what was measured online.

    <workspace>/ledger/<model>/<digest>.json    a MeasuredLift, created only if it is absent

A verdict compares two models on logged requests. What the better one brings to people is measured
elsewhere, by an experiment, and entered here. Both numbers together say whether offline changes
foretell online ones, by how much they are off, and what a change of some size has meant. Not for
measuring online, nor for a verdict: that never reads this. Tested in
tests/pipelines/cycles/test_ledger.py.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from pipelines import storage
from pipelines.contracts.base import digest_of
from pipelines.contracts.cycle import Agreement, Lift, MeasuredLift
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.reasons import Interval
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.registry.history import Move, load, name_of

FEWEST_TO_FORETELL = 10
"""Entries from which on the ledger says what a change has meant."""
CONFIDENCE = 0.95


def add(workspace_uri: str, registered_model: str, given: Lift) -> MeasuredLift:
    """Enter what was measured of the model that served all that time; twice the same counts once.

    Raises:
        ConfigurationError: no one model served all that time in another's place.
    """
    move = _served_throughout(workspace_uri, registered_model, given.start, given.end)
    assert move.previous is not None
    labels = {"model": move.model.label, "previous": move.previous.label}
    entry = MeasuredLift(**given.model_dump(), **labels, **_expected(workspace_uri, move))
    name = f"{digest_of(entry.model_dump(mode='json'))}.json"
    storage.create(storage.join(workspace_uri, "ledger", registered_model, name), entry.to_record())
    return entry


def _served_throughout(workspace_uri: str, name: str, start: datetime, end: datetime) -> Move:
    """Return the move whose model served from start to end in the place of another."""
    moves = load(workspace_uri, name).in_time.moves
    last = next((move for move in reversed(moves) if move.moved_at < end), None)
    if last and last.previous and last.moved_at <= start < end:
        return last
    served = ", ".join(f"{m.model.label} from {m.moved_at:%Y-%m-%d %H:%M}" for m in moves[-5:])
    raise ConfigurationError(
        f"from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} no one model served in the place of "
        f"another; found {served or 'no move'}; expected a time within one model's service, the "
        f"first one's excepted; see `homefeed history`"
    )


def _expected(workspace_uri: str, move: Move) -> dict[str, Any]:
    """Return what the cycle of a move had expected; {} where none is on record."""
    # The run lies in this workspace, also where that was moved.
    run_uri = storage.join(workspace_uri, "runs", name_of(move.run_uri or ""))
    uri = manifest_uri(run_uri, "compare_with_champion")
    if move.kind not in ("promotion", "forced") or not storage.exists(uri):
        return {}
    judgement = Judgement.model_validate(storage.read_model(uri, StageRecord).artifact)
    if judgement.anchor and judgement.anchor.model.version == move.model.version:
        return {"offline": judgement.anchor.freshness.target_change}
    told = {e.estimator: e.relative_change for e in judgement.estimates if e.relative_change}
    return {"offline": judgement.comparison.target_change, "estimates": told}


def read(workspace_uri: str, registered_model: str) -> tuple[MeasuredLift, ...]:
    """Return all entries, the newest measurement first.

    Raises:
        DataContractError: an entry is damaged.
    """
    folder = storage.join(workspace_uri, "ledger", registered_model)
    uris = [storage.join(folder, n) for n in storage.list_names(folder) if n.endswith(".json")]
    found = [storage.read_model(uri, MeasuredLift) for uri in uris]
    return tuple(sorted(found, key=lambda each: (each.end, each.metric), reverse=True))


def account(entries: Iterable[MeasuredLift]) -> tuple[Agreement, ...]:
    """Return how each estimate has foretold the lifts of one metric, the comparison first."""
    found: dict[str, list[tuple[Interval, Interval]]] = {}
    for entry in entries:
        for name, change in {"comparison": entry.offline, **entry.estimates}.items():
            if change is not None:
                found.setdefault(name, []).append((change, entry.change))
    return tuple(_agreement(name, pairs) for name, pairs in found.items())


def _agreement(name: str, found: Sequence[tuple[Interval, Interval]]) -> Agreement:
    apart = np.array([change.value - lift.value for change, lift in found])
    # Two independent errors add up by their squares.
    reach = [math.hypot(c.high - c.low, lift.high - lift.low) / 2 for c, lift in found]
    clear = [(change, lift) for change, lift in found if not lift.low <= 0 <= lift.high]
    freedom, root = len(found) - 1, math.sqrt(len(found))
    return Agreement(
        estimator=name,
        num=len(found),
        num_covered=int((np.abs(apart) <= reach).sum()),
        num_clear=len(clear),
        num_signs=sum(change.value * lift.value > 0 for change, lift in clear),
        bias=_around(apart.mean(), apart.std(ddof=1) / root, freedom) if freedom else None,
    )


def foretell(entries: Iterable[MeasuredLift], change: float) -> tuple[Interval, int] | None:
    """Return what an offline change has meant online, with how many entries say so.

    It is the prediction interval of a straight line by least squares (Draper and Smith, Applied
    Regression Analysis, section 1.4). The change itself was estimated too; what is asked is what
    follows from an estimate, so its error belongs into the spread around the line. None with fewer
    than `FEWEST_TO_FORETELL` entries, or where all estimates are one number.
    """
    known = [(each.offline.value, each.lift) for each in entries if each.offline]
    x, y = np.array(known).reshape(-1, 2).T
    num, spread = len(x), ((x - x.mean()) ** 2).sum() if known else 0.0
    if num < FEWEST_TO_FORETELL or spread == 0:
        return None
    slope = ((x - x.mean()) * y).sum() / spread
    left = y - y.mean() - slope * (x - x.mean())
    value = y.mean() + slope * (change - x.mean())
    variance = (left**2).sum() / (num - 2) * (1 + 1 / num + (change - x.mean()) ** 2 / spread)
    return _around(value, math.sqrt(variance), num - 2), num


def of_main_metric(entries: Sequence[MeasuredLift]) -> tuple[MeasuredLift, ...]:
    """Return the entries of the metric that most entries have."""
    metrics = [entry.metric for entry in entries]
    main = max(dict.fromkeys(metrics), key=metrics.count, default="")
    return tuple(entry for entry in entries if entry.metric == main)


def _around(value: float, error: float, freedom: int) -> Interval:
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Interval(value=value, low=value - half, high=value + half, confidence=CONFIDENCE)
