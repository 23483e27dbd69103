"""The table of bounds for what many rows come to: one for each question, wherever it is asked.

`homefeed log check` asks them of a log, the data gate of a log's days and of a snapshot. Rules of
single rows are in `pipelines.event_log.rules`; bounds that a recipe sets in `DataGateConfig`; what
is learned from earlier days in `validation.data_gate.days.limits`. The bounds are wide: a weekend
or a campaign is no defect.
"""

from typing import Final, NamedTuple


class Bound(NamedTuple):
    """From where on a person must look, and from where on nothing may be built."""

    warning: float
    critical: float = float("nan")  # NaN: nothing stops a cycle
    fewest: int = 0  # of what it is taken; fewer say nothing


ROWS_OF_A_DAY: Final = Bound(0.1)
"""Lowest share of the median day's impressions; below, a partition is missing."""
MISSING_DAYS: Final = Bound(0.0, 0.15)
"""Share of the days of a snapshot's windows without impressions or actions."""
UNKNOWN_REQUESTS: Final = Bound(0.05, 0.5, fewest=20)
"""Actions that name a request which the log does not have of their user: their labels are lost."""
FEWEST_UNKNOWN: Final = 10
"""Fewer such actions are not told of a log."""
UNKNOWN_PAIRS: Final = Bound(0.05)
"""Actions on a pin that their request did not show."""
EARLY_ACTIONS: Final = Bound(0.05, 0.1, fewest=20)
"""Actions without a request whose pin the user was shown only afterwards."""
NAMELESS: Final = 0.05
"""Where such actions are fewer than this share of those that name a request, nothing is said of
them: in a log of drawn candidates they are pairs by chance."""
CONCENTRATED_SHIFT: Final = 0.5
"""Of early actions, the share within three hours that makes them a clock that is wrong."""
LATE_ACTIONS: Final = Bound(0.05, fewest=100)
"""Actions within an hour of their impressions, where CONCENTRATED_SHIFT are in a later one."""
ANSWERED: Final = Bound(0.6, 0.99, fewest=20)
"""Impressions that got any action: with more, those without were not logged."""
EXPLORATION: Final = Bound(0.5, fewest=20)
"""Impressions whose candidates were drawn at random."""
FAR_DAYS, FAR_ROWS = 30, 0.01
"""Days without rows of a table, and the share of rows after them whose dates then are wrong."""
CLOCK_CHANGE: Final = Bound(1.6, fewest=40)
"""Rows of an hour that comes twice in local time, as a multiple of what is usual."""
CREATED_LATE: Final = Bound(0.05)
"""Pins that were shown before the time at which they are said to be made, or have no such time."""
TELLING: Final = Bound(0.9, fewest=100)
"""Area under the curve of a column, 0.53 to 0.71 in the retail sample; rows of a value."""
REPEATED_IMPRESSIONS: Final = Bound(0.05)
"""Impressions that the log holds twice."""
ZERO_EMBEDDINGS: Final = Bound(0.01)
"""Embeddings of a version that are all zero."""

LABEL_RATE_BY_NEIGHBOURS: Final = Bound(1 / 3, 0.0, fewest=20)
"""A day's label rate as a share of that of the days around it; expected labels. The inverse of the
share is the bound above."""
LABEL_RATE_BY_MEDIAN: Final = Bound(0.02, 0.02, fewest=20)
"""A day's label rate as a share of the median day's in a snapshot; expected positives of a day."""
DAYS_AROUND: Final = 7
"""On either side of a day, as many days with labels say what is usual."""
LABELS_OF_AN_HOUR: Final = Bound(0.05, fewest=20)
"""Labels of an hour as a share of what its impressions would have at the day's rate."""
EXPECTED_ACTIONS: Final = Bound(0, 5)
"""Actions expected of days that have none: as many are missing, fewer may be chance."""

PIN_SPREAD: Final = Bound(1e-3, 1e-3)
"""1 - |mean|^2 / mean square of the pins' embeddings; with less they are practically one."""
CHANGED_EMBEDDINGS: Final = Bound(0.0, 0.01)
"""Of the embeddings that were kept, those that are others under an unchanged version."""
NEW_EMBEDDINGS: Final = 0.85
"""How near new pins lie to kept ones, and how many differ, as a share of kept ones, at least. In 43
fortnights of the sample 1.05 and 0.92 at least; with new vectors rotated 0.74, with all alike 0.08
at most."""
