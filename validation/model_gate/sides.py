"""The two sides of a comparison: what each is scored with, and what has to be said of them first.

Each side is ranked as it serves: by its own bundle's heads, weights and calibration, on features
that are computed as its own recipe says. Where two recipes differ in features, vocabulary or
embedding version, each side therefore has a snapshot of its own, of the same requests. Not for
scoring (`training.bundle.score_split`).
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pipelines.contracts.artifacts import ModelRef, Snapshot
from pipelines.contracts.config import Head, SnapshotConfig
from pipelines.contracts.time import Window
from training.bundle.configuration import BundleConfig
from training.bundle.files import read_config


@dataclass(frozen=True)
class Side:
    """A model with its bundle, and the snapshot whose holdout it scores."""

    model: ModelRef
    bundle_dir: Path
    snapshot: Snapshot
    snapshot_dir: Path

    def bundle_config(self) -> BundleConfig:
        """Return what the side's bundle says of itself.

        Raises:
            DataContractError: the bundle is damaged.
        """
        return read_config(self.bundle_dir)


def what_differs(
    ours: BundleConfig, theirs: BundleConfig, names: tuple[str, str] = ("challenger", "champion")
) -> tuple[str, ...]:
    """Return in sentences where two bundles' recipes differ in what they rank by and are told.

    Args:
        ours: The first side's.
        theirs: The second side's.
        names: What the two sides are called.
    """
    first, second = names
    mine, other = _what_it_is_told(ours), _what_it_is_told(theirs)
    said = [
        f"The {first}'s {what}: {mine[what]}; the {second}'s: {other[what]}."
        for what in mine
        if mine[what] != other[what]
    ]
    heads, others = ({h.name: h for h in c.features.heads} for c in (ours, theirs))
    for name in dict.fromkeys((*heads, *others)):
        if heads.get(name) != others.get(name):
            said.append(
                f"Head '{name}' is {_describe(heads.get(name))} in the {first} and "
                f"{_describe(others.get(name))} in the {second}."
            )
    return tuple(said)


def _what_it_is_told(config: BundleConfig) -> dict[str, str]:
    """Return a bundle's features as text; the values of a closed list stand behind its name."""
    features = config.features
    closed = [f"{f.name} ({', '.join(f.values)})" for f in features.categorical]
    return {
        "embedding version": config.embedding_version,
        "action types": ", ".join(features.action_types),
        "categorical features": ", ".join(closed) or "none",
        "numeric features": ", ".join(f.label for f in features.numeric) or "none",
    }


def _describe(head: Head | None) -> str:
    if head is None:
        return "missing"
    wanted = "wanted" if head.is_wanted else "unwanted"
    return f"{wanted}, of action '{head.action_type}', with weight {head.utility_weight:g}"


def what_was_seen(
    label: str, config: BundleConfig, holdout: Window, schedule: SnapshotConfig
) -> tuple[str, ...]:
    """Return why a side may not be judged on a holdout: it was trained on rows of it.

    Args:
        label: The side's name for people.
        config: What its bundle says.
        holdout: The rows that it would be judged on.
        schedule: The run's windows. An older bundle does not name its training window; it is then
            taken to lie before its as_of as this run's does.
    """
    window = config.training
    if window is None:
        end = config.as_of - timedelta(days=schedule.holdout_days + schedule.embargo_days)
        window = Window(start=end - timedelta(days=schedule.training_days), end=end)
    if window.end <= holdout.start or window.start >= holdout.end:
        return ()
    return (
        f"{label} was trained on rows from {window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}, which "
        f"overlap the holdout from {holdout.start:%Y-%m-%d} to {holdout.end:%Y-%m-%d}: it has seen "
        f"answers that it would be judged on.",
    )
