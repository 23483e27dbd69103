"""What a workspace and a registry hold, as plain values: what the plan of a deletion is made from.

Not for reading them (`inventory`, `models`, `record`), nor for what may go (`plan`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pipelines.contracts.artifacts import ModelRef
from pipelines.registry.reconcile import State


@dataclass(frozen=True)
class Held:
    """A folder, a file or a model that takes up space."""

    name: str
    uri: str
    num_bytes: int
    changed_at: datetime
    """When its newest file was written; lock files do not count."""


@dataclass(frozen=True)
class FoundRun(Held):
    """A run folder, with what its manifests name."""

    at_work: tuple[str, ...] = ()
    """Stages whose lease somebody holds."""
    registered_model: str = ""
    """'' where `resolve_run` has left no manifest."""
    versions: frozenset[str] = frozenset()
    """Registered versions that it trained."""
    snapshots: frozenset[str] = frozenset()
    """Names of the snapshots that its manifests name."""
    trainings: tuple[Held, ...] = ()
    """Work folders of trainings, with their checkpoints, whose stage has ended."""
    problem: str = ""
    """Why it is not known what the run needs; '' where it is."""
    foreign: tuple[str, ...] = ()
    """What lies in it that no stage has made."""


@dataclass(frozen=True)
class FoundVersion(Held):
    """A registered version."""

    model_id: str
    """Of the logged model that its files are; '' where nothing of it can be deleted: its files are
    artifacts of an MLflow run, or were deleted before."""
    run_name: str
    """Name of the cycle that trained it, by its tag; '' unknown."""
    aliases: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
    """Other versions of the same name that are the same logged model."""
    other_names: tuple[str, ...] = ()
    """Versions of other registered models that are the same logged model."""


@dataclass(frozen=True)
class Holdings:
    """All that takes up space."""

    runs: tuple[FoundRun, ...] = ()
    snapshots: tuple[Held, ...] = ()
    alerts: tuple[Held, ...] = ()
    leftovers: tuple[Held, ...] = ()
    """Scratch folders of processes that are gone."""
    versions: tuple[FoundVersion, ...] = ()


@dataclass(frozen=True)
class Record:
    """What is on record, sound and in agreement with the registry."""

    state: State
    judged_runs: frozenset[str]
    """Names of the runs that were judged since the champion moved last."""
    references: Mapping[str, str]
    """Recipe by the name of its newest accepted snapshot."""
    profile_uris: tuple[str, ...]
    """Where the profiles of these snapshots lie."""

    @property
    def served(self) -> list[ModelRef]:
        """Every model that served or was meant to, the newest last."""
        models = []
        for _, entry in self.state.history.entries:
            models += [entry.previous, entry.model]
        models.append(self.state.served)
        return [model for model in models if model is not None]


def name_in(uri: str) -> str:
    """Return the last part of a URI: a workspace may be reached under another path by now."""
    return uri.rstrip("/").rpartition("/")[2]
