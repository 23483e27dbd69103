"""A reproduction's own registry: whole after a kill, and careful with what the original one has."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import DataContractError
from pipelines.registry import registry, tracking
from pipelines.reproduction import own_registry as made
from pipelines.reproduction.scratch import Scratch
from support.judgements import CHAMPION
from support.runs import make_run
from training.bundle import logged_files


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    folder = tmp_path / "here"
    folder.mkdir()
    own = f"sqlite:///{folder}/registry/{tracking.OWN_REGISTRY}"
    return Scratch(folder, make_run(folder, champion=CHAMPION, tracking_uri=own), ())


def make_and_be_killed_before_the_experiment(scratch: Scratch) -> int:
    child = os.fork()
    if child == 0:
        try:
            made._make_experiment = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            with made.own_registry(scratch):
                pass
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_registry_whose_maker_was_killed_is_made_whole(scratch: Scratch) -> None:
    status = make_and_be_killed_before_the_experiment(scratch)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert (scratch.registry / tracking.OWN_REGISTRY).exists()
    with made.own_registry(scratch) as client:
        experiment = client.get_experiment_by_name(scratch.run.experiment)
        assert experiment.artifact_location == (scratch.registry / "artifacts").as_uri()
        found = client.search_model_versions(f"name = '{CHAMPION.name}'")
        assert sorted(each.version for each in found) == [1, 2, int(CHAMPION.version)]
        champion = client.get_model_version(CHAMPION.name, CHAMPION.version)
        assert champion.tags["bundle_digest"] == CHAMPION.bundle_digest


@pytest.mark.parametrize("is_there", [True, False], ids=["altered", "gone"])
def test_of_a_spoiled_champion_nobody_is_told_to_move_what_serves(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    def download(source: str, folder: Path, tracking_uri: str) -> bool:
        (folder / "bundle.json").write_text("altered")
        return is_there

    client = SimpleNamespace(
        tracking_uri="http://original", get_model_version_download_uri=lambda *_: "file:///there"
    )
    monkeypatch.setattr(tracking, "connect", lambda uri: client)
    monkeypatch.setattr(registry, "read_version", lambda *_: CHAMPION)
    monkeypatch.setattr(logged_files, "fetch", download)
    original: ResolvedRun = scratch.run.model_copy(update={"tracking_uri": "http://original"})
    with pytest.raises(DataContractError, match="give --until train_anchor") as caught:
        made.fetch_champion(original, scratch)
    assert "rollback" not in str(caught.value)
