"""The sizes of a world with a known answer (`pipelines.sources.world`), in one frozen value.

The constants of its formulas stand where they are used (`world.draws`): the same sizes and the same
code give the same log.
"""

from datetime import UTC, date, datetime
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.time import DAY_MS, to_ms

_FIRST_START, _LAST_END = date(2000, 1, 1), date(2100, 1, 1)
_SHOWN_LIFETIMES = 4.0
"""No pin is shown that is older than so many half-lives of its appeal."""
_MANY = 100_000_000

Like = Literal["world", "production"]
"""Which recipe's action types and embedding version a world writes."""

MIN_ALIVE_PINS = 60
"""Fewest pins that candidates are drawn from: requests of 12 different ones come about at once."""


class WorldParameters(Frozen):
    """The sizes of a world, and which of its variants it is."""

    num_users: int = Field(8000, ge=1, le=_MANY, description="user_id is 0 .. num_users - 1.")
    num_pins: int = Field(
        3000, ge=MIN_ALIVE_PINS, le=_MANY, description="pin_id is 0 .. num_pins - 1."
    )
    num_days: int = Field(60, ge=1, le=3660, description="Days with events.")
    start: date = Field(date(2024, 1, 1), description="First day, UTC.")
    seed: int = Field(7, ge=0, lt=1 << 63, description="Seed of the one generator.")
    like: Like = Field("world", description="The recipe whose action types it has; world: three.")
    pin_lifetime_days: float | None = Field(
        None,
        ge=0.1,
        le=366.0,
        description="Half-life of a pin's appeal from its birth on; null: no pin fades.",
    )

    trend: float = Field(
        0.4, ge=0.0, le=5.0, description="Log-odds per popularity of a topic, which comes and goes."
    )
    exploration_share: float = Field(
        0.05, ge=0.0, le=1.0, description="Of the requests, with candidates drawn evenly."
    )

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if not (self.start >= _FIRST_START and (_LAST_END - self.start).days >= self.num_days):
            raise ConfigurationError(
                f"start is {self.start} with num_days {self.num_days}; expected days from "
                f"{_FIRST_START} to before {_LAST_END}, the times that an event log may hold"
            )
        if self.num_alive_pins < MIN_ALIVE_PINS:
            raise ConfigurationError(
                f"num_pins {self.num_pins} with pin_lifetime_days {self.pin_lifetime_days} and "
                f"num_days {self.num_days} leaves {self.num_alive_pins} pins to be shown at a "
                f"time; expected {MIN_ALIVE_PINS} or more; raise num_pins or pin_lifetime_days"
            )
        return self

    @property
    def shown_days(self) -> float:
        """How many days after its birth a pin is still shown, where pins fade."""
        return (self.pin_lifetime_days or 0.0) * _SHOWN_LIFETIMES

    @property
    def num_alive_pins(self) -> int:
        """How many pins a request's candidates are drawn from, at any time, to within two."""
        if self.pin_lifetime_days is None:
            return self.num_pins
        return int(self.num_pins * self.shown_days / (self.num_days + self.shown_days))

    @property
    def start_ms(self) -> int:
        """Midnight of the first day, milliseconds since the epoch."""
        return to_ms(datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC))

    @property
    def end_ms(self) -> int:
        """Midnight after the last day."""
        return self.start_ms + self.num_days * DAY_MS


def make_parameters(**sizes: Any) -> WorldParameters:
    """Return the parameters of a world of these sizes.

    Raises:
        ConfigurationError: a value is out of its range; the message names it.
    """
    try:
        return WorldParameters(**sizes)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            f"{first['loc'][0]} is {first['input']!r}; expected another value ({first['msg']}); "
            f"correct it"
        ) from None
