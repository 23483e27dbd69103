"""Every number of the world with a known answer (`world.adapter`), in one frozen value.

Not for drawing: the same value and the same code give the same log.
"""

from datetime import UTC, date, datetime
from typing import Literal

from pydantic import Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.time import DAY_MS, to_ms

_RANGES = {"num_users": (1, 100_000_000), "num_pins": (60, 100_000_000), "num_days": (1, 3660)}
_LIFETIMES = (0.1, 366.0)
_FIRST_START, _LAST_END = date(2000, 1, 1), date(2100, 1, 1)


Like = Literal["world", "production"]
"""Which recipe's action types and embedding version a world writes."""

MIN_ALIVE_PINS = 60
"""Fewest pins that candidates are drawn from: requests of 12 different ones come about at once."""


class ProductionActions(Frozen):
    """The constants of a world that writes what the `production` recipe reads."""

    closeup_base: float = Field(default=-2.4, description="Log-odds of a closeup alone.")
    closeup_intent: float = Field(default=1.5, description="Added for the intent's topic.")
    long_click_base: float = Field(
        default=-0.8, description="Log-odds of a long click, given a click."
    )
    long_click_intent: float = Field(default=1.2, description="Added for the intent's topic.")
    closeup_repin_share: float = Field(
        default=0.5, description="Share of the repins that follow a closeup of the pin."
    )


class FadingPins(Frozen):
    """The constants of a world whose pins are born at some time, and fade."""

    lifetime_days: float = Field(description="Half-life of a pin's appeal.")
    newborn_appeal: float = Field(
        default=3.0, description="Log-odds that every pin has at its birth beside its own appeal."
    )
    shown_lifetimes: float = Field(
        default=4.0, description="No pin is shown that is older than so many half-lives."
    )

    @property
    def shown_days(self) -> float:
        """How many days after its birth a pin is still shown."""
        return self.lifetime_days * self.shown_lifetimes


class WorldParameters(Frozen):
    """Sizes of a world, and the constants of the formulas in `pipelines.sources.world.adapter`."""

    num_users: int = Field(default=8000, description="Users; user_id is 0 .. num_users - 1.")
    num_pins: int = Field(default=3000, description="Pins; pin_id is 0 .. num_pins - 1.")
    num_days: int = Field(default=60, description="Days with events.")
    start: date = Field(default=date(2024, 1, 1), description="First day, UTC.")
    seed: int = Field(default=7, description="Seed of the one generator.")

    num_topics: int = Field(default=12, description="Topics; K in the code.")
    min_tastes: int = Field(default=3, description="Fewest topics that a user likes.")
    max_tastes: int = Field(default=5, description="Most topics that a user likes.")
    taste_concentration: float = Field(default=4.0, description="Dirichlet's; larger is flatter.")
    pin_noise: float = Field(default=0.8, description="Length of a pin's noise; its centre's is 1.")
    user_noise: float = Field(default=0.5, description="Length of the noise of a weekly user row.")
    appeal_deviation: float = Field(default=0.3, description="Deviation of the pins' log-odds.")
    warmth_deviation: float = Field(default=0.4, description="Deviation of the users' log-odds.")
    late_share: float = Field(default=0.3, description="Share of users who arrive on a later day.")

    sessions_per_week: float = Field(default=3.0, description="Sessions of a user, on average.")
    min_requests: int = Field(default=2, description="Fewest requests of a session.")
    max_requests: int = Field(default=6, description="Most requests of a session.")
    min_pause_ms: int = Field(default=120_000, description="Shortest pause within a session.")
    max_pause_ms: int = Field(default=600_000, description="Longest pause within a session.")

    stay_in_session: float = Field(
        default=0.95, description="Chance that an intent stays for one more request."
    )
    short_stay_share: float = Field(default=0.5, description="Weight of the short time scale.")
    short_stay_hours: float = Field(default=12.0, description="An intent's short time scale.")
    long_stay_hours: float = Field(default=168.0, description="An intent's long time scale.")
    dislike_days: float = Field(default=21.0, description="A dislike's time scale.")

    num_candidates: int = Field(default=12, description="Pins per request; C in the code.")
    taste_candidate_share: float = Field(default=0.4, description="Share of the user's tastes.")
    popular_candidate_share: float = Field(default=0.3, description="Share of popular topics.")
    exploration_share: float = Field(default=0.05, description="Share of uniform requests.")
    examination_decay: float = Field(default=0.95, description="Position j is seen by this ** j.")

    repin_base: float = Field(default=-4.2, description="Log-odds of a repin.")
    repin_intent: float = Field(default=3.4, description="Added for the intent's topic.")
    repin_taste: float = Field(default=2.0, description="Added, times the topic's taste.")
    repin_dislike: float = Field(default=-2.0, description="Added for the disliked topic.")
    repin_trend: float = Field(default=0.4, description="Added, times the topic's popularity.")
    click_base: float = Field(default=-3.2, description="Log-odds of a click.")
    click_intent: float = Field(default=2.0, description="Added for the intent's topic.")
    click_taste: float = Field(default=1.0, description="Added, times the topic's taste.")
    hide_base: float = Field(default=-5.5, description="Log-odds of a hide.")
    hide_dislike: float = Field(default=4.0, description="Added for the disliked topic.")

    max_acting_ms: int = Field(default=60_000, description="Latest action after an impression.")
    max_delay_ms: int = Field(default=120_000, description="Longest delay until a row is known.")
    slow_share: float = Field(default=0.04, description="Share of rows that are delayed longer.")
    max_slow_delay_ms: int = Field(default=2 * DAY_MS, description="Longest delay of such rows.")

    production: ProductionActions | None = Field(
        default=None,
        description="How users do what the `production` recipe predicts; null: repin, click, hide.",
    )
    fading: FadingPins | None = Field(
        default=None,
        description="How pins are born and fade; null: all pins are there always, as they are.",
    )

    @property
    def num_alive_pins(self) -> int:
        """How many pins a request's candidates are drawn from, at any time, to within two."""
        if self.fading is None:
            return self.num_pins
        return int(
            self.num_pins * self.fading.shown_days / (self.num_days + self.fading.shown_days)
        )

    @property
    def start_ms(self) -> int:
        """Midnight of the first day, milliseconds since the epoch."""
        return to_ms(datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC))

    @property
    def end_ms(self) -> int:
        """Midnight after the last day."""
        return self.start_ms + self.num_days * DAY_MS

    @property
    def longest_session_ms(self) -> int:
        """No session lasts longer, its last action included."""
        return (self.max_requests - 1) * self.max_pause_ms + self.max_acting_ms


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
    for name, value in (("num_users", num_users), ("num_pins", num_pins), ("num_days", num_days)):
        low, high = _RANGES[name]
        if not low <= value <= high:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} is {value}; expected {low} to {high}"
            )
    if seed < 0:
        raise ConfigurationError(f"--seed is {seed}; expected 0 or more")
    first = _day(start)
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
        production=ProductionActions() if like == "production" else None,
        fading=None if pin_lifetime_days is None else _fading(pin_lifetime_days),
    )
    if made.num_alive_pins < MIN_ALIVE_PINS:
        raise ConfigurationError(
            f"--num-pins {num_pins} with --pin-lifetime-days {pin_lifetime_days} and --num-days "
            f"{num_days} leaves {made.num_alive_pins} pins to be shown at a time; expected "
            f"{MIN_ALIVE_PINS} or more; raise --num-pins or --pin-lifetime-days"
        )
    return made


def _fading(lifetime_days: float) -> FadingPins:
    low, high = _LIFETIMES
    if not low <= lifetime_days <= high:  # A NaN is not in any range either.
        raise ConfigurationError(
            f"--pin-lifetime-days is {lifetime_days}; expected {low} to {high}, or nothing for "
            f"pins that do not fade"
        )
    return FadingPins(lifetime_days=lifetime_days)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"--start is {text!r}; expected a day such as 2024-01-01 (YYYY-MM-DD)"
        ) from None
