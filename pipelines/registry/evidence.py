"""What earlier cycles leave for later ones; `resolve_run` fixes what of it counts for a cycle.

    <workspace>/judged/<registered model>/<run_id>--<digest>.json    a JudgedCycle
    <workspace>/judged/<registered model>/<sha256>.parquet          influences, by group of users
    <workspace>/accepted_snapshots/<recipe's key>/<as_of>--<digest>.json    a JudgedSnapshot

The influence of a group of users on an estimated change is how much the estimate would move if the
group weighed more (`validation.model_gate.pooling`). The same user is in the same group in
every cycle, so errors of pooled estimates count users who return: influences add up over all the
cycles before they are squared. Which cycles are about the same pair of models or recipes:

- theta, challenger against champion: the same recipe against the same champion, since it came;
- phi, fresh anchor against champion: likewise;
- delta, challenger against fresh anchor: all cycles of the two recipes, each by the same code,
  since the last rollback.

For theta and delta a recipe's line counts too, those of the same name: what was found of a recipe
is not lost when it is changed.

Cycles that are newer than the run are never pooled. Snapshots that the data gate has accepted are
compared with by later ones; the key is that of the recipe's reference (`pipelines.recipes.key_of`),
so a recipe whose options were changed still finds its last snapshot.
Not for judging, nor for the arithmetic of pooling. Snapshots are tested with what writes and reads
them, in tests/pipelines/stages/test_check_snapshot.py.
"""

import fnmatch
import hashlib
import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, PinnedFile, ResolvedRun, Snapshot, Standing
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.reasons import BaselineKind, LinePoint, Spent
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.time import Window
from pipelines.recipes import key_of
from pipelines.registry.accepted_code import place_of
from pipelines.registry.history import NAME_ONE, History

if TYPE_CHECKING:
    from validation.model_gate.facts import Facts
    from validation.model_gate.pooling import CycleChange

log = logging.getLogger(__name__)

Pair = Literal["theta", "delta", "phi"]
"""Challenger against champion, challenger against fresh anchor, fresh anchor against champion."""

Arrays = Mapping[str, npt.NDArray[np.float64]]


class FoundChange(Frozen):
    """One estimated relative change."""

    pair: Pair
    metric: str
    segment: str
    value: float
    # What days that users share add to its variance, and how well that is known.
    day_variance: float = 0.0
    day_freedom: float = 1.0

    @property
    def column(self) -> str:
        """Name of its influences in the file."""
        return f"{self.pair}|{self.metric}|{self.segment}"


class JudgedCycle(Frozen):
    """One judged cycle: who was compared, on what, and what was found."""

    run_id: str
    run_uri: str
    as_of: AwareDatetime
    holdout: Window
    judged_at: AwareDatetime  # In what `read` returns, of the run's oldest record.
    challenger_recipe: str  # Digest of the recipe on trial.
    challenger_name: str = ""  # What that recipe calls itself; '' not recorded.
    anchor_recipe: str = ""  # Digest of the fresh anchor's; '' none.
    codes: tuple[str, str] = ("", "")  # Digests of the code of challenger and anchor; '' unknown.
    champion_bundle: str = ""  # Digest of the champion's bundle; ''.
    may_promote: bool
    changes: tuple[FoundChange, ...] = ()  # Sound estimates; () where the comparison was void.
    line: tuple[LinePoint, ...] = ()  # Of what it promotes; () where that is nothing.
    influences_sha256: str = ""  # Names the file; '' where there is none
    # What guarded metrics changed by up to the challenger, where it becomes the accepted recipe.
    spent: tuple[Spent, ...] = ()
    entry: int = 0  # The history's newest when its run was resolved; 0: none, or not recorded.

    def is_after(self, number: int, at: datetime | None) -> bool:
        """Return whether it counts after an entry: by number, or by time where one has none."""
        if self.entry and number:
            return self.entry >= number
        return at is None or self.judged_at > at


def publish(run: ResolvedRun, cycle: JudgedCycle, groups: npt.NDArray, influences: Arrays) -> str:
    """Write a cycle's record, after the influences that it names, and return the record's URI.

    Nothing is rewritten: a cycle that is judged again, because its stage was killed or repeated,
    leaves another record if it found anything else, which then counts in place of the first.

    Args:
        run: The cycle's run.
        cycle: What was found; `influences_sha256` is filled in here.
        groups: (G,) numbers of the groups of users in this holdout.
        influences: By column, (G,) each.

    Raises:
        RunInProgressError: another process judges the same cycle; what it has written stays.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = _folder(run.workspace_uri, run.registered_model)
    if influences:
        sink = io.BytesIO()
        table = pa.table({"group": groups.astype(np.int32), **influences})
        pq.write_table(table, sink, compression="zstd")
        digest = hashlib.sha256(sink.getvalue()).hexdigest()
        # Without a condition: whoever writes under this name writes the same bytes.
        storage.write_bytes(storage.join(folder, f"{digest}.parquet"), sink.getvalue())
        cycle = cycle.model_copy(update={"influences_sha256": digest})
    said = cycle.model_dump(mode="json", exclude={"judged_at"})
    uri = storage.join(folder, f"{cycle.run_id}--{digest_of(said)[:8]}.json")
    if not storage.exists(uri):
        storage.write_new(uri, cycle.to_record())
    return uri


def pin(workspace_uri: str, registered_model: str, but: str) -> tuple[PinnedFile, ...]:
    """Return the records of all judged cycles of a model, but for one run's own, pinned.

    A record that cannot be used, because another version wrote it, it was altered, or its
    influences are gone, is left out with a warning: who deletes old evidence stops no new cycles.
    """
    folder = _folder(workspace_uri, registered_model)
    names, found = storage.list_names(folder), []
    others = (name for name in names if not name.startswith((f"{but}--", ".")))
    for name in fnmatch.filter(others, "*.json"):
        content = storage.read_bytes(uri := storage.join(folder, name))
        try:
            digest = JudgedCycle.from_record(content).influences_sha256
        except ValidationError:
            digest = "unknown"
        if digest and f"{digest}.parquet" not in names:
            log.warning("%s cannot be used, so its evidence is not pooled", uri)
        else:
            found.append(PinnedFile(uri=uri, sha256=hashlib.sha256(content).hexdigest()))
    return tuple(found)


def read(pinned: Sequence[PinnedFile]) -> list[JudgedCycle]:
    """Return pinned records, oldest first; of each run what was judged last, when it was first.

    Raises:
        DataContractError: one was deleted or altered since it was pinned.
    """
    cycles = [JudgedCycle.from_record(_read_pinned(file.uri, file.sha256)) for file in pinned]
    last: dict[str, JudgedCycle] = {}
    for cycle in sorted(cycles, key=lambda cycle: (cycle.as_of, cycle.judged_at)):
        first = last.get(cycle.run_id, cycle).judged_at
        last[cycle.run_id] = cycle.model_copy(update={"judged_at": first})
    return list(last.values())


def read_influences(run: ResolvedRun, cycle: JudgedCycle) -> tuple[npt.NDArray, Arrays]:
    """Return a cycle's groups of users, and their influences by column.

    They are looked for beside the records that the run pinned, wherever the cycle once ran.
    """
    import pyarrow.parquet as pq

    folder = _folder(run.workspace_uri, run.registered_model)
    if run.judged_before:  # In another workspace where the cycle is rebuilt.
        folder = run.judged_before[0].uri.rpartition("/")[0]
    uri = storage.join(folder, f"{cycle.influences_sha256}.parquet")
    table = pq.read_table(io.BytesIO(_read_pinned(uri, cycle.influences_sha256)))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return columns.pop("group"), columns


def _read_pinned(uri: str, sha256: str) -> bytes:
    content = storage.read_bytes(uri) if storage.exists(uri) else b""
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        what = f"holds other bytes ({found[:12]})" if content else "is gone"
        raise DataContractError(
            f"evidence of an earlier cycle, {uri}, {what}; expected sha256 {sha256[:12]}, as it "
            f"was when this run was resolved; put it back, or start a new cycle, which pools what "
            f"is there then"
        )
    return content


def unpromoted_days(
    cycles: Sequence[JudgedCycle], number: int, since: datetime | None
) -> tuple[datetime, ...]:
    """Return the days that were judged since the champion moved, by runs that could promote."""
    return tuple(sorted({c.as_of for c in cycles if c.may_promote and c.is_after(number, since)}))


def _folder(workspace_uri: str, registered_model: str) -> str:
    return storage.join(workspace_uri, "judged", registered_model)


def pool_facts(run: ResolvedRun, cycles: Sequence[JudgedCycle], facts: "Facts") -> "Facts":
    """Return the facts with every deciding change pooled with what earlier cycles found.

    Raises:
        DataContractError: the influences of an earlier cycle were deleted or altered.
    """
    from validation.model_gate.pooling import pool_with, steps_of

    pooled: dict[str, Any] = {}
    num_tries = count_tries(run, cycles, facts.theta.comparison)
    for pair, found in facts.pairs().items():
        # theta is about the very model that would serve, unless it was chosen among several.
        num_seeds = {"theta": min(num_tries - 1, 1), "delta": 2, "phi": 0}[pair]
        known, seeds = earlier_changes(run, cycles, pair), num_seeds * run.seed_noise**2
        tries = 1 if pair == "phi" else num_tries  # It is the same model at every try.
        steps = steps_of(run.config.model_gate)
        comparison = pool_with(found.comparison, found.influences, known, seeds, tries, steps)
        comparison = _with_lifts(run, cycles, comparison)
        if pair == "delta":
            comparison = _with_spent(run, cycles, comparison)
        pooled[pair] = replace(found, comparison=comparison)
    return replace(facts, **pooled)


def _with_spent(
    run: ResolvedRun, cycles: Sequence[JudgedCycle], comparison: Comparison
) -> Comparison:
    """Return the comparison with the anchor with what guarded metrics changed by up to now.

    The anchor moves with every better recipe, and nobody would see what creeps beside the target.
    What was spent up to the accepted recipe stands in the record of the cycle that judged it, until
    a person accepts one by hand.
    """
    accepted, standing = run.standing.anchor, run.standing
    if accepted is None:
        return comparison
    same = accepted.recipe_digest, standing.anchor_code_digest
    looked = standing.looked_entry, standing.looked_at
    spent = next(
        (
            {each.metric: each for each in cycle.spent}
            for cycle in reversed(cycles)
            if cycle.spent and (cycle.challenger_recipe, cycle.codes[0]) == same
            if cycle.may_promote and cycle.is_after(*looked)
        ),
        {},
    )
    for metric in dict.fromkeys(rail.metric for rail in run.config.model_gate.guardrails):
        row = comparison.find_pooled(metric)
        if row is not None and (now := row.since_accepted) is not None:
            before = spent.get(metric, Spent(metric=metric, value=0, error=0))
            value, error = before.value + now.value, math.hypot(before.error, now.error)
            spent[metric] = Spent(metric=metric, value=value, error=error)
    return comparison.model_copy(update={"spent": tuple(spent.values())})


def _with_lifts(
    run: ResolvedRun, cycles: Sequence[JudgedCycle], comparison: Comparison
) -> Comparison:
    """Return the comparison with a champion with the lift that past cycles make plausible.

    Cycles count up to the champion's promotion: a leak that stays is not usual after a few of them.
    """
    from validation.model_gate.policy import FEWEST_LIFTS, plausible_lift

    metric, standing = comparison.target_metric, run.standing
    since = standing.champion_entry, standing.champion_since
    change = comparison.find_pooled(metric)
    if change is None or comparison.baseline_kind is not BaselineKind.CHAMPION:
        return comparison
    past = tuple(
        each.value
        for cycle in cycles
        if cycle.may_promote and cycle.champion_bundle and cycle.as_of < run.as_of
        if not cycle.is_after(*since)
        for each in cycle.changes
        if (each.pair, each.metric, each.segment) == ("theta", metric, "all")
    )
    past = past if len(past) >= FEWEST_LIFTS else ()
    first = run.config.model_gate.first_lift
    found = plausible_lift(change.error, run.seed_noise, past, first)
    return comparison.model_copy(update={"past_lifts": past, "plausible_lift": found})


def earlier_changes(
    run: ResolvedRun, cycles: Sequence[JudgedCycle], pair: str
) -> "dict[tuple[str, str], list[CycleChange]]":
    """Return what earlier cycles found of a pair's changes, the newest first, with its line's.

    Raises:
        DataContractError: the influences of one were deleted or altered.
    """
    from validation.model_gate.intervals import Part
    from validation.model_gate.pooling import CycleChange

    standing, ours = run.standing, run.config.recipe_digest
    accepted = standing.anchor.recipe_digest if standing.anchor else ""
    bundle = run.champion.bundle_digest if run.champion else None
    since = standing.champion_entry, standing.champion_since
    if pair == "delta":
        since = standing.rolled_back_entry, standing.rolled_back_at
    known: dict[tuple[str, str], list[CycleChange]] = {}
    newer, steps = ours, 0  # How often the recipe was changed since.
    for cycle in reversed(cycles):
        recipe = cycle.challenger_recipe
        is_line = recipe == ours or cycle.challenger_name == run.config.recipe
        is_pair = {
            "theta": is_line and cycle.champion_bundle == bundle,
            "delta": is_line and cycle.anchor_recipe == accepted,
            "phi": (cycle.anchor_recipe, cycle.champion_bundle) == (accepted, bundle),
        }[pair]
        if pair == "delta" and standing.anchor_code_digest:  # Each side is a recipe and a code.
            is_pair &= cycle.codes == (run.code_digest, standing.anchor_code_digest)
        changes = [change for change in cycle.changes if change.pair == pair]
        if changes and is_pair and cycle.is_after(*since) and cycle.as_of <= run.as_of:
            newer, steps = recipe, steps + (recipe != newer)
            apart = 0 if pair == "phi" or recipe == ours else steps
            groups, columns = read_influences(run, cycle)
            for change in changes:
                days = Part(change.day_variance, change.day_freedom)
                column = columns[change.column]
                found = CycleChange(cycle.holdout, change.value, groups, column, days, apart)
                known.setdefault((change.metric, change.segment), []).append(found)
    return known


def line_before(run: ResolvedRun, cycles: Sequence[JudgedCycle]) -> tuple[LinePoint, ...]:
    """Return the champions' points since a person looked; of one day, that of the last one judged.

    Cycles that could not promote, and those that are not older than the run, have no point.
    """
    since = run.standing.looked_entry, run.standing.looked_at
    by_day = {
        cycle.as_of: cycle.line
        for cycle in cycles
        if cycle.line and cycle.may_promote and cycle.as_of < run.as_of
        if cycle.is_after(*since)
    }
    return tuple(point for day in sorted(by_day) for point in by_day[day])


def count_tries(run: ResolvedRun, cycles: Sequence[JudgedCycle], comparison: Comparison) -> int:
    """Return how many models were judged on a holdout since the champion moved, this one included.

    The same model judged again finds the same change and is one try; what was void found nothing.
    """
    since = run.standing.champion_entry, run.standing.champion_since
    target = (comparison.target_metric, "all")
    mine = comparison.target_change
    tries = {(run.config.recipe_digest, mine.value if mine else None)}
    for cycle in cycles:
        if cycle.holdout.overlaps(comparison.holdout) and cycle.is_after(*since):
            tries |= {
                (cycle.challenger_recipe, change.value)
                for change in cycle.changes
                if change.pair == "theta" and (change.metric, change.segment) == target
            }
    return len(tries)


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
    known, recipe = known.in_time, known.recipes.accepted
    try:
        if recipe is not None:
            accepted, code = recipe.parse(), recipe.code_digest
        elif champion is not None:
            raise ConfigurationError(f"it could not be read when {champion.label} came; {NAME_ONE}")
    except ConfigurationError as error:
        problem = f"A model serves and the accepted recipe is not known: {error}."
    digest = config.recipe_digest
    holds = [
        f"Recipe {config.reference!r} is on hold ({each.reason}). It is not promoted until "
        f"somebody releases it: `homefeed anchor release --recipe {digest[:12]} --reason ...`."
        for each in known.recipes.held
        if each.recipe.digest == digest
    ]
    rollbacks = [move for move in known.moves if move.kind == "rollback"]
    looked = [entry for entry in known.entries if entry.kind == "by_hand"]
    (number, since), (back, back_at), (look, look_at) = (
        (each[-1].number, each[-1].moved_at) if each else (0, None)
        for each in (known.moves, rollbacks, looked)
    )
    return Standing(
        anchor=accepted,
        anchor_code_digest=code,
        anchor_code_uri=place_of(known.workspace_uri, code) if code else "",
        problem=problem,
        hold=holds[0] if holds else "",
        unpromoted=unpromoted_days(read(judged_before), number, since),
        champion_since=since,
        rolled_back_at=back_at,
        looked_at=look_at,
        champion_entry=number,
        rolled_back_entry=back,
        looked_entry=look,
    )


class JudgedSnapshot(Frozen):
    """Marker of a snapshot that the data gate has accepted."""

    as_of: AwareDatetime
    snapshot_uri: str
    recipe: str  # Its reference.
    found_uri: str = ""  # What was measured of it; the file may be swept away before the marker.
    kept: dict[str, str] = {}  # sha256 of that and of the files beside it, by name.


def mark_accepted(run: ResolvedRun, snapshot: Snapshot, profile_uri: str) -> None:
    """Leave the marker of a snapshot that the data gate accepted in this run."""
    folder = profile_uri.rpartition("/")[0]
    names = [entry.base_name for entry in storage.list_entries(folder) if entry.is_file]
    contents = {name: storage.read_bytes(storage.join(folder, name)) for name in names}
    marker = JudgedSnapshot(
        as_of=run.as_of,
        snapshot_uri=snapshot.uri,
        recipe=run.config.reference,
        found_uri=profile_uri,
        kept={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    )
    storage.write_model(_accepted_uri(run.workspace_uri, run, snapshot), marker)


def read_kept(run: ResolvedRun, reference: Snapshot, name: str) -> bytes | None:
    """Return what was kept beside the profile of an accepted reference; None if gone or altered."""
    # The marker lies in the reference's workspace, which is another one where a cycle is rebuilt.
    marker_uri = _accepted_uri(reference.uri.rpartition("/snapshots/")[0], run, reference)
    repair = "delete it: the reference is then measured again"
    if (marker := storage.find_model(marker_uri, JudgedSnapshot, repair)) is None:
        return None
    uri = storage.join(marker.found_uri.rpartition("/")[0], name)
    content = storage.read_bytes(uri) if storage.exists(uri) else b""
    return content if hashlib.sha256(content).hexdigest() == marker.kept.get(name) else None


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
