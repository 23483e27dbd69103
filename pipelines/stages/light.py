"""The stages that run inside Airflow's task: `resolve_run`, `promote_challenger`, `alert`.

`resolve_run` alone looks at a clock, at "latest" or at a registry alias; what follows is a pure
function of its result. The champion moves if the verdict, the run and the registry permit it, and
people are told what the verdict asks for, and that a cycle broke.

Not for the decisions: those are in `pipelines.registry` and `pipelines.alerts`. The last two stages
are tested in tests/pipelines/registry/test_promotion.py and tests/pipelines/alerts/test_compose.py.
"""

from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ResolvedRun, RunRequest
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.judgement import Judgement
from pipelines.recipes import make_recipe
from pipelines.registry import evidence
from pipelines.registry.evidence import accepted_folder, find_standing, newest_mark
from pipelines.registry.moves import promote_challenger
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.alerts.compose import Ended

__all__ = ["alert", "promote_challenger", "resolve_run", "run_uri_of", "tell_failure"]


def run_uri_of(request: RunRequest, settings: Settings) -> str:
    """Return the URI of the run folder of a request, whether or not there is one already."""
    return storage.join(settings.workspace_uri, "runs", request.run_id)


def resolve_run(request: RunRequest, settings: Settings) -> ResolvedRun:
    """Fix as_of, code, champion's version, reference snapshot and all else that a cycle depends on.

    It is run by `pipelines.stages.runner.start_run`, which returns the run that was resolved first
    for the same request.

    Raises:
        ConfigurationError: unknown or invalid recipe, or one that asks for what no head gives or
            whose own functions are not here; as_of not newer than the champion's; a champion that
            cannot be scored on this log; bad tracking URI; more training processes, GPUs or
            machines than there are; the event log's bucket is not there.
        RecordDisagreesError: the alias is not where this workspace's history says.
        DataContractError: the event log is missing or lacks what the recipe needs; the newest
            entry of the history is damaged.
        TrackingUnavailableError: MLflow does not answer.
    """
    # Every stage and most commands import this module, and what looks at a log imports pandas.
    from pipelines.preconditions.cycle import Asked, require_all

    config = make_recipe(request.recipe)
    asked = Asked(request, config, settings)
    require_all(asked)
    assert asked.record is not None and asked.log is not None  # all questions were asked
    known, champion, later = asked.record.history, asked.champion, asked.later
    workspace_uri, name = asked.settings.workspace_uri, settings.registered_model
    judged_before = evidence.pin(workspace_uri, name, but=request.run_id)
    last = newest_mark(accepted_folder(workspace_uri, config.reference), request.day)
    return ResolvedRun(
        run_id=request.run_id,
        run_uri=run_uri_of(request, settings),
        as_of=request.day,
        config=config,
        code_version=code_version(),
        code_digest=code_digest(),
        event_log_uri=asked.settings.event_log_uri,
        candidates=asked.log.record.candidates if asked.log.record else "",
        workspace_uri=workspace_uri,
        work_folder="" if storage.is_local(workspace_uri) else settings.work_folder,
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        registered_model=name,
        champion=champion,
        newest_entry=known.newest,
        later_champion=later,
        last_accepted_snapshot_uri=last and last.snapshot_uri,
        standing=find_standing(known, later or champion, config, judged_before),
        judged_before=judged_before,
        **request.options(),
    )


def alert(run: ResolvedRun, judgement: Judgement, settings: Settings) -> AlertReceipt:
    """Send the message that the verdict asks for, if it asks for one.

    Raises:
        AlertDeliveryError: a transport failed; the outbox and the other transports have it.
    """
    from pipelines.alerts.compose import compose_serving, compose_verdict
    from pipelines.alerts.incidents import deliver_left
    from pipelines.alerts.transports import deliver
    from pipelines.cycles.reading import outcome_now

    message = compose_verdict(outcome_now(run, judgement, settings), judgement, run, settings)
    nothing = AlertReceipt(alert=None, delivered_to=())
    receipt = deliver(message, settings) if message else nothing
    if (skew := judgement.skew) and skew.is_fault and run.champion:
        about = run.champion.label, "served scores are not what was judged", run.run_id
        deliver(compose_serving(*about, skew.sentence, settings), settings)
    deliver_left(settings)
    return receipt


def tell_failure(run: ResolvedRun, settings: Settings, ended: "Ended") -> AlertReceipt:
    """Tell people about a run that broke, then end its MLflow runs with the reason.

    Raises what `pipelines.alerts.incidents.tell` does. What earlier alerts wait for comes last: in
    Airflow's DAG processor there is little time.
    """
    from pipelines.alerts.compose import alert_about_failure
    from pipelines.alerts.incidents import deliver_left, tell
    from pipelines.registry.tracking import end_failed

    alert = alert_about_failure(run, settings, ended)
    try:
        receipt = tell(alert, settings)
    finally:  # Where a transport failed the outbox has it: the run broke all the same.
        end_failed(run, f"{ended.stage} broke: {alert.happened}")
    deliver_left(settings)
    return receipt
