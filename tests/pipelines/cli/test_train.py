"""`homefeed train`: every option is there, reaches the training, and is refused when wrong."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.main import app
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.files import write_json
from pipelines.recipes import make_recipe
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path
from support.damage import flip_a_byte
from support.runs import make_run
from support.worlds import write_planted_world
from training.fitting.spec import NodeAddress, TrainingResult, TrainingSpec
from training.fitting.work_folder import WorkFolder

SMALL = "extends: smoke\nmodel: {first_k: 3, mlp_dims: [8]}\ntraining: {batch_size: 256, seed: 3}\n"
"""A recipe file; a field of model and training that differs stands there."""


def homefeed_train(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", *arguments])


def spec_of(arguments: list[str], monkeypatch) -> tuple[TrainingSpec, NodeAddress | None]:
    """Return what a command line would have trained, and where."""
    asked: list[Any] = []

    def train(*given: Any) -> TrainingResult:
        asked.extend(given)
        return TrainingResult.model_construct(bundle_dir="bundle")

    monkeypatch.setattr("training.launch.launcher.train", train)
    monkeypatch.setenv("MODEL", "{}")  # which must change nothing
    done = homefeed_train(*arguments)
    if done.exception:
        raise done.exception
    spec, node = asked
    return spec, node


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory) -> Snapshot:
    folder = tmp_path_factory.mktemp("planted")
    write_planted_world(folder / "event_log")
    return write_snapshot(make_run(folder))


@pytest.fixture
def arguments(snapshot: Snapshot, tmp_path: Path) -> list[str]:
    return ["--snapshot", snapshot.uri, "--to", str(tmp_path / "out"), "--recipe", "smoke"]


@pytest.fixture
def small(arguments: list[str], tmp_path: Path) -> list[str]:
    """The arguments with another recipe."""
    (tmp_path / "small.yaml").write_text(SMALL)
    return [*arguments, "--recipe", str(tmp_path / "small.yaml")]


def test_the_options_reach_the_training(snapshot, arguments, small, tmp_path, monkeypatch) -> None:
    spec, node = spec_of(arguments, monkeypatch)
    assert (node, spec.config) == (None, make_recipe("smoke"))
    spec, _ = spec_of([*small, "--devices", "2"], monkeypatch)
    assert spec.config == make_recipe(small[-1])
    assert (spec.num_devices, spec.num_nodes, spec.accelerator) == (2, 1, "cpu")
    assert (spec.work_dir, spec.tracking_uri) == (str(tmp_path / "out"), "")
    assert spec.lineage.model_dump() == {
        "as_of": snapshot.as_of,
        "snapshot_digest": snapshot.digest,
        "code_version": code_version(),
        "code_digest": code_digest(),
        "seed": 3,
    }


def test_the_machines_of_several_reach_the_training(arguments, monkeypatch) -> None:
    several = ["--num-nodes", "2", "--node-rank", "1", "--rendezvous", "trainer-0:29500"]
    spec, node = spec_of([*arguments, *several], monkeypatch)
    assert spec.num_nodes == 2
    assert node == NodeAddress(rank=1, rendezvous="trainer-0:29500")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--recipe", "latest"), "unknown recipe 'latest'"),
        (("--recipe", "production"), "other heads or features than recipe 'production'"),
        (("--num-nodes", "2"), "expected a node rank in .* and a rendezvous HOST:PORT"),
        (("--snapshot", "nowhere"), "no manifest.json in file://.*/nowhere"),
        (("--to", "s3://bucket/out"), "s3://bucket/out is not on the local filesystem"),
    ],
)
def test_what_is_wrong_is_refused(arguments, wrong: tuple[str, ...], message: str) -> None:
    done = homefeed_train(*arguments, *wrong)
    assert isinstance(done.exception, ConfigurationError) and done.stdout == ""
    assert re.search(message, str(done.exception))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--seed", "5"), "No such option: --seed"),
        (("--devices", "1000000"), "less than or equal to 64"),
        (("--accelerator", "cuda"), "'cuda' is not one of 'cpu', 'gpu'"),
    ],
)
def test_what_is_no_option_is_wrong_usage(
    arguments, wrong: tuple[str, ...], message: str, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    done = homefeed_train(*arguments, *wrong)
    assert done.exit_code == 2 and message in done.stderr  # 64, once `main` has it


def test_an_altered_snapshot_is_refused_with_its_file(snapshot, arguments, tmp_path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(local_path(snapshot.uri), copied)
    victim = copied / snapshot.shards[0].name / "examples.arrow"
    flip_a_byte(victim)
    done = homefeed_train(*arguments, "--snapshot", str(copied))
    assert isinstance(done.exception, DataContractError)
    assert "examples.arrow was altered" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_other_code_does_not_go_on_nor_begin_anew(arguments, small, monkeypatch) -> None:
    spec, _ = spec_of(arguments, monkeypatch)
    other = spec.lineage.model_copy(update={"code_digest": "0123456789abcdef"})
    write_json(WorkFolder(Path(spec.work_dir)).spec, spec.model_copy(update={"lineage": other}))
    with pytest.raises(ConfigurationError, match=r"by other code: found digest 0123456789ab "):
        spec_of(arguments, monkeypatch)
    spec_of(small, monkeypatch)  # other options begin anew


def test_a_changed_checkout_is_told_by_its_training_code_alone(arguments, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.cli.train.code_version", lambda: "0123456789ab")
    spec, _ = spec_of(arguments, monkeypatch)
    write_json(WorkFolder(Path(spec.work_dir)).spec, spec)
    monkeypatch.setattr("pipelines.cli.train.code_version", lambda: "0123456789ab-dirty")
    after_a_change_to_the_docs, _ = spec_of(arguments, monkeypatch)
    assert after_a_change_to_the_docs.identity() == spec.identity()
    monkeypatch.setattr("pipelines.cli.train.code_digest", lambda: "f" * 64)
    with pytest.raises(ConfigurationError, match="by other code: .* expected ffffffffffff "):
        spec_of(arguments, monkeypatch)


def test_trains_a_bundle_and_finds_it_finished(snapshot, small, tmp_path, caplog) -> None:
    # the snapshot is where it is said to be, not where its manifest says it was built
    moved = tmp_path / "moved"
    local_path(snapshot.uri).rename(moved)
    caplog.set_level("INFO")
    try:
        given = [*small, "--snapshot", str(moved)]
        first = homefeed_train(*given)
        assert first.exit_code == 0, first.output
        bundle = Path(first.stdout.splitlines()[-1])
        assert bundle == tmp_path / "out" / "bundle"
        written = {path: path.stat().st_mtime_ns for path in bundle.iterdir()}
        assert bundle / "weights.safetensors" in written
        second = homefeed_train(*given)
        assert second.stdout == first.stdout
        assert "is finished already" in caplog.text
        assert {path: path.stat().st_mtime_ns for path in bundle.iterdir()} == written
    finally:
        moved.rename(local_path(snapshot.uri))
