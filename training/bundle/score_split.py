"""From a bundle's folder to one score per example of a snapshot's split, in six steps.

1. **read**: the bundle's files become a predictor, which must reproduce its own golden rows.
2. **check**: a snapshot whose codes or embeddings mean something else is refused.
3. **batch**: requests are gathered as in training, so that the numbers are those of training.
4. **score**: the model gives one logit per candidate and head.
5. **calibrate**: logits become probabilities.
6. **rank**: the heads' probabilities become one score; the highest is shown first.

Champion and challenger both take this way. Not for judging the scores (`validation.model_gate`).

Letters: N examples (candidates of all requests), H heads.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.base import digest_of
from pipelines.contracts.config import Head
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.progress import tracked
from pipelines.contracts.schemas import label_column
from pipelines.contracts.snapshot_files import embedding_dim_of
from training.bundle.files import Predictor, load_bundle
from training.data.input_checks import require_meaning
from training.data.reader import RequestIndex, SnapshotReader, chunks
from training.environment import require_devices

Accelerator = Literal["cpu", "gpu"]
BATCH_SIZES: dict[Accelerator, int] = {"cpu": 2048, "gpu": 32_768}
"""Candidates at a time; changes memory and speed, not the scores. No GPU was measured."""


@dataclass(frozen=True)
class SplitScores:
    """One side's scores, aligned with the N examples of `training.data.reader.load_rows`."""

    ranking_score: np.ndarray  # (N,) float64, the highest is shown first
    probabilities: Mapping[str, np.ndarray]  # per head (N,) in [0, 1]; empty where there are none
    holdout_digest: str  # of the scored (request, pin, label) rows; equal digests, equal rows


def score_split(
    bundle_dir: Path,
    snapshot: Snapshot,
    snapshot_dir: Path,
    split: int,
    label_heads: tuple[str, ...] = (),
    acted_before: datetime | None = None,
    num_users: int | None = None,
    accelerator: Accelerator = "cpu",
) -> SplitScores:
    """Return probabilities and ranking score of every example of a split.

    The ranking score is the one that serving would use: that of the bundle's own heads, weights and
    calibration, whatever another recipe says.

    Args:
        bundle_dir: The bundle's folder.
        snapshot: The snapshot to score.
        snapshot_dir: Its local folder.
        split: `SPLIT_TRAINING` or `SPLIT_HOLDOUT`.
        label_heads: Heads whose labels enter the digest of the rows.
        acted_before: Users are taken to have done nothing since then; None: all is told.
        num_users: Of so many users, as `RequestIndex.of_users` draws them; None: of all.
        accelerator: What scores: the processor, or one GPU.

    Raises:
        ConfigurationError: there is no GPU.
        DataContractError: the bundle is damaged or gives no head a weight, or the snapshot's codes
            and embeddings mean something else than in training. A snapshot may have more numeric
            features than the bundle needs.
    """
    require_devices(1, accelerator)
    predictor = load_bundle(bundle_dir, "cuda" if accelerator == "gpu" else "cpu")
    config = predictor.config
    require_meaning(
        snapshot,
        config.features,
        f"the bundle of {config.as_of:%Y-%m-%d} (of snapshot {config.snapshot_digest[:12]})",
        {
            "embedding version": (config.embedding_version, snapshot.embedding_version),
            "embeddings of width": (config.embedding_dim, embedding_dim_of(snapshot_dir)),
        },
    )
    # A batch carries labels, so its heads are the snapshot's; the scores' heads are the bundle's.
    features = config.features.model_copy(update={"heads": snapshot.features.heads})
    reader = SnapshotReader(snapshot.shards, snapshot_dir, features, config.model.max_actions)
    index, heads = reader.index(split).of_users(num_users), config.features.heads
    if acted_before is not None:
        index = reader.frozen(index, int(acted_before.timestamp() * 1000))
    logits_NH = logits_of(predictor, reader, index, BATCH_SIZES[accelerator])
    scores_NH = predictor.calibrate(logits_NH)
    probabilities = {
        head.name: np.ascontiguousarray(scores_NH[:, h]) for h, head in enumerate(heads)
    }
    digest = digest_rows(reader, index, label_heads)
    return SplitScores(ranking_score(probabilities, heads), probabilities, digest)


def score_once(
    folder: Path,
    bundle_dir: Path,
    snapshot: Snapshot,
    snapshot_dir: Path,
    split: int,
    label_heads: tuple[str, ...] = (),
    **options: Any,
) -> SplitScores:
    """Return what `score_split` does, from a file of the folder where that was asked before."""
    asked = [digest_of_files(digest_files(bundle_dir)), snapshot.digest, split, *label_heads]
    num_users = options.get("num_users")
    asked += [f"{options.get('acted_before')}", *([num_users] if num_users else [])]
    path = folder / f"{digest_of(asked)[:24]}.safetensors"
    if path.exists():
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return SplitScores(arrays.pop(""), arrays, file.metadata()["rows"])
    found = score_split(bundle_dir, snapshot, snapshot_dir, split, label_heads, **options)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    arrays = {"": found.ranking_score, **found.probabilities}
    save_file(arrays, partial, {"rows": found.holdout_digest})
    partial.rename(path)
    return found


def digest_rows(reader: SnapshotReader, index: RequestIndex, label_heads: tuple[str, ...]) -> str:
    """Return the sha256 of some requests' (request, pin, label) rows, in their order.

    Two snapshots of other features give the same digest where they hold the same rows.

    Args:
        reader: Of the snapshot that the requests are in.
        index: The requests.
        label_heads: Heads whose labels count.
    """
    found = hashlib.sha256()
    found.update("\n".join(reader.request_column(index, "request_id").tolist()).encode())
    found.update(index.num_examples_M.astype("<i8").tobytes())
    pin_ids = reader.pins["pin_id"][reader.example_column(index, "pin_row")]
    found.update(pin_ids.astype("<i8").tobytes())
    for head in sorted(label_heads):
        found.update(head.encode())
        found.update(reader.example_column(index, label_column(head)).astype("i1").tobytes())
    return found.hexdigest()


def logits_of(
    predictor: Predictor, reader: SnapshotReader, index: RequestIndex, batch_size: int
) -> np.ndarray:
    """Return `Predictor.logits` of all candidates of some requests, float64 [N, H].

    Args:
        predictor: The model.
        reader: Of the snapshot that the requests are in.
        index: The requests.
        batch_size: Candidates at a time; changes memory and speed, and the logits by rounding only.
    """
    batches = tracked(list(chunks(index, batch_size)), "batches scored")
    parts = [predictor.logits(reader.make_batch(requests)) for requests in batches]
    return np.concatenate(parts) if parts else np.zeros((0, len(predictor.config.calibrators)))


def ranking_score(probabilities: Mapping[str, np.ndarray], heads: tuple[Head, ...]) -> np.ndarray:
    """Return sum over heads of utility_weight * probability, float64 (N,); the highest goes first.

    Raises:
        DataContractError: no head has a weight.
    """
    weighted = [h.utility_weight * probabilities[h.name] for h in heads if h.utility_weight != 0]
    if not weighted:
        raise DataContractError(
            f"every head of {[h.name for h in heads]} has utility_weight 0, so nothing orders the "
            f"candidates; give features.heads at least one weight"
        )
    return np.sum(weighted, axis=0)
