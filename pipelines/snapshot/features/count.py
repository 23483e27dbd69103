"""Fifth step of the kernel: numbers computed from what was known before each request.

Not for categorical features: `pipelines.event_log.declared` encodes them as rows are read. Not
for what the numbers mean: `pipelines.contracts.features.catalogue`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.contracts.errors import ConfigurationError, OwnFunctionError
from pipelines.contracts.features.catalogue import LOG_TABLES
from pipelines.contracts.features.numeric import NumericFeature, flag_name, number_columns
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import ActionTimes, has_recent_action
from pipelines.recipes.own_functions import require_unchanged
from pipelines.snapshot.features import logged, of_pins, of_requests, of_users, own, similarity
from pipelines.snapshot.features.inputs import FeatureInputs, Floats
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import Counts

COMPUTATIONS: Mapping[str, Callable[[FeatureInputs, NumericFeature], Floats]] = {
    "pin_popularity": of_pins.popularity,
    "pin_popularity_1d": of_pins.popularity,
    "pin_popularity_7d": of_pins.popularity,
    "pin_popularity_28d": of_pins.popularity,
    "pin_popularity_slope": of_pins.slope,
    "pin_age": of_pins.age,
    "past_engagements": of_users.past_engagements,
    "since_last_touch_of_pin": of_users.since_last_touch_of_pin,
    "since_last_touch_of_category": of_users.since_last_touch_of_category,
    "user_actions:<action_type>": of_users.user_actions,
    "user_activity": of_users.user_activity,
    "similarity_best": similarity.best,
    "similarity_mean": similarity.mean,
    "similarity_decayed": similarity.decayed,
    "session_position": of_requests.session_position,
    "hour_sin": of_requests.hour_sin,
    "hour_cos": of_requests.hour_cos,
    "weekday": of_requests.weekday,
    "impressions.<column>": logged.of_impression,
    "pins.<column>": logged.of_pin,
    "users.<column>": logged.of_user,
    "<package.module>:<function>": own.compute,
}
"""How each feature of the catalogue is computed: [examples], NaN where it is missing."""


def count_features(seen: FeatureInputs) -> Counts:
    """Return which requests are of core users, and the numbers of each example.

    A core user did the main head's action in the `core_days` before the request.

    Raises:
        ConfigurationError: one of the recipe's own functions is refused.
    """
    plan, requests, actions = seen.plan, seen.ordered.requests, seen.ordered.actions
    target_id = plan.action_type_ids[plan.features.main_head.action_type]
    repins = actions.where(actions.type_id == target_id)
    return Counts(
        is_core=has_recent_action(
            ActionTimes(repins.user_id, repins.acted_at, repins.known_at),
            requests.user_id,
            requests.impressed_at,
            plan.config.core_days * DAY_MS,
            is_sorted=True,
        ),
        numbers=compute_numbers(seen, plan.numeric),
    )


def compute_numbers(
    seen: FeatureInputs, numeric: Sequence[NumericFeature]
) -> dict[str, npt.NDArray[Any]]:
    """Return the numbers of some features and their flags, each [examples].

    Raises:
        ConfigurationError: one of the recipe's own functions is refused.
    """
    numbers: dict[str, npt.NDArray[Any]] = {}
    for feature in numeric:
        numbers |= _with_flag(feature, COMPUTATIONS[feature.meaning.name](seen, feature))
    return numbers


def check_features(plan: SnapshotPlan) -> None:
    """Refuse what can be known before any row is read.

    Raises:
        OwnFunctionError: an own function cannot be found, or was changed since the recipe was read.
        ConfigurationError: a feature names a column of the event log's contract.
    """
    require_unchanged(plan.numeric)
    for problem in contract_problems(plan.numeric):
        raise ConfigurationError(problem)


def function_problems(numeric: Sequence[NumericFeature]) -> Iterator[str]:
    """Yield, in sentences, which own functions this process cannot import or call."""
    for feature in numeric:
        try:
            require_unchanged([feature.as_asked])
        except OwnFunctionError as error:
            yield str(error)


def contract_problems(numeric: Sequence[NumericFeature]) -> Iterator[str]:
    """Yield, in sentences, which features are columns of the event log's contract."""
    for table in LOG_TABLES:
        contract = EVENT_LOG_TABLES[table].names
        for name in number_columns(numeric, table):
            if name in contract:
                yield (
                    f"features.numeric names the column {name!r} of {table}, which belongs to the "
                    f"contract of the event log; expected a column beyond {contract}, because "
                    f"these say what was shown and when, and not what is known of it; leave it out"
                )


def _with_flag(feature: NumericFeature, values: Floats) -> dict[str, npt.NDArray[Any]]:
    """Return a feature's number, 0 where it is missing, and its flag where it may be missing."""
    values = values.astype(np.float32, copy=False)
    if not feature.has_flag:
        return {feature.name: values}
    is_missing = np.isnan(values)
    return {
        feature.name: np.where(is_missing, np.float32(0), values),
        flag_name(feature.name): is_missing.astype(np.int8),
    }
