"""All that is asked before a cycle builds anything, in one list and in one order.

`resolve_run` refuses at the first question without a good answer, and `homefeed recipe check` asks
all of them: so the two cannot say different things. Not for the answers: each question is a module
of this room. Tested in tests/pipelines/preconditions/test_cycle.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, RunRequest
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    TrackingUnavailableError,
)
from pipelines.preconditions.champion import require_comparable
from pipelines.preconditions.event_log import Glimpse, look_at, require_event_log, require_fed
from pipelines.preconditions.hardware import require_hardware
from pipelines.preconditions.recipe_alone import require_functions, require_sound
from pipelines.preconditions.record import require_record
from pipelines.registry import registry, tracking
from pipelines.registry.history import champion_before
from pipelines.registry.reconcile import State
from pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass
class Asked:
    """A cycle that is asked for, and what the questions have found so far.

    A question that needs what an earlier one could not find is passed over.
    """

    request: RunRequest
    config: RunConfig
    settings: Settings
    may_settle: bool = True  # what became of an interrupted move may be put on record
    log: Glimpse | None = None
    client: "MlflowClient | None" = None
    record: State | None = None
    knows_champion: bool = False
    champion: ModelRef | None = None  # with which the challenger would be compared
    later: ModelRef | None = None  # which serves, where that is not the champion of as_of

    @property
    def event_log_uri(self) -> str:
        """Where the event log is."""
        return storage.to_uri(self.settings.event_log_location)

    @property
    def workspace_uri(self) -> str:
        """Where the workspace is."""
        return storage.to_uri(self.settings.workspace_location)

    @property
    def has_functions(self) -> bool:
        """Stages run on this machine, so that a recipe's own functions must be importable here."""
        return self.settings.stage_runner == "bash"


def ask_recipe(asked: Asked) -> None:
    """Ask whether the recipe's gate can come to a verdict."""
    require_sound(asked.config)


def ask_functions(asked: Asked) -> None:
    """Ask whether the recipe's own functions are here, where stages run on this machine."""
    if asked.has_functions:
        require_functions(asked.config)


def ask_hardware(asked: Asked) -> None:
    """Ask whether there are the machines that are wanted."""
    require_hardware(asked.request, asked.settings)


def ask_event_log(asked: Asked) -> None:
    """Ask whether there is an event log."""
    require_event_log(asked.event_log_uri)
    asked.log = look_at(asked.event_log_uri, asked.request.day)


def ask_fed(asked: Asked) -> None:
    """Ask whether the event log has what the recipe needs."""
    if asked.log is not None:
        require_fed(asked.config, asked.log, asked.request.day)


def ask_tracking(asked: Asked) -> None:
    """Ask whether MLflow answers."""
    asked.client = tracking.connect(asked.settings.tracking_uri)


def ask_record(asked: Asked) -> None:
    """Ask whether the record of who serves is true."""
    if asked.client is not None:
        place = asked.workspace_uri, asked.settings.registered_model
        asked.record = require_record(asked.client, *place, may_settle=asked.may_settle)


def ask_champion(asked: Asked) -> None:
    """Ask who serves, and whether a cycle of this day may follow it."""
    if asked.client is None:
        return
    name, day = asked.settings.registered_model, asked.request.day
    asked.champion = registry.read_champion(asked.client, name)
    asked.knows_champion = True
    if asked.champion is None or day > asked.champion.as_of:
        return
    if not asked.request.may_promote:
        # That model may have been trained on the holdout; who served then has not.
        asked.later = asked.champion
        asked.champion = champion_before(asked.workspace_uri, name, day)
        return
    raise ConfigurationError(
        f"as_of {day:%Y-%m-%d} is not newer than the champion's: {asked.champion.label} was "
        f"trained as of {asked.champion.as_of:%Y-%m-%d}; expected a later day; choose one, or "
        f"compare with the champion of that time, without promoting: switch Promote off in "
        f"Airflow's form, or give --no-promote"
    )


def ask_comparable(asked: Asked) -> None:
    """Ask whether the champion can be scored on the event log of today."""
    if asked.client is None or asked.log is None or not asked.knows_champion:
        return
    require_comparable(
        asked.client,
        asked.workspace_uri,
        asked.champion,
        asked.config,
        asked.log,
        asked.request.day,
        asks_functions=asked.has_functions,
    )


QUESTIONS_OF_RECIPE: tuple[Callable[[Asked], None], ...] = (ask_recipe, ask_functions)
"""What is asked of the recipe alone; `homefeed log check` asks it too."""

QUESTIONS: tuple[Callable[[Asked], None], ...] = (
    *(*QUESTIONS_OF_RECIPE, ask_hardware),
    *(ask_event_log, ask_fed),
    *(ask_tracking, ask_record, ask_champion, ask_comparable),
)
"""What is asked, in this order; each raises where the answer is no."""


def require_all(asked: Asked) -> None:
    """Refuse a cycle at the first question without a good answer.

    Raises:
        HomefeedError: of the class that the question has.
    """
    for ask in QUESTIONS:
        ask(asked)


def refusals(
    asked: Asked, questions: Sequence[Callable[[Asked], None]] = QUESTIONS
) -> list[HomefeedError]:
    """Return what `require_all` would refuse, one after another if each were mended.

    Where MLflow does not answer, one TrackingUnavailableError says so, and nothing more is asked of
    it.

    Raises:
        TransientStorageError: the storage failed.
    """
    found: list[HomefeedError] = []
    for ask in questions:
        try:
            ask(asked)
        except TrackingUnavailableError as error:
            found.append(error)
            asked.client = None
        except HomefeedError as error:
            if error.is_retryable:
                raise
            found.append(error)
    return found
