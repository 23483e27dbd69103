"""`bundle.json`: what a bundle says of itself, and which snapshots it can score.

Not for weights and golden rows (`training.bundle.files`). Tested in
tests/training/bundle/test_files.py and test_score_split.py.
"""

from pydantic import AwareDatetime, Field

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import FeatureConfig, ModelConfig, RecipeRef, SnapshotConfig
from pipelines.contracts.time import Window
from training.bundle.calibration import Calibrator
from training.data.input_checks import meaning_of_codes, refuse_difference


class BundleConfig(Frozen):
    """What scoring needs besides the weights, and where both come from."""

    features: FeatureConfig
    model: ModelConfig
    embedding_version: str = Field(description="The only basis whose embeddings it understands.")
    embedding_dim: int = Field(ge=1)
    negative_keep_fraction: float = Field(gt=0, le=1, description="As in training.")
    calibrators: tuple[Calibrator, ...] = Field(description="One per head, in order.")
    as_of: AwareDatetime = Field(description="as_of of the cycle that trained it (UTC).")
    training: Window = Field(description="Whose rows trained and calibrated it.")
    snapshot: SnapshotConfig = Field(description="How its features are computed.")
    snapshot_digest: str
    code_version: str = Field(description="Commit or version of the project that trained it.")
    code_digest: str = Field(description="Digest of the code that trained it.")
    recipe: RecipeRef = Field(description="Which recipe trained it.")
    seed: int


def check_fits(config: BundleConfig, snapshot: Snapshot, embedding_dim: int) -> None:
    """Refuse a snapshot whose codes and embeddings mean something else than in training.

    A snapshot may have more numeric features than the bundle needs.

    Args:
        config: What the bundle says of itself.
        snapshot: The snapshot's manifest.
        embedding_dim: Width of the snapshot's embeddings.

    Raises:
        DataContractError: another embedding version or width, action vocabulary or categorical
            feature, or a numeric feature is missing.
    """
    pairs = {
        "embedding version": (config.embedding_version, snapshot.embedding_version),
        "embeddings of width": (config.embedding_dim, embedding_dim),
        **meaning_of_codes(config.features, snapshot),
    }
    trained_on = config.snapshot_digest[:12]
    refuse_difference(
        snapshot,
        pairs,
        f"the bundle of {config.as_of:%Y-%m-%d} (trained on snapshot {trained_on})",
        "build the snapshot with the bundle's recipe, or train a first champion for the new one",
    )
