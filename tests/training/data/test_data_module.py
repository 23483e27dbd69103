"""Users weigh in the loss as configured: a product over their features, 1 where nothing is said."""

from pathlib import Path

import numpy as np

from pipelines.contracts.config import CategoricalFeature, UserWeight
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path
from support.runs import make_run
from support.worlds import write_planted_world
from training.data.data_module import HomefeedDataModule

STATES = ("core", "new")  # non_core is left to the bucket of other values


def test_users_weigh_as_configured(tmp_path: Path, planted) -> None:
    write_planted_world(tmp_path / "event_log", num_users=40)
    state = CategoricalFeature(name="state", table="users", values=STATES)
    weights = tuple(
        UserWeight(feature="state", value=value, weight=weight)
        for value, weight in zip(STATES, (0.5, 3.0), strict=True)
    )
    update = {"categorical": (state,), "user_weights": weights}
    config = smoke().model_copy(update={"features": smoke().features.model_copy(update=update)})
    snapshot = write_snapshot(make_run(tmp_path, config=config))
    data = HomefeedDataModule(snapshot, local_path(snapshot.uri), config)
    batch = data.rank_batch(0, 0, 0, 1)
    codes_C = batch.categorical_CG[:, 0].numpy()
    weights_C = batch.user_weights_R[batch.request_of_C].numpy()
    assert set(codes_C) == {0, 1}
    np.testing.assert_array_equal(weights_C, np.array([1.0, 0.5, 3.0])[codes_C])

    plain = HomefeedDataModule(planted.snapshot, planted.folder, planted.config)
    assert (plain.rank_batch(0, 0, 0, 1).user_weights_R == 1).all()
