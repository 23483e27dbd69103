"""A snapshot's profile as a file: the next cycle reads it instead of the whole snapshot again.

The file is JSON. Only the measures are kept, which is all that shift is judged by; which rows broke
a rule stands in the data report. Not for measuring (`validation.data_gate.snapshot_profile`).
"""

import json
import logging
from typing import Any

import numpy as np

from pipelines.contracts.base import digest_of
from validation.data_gate.measures import LENGTH_EDGES, NUMERIC_EDGES, Measures
from validation.data_gate.snapshot_profile import SnapshotProfile

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
"""To be raised when a measure changes its meaning. A change of bins changes the format by
itself."""


def _format() -> str:
    """Return what the file's numbers mean, as a digest: the version and the bins."""
    bins = {scale: edges.tolist() for scale, edges in NUMERIC_EDGES.items()}
    return digest_of([FORMAT_VERSION, bins, LENGTH_EDGES.tolist()])[:16]


def _format_of_two_numbers() -> str:
    """Return the format of files from before recipes could choose numbers.

    Such a file has the histograms of the two numbers that every snapshot had, in the bins of the
    scale log1p, and no labels per day. Shift is judged by all else that it holds. Its snapshot
    cannot be measured anew, because it lacks columns that are expected today.
    """
    bins = [NUMERIC_EDGES["log1p"].tolist(), LENGTH_EDGES.tolist()]
    return digest_of([1, ["pin_popularity", "past_engagements"], bins])[:16]


def to_json(profile: SnapshotProfile, snapshot_digest: str) -> str:
    """Return the text of the file.

    Args:
        profile: What was measured.
        snapshot_digest: The snapshot that was measured.
    """
    value = {
        "format": _format(),
        "snapshot_digest": snapshot_digest,
        "unmeasured_shards": profile.unmeasured_shards,
        "mean_pin_norm": profile.mean_pin_norm,
        "pin_spread": profile.pin_spread,
        "measures": vars(profile.measures),
        "shifts": profile.shifts,
    }
    return json.dumps(value, indent=1, default=np.ndarray.tolist)


def from_json(text: bytes | str, snapshot_digest: str) -> SnapshotProfile | None:
    """Return the profile in a file; None if it is of another format or of another snapshot."""
    try:
        value = json.loads(text)
        if value["snapshot_digest"] != snapshot_digest:
            return None
        measures = value["measures"]
        if value["format"] == _format_of_two_numbers():
            measures = {"labels_per_day": {}} | measures
        elif value["format"] != _format():
            return None
        return SnapshotProfile(
            measures=_measures(measures),
            unmeasured_shards=value["unmeasured_shards"],
            mean_pin_norm=value["mean_pin_norm"],
            pin_spread=value["pin_spread"],
            shifts=value.get("shifts", {}),  # files of before have none
        )
    except (ValueError, KeyError, TypeError) as error:
        log.warning("the kept profile of snapshot %s is damaged: %r", snapshot_digest[:16], error)
        return None


def _measures(value: dict[str, Any]) -> Measures:
    """Return the measures with their types, which JSON does not know."""
    if value.keys() != vars(Measures()).keys():
        raise KeyError(f"expected the measures {sorted(vars(Measures()))}, found {sorted(value)}")
    days = {int(day): count for day, count in value["requests_per_day"].items()}
    labels = {int(day): np.array(row, np.int64) for day, row in value["labels_per_day"].items()}
    found = {name: _arrays(counts) for name, counts in value.items()}
    return Measures(**found | {"requests_per_day": days, "labels_per_day": labels})


def _arrays(value: Any) -> Any:
    """Return lists of counts as arrays, also inside a dictionary."""
    if isinstance(value, dict):
        return {name: _arrays(inner) for name, inner in value.items()}
    return np.array(value, np.int64) if isinstance(value, list) else value
