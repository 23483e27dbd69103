"""An own feature function is told apart by its source: in recipes, snapshots and comparisons."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.contracts.base import sha256_of
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import OwnFunctionError
from pipelines.recipes import make_recipe
from pipelines.recipes.own_functions import require_unchanged
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.counterpart import counterpart
from support.runs import make_run
from support.tiny_log import TINY_AS_OF, tiny_config

SOURCE = (
    "import numpy as np\n\n\ndef hour(seen):\n    return np.zeros(len(seen.examples.request))\n"
)
RECIPE = "extends: smoke\nfeatures:\n  numeric: [{name: 'functions_of_a_team:hour'}]\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "functions_of_a_team.py"
    path.write_text(SOURCE)
    importlib.invalidate_caches()
    yield path
    sys.modules.pop(path.stem, None)


def test_another_source_is_another_recipe(module: Path, tmp_path: Path) -> None:
    # What the recipe says of the source is not taken.
    said = RECIPE.replace("hour'}", f"hour', source_digest: '{'a' * 64}'}}")
    (tmp_path / "mine.yaml").write_text(said)
    before = make_recipe(str(tmp_path / "mine.yaml"))
    [feature] = before.features.numeric
    assert feature.source_digest == sha256_of(module)
    assert feature.label == "functions_of_a_team:hour"
    module.write_text(SOURCE + "\n\nNUMBER = 1\n")
    assert make_recipe(str(tmp_path / "mine.yaml")).recipe_digest != before.recipe_digest


@pytest.mark.parametrize("broken", ["", "import no_such_package_at_all"])
def test_a_function_of_the_image_of_the_stages_alone_is_not_asked_for_by_who_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken:  # then it has a source, and cannot be imported
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "functions_of_nobody.py").write_text(broken)
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("of_a_team", "of_nobody"))
    [feature] = make_recipe(str(tmp_path / "mine.yaml")).features.numeric
    assert bool(feature.source_digest) == bool(broken)
    with pytest.raises(OwnFunctionError, match="(?s)functions_of_nobody.*in Airflow that is the"):
        require_unchanged((feature,))


def test_a_changed_function_is_refused_in_its_cycle_and_told_of_in_a_comparison(
    module: Path, log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = NumericFeature(name="functions_of_a_team:hour", source_digest=sha256_of(module))
    config = tiny_config()
    told = config.model_copy(
        update={"features": config.features.model_copy(update={"numeric": (own,)})}
    )
    run = make_run(tmp_path, told, TINY_AS_OF)
    write_snapshot(run)
    module.write_text(SOURCE + "\n\nNUMBER = 1\n")
    with pytest.raises(OwnFunctionError, match="had .* when the recipe was read"):
        write_snapshot(run)
    plain = make_run(tmp_path, config, TINY_AS_OF)
    theirs = counterpart(plain, write_snapshot(plain), told.features, told.snapshot)
    assert theirs.features.numeric[0].source_digest == sha256_of(module)
    assert "functions_of_a_team:hour was changed since the other model was trained" in caplog.text
