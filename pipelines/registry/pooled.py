"""Which judged cycles are about the same pair of models or recipes, and what they found.

- theta, challenger against champion: the same recipe against the same champion, since it came;
- phi, fresh anchor against champion: likewise;
- delta, challenger against fresh anchor: all cycles of the two recipes since the last rollback; of
  one recipe, all cycles of the two codes.

Cycles that are newer than the run are never pooled. Not for the arithmetic of pooling
(`validation.model_gate.pooling`), nor for the records (`pipelines.registry.evidence`).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.time import Window
from pipelines.registry.evidence import FoundChange, JudgedCycle, Pair, read_influences

if TYPE_CHECKING:
    from validation.model_gate.facts import Facts, Found
    from validation.model_gate.pooling import CycleChange


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
