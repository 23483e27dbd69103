"""A recipe from outside is read once, in `resolve_run`; every lineage names it but the code's."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow.artifacts import load_dict

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, ResolvedRun, RunRequest
from pipelines.contracts.code_identity import code_digest, code_version, project_digest
from pipelines.contracts.config import RecipeRef
from pipelines.registry import tracking
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact, read_record, start_run
from support.worlds import write_planted_world
from training.bundle.files import read_config

pytestmark = pytest.mark.services
AS_OF = datetime(2017, 3, 2, tzinfo=UTC)
MODULE = "recipes_of_a_team"
FUNCTION = """
from pipelines.recipes import smoke

def careful():
    training = smoke().training.model_copy(update={"learning_rate": 0.001})
    return smoke().model_copy(update={"recipe": "careful", "training": training})
"""
STAGES = ("build_snapshot", "check_snapshot", "train_challenger")


@pytest.fixture
def settings(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    write_planted_world(tmp_path / "home" / "event_log")
    values = {
        "home": str(tmp_path / "home"),
        "tracking_uri": tracking_uri,
        "registered_model": f"outside_{tmp_path.name}",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"HOMEFEED_{name.upper()}", value)
    return Settings()


def test_later_stages_run_when_the_module_is_gone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / f"{MODULE}.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(str(folder))
    codes = code_version(), code_digest(), project_digest()
    asked = {"recipe": f"{MODULE}:careful", "as_of": AS_OF, "now": AS_OF, "may_promote": True}
    run = start_run(RunRequest(**asked, num_devices=1, trigger="outside"), settings)
    shutil.rmtree(folder)
    del sys.modules[MODULE]
    for stage in STAGES:  # as Airflow runs them: each in a process of its own
        words = [sys.executable, "-m", "pipelines.cli", "stage", stage, run.run_uri]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    assert read_artifact(run.run_uri, "resolve_run", ResolvedRun) == run
    assert MODULE not in sys.modules

    config = run.config
    ref = RecipeRef(name="careful", digest=config.recipe_digest, reference=f"{MODULE}:careful")
    assert config.recipe_ref == ref and config.training.learning_rate == 0.001
    assert all(read_record(run.run_uri, s).recipe == ref for s in ("resolve_run", *STAGES))
    trained = read_artifact(run.run_uri, "train_challenger", Challenger)
    assert read_config(storage.local_path(trained.bundle_uri)).recipe == ref
    client = tracking.connect(settings.tracking_uri)
    of_run = client.get_run(trained.model.mlflow_run_id).data
    version = client.get_model_version(trained.model.name, trained.model.version)
    assert (of_run.tags["recipe"], version.tags["recipe"]) == (ref.name, ref.name)
    with tracking.address_of_process(settings.tracking_uri):
        kept = load_dict(f"runs:/{trained.model.mlflow_run_id}/{tracking.CONFIG_FILE}")
    assert (kept["recipe_digest"], kept["recipe_reference"]) == (ref.digest, ref.reference)
    assert (kept["code_version"], kept["code_digest"]) == codes[:2]
    # The code is the same, and is not called changed, because of somebody's recipe.
    assert (run.code_version, run.code_digest) == codes[:2]
    made_with = read_record(run.run_uri, "train_challenger").made_with
    assert made_with is not None
    assert (made_with.code_version, made_with.code_digest, made_with.project_digest) == codes
