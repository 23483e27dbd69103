"""Asks a person whether a model may serve, where the cycle's recipe wants that.

Airflow's own operator asks: the task waits in the database, without a process, so that nothing
which is killed meanwhile loses the question. Whom it asks and how long it waits stands in the
recipe, which is known only when the task runs; the answer is written into the run folder, where
`promote_challenger` finds it. The task is green where the promotion was approved, and skipped where
nobody had to approve or nobody did.

Airflow keeps one question for each task instance, and never replaces it: a task that is cleared or
tried again puts its question, and people are shown the first one. So a hidden field of the form has
the digest of the judgement that is asked about. What Airflow shows is looked at before anybody is
told, and every answer brings the digest back, because the cycle may be judged anew meanwhile.
"""

import logging
import shlex
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput

from pipelines.orchestration.grid import grid_of
from pipelines.orchestration.run_note import NOTE_KEY
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.contracts.artifacts import ResolvedRun
    from pipelines.contracts.errors import PromotionRefusedError
    from pipelines.contracts.judgement import Approval, Judgement

log = logging.getLogger(__name__)
APPROVE, REJECT = ApprovalOperator.APPROVE, ApprovalOperator.REJECT
COMMENT, COMMENT_LENGTH, VERDICT = "comment", 500, "verdict"
AFTER_THE_ANSWER = timedelta(hours=2)
"""What the promotion and its retries take at most: so long before the run must end, and before the
next cycle is due, the question is closed."""


def utc_now() -> datetime:
    """Return this instant; tests replace it."""
    return datetime.now(UTC)


class PromotionApproval(HITLOperator):
    """Airflow's question to people, whether the model that a cycle would promote may serve.

    Args:
        run_uri: URI of the run folder; usually a reference to `resolve_run`'s result.
    """

    template_fields: Collection[str] = ("subject", "body", "run_uri")

    def __init__(self, *, run_uri: Any, **kwargs: Any) -> None:
        said = "Why, if you like. It is kept and told with your answer."
        # Airflow hands over the DAG's parameters here, of which the operator keeps none.
        kwargs["params"] = {
            COMMENT: Param(
                "", type=["null", "string"], title="Comment", description=said, source="task"
            ),
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
            PromotionRefusedError: Airflow shows people the question about an earlier verdict.
            TaskAwaitingInput: the question is put; Airflow goes on with `execute_complete`.
        """
        from pipelines.registry.moves import read_approval
        from pipelines.stages.runner import read_record

        run, judgement = self._judged()
        if not judgement.waits_for_approval(run):
            raise AirflowSkipException("nobody has to approve anything in this cycle")
        known = read_approval(run.run_uri)
        if known is not None and known.ruling_digest != judgement.ruling_digest:
            known = None
        if known is not None and known.by:
            return _conclude(context, run, judgement, known)
        asked, now, began = run.config.promotion.approval, utc_now(), context["dag_run"].start_date
        assert asked is not None, "somebody is asked"
        # A run that is cleared begins anew, and so does the time to think.
        since = max(read_record(self.run_uri, "compare_with_champion").finished_at, began)
        until = min(
            since + timedelta(hours=asked.within_hours),
            began + context["dag"].dagrun_timeout - AFTER_THE_ANSWER,
            grid_of(Settings()).after(now) - AFTER_THE_ANSWER,
        )
        if until <= now:
            # A retry says the same as the attempt before, so that nobody is told twice.
            closed = known or _answered(judgement, "no answer", "", now)
            return _conclude(context, run, judgement, closed)
        self._ask(context["ti"], run, judgement, until)
        raise TaskAwaitingInput(method_name="execute_complete", timeout=until - now)

    def _ask(self, ti: Any, run: "ResolvedRun", judgement: "Judgement", until: datetime) -> None:
        """Put the question and tell people of it, once Airflow is seen to show it.

        Raises:
            PromotionRefusedError: people are shown another verdict, or other people may answer.
        """
        from airflow.sdk.api.datamodels._generated import HITLUser
        from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        from pipelines.alerts.compose import compose_wanted
        from pipelines.alerts.outcomes import kept_outcome
        from pipelines.alerts.rendering import to_markdown
        from pipelines.contracts.judgement import Question
        from pipelines.plain_text import one_line

        outcome, asked = kept_outcome(run, judgement, Settings()), run.config.promotion.approval
        assert asked is not None and judgement.promoted_model is not None, "somebody is asked"
        digest = judgement.ruling_digest
        # A constant is not drawn in the form, and comes back with the answer.
        self.params[VERDICT] = Param(digest, type="string", const=digest, source="task")
        # Airflow's own `upsert_hitl_detail` does the same, and does not hand back what is there. An
        # earlier answer is taken away by it.
        question = CreateHITLDetailPayload(
            ti_id=ti.id,
            options=self.options,
            subject=f"{outcome.title}. May it serve?",
            body=f"Answer until {until:%Y-%m-%d %H:%M} UTC; without an answer the champion stays. "
            f"Where this task was cleared since, the newest alert `approval_wanted` has the time."
            f"\n\n{to_markdown(outcome)}",
            defaults=self.defaults,
            multiple=self.multiple,
            params=self.serialized_params,
            assigned_users=[HITLUser(id=name, name=name) for name in asked.by],
        )
        shown: Any = SUPERVISOR_COMMS.send(msg=question)
        about = ((shown.params or {}).get(VERDICT) or {}).get("value")
        users = {user.id for user in shown.assigned_users or ()}
        if about != digest or users != set(asked.by):

            def names(found: Collection[str]) -> str:
                return " and ".join(shlex.quote(name) for name in sorted(found)) or "everybody"

            raise _refused(
                run,
                f"Airflow shows people the question that this run has put before, which is about "
                f"another verdict or for other people: found {one_line(shown.subject)!r} for "
                f"{names(users)}; expected the judgement with digest {digest[:12]} for "
                f"{names(asked.by)}; Airflow replaces no question of a run",
            )
        put = Question(
            ruling_digest=digest,
            model=judgement.promoted_model.label,
            until=until,
            num_times=ti.try_number,
        )
        _tell(compose_wanted(run, outcome, put, Settings()))

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Write down what a person has answered, or that nobody did in time.

        Raises:
            AirflowSkipException: the promotion was rejected, or nobody answered.
            PromotionRefusedError: the answer is about another verdict.
        """
        answered = super().execute_complete(context, event)
        run, judgement = self._judged()
        person, said = answered["responded_by_user"], answered["params_input"]
        by = str(person["name"] or person["id"]) if person else ""
        about = str(said.get(VERDICT))
        if by and about != judgement.ruling_digest:
            raise _refused(
                run,
                f"an answer came and counts for nothing: the question was about another verdict "
                f"(digest {about[:12]}), and the cycle was judged anew since; expected a question "
                f"about the judgement with digest {judgement.ruling_digest[:12]}",
            )
        is_approved = answered["chosen_options"] == [APPROVE]
        answer = ("approved" if is_approved else "rejected") if by else "no answer"
        comment = str(said.get(COMMENT) or "") if by else ""
        found = _answered(judgement, answer, by, answered["responded_at"], comment)
        return _conclude(context, run, judgement, found)

    def _judged(self) -> "tuple[ResolvedRun, Judgement]":
        from pipelines.contracts.artifacts import ResolvedRun
        from pipelines.contracts.judgement import Judgement
        from pipelines.stages.runner import read_artifact

        return (
            read_artifact(self.run_uri, "resolve_run", ResolvedRun),
            read_artifact(self.run_uri, "compare_with_champion", Judgement),
        )


def _answered(
    judgement: "Judgement", answer: Any, by: str, at: datetime, comment: str = ""
) -> "Approval":
    from pipelines.contracts.judgement import Approval
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


def _conclude(
    context: Any, run: "ResolvedRun", judgement: "Judgement", approval: "Approval"
) -> dict[str, Any]:
    """Keep the answer and tell it; return it as JSON.

    Raises:
        AirflowSkipException: the model may not serve.
    """
    from pipelines import storage
    from pipelines.alerts.compose import compose_not_approved
    from pipelines.alerts.outcomes import kept_outcome
    from pipelines.contracts.judgement import approval_uri
    from pipelines.plain_text import as_markdown

    storage.write_model(approval_uri(run.run_uri), approval)
    what = "APPROVED" if approval.is_given else "NOT APPROVED"
    context["ti"].xcom_push(NOTE_KEY, [f"**{what}**: {as_markdown(approval.sentence)}"])
    log.info("%s", approval.sentence)
    if not approval.is_given:
        outcome = kept_outcome(run, judgement, Settings())
        _tell(compose_not_approved(run, outcome, approval, Settings()))
        raise AirflowSkipException(approval.sentence)
    return approval.model_dump(mode="json")


def _refused(run: "ResolvedRun", why: str) -> "PromotionRefusedError":
    """Return the error about a question or an answer, with what a person does instead."""
    from pipelines.alerts.commands import force_command, new_cycle_command
    from pipelines.contracts.errors import PromotionRefusedError

    return PromotionRefusedError(
        f"{why}; begin another cycle, which asks about its own model: `{new_cycle_command(run)}`, "
        f"or promote this one all the same: `{force_command(run)}`"
    )


def _tell(alert: Any) -> None:
    """Send an alert; a transport that fails costs no answer, and later alerts try it again."""
    from pipelines.alerts.transports import deliver
    from pipelines.contracts.errors import HomefeedError

    try:
        deliver(alert, Settings())
    except HomefeedError as error:
        log.warning("not everybody was told, and is when the next alert is sent: %s", error)
