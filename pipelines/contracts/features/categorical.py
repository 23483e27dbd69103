"""A categorical feature as a recipe names it: a column of the event log and its closed list.

Not for its codes: `pipelines.event_log.declared`. Tested in
tests/pipelines/event_log/test_categories.py.
"""

from typing import Literal

from pydantic import Field

from pipelines.contracts.base import Frozen


class CategoricalFeature(Frozen):
    """A feature with a closed list of values; anything else shares the bucket of code 0."""

    name: str = Field(description="Column name in the event log table.")
    table: Literal["impressions", "pins", "users"] = Field(description="Where the column lives.")
    values: tuple[str, ...] = Field(
        max_length=32_767, description="Known values; the code is the index + 1."
    )
