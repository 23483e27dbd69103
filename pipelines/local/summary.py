"""What came out of the cycles, read from their manifests. Runs nothing, and asks no server.

Tested in tests/pipelines/local/test_summary.py, and with a real Airflow in test_real_airflow.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from pipelines import storage
from pipelines.alerts.commands import runnable, serving_command
from pipelines.alerts.compose import find_failure
from pipelines.alerts.next_step import what_was_promoted
from pipelines.alerts.outcomes import kept_outcome
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.settings import Settings


@dataclass(frozen=True)
class CycleOutcome:
    """The manifests of a cycle's stages that have ended so far."""

    run: ResolvedRun
    records: dict[str, StageRecord]

    @property
    def is_finished(self) -> bool:
        """True when every stage has published."""
        return len(self.records) == len(STAGES)

    @property
    def stages_s(self) -> float:
        """Seconds of the stages' own work."""
        return sum(record.wall_s for record in self.records.values())

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start of the first stage to the end of the last."""
        first = self.records["resolve_run"]
        ended_at = max(record.finished_at for record in self.records.values())
        return first.wall_s + (ended_at - first.finished_at).total_seconds()

    @property
    def overhead_share(self) -> float:
        """Share of the elapsed time in which no stage's own work was done."""
        return max(0.0, 1 - self.stages_s / self.elapsed_s) if self.elapsed_s > 0 else 0.0


def find_run(workspace: str, trigger: str) -> CycleOutcome | None:
    """Return what a trigger's cycle has published, or None if it was never resolved."""
    runs_uri = storage.join(storage.to_uri(workspace), "runs")
    names = storage.list_names(runs_uri)
    outcomes = (_read_outcome(storage.join(runs_uri, name)) for name in names)
    return next((found for found in outcomes if found and found.run.trigger == trigger), None)


def find_finished_run(workspace: str, trigger: str) -> CycleOutcome | None:
    """Return a trigger's cycle if every stage of it has ended, else None."""
    outcome = find_run(workspace, trigger)
    return outcome if outcome is not None and outcome.is_finished else None


def _read_outcome(run_uri: str) -> CycleOutcome | None:
    uris = {stage: manifest_uri(run_uri, stage) for stage in STAGES}
    records = {
        stage: storage.read_model(uri, StageRecord)
        for stage, uri in uris.items()
        if storage.exists(uri)
    }
    if "resolve_run" not in records:
        return None
    return CycleOutcome(ResolvedRun.model_validate(records["resolve_run"].artifact), records)


def show_summary(console: Console, workspace: str, triggers: Sequence[str]) -> None:
    """Print verdict, numbers, times and paths of each cycle."""
    for trigger in triggers:
        outcome = find_run(workspace, trigger)
        if outcome is None:
            console.print(f"{trigger}: did not begin")
            continue
        console.rule(f"cycle {outcome.run.as_of:%Y-%m-%d}")
        for line in describe(outcome):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe(outcome: CycleOutcome) -> list[str]:
    """Return the lines that sum up one cycle."""
    lines = []
    failure = find_failure(outcome.run.run_uri)
    if failure is not None:
        lines.append(f"FAILED in {failure.stage}: {failure.error_class}: {failure.message}")
    if "compare_with_champion" in outcome.records:
        lines += _describe_verdict(outcome)
    if "promote_challenger" in outcome.records:
        promotion = Promotion.model_validate(outcome.records["promote_challenger"].artifact)
        lines.append(what_was_promoted(promotion))
        lines.append(f"which model serves now: {runnable(serving_command(outcome.run))}")
    times = ", ".join(
        f"{stage} {outcome.records[stage].wall_s:.1f}"
        for stage in STAGES
        if stage in outcome.records
    )
    lines.append(f"seconds: {times}")
    lines.append(
        f"elapsed {outcome.elapsed_s:.1f} s, of it {100 * outcome.overhead_share:.0f} % outside "
        f"the stages' own work"
    )
    lines.append(f"run folder: {outcome.run.run_uri}")
    return lines


def _describe_verdict(outcome: CycleOutcome) -> list[str]:
    judgement = Judgement.model_validate(outcome.records["compare_with_champion"].artifact)
    return list(kept_outcome(outcome.run, judgement, Settings()).lines())
