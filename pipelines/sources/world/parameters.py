"""The sizes of a world with a known answer (`world.adapter`), in one frozen value.

The constants of its formulas stand where they are used (`world.draws`): the same sizes and the same
code give the same log.
"""

from datetime import UTC, date, datetime
from typing import Literal

from pydantic import Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.time import DAY_MS, to_ms

_FIRST_START, _LAST_END = date(2000, 1, 1), date(2100, 1, 1)
_SHOWN_LIFETIMES = 4.0
"""No pin is shown that is older than so many half-lives of its appeal."""

Like = Literal["world", "production"]
"""Which recipe's action types and embedding version a world writes."""

MIN_ALIVE_PINS = 60
"""Fewest pins that candidates are drawn from: requests of 12 different ones come about at once."""


class WorldParameters(Frozen):
    """The sizes of a world, and which of its variants it is."""

    num_users: int = Field(default=8000, description="Users; user_id is 0 .. num_users - 1.")
    num_pins: int = Field(default=3000, description="Pins; pin_id is 0 .. num_pins - 1.")
    num_days: int = Field(default=60, description="Days with events.")
    start: date = Field(default=date(2024, 1, 1), description="First day, UTC.")
    seed: int = Field(default=7, description="Seed of the one generator.")
    like: Like = Field(
        default="world", description="The recipe whose action types are written; world: three."
    )
    pin_lifetime_days: float | None = Field(
        default=None,
        description="Half-life of a pin's appeal from its birth on; null: no pin fades.",
    )

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


def make_parameters(
    num_users: int,
    num_pins: int,
    num_days: int,
    start: str,
    seed: int,
    like: Like = "world",
    pin_lifetime_days: float | None = None,
) -> WorldParameters:
    """Return the parameters of a world of these sizes.

    Raises:
        ConfigurationError: an argument is out of its range; the message names the option.
    """
    for name, value, low, high in (
        ("num-users", num_users, 1, 100_000_000),
        ("num-pins", num_pins, MIN_ALIVE_PINS, 100_000_000),
        ("num-days", num_days, 1, 3660),
        ("seed", seed, 0, (1 << 63) - 1),
        ("pin-lifetime-days", 1.0 if pin_lifetime_days is None else pin_lifetime_days, 0.1, 366.0),
    ):
        if not low <= value <= high:  # A NaN is not in any range either.
            raise ConfigurationError(f"--{name} is {value}; expected {low} to {high}")
    try:
        first = date.fromisoformat(start)
    except ValueError:
        raise ConfigurationError(
            f"--start is {start!r}; expected a day such as 2024-01-01 (YYYY-MM-DD)"
        ) from None
    if not (first >= _FIRST_START and (_LAST_END - first).days >= num_days):
        raise ConfigurationError(
            f"--start is {start} with --num-days {num_days}; expected days from {_FIRST_START} to "
            f"before {_LAST_END}, the times that an event log may hold"
        )
    made = WorldParameters(
        num_users=num_users,
        num_pins=num_pins,
        num_days=num_days,
        start=first,
        seed=seed,
        like=like,
        pin_lifetime_days=pin_lifetime_days,
    )
    if made.num_alive_pins < MIN_ALIVE_PINS:
        raise ConfigurationError(
            f"--num-pins {num_pins} with --pin-lifetime-days {pin_lifetime_days} and --num-days "
            f"{num_days} leaves {made.num_alive_pins} pins to be shown at a time; expected "
            f"{MIN_ALIVE_PINS} or more; raise --num-pins or --pin-lifetime-days"
        )
    return made
