"""Asks a person whether a model may serve, where the cycle's recipe wants that.

Airflow's own operator asks: the task waits in the database, without a process, so that nothing
which is killed meanwhile loses the question. Whom it asks and how long it waits stands in the
recipe, which is known only when the task runs; the answer is written into the run folder, where
`promote_challenger` finds it. The task is green where the promotion was approved, and skipped where
nobody had to approve or nobody did.

Airflow keeps one question for each task instance, and never replaces it: where the cycle is judged
anew, people are shown the question of before. So a hidden field of the form has the digest of the
judgement that is asked about, and an answer that brings back another digest counts for nothing.
"""

import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput

from pipelines.alerts.rendering import to_markdown
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import HomefeedError, PromotionRefusedError
from pipelines.contracts.judgement import Approval, Judgement
from pipelines.contracts.run_layout import approval_uri
from pipelines.orchestration.run_note import NOTE_KEY, words_of
from pipelines.orchestration.schedule import grid_of
from pipelines.orchestration.timetable import utc_now
from pipelines.plain_text import one_line, shortened
from pipelines.settings import Settings

log = logging.getLogger(__name__)
APPROVE, REJECT = ApprovalOperator.APPROVE, ApprovalOperator.REJECT
COMMENT, COMMENT_LENGTH, VERDICT = "comment", 500, "verdict"
AFTER_THE_ANSWER = timedelta(hours=2)
"""What the promotion and its retries take at most: so long before the run must end, and before the
next cycle is due, the question is closed."""


class PromotionApproval(HITLOperator):
    """Airflow's question to people, whether the model that a cycle would promote may serve.

    Args:
        run_uri: URI of the run folder; usually a reference to `resolve_run`'s result.
    """

    template_fields: Collection[str] = ("subject", "body", "run_uri")

    def __init__(self, *, run_uri: Any, **kwargs: Any) -> None:
        # Airflow hands over the DAG's parameters here, of which the operator keeps none.
        kwargs["params"] = {
            COMMENT: Param("", type=["null", "string"], title="Comment", source="task"),
            VERDICT: Param("", type="string", source="task"),
        }
        super().__init__(
            subject="May this model serve?",
            options=[APPROVE, REJECT],
            # Without an answer Airflow takes this one, and tells that nobody gave it.
            defaults=[REJECT],
            response_timeout=timedelta(hours=1),  # that of the recipe is known when it asks
            **kwargs,
        )
        self.run_uri = run_uri

    def execute(self, context: Any) -> Any:
        """Ask, unless nobody has to be asked or there is an answer already.

        Raises:
            AirflowSkipException: nobody has to approve, or nobody has.
            TaskAwaitingInput: the question is put; Airflow goes on with `execute_complete`.
        """
        from pipelines.alerts.compose import compose_wanted
        from pipelines.cycles.reading import outcome_now
        from pipelines.registry.moves import read_approval

        run, judgement = _judged(self.run_uri)
        asked, digest = run.config.promotion.approval, judgement.ruling_digest
        if asked is None or not judgement.waits_for_approval(run):
            raise AirflowSkipException("nobody has to approve anything in this cycle")
        known = read_approval(run.run_uri)
        if known is not None and known.by and known.ruling_digest == digest:
            said = known.model_dump(include={"answer", "by", "at", "comment"})
            return _conclude(context, run, judgement, **said)
        now, settings = utc_now(), Settings()
        until = min(
            now + timedelta(hours=asked.within_hours),
            context["dag_run"].start_date + context["dag"].dagrun_timeout - AFTER_THE_ANSWER,
            grid_of(settings).after(now) - AFTER_THE_ANSWER,
        )
        if until <= now:
            # A retry says the same as the attempt before, so that nobody is told twice.
            return _conclude(context, run, judgement, answer="no answer", by="", at=until)
        outcome = outcome_now(run, judgement, settings)
        self.subject = f"{outcome.title}. May it serve?"
        self.body = (
            f"Answer until {until:%Y-%m-%d %H:%M} UTC; without an answer the champion stays. Where "
            f"this task was cleared since, the newest alert `approval_wanted` has the time."
            f"\n\n{to_markdown(outcome)}"
        )
        self.response_timeout = until - now
        self.assigned_users = [{"id": name, "name": name} for name in asked.by]
        # A constant is not drawn in the form, and comes back with the answer.
        self.params[VERDICT] = Param(digest, type="string", const=digest, source="task")
        try:
            super().execute(context)
        except TaskAwaitingInput:
            times = context["ti"].try_number
            _tell(compose_wanted(run, outcome, digest, until, times, settings), settings)
            raise

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Write down what a person has answered, or that nobody did in time.

        Raises:
            AirflowSkipException: the promotion was rejected, or nobody answered.
            PromotionRefusedError: the answer is about another verdict.
        """
        from pipelines.alerts.commands import force_command, new_cycle_command

        answered = super().execute_complete(context, event)
        run, judgement = _judged(self.run_uri)
        person, said = answered["responded_by_user"], answered["params_input"]
        by = str(person["name"] or person["id"]) if person else ""
        if by and said.get(VERDICT) != judgement.ruling_digest:
            raise PromotionRefusedError(
                f"the answer counts for nothing: it is about the verdict with digest "
                f"{said.get(VERDICT)}; expected {judgement.ruling_digest}, because the cycle was "
                f"judged anew since; begin another cycle: `{new_cycle_command(run)}`, or promote "
                f"this model all the same: `{force_command(run)}`"
            )
        is_approved = answered["chosen_options"] == [APPROVE]
        return _conclude(
            context,
            run,
            judgement,
            answer=("approved" if is_approved else "rejected") if by else "no answer",
            by=by,
            at=answered["responded_at"],
            comment=shortened(one_line(str(said.get(COMMENT) or "").strip()), COMMENT_LENGTH),
        )


def _judged(run_uri: str) -> tuple[ResolvedRun, Judgement]:
    from pipelines.stages.runner import read_artifact

    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    return run, read_artifact(run_uri, "compare_with_champion", Judgement)


def _conclude(context: Any, run: ResolvedRun, judgement: Judgement, **said: Any) -> dict[str, Any]:
    """Keep and tell the answer, whose fields are given; return it as JSON.

    Raises:
        AirflowSkipException: the model may not serve.
    """
    from pipelines import storage
    from pipelines.alerts.compose import compose_not_approved
    from pipelines.cycles.reading import outcome_now

    model, settings = judgement.promoted_model, Settings()
    assert model is not None, "something is to be promoted"
    approval = Approval(model=model.label, ruling_digest=judgement.ruling_digest, **said)
    storage.write_model(approval_uri(run.run_uri), approval)
    context["ti"].xcom_push(NOTE_KEY, words_of(run))
    if not approval.is_given:
        outcome = outcome_now(run, judgement, settings)
        _tell(compose_not_approved(run, outcome, approval, settings), settings)
        raise AirflowSkipException(approval.sentence)
    return approval.model_dump(mode="json")


def _tell(alert: Any, settings: Settings) -> None:
    """Send an alert; a transport that fails costs no answer, and later alerts try it again."""
    from pipelines.alerts.transports import deliver

    try:
        deliver(alert, settings)
    except HomefeedError as error:
        log.warning("not everybody was told, and is when the next alert is sent: %s", error)
