"""What is done in a process of its own by tests of whole stages: by a cycle, and by others.

Each is a function of plain values, because it crosses into another process, and reads where it is
from HOMEFEED_* variables as a deployment does.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, ResolvedRun, RunRequest
from pipelines.contracts.judgement import Decision, Judgement
from pipelines.registry import history, moves, registry, tracking
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact, run_stage, start_run
from support.judgements import ruled
from support.registered import NO_ANCHOR, challenger_of, judgement_of
from support.runs import PLANTED_AS_OF, save_artifact

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FIRST_AS_OF = PLANTED_AS_OF - timedelta(days=14)
LATER = "another"
"""Trigger of the run that somebody else resolves meanwhile."""


def request_of(trigger: str, as_of: datetime = PLANTED_AS_OF) -> RunRequest:
    return RunRequest(
        recipe="smoke", as_of=as_of, now=NOW, may_promote=True, num_devices=1, trigger=trigger
    )


def resolve(trigger: str, as_of: datetime = PLANTED_AS_OF) -> None:
    start_run(request_of(trigger, as_of), Settings())


def do_stage(name: str, run_uri: str) -> None:
    run_stage(name, run_uri)


def roll_back() -> None:
    settings = Settings()
    client = tracking.connect(settings.tracking_uri)
    moves.rollback(client, settings, None, NOW + timedelta(hours=2), "hides rose")


def move_by_hand(version: str) -> None:
    settings = Settings()
    client = tracking.connect(settings.tracking_uri)
    client.set_registered_model_alias(settings.registered_model, registry.CHAMPION, version)


def promote_first(run_uri: str) -> None:
    """Let a first cycle's challenger serve, without judging it."""
    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    model = read_artifact(run_uri, "train_challenger", Challenger).model
    save_artifact(run, "compare_with_champion", judgement_of(run, model))
    run_stage("promote_challenger", run_uri)


def promote_a_twin(run_uri: str) -> None:
    """Let a second version serve, which has the first one's bundle, so that there is a way back."""
    from training.bundle.mlflow_model import log_bundle

    first = read_artifact(run_uri, "resolve_run", ResolvedRun)
    made = read_artifact(run_uri, "train_challenger", Challenger)
    changes = {"run_id": "twin", "as_of": first.as_of + timedelta(days=4), "champion": made.model}
    changes["run_uri"] = storage.join(first.workspace_uri, "runs", "twin")
    changes["newest_entry"] = history.load(first.workspace_uri, first.registered_model).newest
    run = first.model_copy(update=changes)
    client = tracking.connect(run.tracking_uri)
    mlflow_run_id = tracking.open_run(client, run, "challenger", "a twin")
    bundle: Path = storage.local_path(made.bundle_uri)
    logged = log_bundle(client, bundle, mlflow_run_id)
    own = {"as_of": f"{run.as_of}", "model_digest": logged.digest}
    tags = client.get_model_version(made.model.name, made.model.version).tags | own
    model = registry.register(client, run, mlflow_run_id, logged.uri, tags)
    client.set_terminated(mlflow_run_id, "FINISHED")
    verdict = judgement_of(run, model)
    moves.promote_challenger(run, challenger_of(model), NO_ANCHOR, verdict, NOW)


def rule(run_uri: str, decision: Decision) -> None:
    """Give a judged cycle another verdict, as the comparison would have published it."""
    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    judgement = read_artifact(run_uri, "compare_with_champion", Judgement)
    is_won = decision is Decision.PROMOTE
    verdict = ruled(decision, f"Because of a test: {decision}.", becomes_anchor=is_won)
    found = judgement.model_copy(update={"verdict": verdict})
    save_artifact(run, "compare_with_champion", found)
