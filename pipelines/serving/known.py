"""What the newest snapshot knows of users and pins, put into requests that name them by their ids.

The files are mapped into memory, and rows are gathered by the code that makes training's batches.
What a request carries goes before what is known here. A user's actions here end with the user's
last request of the snapshot: whoever asks adds those that came since. Not for numbers, which are
computed for a request. Tested in tests/pipelines/serving/test_known.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING, categorical_column
from pipelines.event_log.event_index import Places
from pipelines.registry.evidence import accepted_folder, newest_mark
from pipelines.sources.event_log_writer import id_of
from training.bundle.files import BundleConfig
from training.bundle.ranking_requests import ACTION_COLUMNS, RequestRefusedError
from training.data.reader import SnapshotReader

_FAR_MS = 1 << 53
_PARTS = ("user", "actions", "candidates")


def newest(workspace_uri: str, config: BundleConfig, before: "Known | None") -> "Known":
    """Return what the newest snapshot of a model's recipe knows that the data gate accepted.

    Args:
        workspace_uri: Where snapshots and their marks lie.
        config: The model's.
        before: What is known so far for this model; it is returned where nothing newer is there.

    Raises:
        ConfigurationError: there is none, or it has what the model does not understand.
        SnapshotDamagedError: files are missing.
    """
    recipe = config.recipe.reference
    mark = newest_mark(accepted_folder(workspace_uri, recipe))
    if mark is None:
        raise ConfigurationError(
            f"no snapshot of the recipe {recipe} is in {workspace_uri}; expected one that the data "
            f"gate accepted; let a cycle run, or serve without --by-id"
        )
    if before and before.snapshot.uri == mark.snapshot_uri:
        return before
    snapshot = storage.read_model(snapshot_manifest_uri(mark.snapshot_uri), Snapshot)
    of, wanted = snapshot.features, config.features
    found = (snapshot.embedding_version, of.action_types, of.categorical)
    if found != (config.embedding_version, wanted.action_types, wanted.categorical):
        raise ConfigurationError(
            f"{mark.snapshot_uri} has other embeddings, action types or categorical features than "
            f"the model; expected a snapshot like the model's own; it comes with the next cycle"
        )
    return Known(snapshot, config)


class Known:
    """The users and the pins of one snapshot, for one model.

    Args:
        snapshot: With the model's embeddings, types of actions and categorical features.
        config: The model's.

    Raises:
        SnapshotDamagedError: files are missing.
    """

    def __init__(self, snapshot: Snapshot, config: BundleConfig) -> None:
        self.snapshot, self._features = snapshot, config.features
        self._longest = config.model.max_actions
        with storage.local_copy(snapshot.uri) as place:  # What is mapped outlives its name.
            features = snapshot.features
            self._reader = SnapshotReader(snapshot.shards, place, features, self._longest)
        index = self._reader.index(SPLIT_TRAINING, SPLIT_HOLDOUT)
        # A user is in one shard, whose requests are by user and time.
        last = index.take(np.flatnonzero(np.diff(index.user_id_M, append=0) != 0))
        self._last = last.take(np.argsort(last.user_id_M))
        self._users = Places(self._last.user_id_M)
        self._pins = Places(self._reader.pins["pin_id"])

    def complete(self, given: Any, now_ms: int) -> Any:
        """Return a request with what it leaves out; one that cannot be read stays as it is.

        The embedding and the features of a user, earlier actions than those given, and embeddings
        and features of pins come from here. A user whom the snapshot has not is a new one.

        Args:
            given: As `training.bundle.ranking_requests` says, less what is known here.
            now_ms: Since when its ages count where it does not say so, ms since the epoch.

        Raises:
            RequestRefusedError: it gives no embeddings of pins which the snapshot has not, or an
                id or `requested_at` is none.
        """
        try:
            user, actions, candidates = (_lists(given.get(name, {})) for name in _PARTS)
            if type(at := given.get("requested_at", now_ms)) is not int or abs(at) > _FAR_MS:
                raise RequestRefusedError(f"requested_at is {at!r}; expected ms since 1970")
            if actions:
                self._describe("actions", actions, at, ())
            of_pins = self._features.categorical_of("pins")
            self._describe("candidates", candidates, at, of_pins)
            if user.get("id") is not None:
                actions = self._recall(user, actions, candidates, at)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return given  # `Decoder` says what it should be.
        return {**given, "user": user, "actions": actions, "candidates": candidates}

    def _describe(
        self, part: str, given: dict[str, Any], at: int, features: Sequence[CategoricalFeature]
    ) -> None:
        """Add embeddings and features of pins, where they are left out."""
        places = self._pins.find(_ids(f"{part}.pin_id", given["pin_id"]))
        rows, is_here = np.maximum(places, 0), places >= 0
        embeddings, is_known = self._reader.pins_at(rows, np.full(len(rows), at))
        if "embedding" not in given:
            if not is_here.all():
                some = [given["pin_id"][n] for n in np.flatnonzero(~is_here)[:3]]
                raise RequestRefusedError(
                    f"{part}.embedding is missing, and the snapshot of {self.snapshot.as_of:%F} "
                    f"has no pin {', '.join(map(str, some))}; expected {part}.embedding for pins "
                    f"that are newer, or others"
                )
            given["embedding"] = embeddings
        for each in features:
            codes = self._reader.pins[categorical_column(each.name)][rows] * is_here * is_known
            given.setdefault(each.name, [(None, *each.values)[code] for code in codes])

    def _recall(
        self, user: dict[str, Any], given: dict[str, Any], candidates: dict[str, Any], at: int
    ) -> dict[str, Any]:
        """Add what is known of a user; return actions, with those that are older than all given."""
        place = self._users.find(_ids("user.id", [user["id"]]))
        if place[0] < 0:
            return given
        one = self._last.take(place)
        user.setdefault("embedding", self._reader.user_column(one, "embedding")[0])
        for each in self._features.categorical_of("users"):
            [code] = self._reader.user_column(one, categorical_column(each.name))
            candidates.setdefault(each.name, (None, *each.values)[code])
        types, rows, pins, ages = (
            of[0].numpy() for of in self._reader.sequences(one, np.array([at])).values()
        )
        newer = [len(given["age_ms"]), max(given["age_ms"], default=-1)] if given else [0, -1]
        kept = np.flatnonzero((types > 0) & (ages > newer[1]))[: max(self._longest - newer[0], 0)]
        # The names that the request has for pins, where the log's ids are made of them.
        ids = _ids("candidates.pin_id", candidates["pin_id"]).tolist()
        names = dict(zip(ids, candidates["pin_id"], strict=True))
        pin_ids = self._reader.pins["pin_id"][rows[kept]].tolist()
        earlier = {
            "action_type": [self._features.action_types[code - 1] for code in types[kept]],
            "pin_id": [names.get(each, each) for each in pin_ids],
            "embedding": pins[kept],
            "age_ms": ages[kept].tolist(),
        }
        return given | {name: [*given.get(name, ()), *earlier[name]] for name in ACTION_COLUMNS}


def _lists(given: Any) -> dict[str, Any]:
    """Return columns as JSON has them, where Arrow's are numpy's; vectors stay as they are."""
    is_plain = {name: getattr(each, "ndim", 0) != 1 for name, each in given.items()}
    return {name: each if is_plain[name] else each.tolist() for name, each in given.items()}


def _ids(place: str, values: Sequence[Any]) -> np.ndarray:
    """Return ids as a log has them, int64."""
    found = [id_of(each) if isinstance(each, str) else each for each in values]
    if not all(type(each) is int and each.bit_length() < 64 for each in found):
        raise RequestRefusedError(f"{place} is no id; expected an integer of 64 bits, or a text")
    return np.array(found, dtype=np.int64)
