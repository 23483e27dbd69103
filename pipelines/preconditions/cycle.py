"""All that is asked before a cycle builds anything, in one list and in one order.

`resolve_run` refuses at the first question without a good answer, and `homefeed recipe check` asks
all of them: so the two cannot say different things. A champion of another recipe is scored on what
its own recipe says, from the log of today: where that is gone, the comparison would break after the
training was paid for. Not for what the event log (`event_log`) lacks. Tested in
tests/pipelines/preconditions/test_cycle.py.
"""

import difflib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, RunRequest
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    TrackingUnavailableError,
)
from pipelines.preconditions.event_log import Glimpse, listed, log_problems, look_at, refusal
from pipelines.registry import history, registry, tracking
from pipelines.registry.reconcile import (
    State,
    follow,
    look_between_moves,
    require_agreement,
    require_newest,
)
from pipelines.settings import Settings
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.counterpart import OWN_OPTIONS, unknown_types
from pipelines.snapshot.features.count import contract_problems, function_problems
from pipelines.snapshot.plan import plan_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


log = logging.getLogger(__name__)


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

    @classmethod
    def beforehand(
        cls, config: RunConfig, settings: Settings, now: datetime, as_of: datetime | None = None
    ) -> "Asked":
        """Return a cycle of one device that nobody begins; what is asked of it settles nothing.

        `now` is the wall clock, which `as_of` is by default.
        """
        request = RunRequest(
            recipe=config.reference,
            as_of=as_of,
            now=now,
            may_promote=True,
            num_devices=1,
            accelerator=settings.accelerator,
            trigger="asked beforehand",
        )
        return cls(request, config, settings, may_settle=False)

    @property
    def event_log_uri(self) -> str:
        """Where the event log is."""
        return storage.to_uri(self.settings.event_log_location)

    @property
    def workspace_uri(self) -> str:
        """Where the workspace is."""
        return storage.to_uri(self.settings.workspace_location)

    def missing_functions(self, config: RunConfig) -> list[str]:
        """Return which of a recipe's own functions lack here, where stages run on this machine."""
        is_here = self.settings.stage_runner == "bash"
        return list(function_problems(config.features.numeric_held)) if is_here else []


def ask_recipe(asked: Asked) -> None:
    """Ask whether the recipe's gate can come to a verdict."""
    if found := recipe_problems(asked.config):
        lead = f"recipe {asked.config.reference} cannot come to a verdict:"
        raise refusal(ConfigurationError, lead, found)


def ask_functions(asked: Asked) -> None:
    """Ask whether the recipe's own functions are here, where stages run on this machine."""
    if found := asked.missing_functions(asked.config):
        lead = f"recipe {asked.config.reference} has features that cannot be computed here:"
        raise refusal(ConfigurationError, lead, found)


def ask_hardware(asked: Asked) -> None:
    """Ask whether there are the machines that are wanted: the trainer would refuse hours later.

    Where stages run on the worker, its own cores and GPUs are counted. Of machines for containers
    the engine knows: it refuses a container, or its pod waits in vain.
    """
    from training.environment import require_devices

    request, settings = asked.request, asked.settings
    if request.num_nodes > 1 and settings.stage_runner != "kubernetes":
        raise ConfigurationError(
            f"nodes is {request.num_nodes}, and HOMEFEED_STAGE_RUNNER is "
            f"{settings.stage_runner!r}, which trains on one machine; expected the runner "
            f"'kubernetes' for more than one; set nodes to 1, or set HOMEFEED_STAGE_RUNNER and "
            f"HOMEFEED_STAGE_IMAGE"
        )
    is_in_store = not storage.is_local(asked.workspace_uri)
    if request.num_nodes > 1 and is_in_store and not settings.work_folder:
        raise ConfigurationError(
            f"nodes is {request.num_nodes}, and the machines would share no folder: "
            f"HOMEFEED_WORK_FOLDER is empty; expected a folder where the pod template mounts a "
            f"volume to which several machines can write (ReadWriteMany); set it, or set nodes to 1"
        )
    if settings.stage_runner == "bash":
        require_devices(request.num_devices, request.accelerator)


def ask_event_log(asked: Asked) -> None:
    """Ask whether there is an event log."""
    asked.log = look_at(asked.event_log_uri, asked.request.day)


def ask_fed(asked: Asked) -> None:
    """Ask whether the event log has what the recipe needs."""
    if asked.log is None:
        return
    config, day = asked.config, asked.request.day
    plan = plan_of(config, day)
    try:
        check_covered(asked.log.event_log, plan)
        found = log_problems(plan, asked.log, config.features.heads)
    except DataContractError as error:
        found = [str(error)]  # no other answer means anything in days without a log
    if found:
        lead = f"the event log at {asked.event_log_uri} cannot feed recipe {config.reference} as of"
        raise refusal(DataContractError, f"{lead} {day:%Y-%m-%d}:", found)


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
    serving = registry.read_champion(asked.client, name)
    asked.champion, asked.knows_champion = serving, True
    if serving is None or day > serving.as_of:
        return
    if asked.request.may_promote:
        raise ConfigurationError(
            f"as_of {day:%Y-%m-%d} is not newer than the champion's: {serving.label} was trained "
            f"as of {serving.as_of:%Y-%m-%d}; expected a later day; choose one, or compare with "
            f"the champion of that time, without promoting: switch Promote off in Airflow's form, "
            f"or give --no-promote"
        )
    # That model may have been trained on the holdout; who served then has not. The newest by its
    # own as_of: past days' cycles may all have been run today.
    moved = history.load(asked.workspace_uri, name).moves
    earlier = [move.model for move in moved if move.model.as_of < day]
    asked.later, asked.champion = serving, max(earlier, key=lambda m: m.as_of, default=None)


def ask_comparable(asked: Asked) -> None:
    """Ask whether the champion can be scored on the event log of today."""
    serving = asked.champion
    if asked.client is None or asked.log is None or serving is None:
        return
    its_own = recipe_of(asked)
    if its_own is None:
        return
    found = champion_problems(its_own, asked.config, asked.log, asked.request.day)
    found += asked.missing_functions(its_own)
    if found:
        error = ConfigurationError(
            f"{serving.label} serves and cannot be compared with recipe {asked.config.reference}: "
            f"it would be scored by its own recipe, {its_own.recipe_ref.label}, on the event log "
            f"at {asked.event_log_uri}:{listed(found)}\n"
            f"Keep in the log what the champion needs until a model of the new recipe serves, or "
            f"begin a line of models without a champion: set HOMEFEED_REGISTERED_MODEL to "
            f"another name"
        )
        lead = f"{serving.label} serves and cannot be compared:"
        error.problems = tuple(f"{lead} {each}" for each in found)
        raise error


def recipe_of(asked: Asked) -> RunConfig | None:
    """Return the recipe that made the champion; None where the history does not know it.

    Then nothing is known beforehand, and the comparison finds out by the champion's bundle.
    """
    assert asked.champion is not None
    found = asked.record.history.recipe_of(asked.champion) if asked.record else None
    try:
        return found.parse() if found else None
    except ConfigurationError as error:
        log.info("whether %s can be compared is not known yet: %s", asked.champion.label, error)
        return None


def champion_problems(
    its_own: RunConfig, config: RunConfig, seen: Glimpse, as_of: datetime
) -> list[str]:
    """Return in sentences what the log lacks, or has too much, for scoring a champion.

    The windows are those of the run, `config` as of a day; the rest is the champion's own recipe.
    """
    own = {name: getattr(its_own.snapshot, name) for name in OWN_OPTIONS}
    options = config.snapshot.model_copy(update=own)
    plan = plan_of(
        config.model_copy(update={"features": its_own.features, "snapshot": options}),
        as_of,
        unknown_types(config.features, its_own.features),
    )
    # With another vocabulary a snapshot of its own is built for it, which needs its main head.
    has_own = its_own.features.action_types != config.features.action_types
    return log_problems(plan, seen, (its_own.features.main_head,) if has_own else ())


def recipe_problems(config: RunConfig) -> list[str]:
    """Return what the recipe asks for that no head and no event log can give, in sentences.

    These are metrics of the gate, and features that are columns of the log's contract. The
    configuration itself does not refuse them: old runs are read by the same classes.
    """
    from validation.model_gate.target_metric import names_of_metrics, target_metric

    gate, heads, found = config.model_gate, config.features.heads, list[str]()
    try:
        target_metric(gate, heads)
    except ConfigurationError as error:
        found.append(str(error))
    given = names_of_metrics(heads, gate.target_metric)
    for section, limits in (("floors", gate.floors), ("guardrails", gate.guardrails)):
        for limit in limits:
            if limit.metric in given:
                continue
            near = difflib.get_close_matches(limit.metric, given, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            found.append(
                f"model_gate.{section} has a limit on {limit.metric!r}, which no head gives, so "
                f"nothing would ever be promoted; {hint}expected one of {', '.join(given)}"
            )
    return [*found, *contract_problems(config.features.numeric_held)]


def require_record(
    client: "MlflowClient", workspace_uri: str, name: str, *, may_settle: bool = True
) -> State:
    """Let the alias follow a move that was interrupted, and refuse a record that is not true.

    A newest entry that is damaged is refused too: nothing vouches for the alias then, and one that
    was deleted would make this a first cycle, which promotes against the popularity baseline.
    Without `may_settle` the alias is only looked at.

    Raises:
        RecordDisagreesError: alias and history say different things.
        DataContractError: the newest entry of the history is damaged.
        TrackingUnavailableError: MLflow does not answer.
    """
    state = look_between_moves(client, workspace_uri, name)
    if may_settle and state.history.pending is not None:
        with history.promotion_lock(workspace_uri):
            state = follow(client, workspace_uri, name)
    require_agreement(state)
    require_newest(state)
    return state


QUESTIONS_OF_RECIPE: tuple[Callable[[Asked], None], ...] = (ask_recipe, ask_functions)
"""What is asked of the recipe alone; `homefeed log check` asks it too."""

QUESTIONS = (*QUESTIONS_OF_RECIPE, ask_hardware, ask_event_log, ask_fed, ask_tracking, ask_record,
             ask_champion, ask_comparable)  # fmt: skip
"""What is asked, in this order; each raises where the answer is no."""


def require_all(asked: Asked) -> None:
    """Refuse a cycle at the first question without a good answer, by the question's error."""
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
