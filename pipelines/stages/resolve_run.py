"""`resolve_run`: the only stage that looks at a clock, at "latest" or at a registry alias.

It fixes as_of, the code, the champion's version and the reference snapshot. What follows is a pure
function of its result. It is run by `pipelines.stages.runner.start_run`, which returns the run that
was resolved first for the same request.
"""

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, RunRequest
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.recipes import make_recipe
from pipelines.registry import evidence
from pipelines.registry.evidence import find_standing, newest_accepted
from pipelines.settings import Settings


def run_uri_of(request: RunRequest, settings: Settings) -> str:
    """Return the URI of the run folder of a request, whether or not there is one already."""
    return storage.join(storage.to_uri(settings.workspace_location), "runs", request.run_id)


def resolve_run(request: RunRequest, settings: Settings) -> ResolvedRun:
    """Fix everything that a cycle depends on.

    Raises:
        ConfigurationError: unknown or invalid recipe, or one that asks for what no head gives or
            whose own functions are not here; as_of not newer than the champion's; a champion that
            cannot be scored on this log; bad tracking URI; more training processes, GPUs or
            machines than there are.
        RecordDisagreesError: the alias is not where this workspace's history says.
        DataContractError: the event log is missing or lacks what the recipe needs; the newest
            entry of the history is damaged.
        ConfigurationError: the event log's bucket is not there.
        TrackingUnavailableError: MLflow does not answer.
    """
    # Every stage and most commands import this module, and what looks at a log imports pandas.
    from pipelines.preconditions.cycle import Asked, require_all

    config = make_recipe(request.recipe)
    asked = Asked(request, config, settings)
    require_all(asked)
    assert asked.record is not None  # all questions were asked
    known, champion, later = asked.record.history, asked.champion, asked.later
    event_log_uri, workspace_uri = asked.event_log_uri, asked.workspace_uri
    name = settings.registered_model
    judged_before = evidence.pin(workspace_uri, name, but=request.run_id)
    serves = later or champion
    standing = find_standing(known, serves, config, judged_before)
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
        newest_entry=known.newest,
        later_champion=later,
        last_accepted_snapshot_uri=newest_accepted(workspace_uri, config.reference, request.day),
        standing=standing,
        judged_before=judged_before,
        **request.options(),
    )
