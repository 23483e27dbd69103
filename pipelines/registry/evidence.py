"""What each judged cycle found, kept so that later cycles can pool it.

    <workspace>/judged/<registered model>/<run_id>--<digest>.json    a JudgedCycle
    <workspace>/judged/<registered model>/<sha256>.parquet          influences, by group of users

The influence of a group of users on an estimated change is how much the estimate would move if the
group weighed more (`validation.model_gate.pooling`). The same user is in the same group in
every cycle, so errors of pooled estimates are computed as if users were resampled over all the
cycles, users who return included. Which cycles are about the same pair of models or recipes:

- theta, challenger against champion: the same recipe against the same champion, since it came;
- phi, fresh anchor against champion: likewise;
- delta, challenger against fresh anchor: all cycles of the two recipes since the last rollback; of
  one recipe, all cycles of the two codes.

Cycles that are newer than the run are never pooled. Not for the arithmetic of pooling
(`validation.model_gate.pooling`).
"""

import fnmatch
import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, Field, ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import PinnedFile, ResolvedRun
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Decision, Promoted
from pipelines.contracts.time import Window

if TYPE_CHECKING:
    from validation.model_gate.facts import Facts, Found
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

    @property
    def column(self) -> str:
        """Name of its influences in the file."""
        return f"{self.pair}|{self.metric}|{self.segment}"


class JudgedCycle(Frozen):
    """One judged cycle: who was compared, on what, and what was found."""

    run_id: str
    run_uri: str
    registered_model: str
    as_of: AwareDatetime
    holdout: Window
    judged_at: AwareDatetime
    first_judged_at: AwareDatetime = Field(description="Of the run's records, the oldest one's.")
    challenger_recipe: str = Field(description="Digest of the recipe on trial.")
    anchor_recipe: str = Field(default="", description="Digest of the fresh anchor's; '' none.")
    codes: tuple[str, str] = Field(
        default=("", ""), description="Digests of the code of challenger and anchor; '' unknown."
    )
    champion_bundle: str = Field(default="", description="Digest of the champion's bundle; ''.")
    decision: Decision
    promoted: Promoted
    may_promote: bool
    changes: tuple[FoundChange, ...] = Field(
        default=(), description="Sound estimates; () where the comparison was void."
    )
    influences_sha256: str = Field(default="", description="Names the file; '' where there is none")

    @classmethod
    def is_usable(cls, content: bytes, names: Sequence[str]) -> bool:
        """Return whether a record can be read and the file that it names is among the names."""
        try:
            digest = cls.from_record(content).influences_sha256
        except ValidationError:
            return False
        return not digest or f"{digest}.parquet" in names


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
    folder = _folder(run.workspace_uri, run.registered_model)
    if influences:
        content = _to_parquet(groups, influences)
        digest = hashlib.sha256(content).hexdigest()
        # Without a condition: whoever writes under this name writes the same bytes.
        storage.write_bytes(storage.join(folder, f"{digest}.parquet"), content)
        cycle = cycle.model_copy(update={"influences_sha256": digest})
    if before := _records_of(folder, cycle.run_id):
        first = min(each.first_judged_at for each in before)
        cycle = cycle.model_copy(update={"first_judged_at": first})
    found = digest_of(cycle.model_dump(mode="json", exclude={"judged_at", "first_judged_at"}))
    uri = storage.join(folder, f"{cycle.run_id}--{found[:8]}.json")
    if not storage.exists(uri):
        storage.write_new(uri, cycle.to_record())
    return uri


def _records_of(folder: str, run_id: str) -> list[JudgedCycle]:
    """Return what a run has left already."""
    names = fnmatch.filter(storage.list_names(folder), f"{run_id}--*.json")
    repair = "delete it: the stage that is run now writes it anew"
    return [storage.read_model(storage.join(folder, name), JudgedCycle, repair) for name in names]


def _to_parquet(groups: npt.NDArray, influences: Arrays) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"group": groups.astype(np.int32), **influences})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def pin(workspace_uri: str, registered_model: str, but: str) -> tuple[PinnedFile, ...]:
    """Return the records of all judged cycles of a model, but for one run's own, pinned.

    A record that cannot be used, because another version wrote it or its influences are gone, is
    left out with a warning: a person who deletes old evidence must not stop new cycles.
    """
    folder = _folder(workspace_uri, registered_model)
    names = storage.list_names(folder)
    found = []
    for name in fnmatch.filter(names, "[!.]*.json"):
        uri = storage.join(folder, name)
        content = storage.read_bytes(uri)
        if name.startswith(f"{but}--"):
            continue
        if JudgedCycle.is_usable(content, names):
            found.append(PinnedFile(uri=uri, sha256=hashlib.sha256(content).hexdigest()))
        else:
            log.warning("%s cannot be used, so its evidence is not pooled", uri)
    return tuple(found)


def read(pinned: Sequence[PinnedFile]) -> list[JudgedCycle]:
    """Return pinned records, oldest first, and of each run the one that was judged last.

    Raises:
        DataContractError: one was deleted or altered since it was pinned.
    """
    cycles = []
    for file in pinned:
        content = _read_pinned(file.uri, file.sha256)
        cycles.append(JudgedCycle.from_record(content))
    cycles.sort(key=lambda cycle: (cycle.as_of, cycle.judged_at))
    return list({cycle.run_id: cycle for cycle in cycles}.values())


def copied_uri(run: ResolvedRun, workspace_uri: str, file: PinnedFile) -> str:
    """Return where `copy_pinned` puts a record."""
    return storage.join(_folder(workspace_uri, run.registered_model), file.uri.rpartition("/")[2])


def copy_pinned(run: ResolvedRun, workspace_uri: str) -> None:
    """Copy the evidence that a run pinned, with its influences, into another workspace.

    Raises:
        DataContractError: some of it was deleted or altered since it was pinned.
    """
    for file in run.judged_before:
        content = _read_pinned(file.uri, file.sha256)
        digest = JudgedCycle.from_record(content).influences_sha256
        if digest:
            name = f"{digest}.parquet"
            source = storage.join(_folder(run.workspace_uri, run.registered_model), name)
            target = storage.join(_folder(workspace_uri, run.registered_model), name)
            storage.write_bytes(target, _read_pinned(source, digest))
        storage.write_bytes(copied_uri(run, workspace_uri, file), content)


def read_influences(run: ResolvedRun, cycle: JudgedCycle) -> tuple[npt.NDArray, Arrays]:
    """Return a cycle's groups of users, and their influences by column.

    They are looked for in the run's workspace, where the record is, wherever the cycle once ran.

    Raises:
        DataContractError: the file was deleted or altered.
    """
    import pyarrow.parquet as pq

    folder = _folder(run.workspace_uri, run.registered_model)
    uri = storage.join(folder, f"{cycle.influences_sha256}.parquet")
    table = pq.read_table(io.BytesIO(_read_pinned(uri, cycle.influences_sha256)))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return columns.pop("group"), columns


def _read_pinned(uri: str, sha256: str) -> bytes:
    try:
        content = storage.read_bytes(uri)
    except FileNotFoundError:
        content = b""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        what = f"holds other bytes ({found[:12]})" if content else "is gone"
        raise DataContractError(
            f"evidence of an earlier cycle, {uri}, {what}; expected sha256 {sha256[:12]}, as it "
            f"was when this run was resolved; put it back, or start a new cycle, which pools what "
            f"is there then"
        )
    return content


def unpromoted_days(cycles: Sequence[JudgedCycle], since: datetime | None) -> tuple[datetime, ...]:
    """Return the days that were judged since the champion moved, by runs that could promote."""
    days = {c.as_of for c in cycles if c.may_promote and (not since or c.first_judged_at > since)}
    return tuple(sorted(days))


def _folder(workspace_uri: str, registered_model: str) -> str:
    return storage.join(workspace_uri, "judged", registered_model)


def pool_facts(run: ResolvedRun, cycles: Sequence[JudgedCycle], facts: "Facts") -> "Facts":
    """Return the facts with every deciding change pooled with what earlier cycles found.

    Raises:
        DataContractError: the influences of an earlier cycle were deleted or altered.
    """
    from validation.model_gate.facts import Found
    from validation.model_gate.pooling import pool_with

    def pooled(pair: Pair, found: "Found | None") -> "Found | None":
        if found is None:
            return None
        seeds = 2 * run.seed_noise**2 if pair == "delta" else 0.0
        known = earlier_changes(run, cycles, pair)
        comparison = pool_with(found.comparison, found.influences, known, seeds)
        return Found(comparison, found.influences)

    theta = pooled("theta", facts.theta)
    assert theta is not None  # Every cycle has this comparison.
    return replace(
        facts, theta=theta, delta=pooled("delta", facts.delta), phi=pooled("phi", facts.phi)
    )


def earlier_changes(
    run: ResolvedRun, cycles: Sequence[JudgedCycle], pair: Pair
) -> "dict[tuple[str, str], list[CycleChange]]":
    """Return what earlier cycles found of a pair's changes, the newest first."""
    from validation.model_gate.pooling import CycleChange

    known: dict[tuple[str, str], list[CycleChange]] = {}
    for cycle in reversed(cycles):
        changes = [change for change in cycle.changes if change.pair == pair]
        if not changes or not _is_about(run, cycle, pair):
            continue
        groups, columns = read_influences(run, cycle)
        for change in changes:
            found = CycleChange(cycle.holdout, change.value, groups, columns[change.column])
            known.setdefault((change.metric, change.segment), []).append(found)
    return known


def _is_about(run: ResolvedRun, cycle: JudgedCycle, pair: Pair) -> bool:
    """Return whether an earlier cycle compared the same pair as this run."""
    if cycle.as_of > run.as_of:
        return False
    standing, champion = run.standing, run.champion
    ours = run.config.recipe_digest
    accepted = standing.anchor.recipe_digest if standing.anchor else ""
    if pair == "delta":
        is_pair = (cycle.challenger_recipe, cycle.anchor_recipe) == (ours, accepted)
        if ours == accepted:  # The pair is one of two codes.
            is_pair &= cycle.codes == (run.code_digest, standing.anchor_code_digest)
        return is_pair and _is_after(cycle.first_judged_at, standing.rolled_back_at)
    is_recipe = (
        cycle.challenger_recipe == ours if pair == "theta" else cycle.anchor_recipe == accepted
    )
    is_champion = champion is not None and cycle.champion_bundle == champion.bundle_digest
    return is_recipe and is_champion and _is_after(cycle.first_judged_at, standing.champion_since)


def _is_after(instant: datetime, since: datetime | None) -> bool:
    return since is None or instant > since


def tries_on(holdout: Window, cycles: Sequence[JudgedCycle]) -> tuple[str, ...]:
    """Return the runs that were judged before on requests of a holdout."""
    return tuple(
        cycle.run_id
        for cycle in cycles
        if cycle.holdout.start < holdout.end and holdout.start < cycle.holdout.end
    )


def changes_of(facts: "Facts", is_sound: dict[str, bool]) -> tuple[FoundChange, ...]:
    """Return the changes that a cycle leaves for later ones: those of sound comparisons.

    Args:
        facts: Pooled or not; the cycle's own values are taken.
        is_sound: By pair, whether its comparison says anything.
    """
    pairs: dict[Pair, Found | None]
    pairs = {"theta": facts.theta, "delta": facts.delta, "phi": facts.phi}
    return tuple(
        FoundChange(pair=pair, metric=row.metric, segment=row.segment, value=row.value)
        for pair, found in pairs.items()
        if found is not None and is_sound[pair]
        for row in found.comparison.pooled
    )
