"""The scales of a training's rows, which the model divides its inputs by.

They are measured once, before the first step, and are saved with the weights. Not for judging the
data: the data gate has done that before a training begins.
"""

import logging

import numpy as np

from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import numeric_column
from training.data.batches import FeatureStatistics
from training.data.reader import RequestIndex, SnapshotReader

log = logging.getLogger(__name__)


def measure_statistics(
    reader: SnapshotReader, index: RequestIndex, features: FeatureConfig
) -> FeatureStatistics:
    """Return the scales over all training rows; every rank gets the same.

    Args:
        reader: of the snapshot.
        index: the training requests.
        features: heads and numeric features of the recipe.

    Raises:
        DataContractError: the window has no positive of the main head, or an embedding is not
            finite.
    """
    moments = []
    for feature in features.numeric:
        values, *flags = (reader.example_column(index, numeric_column(n)) for n in feature.inputs)
        for is_missing in flags:
            # The feature's own moments are over the rows where it is not missing: how often it is
            # must not move them, and is told by the flag.
            values = values[is_missing == 0]
        moments += [_mean_and_scale(column) for column in (values, *flags)]
    pins = reader.pins["embedding"][np.unique(reader.example_column(index, "pin_row"))]
    users = [user["embedding"] for user in reader.users]
    tables = {"pins": pins} | {f"users of shard {s}": table for s, table in enumerate(users)}
    for name, embeddings in tables.items():
        if not np.isfinite(embeddings).all():
            bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
            raise DataContractError(
                f"{bad} embeddings of {name} are not finite; expected finite numbers; run the "
                f"data gate (check_snapshot), which names them, and mend the event log"
            )
    return FeatureStatistics(
        numeric_mean_N=np.array([mean for mean, _ in moments]),
        numeric_scale_N=np.array([scale for _, scale in moments]),
        pin_scale=_unit_scale(pins),
        user_scale=_unit_scale(np.concatenate(users)),
        head_rates_H=_head_rates(reader.labels(index), features),
    )


def _head_rates(labels_CH: np.ndarray, features: FeatureConfig) -> np.ndarray:
    """Return each head's share of positives, moved off 0 and 1 by half a positive."""
    positives_H = labels_CH.sum(axis=0, dtype=np.int64)
    main_head = features.main_head.name
    for head, positives in zip(features.head_names, positives_H, strict=True):
        if positives == 0 and head == main_head:
            raise DataContractError(
                f"the training window has no positive of the main head {head!r} in "
                f"{len(labels_CH)} examples; expected some; check the actions of the event log and "
                f"snapshot.label_window_hours"
            )
        if positives == 0:
            log.warning(
                "head %r has no positive in the training window: it will predict that nothing "
                "happens, and its calibrator cannot correct that",
                head,
            )
    return (positives_H + 0.5) / (len(labels_CH) + 1.0)


def _mean_and_scale(values: np.ndarray) -> tuple[float, float]:
    if len(values) == 0:
        return 0.0, 1.0
    scale = float(values.std(dtype=np.float64))
    return float(values.mean(dtype=np.float64)), scale if scale > 0 else 1.0


def _unit_scale(embeddings: np.ndarray) -> float:
    """Return the factor that brings an embedding's components to a root mean square of 1."""
    mean_square = float(np.square(embeddings, dtype=np.float64).mean()) if embeddings.size else 0.0
    return mean_square**-0.5 if mean_square > 0 else 1.0
