"""What is on record of recipes and snapshots when a cycle begins; `resolve_run` fixes it.

    <workspace>/seed_noise/<recipe digest>.json                             a SeedNoise
    <workspace>/accepted_snapshots/<recipe's key>/<as_of>--<digest>.json    a JudgedSnapshot

How much trainings of one recipe differ by their seed is measured once per recipe and kept
(`homefeed anchor seeds`). Snapshots that the data gate has accepted are compared with by later
ones. The key is that of the recipe's reference (`pipelines.recipes.key_of`), so a recipe whose
options were changed still finds its last snapshot. Not for judging. Tested with what writes and
reads it, in tests/pipelines/stages/test_check_snapshot.py.
"""

import fnmatch
import statistics
from datetime import datetime

from pydantic import AwareDatetime, Field, PositiveFloat

from pipelines import storage
from pipelines.contracts.artifacts import (
    ModelRef,
    PinnedFile,
    ResolvedRun,
    Snapshot,
    Standing,
)
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.recipes import key_of
from pipelines.registry import evidence
from pipelines.registry.history import NAME_ONE, History


class SeedNoise(Frozen):
    """The target metric of trainings that differ in nothing but their seed, on one holdout."""

    recipe: str
    recipe_digest: str
    snapshot_digest: str
    code_digest: str
    target_metric: str
    seeds: tuple[int, ...] = Field(min_length=2)
    values: tuple[PositiveFloat, ...] = Field(min_length=2)  # Of the target metric, by seed.

    @property
    def deviation(self) -> float:
        """Standard deviation relative to the mean."""
        return statistics.stdev(self.values) / statistics.fmean(self.values)


def noise_folder(workspace_uri: str) -> str:
    """Return the URI of the folder with every recipe's measurement."""
    return storage.join(workspace_uri, "seed_noise")


def keep(workspace_uri: str, measured: SeedNoise) -> str:
    """Write a measurement and return its URI; a newer one of the same recipe takes its place."""
    uri = storage.join(noise_folder(workspace_uri), f"{measured.recipe_digest}.json")
    storage.write_model(uri, measured)
    return uri


def measured_deviation(workspace_uri: str, recipe_digest: str, target_metric: str) -> float | None:
    """Return the relative standard deviation between seeds, or None where it was not measured.

    What was measured of another target metric says nothing of this one.
    """
    uri = storage.join(noise_folder(workspace_uri), f"{recipe_digest}.json")
    if not storage.exists(uri):
        return None
    repair = "delete it: the recipe's model_gate.seed_noise then counts"
    found = storage.read_model(uri, SeedNoise, repair)
    return found.deviation if found.target_metric == target_metric else None


def find_standing(
    known: History,
    champion: ModelRef | None,
    config: RunConfig,
    judged_before: tuple[PinnedFile, ...],
) -> Standing:
    """Return the accepted recipe, what is on hold, and since when the champion serves.

    The history is at the entry that the run pins, the champion is what serves now, and records of
    judged cycles are pinned.
    """
    accepted, code, problem = None, "", ""
    recipe = known.recipes.accepted
    try:
        if recipe is not None:
            accepted, code = recipe.parse(), recipe.code_digest
        elif champion is not None:
            raise ConfigurationError(f"it could not be read when {champion.label} came; {NAME_ONE}")
    except ConfigurationError as error:
        problem = f"A model serves and the accepted recipe is not known: {error}."
    digest, target = config.recipe_digest, config.model_gate.target_metric
    holds = [
        f"Recipe {config.reference!r} is on hold ({each.reason}). It is not promoted until "
        f"somebody releases it: `homefeed anchor release --recipe {digest[:12]} --reason ...`."
        for each in known.recipes.held
        if each.recipe.digest == digest
    ]
    since = known.last.moved_at if known.last else None
    rollbacks = [move.moved_at for move in known.moves if move.kind == "rollback"]
    return Standing(
        anchor=accepted,
        anchor_code_digest=code,
        problem=problem,
        hold=holds[0] if holds else "",
        seed_noise=measured_deviation(known.workspace_uri, digest, target),
        unpromoted=evidence.unpromoted_days(evidence.read(judged_before), since),
        champion_since=since,
        rolled_back_at=max(rollbacks, default=None),
    )


class JudgedSnapshot(Frozen):
    """Marker of a snapshot that the data gate has accepted."""

    as_of: AwareDatetime
    snapshot_uri: str
    recipe: str  # Its reference.
    found_uri: str = ""  # What was measured of it; the file may be swept away before the marker.


def mark_accepted(run: ResolvedRun, snapshot: Snapshot, profile_uri: str) -> None:
    """Leave the marker of a snapshot that the data gate accepted in this run."""
    marker = JudgedSnapshot(
        as_of=run.as_of,
        snapshot_uri=snapshot.uri,
        recipe=run.config.reference,
        found_uri=profile_uri,
    )
    storage.write_model(_accepted_uri(run.workspace_uri, run, snapshot), marker)


def read_kept(run: ResolvedRun, reference: Snapshot, name: str) -> bytes | None:
    """Return a file, kept beside the profile when the gate accepted the reference; None if gone."""
    # The marker lies in the reference's workspace, which is another one where a cycle is rebuilt.
    marker_uri = _accepted_uri(reference.uri.rpartition("/snapshots/")[0], run, reference)
    if not storage.exists(marker_uri):
        return None
    repair = "delete it: the reference is then measured again"
    profile_uri = storage.read_model(marker_uri, JudgedSnapshot, repair).found_uri
    uri = storage.join(profile_uri.rpartition("/")[0], name) if profile_uri else ""
    return storage.read_bytes(uri) if uri and storage.exists(uri) else None


def newest_accepted(workspace_uri: str, recipe: str, before: datetime) -> str | None:
    """Return the URI of the newest accepted snapshot of a recipe with an earlier as_of, or None."""
    mark = newest_mark(accepted_folder(workspace_uri, recipe), before)
    return mark.snapshot_uri if mark else None


def newest_mark(folder: str, before: datetime | None = None) -> JudgedSnapshot | None:
    """Return the newest mark in a recipe's folder of accepted snapshots, of an earlier as_of.

    A snapshot that was deleted since is passed over, as is a mark that is still being written.
    """
    for name in reversed(fnmatch.filter(storage.list_names(folder), "[!.]*.json")):
        repair = "delete it: an older accepted snapshot is then the reference"
        mark = storage.read_model(storage.join(folder, name), JudgedSnapshot, repair)
        is_earlier = before is None or mark.as_of < before
        if is_earlier and storage.exists(snapshot_manifest_uri(mark.snapshot_uri)):
            return mark
    return None


def accepted_folder(workspace_uri: str, recipe: str) -> str:
    """Return the URI of the folder with the markers of the recipe of a reference."""
    return storage.join(workspace_uri, "accepted_snapshots", key_of(recipe))


def _accepted_uri(workspace_uri: str, run: ResolvedRun, snapshot: Snapshot) -> str:
    folder = accepted_folder(workspace_uri, run.config.reference)
    return storage.join(folder, f"{snapshot.as_of:%Y-%m-%d}--{snapshot.digest[:12]}.json")
