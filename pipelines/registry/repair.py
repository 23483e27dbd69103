"""Makes alias and history agree again, by adding an entry that says what was found.

Nothing is deleted or rewritten. Tested in tests/pipelines/registry/test_reconcile.py.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import ConfigurationError, TrackingEntryMissingError
from pipelines.registry import history, moves, registry
from pipelines.registry.history import HistoryEntry
from pipelines.registry.promotion import require_not_deleted
from pipelines.registry.reconcile import State, look

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Plan:
    """What a repair does: sentences for people, and the model that is to serve; None as it is."""

    steps: tuple[str, ...]
    model: ModelRef | None


def plan(
    client: "MlflowClient", state: State, restores_alias: bool, to_version: str | None = None
) -> Plan:
    """Return what `repair` would do; nothing where all agrees.

    Args:
        client: Client of the tracking server.
        state: What was found.
        restores_alias: The history is right and the alias is moved; otherwise the other way round.
        to_version: A version that shall serve, whatever both say.

    Raises:
        ConfigurationError: nothing serves that could be recorded, or nothing is recorded that the
            alias could be pointed at, or the alias names it and the version itself was altered.
        TrackingEntryMissingError: the registry has no such version any more.
        BundleMissingError: the alias would be pointed at a version that is marked as deleted.
    """
    steps: list[str] = []
    pending, last = state.history.pending, state.history.last
    recorded = last.model if last else None
    if pending is not None:
        wanted = pending.intent.entry.model
        is_made = state.serves == wanted.version
        became = "was made" if is_made else "was not made"
        steps.append(f"record that the {pending.intent.entry.kind} of {wanted.label} {became}")
        recorded = wanted if is_made else recorded
    model = _model_to_serve(client, state, recorded, restores_alias, to_version)
    if model is not None:
        if model.version != state.serves:
            require_not_deleted(client, model)
        does = "point the alias at" if model.version != state.serves else "record that"
        tail = "" if model.version != state.serves else " serves"
        steps.append(f"{does} {model.label}{tail}")
    steps += [f"take note that {uri} is damaged or gone" for uri in state.history.damaged]
    if state.is_kept_elsewhere:
        steps.append(f"name {state.workspace_uri} as the history's keeper (was {state.keeper})")
    return Plan(tuple(steps), model)


def repair(
    client: "MlflowClient", state: State, wanted: Plan, now: datetime, reason: str
) -> HistoryEntry | None:
    """Carry a plan out; the caller holds the lock since the state was read.

    Raises:
        ConfigurationError: there is no reason.
    """
    if not reason.strip():
        raise ConfigurationError("--reason is empty; expected a sentence for the record")
    place, name = state.workspace_uri, state.name
    known = moves.settle_others(client, place, name, now, "the record was repaired")
    entry, serving = None, known.last
    model = wanted.model or (state.served if known.damaged else None)
    if model is not None:
        entry = HistoryEntry(
            moved_at=now,
            kind="outside",
            model=model,
            # Where the alias is moved, it comes from where it was found.
            previous=serving.model if serving and model.version == state.serves else state.served,
            run_uri=None,
            reason=reason,
        )
        damaged = tuple(history.name_of(uri) for uri in known.damaged)
        entry = moves.carry_out(client, history.begin(place, known, entry, damaged), now)
    if look(client, place, name).is_kept_elsewhere:
        registry.name_keeper(client, name, place)
    return entry


def _model_to_serve(
    client: "MlflowClient",
    state: State,
    recorded: ModelRef | None,
    restores_alias: bool,
    to_version: str | None,
) -> ModelRef | None:
    """Return what shall serve and be recorded; None where alias and history agree already."""
    if to_version is not None:
        return registry.read_version(client, state.name, to_version)
    agree = not state.disagreement() or state.is_kept_elsewhere
    if agree and state.serves == (recorded and recorded.version):
        return None
    if not restores_alias:
        if state.served is None:
            raise ConfigurationError(
                f"{state.name} has no champion in the registry, so none can be recorded; expected "
                f"one; point the alias at what the history names with "
                f"`homefeed history repair --restore-alias`, or at another version with "
                f"`homefeed history repair --to-version N`; either shows first what it would do"
            )
        return registry.read_version(client, state.name, state.served.version)
    if recorded is not None and recorded.version == state.serves:
        raise ConfigurationError(
            f"--restore-alias is given, and the alias names what the history does: "
            f"{state.disagreement()}; put its tags and files back; or leave --restore-alias out, "
            f"which records it as it is; or name another version with --to-version N"
        )
    if recorded is None:
        raise ConfigurationError(
            f"the history of {state.name} knows no champion that the alias could be pointed at; "
            f"expected at least one entry; leave out --restore-alias"
        )
    try:
        return registry.read_version(client, state.name, recorded.version)
    except TrackingEntryMissingError as error:
        raise TrackingEntryMissingError(
            f"{error}; the history says that {recorded.label} serves; name another version with "
            f"--to-version N; where the registry is a new one, begin a new history: set "
            f"HOMEFEED_WORKSPACE or HOMEFEED_REGISTERED_MODEL"
        ) from error
