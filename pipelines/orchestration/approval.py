"""Asks a person whether a model may serve, where the cycle's recipe wants that.

Airflow's own operator asks: the task waits in the database, without a process, so that nothing
which is killed meanwhile loses the question. Whatever comes of it is written into the run folder,
where `promote_challenger` finds it. The task is green where the promotion was approved, and
skipped where nobody had to approve or nobody did. Not for what people are shown
(`pipelines.orchestration.questions`). Tested in tests/pipelines/orchestration/test_approval.py, and
in a browser in tests/pipelines/local/test_real_browser.py.
"""

import logging
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput

from pipelines.orchestration import questions
from pipelines.orchestration.grid import TICK
from pipelines.orchestration.shown.keys import NOTE_KEY
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.contracts.artifacts import ResolvedRun
    from pipelines.contracts.judged.approval import Approval
    from pipelines.contracts.judgement import Judgement

log = logging.getLogger(__name__)

APPROVE, REJECT = "Approve", "Reject"
COMMENT, COMMENT_LENGTH = "comment", 500
AFTER_THE_ANSWER = timedelta(hours=2)
"""What the promotion and its retries take at most: so long before the run must end, and before the
next cycle is due, the question is closed."""


def utc_now() -> datetime:
    """Return this instant; tests replace it."""
    return datetime.now(UTC)


def closes_at(
    asked_at: datetime, within: timedelta, run_ends: datetime, next_due: datetime
) -> datetime:
    """Return when an answer counts no more: before the run times out and the next cycle is due.

    Args:
        asked_at: When the cycle was judged.
        within: How long the recipe lets people think.
        run_ends: When Airflow would end the run.
        next_due: When the next cycle is due.
    """
    return min(asked_at + within, run_ends - AFTER_THE_ANSWER, next_due - AFTER_THE_ANSWER)


def _comment() -> Param:
    """Return the field of the form in which a person says why."""
    return Param(
        "",
        type=["null", "string"],
        title="Comment",
        description="Why, if you like. It is kept and told with your answer.",
        source="task",  # the form has those of the task alone
    )


class PromotionApproval(HITLOperator):
    """Airflow's question to people, whether the model that a cycle would promote may serve.

    Args:
        run_uri: URI of the run folder; usually a reference to `resolve_run`'s result.
    """

    template_fields: Collection[str] = ("subject", "body", "run_uri")

    def __init__(self, *, run_uri: Any, **kwargs: Any) -> None:
        # Airflow hands over the DAG's parameters here, of which the operator keeps none.
        kwargs["params"] = {COMMENT: _comment()}
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
            PromotionRefusedError: Airflow shows people the question about an earlier verdict.
            TaskAwaitingInput: the question is put; Airflow goes on with `execute_complete`.
        """
        run, judgement = self._judged()
        if not judgement.waits_for_approval(run):
            raise AirflowSkipException("nobody has to approve anything in this cycle")
        known = _read(run)
        if known is not None and known.ruling_digest != judgement.ruling_digest:
            known = None
        if known is not None and known.by:
            return self._conclude(context, run, judgement, known)
        until, now = self._closes_at(context, run), utc_now()
        if until <= now:
            # A retry says the same as the attempt before, so that nobody is told twice.
            closed = known or _answer(judgement, "no answer", "", now)
            return self._conclude(context, run, judgement, closed)
        self._ask(context, run, judgement, until)
        raise TaskAwaitingInput(method_name="execute_complete", timeout=until - now)

    def _ask(
        self, context: Any, run: "ResolvedRun", judgement: "Judgement", until: datetime
    ) -> None:
        """Put the question and tell people of it, once Airflow is seen to show it."""
        from pipelines.alerts.approvals import compose_wanted
        from pipelines.alerts.outcomes import kept_outcome

        outcome = kept_outcome(run, judgement, Settings())
        asked = run.config.promotion.approval
        assert asked is not None, "somebody is asked"
        self.subject = f"{outcome.title}. May it serve?"
        self.body = questions.body_of(outcome, judgement, until)
        self.assigned_users = [{"id": name, "name": name} for name in asked.by] or None
        questions.require_shown(questions.put(self, context["ti"].id), run, judgement)
        question = questions.keep_question(run, judgement, until)
        _tell(compose_wanted(run, outcome, until, Settings(), question.num_times))

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Write down what a person has answered, or that nobody did in time.

        Raises:
            AirflowSkipException: the promotion was rejected, or nobody answered.
            PromotionRefusedError: the answer is about another verdict.
        """
        answered = super().execute_complete(context, event)
        run, judgement = self._judged()
        questions.require_asked(run, judgement)
        person = answered["responded_by_user"]
        by = str(person["name"] or person["id"]) if person else ""
        is_approved = bool(person) and answered["chosen_options"] == [APPROVE]
        answer = ("approved" if is_approved else "rejected") if by else "no answer"
        comment = str(answered["params_input"].get(COMMENT) or "") if by else ""
        approval = _answer(judgement, answer, by, answered["responded_at"], comment)
        return self._conclude(context, run, judgement, approval)

    def _judged(self) -> "tuple[ResolvedRun, Judgement]":
        from pipelines.contracts.artifacts import ResolvedRun
        from pipelines.contracts.judgement import Judgement
        from pipelines.stages.runner import read_artifact

        return (
            read_artifact(self.run_uri, "resolve_run", ResolvedRun),
            read_artifact(self.run_uri, "compare_with_champion", Judgement),
        )

    def _closes_at(self, context: Any, run: "ResolvedRun") -> datetime:
        from pipelines.stages.runner import read_record

        dag, began = context["dag"], context["dag_run"].start_date
        judged = read_record(self.run_uri, "compare_with_champion").finished_at
        asked = run.config.promotion.approval
        assert asked is not None, "somebody is asked"
        return closes_at(
            # A run that is cleared begins anew, and so does the time to think.
            max(judged, began),
            timedelta(hours=asked.within_hours),
            began + dag.dagrun_timeout,
            dag.timetable.due_at_or_after(utc_now() + TICK),
        )

    def _conclude(
        self, context: Any, run: "ResolvedRun", judgement: "Judgement", approval: "Approval"
    ) -> dict[str, Any]:
        """Keep the answer and tell it; return it as JSON.

        Raises:
            AirflowSkipException: the model may not serve.
        """
        from pipelines import storage
        from pipelines.alerts.approvals import compose_not_approved
        from pipelines.alerts.outcomes import kept_outcome
        from pipelines.contracts.judged.approval import approval_uri
        from pipelines.plain_text import as_markdown

        storage.write_model(approval_uri(run.run_uri), approval)
        what = "APPROVED" if approval.is_given else "NOT APPROVED"
        context["ti"].xcom_push(NOTE_KEY, [f"**{what}**: {as_markdown(approval.sentence)}"])
        log.info("%s", approval.sentence)
        if approval.is_given:
            return approval.model_dump(mode="json")
        outcome = kept_outcome(run, judgement, Settings())
        _tell(compose_not_approved(run, outcome, approval, Settings()))
        raise AirflowSkipException(approval.sentence)


def _read(run: "ResolvedRun") -> "Approval | None":
    from pipelines.registry.promotion import read_approval

    return read_approval(run.run_uri)


def _answer(
    judgement: "Judgement", answer: Any, by: str, at: datetime, comment: str = ""
) -> "Approval":
    from pipelines.contracts.judged.approval import Approval
    from pipelines.plain_text import one_line, shortened

    assert judgement.promoted_model is not None, "something is to be promoted"
    return Approval(
        answer=answer,
        by=by,
        at=at,
        model=judgement.promoted_model.label,
        ruling_digest=judgement.ruling_digest,
        comment=shortened(one_line(comment.strip()), COMMENT_LENGTH),
    )


def _tell(alert: Any) -> None:
    """Send an alert; a transport that fails costs no answer, and later alerts try it again."""
    from pipelines.alerts.transports import deliver
    from pipelines.contracts.errors import HomefeedError

    try:
        deliver(alert, Settings())
    except HomefeedError as error:
        log.warning("not everybody was told, and is when the next alert is sent: %s", error)
