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
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import PinnedFile, ResolvedRun
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Decision, Promoted
from pipelines.contracts.time import Window

if TYPE_CHECKING:
    from validation.model_gate.facts import Facts
    from validation.model_gate.pooling import CycleChange

log = logging.getLogger(__name__)

Pair = Literal["theta", "delta", "phi"]
"""Challenger against champion, challenger against fresh anchor, fresh anchor against champion."""

_PAIRS: tuple[Pair, ...] = get_args(Pair)

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
    judged_at: AwareDatetime  # In what `read` returns, of the run's oldest record.
    challenger_recipe: str  # Digest of the recipe on trial.
    anchor_recipe: str = ""  # Digest of the fresh anchor's; '' none.
    codes: tuple[str, str] = ("", "")  # Digests of the code of challenger and anchor; '' unknown.
    champion_bundle: str = ""  # Digest of the champion's bundle; ''.
    decision: Decision
    promoted: Promoted
    may_promote: bool
    changes: tuple[FoundChange, ...] = ()  # Sound estimates; () where the comparison was void.
    influences_sha256: str = ""  # Names the file; '' where there is none


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
    found = digest_of(cycle.model_dump(mode="json", exclude={"judged_at"}))
    uri = storage.join(folder, f"{cycle.run_id}--{found[:8]}.json")
    if not storage.exists(uri):
        storage.write_new(uri, cycle.to_record())
    return uri


def pin(workspace_uri: str, registered_model: str, but: str) -> tuple[PinnedFile, ...]:
    """Return the records of all judged cycles of a model, but for one run's own, pinned.

    A record that cannot be used, because another version wrote it or its influences are gone, is
    left out with a warning: a person who deletes old evidence must not stop new cycles.
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


def unpromoted_days(cycles: Sequence[JudgedCycle], since: datetime | None) -> tuple[datetime, ...]:
    """Return the days that were judged since the champion moved, by runs that could promote."""
    days = {c.as_of for c in cycles if c.may_promote and (not since or c.judged_at > since)}
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

    pooled: dict[str, Any] = {}
    for pair in _PAIRS:
        if (found := getattr(facts, pair)) is not None:
            seeds = 2 * run.seed_noise**2 if pair == "delta" else 0.0
            known = earlier_changes(run, cycles, pair)
            comparison = pool_with(found.comparison, found.influences, known, seeds)
            pooled[pair] = Found(comparison, found.influences)
    return replace(facts, **pooled)


def earlier_changes(
    run: ResolvedRun, cycles: Sequence[JudgedCycle], pair: Pair
) -> "dict[tuple[str, str], list[CycleChange]]":
    """Return what earlier cycles found of a pair's changes, the newest first.

    Raises:
        DataContractError: the influences of one were deleted or altered.
    """
    from validation.model_gate.pooling import CycleChange

    standing, ours = run.standing, run.config.recipe_digest
    accepted = standing.anchor.recipe_digest if standing.anchor else ""
    bundle = run.champion.bundle_digest if run.champion else None
    since = standing.rolled_back_at if pair == "delta" else standing.champion_since
    known: dict[tuple[str, str], list[CycleChange]] = {}
    for cycle in reversed(cycles):
        is_pair = {
            "theta": (cycle.challenger_recipe, cycle.champion_bundle) == (ours, bundle),
            "delta": (cycle.challenger_recipe, cycle.anchor_recipe) == (ours, accepted),
            "phi": (cycle.anchor_recipe, cycle.champion_bundle) == (accepted, bundle),
        }[pair]
        if pair == "delta" and ours == accepted:  # The pair is one of two codes.
            is_pair &= cycle.codes == (run.code_digest, standing.anchor_code_digest)
        is_after = since is None or cycle.judged_at > since
        changes = [change for change in cycle.changes if change.pair == pair]
        if changes and is_pair and is_after and cycle.as_of <= run.as_of:
            groups, columns = read_influences(run, cycle)
            for change in changes:
                found = CycleChange(cycle.holdout, change.value, groups, columns[change.column])
                known.setdefault((change.metric, change.segment), []).append(found)
    return known


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
    return tuple(
        FoundChange(pair=pair, metric=row.metric, segment=row.segment, value=row.value)
        for pair in _PAIRS
        if (found := getattr(facts, pair)) is not None and is_sound[pair]
        for row in found.comparison.pooled
    )
