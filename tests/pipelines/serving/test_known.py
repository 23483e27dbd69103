"""A request by ids alone is ranked by what training would gather of them."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.errors import ConfigurationError, SnapshotDamagedError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.recipes import smoke
from pipelines.registry.evidence import mark_accepted
from pipelines.serving.known import Known, newest
from support.ranking import arrow_of
from support.served_world import ServedWorld
from training.bundle.ranking_requests import Decoder, RequestRefusedError, marks_of, of_arrow
from training.data.reader import SnapshotReader

FEATURES = (
    CategoricalFeature(name="topic", table="pins", values=("topic 0", "topic 1")),
    CategoricalFeature(name="state", table="users", values=("core", "non_core", "new")),
    CategoricalFeature(name="surface", table="impressions", values=("homefeed",)),
)


class Asked:
    """The last holdout request of each user of a log, as training has it."""

    def __init__(self, folder: Path) -> None:
        recipe = smoke()
        told = recipe.features.model_copy(update={"categorical": FEATURES})
        served = ServedWorld(folder, recipe.model_copy(update={"features": told}), num_users=100)
        self.run, self.side, self.config = served.run, served.side, served.mine.config
        self.known = Known(self.side.snapshot, self.config)
        shards, longest = self.side.snapshot.shards, self.config.model.max_actions
        reader = SnapshotReader(shards, self.side.snapshot_dir, told, longest)
        index = reader.index(SPLIT_HOLDOUT)
        times = reader.request_column(index, "impressed_at").tolist()
        rows = zip(index.user_id_M.tolist(), served.asked, times, strict=True)
        self.last = {user: (whole, at) for user, whole, at in rows}

    def marks(self, request: Any) -> list[str]:
        return marks_of(Decoder(self.config).decode(request).arrays)

    def by_id(self, user: int) -> dict[str, Any]:
        """Return a user's request with nothing that the snapshot knows."""
        whole, at = self.last[user]
        named = ("pin_id", "surface", *(each.name for each in self.config.features.numeric))
        candidates = {name: whole["candidates"][name] for name in named}
        asked = {"request_id": "r", "requested_at": at, "user": {"id": user}}
        return asked | {"candidates": candidates}

    def busy(self) -> tuple[int, dict[str, Any], int]:
        return next((u, *r) for u, r in self.last.items() if len(r[0]["actions"]["age_ms"]) > 3)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(tmp_path_factory.mktemp("known"))


def test_a_request_by_ids_is_what_training_gathers(asked: Asked) -> None:
    num_actions = 0
    for user, (whole, at) in asked.last.items():
        found = asked.known.complete(asked.by_id(user), 0)
        [of_arrows] = of_arrow(arrow_of([asked.by_id(user)]))
        for each in (found, asked.known.complete(of_arrows, 0)):
            assert asked.marks(each) == asked.marks(whole)
        num_actions += len(found["actions"].get("age_ms", ()))
        again = asked.known.complete(whole | {"requested_at": at}, 0)
        assert asked.marks(again) == asked.marks(whole)
    assert num_actions > 500


def test_what_a_request_carries_goes_before_what_is_known(asked: Asked) -> None:
    user, whole, at = asked.busy()
    given = asked.by_id(user) | {"requested_at": at + 5_000}
    pin, types = given["candidates"]["pin_id"][0], asked.config.features.action_types
    given["actions"] = {"action_type": [types[0]], "pin_id": [pin], "age_ms": [1_000]}
    own = given["user"]["embedding"] = [0.5] * asked.config.embedding_dim
    given["candidates"]["state"] = "new"
    found, longest = asked.known.complete(given, 0), asked.config.model.max_actions
    assert (found["user"]["embedding"], found["candidates"]["state"]) == (own, "new")
    types_then = [types[0], *whole["actions"]["action_type"]][:longest]
    assert found["actions"]["action_type"] == types_then
    ages = [1_000, *(age + 5_000 for age in whole["actions"]["age_ms"])]
    assert found["actions"]["age_ms"] == ages[:longest]
    arrays = Decoder(asked.config).decode(found).arrays
    assert arrays["action_pin_keys_RS"][0] == arrays["candidate_pin_keys_C"][0]
    assert np.array_equal(arrays["action_pins_RSE"][0], arrays["candidate_pins_CE"][0])
    given["user"]["id"] = "somebody new"
    found = asked.known.complete(given, 0)
    assert found["actions"]["age_ms"] == [1_000]


@pytest.mark.parametrize("part", ["candidates", "actions"])
def test_a_pin_that_the_snapshot_has_not_is_named(asked: Asked, part: str) -> None:
    user, whole, at = asked.busy()
    given = asked.by_id(user)
    actions = {n: v for n, v in whole["actions"].items() if n != "embedding"}
    given = {**given, "actions": actions, part: {**{"actions": actions, **given}[part]}}
    given[part]["pin_id"] = [987, *given[part]["pin_id"][1:]]
    with pytest.raises(RequestRefusedError, match=rf"{part}.embedding is missing.*no pin 987;"):
        asked.known.complete(given, 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(7, "a request is int '7'"), ({"user": 3}, "user is int '3'"),
     ({"actions": [1]}, "actions is list"), ({"candidates": {}}, "candidates.pin_id is missing"),
     ({"requested_at": "noon"}, "requested_at is 'noon'; expected ms since 1970"),
     ({"candidates": {"pin_id": [None]}}, "candidates.pin_id is no id"),
     ({"candidates": {"pin_id": 5}}, "candidates.pin_id is int '5'"),
     ({"user": {"id": 1 << 70}}, "user.id is no id"),
     ({"actions": {"pin_id": [1], "age_ms": ["x"]}}, "actions.action_type is missing")],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(asked: Asked, wrong: Any, said: str) -> None:
    given = asked.by_id(asked.busy()[0]) | wrong if isinstance(wrong, dict) else wrong
    with pytest.raises(RequestRefusedError, match=re.escape(said)):
        Decoder(asked.config).decode(asked.known.complete(given, 0))


def test_the_newest_snapshot_that_the_data_gate_accepted_is_known(
    asked: Asked, tmp_path: Path
) -> None:
    config, workspace = asked.config, asked.run.workspace_uri
    with pytest.raises(ConfigurationError, match="no snapshot of the recipe smoke.*--by-id"):
        newest(workspace, config, None)
    storage.write_bytes(profile := (tmp_path / "profile.json").as_uri(), b"{}")
    mark_accepted(asked.run, asked.side.snapshot, profile)
    known = newest(workspace, config, None)
    assert newest(workspace, config, known) is known
    other = config.model_copy(update={"embedding_version": "other"})
    with pytest.raises(ConfigurationError, match="has other embeddings"):
        newest(workspace, other, None)
    shutil.rmtree(asked.side.snapshot_dir / "shard-00000")
    with pytest.raises(SnapshotDamagedError):
        newest(workspace, config, None)
    assert known.complete(asked.by_id(asked.busy()[0]), 0)["actions"]  # What is mapped stays.
