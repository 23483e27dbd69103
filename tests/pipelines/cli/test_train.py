"""`homefeed train`: every option is there, reaches the training, and is refused when wrong."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli.train import find_snapshot
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import write_json
from pipelines.recipes import make_recipe
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path, to_uri
from support.commands import homefeed, lines, refusal
from support.damage import flip_a_byte
from support.runs import make_run
from support.worlds import write_planted_world
from training.fitting.spec import NodeAddress, TrainingResult, TrainingSpec, WorkFolder

SMALL = "extends: smoke\nmodel: {first_k: 3, mlp_dims: [8]}\ntraining: {batch_size: 256, seed: 3}\n"
"""A recipe file; a field of model and training that differs stands there."""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("planted")
    write_planted_world(folder / "event_log")
    return write_snapshot(make_run(folder))


@pytest.fixture
def words(snapshot: Snapshot, tmp_path: Path) -> list[str]:
    out = str(tmp_path / "out")
    return ["train", "--snapshot", snapshot.uri, "--to", out, "--recipe", "smoke"]


@pytest.fixture
def small(words: list[str], tmp_path: Path) -> list[str]:
    """The words with another recipe."""
    (tmp_path / "small.yaml").write_text(SMALL)
    return [*words, "--recipe", str(tmp_path / "small.yaml")]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainingSpec, NodeAddress | None]]:
    """Train nothing, and keep what would have been trained, and where."""
    kept: list[tuple[TrainingSpec, NodeAddress | None]] = []

    def train(*given: Any) -> TrainingResult:
        kept.append(given)  # type: ignore[arg-type]
        return TrainingResult.model_construct(bundle_dir="bundle")

    monkeypatch.setattr("training.launch.launcher.train", train)
    monkeypatch.setenv("MODEL", "{}")  # which must change nothing
    return kept


def test_a_snapshot_is_named_by_its_place_or_the_beginning_of_its_name(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    workspace = snapshot.uri.rpartition("/snapshots/")[0]
    name = snapshot.uri.rpartition("/")[2]
    for text in (snapshot.uri, str(local_path(snapshot.uri)), name, name[:8]):
        assert find_snapshot(text, workspace) == snapshot
    moved = shutil.copytree(local_path(snapshot.uri), tmp_path / "snapshots" / "other")
    assert find_snapshot(str(moved), workspace).uri == to_uri(moved)
    shutil.copytree(moved, tmp_path / "snapshots" / "otherwise")
    (tmp_path / "snapshots" / "unfinished").mkdir()
    for text, number in (("nothing", 0), ("other", 2), ("", 2), ("unfinished", 0)):
        with pytest.raises(ConfigurationError, match=f"'{text}' names {number} snap.*; expected"):
            find_snapshot(text, to_uri(tmp_path))


def test_the_options_reach_the_training(snapshot, words, small, asked, tmp_path) -> None:
    several = ("--num-nodes", "2", "--node-rank", "1", "--rendezvous", "trainer-0:29500")
    assert lines(*words) == lines(*small, "--devices", "2") == lines(*words, *several) == ["bundle"]
    (first, alone), (spec, _), (of_two, node) = asked
    assert (alone, first.config, first.num_nodes) == (None, make_recipe("smoke"), 1)
    assert first.snapshot_dir == str(local_path(snapshot.uri))
    assert (of_two.num_nodes, node) == (2, NodeAddress(rank=1, rendezvous="trainer-0:29500"))
    assert spec.config == make_recipe(small[-1])
    assert (spec.num_devices, spec.accelerator) == (2, "cpu")
    assert (spec.work_dir, spec.tracking_uri) == (str(tmp_path / "out"), "")
    assert spec.lineage.model_dump() == {
        "as_of": snapshot.as_of,
        "snapshot_digest": snapshot.digest,
        "code_version": code_version(),
        "code_digest": code_digest(),
        "seed": 3,
    }


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        ("--recipe latest", 78, "unknown recipe 'latest'"),
        ("--recipe production", 78, "other heads or features than recipe 'production'"),
        ("--num-nodes 2", 78, "expected a rank in .* and HOST:PORT"),
        ("--snapshot nowhere", 78, "'nowhere' names 0 snapshots"),
        ("--to s3://bucket/out", 78, "s3://bucket/out is not on the local filesystem"),
        ("--snapshot {altered}", 65, "examples.arrow was altered"),
        ("--seed 5", 2, "No such option: --seed"),  # 64, once `main` has it
        ("--devices 1000000", 2, "less than or equal to 64"),
    ],
)
def test_what_is_wrong_is_refused(
    snapshot, words, tmp_path, monkeypatch, wrong: str, code: int, message: str
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    if "{altered}" in wrong:
        shutil.copytree(local_path(snapshot.uri), tmp_path / "altered")
        flip_a_byte(tmp_path / "altered" / snapshot.shards[0].name / "examples.arrow")
    done = homefeed(*words, *wrong.format(altered=tmp_path / "altered").split())
    assert getattr(done.exception, "exit_code", done.exit_code) == code and done.stdout == ""
    assert re.search(message, f"{done.exception}{done.stderr}")
    assert not (tmp_path / "out").exists() or "num-nodes" in wrong


def test_other_code_does_not_go_on_nor_begin_anew(words, small, asked, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.stages.train.code_version", lambda: "0123456789ab")
    lines(*words)
    [(spec, _)] = asked
    write_json(WorkFolder(Path(spec.work_dir)).spec, spec)
    monkeypatch.setattr("pipelines.stages.train.code_version", lambda: "0123456789ab-dirty")
    lines(*words)  # after a change to the docs
    assert asked[1][0].identity() == spec.identity()
    monkeypatch.setattr("pipelines.stages.train.code_digest", lambda: "f" * 64)
    error = refusal(*words)
    assert error.exit_code == 78
    assert re.search("by other code: found .*, expected ffffffffffff,", str(error))
    lines(*small)  # other options begin anew
