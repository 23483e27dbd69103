"""What people are shown when they are asked, and whether an answer to it counts.

Airflow keeps one question for each task instance, and never replaces it: a task that is cleared or
tried again puts its question, and people are shown the first one. So a question names the digest of
the judgement that it is about, and what Airflow shows is looked at before anybody is told. The run
folder keeps what was asked, because the cycle may be judged anew while a person thinks. Not for
when somebody is asked (`pipelines.orchestration.approval`). Tested in
tests/pipelines/orchestration/test_approval.py.
"""

import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.contracts.artifacts import ResolvedRun
    from pipelines.contracts.judged.approval import Question
    from pipelines.contracts.judged.outcome import Outcome
    from pipelines.contracts.judgement import Judgement

_REPAIR = "delete it and clear approve_promotion in Airflow, with what is after it: that asks anew"


def body_of(outcome: "Outcome", judgement: "Judgement", until: datetime) -> str:
    """Return what stands below the subject, as Markdown."""
    from pipelines.alerts.rendering import to_markdown

    return (
        f"Answer until {until:%Y-%m-%d %H:%M} UTC; without an answer the champion stays. Where "
        f"this task was cleared since, the newest alert `approval_wanted` has the time.\n\n"
        f"{to_markdown(outcome)}\n\n{_mark(judgement)}"
    )


def _mark(judgement: "Judgement") -> str:
    """Return how a question ends; the page of another judgement ends in another way."""
    return f"Digest of the judgement: `{judgement.ruling_digest}`"


def put(operator: Any, ti_id: Any) -> Any:
    """Put an operator's question into Airflow's database, and return the one that is there.

    Airflow's own function does the same, and does not hand back what is there. An earlier answer
    is taken away by it.

    Args:
        operator: A `HITLOperator` with its question.
        ti_id: Id of the task instance.
    """
    from airflow.sdk.api.datamodels._generated import HITLUser
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    question = CreateHITLDetailPayload(
        ti_id=ti_id,
        options=operator.options,
        subject=operator.subject,
        body=operator.body,
        defaults=operator.defaults,
        multiple=operator.multiple,
        params=operator.serialized_params,
        assigned_users=[HITLUser(**user) for user in operator.assigned_users or ()],
    )
    return SUPERVISOR_COMMS.send(msg=question)


def require_shown(shown: Any, run: "ResolvedRun", judgement: "Judgement") -> None:
    """Refuse to wait for an answer to a question that is not about this judgement.

    Args:
        shown: What Airflow shows, as `put` returns it.
        run: The cycle.
        judgement: What is asked about.

    Raises:
        PromotionRefusedError: people are shown another verdict, or other people may answer.
    """
    from pipelines.contracts.errors import PromotionRefusedError
    from pipelines.plain_text import one_line

    asked = run.config.promotion.approval
    assert asked is not None, "somebody is asked"
    users = {user.id for user in shown.assigned_users or ()}
    is_about_it = (shown.body or "").endswith(_mark(judgement))
    if is_about_it and users == set(asked.by):
        return
    raise PromotionRefusedError(
        f"Airflow shows people the question that this run has put before, which is about another "
        f"verdict or for other people: found {one_line(shown.subject)!r} for {_names(users)}; "
        f"expected the judgement with digest {judgement.ruling_digest[:12]} for "
        f"{_names(set(asked.by))}; Airflow replaces no question of a run, and an answer would be "
        f"about what is shown; {_instead(run)}"
    )


def keep_question(run: "ResolvedRun", judgement: "Judgement", until: datetime) -> "Question":
    """Write into the run folder what is asked, and return it."""
    from pipelines import storage
    from pipelines.contracts.judged.approval import Question, question_uri

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


def require_asked(run: "ResolvedRun", judgement: "Judgement") -> None:
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
    from pipelines.contracts.judged.approval import Question, question_uri

    uri = question_uri(run.run_uri)
    return storage.read_model(uri, Question, _REPAIR) if storage.exists(uri) else None


def _instead(run: "ResolvedRun") -> str:
    """Return what a person does where this run cannot ask."""
    from pipelines.alerts.commands import force_command
    from pipelines.alerts.next_step import new_cycle_command

    return (
        f"begin another cycle, which asks about its own model: `{new_cycle_command(run)}`, or "
        f"promote this one all the same: `{force_command(run)}`"
    )


def _names(users: set[str]) -> str:
    return " and ".join(shlex.quote(name) for name in sorted(users)) or "everybody"
