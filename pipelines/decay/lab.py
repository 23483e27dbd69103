"""`homefeed decay`: models of one recipe, each scored on its own window and on all later ones.

    <workspace>/decay/<recipe digest>/<code digest>/<as_of>/made.json   a `Made`: snapshot and model
    <workspace>/decay/<recipe digest>/<code digest>/<as_of>/training/   where it was trained
    <workspace>/decay/<recipe digest>/<code digest>/<as_of>/warm-<digest of bundle>/   both, of the
                                                        model that began with that bundle's weights
    <workspace>/decay/<recipe digest>/<code digest>/scores/   of each model on each window
    <workspace>/decay/<recipe digest>/decay.json and decay.html
    <workspace>/decay/<recipe digest>/days.csv   what each model loses on each day, by head

A model that the registry has of that day and recipe is used as it is; others are trained apart,
registered nowhere and never promoted. What is done is found again after a kill, or when the lab
runs on later: a window is scored anew only where its models are others. Not for the statistics
(`validation.decay`).
"""

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from pydantic import Field

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, Snapshot
from pipelines.contracts.base import Frozen
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.config import RunConfig
from pipelines.contracts.decay import Decay, WarmStart, decay_folder
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    TrackingUnavailableError,
)
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.progress import tracked
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.snapshot_files import verify_files
from pipelines.contracts.time import floor_to_day
from pipelines.cycles.index import refresh_index
from pipelines.event_log.completeness import completeness
from pipelines.event_log.log_files import EventLog
from pipelines.metrics.usage import processor_s
from pipelines.registry import registry, tracking
from pipelines.settings import Settings
from pipelines.snapshot.build import build_of
from pipelines.snapshot.plan import plan_of
from pipelines.stages.train import train_apart

if TYPE_CHECKING:
    from validation.decay.windows import ScoredWindow

log = logging.getLogger(__name__)
_FROZEN = (1, 4, 16)
"""Windows back from which actions are frozen, unless the whole matrix is asked for."""
_SHARE, _FEWEST_USERS = 0.4, 100
"""Share of a window's users who are scored, and how few are never drawn from. Scoring takes almost
all of its time in the model, so that only fewer rows make it cheaper. Half of what the pairs of a
lag vary by is the luck of trainings: with 0.4 of the users, intervals are 1.3 times as wide."""
FEWEST_MODELS = 5
"""Of fewer, no lag has the pairs that tell how models differ by luck."""


class Made(Frozen):
    """A model and the snapshot of its day."""

    snapshot: Snapshot
    bundle_dir: str
    cpu_s: float = Field(ge=0)  # Processor time of both; 0 where the registry had the model.
    training_s: float = Field(default=0.0, ge=0)  # That of the training alone.


@dataclass
class Lab:
    """One measurement: which days, of which recipe, and where."""

    recipe: RunConfig
    settings: Settings
    as_of: tuple[datetime, ...]  # In time.
    uses_registry: bool = True
    # Every older model on every window and all its users, not at doubling lags and on a share.
    is_whole: bool = False
    # Also a model of each day but the first that begins with the weights of the one before.
    starts_warm: bool = False
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find the folder.

        Raises:
            ConfigurationError: the workspace is no folder of this machine.
        """
        self.workspace_uri = self.settings.workspace_uri
        if not storage.is_local(self.workspace_uri):
            raise ConfigurationError(
                f"the workspace {self.workspace_uri} is no folder of this machine; expected one, "
                f"because trainings go on in it; set HOMEFEED_WORKSPACE to a folder"
            )
        self.folder = storage.local_path(
            decay_folder(self.workspace_uri, self.recipe.recipe_digest)
        )
        self.work = self.folder / code_digest()[:16]
        self.scores_dir = self.work / "scores"
        self.made, self.warm = dict[datetime, Made](), dict[datetime, Made]()

    def measure(self) -> "list[ScoredWindow]":
        """Make what is missing, and return every window as its models scored it, in time.

        Raises:
            ConfigurationError: too few days are left.
            HomefeedError: as building a snapshot and training raise.
        """
        with self.locked():
            made = self.make(FEWEST_MODELS)
            self.warm = self._make_warm(made) if self.starts_warm else {}
            return list(self._score(made))

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep others from working in the folder for the time being."""
        return storage.exclusive_lock(str(self.work), f"homefeed decay of {self.recipe.reference}")

    def make(self, fewest: int) -> dict[datetime, Made]:
        """Return the models by day, those that are missing made now; see `measure`."""
        known = self._registered() if self.uses_registry else {}
        made: dict[datetime, Made] = {}
        for as_of in tracked(self.as_of, "models made"):
            with self._named(as_of):
                made[as_of] = self._make(as_of, known.get(as_of, ()))
        if len(made) < fewest:
            raise ConfigurationError(
                f"{len(made)} models of {self.recipe.reference} are there; expected at least "
                f"{fewest}; choose --from, --to and --every that give as many days"
                f"{': '.join(['', *self.left_out])}"
            )
        self.made = made
        return made

    def _make_warm(self, made: dict[datetime, Made]) -> dict[datetime, Made]:
        """Return models by day, each trained for one pass from the one before; the first is not."""
        warm, (first, *later) = dict[datetime, Made](), made
        before = made[first].bundle_dir
        for as_of in tracked(later, "warm models made"):
            with self._named(as_of):
                warm[as_of] = self._make(as_of, (), before)
                before = warm[as_of].bundle_dir
        return warm

    @contextlib.contextmanager
    def _named(self, as_of: datetime) -> Iterator[None]:
        """Leave out a day that the log or a bundle does not allow, by name."""
        try:
            yield
        except DataContractError as error:
            self.left_out.append(f"{as_of:%Y-%m-%d}: {error}")
            log.warning("left out: %s", self.left_out[-1])

    def _registered(self) -> dict[datetime, list[ModelRef]]:
        """Return the registry's versions by day, the newest first."""
        client = tracking.connect(self.settings.tracking_uri)
        found = dict[datetime, list[ModelRef]]()
        for ref in registry.read_versions(client, self.settings.registered_model):
            found.setdefault(ref.as_of, []).append(ref)
        return found

    def _make(self, as_of: datetime, versions: Sequence[ModelRef], starts_from: str = "") -> Made:
        """Return the model of a day and its snapshot, made once; with `starts_from` a warm one."""
        place, recipe = self.work / f"{as_of:%Y-%m-%d}", self.recipe
        if starts_from:
            place /= f"warm-{digest_of_files(digest_files(Path(starts_from)))[:16]}"
            training = recipe.training.model_copy(update={"num_epochs": 1})
            recipe = recipe.model_copy(update={"training": training})
        note = (place / "made.json").as_uri()
        if found := storage.find_model(note, Made):
            places = {**found.snapshot.places(), Path(found.bundle_dir).as_uri(): None}
            if not storage.find_missing(places):
                return found
        before = processor_s()
        log_uri = self.settings.event_log_uri
        snapshots_uri = storage.join(self.workspace_uri, "snapshots")
        snapshot = build_of(plan_of(self.recipe, as_of), log_uri, snapshots_uri)
        bundle_dir, cpu_s, training_s = self._take(as_of, versions), 0.0, 0.0
        begun = processor_s()
        if not bundle_dir:
            how = self.settings.accelerator, 1, starts_from
            bundle_dir = train_apart(snapshot, recipe, place / "training", *how).bundle_dir
            training_s, cpu_s = processor_s() - begun, processor_s() - before
        made = Made(snapshot=snapshot, bundle_dir=bundle_dir, cpu_s=cpu_s, training_s=training_s)
        storage.write_model(note, made)
        return made

    def _take(self, as_of: datetime, versions: Sequence[ModelRef]) -> str:
        """Return the folder of a day's first version that is of this recipe; '': none is."""
        from training.bundle.files import read_config

        for ref in versions:
            client = tracking.connect(self.settings.tracking_uri)
            folder = self.work / f"{as_of:%Y-%m-%d}" / "registered"
            try:
                bundle_dir = registry.download_bundle(client, ref, folder)
                config = read_config(bundle_dir)
            except DataContractError as error:
                self.left_out.append(f"{ref.label}: {error}")
                continue
            if config.recipe.digest == self.recipe.recipe_digest:
                return str(bundle_dir)
        return ""

    def _score(self, made: dict[datetime, Made]) -> "Iterator[ScoredWindow]":
        """Yield each window as its own model and older ones scored it."""
        from training.bundle.score_split import score_once
        from training.data.reader import load_rows
        from validation.decay.windows import ScoredWindow
        from validation.model_gate.comparison import Holdout

        days = list(made)
        for num, (as_of, own) in enumerate(tracked(made.items(), "windows scored", len(made))):
            place = own.snapshot, storage.local_path(own.snapshot.uri), SPLIT_HOLDOUT
            verify_files(*place[:2])
            back = {day: num - at for at, day in enumerate(days[: num + 1])}  # Windows ago.
            live = [day for day, ago in back.items() if self.is_whole or ago & (ago - 1) == 0]
            frozen = [day for day in live[:-1] if self.is_whole or back[day] in _FROZEN]
            warm = [day for day in days[max(num - 1, 0) : num + 1] if day in self.warm]
            with self._named(as_of):
                rows, num_users = load_rows(*place), None
                if not self.is_whole:
                    share = _SHARE * len(set(rows.user_id.tolist()))
                    num_users = max(ceil(share), _FEWEST_USERS)
                    rows = load_rows(*place, num_users=num_users)
                score = functools.partial(score_once, self.scores_dir, num_users=num_users)
                yield ScoredWindow(
                    as_of,
                    own.snapshot.holdout.start,
                    Holdout(rows, self.recipe.features.heads, self.recipe.model_gate),
                    {day: score(Path(made[day].bundle_dir), *place) for day in live},
                    {day: score(Path(own.bundle_dir), *place, acted_before=day) for day in frozen},
                    {day: score(Path(self.warm[day].bundle_dir), *place) for day in warm},
                )

    def report(self, found: "list[ScoredWindow]", **options: float | None) -> Decay:
        """Say what the windows tell, and write the page; see `validation.decay.findings`."""
        from validation.decay.findings import day_table, findings
        from validation.report.decay_page import render_decay

        spent = [(each.cpu_s, each.training_s) for each in self.made.values() if each.cpu_s]
        cycle_s, scratch_s = map(median, zip(*spent or [(0, 0)], strict=True))
        options["core_hours"] = options.get("core_hours") or cycle_s / 3600 or None
        warm_s = median([each.training_s for each in self.warm.values()] or [0])
        warm = (
            WarmStart(training_s=warm_s, scratch_s=scratch_s, cycle_s=cycle_s) if warm_s else None
        )
        decay = findings(
            found,
            self.recipe,
            code_digest=code_digest(),
            measured_at=datetime.now(UTC),
            left_out=tuple(self.left_out),
            warm=warm,
            **options,
        )
        table = day_table(found, self.recipe)
        storage.write_bytes((self.folder / "days.csv").as_uri(), table.encode())
        storage.write_bytes((self.folder / "decay.html").as_uri(), render_decay(decay).encode())
        storage.write_model((self.folder / "decay.json").as_uri(), decay)
        refresh_index(self.workspace_uri, self.settings.registered_model)
        return decay


def days_to_measure(
    event_log: EventLog,
    recipe: RunConfig,
    first: datetime | None,
    last: datetime | None,
    every: int,
) -> tuple[datetime, ...]:
    """Return the days of the models: every so many days back from the last that has its labels.

    Args:
        event_log: The log.
        recipe: Whose windows must lie in it.
        first: No day before it; None: the first whose training window lies in the log.
        last: The last day; None: the newest that has all labels.
        every: Days from one to the next.

    Raises:
        DataContractError: the last day has no mature labels.
    """
    newest = completeness(event_log).as_of
    last = last or newest
    if last > newest:
        raise DataContractError(
            f"--to {last:%Y-%m-%d}: the event log is complete to {newest:%Y-%m-%d}; expected a day "
            f"whose labels are there; choose an earlier one"
        )
    begun, _ = event_log.span("impressions")
    begins = datetime(begun.year, begun.month, begun.day, tzinfo=UTC)
    plan = plan_of(recipe, last)
    earliest = floor_to_day(begins + (last - plan.training.start)) + timedelta(days=1)
    first = max(first or earliest, earliest)
    num = (last - first) // timedelta(days=every) + 1
    return tuple(last - timedelta(days=every * back) for back in reversed(range(num)))


def log_to_mlflow(decay: Decay, settings: Settings) -> str:
    """Log page and numbers to the experiment, one run for each recipe, and return its address.

    Where MLflow does not answer it is '': the workspace has both.
    """
    from pipelines.contracts.mlflow_errors import make_once, translated_outages

    tag, name = f"tags.homefeed_decay = '{decay.recipe_digest}'", f"decay of {decay.recipe}"
    folder = decay_folder(settings.workspace_uri, decay.recipe_digest)
    try:
        client = tracking.connect(settings.tracking_uri)
        with translated_outages(settings.tracking_uri):
            place = tracking.experiment_id_of(client, settings)
            run = make_once(
                lambda: next(iter(client.search_runs([place], tag, max_results=1)), None),
                lambda: client.create_run(
                    place, tags={"homefeed_decay": decay.recipe_digest}, run_name=name
                ),
            )
            for each in ("days.csv", "decay.html", "decay.json"):
                path = str(storage.local_path(storage.join(folder, each)))
                client.log_artifact(run.info.run_id, path, "decay")
            for point in decay.curves[0].points if decay.curves else ():
                client.log_metric(
                    run.info.run_id, "decay/percent", 100 * point.change.value, step=point.lag_days
                )
            client.set_terminated(run.info.run_id)
    except TrackingUnavailableError as error:
        log.warning("%s", error)
        return ""
    return f"{settings.tracking_uri}/#/experiments/{place}/runs/{run.info.run_id}"
