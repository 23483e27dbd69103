"""The trainings of an explanation: models of which no registry hears, by any code that is kept.

Not for scoring (`pipelines.explain.explaining`). Tested there.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipelines import storage
from pipelines.contracts.artifacts import AnchorWhy, ResolvedRun, Snapshot
from pipelines.contracts.base import digest_of
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.explain.parts import Setting
from pipelines.registry import tracking
from pipelines.registry.accepted_code import place_of
from pipelines.reproduction.rebuild import own_registry
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.counterpart import snapshot_to_train
from pipelines.stages.train import AnchorOrder, by_accepted_code, train_apart, work_dir_of


@dataclass(frozen=True)
class Trainer:
    """Trains other settings than a run's, to score the run's holdout."""

    run: ResolvedRun
    snapshot: Snapshot  # The run's.
    folder_uri: str

    def train(self, setting: Setting, place: str) -> tuple[str, Snapshot]:
        """Return a setting's bundle, and the run's requests as its recipe and code compute them.

        Other code takes the way of a fresh anchor, with a registry of its own. What is not finished
        at a place goes on.

        Raises:
            HomefeedError: as training and building a snapshot raise, or the code cannot be run.
        """
        run = self.run.model_copy(update={"run_uri": place, "as_of": setting.as_of})
        scored_on, recipe = self.build(self.run.as_of, setting.recipe), setting.recipe
        trained_on = self.build(setting.as_of, recipe)
        if setting.code == code_digest():
            hardware = run.accelerator, run.num_devices * run.num_nodes
            result = train_apart(trained_on, recipe, work_dir_of(run, "part"), *hardware)
            return Path(result.bundle_dir).as_uri(), scored_on
        code = {"anchor_code_digest": setting.code}
        code |= {"anchor_code_uri": place_of(run.workspace_uri, setting.code)}
        folder = work_dir_of(run.model_copy(update={"run_uri": self.folder_uri}), "registry")
        store = f"sqlite:///{folder / 'registry' / tracking.OWN_REGISTRY}"
        alone = {"champion": None, "num_nodes": 1, "config": recipe, "tracking_uri": store}
        run = run.model_copy(update={"standing": run.standing.model_copy(update=code), **alone})
        order = AnchorOrder(
            run=run,
            snapshot=trained_on,
            recipe=recipe,
            why=AnchorWhy.OTHER_CODE,
            output_uri=f"{place}/out",
            node=None,
        )
        with own_registry(folder, run):
            fresh = by_accepted_code(order)
        if fresh.trained is None or fresh.snapshot is None:
            raise ConfigurationError(fresh.problem)
        is_of_run = setting.as_of == self.run.as_of
        return fresh.trained.bundle_uri, fresh.snapshot if is_of_run else scored_on

    def build(self, as_of: datetime, recipe: RunConfig) -> Snapshot:
        """Return the snapshot of a day for a recipe, built once."""
        told = recipe.model_dump(mode="json", include={"features", "snapshot"})
        key = digest_of([told, f"{as_of}", self.snapshot.digest])[:16]
        uri = storage.join(self.folder_uri, f"snapshot-{key}.json")
        known = storage.find_model(uri, Snapshot, "delete it: it is built again")
        if known and not storage.find_missing(known.places()):
            return known
        if as_of == self.run.as_of:
            found = snapshot_to_train(self.run, self.snapshot, recipe)
        else:
            at = {"config": recipe, "as_of": as_of}
            found = write_snapshot(self.run.model_copy(update=at))
        storage.write_model(uri, found)
        return found
