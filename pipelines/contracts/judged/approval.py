"""What a person is asked before a model may serve, the answer, and where a run keeps them.

    <run>/promote_challenger/question.json    a Question, written when it is put
    <run>/promote_challenger/approval.json    an Approval, written when the question is closed

Not for asking (`pipelines.orchestration.approval`), nor for what follows from an answer
(`pipelines.registry.promotion`).
"""

from typing import Literal

from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Frozen


def approval_uri(run_uri: str) -> str:
    """Return where a run keeps the answer."""
    return f"{run_uri.rstrip('/')}/promote_challenger/approval.json"


def question_uri(run_uri: str) -> str:
    """Return where a run keeps what was asked."""
    return f"{run_uri.rstrip('/')}/promote_challenger/question.json"


class Question(Frozen):
    """What was asked: an answer is about this judgement, whatever the run holds by then."""

    ruling_digest: str = Field(description="Of the judgement that people are shown.")
    model: str = Field(description="Label of the model that is to serve.")
    until: AwareDatetime = Field(description="When the question is closed.")
    num_times: int = Field(ge=1, description="How often this judgement was asked about by now.")


class Approval(Frozen):
    """What became of the question whether a verdict may be carried out."""

    answer: Literal["approved", "rejected", "no answer"]
    by: str = Field(description="Who answered, as Airflow knows them; '' where nobody did.")
    at: AwareDatetime = Field(description="When they answered, or the question was closed.")
    model: str = Field(description="Label of the model that was to serve.")
    ruling_digest: str = Field(description="Of the judgement that was asked about.")
    comment: str = Field(default="", description="What they said to it, in one line.")

    @property
    def is_given(self) -> bool:
        """Whether the model may serve."""
        return self.answer == "approved"

    @property
    def sentence(self) -> str:
        """What became of it, for people."""
        when = f"{self.at:%Y-%m-%d %H:%M} UTC"
        if self.answer == "no answer":
            return f"Nobody approved {self.model} in time, which was until {when}."
        said = f', saying: "{self.comment}"' if self.comment else ""
        return f"{self.by} {self.answer} the promotion of {self.model} at {when}{said}."
