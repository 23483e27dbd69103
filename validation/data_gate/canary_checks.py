"""The expectations of canaries: embeddings under one version are what they were.

Not for keeping or comparing them (`canaries`).
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipelines.contracts.artifacts import Snapshot
from validation.data_gate.canaries import (
    FEWEST_COMPARED,
    choose_canaries,
    compare_canaries,
    write_canaries,
)
from validation.data_gate.snapshot_profile import Reference, SnapshotProfile

CHANGED = "changed_share"
LARGEST_CHANGED_SHARE = 0.01
"""A larger share of changed embeddings is critical, a smaller one a warning."""


class JudgedCanaries(NamedTuple):
    """What the gate's checks need to know of the canaries."""

    table: pd.DataFrame  # partition (pins, users), CHANGED
    phrases: dict[tuple[str, str], str]
    not_judged: str  # why nothing was compared; '' where something was


def judge_canaries(
    snapshot: Snapshot,
    snapshot_dir: Path,
    profile: SnapshotProfile,
    reference: Reference | None,
    path: Path,
) -> JudgedCanaries:
    """Compare a snapshot with the kept canaries, and keep its own.

    Args:
        snapshot: What is judged.
        snapshot_dir: Local folder with its files.
        profile: Its profile.
        reference: The last accepted snapshot; None in the first cycle.
        path: The file for its own canaries.
    """
    none = pd.DataFrame(columns=["partition", CHANGED])
    if (
        not snapshot.shards
        or profile.unmeasured_shards
        or profile.pins.has("schema_problems", "null_values")
    ):
        return JudgedCanaries(none, {}, "the snapshot's files cannot be read or measured")
    write_canaries(choose_canaries(snapshot, snapshot_dir), path)
    if reference is None:
        return JudgedCanaries(none, {}, "no earlier accepted snapshot to compare with")
    kept = reference.canaries
    if kept is None:
        return JudgedCanaries(none, {}, "no embeddings of the last accepted snapshot were kept")
    if kept.embedding_version != snapshot.embedding_version:
        return JudgedCanaries(none, {}, f"{kept.embedding_version!r} was the version before")
    found = {
        kind: compared
        for kind, compared in compare_canaries(kept, snapshot, snapshot_dir).items()
        if compared.num_compared >= FEWEST_COMPARED
    }
    rows = [(kind, compared.changed_share) for kind, compared in found.items()]
    phrases = {(kind, CHANGED): compared.phrase for kind, compared in found.items()}
    too_few = "" if found else f"fewer than {FEWEST_COMPARED} kept embeddings are in the snapshot"
    return JudgedCanaries(pd.DataFrame(rows, columns=["partition", CHANGED]), phrases, too_few)
