"""Rebuild a past cycle's stages in a scratch workspace, and say what is equal to its record."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.run_layout import StageRecord
from pipelines.metrics.measured import unmeasured
from pipelines.reproduction import causes
from pipelines.reproduction.findings import Finding, compare_stage
from pipelines.reproduction.own_registry import fetch_champion, keep_numbers_below, own_registry
from pipelines.reproduction.past_cycle import PastCycle, read_listing
from pipelines.reproduction.scratch import Scratch, open_scratch
from pipelines.stages.build_snapshot import list_event_log
from pipelines.stages.runner import read_record, run_stage

_REGISTERING = ("train_challenger", "train_anchor", "compare_with_champion")
"""Stages that talk to MLflow."""


@dataclass(frozen=True)
class Outcome:
    """What came out of a reproduction."""

    findings: tuple[Finding, ...]
    changes: tuple[str, ...]  # what is not as it was, whether or not it made a difference
    not_recorded: tuple[str, ...]
    stopped_by: HomefeedError | None  # why a stage could not be rebuilt

    @property
    def differing(self) -> tuple[Finding, ...]:
        """What was rebuilt and is not what the record says."""
        return tuple(found for found in self.findings if found.state == "differs")


def rebuild(
    past: PastCycle,
    folder: Path,
    until: str,
    tell: Callable[[str], None],
    event_log_uri: str = "",
) -> Outcome:
    """Rebuild a cycle up to a stage; what an earlier attempt in the folder has rebuilt is kept.

    It is kept only where it would be made so today: see `pipelines.reproduction.scratch`. A stage
    that cannot be rebuilt ends it, and is told of in the outcome with its error.

    Args:
        past: The cycle.
        folder: See `open_scratch`.
        until: One of `REBUILT`.
        tell: Called with a line at the start and at the end of each stage.
        event_log_uri: Where the event log lies by now; '' where it lay.

    Raises:
        ConfigurationError: the folder holds something else.
        RunInProgressError: another process rebuilds in the folder.
    """
    stopped_at, stopped_by = "", None
    with open_scratch(folder, past, event_log_uri) as scratch:
        if scratch.is_cleared:
            tell(
                "what was rebuilt here before was made by other code or packages, or on another "
                "machine, so everything is rebuilt"
            )
        for name in past.stages_until(until):
            try:
                _rebuild_stage(name, past, scratch, tell)
            except HomefeedError as error:
                stopped_at, stopped_by = name, error
                tell(f"{name}: not rebuilt, {type(error).__name__}: {error}")
                break
        return _compare(past, scratch, until, stopped_at, stopped_by)


def _rebuild_stage(
    name: str, past: PastCycle, scratch: Scratch, tell: Callable[[str], None]
) -> None:
    tell(f"{name}: starting")
    started = time.monotonic()
    if name == "build_snapshot" and _is_log_another(scratch):
        tell("the event log is not as it was when it was rebuilt here, so everything is rebuilt")
        scratch.forget_stages()
    former = scratch.record_of(name)
    if name == "compare_with_champion":
        fetch_champion(past.run, scratch)
        scratch.copy_evidence(past)
    with contextlib.ExitStack() as stack:
        if name in _REGISTERING:
            client = stack.enter_context(own_registry(scratch))
            keep_numbers_below(client, past.run.registered_model, past.version_of(name))
        stack.enter_context(unmeasured())
        run_stage(name, scratch.run.run_uri)
    if scratch.record_of(name) == former:
        tell(f"{name}: was rebuilt before")
    else:
        tell(f"{name}: done in {time.monotonic() - started:.1f} s")


def _is_log_another(scratch: Scratch) -> bool:
    """Return whether a snapshot that was rebuilt before is of an event log that has changed since.

    Raises:
        DataContractError: the event log is gone.
    """
    if scratch.record_of("build_snapshot") is None:
        return False
    return read_listing(scratch.run.run_uri) != list_event_log(scratch.run)


def _compare(
    past: PastCycle,
    scratch: Scratch,
    until: str,
    stopped_at: str,
    stopped_by: HomefeedError | None,
) -> Outcome:
    run_uri, names = scratch.run.run_uri, past.stages_until(until)
    done = names[: names.index(stopped_at)] if stopped_at else names
    rebuilt: dict[str, StageRecord] = {name: read_record(run_uri, name) for name in done}
    findings: list[Finding] = []
    for name in past.stages_to_tell_of(until):
        why = _why_not(name, stopped_at, stopped_by)
        findings += compare_stage(name, past.run, past.records.get(name), rebuilt.get(name), why)
    changes = [
        *scratch.notes,
        *causes.data_changes(past, read_listing(run_uri)),
        *causes.environment_changes(past, rebuilt),
        *causes.recipe_changes(past),
        *causes.anchor_changes(past, rebuilt),
        *causes.measured_changes(past, rebuilt),
    ]
    missing = causes.not_recorded(past)
    return Outcome(tuple(findings), tuple(changes), tuple(missing), stopped_by)


def _why_not(name: str, stopped_at: str, stopped_by: HomefeedError | None) -> str:
    """Return why a stage was not rebuilt, in a few words; the error itself was told."""
    if stopped_by is None:
        return ""
    return type(stopped_by).__name__ if name == stopped_at else f"{stopped_at} was not rebuilt"
