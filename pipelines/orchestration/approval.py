"""Asks a person whether a model may serve, where the cycle's recipe wants that.

Airflow's own operator asks: the task waits in the database, without a process, so that nothing
which is killed meanwhile loses the question. Whom it asks and how long it waits stands in the
recipe, which is known only when the task runs; what comes of it is written into the run folder,
where `promote_challenger` finds it. The task is green where the promotion was approved, and skipped
where nobody had to approve or nobody did.

Airflow keeps one question for each task instance, and never replaces it: a task that is cleared or
tried again puts its question, and people are shown the first one. So a question names the digest of
the judgement that it is about, and what Airflow shows is looked at before anybody is told. The run
folder keeps what was asked, because the cycle may be judged anew while a person thinks. Tested in
tests/pipelines/orchestration/test_approval.py, and in a browser in
tests/pipelines/local/test_real_browser.py.
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
    from pipelines.contracts.judgement import Approval, Judgement, Question

log = logging.getLogger(__name__)

APPROVE, REJECT = ApprovalOperator.APPROVE, ApprovalOperator.REJECT
COMMENT, COMMENT_LENGTH = "comment", 500
AFTER_THE_ANSWER = timedelta(hours=2)
"""What the promotion and its retries take at most: so long before the run must end, and before the
next cycle is due, the question is closed."""
_REPAIR = "delete it and clear approve_promotion in Airflow, with what is after it: that asks anew"


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


class PromotionApproval(HITLOperator):
    """Airflow's question to people, whether the model that a cycle would promote may serve.

    Args:
        run_uri: URI of the run folder; usually a reference to `resolve_run`'s result.
    """

    template_fields: Collection[str] = ("subject", "body", "run_uri")

    def __init__(self, *, run_uri: Any, **kwargs: Any) -> None:
        said = "Why, if you like. It is kept and told with your answer."
        comment = Param(
            "", type=["null", "string"], title="Comment", description=said, source="task"
        )
        # Airflow hands over the DAG's parameters here, of which the operator keeps none.
        kwargs["params"] = {COMMENT: comment}
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
        from pipelines.registry.promotion import read_approval
        from pipelines.stages.runner import read_record

        run, judgement = self._judged()
        if not judgement.waits_for_approval(run):
            raise AirflowSkipException("nobody has to approve anything in this cycle")
        known = read_approval(run.run_uri)
        if known is not None and known.ruling_digest != judgement.ruling_digest:
            known = None
        if known is not None and known.by:
            return self._conclude(context, run, judgement, known)
        asked, now, began = run.config.promotion.approval, utc_now(), context["dag_run"].start_date
        assert asked is not None, "somebody is asked"
        until = closes_at(
            # A run that is cleared begins anew, and so does the time to think.
            max(read_record(self.run_uri, "compare_with_champion").finished_at, began),
            timedelta(hours=asked.within_hours),
            began + context["dag"].dagrun_timeout,
            grid_of(Settings()).after(now),
        )
        if until <= now:
            # A retry says the same as the attempt before, so that nobody is told twice.
            closed = known or _answer(judgement, "no answer", "", now)
            return self._conclude(context, run, judgement, closed)
        self._ask(context["ti"].id, run, judgement, until)
        raise TaskAwaitingInput(method_name="execute_complete", timeout=until - now)

    def _ask(self, ti_id: Any, run: "ResolvedRun", judgement: "Judgement", until: datetime) -> None:
        """Put the question and tell people of it, once Airflow is seen to show it."""
        from airflow.sdk.api.datamodels._generated import HITLUser
        from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        from pipelines.alerts.compose import compose_wanted
        from pipelines.alerts.outcomes import kept_outcome
        from pipelines.alerts.rendering import to_markdown

        outcome, asked = kept_outcome(run, judgement, Settings()), run.config.promotion.approval
        assert asked is not None, "somebody is asked"
        # Airflow's own `upsert_hitl_detail` does the same, and does not hand back what is there. An
        # earlier answer is taken away by it.
        question = CreateHITLDetailPayload(
            ti_id=ti_id,
            options=self.options,
            subject=f"{outcome.title}. May it serve?",
            body=f"Answer until {until:%Y-%m-%d %H:%M} UTC; without an answer the champion stays. "
            f"Where this task was cleared since, the newest alert `approval_wanted` has the time."
            f"\n\n{to_markdown(outcome)}\n\n{_mark(judgement)}",
            defaults=self.defaults,
            multiple=self.multiple,
            params=self.serialized_params,
            assigned_users=[HITLUser(id=name, name=name) for name in asked.by],
        )
        _require_shown(SUPERVISOR_COMMS.send(msg=question), run, judgement)
        kept = _keep_question(run, judgement, until)
        _tell(compose_wanted(run, outcome, kept, Settings()))

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Write down what a person has answered, or that nobody did in time.

        Raises:
            AirflowSkipException: the promotion was rejected, or nobody answered.
            PromotionRefusedError: the answer is about another verdict.
        """
        answered = super().execute_complete(context, event)
        run, judgement = self._judged()
        _require_asked(run, judgement)
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

    def _conclude(
        self, context: Any, run: "ResolvedRun", judgement: "Judgement", approval: "Approval"
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
        if approval.is_given:
            return approval.model_dump(mode="json")
        outcome = kept_outcome(run, judgement, Settings())
        _tell(compose_not_approved(run, outcome, approval, Settings()))
        raise AirflowSkipException(approval.sentence)


def _mark(judgement: "Judgement") -> str:
    """Return how a question ends; the page of another judgement ends in another way."""
    return f"Digest of the judgement: `{judgement.ruling_digest}`"


def _require_shown(shown: Any, run: "ResolvedRun", judgement: "Judgement") -> None:
    """Refuse to wait for an answer to a question that is not about this judgement.

    Raises:
        PromotionRefusedError: people are shown another verdict, or other people may answer.
    """
    from pipelines.contracts.errors import PromotionRefusedError
    from pipelines.plain_text import one_line

    def names(found: set[str]) -> str:
        return " and ".join(shlex.quote(name) for name in sorted(found)) or "everybody"

    asked = run.config.promotion.approval
    assert asked is not None, "somebody is asked"
    users = {user.id for user in shown.assigned_users or ()}
    if (shown.body or "").endswith(_mark(judgement)) and users == set(asked.by):
        return
    raise PromotionRefusedError(
        f"Airflow shows people the question that this run has put before, which is about another "
        f"verdict or for other people: found {one_line(shown.subject)!r} for {names(users)}; "
        f"expected the judgement with digest {judgement.ruling_digest[:12]} for "
        f"{names(set(asked.by))}; Airflow replaces no question of a run, and an answer would be "
        f"about what is shown; {_instead(run)}"
    )


def _require_asked(run: "ResolvedRun", judgement: "Judgement") -> None:
    """Refuse an answer where people were asked about another judgement than the run has now.

    Raises:
        PromotionRefusedError: the cycle was judged anew since, or what was asked is not known.
    """
    from pipelines.contracts.errors import PromotionRefusedError

    question = _kept_question(run)
    if question is not None and question.ruling_digest == judgement.ruling_digest:
        return
    found = (
        "the run folder has no record of a question"
        if question is None
        else f"the question was about another verdict ({question.model}, digest "
        f"{question.ruling_digest[:12]}), and the cycle was judged anew since"
    )
    raise PromotionRefusedError(
        f"an answer came and counts for nothing: {found}; expected a question about the judgement "
        f"with digest {judgement.ruling_digest[:12]}; {_instead(run)}"
    )


def _kept_question(run: "ResolvedRun") -> "Question | None":
    from pipelines import storage
    from pipelines.contracts.judgement import Question, question_uri

    uri = question_uri(run.run_uri)
    return storage.read_model(uri, Question, _REPAIR) if storage.exists(uri) else None


def _keep_question(run: "ResolvedRun", judgement: "Judgement", until: datetime) -> "Question":
    """Write into the run folder what is asked, and return it."""
    from pipelines import storage
    from pipelines.contracts.judgement import Question, question_uri

    before = _kept_question(run)
    is_repeated = before is not None and before.ruling_digest == judgement.ruling_digest
    assert judgement.promoted_model is not None, "something is to be promoted"
    question = Question(
        ruling_digest=judgement.ruling_digest,
        model=judgement.promoted_model.label,
        until=until,
        num_times=before.num_times + 1 if before is not None and is_repeated else 1,
    )
    storage.write_model(question_uri(run.run_uri), question)
    return question


def _instead(run: "ResolvedRun") -> str:
    """Return what a person does where this run cannot ask."""
    from pipelines.alerts.commands import force_command, new_cycle_command

    return (
        f"begin another cycle, which asks about its own model: `{new_cycle_command(run)}`, or "
        f"promote this one all the same: `{force_command(run)}`"
    )


def _answer(
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


def _tell(alert: Any) -> None:
    """Send an alert; a transport that fails costs no answer, and later alerts try it again."""
    from pipelines.alerts.transports import deliver
    from pipelines.contracts.errors import HomefeedError

    try:
        deliver(alert, Settings())
    except HomefeedError as error:
        log.warning("not everybody was told, and is when the next alert is sent: %s", error)
