"""A deployment whose event log and workspace lie at given URIs, and what its cycles have made.

Cycles are run stage by stage, each in a process of its own, as a worker would run them; their
digests say whether two deployments have made the same. Not for kills (`support.stage_world`).
"""

import os
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.contracts.artifacts import STAGES, Challenger, DataReport, ResolvedRun, Snapshot
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.contracts.run_layout import manifest_uri
from pipelines.stages.runner import read_artifact
from support import stage_acts
from support.stage_points import Place
from support.stage_processes import Act, Ended, Where, perform


@dataclass(frozen=True)
class Deployment:
    """Where cycles run.

    Attributes:
        home: Local folder for temporary files, and for what the processes say.
        event_log: URI of the event log.
        workspace: URI of the workspace.
        tracking_uri: MLflow's address.
        model: Name of the registered model.
        extra: Further variables of the environment, such as those that lead to an object store.
    """

    home: Path
    event_log: str
    workspace: str
    tracking_uri: str
    model: str
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOMEFEED_HOME": str(self.home),
            "HOMEFEED_EVENT_LOG": self.event_log,
            "HOMEFEED_WORKSPACE": self.workspace,
            "HOMEFEED_TRACKING_URI": self.tracking_uri,
            "HOMEFEED_REGISTERED_MODEL": self.model,
            "HOMEFEED_EXPERIMENT": self.model,
            "GX_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "true",
            "GIT_DIR": os.devnull,
        } | self.extra

    def run_uri(self, trigger: str, as_of: datetime) -> str:
        """Return the run folder of a cycle, whether or not it is there."""
        return storage.join(self.workspace, "runs", stage_acts.request_of(trigger, as_of).run_id)

    def act_of(self, stage: str, trigger: str, as_of: datetime) -> Act:
        """Return what runs one stage of a cycle."""
        if stage == "resolve_run":
            return partial(stage_acts.resolve, trigger, as_of)
        return partial(stage_acts.do_stage, stage, self.run_uri(trigger, as_of))

    def perform(self, act: Act, kill_at: Place | None = None) -> Ended:
        """Do an act in a process that has this deployment's environment, and is perhaps killed."""
        return perform(self.where, act, kill_at)

    @property
    def where(self) -> Where:
        """Where its processes are; what they say is kept beside the home."""
        notes = self.home.with_name(f"{self.home.name}-notes")
        for folder in (self.home, notes):
            folder.mkdir(parents=True, exist_ok=True)
        return Where(self.home, notes, self.environment)

    def must(self, act: Act) -> None:
        """Do an act, and see that it is done."""
        ended = self.perform(act)
        assert ended.code == 0, f"{act}: {ended.error}\n{ended.said}"

    def run_cycle(self, trigger: str, as_of: datetime) -> None:
        """Run every stage of a cycle, and see that each ends well."""
        for stage in STAGES:
            self.must(self.act_of(stage, trigger, as_of))


def facts_of(run_uri: str) -> dict[str, Any]:
    """Return what a cycle has made that must not depend on where it was made."""
    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    snapshot = read_artifact(run_uri, "build_snapshot", Snapshot)
    report = read_artifact(run_uri, "check_snapshot", DataReport)
    challenger = read_artifact(run_uri, "train_challenger", Challenger)
    judgement = read_artifact(run_uri, "compare_with_champion", Judgement)
    champion = read_artifact(run_uri, "promote_challenger", Promotion).champion_after
    return {
        "champion before": run.champion.version if run.champion else None,
        "snapshot": snapshot.digest,
        "data gate": [(each.name, each.is_met, each.observed) for each in report.outcomes],
        "bundle": challenger.bundle_files,
        "steps and loss": (challenger.num_steps, challenger.final_training_loss),
        "comparison": judgement.comparison.metrics,
        "decision": judgement.verdict.decision,
        "champion after": champion.version if champion else None,
        "is alerted": storage.exists(manifest_uri(run_uri, "alert")),
    }
