"""Who ranks a world's requests: nobody, the best that can be known, a model here, or a server.

Letters: R requests of a round, C candidates.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.sources.world.draws import Floats, HiddenFilter, Ints, Shown, Users
from pipelines.world_run.asked_day import AskedDay
from training.bundle.files import BundleConfig, Predictor
from training.bundle.ranking_requests import requests_of
from training.bundle.score_split import ranking_score
from training.data.batches import Batch

_AT_ONCE = 64
"""Requests of one body."""


class Policy(ABC):
    """Gives each candidate a number, the highest first.

    Attributes:
        label: What ranks, for people.
        config: Of the bundle by which a day is asked about; None where that is not needed.
    """

    label: str
    config: BundleConfig | None = None

    @abstractmethod
    def scores(self, ids: pa.Array, shown: Shown, asked: AskedDay | None) -> Floats:
        """Return (R, C) for requests of different users, candidates as they were drawn."""

    def learn(self, shown: Shown, outcome_RC: Ints) -> None:  # noqa: B027  # Most need no more than the log.
        """Take in what users did, candidates as they were shown."""


class Drawn(Policy):
    """The order in which candidates were drawn, which says nothing about them."""

    label = "random"

    def scores(self, ids: pa.Array, shown: Shown, asked: AskedDay | None) -> Floats:
        """Return zeros."""
        return np.zeros(shown.topic_RC.shape)


class Optimum(Policy):
    """The exact filter: the best that can be known of what a user did and was shown."""

    label = "optimum"

    def __init__(self, users: Users) -> None:
        self._filter = HiddenFilter(users)

    def scores(self, ids: pa.Array, shown: Shown, asked: AskedDay | None) -> Floats:
        """Return the chances of a repin once a candidate is looked at."""
        return self._filter.expected(shown)

    def learn(self, shown: Shown, outcome_RC: Ints) -> None:
        """Update the filter."""
        self._filter.learn(shown, outcome_RC)


class Model(Policy):
    """A bundle, in this process or behind `homefeed serve`.

    Args:
        predictor: The model; where a server answers, it says how the server is asked.
        ref: What the registry says of it.
        server: Address of a server that must have it; '' scores here.
    """

    def __init__(self, predictor: Predictor, ref: ModelRef, server: str = "") -> None:
        self.label, self.config = ref.label, predictor.config
        self._predictor, self._ref, self._server = predictor, ref, server

    def scores(self, ids: pa.Array, shown: Shown, asked: AskedDay | None) -> Floats:
        """Return the ranking scores."""
        assert asked is not None
        found, score = dict[str, Floats](), self._ask if self._server else self._score
        for names, batch in asked.batches(ids):
            utility_RC = score(names, batch).reshape(len(names), -1)
            found |= dict(zip(names, utility_RC, strict=True))
        return np.stack([found[each] for each in ids.to_pylist()])

    def _score(self, names: Sequence[str], batch: Batch) -> Floats:
        heads = self._predictor.config.features.heads
        scores_CH = self._predictor.probabilities(batch)
        return ranking_score({head.name: scores_CH[:, h] for h, head in enumerate(heads)}, heads)

    def _ask(self, names: Sequence[str], batch: Batch) -> Floats:
        given = requests_of(batch, self._predictor.config)
        named = [each | {"request_id": name} for name, each in zip(names, given, strict=True)]
        firsts = range(0, len(named), _AT_ONCE)
        rows = [row for n in firsts for row in self._answers(named[n : n + _AT_ONCE])]
        return np.concatenate([row["utility"] for row in rows])

    def _answers(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        place = f"{self._server}/rank"
        try:
            answer = httpx.post(place, json={"requests": requests}, timeout=60)
            rows: list[dict[str, Any]] = answer.json()["answers"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise TransientStorageError(f"{place} does not answer ({error!r}); retry") from None
        for row in rows:
            if row["status"] != 200 or row["bundle_digest"] != self._ref.bundle_digest:
                found = row.get("detail") or f"version {row['model_version']}"
                raise ConfigurationError(
                    f"{place} answers a request with {row['status']}, {found}; expected "
                    f"{self.label}, with 200; let it follow the champion, or leave --server out"
                )
        return rows
