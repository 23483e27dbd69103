"""How much trainings of one recipe differ by their seed: measured once per recipe, and kept.

    <workspace>/seed_noise/<recipe digest>.json    a SeedNoise

Not for measuring: that is `homefeed anchor seeds`. Tested in
tests/pipelines/cli/test_anchor.py.
"""

import statistics
from typing import Self

from pydantic import Field, model_validator

from pipelines import storage
from pipelines.contracts.base import Frozen


class SeedNoise(Frozen):
    """The target metric of trainings that differ in nothing but their seed, on one holdout."""

    recipe: str
    recipe_digest: str
    snapshot_digest: str
    code_digest: str
    target_metric: str
    seeds: tuple[int, ...] = Field(min_length=2)
    values: tuple[float, ...] = Field(min_length=2, description="Of the target metric, by seed.")

    @model_validator(mode="after")
    def _has_a_mean(self) -> Self:
        if statistics.fmean(self.values) <= 0:
            raise ValueError(
                f"the mean of {self.target_metric} over the seeds is not positive: {self.values}"
            )
        return self

    @property
    def deviation(self) -> float:
        """Standard deviation relative to the mean."""
        return statistics.stdev(self.values) / statistics.fmean(self.values)


def noise_folder(workspace_uri: str) -> str:
    """Return the URI of the folder with every recipe's measurement."""
    return storage.join(workspace_uri, "seed_noise")


def keep(workspace_uri: str, measured: SeedNoise) -> str:
    """Write a measurement and return its URI; a newer one of the same recipe takes its place."""
    uri = storage.join(noise_folder(workspace_uri), f"{measured.recipe_digest}.json")
    storage.write_model(uri, measured)
    return uri


def measured_deviation(workspace_uri: str, recipe_digest: str, target_metric: str) -> float | None:
    """Return the relative standard deviation between seeds, or None where it was not measured.

    What was measured of another target metric says nothing of this one.
    """
    uri = storage.join(noise_folder(workspace_uri), f"{recipe_digest}.json")
    if not storage.exists(uri):
        return None
    repair = "delete it: the recipe's model_gate.seed_noise then counts"
    found = storage.read_model(uri, SeedNoise, repair)
    return found.deviation if found.target_metric == target_metric else None
