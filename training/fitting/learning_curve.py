"""The learning curve: what the holdout thinks of a model four times in a training, or each epoch.

It is there to be looked at, in MLflow beside the curves of other runs; nothing is chosen by it, and
the comparison judges the finished model on all of the holdout.
"""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from pipelines.contracts.config import TOP_K
from pipelines.contracts.schemas import SPLIT_HOLDOUT, label_column
from training.bundle.files import BundleConfig, Predictor
from training.bundle.score_split import logits_of, ranking_score
from training.data.data_module import HomefeedDataModule
from training.fitting.metrics_file import CURVE, append

_NUM_POINTS, _FEWEST, _BATCH = 4, 100, 2048
_SHARE = 0.06
"""Candidates that are scored, as a share of those trained on: about 3 % of a training's time."""


class LearningCurve(pl.Callback):
    """Logs `CURVE`: the main head's actions in the top 3 of a request, mean over the holdout.

    Of the holdout as many requests are taken as cost little, the same each time. The first process
    scores them on its CPU as a bundle would, but for the calibration, while the others wait.

    Args:
        path: metrics.jsonl.
        data: The training's data.
        config: Of the bundle that the training makes, before it is calibrated.
    """

    def __init__(self, path: Path, data: HomefeedDataModule, config: BundleConfig) -> None:
        self._path, self._reader, self._config = path, data.reader, config
        index, num_epochs = data.reader.index(SPLIT_HOLDOUT), data.config.training.num_epochs
        self._num_points = max(_NUM_POINTS, num_epochs)
        budget = _SHARE * data.training_index.num_examples_M.sum() * num_epochs / self._num_points
        affordable = int(budget * len(index) / max(1, index.num_examples_M.sum()))
        num_requests = min(len(index), max(affordable, _FEWEST))
        self._index = index.take(np.linspace(0, len(index) - 1, num_requests).astype(np.int64))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Log a point where one is due; before the end of a step is saved, so that none is lost."""
        every = math.ceil(pl_module.num_steps / self._num_points)
        is_due = trainer.global_step % every == 0 or trainer.global_step == pl_module.num_steps
        if trainer.is_global_zero and is_due and len(self._index):
            ranker = copy.deepcopy(pl_module.ranker).cpu().float()
            found = self._volume(Predictor(ranker, self._config))
            append(self._path, trainer.global_step, {CURVE: found})

    def _volume(self, predictor: Predictor) -> float:
        """Return the main head's actions in the top 3, mean per request."""
        features, index = self._config.features, self._index
        scores_NH = predictor.calibrate(logits_of(predictor, self._reader, index, _BATCH))
        of_head = dict(zip(features.head_names, scores_NH.T, strict=True))
        request_N = np.repeat(np.arange(len(index)), index.num_examples_M)
        order_N = np.lexsort((-ranking_score(of_head, features.heads), request_N))
        firsts_M = np.cumsum(index.num_examples_M) - index.num_examples_M
        is_top_N = np.arange(len(order_N)) - firsts_M[request_N] < TOP_K
        labels_N = self._reader.example_column(index, label_column(features.main_head.name))
        return float(labels_N[order_N[is_top_N]].sum() / len(index))
