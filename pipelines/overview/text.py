"""The status in lines for people. What a cycle came to is said in the words of its outcome.

Tested in tests/pipelines/overview/test_status.py.
"""

from collections.abc import Iterator

from pipelines.overview.facts import Champion, Cycle, OutboxAlert, Status


def lines_of(status: Status) -> Iterator[str]:
    """Yield the lines; one that belongs to the one before it begins with two spaces."""
    yield from _champion_lines(status.champion)
    if status.has_workspace is None:
        yield f"cycles: not known; the workspace {status.workspace_uri} could not be read"
    elif not status.has_workspace:
        yield f"cycles: none yet; there is no workspace at {status.workspace_uri}"
    elif not status.cycles:
        yield "cycles: none yet"
    else:
        yield f"cycles: the newest {len(status.cycles)} of {status.num_cycles}, newest first"
    for cycle in status.cycles:
        yield from _cycle_lines(cycle)
    if status.broken:
        yield f"broken, and not mended by a cycle that has ended: {len(status.broken)}"
    yield from (f"  {sentence}" for sentence in status.broken)
    if status.alerts:
        yield f"alerts: the newest {len(status.alerts)} of {status.num_alerts} in the outbox"
    for alert in status.alerts:
        yield f"  {_alert_line(alert)}"
    if status.next_due is not None:
        days = (status.next_due - status.told_at).total_seconds() / 86400
        yield (
            f"next due: {status.next_due:%Y-%m-%d %H:%M} UTC, in {days:.1f} days (every "
            f"{status.period_days:g} days, where Airflow runs and the DAG is not paused)"
        )
    for label, address in status.addresses:
        yield f"{label}: {address}"
    # The first one is the error that the command ends with.
    yield from (f"not found out: {problem}" for problem in status.problems[1:])


def _champion_lines(champion: Champion) -> Iterator[str]:
    model = champion.model
    if model is None:
        known = "none yet" if champion.is_confirmed else "not known; MLflow could not be asked"
        if champion.is_confirmed and champion.problem:
            known = "none in the registry"
        yield f"champion: {known}"
    else:
        since = f", serves since {champion.since:%Y-%m-%d %H:%M} UTC" if champion.since else ""
        source = "" if champion.is_confirmed else " by the history; MLflow could not be asked"
        yield (
            f"champion: {model.label}, as_of {model.as_of:%Y-%m-%d}, {champion.age_days:.1f} days "
            f"old{since}{source}"
        )
    if champion.is_confirmed and champion.problem:
        yield f"  {champion.problem}"


def _cycle_lines(cycle: Cycle) -> Iterator[str]:
    name = f"{cycle.as_of:%Y-%m-%d}" if cycle.as_of else cycle.run_id
    if cycle.failure is not None:
        failure = cycle.failure
        yield f"{name}  broke in {failure.stage}, {failure.occurred_at:%Y-%m-%d %H:%M} UTC"
        yield f"  {failure.error_class}: {failure.message}"
    elif cycle.problem:
        yield f"{name}  cannot be read"
        yield f"  {cycle.problem}"
    elif cycle.outcome is None:
        yield f"{name}  has not ended; the next stage is {cycle.next_stage}"
    if cycle.outcome is not None:
        outcome = cycle.outcome
        yield f"{name}  {outcome.decision}: {outcome.title}"
        yield f"  {outcome.number}"
        yield f"  {outcome.why}"
        if cycle.promoted:
            yield f"  {cycle.promoted}"
        elif cycle.failure is None:
            yield f"  has not ended; the next stage is {cycle.next_stage}"
        yield from (f"  {label}: {uri}" for label, uri in outcome.links[:1])
    yield f"  run folder: {cycle.run_uri}"


def _alert_line(alert: OutboxAlert) -> str:
    lacking = ", ".join(alert.not_delivered_to)
    missing = f"; not delivered by {lacking}" if lacking else ""
    return (
        f"{alert.written_at:%Y-%m-%d %H:%M} UTC  {alert.kind}  {alert.title}{missing}  "
        f"{alert.text_uri}"
    )
