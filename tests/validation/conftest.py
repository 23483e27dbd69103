import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import CategoricalFeature
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from support.runs import make_run
from support.worlds import write_planted_world


@pytest.fixture(scope="session")
def planted_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A sound snapshot of the planted world, with a categorical feature of each table."""
    folder = tmp_path_factory.mktemp("planted")
    write_planted_world(folder / "event_log")
    recipe = smoke()
    categorical = (
        CategoricalFeature(name="surface", table="impressions", values=("homefeed",)),
        CategoricalFeature(name="embedding_version", table="pins", values=("planted-1",)),
        CategoricalFeature(name="state", table="users", values=("core", "non_core", "new")),
    )
    features = recipe.features.model_copy(update={"categorical": categorical})
    return write_snapshot(make_run(folder, recipe.model_copy(update={"features": features})))
