"""`resolve_run`: the only stage that looks at a clock, at "latest" or at a registry alias.

It fixes as_of, the code, the champion's version and the reference snapshot. What follows is a pure
function of its result. It is run by `pipelines.stages.runner.start_run`, which returns the run that
was resolved first for the same request.
"""

from datetime import datetime
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun, RunRequest
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.places.store_errors import require_bucket
from pipelines.preconditions.champion import require_comparable
from pipelines.preconditions.event_log import look_at, require_fed
from pipelines.preconditions.recipe_alone import require_sound
from pipelines.recipes import make_recipe
from pipelines.registry import evidence, history, moves, registry, tracking
from pipelines.registry.accepted import newest_accepted
from pipelines.registry.history import champion_before
from pipelines.registry.reconcile import look_between_moves, require_agreement, require_newest
from pipelines.registry.standing import find_standing
from pipelines.settings import Settings
from pipelines.stages.hardware import require_hardware

if TYPE_CHECKING:
    from mlflow import MlflowClient


def run_uri_of(request: RunRequest, settings: Settings) -> str:
    """Return the URI of the run folder of a request, whether or not there is one already."""
    return storage.join(storage.to_uri(settings.workspace_location), "runs", request.run_id)


def resolve_run(request: RunRequest, settings: Settings) -> ResolvedRun:
    """Fix everything that a cycle depends on.

    Raises:
        ConfigurationError: unknown or invalid recipe, or one whose gate asks for metrics that no
            head gives; as_of not newer than the champion's; a champion that cannot be scored on
            this log; bad tracking URI; more training processes, GPUs or machines than there are.
        RecordDisagreesError: the alias is not where this workspace's history says.
        DataContractError: the event log is missing or lacks what the recipe needs; the newest
            entry of the history is damaged.
        BucketMissingError: the event log's bucket is not there.
        TrackingUnavailableError: MLflow does not answer.
    """
    config = make_recipe(request.recipe)
    require_sound(config)
    require_hardware(request, settings)
    event_log_uri = storage.to_uri(settings.event_log_location)
    _require_event_log(event_log_uri)
    log = look_at(event_log_uri, request.day)
    require_fed(config, log, request.day)
    client = tracking.connect(settings.tracking_uri)
    workspace_uri = storage.to_uri(settings.workspace_location)
    require_record(client, workspace_uri, settings.registered_model, request.now)
    champion, later = registry.read_champion(client, settings.registered_model), None
    if request.may_promote:
        _require_newer(request.day, champion)
    elif champion is not None and request.day <= champion.as_of:
        # That model may have been trained on the holdout; who served then has not.
        later = champion
        champion = champion_before(workspace_uri, settings.registered_model, request.day)
    require_comparable(client, workspace_uri, champion, config, log, request.day)
    name = settings.registered_model
    judged_before = evidence.pin(workspace_uri, name, but=request.run_id)
    serves = later or champion
    standing = find_standing(client, workspace_uri, serves, name, config, judged_before)
    return ResolvedRun(
        run_id=request.run_id,
        run_uri=run_uri_of(request, settings),
        as_of=request.day,
        config=config,
        code_version=code_version(),
        code_digest=code_digest(),
        event_log_uri=event_log_uri,
        workspace_uri=workspace_uri,
        work_folder="" if storage.is_local(workspace_uri) else settings.work_folder,
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        registered_model=settings.registered_model,
        champion=champion,
        later_champion=later,
        last_accepted_snapshot_uri=newest_accepted(workspace_uri, config.reference, request.day),
        standing=standing,
        judged_before=judged_before,
        **request.options(),
    )


def require_record(client: "MlflowClient", workspace_uri: str, name: str, now: datetime) -> None:
    """Find out what became of a move that was interrupted, and refuse a record that is not true.

    A newest entry that is damaged is refused too: nothing vouches for the alias then, and one that
    was deleted would make this a first cycle, which promotes against the popularity baseline.
    """
    if history.load(workspace_uri, name).pending is not None:
        with history.promotion_lock(workspace_uri):
            moves.settle_others(client, workspace_uri, name, now, "a new cycle began")
    state = look_between_moves(client, workspace_uri, name)
    require_agreement(state)
    require_newest(state)


def _require_event_log(event_log_uri: str) -> None:
    found = set(storage.list_names(event_log_uri))
    missing = sorted(set(EVENT_LOG_TABLES) - found)
    if not found:
        require_bucket(event_log_uri)
    if missing:
        raise DataContractError(
            f"event log {event_log_uri}: tables {missing} are missing, found "
            f"{sorted(found) or 'nothing'}; expected {sorted(EVENT_LOG_TABLES)}; write one with "
            f"`homefeed ingest completejourney --to {event_log_uri}` or set HOMEFEED_EVENT_LOG"
        )


def _require_newer(as_of: datetime, champion: ModelRef | None) -> None:
    if champion is not None and as_of <= champion.as_of:
        raise ConfigurationError(
            f"as_of {as_of:%Y-%m-%d} is not newer than the champion's: {champion.label} was "
            f"trained as of {champion.as_of:%Y-%m-%d}; expected a later day; choose one, or "
            f"compare with the champion of that time, without promoting: switch Promote off in "
            f"Airflow's form, or give --no-promote"
        )
