"""Features that the event log's own tables hold: a number column of impressions, pins or users.

Not for reading the columns: `pipelines.event_log.declared`. Tested in
tests/pipelines/snapshot/features/test_against_slow_reference.py.
"""

import numpy as np

from pipelines.contracts.features.numeric import NumericFeature
from pipelines.event_log.declared import raw_column
from pipelines.snapshot.features.inputs import FeatureInputs, Floats


def of_impression(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the impression's number, NaN where the log has none."""
    return np.asarray(seen.ordered.examples.rows[_raw(feature, "impressions")])


def of_pin(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the pin's number, NaN where the log has none, or had none before the request."""
    return seen.number_of_pin(str(feature.column_of("pins")))


def of_user(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the number of the user's newest row that is not after the request, or NaN."""
    row = seen.users.spilled_row
    of_requests = np.full(len(row), np.nan)
    if seen.spilled_users is not None:
        numbers = np.asarray(seen.spilled_users[_raw(feature, "users")])
        of_requests[row >= 0] = numbers[row[row >= 0]]
    return seen.per_example(of_requests)


def _raw(feature: NumericFeature, table: str) -> str:
    return raw_column(str(feature.column_of(table)))
