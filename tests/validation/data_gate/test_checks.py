"""The expectations: their names and bounds, and what they find in the whole of a snapshot."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import EventCounts, Snapshot
from pipelines.contracts.config import Head
from pipelines.contracts.time import DAY_MS
from pipelines.recipes import smoke
from support.data_gate import CONFIG
from support.snapshots import Change, copy_snapshot, rewrite, with_column, with_embedding
from validation.data_gate.checks import Judged, rate_shares, snapshot_checks
from validation.data_gate.gx_runner import Check
from validation.data_gate.snapshot_profile import Measures, profile_snapshot


def checked(snapshot: Snapshot, folder: Path, **thresholds: Any) -> dict[str, Check]:
    config, profile = CONFIG.model_copy(update=thresholds), profile_snapshot(snapshot, folder)
    return {c.name: c for c in snapshot_checks(Judged(config, snapshot, profile, None))}


def unmet(checks: dict[str, Check]) -> dict[str, list[str]]:
    """Return the parts of each expectation whose value lies beyond its bounds."""
    found = {
        name: [part for part in check.values if check.excess(part) > 0]
        for name, check in checks.items()
        if not check.not_judged
    }
    return {name: parts for name, parts in found.items() if parts}


def changed(
    snapshot: Snapshot, folder: Path, pattern: str, change: Change
) -> tuple[Snapshot, Path]:
    snapshot, folder = copy_snapshot(snapshot, folder)
    for path in sorted(folder.glob(pattern)):
        snapshot = rewrite(snapshot, folder, path.relative_to(folder).as_posix(), change)
    return snapshot, folder


NOTHING = "no.file"
WHOLE_DEFECTS: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("", NOTHING, None, {}),
    ("embedding_coverage", "pins.arrow", with_embedding(4, 0.0), {}),
    ("pin_embeddings_differ", "pins.arrow", with_embedding(-1, 0.25), {}),
    ("every_head_has_positives", "*/examples.arrow", with_column("label_save", np.zeros_like), {}),
    ("target_label_rate", "*/examples.arrow", with_column("label_repin", np.zeros_like), {}),
    ("target_label_rate_holdout", "*/examples.arrow", with_column("label_repin", np.ones_like), {}),
    ("known_categories", "*/examples.arrow", with_column("cat_surface", np.zeros_like), {}),
    ("", NOTHING, None, {"min_training_requests": 211}),  # the bound is met at its edge
    ("enough_training_requests", NOTHING, None, {"min_training_requests": 212}),
    ("enough_holdout_requests", NOTHING, None, {"min_holdout_requests": 10_000}),
    ("sequence_coverage", NOTHING, None, {"min_sequence_share": 0.999}),
]


@pytest.mark.parametrize(
    ("name", "pattern", "change", "thresholds"),
    WHOLE_DEFECTS,
    ids=[d[0] for d in WHOLE_DEFECTS],
)
def test_a_defect_of_the_whole_is_found(
    planted_snapshot: Snapshot,
    tmp_path: Path,
    name: str,
    pattern: str,
    change: Change,
    thresholds: dict[str, Any],
) -> None:
    snapshot, folder = changed(planted_snapshot, tmp_path / "snapshot", pattern, change)
    found = unmet(checked(snapshot, folder, **thresholds))
    assert name in found if name else found == {}


SOUND = (1000, 100, 50)
FEATURES = smoke().features.model_copy(
    update={"heads": (Head(name="repin", action_type="repin", utility_weight=1.0),
                      Head(name="like", action_type="like", utility_weight=0.0))}
)  # fmt: skip


@pytest.mark.parametrize(
    ("days", "odd", "share"),
    [
        ([(1000, 100, 0)] * 5 + [SOUND] * 9, 0, 1.0),  # a head that is launched within
        ([(1000, 100, 0), *[SOUND] * 5], 0, 1.0),
        ([(1000, 0, 0), *[SOUND] * 9], 0, 0.0),  # a day without any action, at the start too
        ([(1000, 0, 50), *[SOUND] * 9], 0, 0.0),  # a day without the main head
        ([SOUND] * 5 + [(1000, 100, 0)] + [SOUND] * 5, 5, 0.0),  # a launched one is missing
    ],
)
def test_a_new_head_stops_nothing_and_a_missing_one_does(
    days: list[tuple[int, int, int]], odd: int, share: float
) -> None:
    """Days of (examples, repins, likes), of which repin is the main head."""
    measures = Measures(days={n: np.array(day) for n, day in enumerate(days)})
    assert rate_shares(measures, FEATURES)[odd] == share


UNKNOWN, EARLY = ("most_requests_are_known", "requests_are_known"), "actions_follow_impressions"


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ((100, 50, 0, 0), UNKNOWN[1:]),
        ((100, 51, 0, 0), UNKNOWN),
        ((100, 5, 100, 5), ()),
        ((100, 0, 100, 6), (EARLY,)),
        ((1000, 0, 40, 30), ()),  # so few beside those that name one say nothing
        ((19, 19, 19, 19), ()),
    ],
)
def test_actions_that_name_nothing_or_come_too_early(
    planted_snapshot: Snapshot, counts: tuple[int, ...], names: tuple[str, ...]
) -> None:
    fields = ("num_naming", "num_naming_unknown", "num_near", "num_early")
    events = EventCounts(**dict(zip(fields, counts, strict=True)))
    snapshot = planted_snapshot.model_copy(update={"event_counts": events})
    assert tuple(unmet(checked(snapshot, storage.local_path(snapshot.uri)))) == names


def test_a_day_without_labels_is_named(planted_snapshot: Snapshot) -> None:
    profile = profile_snapshot(planted_snapshot, storage.local_path(planted_snapshot.uri))
    profile.measures.days[planted_snapshot.training.start_ms // DAY_MS + 3][1:] = 0
    checks = snapshot_checks(Judged(CONFIG, planted_snapshot, profile, None))
    day = f"{planted_snapshot.training.start.date() + timedelta(days=3)} (training)"
    assert unmet({each.name: each for each in checks}) == {"every_day_has_labels": [day]}
