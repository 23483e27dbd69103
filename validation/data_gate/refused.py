"""What changed in a snapshot since one of the same recipe and day was refused.

Each expectation that was not met then is told with what was found then and now, beside the
comparison with the last accepted snapshot. Not for where the refused one's report lies. Tested in
tests/validation/data_gate/test_refused.py.
"""

from collections.abc import Sequence

from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, Snapshot

_NUM_PARTS = 2
"""So much of what was found is told: the worst value, and what is said of it."""


def since_refused(
    refused: DataReport | None, snapshot: Snapshot, outcomes: Sequence[ExpectationOutcome]
) -> tuple[str, ...]:
    """Return a phrase for each expectation that is, or was, not met.

    Args:
        refused: What was found of the snapshot that was refused; None where none was.
        snapshot: The one that is judged now.
        outcomes: What was found of it.

    Returns:
        What was not met then first, critical before warnings; nothing where none was refused.
    """
    if refused is None:
        return ()
    now = {outcome.name: outcome for outcome in outcomes}
    then_failed = [then for then in refused.failures if then.name in now]
    mended = {each.name for each in then_failed if each.is_unmeasured and now[each.name].is_met}
    told = [_since(then, now[then.name]) for then in then_failed if then.name not in mended]
    if mended:
        told.append(f"{len(mended)} more, which could not be measured then, are met now")
    then_met = {outcome.name for outcome in refused.outcomes if outcome.is_met}
    told += [
        f"{each.name} is not met any more: found {_found(each)}, expected {each.expected}"
        for each in outcomes
        if not each.is_met and each.name in then_met
    ]
    is_same = refused.snapshot_digest == snapshot.digest
    return (*(["the snapshot is the one that was refused"] if is_same else []), *told)


def _since(then: ExpectationOutcome, now: ExpectationOutcome) -> str:
    """Return what was found then and now of an expectation that was not met then."""
    if not now.is_judged:
        return f"{now.name}: {now.observed}; found {_found(then)} when it was refused"
    state = "is mended" if now.is_met else "is not mended"
    if now.accepted_by:
        state += f" and accepted by {now.accepted_by}"
    limit = f"expected {now.expected}"
    if now.expected != then.expected:
        limit += f" and {then.expected} then"
    return f"{now.name} {state}: found {_found(now)}, {_found(then)} when it was refused, {limit}"


def _found(outcome: ExpectationOutcome) -> str:
    """Return the beginning of what was found, with its parts in one phrase."""
    return ", ".join(outcome.observed.split("; ")[:_NUM_PARTS])
