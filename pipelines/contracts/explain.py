"""Why a challenger lost: how much of its loss comes back with each thing that is put back.

All numbers are shares of the winning side's level of the target metric. The gains of all parts and
what is unexplained add up to the loss.

    <workspace>/explain/<run id>/explain.json           an Explanation
    <workspace>/explain/<run id>/<key>.npy              what one model hits, by request
    <workspace>/explain/<run id>/<key>/                 a training that was not scored yet
    <workspace>/explain/<run id>/snapshot-<key>.json    a Snapshot that was built for one
"""

from typing import Literal

from pydantic import Field

from pipelines.contracts.base import Artifact, Frozen
from pipelines.contracts.reasons import Interval


def explanation_uri(workspace_uri: str, run_id: str) -> str:
    """Return where a run's explanation is kept."""
    return f"{workspace_uri.rstrip('/')}/explain/{run_id}/explain.json"


class ExplainedPart(Frozen):
    """One thing in which the two sides differ, put back to what the winning side has."""

    name: str  # 'data', 'code', 'seed', 'model', 'numeric feature pin_age', ...
    change: str  # What the winning side has -> what the challenger has.
    gain: Interval | None = None  # Over users and days; None: it was left out.
    noise_floor: float = Field(0.0, ge=0)  # The luck of seeds alone brings up to this, at 95 %.
    left_out: str = ""  # Why it could not be put back.

    @property
    def is_luck(self) -> bool:
        """Whether other seeds alone may bring as much, up or down."""
        return self.gain is None or abs(self.gain.value) <= self.noise_floor


class Explanation(Artifact):
    """What `homefeed explain` found."""

    challenger: str  # Label of the model.
    against: str  # Label of the winning side.
    target_metric: str
    loss: Interval  # Above zero.
    parts: tuple[ExplainedPart, ...]  # The largest gain first, what was left out last.
    segments: dict[str, Interval]  # What core and other users' requests add to the loss.
    unexplained: float  # The loss without all gains.
    unexplained_floor: float = Field(ge=0)  # The luck of seeds alone leaves up to this, at 95 %.
    # Shapley's value shares out what parts do together, which else stays unexplained.
    method: Literal["one at a time", "Shapley"]
    seeds: tuple[int, ...] = Field(min_length=2)  # Of its own setting; others have the first half.
    seed_deviation: float = Field(ge=0)  # Between trainings that differ in the seed alone.
    num_trainings: int
