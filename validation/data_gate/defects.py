"""The planted defects: what can be wrong with an event log, at three strengths each.

The list and the strengths were fixed before the gate's thresholds. A share is that of the rows,
requests, users, pins or days that the defect is about, on the days of a snapshot's windows. Used by
tests, by the benchmark and by the gate's self-test; the functions are in
`validation.data_gate.planted`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from validation.data_gate.planted import meaning, people, volume
from validation.data_gate.planted.log_rows import Plant


class Strengths(NamedTuple):
    """How strong a defect is planted."""

    weak: float
    middle: float
    strong: float


SHARES = Strengths(0.05, 0.2, 0.6)
HOURS = Strengths(1, 3, 12)


@dataclass(frozen=True)
class Defect:
    """One way in which an event log can be wrong."""

    name: str
    plant: Plant
    strengths: Strengths = SHARES

    @property
    def description(self) -> str:
        """What the defect does, in a sentence."""
        return (self.plant.__doc__ or "").strip().splitlines()[0]


DEFECTS = (
    Defect("actions_hours_later", meaning.hours_later("actions"), HOURS),
    Defect("impressions_hours_later", meaning.hours_later("impressions"), HOURS),
    Defect("impressions_days_missing", volume.days_missing("impressions")),
    Defect("impressions_days_doubled", volume.days_doubled("impressions")),
    Defect("impressions_days_halved", volume.days_halved("impressions")),
    Defect("actions_days_missing", volume.days_missing("actions")),
    Defect("actions_days_doubled", volume.days_doubled("actions")),
    Defect("actions_days_halved", volume.days_halved("actions")),
    Defect("holdout_requests_lost", volume.holdout_requests_lost),
    Defect("users_missing", volume.users_missing),
    Defect("segment_missing", volume.segment_missing),
    Defect("surface_missing", volume.surface_missing),
    Defect("actions_tripled", volume.actions_tripled),
    Defect("bots_with_actions", people.bots(with_actions=True)),
    Defect("bots_without_actions", people.bots(with_actions=False)),
    Defect("action_type_gone", volume.action_type_gone),
    Defect("action_type_renamed", volume.action_type_renamed),
    Defect("sequence_reversed", meaning.sequence_reversed),
    Defect("leak_through_actions", meaning.leak_through_actions),
    Defect("feature_equals_label", meaning.feature_equals_label),
    Defect("pin_embeddings_random", people.pins_random),
    Defect("pin_embeddings_swapped", people.pins_swapped),
    Defect("pin_embeddings_shuffled", people.pins_shuffled),
    Defect("pin_embeddings_rotated", people.pins_rotated),
    Defect("user_embeddings_equal", people.users_equal),
    Defect("user_embeddings_zero", people.users_zero),
    Defect("user_embeddings_shuffled", people.users_shuffled),
    Defect("user_embeddings_months_old", people.users_months_old),
    Defect("position_constant", meaning.position_constant),
    Defect("pin_ids_colliding", meaning.pin_ids_colliding),
    Defect("all_exploration", meaning.all_exploration),
    Defect("negatives_lost", volume.negatives_lost),
    Defect("exposures_twice", volume.exposures_twice),
    Defect("columns_swapped", meaning.columns_swapped),
    Defect("categories_null", meaning.categories_null),
    Defect("lag_gone", meaning.lag_gone),
    Defect("lag_grown", meaning.lag_grown, HOURS),
)
"""Every defect, in the order in which the benchmark tells of them."""
